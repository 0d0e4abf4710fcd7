"""Repositories, and the source that reads them."""

from pathlib import Path

import pytest

from penstock.sources.git import GitSource, MemoryBlobDigests
from sources.repositories import Repo, isolated, new_repo


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return isolated(tmp_path / "person")


@pytest.fixture
def repo(tmp_path: Path, environment: dict[str, str]) -> Repo:
    made = new_repo(tmp_path / "project", environment)
    made.commit("the beginning", a="1")
    return made


@pytest.fixture
def source(tmp_path: Path, environment: dict[str, str]) -> GitSource:
    return GitSource(tmp_path / "mirrors", environment, MemoryBlobDigests())


@pytest.fixture
def over_ssh(tmp_path: Path, environment: dict[str, str]) -> dict[str, str]:
    """An environment whose ssh is this machine: the real protocol, no network."""
    script = tmp_path / "ssh"
    script.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
    script.chmod(0o755)
    return environment | {"GIT_SSH": str(script), "GIT_SSH_VARIANT": "ssh"}
