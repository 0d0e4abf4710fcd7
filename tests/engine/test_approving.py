"""What has to be approved waits, costs nothing meanwhile, is released once when it was approved, and ends in words."""

from collections.abc import Mapping
from typing import Any

import pytest

from acceptance.tiny import free_ports
from engine.builders import DIGITS, Command, House, Server, until
from penstock.approvals import ApprovalStatus
from penstock.engine.coordinator import Coordinator
from penstock.engine.triggers import Adopter
from penstock.engine.views import to_json
from penstock.releases import Frozen
from penstock.runners.scripted import Act
from penstock.runs import RequestStatus, RunStatus, RunView
from penstock.server.states import ServeState, States
from penstock.store.contract import Approval, Request, Run

RULES: Mapping[str, Any] = {"roles": ["deployer"], "expires": "24h"}
STAGED: dict[str, Any] = {
    "champion": "production",
    "environments": {
        "staging": {"port": 8801},
        "production": {"port": 8802, "needs": ["staging"], "approval": RULES},
        "archive": {"port": 8803, "needs": ["production"]},
        "other": {"port": 8804},
    },
}


class Gate:
    """A house with a pipeline whose production must be approved, and what persons do with it."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.store = house.store

    def commit(self, text: str = "1", **pipeline: Any) -> None:
        files = {"model/weights": text, "metrics.json": '{"accuracy": 0.95}'}
        self.house.machine.script["train for"] = Act(files=files)
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
    """Its request ends with 4, what needs it waits too, what does not is released; approved, it is released once."""
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
        "production": "unapproved",
        "archive": "skipped",
        "other": "released",
    }
    (archive,) = [t for t in gate.store.runs.targets(run.id) if t.environment == "archive"]
    assert archive.reason == "needs production, which was not released to"
    assert gate.store.releases.of(run.project, "production") == []
    again = gate.say(run)
    assert str(again.error).endswith("the prices are wrong; penstock run asks again")


def test_two_places_wait_apart(gate: Gate) -> None:
    """Each is approved by itself; the run waits on until nothing of it does, and is red if one was refused."""
    places = {"eu": {"port": 8801, "approval": True}, "us": {"port": 8802, "approval": True}}
    gate.commit(environments=places, champion="eu")
    run = gate.run()
    assert gate.say(run, "eu").exit_code == 4
    assert gate.targets(run) == {"eu": "released", "us": "waiting"}
    assert gate.store.runs.get(run.id).reason == f"us {gate.asked(run, 'us').sentence}"
    assert gate.say(run, "us", reject=True).exit_code == 1
    assert gate.targets(run) == {"eu": "released", "us": "unapproved"}
    assert gate.house.served(8801) == run.version


def test_the_second_refusal_ends_the_run(gate: Gate) -> None:
    """A run of which one place was refused waits for the other, without a step in between."""
    places = {"eu": {"port": 8801, "approval": True}, "us": {"port": 8802, "approval": True}}
    gate.commit(environments=places, champion="eu")
    run = gate.run()
    assert gate.say(run, "eu", reject=True).exit_code == 4
    assert gate.store.runs.get(run.id).reason == f"us {gate.asked(run, 'us').sentence}"
    assert gate.say(run, "us").exit_code == 1
    assert gate.targets(run) == {"eu": "unapproved", "us": "released"}


def test_a_word_while_the_run_still_releases_elsewhere(gate: Gate) -> None:
    """What waits already is approved while the next environment is on its way: the run releases it before it ends."""
    places = {"eu": {"port": 8801, "approval": True}, "us": {"port": 8802}}
    gate.commit(environments=places, champion="eu")

    async def story() -> None:
        number = gate.house.ask_run()
        async with gate.house.coordinating():
            await until(gate.store.approvals.pending)
            run = gate.store.runs.latest(limit=1)[0]
            gate.house.machine.statuses[run.version] = 503
            approving = gate.ask(run, "eu")
            await until(lambda: not gate.store.approvals.pending())
            assert gate.store.runs.status(run.id) is RunStatus.RUNNING
            gate.house.machine.statuses[run.version] = 200
            assert (await gate.house.ended(approving)).exit_code == 0
            assert (await gate.house.ended(number)).exit_code == 0
            assert gate.targets(run) == {"eu": "released", "us": "released"}

    gate.house.play(story())


def test_what_is_deployed_elsewhere_is_approved_too(gate: Gate) -> None:
    """The command of one's own runs once, and not before somebody said yes."""
    port = free_ports(1)[0]
    server = Server(port, "elsewhere", {})
    deploy = {"run": "copy it there", "health": f"http://127.0.0.1:{port}/health"}
    try:
        gate.commit(environments={"production": {"deploy": deploy, "approval": RULES}})
        run = gate.run()
        assert [s for s in gate.house.machine.started if s.command == "copy it there"] == []
        assert gate.say(run).exit_code == 0
        assert len([s for s in gate.house.machine.started if s.command == "copy it there"]) == 1
    finally:
        server.close()


