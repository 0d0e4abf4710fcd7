"""Log files: ranges, holes and the compressed form, read the same way and never whole."""

import fcntl
import os
import random
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.builders import House, until
from penstock.engine import logfiles
from penstock.engine.logfiles import AT_ONCE, BLOCK, FRAME, SMALL, cap, compress, pieces, put_to_rest, read, size, tail
from penstock.engine.views import log_range
from penstock.errors import EngineError, UntrustworthyError
from penstock.plans import PlannedStep, StepKind
from penstock.runners.process import ProcessRunner
from penstock.store.contract import NOBODY, Attempt, Project
from penstock.store.sql import Store, open_store

CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "0.log"


@pytest.fixture
def holes(tmp_path: Path) -> None:
    """Skips where the file system of the tests cannot punch holes."""
    probe = tmp_path / "probe"
    probe.write_bytes(b"x" * 100 * BLOCK)
    if not cap(probe, 0, 10 * BLOCK):
        pytest.skip("this file system cannot punch holes")


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


def test_who_comes_second_leaves_the_log_alone(log: Path) -> None:
    """Two that compress one log at once do it once: the second one sees that it is held, or that it is done."""
    log.write_bytes(numbered(1000))
    with log.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert not compress(log)
        assert [p.name for p in log.parent.iterdir()] == ["0.log"]
    assert compress(log)
    assert not compress(log)
    assert everything(log) == numbered(1000)


def test_a_few_logs_are_compressed_at_once(tmp_path: Path) -> None:
    """When a run is over its logs are compressed, but for the small ones and what is no log."""
    kept = {"1.log": b"short\n", "0.record": numbered(1000)}
    for name, data in {"0.log": numbered(1000), **kept}.items():
        (tmp_path / name).write_bytes(data)
    put_to_rest(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"0.log.zst", *kept}
    assert everything(tmp_path / "0.log") == numbered(1000)


def test_nobody_waits_for_the_compression_of_much(tmp_path: Path, house: House) -> None:
    """Logs of more than a few MiB are compressed by a process that is no child of ours, one after the other."""
    logs = [tmp_path / "0.log", tmp_path / "1.log"]
    data = numbered(AT_ONCE // 100)
    for log in logs:
        log.write_bytes(data)
    put_to_rest(tmp_path)

    async def story() -> None:
        await until(lambda: not any(log.exists() for log in logs))

    house.play(story())
    assert [everything(log) for log in logs] == [data, data]
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


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


@dataclass
class Talk:
    """A run in a home whose one step was begun by nobody, and the follower of its log."""

    store: Store
    run: int
    log: Path
    home: Path
    number: int = 0

    def attempt(self) -> Attempt:
        """One more attempt, which goes on in the log where that ends now."""
        self.number += 1
        intended = self.store.runs.begin_attempt(self.run, "train", {"log": str(self.log)}, self.number)
        return self.store.runs.attempt_started(intended, {"log_start": size(self.log)})

    def end(self, attempt: Attempt) -> None:
        with self.store.transaction():
            self.store.runs.end_attempt(attempt, "exit", 0, size(self.log))

    def over(self) -> None:
        with self.store.transaction():
            self.store.runs.move_step(self.run, "train", "pass")

    def command(self, *words: str) -> "subprocess.Popen[bytes]":
        """`penstock logs` of the step, in another process."""
        return subprocess.Popen(
            [sys.executable, "-m", "penstock", "logs", str(self.run), "train", *words],
            env={**os.environ, "PENSTOCK_HOME": str(self.home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


@contextmanager
def talking(folder: Path) -> Iterator[Talk]:
    with open_store(folder / "home" / "penstock.db") as store:
        store.runs.project(Project("p1", "digits", "example.org/digits", "penstock.yaml", "digits"))
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
        yield Talk(store, run, folder / "0.log", folder / "home")


def test_a_follower_sees_lines_at_once_and_survives_the_change(tmp_path: Path) -> None:
    """`logs -f` shows the backlog, then each line as it comes, and goes on when the log is compressed under it."""
    (tmp_path / "0.log").write_bytes(b"another step\n")
    with talking(tmp_path) as talk, talk.log.open("ab", buffering=0) as out:
        attempt = talk.attempt()
        out.write(numbered(1000))
        with talk.command("-f") as follower:
            assert follower.stdout is not None
            assert follower.stdout.read(100_000) == numbered(1000)
            for n in range(20):
                out.write(b"epoch %d\n" % n)
                assert follower.stdout.readline() == b"epoch %d\n" % n
            out.write(b"the end\n")
            assert compress(talk.log)
            talk.end(attempt)
            talk.over()
            assert follower.stdout.read() == b"the end\n"
    assert follower.returncode == 0


def test_a_follower_sees_no_byte_of_another_step(tmp_path: Path) -> None:
    """The next step may go on in the same file at once: a follower stops where its own attempt ended, every time."""
    with talking(tmp_path) as talk, talk.log.open("ab", buffering=0) as out, talk.command("-f") as follower:
        assert follower.stdout is not None
        for n in range(1, 21):
            attempt = talk.attempt()
            out.write(b"mine %d\n" % n)
            while (line := follower.stdout.readline()).startswith(b"==="):
                assert line == b"=== train (attempt %d)\n" % n
            assert line == b"mine %d\n" % n
            out.write(b"last %d\n" % n)
            talk.end(attempt)
            out.write(b"foreign\n" * n)
            assert follower.stdout.readline() == b"last %d\n" % n
        talk.over()
        assert follower.stdout.read() == b""


def test_what_is_no_text_is_shown_as_it_is(tmp_path: Path) -> None:
    """Bytes that are no text, and a line of 4 MB, come out of `logs` as they went in: alive, ended and compressed."""
    data = bytes(range(256)) * 1000 + b"x" * 4_000_000 + b"\n" + bytes(100_000) + b"\xff no line's end"
    with talking(tmp_path) as talk:
        attempt = talk.attempt()
        talk.log.write_bytes(data)
        stages: list[Callable[[], object]] = [lambda: None, lambda: talk.end(attempt), lambda: compress(talk.log)]
        for stage in stages:
            stage()
            shown, said = talk.command().communicate()
            assert (shown == data, said) == (True, b"")


# --- a real flood --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("holes")
def test_a_flood_keeps_head_and_tail(house: House) -> None:
    """A step that says 30 MB where a log may keep 1 MB passes; its beginning and its end are there, and no more room
    is taken; what its neighbours said stays whole.
    """
    house.world = replace(house.world, runner=ProcessRunner(), log_limit=1_000_000)
    flood = "echo first words; yes 'a line that does not end' | head -c 30000000; echo last words"
    house.commit(
        {
            "steps": {
                "before": {"run": "echo before"},
                "flood": {"run": flood, "needs": ["before"]},
                "after": {"run": "echo after", "needs": ["flood"]},
            }
        }
    )
    assert house.run().status == "passed"
    said = {}
    for name in ("before", "flood", "after"):
        path, start, end = log_range(house.store.runs.attempts(1, name)[0])
        said[name] = everything(Path(path), start, end)
        assert end is not None
    assert (said["before"], said["after"]) == (b"before\n", b"after\n")
    head, marker, rest = said["flood"].partition(b" MB left out (log limit) ...\n")
    assert marker
    assert head.startswith(b"first words\na line")
    assert rest.endswith(b"last words\n")
    assert len(said["flood"]) < 1_000_000 + 4 * BLOCK
