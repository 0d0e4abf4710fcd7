"""The program that asks two releases the same requests: against servers that answer over real sockets."""

import asyncio
import gc
import json
import subprocess
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from engine.servers import Say, Small
from penstock.engine.comparing import Pass, Probing, main, recordings_of
from penstock.errors import ReportError
from penstock.probes import Probed, Rules, Seen, judge
from penstock.recordings import Recording

FILE = "asked.jsonl"
THREE = [Recording(n, f"/{n}") for n in range(1, 4)]


def asking(
    recordings: list[Recording], candidate: list[Small], stable: list[Small] | None = None, **rules: Any
) -> tuple[Seen, Probed]:
    """What is seen and judged of releases whose replicas are these servers."""

    async def story() -> Seen:
        async with AsyncExitStack() as stack:
            for server in [*candidate, *(stable or ())]:
                await stack.enter_async_context(server.serving())
            others = None if stable is None else tuple(server.port for server in stable)
            wanted = Probing({}, "", tuple(server.port for server in candidate), others, "")
            return await Pass(recordings, Rules(FILE, **rules), wanted).play()

    seen = asyncio.run(story())
    return seen, judge(Rules(FILE, **rules), seen)


def test_both_are_asked_in_turn_once_more_than_they_are_timed() -> None:
    """The first pass warms up; then each request is timed at both, and both times count."""
    candidate, stable = Small(), Small()
    seen, probed = asking(THREE, [candidate], [stable], repeat=4)
    assert (candidate.paths, stable.paths) == (["/1", "/2", "/3"] * 5, ["/1", "/2", "/3"] * 5)
    assert len(seen.candidate_ms) == len(seen.stable_ms) == 12
    assert min(seen.candidate_ms) > 0
    assert (probed.verdict, probed.values["agreement"], probed.values["errors"]) == ("pass", 1, 0)


def test_who_is_asked_first_changes() -> None:
    """From one request to the next and from pass to pass, so that neither always comes second."""
    order: list[str] = []

    def noting(arm: str) -> Say:
        def say(path: str, _: int) -> tuple[int, Any]:
            order.append(f"{arm} {path}")
            return 200, None

        return say

    asking(THREE[:2], [Small(noting("new"))], [Small(noting("old"))])
    assert order == ["new /1", "old /1", "old /2", "new /2", "old /1", "new /1", "new /2", "old /2"]


def test_every_replica_has_its_requests() -> None:
    """They are shared out, and a request goes to the same replica in every pass."""
    mine, theirs = [Small(), Small()], [Small()]
    asking(THREE, mine, theirs)
    assert [server.paths for server in mine] == [["/1", "/3"] * 2, ["/2"] * 2]
    assert theirs[0].paths == ["/1", "/2", "/3"] * 2


def test_a_first_release_is_asked_alone() -> None:
    """Its answers are held against the recorded ones, and its times are told."""
    seen, probed = asking([Recording(1, "/1", has_answer=True, answer={"path": "/1"})], [Small()], repeat=3)
    assert (seen.is_first, len(seen.candidate_ms), seen.stable_ms) == (True, 3, [])
    assert probed.verdict == "pass"
    assert probed.values["latency"]["p50"].keys() == {"ms"}


def test_answers_of_both_are_compared() -> None:
    """Numbers may be off by the tolerance, other answers and other statuses disagree."""
    candidate = Small(lambda path, _: (404 if path == "/3" else 200, {"/1": 1.05, "/2": 2}.get(path)))
    stable = Small(lambda path, _: (200, {"/1": 1, "/2": 1}.get(path)))
    seen, probed = asking(THREE, [candidate], [stable], tolerance=0.1, agreement=0.5)
    assert [asked.compared is not None and asked.compared.agrees for asked in seen.asked] == [True, False, False]
    assert probed.verdict == "fail"
    assert "1 of 3 recorded requests was not answered as expected: line 3: GET /3: expected status 2xx" in probed.reason
    assert "1 of 3 answers agrees with that of the stable release, where 50 % must: line 2" in probed.reason


def test_a_stable_release_is_asked_whether_it_agrees_with_itself() -> None:
    """Where it does not, the request is not counted; each request that disagrees is tried so once."""
    candidate, stable = Small(lambda *_: (200, "new")), Small(lambda path, n: (200, n if path == "/1" else "old"))
    seen, probed = asking(THREE[:2], [candidate], [stable], repeat=2)
    assert [asked.unsteady for asked in seen.asked] == [True, False]
    assert (stable.paths.count("/1"), stable.paths.count("/2")) == (4, 4)
    assert (probed.values["unsteady"], probed.values["agreement"]) == (1, 0)