# --- what ends by itself -------------------------------------------------------------------------------------------


def test_time_ends_what_nobody_approved(gate: Gate) -> None:
    """To the second, when the next coordinator looks; the run fails with the sentence, and approve says so too."""
    gate.commit()
    run = gate.run()
    gate.house.clock.ahead = 24 * 3600 - 60
    gate.look()
    assert gate.store.runs.status(run.id) is RunStatus.WAITING
    gate.house.clock.ahead = 24 * 3600 + 1
    said = gate.say(run)
    asked = gate.asked(run)
    assert said.error == f"the time to approve run 1 for production ended on {asked.until}: penstock run asks again"
    assert (asked.status, said.exit_code) == (ApprovalStatus.EXPIRED, 2)
    ended = gate.store.runs.get(run.id)
    assert (ended.status, ended.reason) == (RunStatus.FAILED, f"production: nobody approved it until {asked.until}")


def test_a_newer_run_takes_the_place_of_one_that_waits(gate: Gate) -> None:
    """The older one is superseded, the newer one waits; an older one that comes late is superseded at once."""
    gate.commit()
    older = gate.run()
    gate.commit("2")
    newer = gate.run()
    gate.look()
    assert gate.store.runs.status(older.id) is RunStatus.SUPERSEDED
    assert gate.store.runs.status(newer.id) is RunStatus.WAITING
    assert gate.targets(older)["production"] == "unapproved"
    said = gate.say(older)
    words = "run 1 for production cannot be approved any more, because a newer release takes its place"
    assert said.error == f"{words}: penstock run asks again"
    assert gate.say(newer).exit_code == 0
    assert gate.house.served(8802) == newer.version


def test_an_older_run_that_comes_late_is_superseded(gate: Gate, command: Command) -> None:
    """It asks nobody where a newer one waits already."""
    gate.commit()
    first = gate.house.ask_run(command.follower)
    command.die()
    gate.commit("2")
    newer = gate.run()
    older = gate.store.runs.of_request(first)
    assert older is not None
    assert older.status is RunStatus.QUEUED
    assert carried(gate, "resume", run=older.id).exit_code == 3
    assert gate.store.runs.status(older.id) is RunStatus.SUPERSEDED
    assert gate.store.runs.status(newer.id) is RunStatus.WAITING
    assert [a.run for a in gate.store.approvals.of(newer.project)] == [newer.id]


def test_a_deploy_by_hand_takes_the_place_of_what_waits(gate: Gate) -> None:
    """A person's deploy is newer than the run: that is superseded, and its approval void."""
    gate.commit()
    first = gate.run()
    gate.say(first)
    gate.commit("2")
    run = gate.run()
    assert deploy(gate, first).exit_code == 0
    gate.look()
    assert gate.store.runs.status(run.id) is RunStatus.SUPERSEDED
    asked = gate.asked(run)
    assert (asked.status, asked.reason) == (ApprovalStatus.VOID, "a newer release takes its place")


