"""freeze and unfreeze as a person types them."""

from acceptance.tiny import Tiny


def test_a_frozen_environment(served: Tiny) -> None:
    """A run passes it by with exit 0, deploy is refused, rollback is not, status says why; unfreeze opens it again."""
    first = str(served.serving("production"))
    said = served("freeze", "production", "--reason", "the audit\nlasts")
    assert said.out == "production is frozen: penstock unfreeze production lets releases through again\n"
    served.commit(accuracy=0.95)
    run = served.run()
    staging, production = run["releases"]
    assert (run["status"], staging["status"], production["status"]) == ("passed", "serving", "skipped")
    assert production["reason"].startswith("production is frozen by ")
    assert production["reason"].endswith(": the audit lasts")
    served("deploy", run["version"], "production", code=2).refuses("production is frozen by", "the audit lasts")
    notes = {row["environment"]: row["note"] for row in served("status", "--json").json["environments"]}
    assert notes["production"].startswith("frozen by ")
    assert notes["staging"] == f"{first} is kept warm for rollback"
    assert served.serving("production") == first
    served("freeze", "production", "--reason", "again", code=2).refuses("is frozen by", "unfreeze it first")
    assert served("unfreeze", "production").out == "production takes releases again\n"
    served("deploy", run["version"], "production")
    served("freeze", "production", "--reason", "trouble")
    served("rollback", "production", "--reason", "it is slow")
    assert served.serving("production") == first
    told = served("status", "production", "--history", "--json").json
    assert [(one["what"], one["version"], one["why"]) for one in told] == [
        ("released", first, "run 1"),
        ("frozen", None, "the audit lasts"),
        ("unfrozen", None, None),
        ("released", run["version"], "by hand"),
        ("frozen", None, "trouble"),
        ("rolled back to", first, "it is slow"),
    ]
    shown = served("status", "production", "--history").out
    assert "rolled back to" in shown
    assert "it is slow" in shown
    assert len(served("status", "production", "--json").json["environments"]) == 1


def test_what_cannot_be_frozen(served: Tiny) -> None:
    """An unknown environment, an empty reason, and what is not frozen: one sentence each."""
    served("freeze", "nowhere", "--reason", "x", code=2).refuses('no environment "nowhere"', "staging, production")
    served("freeze", "staging", "--reason", " ", code=2).refuses("--reason TEXT")
    served("freeze", "staging", code=2)
    served("unfreeze", "staging", code=2).refuses("staging is not frozen")
    served("status", "nowhere", "--history", code=2).refuses('no environment "nowhere"')
    served("status", "--history", code=2).refuses("name the environment")
