"""A process to be varied, a runner for it, and two bells for it to ring and to be rung with."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.engine.contracts import ProcessSpec
from penstock.runners.process import ProcessRunner
from runners.processes import Bell


@pytest.fixture
def bell(tmp_path: Path) -> Iterator[Bell]:
    made = Bell(tmp_path / "bell")
    yield made
    made.close()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Bell]:
    made = Bell(tmp_path / "gate")
    yield made
    made.close()


@pytest.fixture
def runner() -> ProcessRunner:
    return ProcessRunner()


@pytest.fixture
def spec(tmp_path: Path) -> ProcessSpec:
    workspace, folder = tmp_path / "workspace", tmp_path / "folder"
    workspace.mkdir()
    folder.mkdir()
    return ProcessSpec(
        id="r1/serve.1",
        command="true",
        workspace=workspace,
        variables={"PATH": os.environ["PATH"], "BELL": str(tmp_path / "bell"), "GATE": str(tmp_path / "gate")},
        log=tmp_path / "log",
        record=tmp_path / "record",
        folder=folder,
    )