def test_another_release_voids(gate: Gate) -> None:
    """Where another release than the one that was pinned was there last, nobody approved the step from that one."""
    gate.commit()
    gate.say(gate.run())
    gate.commit("2")
    run = gate.run()
    gate.store._connection.exec_driver_sql("UPDATE approvals SET over = 77 WHERE status = 'pending'")
    gate.look()
    reason = "its approval is void, because another release went to production meanwhile"
    assert gate.store.runs.get(run.id).reason == f"production: {reason}"
    assert gate.store.runs.status(run.id) is RunStatus.FAILED


def test_what_is_pinned_is_looked_at_as_the_release_begins(gate: Gate) -> None:
    """An approval that was given for other settings than those of the release is void then; nothing is begun."""
    gate.commit()
    run = gate.run()
    gate.store._connection.exec_driver_sql("UPDATE approvals SET settings = 'sha256:other'")
    assert gate.say(run).exit_code == 1
    (shown,) = [r for r in gate.shown(run).releases if r.environment == "production"]
    reason = "its approval is void, because the settings of production are others"
    assert (shown.status, shown.reason) == ("unapproved", reason)
    assert gate.asked(run).status is ApprovalStatus.VOID
    assert gate.store.releases.of(run.project, "production") == []
    assert gate.store.runs.status(run.id) is RunStatus.FAILED


# --- who, and when it cannot be --------------------------------------------------------------------------------------


def test_somebody_else_must_approve(gate: Gate) -> None:
    """With `by_another` whoever asked for the run is refused, and the run waits on."""
    other = {"production": {"port": 8802, "approval": {"by_another": True}}}
    gate.commit(environments=other)
    run = gate.run()
    assert "(deployer, other than ada)" in str(run.reason)
    said = gate.say(run)
    assert said.error == "ada asked for this release, and somebody else must approve it"
    assert gate.store.runs.status(run.id) is RunStatus.WAITING


def test_what_waits_for_nothing(gate: Gate) -> None:
    """An environment that needs no approval, one that is not there, and a run that is red: a sentence each."""
    gate.commit()
    run = gate.run()
    words = "run 1 asks for no approval for staging: penstock show 1 says where it stands"
    assert gate.say(run, "staging").error == words
    known = "staging, production, archive, other"
    assert gate.say(run, "moon").error == f'run 1 releases to no environment "moon"; it has {known}'
    assert gate.store.runs.status(run.id) is RunStatus.WAITING


def test_a_frozen_environment_is_not_approved(gate: Gate) -> None:
    """A run skips it and asks nobody; one that waits waits on, and is approved once it is unfrozen."""
    gate.commit()
    run = gate.run()
    gate.store.releases.freeze(run.project, "production", Frozen("bob", "the audit", 1.0, 7))
    said = gate.say(run)
    assert said.error == "production is frozen by bob: the audit: penstock unfreeze production first"
    other = gate.run()
    assert other.status is RunStatus.PASSED
    assert gate.targets(other)["production"] == "skipped"
    gate.store.releases.unfreeze(run.project, "production", "bob")
    assert gate.say(run).exit_code == 0


# --- by hand ---------------------------------------------------------------------------------------------------------


def deploy(gate: Gate, run: Run) -> Request:
    package = gate.store.runs.packages(run.project, run.version)[0]
    payload = {"environment": "production", "package": package.digest, "run": run.id, "person": {"PATH": "/own"}}
    number = gate.house.ask("deploy", payload)

    async def story() -> None:
        await gate.house.carry_out(number)

    gate.house.play(story())
    return gate.store.requests.get(number)


