"""What has to be approved waits, costs nothing meanwhile, is released once when it was approved, and ends in words."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from engine.builders import DIGITS, Command, House, until
from penstock.approvals import ApprovalStatus
from penstock.engine.coordinator import Coordinator
from penstock.releases import Frozen, ReleaseStatus
from penstock.runs import RequestStatus, RunStatus, RunView
from penstock.store.contract import Approval, Request, Run

RULES: Mapping[str, Any] = {"roles": ["deployer"], "expires": "24h"}
STAGED: dict[str, Any] = {
    "champion": "production",
    "environments": {
        "staging": {"port": 8801},
        "production": {"port": 8802, "needs": ["staging"], "approval": RULES},
        "archive": {"port": 8803, "needs": ["production"]},
        "other": {"port": 8804},
    }
}


class Gate:
    """A house with a pipeline whose production must be approved, and what persons do with it."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.store = house.store

    def commit(self, text: str = "1", **pipeline: Any) -> None:
        self.house.machine.script["train for"] = replace(
            self.house.machine.script["train for"], files={"model/weights": text, "metrics.json": '{"accuracy": 0.95}'}
        )
        self.house.commit({**DIGITS, **STAGED, **pipeline}, src__train=text)

    def run(self) -> Run:
        """A run until it ends or waits."""
        shown = self.house.run()
        return self.store.runs.get(int(shown.run))

    def say(self, run: Run, environment: str = "production", **more: Any) -> Request:
        """Approve it, or with `reject` refuse it, and follow that to its end."""
        number = self.ask(run, environment, **more)

        async def story() -> None:
            await self.house.carry_out(number)

        self.house.play(story())
        return self.store.requests.get(number)

    def ask(self, run: Run, environment: str = "production", **more: Any) -> int:
        return self.house.ask("approve", {"run": run.id, "environment": environment, **more})

    def look(self) -> None:
        """A coordinator that has nothing to do looks around once."""

        async def story() -> None:
            looks = iter((False, True))
            await Coordinator(self.house.world).coordinate(lambda: next(looks))

        self.house.play(story())

    def asked(self, run: Run, environment: str = "production") -> Approval:
        found = self.store.approvals.newest(run.id, environment)
        assert found is not None
        return found

    def targets(self, run: Run) -> dict[str, str]:
        return {t.environment: t.status for t in self.store.runs.targets(run.id)}

    def shown(self, run: Run) -> RunView:
        return self.house.run_of(run.request)


@pytest.fixture
def gate(house: House) -> Gate:
    return Gate(house)


def test_a_run_waits_and_goes_on(gate: Gate) -> None:
    """Its request ends with 4, what depends on it waits too, what does not is released; approved, it is released once."""
    gate.commit()
    run = gate.run()
    assert run.status is RunStatus.WAITING
    request = gate.store.requests.get(run.request)
    assert (request.status, request.exit_code) == (RequestStatus.ENDED, 4)
    waits = {"staging": "released", "production": "waiting", "archive": "queued", "other": "released"}
    assert gate.targets(run) == waits
    assert run.reason == f"production {gate.asked(run).sentence}"
    assert "waits for approval (deployer) until " in str(run.reason)
    assert str(run.reason).endswith("penstock approve 1 production")
    assert gate.house.served(8802) is None
    said = gate.say(run, reason="fine")
    assert (said.exit_code, said.error) == (0, None)
    assert gate.store.runs.status(run.id) is RunStatus.PASSED
    assert set(gate.targets(run).values()) == {"released"}
    assert gate.store.requests.get(run.request).exit_code == 0
    asked = gate.asked(run)
    assert (asked.status, asked.decided_by, asked.reason) == (ApprovalStatus.USED, "ada", "fine")
    assert len(gate.store.releases.of(run.project, "production")) == 1
    assert gate.house.served(8802) == run.version
    again = gate.say(run)
    assert again.exit_code == 2
    assert str(again.error).startswith("run 1 for production was approved by ada on ")


def test_a_run_that_was_refused_fails(gate: Gate) -> None:
    """By whose word and why; what needs the environment is skipped; nothing was begun there; it is not asked twice."""
    gate.commit()
    run = gate.run()
    said = gate.say(run, reject=True, reason="the prices are wrong")
    assert (said.exit_code, said.status) == (1, RequestStatus.ENDED)
    run = gate.store.runs.get(run.id)
    assert run.status is RunStatus.FAILED
    assert str(run.reason).startswith("production: refused by ada on ")
    assert str(run.reason).endswith(": the prices are wrong")
    assert gate.targets(run) == {
        "staging": "released",
        "production": "refused",
        "archive": "skipped",
        "other": "released",
    }
    (archive,) = [t for t in gate.store.runs.targets(run.id) if t.environment == "archive"]
    assert archive.reason == "needs production, which was not released to"
    assert gate.store.releases.of(run.project, "production") == []
    again = gate.say(run)
    assert str(again.error).endswith("the prices are wrong; penstock run asks again")
