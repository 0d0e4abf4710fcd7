"""What happened to an environment is told with when, what, who and why."""

from typing import Any

from engine.builders import PROJECT, House
from penstock.engine.happenings import Happening, happenings
from penstock.store.contract import Request


def carried_out(house: House, kind: str, **payload: Any) -> Request:
    """A verb on production, carried out by a coordinator."""
    number = house.ask(kind, {"project": PROJECT.id, "environment": "production", **payload})

    async def story() -> None:
        await house.carry_out(number)

    house.play(story())
    return house.store.requests.get(number)


def told(house: House) -> list[tuple[str, str | None, str, str | None]]:
    found = happenings(house.store, PROJECT.id, "production")
    assert [h.at for h in found] == sorted(h.at for h in found)
    return [(h.what, h.version, h.who, h.why) for h in found]


def test_what_happened_is_told_in_order(house: House) -> None:
    """Releases by run and by hand, a rejection, migrations, a freeze, a rollback and a stop, each with its reason."""
    migrate = {"run": "go up", "timeout": 60.0, "lock_timeout": 1.0, "contract": False, "down": None}

    async def releases() -> None:
        await house.deliver(house.wanted("0.1", kind="run", migrate=migrate))
        await house.deliver(house.wanted("0.2"))
        house.machine.script["go up"] = 1
        await house.deliver(house.wanted("0.3", migrate=migrate))

    house.play(releases())
    for kind, payload in (
        ("freeze", {"reason": "the audit"}),
        ("rollback", {"reason": "it is slow"}),
        ("unfreeze", {}),
        ("stop", {}),
    ):
        assert carried_out(house, kind, **payload).exit_code == 0, kind
    found = told(house)
    why = found[4][3] or ""
    assert why.startswith("its migration did not pass (exit code 1)")
    assert found == [
        ("migrated", "0.1", "ada", None),
        ("released", "0.1", "ada", "run 0"),
        ("released", "0.2", "ada", "by hand"),
        ("did not migrate", "0.3", "ada", "exit code 1"),
        ("rejected", "0.3", "ada", why),
        ("frozen", None, "ada", "the audit"),
        ("rolled back to", "0.1", "ada", "it is slow"),
        ("unfrozen", None, "ada", None),
        ("stopped", "0.1", "ada", None),
    ]
    rolled = [r for r in house.store.releases.of() if r.version == "0.2"]
    assert rolled[0].reason == "rolled back to 0.1 by ada: it is slow"


def test_other_environments_do_not_count(house: House) -> None:
    """Each has its own history; what was refused is none."""
    house.store.runs.project(PROJECT)

    async def story() -> None:
        await house.deliver(house.wanted("0.1", environment="staging"))

    house.play(story())
    assert carried_out(house, "unfreeze").exit_code == 2
    assert happenings(house.store, PROJECT.id, "production") == []
    assert [h.what for h in happenings(house.store, PROJECT.id, "staging")] == ["released"]
    assert isinstance(happenings(house.store, PROJECT.id, "staging")[0], Happening)
