"""Keeps secrets out of a log: a process between a step and its log file that replaces every secret value by `***`.

    step | python -I masking.py >>log

`PENSTOCK_MASK` names, with commas between, the variables of this process's own environment that hold the values.
The script ends with its input. It imports nothing of Penstock and little else, because it starts beside every step
that has secrets (`re`, `json` and `base64` together would double its start-up time).

A value is looked for raw, as each of its lines, in base64 (both alphabets, whatever stands before it), URL-encoded,
JSON-escaped and in hex, wherever the borders between two reads fall. `docs/secrets.md` says what it cannot see.
"""

import os
import signal
import sys
from array import array
from binascii import b2a_base64, hexlify
from collections.abc import Iterable, Iterator

SHORTEST = 6
"""Characters below which a value, or a line of one, is not looked for: it would be found everywhere."""

VARIABLE = "PENSTOCK_MASK"
CHUNK = 65536

_LONG = 15
"""Bytes from which on a pattern can be found by words of 8 bytes."""

_FEW = 32
"""Up to so many patterns it is quicker to ask for each whether it is there at all than to look at every word."""

Span = tuple[int, int]


class Masker:
    """Replaces the shapes of some values in a stream of bytes; the same bytes come out however the stream is cut.

    What is covered by several overlapping shapes becomes one mask. Held back is only an end of the text with which a
    shape begins: at most the longest shape minus one byte. `mask` is `***`, or another sign where a value itself holds
    an asterisk: no byte of the mask stands in any shape, so masking can never put a value together.

    How it looks: a pattern of 15 bytes or more, wherever it stands, has one of its words of 8 bytes, at offset 0 to 7,
    at a multiple of 8. So one look-up in a set for each 8 bytes of text finds all candidates, however many patterns
    there are. Where one is shorter, words of 4 bytes do the same from 7 bytes on (and, by a trick, from 6). Of a few
    patterns most text holds none: then only its end is looked at so, for the beginning of one.
    """

    def __init__(self, values: Iterable[bytes]) -> None:
        patterns = {shape for value in values for shape in shapes(value)}
        self.mask = _mask(patterns)
        self._few = tuple(patterns) if len(patterns) <= _FEW else ()
        self.longest = max(map(len, patterns), default=0)
        self._width = 8 if min(map(len, patterns), default=0) >= _LONG else 4
        self._kind = {4: "I", 8: "Q"}[self._width]
        self._heads = {p[:n] for p in patterns for n in range(1, min(2 * self._width - 1, len(p)))}
        self._places = _places(patterns, self._width)
        self._words = set(self._places)
        self._held = b""
        self._covered = 0
        self._masked = False

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the text; returns those that may be shown now."""
        text = self._held + data
        spans, end = self._look(text)
        return self._show(text, spans, end)

    def flush(self) -> bytes:
        """The end of the text was reached; returns what was held back."""
        spans, _ = self._look(self._held)
        return self._show(self._held, spans, len(self._held))

    def _look(self, text: bytes) -> tuple[list[Span], int]:
        """Where shapes stand, in order of their beginnings, and from where on one may yet come to be."""
        if not self._few or any(pattern in text for pattern in self._few):
            return self._look_closely(text)
        last = max(0, len(text) - self.longest)
        spans, end = self._look_closely(text[last:])
        return spans, last + end

    def _look_closely(self, text: bytes) -> tuple[list[Span], int]:
        size = len(text)
        longest = min(2 * self._width - 2, size)
        end = next((size - n for n in range(longest, 0, -1) if text[size - n :] in self._heads), size)
        words = array(self._kind, text + bytes(-size % self._width))
        if self._words.isdisjoint(words):
            return [], end
        known, spans = self._words, []
        for index in [index for index, word in enumerate(words) if word in known]:
            for offset, pattern in self._places[words[index]]:
                start = index * self._width - offset
                if start >= 0 and text.startswith(pattern, start):
                    spans.append((start, start + len(pattern)))
                elif start >= 0 and start + len(pattern) > size and pattern.startswith(text[start:]):
                    end = min(end, start)
        return sorted(spans), end

    def _show(self, text: bytes, spans: list[Span], end: int) -> bytes:
        """The text before `end` with its spans masked; the rest is held, and how much of it is masked already."""
        parts, done = [], self._covered
        for start, stop in spans:
            if start >= end:
                break
            if start > done:
                parts.append(text[done:start])
                self._masked = False
            if not self._masked:
                parts.append(self.mask)
                self._masked = True
            done = max(done, stop)
        if end > done:
            parts.append(text[done:end])
            self._masked = False
        self._held, self._covered = text[end:], max(0, done - end)
        return b"".join(parts)


def _mask(patterns: Iterable[bytes]) -> bytes:
    used = set(b"".join(patterns))
    sign = next((sign for sign in b"*#~^|@?!." if sign not in used), ord("*"))
    return bytes((sign,)) * 3


def _places(patterns: Iterable[bytes], width: int) -> dict[int, list[tuple[int, bytes]]]:
    """For each word: the patterns that hold it, and at which offset."""
    found: dict[int, list[tuple[int, bytes]]] = {}
    for pattern in patterns:
        for offset in range(width):
            word = pattern[offset : offset + width]
            # A pattern of 6 bytes has only three whole words: the fourth ends with whatever follows it.
            ends = [b""] if len(word) == width else [bytes((n,)) for n in range(256)]
            for end in ends:
                found.setdefault(int.from_bytes(word + end, sys.byteorder), []).append((offset, pattern))
    return found


# --- shapes -------------------------------------------------------------------------------------------------------


def shapes(value: bytes) -> set[bytes]:
    """Every way of writing a value, or a line of it, that is looked for; none for a value that is too short.

    White space around is cut off first: a shape that begins with a line's end would hold back the end of every line.
    """
    pieces = {value.strip(), *(line.strip() for line in value.splitlines())}
    pieces = {piece for piece in pieces if len(_text(piece)) >= SHORTEST}
    return {shape for piece in pieces for shape in _written(piece)}


def _text(piece: bytes) -> str:
    return piece.decode("utf-8", "surrogateescape")


def _written(piece: bytes) -> Iterator[bytes]:
    yield piece
    yield from _base64(piece)
    yield from _percent(piece)
    yield from _json(_text(piece))
    lower = hexlify(piece)
    for digits in (lower, lower.upper()):
        yield digits
        yield from _wrapped(digits, 60)


def _base64(piece: bytes) -> Iterator[bytes]:
    """Base64 behind 0, 1 or 2 other bytes, without the signs that depend on what stands around the value.

    What `base64` and `openssl` print of a long value is broken into lines of 76 or 64 signs.
    """
    for before, cut in ((0, 0), (1, 2), (2, 3)):
        whole = b2a_base64(bytes(before) + piece, newline=False)
        core = whole[cut : (before + len(piece)) * 8 // 6]
        for signs in (core, core.translate(bytes.maketrans(b"+/", b"-_"))):
            yield signs
            if not before:
                yield from _wrapped(signs, 64)
                yield from _wrapped(signs, 76)


def _wrapped(signs: bytes, width: int) -> Iterator[bytes]:
    if len(signs) > width:
        lines = [signs[start : start + width] for start in range(0, len(signs), width)]
        yield b"\n".join(lines)
        yield from (line for line in lines if len(line) >= _LONG)


_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~")


def _percent(piece: bytes) -> Iterator[bytes]:
    """As `quote`, `quote_plus`, JavaScript's `encodeURIComponent` and others write it; digits in both cases."""
    for kept in (b"", b"/", b"!'()*"):
        for form in ("%%%02X", "%%%02x"):
            signs = {n: (chr(n) if n in _UNRESERVED or n in kept else form % n).encode() for n in range(256)}
            quoted = b"".join(signs[n] for n in piece)
            yield quoted
            yield quoted.replace(b"%20", b"+")


