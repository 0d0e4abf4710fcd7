"""A home whose very first command was killed can be used (FAULTS 14 in small)."""

import random

from faults.house import House, until


def killed_while_it_is_made(house: House, looks: int) -> None:
    """Kill a home's first command so many looks after its database appeared."""
    command = house.start(None, "runs")
    seen = 0

    def come() -> bool:
        nonlocal seen
        seen += (house.home / "penstock.db").exists()
        return seen > looks or command.process.poll() is not None

    until(come, "the home is being made")
    command.kill()


def test_a_home_killed_while_it_is_made(house: House) -> None:
    """Kill -9 of a home's first command, from its first file to its last table: each time the next command works."""
    dice = random.Random(7)  # noqa: S311 - a seeded order, no secret
    homes = [House(house.folder / f"home{number}") for number in range(8)]
    for number, made in enumerate(homes):
        made.folder.mkdir()
        killed_while_it_is_made(made, dice.randrange(60) if number else 0)
        assert made.do(None, "runs", "--json").strip() == "[]"
        assert made.rows("PRAGMA integrity_check") == [("ok",)]
    project = homes[0].project()
    homes[0].run(project)
    homes[0].end()
