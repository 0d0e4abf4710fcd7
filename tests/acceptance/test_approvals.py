"""A release that waits for a person's word, as that person meets it: nothing is left running, and approve goes on."""

from acceptance.tiny import Tiny


def test_the_whole_story(tiny: Tiny) -> None:
    """The run ends with 4 and what to do, every verb that looks says so, yes goes on to production and no fails."""
    tiny.edit("penstock.yaml", "production: {needs: staging,", "production: {needs: staging, approval: true,")
    tiny.commit("who says so")
    said = tiny("run", code=4)
    until = said.out.partition("(deployer) until ")[2][:16]
    waits = f"waits for approval (deployer) until {until}: penstock approve 1 production"
    assert said.out.startswith(f"! run 1 waits for a person: production {waits}\n")
    lines = said.err.splitlines()
    assert lines[-2:] == [f"production  waiting  {waits[6:]}", f"run 1  waiting  production {waits}"]
    assert [line for line in tiny.command.processes().values() if " -m penstock run" in line] == []
    assert (tiny.serving("staging") is not None, tiny.serving("production")) == (True, None)
    rows = {row["environment"]: row for row in tiny("status", "--json").json["environments"]}
    assert (rows["production"]["status"], rows["production"]["note"]) == ("waiting", waits)
    assert "waiting" in tiny("runs").out
    assert tiny("resume").out == f"nothing to resume: run 1 waits: production {waits}\n"

    tiny("approve", "1", "staging", code=2).refuses("run 1 asks for no approval for staging")
    tiny("approve", "7", "production", code=2).refuses("there is no run 7")
    tiny("approve", "1", "production", "--reason", " ", code=2).refuses("--reason TEXT")
    approved = tiny("approve", "1", "production", "--reason", "staging looks right")
    version = str(tiny.serving("production"))
    assert approved.out.startswith(f"✓ {version} is serving in production at http://127.0.0.1:")
    assert approved.err.splitlines()[-1].startswith("run 1  passed")
    assert ": staging looks right" in tiny("show", "1").out
    tiny("approve", "1", "production", code=2).refuses("run 1 for production was approved by ", "staging looks right")

    tiny.commit(accuracy=0.95)
    newer = tiny.run(code=4)
    assert (newer["status"], newer["releases"][1]["approval"]["status"]) == ("waiting", "pending")
    tiny("deploy", newer["version"], "production", code=2).refuses("penstock approve 2 production")
    no = tiny("approve", "2", "production", "--reject", "--reason", "wrong prices", code=1)
    assert no.out.startswith("✗ stopped at production: refused by ")
    assert f": wrong prices; production still serves {version}\n" in no.out
    assert tiny.serving("production") == version
    told = tiny("status", "production", "--history", "--json").json
    assert [(one["what"], one["run"], one["why"]) for one in told] == [
        ("approval asked", 1, "role deployer"),
        ("approved", 1, "staging looks right"),
        ("released", 1, "run 1"),
        ("approval asked", 2, "role deployer"),
        ("not approved", 2, "wrong prices"),
    ]