def test_only_what_was_approved_is_deployed_by_hand(gate: Gate) -> None:
    """What waits, was refused or never asked is refused with what to do; what was approved may come back."""
    gate.commit()
    run = gate.run()
    what = f"{run.version} with these settings"
    assert deploy(gate, run).error == f"{what} {gate.asked(run).sentence}"
    gate.say(run)
    gate.commit("2")
    second = gate.run()
    gate.say(second)
    assert deploy(gate, run).exit_code == 0
    assert gate.house.served(8802) == run.version
    gate.commit("3")
    third = gate.run()
    gate.say(third, reject=True)
    assert str(deploy(gate, third).error).startswith(f"{third.version} with these settings was refused by ada on ")
    gate.commit("4")
    gate.house.run(no_deploy=True)
    fourth = gate.store.runs.latest(limit=1)[0]
    words = f"{fourth.version} with these settings is not approved for production: penstock run of its commit asks"
    assert deploy(gate, fourth).error == f"{words} for it"


def test_a_way_back_needs_no_approval(gate: Gate) -> None:
    """A rollback is made at once, and a run that waited meanwhile is superseded: it was for another state of things."""
    gate.commit()
    gate.say(first := gate.run())
    gate.commit("2")
    gate.say(gate.run())
    gate.commit("3")
    waiting = gate.run()

    async def story() -> None:
        payload = {"project": first.project, "environment": "production"}
        assert (await gate.house.carry_out(gate.house.ask("rollback", payload))).exit_code == 0

    gate.house.play(story())
    gate.look()
    assert gate.house.served(8802) == first.version
    assert gate.store.runs.status(waiting.id) is RunStatus.SUPERSEDED


# --- other verbs on a run that waits ----------------------------------------------------------------------------------


def carried(gate: Gate, kind: str, **payload: Any) -> Request:
    number = gate.house.ask(kind, payload)

    async def story() -> None:
        await gate.house.carry_out(number)

    gate.house.play(story())
    return gate.store.requests.get(number)


def test_a_run_that_waits_is_canceled(gate: Gate) -> None:
    """Nothing of it waits any more, and what it had released goes on."""
    gate.commit()
    run = gate.run()
    assert carried(gate, "cancel", runs=[run.id]).exit_code == 0
    assert gate.store.runs.status(run.id) is RunStatus.CANCELED
    assert gate.targets(run)["production"] == "skipped"
    assert (gate.asked(run).status, gate.asked(run).reason) == (ApprovalStatus.VOID, "the run was canceled")
    assert gate.house.served(8801) == run.version
    assert "the run was canceled" in str(gate.say(run).error)


def test_resume_leaves_what_waits(gate: Gate) -> None:
    """All open runs are none of these; asked for by its number it still waits, with 4."""
    gate.commit()
    run = gate.run()
    assert carried(gate, "resume", run=None).result == {"runs": []}
    assert carried(gate, "resume", run=run.id).exit_code == 4
    assert gate.store.runs.status(run.id) is RunStatus.WAITING


def test_what_waits_takes_no_place_in_its_group(gate: Gate) -> None:
    """Runs one at a time: the next one begins while the first waits, and a run that goes on has its turn again."""
    gate.commit(concurrency={"group": "releases"})
    first = gate.run()
    assert first.status is RunStatus.WAITING
    gate.commit("2", concurrency={"group": "releases"}, environments={"staging": {"port": 8801}}, champion="staging")
    assert gate.run().status is RunStatus.PASSED
    assert gate.say(first).exit_code == 0


def test_the_same_once_more_asks_nobody(gate: Gate) -> None:
    """A run of what serves already in production changes nothing there, so that nobody is asked."""
    gate.commit()
    gate.say(gate.run())
    again = gate.run()
    assert again.status is RunStatus.PASSED
    assert gate.store.approvals.newest(again.id, "production") is None


