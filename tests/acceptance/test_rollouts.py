"""Rollouts in traffic as a person meets them: what the run tells, and how promote and abort end one."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from acceptance.tiny import PATIENCE, Tiny


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


def test_there_must_be_a_rollout(served: Tiny) -> None:
    """Where nothing is tried both verbs say so in one sentence; a reason must be a text."""
    for verb in ("promote", "abort"):
        served(verb, "production", code=2).refuses("production has no rollout to", verb)
        served(verb, "production", "--reason", " ", code=2).refuses("reason")
