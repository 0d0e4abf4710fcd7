"""Rollouts in traffic as a person meets them: what the run tells, and how promote and abort end one."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from acceptance.tiny import PATIENCE, Tiny, sentence


@pytest.fixture
def tried(tiny: Tiny) -> Tiny:
    """The project whose production tries a release in traffic; its first release serves."""
    port = tiny.ports["production"]
    rollout = "rollout: {canary: [5%, 50%], interval: 1s}"
    tiny.edit("penstock.yaml", f"port: {port}", f"port: {port}, {rollout}")
    tiny.commit("canary")
    tiny.run()
    return tiny


@contextmanager
def trying(tiny: Tiny) -> "Iterator[subprocess.Popen[str]]":
    """A run whose release is a canary now; nobody calls, so that only a person can end it."""
    tiny.commit(accuracy=0.95)
    process = tiny.command.start("run", cwd=tiny.repo.folder)
    try:
        assert process.stderr is not None
        assert any("canary 5 %" in line for line in process.stderr)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_promote_gives_it_all_traffic(tried: Tiny) -> None:
    """Without a single request the release serves at once; the run passes, and the history has the person's reason."""
    before = tried.serving("production")
    with trying(tried) as run:
        said = tried("promote", "production", "--reason", "a quiet night")
        assert run.wait(PATIENCE) == 0
    now = tried.serving("production")
    assert now != before
    assert f"{now} is serving in production at http://127.0.0.1:" in said.out
    told = tried("status", "production", "--history").out
    sentence(told, rf" tried +{re.escape(str(now))} .* canary begins")
    sentence(told, rf" released +{re.escape(str(now))} .* a quiet night")


def test_abort_takes_it_back(tried: Tiny) -> None:
    """What served before has all traffic again, the run fails with the person's reason."""
    before = tried.serving("production")
    with trying(tried) as run:
        said = tried("abort", "production", "--reason", "wrong prices")
        out, _ = run.communicate(timeout=PATIENCE)
        assert run.returncode == 1
    assert "asked to abort: wrong prices" in out
    assert tried.serving("production") == before
    assert f" is gone from production: {before} is serving in production at http://127.0.0.1:" in said.out
    status = tried("status", "production").out
    assert " was rolled back: " in status
    sentence(status, "^ +rolled back +.* asked to abort: wrong prices$")


def test_whoever_looks_sees_where_it_stands(tried: Tiny) -> None:
    """`status` and `show` tell what was counted, what it takes, and what follows; in JSON as one object."""
    before = tried.serving("production")
    with trying(tried):
        for _ in range(5):
            assert tried.ask("production") is not None
        status = tried("status").out
        found = tried("status", "--json").json["environments"][1]
        shown = tried("show", "2")
        run = tried("show", "2", "--json").json
    assert f"{found['tried']}: canary 5 %" in status
    assert "unattended" not in status
    assert f"production  canary of {found['tried']} against {before}" in status
    sentence(status, "^ +width +5 %, then 50 %, then all$")
    sentence(status, "^ +missing +about [0-9]+ more requests of the canary$")
    assert f"production  canary of {found['tried']}" in shown.out
    rollout = run["releases"][1]["rollout"]
    assert (rollout["strategy"], rollout["width"], rollout["widths"]) == ("canary", 0.05, [0.05, 0.5])
    assert (rollout["verdict"], rollout["ended"]) == ("inconclusive", None)
    assert found["rollout"].keys() == rollout.keys()


def test_a_rollout_that_nobody_judges_is_unattended(tried: Tiny) -> None:
    """After the command was killed `status` says so; the release keeps its width."""
    with trying(tried) as run:
        run.kill()
        run.communicate()
        assert "unattended: penstock resume" in tried("status", "production").out


def test_lineage_leads_to_what_happened_to_each_release(tried: Tiny) -> None:
    """From the version that an answer names to its commit, gates and releases, and how each was tried and ended."""
    with trying(tried) as run:
        tried("abort", "production", "--reason", "wrong prices")
        run.wait(PATIENCE)
    version = tried("status", "--json").json["environments"][1]["tried"]
    facts = tried("lineage", version, "--json").json
    assert facts["lineage"]["commit"]["sha"] == tried.repo.git("rev-parse", "HEAD")
    assert facts["gates"][0]["verdict"] == "pass"
    release = facts["releases"][1]
    assert (release["environment"], release["status"], release["rollout"]["cause"]) == (
        "production",
        "rolled_back",
        "person",
    )
    assert release["reason"].endswith("asked to abort: wrong prices")
    assert release["ended"] >= release["history"][0]["at"]
    assert [(one["what"], one["why"]) for one in release["history"]] == [
        ("tried", "canary begins"),
        ("rolled back", "wrong prices"),
    ]
    told = tried("lineage", version).out
    sentence(told, "production +rolled back +by .*: .* asked to abort: wrong prices")
    sentence(told, " tried +by .*: canary begins")


def test_there_must_be_a_rollout(served: Tiny) -> None:
    """Where nothing is tried both verbs say so in one sentence; a reason must be a text."""
    for verb in ("promote", "abort"):
        served(verb, "production", code=2).refuses("production has no rollout to", verb)
        served(verb, "production", "--reason", " ", code=2).refuses("reason")