def test_an_interrupted_release_goes_on_by_the_same_word(gate: Gate) -> None:
    """Ctrl-C on the way to serve: resume goes on with that release, and nobody is asked again."""
    gate.commit()
    run = gate.run()
    gate.house.machine.statuses[run.version] = None

    async def story() -> None:
        approving = gate.ask(run)
        async with gate.house.coordinating():
            await until(lambda: gate.store.releases.of(run.project, "production"))
            interrupting = gate.house.ask("interrupt", {"runs": [run.id]})
            assert (await gate.house.ended(interrupting)).exit_code == 0
        assert gate.store.requests.get(approving).exit_code in {None, 130}
        del gate.house.machine.statuses[run.version]
        assert (await gate.house.carry_out(gate.house.ask("resume", {"run": run.id}))).exit_code == 0

    gate.house.play(story())
    assert [str(r.status) for r in gate.store.releases.of(run.project, "production")] == ["serving"]
    assert gate.asked(run).status is ApprovalStatus.USED


def test_what_was_withdrawn_by_an_interrupt_begins_again(gate: Gate) -> None:
    """A release that never served, taken back because its command was stopped, is begun anew by the same word, once."""
    gate.commit()
    run = gate.run()
    gate.say(run)
    (first,) = gate.store.releases.of(run.project, "production")
    connection = gate.store._connection
    undone = "UPDATE releases SET status = 'rolled_back', since = NULL, reason = 'interrupted'"
    connection.exec_driver_sql(f"{undone} WHERE id = {first.id}")
    connection.exec_driver_sql("UPDATE runs SET status = 'queued'")
    connection.exec_driver_sql("UPDATE targets SET status = 'moving' WHERE environment = 'production'")
    assert carried(gate, "resume", run=run.id).exit_code == 0
    assert gate.house.served(8802) == run.version
    connection.exec_driver_sql("UPDATE releases SET status = 'retired' WHERE environment = 'production' AND id > 1")
    connection.exec_driver_sql("UPDATE runs SET status = 'queued'")
    connection.exec_driver_sql("UPDATE targets SET status = 'moving' WHERE environment = 'production'")
    assert carried(gate, "resume", run=run.id).exit_code == 1
    (target,) = [t for t in gate.store.runs.targets(run.id) if t.environment == "production"]
    assert (target.status, target.reason) == ("unapproved", "what was approved has served already")


def test_serve_goes_on_with_what_was_approved(gate: Gate, command: Command) -> None:
    """It adopts no run that waits, and one whose approver died, also where it adopted that run before."""
    gate.commit()
    number = gate.house.ask_run(command.follower)
    adopter = Adopter(gate.house.world, "ada")
    run = gate.store.runs

    async def story() -> None:
        async with gate.house.coordinating():
            await until(lambda: run.of_request(number))
            command.die()
            assert adopter.adopt() == [1]
            await until(lambda: run.status(1) is RunStatus.WAITING)
            assert adopter.adopt() == []
        other = Command()
        gate.store.runs.own(1, other.follower)
        with gate.store.transaction():
            gate.store.runs.move(1, "continue")
        other.die()
        assert adopter.adopt() == [1]

    gate.house.play(story())


def test_every_picture_tells(gate: Gate) -> None:
    """The object of `--json`, and the page of serve: who may approve, until when; afterwards who did, when and why."""
    gate.commit()
    gate.say(first := gate.run(), reason="fine")
    gate.commit("2")
    run = gate.run()
    asked = gate.asked(run)
    states = States(gate.house.world, [], lambda: ServeState(1, 0.0, coordinates=True)).now()
    notes = {e.environment: e.note for e in states.environments}
    assert notes["production"] == f"{run.version} {asked.sentence}"
    assert (states.runs[0].status, states.runs[0].reason) == ("waiting", run.reason)
    told = {r["environment"]: r["approval"] for r in to_json(gate.shown(run))["releases"]}
    assert told["staging"] is None
    assert told["production"]["status"] == "pending"
    (given,) = [r.approval for r in gate.shown(first).releases if r.environment == "production"]
    assert given is not None
    assert (given.status, given.by, given.reason, given.at is None) == ("used", "ada", "fine", False)
