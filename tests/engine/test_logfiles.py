"""Log files: ranges, holes and the compressed form, read the same way and never whole."""

import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.engine import logfiles
from penstock.engine.logfiles import BLOCK, FRAME, SMALL, cap, compress, pieces, read, size, tail
from penstock.errors import EngineError, UntrustworthyError
from penstock.plans import PlannedStep, StepKind
from penstock.store.contract import NOBODY, Project
from penstock.store.sql import open_store

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "0.log"


def numbered(count: int, width: int = 100) -> bytes:
    """Lines that say which they are."""
    return b"".join(b"%0*d\n" % (width - 1, n) for n in range(count))


def everything(log: Path, start: int = 0, end: int | None = None) -> bytes:
    return b"".join(read(log, start, end))


def packed(log: Path) -> Path:
    """The compressed form, which must be all that there is now."""
    assert not log.exists()
    return log.with_name("0.log.zst")


# --- ranges --------------------------------------------------------------------------------------------------------


def test_a_log_that_is_not_there_is_empty(log: Path) -> None:
    """No file means no bytes, no lines and no size."""
    assert everything(log) == b""
    assert tail(log, 0, None, 5, 100) == []
    assert size(log) == 0


def test_a_log_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    """What stands where the log should be is told with its path."""
    (tmp_path / "0.log").mkdir()
    with pytest.raises(EngineError, match=r"the log .*/0\.log cannot be read: Is a directory"):
        everything(tmp_path / "0.log")


@CALM
@given(st.integers(0, 300_000), st.none() | st.integers(0, 300_000), st.booleans())
def test_any_range(tmp_path_factory: pytest.TempPathFactory, start: int, end: int | None, closed: bool) -> None:
    """A range is the same bytes from the plain and from the compressed log, whatever its ends."""
    log = tmp_path_factory.mktemp("log") / "0.log"
    data = random.Random(7).randbytes(200_000)  # noqa: S311 - bytes, not secrets
    log.write_bytes(data)
    assert not closed or compress(log)
    assert everything(log, start, end) == data[start:end]
    assert size(log) == len(data)


