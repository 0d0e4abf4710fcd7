"""The verb `tests`: what fails, what is flaky, what is in quarantine, what is slow, and the history of one test."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.cli.delivering import ProjectOption, project_here
from penstock.cli.looking import JsonOption
from penstock.cli.settings import read_settings
from penstock.errors import NotFoundError

if TYPE_CHECKING:
    from penstock.engine.observations import KnownTest, StepTests
    from penstock.engine.world import World

_SLOWEST = 5


def known_tests(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A step, or a test by its name or a part of it; default: all steps."),
    ] = None,
    *,
    project: ProjectOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many of each.", min=1, max=10_000)] = 20,
    json_: JsonOption = False,
) -> None:
    """Show failing, flaky, quarantined and slow tests, or one's history.

    Example: penstock tests unit
    """
    from penstock.cli.histories import known_json, render_steps, render_tests, step_json
    from penstock.cli.progress import display
    from penstock.cli.wiring import open_world
    from penstock.engine.concluding import today

    with open_world(read_settings()) as world:
        chosen = project_here(world, project)
        known = world.store.cases.steps(chosen.id)
        is_step = name is None or name in known
        steps = _steps(world, chosen.id, known if name is None else [name], limit) if is_step else []
        found = [] if is_step else _named(world, chosen.id, str(name), limit)
        day = today(world.clock.now())
    if json_:
        whole = {
            "project": chosen.name,
            "steps": [step_json(step) for step in steps],
            "tests": [known_json(test) for test in found],
        }
        typer.echo(json.dumps(whole, indent=2))
    elif found:
        display(render_tests(found, limit), sys.stdout)
    elif steps:
        display(render_steps(chosen.name, steps, limit, day), sys.stdout)
    else:
        typer.echo("no step has told of its tests yet: give one a report, or have it run pytest")


def _steps(world: "World", project: str, names: list[str], limit: int) -> "list[StepTests]":
    from penstock.engine.observations import known_of_step

    slowest = min(limit, _SLOWEST)
    found = (known_of_step(world.store, project, name, world.clock.now(), slowest) for name in names)
    return [step for step in found if step is not None]


def _named(world: "World", project: str, name: str, limit: int) -> "list[KnownTest]":
    """The tests that are meant. Raises NotFoundError where there is none."""
    from penstock.engine.observations import known_by_name

    found = known_by_name(world.store, project, name, limit)
    if not found:
        steps = ", ".join(world.store.cases.steps(project)) or "none yet"
        raise NotFoundError(f'no step or test is named "{name}"; steps with tests: {steps}')
    return list(found)
