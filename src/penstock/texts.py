"""Texts: columns of short texts as arrays of bytes, with their canonical form, their numbers and their order.

A million texts are one array, never a million objects. Texts are UTF-8 without NUL; one of more than `WIDTH` bytes is
kept as its beginning and its digest, which is enough to tell whether two are equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from penstock.artifacts import Digest, digest_of, digest_of_bytes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Texts = npt.NDArray[np.bytes_]
    Places = npt.NDArray[np.int64]
    Bytes = npt.NDArray[np.uint8]
    Flags = npt.NDArray[np.bool_]
    Floats = npt.NDArray[np.float64]
    Keys = npt.NDArray[np.uint64]

WIDTH = 64
_BLOCK = 1 << 15


# --- making them ---------------------------------------------------------------------------------------------------


def texts_of(values: Sequence[str]) -> Texts:
    """Texts as an array, those of more than `WIDTH` bytes abbreviated."""
    import numpy as np

    encoded = [abbreviated(value.encode("utf-8", "surrogatepass")) for value in values]
    return np.array(encoded, dtype=f"S{max(map(len, encoded), default=1) or 1}")


def abbreviated(text: bytes) -> bytes:
    """The text itself, or its first bytes and its digest where it has more than `WIDTH`."""
    return text if len(text) <= WIDTH else text[:20] + b"~" + digest_of_bytes(text)[:43].encode()


def cut_out(data: Bytes, starts: Places, ends: Places) -> Texts:
    """The texts between starts and ends of `data`, behind which `WIDTH` more bytes of any value must lie."""
    import numpy as np

    lengths = ends - starts
    width = max(1, min(WIDTH, int(lengths.max(initial=0))))
    windows: Texts = np.ndarray((len(data) - width + 1,), f"S{width}", data, strides=(1,))
    found = windows[starts]
    inside = np.arange(width, dtype=np.uint8) < np.minimum(lengths, 255).astype(np.uint8)[:, None]
    np.multiply(as_bytes(found), inside, out=as_bytes(found))
    for place in np.flatnonzero(lengths > WIDTH).tolist():
        found[place] = abbreviated(data[starts[place] : ends[place]].tobytes())
    return found


def as_bytes(texts: Texts) -> Bytes:
    """The same memory as a table of bytes, one row per text, filled up with zeros."""
    import numpy as np

    return texts.view(np.uint8).reshape(len(texts), texts.dtype.itemsize)


def decoded(text: bytes) -> str:
    return text.decode("utf-8", "replace")


# --- what they mean ------------------------------------------------------------------------------------------------

_NUMBER = re.compile(rb"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,6})?")
_BOOLEANS = {b"True": b"true", b"False": b"false"}
_PLAIN = 24


def canonical_text(text: bytes) -> bytes:
    """The one way to write what a text means.

    Numbers in decimal notation (`-?digits.digits`, an exponent) lose plus sign, leading and trailing zeros: `+3.0`,
    `03` and `3e0` become `3`, `-0` becomes `0`. No digit is lost; beyond 24 characters a number is `DIGITSeEXPONENT`.
    `True` and `False` become `true` and `false`. Every other text stays.
    """
    if _NUMBER.fullmatch(text) is None:
        return _BOOLEANS.get(text, text)
    sign, digits, exponent = Decimal(text.decode()).as_tuple()
    whole = "".join(map(str, digits)).lstrip("0")
    kept = whole.rstrip("0")
    if not kept:
        return b"0"
    power = int(exponent) + len(whole) - len(kept)
    return (("-" if sign else "") + _plain(kept, power)).encode()


def _plain(digits: str, power: int) -> str:
    if power >= 0:
        text = digits + "0" * power if len(digits) + power <= _PLAIN else ""
    elif -power < len(digits):
        text = f"{digits[:power]}.{digits[power:]}"
    else:
        text = f"0.{'0' * (-power - len(digits))}{digits}" if 2 - power <= _PLAIN else ""
    return text if 0 < len(text) <= _PLAIN else f"{digits}e{power}"


def canonical(texts: Texts) -> Texts:
    """Each text as `canonical_text` writes it; most are so already, and are told by looking at all at once."""
    import numpy as np

    kept = texts.copy()
    doubtful = [places for part, start in _blocks(kept) for places in (_doubtful(part) + start,) if len(places)]
    if not doubtful:
        return kept
    places = np.concatenate(doubtful)
    written = kept[places].tolist()
    meaning = {text: canonical_text(text) for text in set(written)}
    mended = np.array([abbreviated(meaning[text]) for text in written])
    kept = kept.astype(max(kept.dtype, mended.dtype), copy=False)
    kept[places] = mended
    return kept


def _blocks(texts: Texts) -> Iterator[tuple[Bytes, int]]:
    """Some thousands of texts at a time as a table of bytes, so that what is computed of them stays in the cache."""
    table = as_bytes(texts)
    for start in range(0, len(texts), _BLOCK):
        yield table[start : start + _BLOCK], start


def _doubtful(table: Bytes) -> Places:
    """Cut the zeros behind a point off, and tell where numbers may still be written in another than the one way."""
    import numpy as np

    first, second, third = (table[:, i] if i < table.shape[1] else np.zeros_like(table[:, 0]) for i in range(3))
    boolean = (first == 84) | (first == 70)
    if not (_may_be_number(first) | boolean).any():
        return np.flatnonzero(boolean)
    seen = _Seen(table)
    number = seen.is_number & _may_be_number(first)
    strange = seen.has_exponent | (first == 43) | (first == 46) | (seen.length > _PLAIN)
    strange |= ((first == 48) & (seen.length > 1) & (second != 46)) | ((first == 45) & (second == 46))
    strange |= (first == 45) & (second == 48) & (third != 46)
    ends = number & ~strange & (seen.dots == 1) & ((seen.last == 48) | (seen.last == 46))
    cut = np.flatnonzero(ends)
    _cut_zeros(table, cut, seen.length[cut].astype(np.int64))
    nothing = cut[(first[cut] == 45) & (second[cut] == 48) & (third[cut] == 0)]
    return np.concatenate([np.flatnonzero((number & strange) | boolean), nothing])


def _may_be_number(first: Bytes) -> Flags:
    return (first >= 43) & (first <= 57)


def _cut_zeros(table: Bytes, rows: Places, lengths: Places) -> None:
    """Take the zeros at the end off, and then the point."""
    import numpy as np

    while len(rows):
        last = table[rows, lengths - 1]
        table[rows, lengths - 1] = np.where((last == 48) | (last == 46), 0, last)
        on = last == 48
        rows, lengths = rows[on], lengths[on] - 1


class _Seen:
    """What is seen of each text when its bytes are looked at one after the other."""

    def __init__(self, table: Bytes) -> None:
        import numpy as np

        rows = len(table)
        self.length, self.dots, self.last = (np.zeros(rows, np.uint8) for _ in range(3))
        digits, other, exponent = np.zeros(rows, np.uint8), np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)
        for place, byte in enumerate(np.ascontiguousarray(table.T)):
            digit, dot, power, there = (byte - np.uint8(48)) < 10, byte == 46, (byte | 32) == 101, byte != 0
            sign = (byte == 43) | (byte == 45)
            digits |= digit
            self.dots += dot
            self.length += there
            other |= there & ~(digit | dot | power | (sign if place == 0 else sign & exponent))
            exponent |= power
            np.copyto(self.last, byte, where=there)
        self.has_exponent: Flags = exponent
        self.is_number: Flags = (digits != 0) & ~other & (self.dots <= 1)


def numbers(texts: Texts) -> Floats:
    """The numbers that canonical texts write, NaN for what is none; beyond 15 digits the last bit may differ."""
    import numpy as np

    found = np.empty(len(texts))
    for table, start in _blocks(texts):
        values, sure = _decimals(table)
        found[start : start + len(table)] = values
        for place in (np.flatnonzero(~sure & _may_be_number(table[:, 0])) + start).tolist():
            text = bytes(texts[place])
            found[place] = float(text) if _NUMBER.fullmatch(text) else np.nan
    return found


def _decimals(table: Bytes) -> tuple[Floats, Flags]:
    """The values of plain decimals of up to 18 digits after leading zeros, else NaN; and which texts are such.

    Nine digits at a time are small numbers, of which more are multiplied at once.
    """
    import numpy as np

    rows = len(table)
    mantissa, part = np.zeros(rows, np.int64), np.zeros(rows, np.uint32)
    digits, places, any_digit, in_part = (np.zeros(rows, np.uint8) for _ in range(4))
    dotted, begun, sure = np.zeros(rows, np.bool_), np.zeros(rows, np.bool_), np.ones(rows, np.bool_)
    columns = np.ascontiguousarray(table.T)
    for place, byte in enumerate(columns):
        digit = byte - np.uint8(48)
        is_digit, is_dot = digit < 10, byte == 46
        ones = is_digit.view(np.uint8)
        part *= ones * np.uint8(9) + np.uint8(1)
        part += digit * ones
        in_part += is_digit
        begun |= is_digit & (digit > 0)
        any_digit |= is_digit
        digits += is_digit & begun
        places += is_digit & dotted
        sure &= is_digit | (byte == 0) | (is_dot & ~dotted) | ((byte == 45) if place == 0 else False)
        dotted |= is_dot
        if place % 9 == 8 or place == len(columns) - 1:
            mantissa *= (10 ** np.arange(10))[in_part]
            mantissa += part
            part[:], in_part[:] = 0, 0
    sure &= (any_digit != 0) & (digits <= 18) & (places <= 22)
    values = mantissa / (10.0 ** np.arange(23))[np.minimum(places, 22)]
    return np.where(sure, np.where(table[:, 0] == 45, -values, values), np.nan), sure


# --- order ---------------------------------------------------------------------------------------------------------


def order(texts: Texts) -> Places:
    """The places of the texts in the order of their bytes; equal ones stay as they are."""
    import numpy as np

    count = len(texts)
    if not count:
        return np.zeros(0, np.int64)
    lows, spans = _ranges(texts)
    columns = [column for column, span in enumerate(spans) if span > 1]
    keys: list[Keys] = []
    room = 0
    for column in columns:
        bytes_of = as_bytes(texts)[:, column]
        if room < spans[column]:
            keys.append(np.zeros(count, np.uint64))
            room = 1 << 64
        room //= spans[column]
        keys[-1] *= np.uint64(spans[column])
        keys[-1] += bytes_of - lows[column]
    if len(keys) > 1:
        return np.lexsort(keys[::-1])
    return _order_of_numbers(keys[0], room) if keys else np.arange(count)


def _ranges(texts: Texts) -> tuple[Bytes, list[int]]:
    """Of each column of bytes the least, and how many values there may be."""
    import numpy as np

    table = as_bytes(texts)
    lows, highs = table[0].copy(), table[0].copy()
    for part, _ in _blocks(texts):
        np.minimum(lows, part.min(axis=0), out=lows)
        np.maximum(highs, part.max(axis=0), out=highs)
    return lows, [int(span) + 1 for span in highs - lows]


def _order_of_numbers(keys: Keys, room: int) -> Places:
    """Sorted with their places in the lower digits where there is room for them, which is fastest."""
    import numpy as np

    count = len(keys)
    if (keys[1:] >= keys[:-1]).all():
        return np.arange(count)
    if room < count:
        return np.argsort(keys, kind="stable")
    joined = keys * np.uint64(count) + np.arange(count, dtype=np.uint64)
    joined.sort()
    return (joined % np.uint64(count)).astype(np.int64)


def repeated(texts: Texts) -> Places:
    """For texts in order: the places of those that equal the one before."""
    import numpy as np

    return np.flatnonzero(texts[1:] == texts[:-1]) + 1


def matched(one: Texts, other: Texts) -> tuple[Places, Places]:
    """The places of the texts that both have, in both; each is in order and without repetition."""
    import numpy as np

    if len(one) == len(other) and (one == other).all():
        return np.arange(len(one)), np.arange(len(other))
    both = np.concatenate([one, other])
    places = order(both)
    first = np.flatnonzero(both[places[1:]] == both[places[:-1]])
    return places[first], places[first + 1] - len(one)


def coded(texts: Texts) -> tuple[npt.NDArray[np.int32], tuple[str, ...]]:
    """Each text as the number of its label, and the labels in order."""
    import numpy as np

    places = order(texts)
    ordered = texts[places]
    begins = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1])
    numbered = np.zeros(len(texts), np.int32)
    numbered[begins[1:]] = 1
    codes = np.empty(len(texts), np.int32)
    codes[places] = np.cumsum(numbered, dtype=np.int32)
    return codes, tuple(decoded(label) for label in ordered[begins].tolist())


def digest_of_texts(tag: str, columns: Sequence[Texts]) -> Digest:
    """The digest of columns of texts in their order, each filled up with zeros to the longest of its column."""
    import numpy as np

    shaped: list[tuple[int, int, str]] = []
    for texts in columns:
        table = as_bytes(texts)
        width = max((i + 1 for i in range(table.shape[1]) if table[:, i].any()), default=0)
        shaped.append((len(table), width, digest_of_bytes(np.ascontiguousarray(table[:, :width]).tobytes())))
    return digest_of(tag, shaped)