def test_one_that_ends_connections_is_told_apart() -> None:
    """What the candidate leaves unanswered fails and is not timed; what the stable release does is not compared."""
    candidate = Small(lambda path, _: None if path == "/1" else (200, 1))
    stable = Small(lambda path, _: None if path == "/2" else (200, 1))
    seen, probed = asking(THREE, [candidate], [stable])
    assert [asked.compared is None for asked in seen.asked] == [False, True, False]
    assert len(seen.candidate_ms) == 1
    assert probed.verdict == "fail"
    assert "1 of 3 recorded requests was not answered as expected: line 1: GET /1: not answered" in probed.reason


def test_a_release_that_is_gone_is_not_asked_for_ever() -> None:
    """After ten requests in a row that nothing answered it is asked no more; no candidate, no question."""
    gone = Small(lambda *_: None)
    seen, probed = asking([Recording(n, "/") for n in range(1, 31)], [Small()], [gone], agreement=0.5)
    assert len(gone.asked) == 10
    assert (probed.verdict, probed.reason) == ("errored", "the stable release gave no answer to compare with")
    assert len(seen.asked) == 30
    stable = Small()
    seen, probed = asking(THREE, [], [stable])
    assert (probed.verdict, stable.asked) == ("fail", [])
    assert "not asked: nothing answered" in probed.reason


def test_a_release_that_hangs_is_given_up() -> None:
    """Its first request takes all the time there is; the others were not asked, and the verdict says so."""
    seen, probed = asking(THREE, [Small(mute=True)], [Small()], timeout=0.05, errors=0.5)
    assert (len(seen.asked), seen.missed) == (1, 2)
    assert probed.verdict == "errored"
    assert probed.reason.startswith("there was time for 1 of 3 recorded requests within 0.05 s")


# --- the program ---------------------------------------------------------------------------------------------------


@pytest.fixture
def thawed() -> Iterator[None]:
    """What the program keeps the collector from is let go of again."""
    yield
    gc.unfreeze()


def test_it_is_a_program(tmp_path: Path) -> None:
    """Its command is a shell text that judges and leaves the verdict, whatever stands in the paths."""
    folder = tmp_path / "it's here"
    folder.mkdir()
    (folder / FILE).write_text('{"path": "/1", "answer": {"path": "/1"}}\n{"path": "/2", "answer": 1}\n')

    async def story() -> "subprocess.CompletedProcess[str]":
        async with Small().serving() as one, Small().serving() as other:
            rules = {"requests": FILE, "repeat": 2, "errors": 0.5}
            wanted = Probing(rules, str(folder), (one.port,), (other.port,), str(tmp_path / "found.json"))
            return await asyncio.to_thread(
                subprocess.run, ["sh", "-c", wanted.command], capture_output=True, text=True, check=False
            )

    done = asyncio.run(story())
    found = json.loads((tmp_path / "found.json").read_text())
    assert (done.returncode, done.stderr) == (0, "")
    assert found["verdict"] == "pass"
    assert found["values"]["timed"] == 4
    assert done.stdout.startswith("pass: 1 of 2 recorded requests was not answered as expected")
    assert "line 2: GET /2\n  at $ expected 1, came {" in done.stdout
    assert "\nerrors 0.5\n" in done.stdout


@pytest.mark.usefixtures("thawed")
def test_it_leaves_its_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A release that nobody answers for fails; the log begins with the verdict."""
    (tmp_path / FILE).write_text('{"path": "/1"}\n')
    wanted = Probing({"requests": FILE}, str(tmp_path), (), None, str(tmp_path / "found.json"))
    assert main([json.dumps({name: getattr(wanted, name) for name in Probing.__slots__})]) == 0
    assert json.loads((tmp_path / "found.json").read_text())["verdict"] == "fail"
    assert capsys.readouterr().out.startswith("fail: 1 of 1 recorded requests")


def test_a_file_that_is_none_is_errored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong with it is said with file and line, and nothing is asked."""
    (tmp_path / FILE).write_text('{"path": "/1"}\n{"way": 1}\n')
    wanted = {"rules": {"requests": FILE}, "folder": str(tmp_path), "candidate": (), "stable": None}
    assert main([json.dumps({**wanted, "result": str(tmp_path / "found.json")})]) == 1
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["verdict"], found["values"]) == ("errored", {})
    assert found["reason"].startswith(f"{FILE}:2: unknown key")
    assert capsys.readouterr().out == f"errored: {found['reason']}\n"


@pytest.mark.parametrize("name", ["missing.jsonl", "folder"])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    """One that the package does not hold, and one that is none, are told with what to do."""
    (tmp_path / "folder").mkdir()
    why = "is not in the package" if name != "folder" else r"cannot be read \(Is a directory\)"
    with pytest.raises(ReportError, match=f"{name}: the file of recorded requests {why}: name it under code"):
        recordings_of(tmp_path, name)
