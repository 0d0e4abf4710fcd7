"""Kill -9 at random moments, again and again: runs end passed, every step green once (FAULTS 1, 2 in small)."""

import random
import sys

from faults.house import BOTH, Command, House, Project, until

KILLS = 15
STEPS = """\
name: {name}
variables: {{ROOM: "{room}"}}
steps:
  a: {{run: "sh step.sh a; sleep 0.3; cp source.txt a.txt", inputs: [step.sh, source.txt], outputs: [a.txt]}}
  b: {{run: "sh step.sh b; sleep 0.3; mkdir model; cp a.txt model/model.txt", inputs: [step.sh, a.txt], \
outputs: [model/]}}
  c: {{run: "sh step.sh c; sleep 0.5", inputs: [step.sh, a.txt]}}
  d: {{stage: test, needs: package, run: "sh step.sh d; sleep 0.3", inputs: [step.sh]}}
  e: {{stage: test, needs: [package, d], run: "sh step.sh e; sleep 0.3", inputs: [step.sh]}}
package: {{model: model/, code: [serve.py], serve: python serve.py, health: /health}}
"""


def asked(house: House, run: int) -> bool:
    return bool(house.rows("SELECT 1 FROM requests WHERE kind = 'run' LIMIT 1 OFFSET ?", run - 1))


def ended(house: House, run: int) -> bool:
    return bool(house.rows("SELECT 1 FROM runs WHERE id = ? AND status NOT IN ('queued', 'running')", run))


def killed_at_random(house: House, command: Command, dice: random.Random) -> bool:
    """Let a command record up to 12 more transitions and kill it; False where it had ended by then."""
    begun, moves = last(house), dice.randrange(12)
    until(lambda: last(house) >= begun + moves or command.process.poll() is not None, "the next moves")
    alive = command.process.poll() is None
    command.kill()
    return alive


def last(house: House) -> int:
    found = house.rows("SELECT max(seq) FROM events")
    return int(found[0][0] or 0) if found else -1


def brought_to_its_end(house: House, project: Project, run: int, dice: random.Random, kills: int) -> int:
    """`run`, then `resume` as often as it takes, each killed while `kills` are left; how many were used."""
    used = 0
    while not ended(house, run):
        command = house.start(project, *(("resume",) if asked(house, run) else ("run",)))
        if used < kills:
            used += killed_at_random(house, command, dice)
        else:
            command.ends()
    return used


def test_random_kills_converge(house: House) -> None:
    """15 kills of run and resume: each run passes, every step is green exactly once, each environment serves once."""
    project, dice = house.project(), random.Random(20260102)  # noqa: S311 - a seeded order, no secret
    project.pipeline(STEPS + BOTH)
    kills = run = 0
    while kills < KILLS:
        run += 1
        project.commit(f"model {run}")
        kills += brought_to_its_end(house, project, run, dice, min(KILLS - kills, 12))
        assert house.rows("SELECT status FROM runs WHERE id = ?", run) == [("passed",)]
        assert project.serves()["model"] == project.serves("staging")["model"] == f"model {run}"
        assert len(house.serving("staging")) == len(house.serving()) == 1
    greens = house.rows("SELECT entity, count(*) FROM events WHERE kind = 'step' AND event = 'pass' GROUP BY entity")
    assert {count for _, count in greens} == {1}
    for step in "abcde":
        assert len(project.ledger("began", step)) == len(project.ledger("ended", step)) <= run
    sys.stdout.write(f"\n{kills} kills over {run} runs\n")
