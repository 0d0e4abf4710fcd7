"""Kill -9 around an approval: a run waits on, a word that was given stays given, and the release begins once."""

from faults.conftest import NewPlace
from faults.crashes import SERVE, Place
from faults.forks import Fault
from faults.house import answers
from routers.toys import free_port

PIPELINE = """\
name: served
steps: {{a: {{run: mkdir model; cp source.txt model/model.txt, inputs: [source.txt], outputs: [model/]}}}}
package: {{model: model/, code: [serve.py], serve: python3 -S serve.py, health: /health}}
environments:
  production: {{port: {port}, approval: true}}
"""

ASKING = ("approval.ask:before_commit", "approval.ask:after_commit", "run.wait:before_commit", "run.wait:after_commit")
GIVING = ("approve:before_commit", "approve:after_commit", "use:before_commit", "use:after_commit")


def killed(place: Place, point: str, *arguments: str) -> None:
    """A command whose coordinator, which it is, is killed at the first passing of a point."""
    file = place.folder / f"killed-{len(place.commands)}"
    assert place.type(*arguments, fault=Fault("coordinator", str(file), point, 1)).wait() == -9


def test_kills_around_an_approval(new_place: NewPlace) -> None:
    """Before and after a run asked and waits, before and after a person's word and the begin of the release.

    A run that waits needs nobody: no process of it lives, and a killed command leaves it to `resume` or to `approve`.
    """
    port = free_port()
    place = new_place(serve_py=SERVE, penstock_yaml=PIPELINE.format(port=port), source_txt="0")
    for number, (asking, giving) in enumerate(zip(ASKING, GIVING, strict=True), 1):
        place.repo.commit("another", **{"source.txt": str(number)})
        killed(place, asking, "run")
        waits = place.rows("SELECT 1 FROM runs WHERE id = ? AND status = 'waiting'", number)
        assert bool(waits) is (asking == "run.wait:after_commit")
        if asking != "approval.ask:after_commit":  # a word is taken as soon as it was asked for
            place.type("resume", str(number)).ends(4)
        assert [line for line in place.processes().values() if "serve.py" not in line and "envoy" not in line] == []
        killed(place, f"approval.{giving}", "approve", str(number), "production")
        if giving == "approve:before_commit":
            place.type("approve", str(number), "production").ends()
        else:
            place.type("approve", str(number), "production").ends(2)
            place.type("resume", str(number)).ends()
        assert (answers(port) or {}).get("model") == str(number)
        assert place.rows("SELECT count(*) FROM releases WHERE run = ?", number) == [(1,)]
        assert place.rows("SELECT status FROM approvals WHERE run = ?", number) == [("used",)]
        assert place.rows("SELECT id FROM requests WHERE status = 'open'") == []
