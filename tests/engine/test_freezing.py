"""A frozen environment takes no release, says who froze it and why, and what serves there goes on."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from engine.builders import DIGITS, PROJECT, House, until
from penstock.engine.delivery import Delivery, FrozenError
from penstock.releases import Frozen, ReleaseStatus
from penstock.runs import RequestStatus
from penstock.store.contract import Request

REASON = "production is frozen by ada: the audit"


def ask(house: House, kind: str, **more: Any) -> Request:
    """Freeze or unfreeze production by a request, carried out."""
    house.store.runs.project(PROJECT)
    number = house.ask(kind, {"project": PROJECT.id, "environment": "production", **more})

    async def story() -> None:
        await house.carry_out(number)

    house.play(story())
    return house.store.requests.get(number)


def test_a_frozen_environment_refuses(house: House) -> None:
    """Nothing new is begun; what serves the same is left as it is, and a rollback by hand is possible."""

    async def story() -> None:
        await house.deliver(house.wanted("0.1"))
        await house.deliver(house.wanted("0.2"))
        house.store.releases.freeze(PROJECT.id, "production", Frozen("ada", "the audit", 1.0, 7))
        count = len(house.store.releases.of())
        with pytest.raises(FrozenError, match=REASON):
            await house.deliver(house.wanted("0.3"))
        assert len(house.store.releases.of()) == count
        assert (await house.deliver(house.wanted("0.2"))).status is ReleaseStatus.SERVING
        request = house.wanted("any").request
        assert (await Delivery(house.world).rollback(PROJECT.id, "production", request, "bob")).version == "0.1"
        assert (await house.deliver(house.wanted("0.3", environment="staging", port=8802))).version == "0.3"

    house.play(story())


def test_what_was_begun_and_interrupted_ends(house: House) -> None:
    """A release that would go on after the freeze is rejected with the reason, and its replicas end."""

    async def story() -> None:
        house.machine.statuses["0.1"] = None
        wanted = house.wanted("0.1")
        task = asyncio.create_task(Delivery(house.world).release(wanted, lambda: None))
        await until(house.store.releases.all_replicas)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        house.store.releases.freeze(PROJECT.id, "production", Frozen("ada", "the audit", 1.0, 7))
        with pytest.raises(FrozenError):
            await house.deliver(wanted)
        (release,) = house.store.releases.of()
        assert (release.status, release.reason) == (ReleaseStatus.REJECTED, REASON)
        assert house.store.releases.all_replicas() == []

    house.play(story())


def test_freeze_and_unfreeze_by_request(house: House) -> None:
    """Each once: what is so already is refused with a sentence; the generation stays, and the reason is kept."""
    house.store.runs.project(PROJECT)
    house.store.releases.advance(PROJECT.id, "production", 5)
    assert ask(house, "freeze", reason="the audit").status is RequestStatus.ENDED
    again = ask(house, "freeze", reason="another")
    assert (again.exit_code, again.error) == (2, f"{REASON}: unfreeze it first to give another reason")
    found = house.store.releases.frozen(PROJECT.id, "production")
    assert found is not None
    assert (found.by, found.reason) == ("ada", "the audit")
    assert house.store.releases.generation(PROJECT.id, "production") == 5
    assert ask(house, "unfreeze").exit_code == 0
    assert house.store.releases.frozen(PROJECT.id, "production") is None
    assert ask(house, "unfreeze").error == "production is not frozen"
    assert ask(house, "freeze", reason="once more").exit_code == 0


def test_a_run_skips_what_is_frozen(house: House) -> None:
    """The run passes; the environment is skipped with the reason, and so is what needs it."""
    house.commit(DIGITS, src__train="1")
    house.run(no_deploy=True)
    project = house.store.runs.projects()[0].id
    house.store.releases.freeze(project, "staging", Frozen("ada", "the audit", 1.0, 7))
    shown = house.run()
    assert shown.status == "passed"
    assert [(r.environment, r.status, r.reason) for r in shown.releases] == [
        ("staging", "skipped", "staging is frozen by ada: the audit"),
        ("production", "skipped", "needs staging, which was not released to"),
    ]
