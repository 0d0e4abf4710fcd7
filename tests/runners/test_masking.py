"""The masker: no shape of a value passes, whatever the borders between two reads, and all else passes as it is."""

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from penstock.runners import masking
from penstock.runners.masking import CHUNK, SHORTEST, Masker

SCRIPT = str(Path(masking.__file__))
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure

# What an environment can hold: any bytes but NUL; text with spaces around and lines inside.
VALUES = st.one_of(
    st.binary(min_size=SHORTEST, max_size=40).map(lambda b: b.replace(b"\0", b"\1")),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=6, max_size=60).map(str.encode),
    st.text("ab\n", min_size=6, max_size=30).map(str.encode),
)


def core(encoded: bytes, before: int, length: int) -> bytes:
    """The signs of a base64 text that depend on nothing but the value, which stands behind `before` bytes."""
    return encoded[-(-before * 8 // 6) : (before + length) * 8 // 6]


def in_json(value: bytes, *, ascii_: bool) -> bytes:
    text = json.dumps(value.decode("utf-8", "surrogateescape"), ensure_ascii=ascii_)
    return text[1:-1].encode("utf-8", "surrogateescape")


SHAPES: Mapping[str, Callable[[bytes], bytes]] = {
    "raw": lambda v: v,
    "base64": lambda v: core(base64.b64encode(v), 0, len(v)),
    "base64 behind one": lambda v: core(base64.b64encode(b"x" + v + b"yz"), 1, len(v)),
    "base64 behind two": lambda v: core(base64.b64encode(b"no" + v + b"\n"), 2, len(v)),
    "base64 behind five, url-safe": lambda v: core(base64.urlsafe_b64encode(b"user:" + v), 5, len(v)),
    "base64 in lines of 76": lambda v: base64.encodebytes(v)[: (signs := len(v) * 8 // 6) + (signs - 1) // 76],
    "quote": lambda v: quote(v).encode(),
    "quote all": lambda v: quote(v, safe="").encode(),
    "quote_plus": lambda v: quote_plus(v).encode(),
    "json": lambda v: in_json(v, ascii_=False),
    "json in ascii": lambda v: in_json(v, ascii_=True),
    "hex": lambda v: v.hex().encode(),
    "HEX": lambda v: v.hex().upper().encode(),
}


def masked(values: Sequence[bytes], pieces: Sequence[bytes]) -> bytes:
    masker = Masker(values)
    return b"".join([*map(masker.feed, pieces), masker.flush()])


def cut(text: bytes, places: Sequence[int]) -> list[bytes]:
    """The text in pieces that end at these places, wherever they fall."""
    borders = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in pairwise(borders)]


def looked_for(value: bytes) -> list[bytes]:
    """The value and its lines, as far as they are long enough."""
    pieces = [value.strip(), *(line.strip() for line in value.splitlines())]
    return [p for p in pieces if len(p.decode("utf-8", "surrogateescape")) >= SHORTEST]


CUTS = st.lists(st.integers(0, 10_000), max_size=12)


@CALM
@given(
    st.lists(VALUES, min_size=1, max_size=4),
    st.lists(st.tuples(st.sampled_from(sorted(SHAPES)), st.integers(0, 3), st.binary(max_size=9)), max_size=8),
    CUTS,
)
@example([b"******", b"qwerty"], [("raw", 1, b"***"), ("raw", 1, b"***")], [])
@example([b"abcabc", b"bcabca"], [("raw", 0, b""), ("raw", 1, b""), ("raw", 0, b"abca")], [3, 5, 8])
def test_no_shape_passes(values: list[bytes], said: list[tuple[str, int, bytes]], cuts: list[int]) -> None:
    """Whatever is said in whatever shape and cut anywhere, the log holds no shape of any value or line."""
    text = b"".join(SHAPES[shape](values[which % len(values)].strip()) + after for shape, which, after in said)
    shown = masked(values, cut(text, cuts))
    for piece in [piece for value in values for piece in looked_for(value)]:
        found = [shape for shape, write in SHAPES.items() if len(write(piece)) >= SHORTEST and write(piece) in shown]
        assert found == [], (piece, shown)


@CALM
@given(st.lists(VALUES, min_size=1, max_size=3), st.lists(st.binary(max_size=60), max_size=6), CUTS)
def test_borders_change_nothing(values: list[bytes], between: list[bytes], cuts: list[int]) -> None:
    """The same text gives the same log however it is cut, secrets side by side and overlapping included."""
    text = b"".join(b + values[n % len(values)][: 40 - n] for n, b in enumerate(between))
    assert masked(values, cut(text, cuts)) == masked(values, [text])


@CALM
@given(st.lists(VALUES, max_size=3), st.binary(max_size=400), CUTS)
def test_what_is_no_secret_passes(values: list[bytes], text: bytes, cuts: list[int]) -> None:
    """A text in which no value stands comes out byte by byte as it went in, beginnings of values included."""
    text += b"".join(value.strip()[:5] for value in values)
    shapes = {shape for value in values for shape in masking.shapes(value)}
    if not any(shape in text for shape in shapes):
        assert masked(values, cut(text, cuts)) == text


@pytest.mark.parametrize("shape", sorted(SHAPES))
@pytest.mark.parametrize("value", [b"hunter2/+?", "pässwörd ☃ \U0001f512".encode(), b'{"key": "a\\b<c>"}', b"x" * 300])
def test_each_shape_becomes_three_stars(shape: str, value: bytes) -> None:
    """A shape in the midst of a line is replaced whole, byte by byte as it comes."""
    text = b"<" + SHAPES[shape](value) + b">"
    assert masked([value], [bytes((n,)) for n in text]) == b"<***>"


def test_every_line_of_a_value() -> None:
    """The lines of a value are masked one by one and indented, and a line under 6 characters is not."""
    key = b"-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA\nshort\n-----END KEY-----\n"
    assert masked([key], [key]) == b"***\n"
    text = b"  MIIEpAIBAAKCAQEA\r\nshort\n"
    assert masked([key], [text]) == b"  ***\r\nshort\n"


@pytest.mark.parametrize(("written", "kind"), [("a%2fb%20c%25d", "lower"), ("a%2Fb%20c%25d", "upper")])
def test_url_escapes_in_both_cases(written: str, kind: str) -> None:
    """Percent escapes are known with small and with large digits."""
    assert masked([b"a/b c%d"], [written.encode()]) == b"***", kind


def test_json_as_others_write_it() -> None:
    r"""Escaped slashes, HTML's signs as \u003c, and large digits are JSON too."""
    for written in (r"<tag\/é>", r"\u003Ctag/\u00E9\u003E", r"\u003ctag/é\u003e"):
        assert masked(["<tag/é>".encode()], [written.encode()]) == b"***", written


def test_short_values_do_not_shred_the_log() -> None:
    """A value under 6 characters (spaces around it apart) is not looked for."""
    text = b"a text of letters"
    assert masked([b"t", b"ext", b" of  ", b"", b"\n\n\n\n\n\n\n", "ä".encode() * 5], [text]) == text


def test_overlapping_values_are_one_mask() -> None:
    """What two values cover together is masked whole, not only the first of them."""
    assert masked([b"abcdefgh", b"efghijkl"], [b"-abcdefghijkl-"]) == b"-***-"


@CALM
@given(st.lists(st.binary(max_size=200), max_size=8))
def test_little_is_held_back(pieces: list[bytes]) -> None:
    """Only an end with which a value begins is held back, and never more than the longest shape minus one byte."""
    masker = Masker([b"secret-value\nanother line"])
    given_, shown = b"", b""
    for piece in pieces:
        given_, shown = given_ + piece, shown + masker.feed(piece)
        assert len(given_) - len(shown) < masker.longest
    assert masker.feed(b"\n") is not None
    assert masker.feed(b"a line\n").endswith(b"\n")


# --- the process ---------------------------------------------------------------------------------------------------


def start(**secrets: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-I", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**secrets, masking.VARIABLE: ",".join(secrets)},
        bufsize=0,
    )


def test_the_script_masks_what_its_environment_names() -> None:
    """The named variables are masked, others are not, and the values stand in no argument."""
    with start(TOKEN="hunter2-hunter2", OTHER="correct horse\nbattery staple") as process:
        assert process.stdin is not None
        line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        out, _ = process.communicate(b"a hunter2-hunter2 b\nbattery staple c\nTOKEN\n")
    assert (process.returncode, out) == (0, b"a *** b\n*** c\nTOKEN\n")
    assert b"hunter2" not in line


def test_a_name_without_a_value_is_told() -> None:
    """A variable that is named but not set is a line in the log, and the rest is masked."""
    names = {masking.VARIABLE: "GONE,TOKEN", "TOKEN": "hunter2-hunter2"}
    done = subprocess.run(
        [sys.executable, "-I", SCRIPT], input=b"hunter2-hunter2\n", env=names, capture_output=True, check=True
    )
    assert done.stdout == b"penstock: the secret GONE is not set here, so it is not masked\n***\n"


def test_a_line_passes_at_once() -> None:
    """Whoever follows sees each line as it comes, although more may come; the end of a value is waited for."""
    with start(TOKEN="hunter2-hunter2") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"ready\n")
        assert process.stdout.read(6) == b"ready\n"
        for n in range(20):
            process.stdin.write(b"epoch %02d\n" % n)
            assert process.stdout.read(9) == b"epoch %02d\n" % n
        process.stdin.write(b"password: hunter2-")
        assert process.stdout.read(10) == b"password: "
        process.stdin.write(b"hunter2\n")
        assert process.stdout.read(4) == b"***\n"
        process.stdin.close()


def test_it_outlives_the_signals_that_end_a_step() -> None:
    """TERM, INT and HUP to the whole session leave the masker, which ends with its input."""
    with start(TOKEN="hunter2-hunter2") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"begun\n")
        assert process.stdout.read(6) == b"begun\n"
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            process.send_signal(number)
        out, _ = process.communicate(b"last words of hunter2-hunter2")
    assert (process.returncode, out) == (0, b"last words of ***")


def test_floods_keep_memory_flat(tmp_path: Path) -> None:
    """200 MB without a line's end pass, masked, and the masker needs no more than for little."""
    block = (b"x" * (CHUNK - 15)) + b"hunter2-hunter2"
    count = 200_000_000 // len(block)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-I", SCRIPT],
            stdin=subprocess.PIPE,
            stdout=log,
            env={"TOKEN": "hunter2-hunter2", masking.VARIABLE: "TOKEN"},
        )
        assert process.stdin is not None
        for _ in range(count):
            process.stdin.write(block)
        process.stdin.flush()
        status = Path(f"/proc/{process.pid}/status").read_text()
        process.stdin.close()
        assert process.wait() == 0
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    assert os.stat(tmp_path / "log").st_size == count * (len(block) - 12)  # noqa: PTH116
    assert peak < 40_000_000
