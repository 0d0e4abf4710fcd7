"""Asks a candidate and the stable release the same recorded requests, in turn: a program that a runner places.

It stands apart from the coordinator, as `measuring` does, so that nothing which that does meanwhile counts as a
release's time. The first pass warms both up; the passes after it are timed. Each request goes to both right after one
another, now to one first and now to the other, so that what the machine does meanwhile meets both alike.
"""

import asyncio
import gc
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from penstock.engine.exchanges import PATIENCE, Connection
from penstock.engine.measuring import SILENT
from penstock.errors import ReportError
from penstock.probes import Asked, Probed, Rules, Seen, compared, judge
from penstock.recordings import Recording, Reply, judged, parse_recordings


@dataclass(frozen=True, slots=True)
class Probing:
    """What is to be found out: the requests of the rules' file in `folder`, asked at the ports of both releases.

    Without `stable` there is no such release. The verdict is written to `result`.
    """

    rules: Mapping[str, Any]
    folder: str
    candidate: tuple[int, ...]
    stable: tuple[int, ...] | None
    result: str

    @property
    def command(self) -> str:
        """The shell text that finds it out."""
        return shlex.join([sys.executable, "-P", "-m", __name__, json.dumps(asdict(self))])


def main(arguments: Sequence[str]) -> int:
    """Ask, judge, tell the log, and leave the verdict; 1 where nobody can tell."""
    wanted = Probing(**json.loads(arguments[0]))
    rules = Rules.of(wanted.rules)
    try:
        recordings = recordings_of(Path(wanted.folder), rules.requests)
    except ReportError as error:
        probed = Probed("errored", str(error))
    else:
        gc.freeze()  # the requests stay; to look through them again and again would take some answers' time
        probed = judge(rules, asyncio.run(Pass(recordings, rules, wanted).play()))
    _report(probed)
    Path(wanted.result).write_text(json.dumps(asdict(probed)), encoding="utf-8")
    return 1 if probed.verdict == "errored" else 0


def recordings_of(folder: Path, file: str) -> tuple[Recording, ...]:
    """The requests of a file of a package's folder. Raises ReportError that says what is wrong with it, and where."""
    try:
        data = (folder / file).read_bytes()
    except OSError as error:
        why = "is not in the package" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise ReportError(f"{file}: the file of recorded requests {why}: name it under code of the package") from error
    return parse_recordings(data, file)


def _report(probed: Probed) -> None:
    lines = [f"{probed.verdict}: {probed.reason}", *probed.values.get("seen", ())]
    lines += [f"{name} {json.dumps(value)}" for name, value in probed.values.items() if name != "seen"]
    sys.stdout.writelines(f"{line}\n" for line in lines)


# --- asking --------------------------------------------------------------------------------------------------------


class Arm:
    """The replicas of one release. A request goes to the same one in every pass, over a connection that is kept.

    After `SILENT` requests in a row that nothing answered it is asked no more.
    """

    def __init__(self, ports: Sequence[int], patience: float) -> None:
        self._connections = [Connection(port, patience) for port in ports]
        self._silent = 0 if ports else SILENT

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._connections:
            await connection.close()

    @property
    def is_given_up(self) -> bool:
        return self._silent >= SILENT

    async def ask(self, place: int, recording: Recording) -> tuple[Reply, float]:
        """The reply to the request at a place of the file, and its seconds."""
        if self.is_given_up:
            return Reply(None, fault=f"not asked: nothing answered the {SILENT} requests before"), 0.0
        reply, took = await self._connections[place % len(self._connections)].ask(recording)
        self._silent = 0 if reply.status is not None else self._silent + 1
        return reply, took


class Pass:
    """All requests, once to warm up and then as often as wanted; `play` gives what was seen."""

    def __init__(self, recordings: Sequence[Recording], rules: Rules, wanted: Probing) -> None:
        self._recordings = recordings
        self._rules = rules
        patience = min(PATIENCE, rules.timeout)
        self._candidate = Arm(wanted.candidate, patience)
        self._stable = None if wanted.stable is None else Arm(wanted.stable, patience)
        self._asked: list[Asked] = []
        self._times: list[tuple[float, float]] = []

    async def play(self) -> Seen:
        """Ask them all, as long as there is time: what was not asked even once is missed."""
        until = asyncio.get_running_loop().time() + self._rules.timeout
        async with AsyncExitStack() as stack:
            for arm in filter(None, (self._candidate, self._stable)):
                await stack.enter_async_context(arm)
            for turn in range(1 + self._rules.repeat):
                await self._all(turn, until)
        first = self._stable is None
        return Seen(
            self._asked,
            len(self._recordings) - len(self._asked),
            [1000 * mine for mine, _ in self._times],
            [] if first else [1000 * other for _, other in self._times],
            first,
        )

    async def _all(self, turn: int, until: float) -> None:
        for place in range(len(self._recordings)):
            if asyncio.get_running_loop().time() >= until:
                return
            found, times = await self._one(place, turn)
            if turn:
                self._asked[place] = self._asked[place].joined(found)
                self._times += times
            else:
                self._asked.append(found)

    async def _one(self, place: int, turn: int) -> tuple[Asked, list[tuple[float, float]]]:
        """One request of both; its seconds where both answered.

        Where the candidate is given up, as after its end, nobody is asked: what is left of a probe soon ends by itself.
        """
        recording, tolerance = self._recordings[place], self._rules.tolerance
        if self._stable is None or self._candidate.is_given_up:
            reply, took = await self._candidate.ask(place, recording)
            times = [] if reply.status is None else [(took, took)]
            return Asked(judged(recording, reply, tolerance)), times
        (reply, took), (other, else_took) = await self._both(self._stable, place, turn)
        found = Asked(judged(recording, reply, tolerance))
        if other.status is not None:
            against = compared(recording, other, reply, tolerance)
            unsteady = against is not None and not against.agrees and await self._is_unsteady(place, other)
            found = Asked(found.candidate, judged(recording, other, tolerance), against, unsteady)
        whole = reply.status is not None and other.status is not None
        return found, [(took, else_took)] if whole else []

    async def _both(self, stable: Arm, place: int, turn: int) -> tuple[tuple[Reply, float], tuple[Reply, float]]:
        recording = self._recordings[place]
        if (place + turn) % 2:
            other = await stable.ask(place, recording)
            return await self._candidate.ask(place, recording), other
        own = await self._candidate.ask(place, recording)
        return own, await stable.ask(place, recording)

    async def _is_unsteady(self, place: int, before: Reply) -> bool:
        """Whether the stable release, asked once more, does not even agree with itself; each request is tried once."""
        known = self._asked[place].compared if place < len(self._asked) else None
        if self._stable is None or (known is not None and not known.agrees):
            return False
        again, _ = await self._stable.ask(place, self._recordings[place])
        itself = compared(self._recordings[place], before, again, self._rules.tolerance)
        return again.status is not None and itself is not None and not itself.agrees


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