_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _json(text: str) -> Iterator[bytes]:
    """Inside a JSON string: with and without escapes for what is not ASCII, for slashes, and for HTML's signs."""
    for form in ("\\u%04x", "\\u%04X"):
        plain = "".join(_SHORT.get(c) or (form % ord(c) if c < " " else c) for c in text)
        ascii_ = "".join(c if " " <= c <= "~" else _units(c, form) for c in plain)
        for written in (plain, ascii_):
            yield written.encode("utf-8", "surrogateescape")
            yield written.replace("/", "\\/").encode("utf-8", "surrogateescape")
            yield "".join(form % ord(c) if c in "<>&" else c for c in written).encode("utf-8", "surrogateescape")


def _units(character: str, form: str) -> str:
    """A character as UTF-16 units, each an escape."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(form % int.from_bytes(units[n : n + 2], "big") for n in range(0, len(units), 2))


# --- the process ----------------------------------------------------------------------------------------------------


def main() -> None:
    """Copy stdin to stdout with the values of the named variables masked."""
    # Whoever ends the step's processes ends this one by its input: what they still say must reach the log.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    names = [name for name in os.environb.get(VARIABLE.encode(), b"").split(b",") if name]
    for name in names:
        if name not in os.environb:
            _write(b"penstock: the secret %s is not set here, so it is not masked\n" % name)
    masker = Masker(os.environb[name] for name in names if name in os.environb)
    while data := os.read(0, CHUNK):
        _write(masker.feed(data))
    _write(masker.flush())


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    main()