def test_ranges_across_frames(log: Path) -> None:
    """A range of a compressed log may begin and end in the midst of frames."""
    data = numbered(3 * FRAME // 100)
    log.write_bytes(data)
    assert compress(log)
    for start, end in (
        (0, 10),
        (FRAME - 5, FRAME + 5),
        (FRAME, 2 * FRAME),
        (FRAME // 2, 3 * FRAME),
        (FRAME - 1, FRAME),
    ):
        assert everything(log, start, end) == data[start:end], (start, end)


def test_the_last_lines(log: Path) -> None:
    """`tail` gives the last lines of a range, looked for in its last bytes only, bad UTF-8 included."""
    log.write_bytes(b"before\n" + b"one\ntwo\nthr\xffee\n" + b"after\n")
    assert tail(log, 7, 21, 2, 1000) == ["two", "thr\N{REPLACEMENT CHARACTER}ee"]
    assert tail(log, 7, 21, 9, 10) == ["two", "thr\N{REPLACEMENT CHARACTER}ee"]
    assert tail(log, 7, None, 1, 1000) == ["after"]


@pytest.mark.parametrize("closed", [False, True])
def test_memory_stays_flat(log: Path, closed: bool) -> None:
    """Reading a log of 32 MB takes memory for a piece of it, not for it."""
    with log.open("wb") as out:
        for _ in range(32):
            out.write(numbered(10_000))
    assert not closed or compress(log)
    assert sum(map(len, read(log))) == 32_000_000
    tracemalloc.start()
    try:
        assert sum(map(len, read(log))) == 32_000_000
        assert tracemalloc.get_traced_memory()[1] < 5 * FRAME
    finally:
        tracemalloc.stop()


# --- holes ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def holes(tmp_path: Path) -> None:
    """Skips where the file system of the tests cannot punch holes."""
    probe = tmp_path / "probe"
    probe.write_bytes(b"x" * 100 * BLOCK)
    if not cap(probe, 0, 10 * BLOCK):
        pytest.skip("this file system cannot punch holes")


@pytest.mark.usefixtures("holes")
def test_a_capped_log_keeps_head_and_tail(log: Path) -> None:
    """At most the limit stays on the disk: the beginning, one line that says how much is gone, the end."""
    before, data = b"another step\n", numbered(100_000)
    log.write_bytes(before + data)
    limit = 1_000_000
    left_out = cap(log, len(before), limit)
    assert log.stat().st_size == len(before) + len(data)
    assert log.stat().st_blocks * 512 <= limit + 2 * BLOCK
    shown = everything(log, len(before))
    head, marker, rest = shown.partition(b"... 9.0 MB left out (log limit) ...\n")
    assert marker
    assert head.endswith(b"\n")
    assert data.startswith(head[:-1])
    assert data.endswith(rest)
    assert len(head) - 1 + left_out + len(rest) == len(data)
    assert min(len(head), len(rest)) > limit / 2 - 2 * BLOCK
    assert everything(log, 0, len(before)) == before


@pytest.mark.usefixtures("holes")
@CALM
@given(st.integers(0, 60_000), st.integers(0, 200_000), st.lists(st.integers(1, 150_000), max_size=4), st.booleans())
def test_capping_again_and_again(
    tmp_path_factory: pytest.TempPathFactory, start: int, limit: int, writes: list[int], closed: bool
) -> None:
    """However a log grows between two caps: what was before it stays, head and tail are true, and the rest is told."""
    log = tmp_path_factory.mktemp("log") / "0.log"
    data, left_out = b"b" * start, 0
    log.write_bytes(data)
    for count in writes:
        more = bytes(random.Random(count).choices(b"abcdefgh\n", k=count))  # noqa: S311 - bytes, not secrets
        data += more
        with log.open("ab") as out:
            out.write(more)
        left_out = max(left_out, cap(log, start, limit))
    assert everything(log, 0, start) == data[:start]
    if closed:
        compress(log)
    shown = list(pieces(log, start))
    holes = [p for p in shown if b"left out (log limit)" in p.data]
    assert len(holes) == (left_out > 0)
    position = start
    for piece in shown:
        if piece not in holes:
            assert piece.data == data[position : piece.position]
        position = piece.position
    assert position == len(data) or not writes
    assert len(data) - start - left_out <= max(limit, 2 * BLOCK) or left_out == 0


@pytest.mark.usefixtures("holes")
def test_a_process_goes_on_writing_behind_the_hole(log: Path) -> None:
    """Capping a log does not move the end at which its process appends."""
    with log.open("ab", buffering=0) as out:
        out.write(numbered(10_000))
        assert cap(log, 0, 100_000) > 0
        out.write(b"the end\n")
        assert tail(log, 0, None, 1, 1000) == ["the end"]
        assert cap(log, 0, 100_000) > 0
    assert everything(log).count(b"left out") == 1
    assert tail(log, 0, None, 1, 1000) == ["the end"]


@pytest.mark.usefixtures("holes")
def test_a_follower_meets_the_hole(log: Path) -> None:
    """Whoever has read a part goes on behind the hole, told what it did not see."""
    log.write_bytes(numbered(10_000))
    seen = 300_000
    cap(log, 0, 200_000)
    behind = list(pieces(log, seen))
    assert behind[0].data == b"... %.1f kB left out (log limit) ...\n" % ((behind[0].position - seen) / 1000)
    assert b"".join(p.data for p in behind[1:]) == numbered(10_000)[behind[0].position :]


@pytest.mark.usefixtures("holes")
def test_a_hole_made_while_it_is_read(log: Path) -> None:
    """Zeros of a hole that is punched under a reader are never shown as text."""
    log.write_bytes(numbered(10_000))
    reading = pieces(log)
    shown = [next(reading)]
    cap(log, 0, 2 * shown[0].position + 20_000)
    shown += reading
    assert sum(b"left out" in p.data for p in shown) == 1
    assert not any(b"\0" in p.data for p in shown)
    assert shown[-1].position == 1_000_000


@pytest.mark.parametrize("holes_known", [True, False])
def test_a_log_cut_off_while_it_is_read(log: Path, monkeypatch: pytest.MonkeyPatch, holes_known: bool) -> None:
    """A reader of a log that somebody else cuts off comes to an end, also where the file system knows no holes."""
    seek = os.lseek

    def ignorant(number: int, position: int, what: int) -> int:
        if what in {os.SEEK_DATA, os.SEEK_HOLE} and not holes_known:
            raise OSError(22, "Invalid argument")
        return seek(number, position, what)

    monkeypatch.setattr(os, "lseek", ignorant)
    log.write_bytes(numbered(10_000))
    assert everything(log) == numbered(10_000)
    reading = pieces(log)
    first = next(reading)
    os.truncate(log, first.position)
    assert sum(len(p.data) for p in reading) < 100


def test_small_logs_are_not_capped(log: Path) -> None:
    """A log under its limit stays whole, and one that is not there is nothing to cap."""
    log.write_bytes(numbered(100))
    assert cap(log, 0, 10_000) == 0
    assert everything(log) == numbered(100)
    assert cap(log.with_name("none.log"), 0, 10) == 0


def test_without_holes_the_log_stays(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system cannot punch holes the log is left as it is."""
    monkeypatch.setattr(logfiles, "_PUNCH_HOLE", 0x4000)  # a mode that no kernel knows
    log.write_bytes(numbered(10_000))
    assert cap(log, 0, 100_000) == 0
    assert everything(log) == numbered(10_000)


def test_bytes_that_are_zero_are_no_hole(log: Path) -> None:
    """A process that prints zeros has its zeros shown."""
    data = b"begin" + bytes(10 * BLOCK) + b"end"
    log.write_bytes(data)
    assert everything(log) == data
    assert compress(log)
    assert everything(log) == data


# --- the compressed form -------------------------------------------------------------------------------------------


def test_a_compressed_log_is_zstd(log: Path) -> None:
    """Any zstd unpacks it; it takes less room, and the plain one is gone."""
    data = numbered(30_000)
    log.write_bytes(data)
    assert compress(log)
    with (
        packed(log).open("rb") as stream,
        zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True) as reader,
    ):
        assert reader.read() == data
    assert packed(log).stat().st_size < len(data) / 10
    assert not compress(log)


def test_small_logs_stay_plain(log: Path) -> None:
    """Compressing a few blocks frees nothing, so it is not done."""
    log.write_bytes(b"x" * SMALL)
    assert not compress(log)
    assert log.exists()


@pytest.mark.usefixtures("holes")
def test_holes_survive_compression(log: Path) -> None:
    """Offsets, head, tail and the line between them are the same afterwards."""
    log.write_bytes(numbered(50_000))
    cap(log, 0, 1_000_000)
    before, end = everything(log), size(log)
    assert compress(log)
    assert (everything(log), size(log)) == (before, end)
    assert tail(log, 0, None, 1, 500) == [f"{49_999:099d}"]


def test_a_reader_goes_on_through_the_change(log: Path) -> None:
    """Who has the plain log open reads it to its end; who comes back by offset finds the compressed one."""
    data = numbered(30_000)
    log.write_bytes(data)
    open_one = pieces(log)
    first = next(open_one)
    assert compress(log)
    assert first.data + b"".join(p.data for p in open_one) == data
    assert everything(log, first.position) == data[first.position :]


def test_a_log_that_still_grows_stays_plain(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte written while it was compressed is not lost: the plain log stays."""
    data = numbered(1000)
    log.write_bytes(data)
    write = logfiles._write

    def and_more(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        with log.open("ab") as out:
            out.write(b"more")

    monkeypatch.setattr(logfiles, "_write", and_more)
    assert not compress(log)
    assert everything(log) == data + b"more"
    assert [p.name for p in log.parent.iterdir()] == ["0.log"]


KILLED = """\
import os, signal, sys
from pathlib import Path
from penstock.engine import logfiles

count = 0

def step(frame, event, argument):
    global count
    if frame.f_code.co_filename != logfiles.__file__:
        return None
    count += 1
    if count == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return step

sys.settrace(step)
logfiles.compress(Path(sys.argv[1]))
sys.settrace(None)
print(count)
"""


def test_killed_anywhere_one_log_is_left(tmp_path: Path) -> None:
    """Killed with -9 at any line of the compression leaves a whole log, and the next compression ends the work."""
    data = numbered(2 * SMALL // 100)

    def killed_at(line: int) -> tuple[Path, "subprocess.CompletedProcess[bytes]"]:
        log = tmp_path / str(line) / "0.log"
        log.parent.mkdir()
        log.write_bytes(data)
        argv = [sys.executable, "-c", KILLED, str(log), str(line)]
        return log, subprocess.run(argv, capture_output=True, check=False)

    _, whole = killed_at(0)
    lines = int(whole.stdout)
    assert lines > 50
    late = set(range(lines - 24, lines + 1))
    for line in sorted({*range(5, lines, 9), *late}):
        log, done = killed_at(line)
        assert done.returncode == -signal.SIGKILL, done
        assert everything(log) == data, line
        if log.exists():
            assert compress(log)
        assert everything(log) == data, line
        assert [p.name for p in log.parent.iterdir()] == ["0.log.zst"], line


def cut_off(data: bytes) -> bytes:
    return data[:-5]


def flip_in_a_frame(data: bytes) -> bytes:
    return data[:50] + bytes((data[50] ^ 1,)) + data[51:]


def count_too_many(data: bytes) -> bytes:
    return data[:-12] + b"\xff\xff\xff\x0f" + data[-8:]


@pytest.mark.parametrize("harm", [cut_off, flip_in_a_frame, count_too_many, lambda _: b"", lambda _: b"short"])
def test_a_damaged_log_is_one_sentence(log: Path, harm: Callable[[bytes], bytes]) -> None:
    """Harm to a compressed log is told with its path and never shown as text."""
    log.write_bytes(os.urandom(2 * SMALL))
    assert compress(log)
    packed(log).write_bytes(harm(packed(log).read_bytes()))
    with pytest.raises(UntrustworthyError, match=r"the compressed log .*0\.log\.zst is damaged"):
        everything(log)


def test_a_full_disk_leaves_the_plain_log(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the compressed form cannot be written the error says so and the log stays."""
    log.write_bytes(numbered(1000))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EngineError, match="cannot be compressed: No space left on device"):
        compress(log)
    assert everything(log) == numbered(1000)
    assert [p.name for p in log.parent.iterdir()] == ["0.log"]


# --- following -----------------------------------------------------------------------------------------------------


def test_a_follower_sees_lines_at_once_and_survives_the_change(tmp_path: Path) -> None:
    """`logs -f` shows a line within 100 ms, and goes on when the log is compressed under it."""
    project = Project("p1", "digits", "example.org/digits", "penstock.yaml", "digits")
    log = tmp_path / "0.log"
    log.write_bytes(b"another step\n" + numbered(1000))
    with open_store(tmp_path / "home" / "penstock.db") as store:
        store.runs.project(project)
        values = {
            "request": store.requests.add("run", {}, NOBODY, "ada"),
            "project": "p1",
            "owner": NOBODY,
            "version": "0.1",
            "commit": {"sha": "c" * 40},
            "change": [],
            "trigger": "manual",
            "mirror": "m",
            "pipeline": {},
            "options": {},
            "notes": [],
        }
        run = store.runs.add(values, [PlannedStep("train", StepKind.STEP, "build", ())], [])
        store.runs.move(run, "start")
        store.runs.move_step(run, "train", "start")
        intended = store.runs.begin_attempt(run, "train", {"log": str(log)})
        attempt = store.runs.attempt_started(intended, {"log_start": 13})
        follower = subprocess.Popen(
            [sys.executable, "-m", "penstock", "logs", str(run), "train", "-f"],
            env={**os.environ, "PENSTOCK_HOME": str(tmp_path / "home")},
            stdout=subprocess.PIPE,
        )
        assert follower.stdout is not None
        with follower, log.open("ab", buffering=0) as out:
            assert follower.stdout.read(100_000) == numbered(1000)
            waited = []
            for n in range(20):
                began = time.monotonic()
                out.write(b"epoch %d\n" % n)
                assert follower.stdout.readline() == b"epoch %d\n" % n
                waited.append(time.monotonic() - began)
            out.write(b"the end\n")
            assert compress(log)
            with store.transaction():
                store.runs.end_attempt(attempt, "exit", 0, size(log))
                store.runs.move_step(run, "train", "pass")
            assert follower.stdout.read() == b"the end\n"
    assert follower.returncode == 0
    assert sorted(waited)[10] < 0.1
