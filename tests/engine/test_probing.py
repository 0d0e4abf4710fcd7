"""The probe of a release: how its process is placed, what becomes of its verdict, and who ends it."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

import pytest

from engine.builders import DIGITS, House, until
from penstock.engine.comparing import Probing
from penstock.engine.installing import StoppedRollout, package_folder
from penstock.engine.probing import RESULT, SPARE, Prober
from penstock.errors import EngineError
from penstock.probes import Probed, Word
from penstock.releases import ReleaseStatus
from penstock.runners.process import ProcessRunner
from penstock.runners.scripted import LOST, NEVER, Act
from penstock.store.contract import Release

PROGRAM = "penstock.engine.comparing"
RULES = {"requests": "asked.jsonl", "repeat": 2}


async def released(house: House, version: str = "0.1") -> Release:
    """A release that serves with two replicas, and is to be probed only now."""
    release = await house.deliver(house.wanted(version, replicas=2))
    return replace(release, spec={**release.spec, "probe": RULES})


async def probed(house: House, release: Release, stable: Release | None = None) -> Probed:
    return await Prober(house.world).probe(release, stable, lambda: None)


def left(house: House, verdict: Word = "pass", reason: str = "all is well") -> None:
    """From now on a probe leaves this verdict."""
    text = json.dumps(asdict(Probed(verdict, reason, {"requests": 1})))
    house.machine.script[PROGRAM] = Act(files={RESULT: text}, output="said\n")


def asked(house: House, release: int, number: int = 1) -> Probing:
    """What a probe was to find out."""
    (spec,) = (spec for spec in house.machine.started if spec.id == f"probe-{release}.{number}")
    return Probing(**json.loads(spec.command.partition(" '")[2].removesuffix("'")))


def test_both_releases_are_asked(house: House) -> None:
    """The program is told the ports of all replicas of both, the rules, and where the package's files are."""

    async def story() -> None:
        stable, release = await released(house), await released(house, "0.2")
        left(house)
        assert await probed(house, release, stable) == Probed("pass", "all is well", {"requests": 1})
        spec, wanted = house.machine.started[-1], asked(house, release.id)
        mine, theirs = ([replica.port for replica in house.store.releases.replicas(r.id)] for r in (release, stable))
        assert (list(wanted.candidate), list(wanted.stable or ())) == (mine, theirs)
        assert (len(mine), len(theirs)) == (2, 2)
        assert (wanted.rules, wanted.folder) == (RULES, str(package_folder(house.world, release)))
        assert not spec.contain
        await probed(house, release)
        assert asked(house, release.id, 2).stable is None

    house.play(story())


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (Act(1), "exit code 1"),
        (Act(1, output="no memory\n"), "exit code 1; its log ends: no memory"),
        (Act(0, files={RESULT: '{"verdict": "pa'}), "exit code 0"),
        (Act(0, files={RESULT: "[]"}), "exit code 0"),
        (Act(-9, oom=True), "ran out of memory"),
        (LOST, "its process vanished"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_errored(house: House, act: Act, words: str) -> None:
    """A process that leaves no whole verdict is no pass, and neither is a verdict that an earlier one left."""

    async def story() -> None:
        release = await released(house)
        left(house)
        assert (await probed(house, release)).verdict == "pass"
        house.machine.script[PROGRAM] = act
        found = await probed(house, release)
        assert (found.verdict, found.values) == ("errored", {})
        assert found.reason.startswith(f"the recorded requests could not be asked: {words}")

    house.play(story())


def test_one_that_cannot_be_placed_is_errored(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own sentence is told."""

    def refuse(_: object) -> None:
        raise EngineError("no more processes")

    async def story() -> None:
        release = await released(house)
        monkeypatch.setattr(house.machine, "start", refuse)
        found = await probed(house, release)
        assert found == Probed("errored", "the recorded requests could not be asked: no more processes")

    house.play(story())


def test_a_probe_that_hangs_is_ended(house: House) -> None:
    """Beyond its own time limit it has a while to judge, and then it is errored."""

    async def story() -> None:
        release = await released(house)
        house.machine.script[PROGRAM] = NEVER
        task = asyncio.create_task(probed(house, release))
        await house.machine.arrival("probe-1.1")
        house.clock.ahead += 600 + SPARE + 1
        found = await task
        assert found.verdict == "errored"
        assert "took longer than its timeout of 690 s" in found.reason
        assert not house.machine.runs("probe-1.1")

    house.play(story())


def test_a_probe_ends_when_its_rollout_does(house: House) -> None:
    """Whoever stops the rollout stops the probe, before it begins and while it goes on; nothing of it is left."""

    async def story() -> None:
        release = await released(house)
        house.machine.script[PROGRAM] = NEVER
        with pytest.raises(StoppedRollout):
            await Prober(house.world).probe(release, None, lambda: "canceled")
        assert not house.machine.runs("probe-1.1")
        why: list[str] = []
        task = asyncio.create_task(Prober(house.world).probe(release, None, lambda: why[0] if why else None))
        await house.machine.arrival("probe-1.1")
        why.append("interrupted")
        with pytest.raises(StoppedRollout):
            await task
        assert not house.machine.runs("probe-1.1")

    house.play(story())


def test_the_next_coordinator_probes_again(house: House) -> None:
    """What the one that died began is ended, so that two never ask at once; the second verdict is taken."""

    async def story() -> None:
        release = await released(house)
        house.machine.script[PROGRAM] = NEVER
        task = asyncio.create_task(probed(house, release))
        await house.machine.arrival("probe-1.1")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert house.machine.runs("probe-1.1")
        left(house, "fail", "1 of 1 was wrong")
        assert (await probed(house, release)).verdict == "fail"
        assert not house.machine.runs("probe-1.1")
        assert house.machine.started[-1].id == "probe-1.2"

    house.play(story())


def test_what_is_left_of_a_probe_is_ended(house: House) -> None:
    """Whoever ends a release ends its probe; one that was never probed has none."""

    async def story() -> None:
        release = await released(house)
        await Prober(house.world).end(release)
        house.machine.script[PROGRAM] = NEVER
        task = asyncio.create_task(probed(house, release))
        await house.machine.arrival("probe-1.1")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await Prober(house.world).end(release)
        assert not house.machine.runs("probe-1.1")

    house.play(story())


# --- within a release ----------------------------------------------------------------------------------------------


def test_a_release_that_passes_serves(house: House) -> None:
    """It is probed beside the one that serves, before any traffic, and the verdict stays with it."""

    async def story() -> None:
        left(house, reason="there is no stable release to compare with")
        first = await house.deliver(house.wanted("0.1", probe=RULES))
        left(house)
        second = await house.deliver(house.wanted("0.2", probe=RULES))
        assert (second.status, house.served()) == (ReleaseStatus.SERVING, "0.2")
        assert [asked(house, n).stable is None for n in (first.id, second.id)] == [True, False]
        assert second.rollout is not None
        assert second.rollout["probe"] == {"verdict": "pass", "reason": "all is well", "values": {"requests": 1}}

    house.play(story())


@pytest.mark.parametrize(("verdict", "status"), [("fail", "refused"), ("errored", "errored")])
def test_a_release_that_does_not_pass_is_rejected(house: House, verdict: Word, status: str) -> None:
    """The one before goes on serving; the run failed, or errored where nobody could tell, with the probe's words."""
    probing = {"production": {"port": 8802, "probe": "src/asked.jsonl"}}
    house.commit({**DIGITS, "environments": probing}, src__a="A = 1\n", **{"src__asked.jsonl": '{"path": "/"}\n'})
    left(house)
    assert house.run().status == "passed"
    left(house, verdict, "1 of 1 was wrong")
    house.commit({**DIGITS, "environments": probing}, src__a="A = 2\n")
    shown = house.run()
    assert shown.status == ("failed" if verdict == "fail" else "errored")
    (target,) = house.store.runs.targets(int(shown.run))
    assert (target.status, target.reason) == (status, "the probe: 1 of 1 was wrong")
    rejected = house.store.releases.of()[-1]
    assert (rejected.status, rejected.rollout and rejected.rollout["probe"]["verdict"]) == ("rejected", verdict)
    serving = house.store.releases.serving(rejected.project, "production")
    assert serving is not None
    assert house.served(8802) == serving.version != rejected.version


def test_a_coordinator_that_dies_while_it_probes(house: House) -> None:
    """The release stays one that is probed; whoever asks again has it probed anew and released."""

    async def story() -> None:
        wanted = house.wanted("0.1", probe=RULES)
        house.machine.script[PROGRAM] = NEVER
        task = asyncio.create_task(house.deliver(wanted))
        await house.machine.arrival("probe-1.1")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert house.store.releases.get(1).status is ReleaseStatus.PROBING
        left(house)
        released = await house.deliver(wanted)
        assert (released.id, released.status) == (1, ReleaseStatus.SERVING)
        assert not house.machine.runs("probe-1.1")

    house.play(story())


# --- for real ------------------------------------------------------------------------------------------------------

SERVER = """\
import http.server, json, sys
class Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = json.dumps({"y": float(sys.argv[1]), "path": self.path}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@contextmanager
def serving(answer: float) -> Iterator[int]:
    """The port of a server of its own process."""
    argv = [sys.executable, "-c", SERVER, str(answer)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def placed(house: House, version: str, port: int, text: str | None) -> Release:
    """A release whose one replica is the server at a port, and whose package holds recorded requests."""
    wanted = house.wanted(version, probe={**RULES, "agreement": 1.0, "tolerance": 0.1, "latency_p50_ratio": 50.0})
    values = {name: getattr(wanted, name) for name in type(wanted).__slots__ if name != "force"}
    with house.store.transaction():
        release = house.store.releases.add(values)
        house.store.releases.add_replica(release.id, 0, port)
    folder = package_folder(house.world, release)
    folder.mkdir(parents=True)
    if text is not None:
        (folder / "asked.jsonl").write_text(text)
    return release


def test_a_probe_of_real_servers(house: House) -> None:
    """A release like the one before passes, another fails with the request, and a file that is none is errored."""
    house.world = replace(house.world, runner=ProcessRunner())
    lines = "".join(json.dumps({"path": f"/{n}"}) + "\n" for n in range(10))

    async def story(stable: Release, candidates: list[Release]) -> list[Probed]:
        return [await probed(house, release, stable) for release in candidates]

    with serving(1) as one, serving(1.05) as like, serving(3) as other:
        stable = placed(house, "0.1", one, None)
        texts = ((like, lines), (other, lines), (like, "{\n"), (like, None))
        candidates = [placed(house, f"0.{n}", port, text) for n, (port, text) in enumerate(texts, 2)]
        found = asyncio.run(story(stable, candidates))
    assert [probed.verdict for probed in found] == ["pass", "fail", "errored", "errored"]
    assert "10 of 10 answers agree with those of the stable release, where 100 % must" in found[0].reason
    assert "its p50 of " in found[0].reason
    assert found[0].values["timed"] == 20
    assert found[1].reason.endswith("line 1: GET /0: at $.y expected 1.0, came 3.0, off by 2")
    assert found[2].reason.startswith("asked.jsonl:1: this is no JSON")
    assert found[3].reason.startswith("asked.jsonl: the file of recorded requests is not in the package")
    log = house.world.home.release(candidates[1].id) / "probe" / "log"
    assert "line 10: GET /9\n" in log.read_text()
    assert log.read_text().startswith("fail: 0 of 10 answers agree")


def test_a_killed_probe_of_real_servers_is_made_again(house: House) -> None:
    """The process that a dead coordinator left is ended before the next one asks."""
    runner = ProcessRunner()
    house.world = replace(house.world, runner=runner)

    async def story(release: Release) -> None:
        record = house.world.home.release(release.id) / "probe" / "record"
        task = asyncio.create_task(probed(house, release))
        await until(lambda: runner.find("probe-1.1", record))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await probed(house, release)).verdict == "pass"
        first = runner.find("probe-1.1", record)
        assert first is not None
        assert not runner.alive(first)
        assert runner.find("probe-1.2", record) is not None

    with serving(1) as port:
        asyncio.run(story(placed(house, "0.1", port, '{"path": "/1"}\n')))
