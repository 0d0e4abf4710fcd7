"""What is imported before anything is done: start-up time is a promise, and this is what keeps it.

How long it takes is measured by `benchmarks/startup.py`; a test that timed it would fail on a busy machine.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = frozenset(
    {
        "alembic",
        "asyncio",
        "blake3",
        "cryptography",
        "defusedxml",
        "dunamai",
        "envoy",
        "fastapi",
        "httpx",
        "jinja2",
        "numpy",
        "pandas",
        "platformdirs",
        "psutil",
        "pydantic",
        "pydantic_core",
        "rich",
        "scipy",
        "sklearn",
        "sqlalchemy",
        "sqlite3",
        "torch",
        "uv",
        "uvicorn",
        "xml",
        "yaml",
        "zstandard",
    }
)
"""Packages that cost milliseconds and that no command needs before it knows what to do."""

RUN = """\
import json, sys
from penstock.cli.main import execute
code = execute(sys.argv[1:])
sys.stderr.write(json.dumps([code, sorted(sys.modules)]))
"""


def modules(folder: Path, code: str, *arguments: str) -> tuple[int, set[str]]:
    """The exit code and the modules of a fresh interpreter after some code that prints both on stderr."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PENSTOCK_HOME": str(folder / "home")}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    exit_code, names = json.loads(done.stderr.splitlines()[-1])
    return exit_code, {name for name in names if name.partition(".")[0] in HEAVY or name.startswith("penstock")}


def heavy(names: set[str]) -> set[str]:
    return {top for name in names if (top := name.partition(".")[0]) in HEAVY}


def test_the_package_imports_nothing(tmp_path: Path) -> None:
    """`import penstock` brings itself and no other part of Penstock."""
    code = "import json, sys, penstock; sys.stderr.write(json.dumps([0, sorted(sys.modules)]))"
    assert modules(tmp_path, code) == (0, {"penstock"})


def test_importtime_shows_no_heavy_import(tmp_path: Path) -> None:
    """`python -X importtime -c "import penstock"` names no heavy package."""
    command = [sys.executable, "-X", "importtime", "-c", "import penstock"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "penstock" in names
    assert heavy(names) == set()


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_needs_nothing_heavy(tmp_path: Path, argument: str) -> None:
    """Help and version import nothing heavy, and make no home."""
    code, names = modules(tmp_path, RUN, argument)
    assert code == 0
    assert heavy(names) == set()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["run", "--help"], ["deploy", "--help"], ["nonsense"], ["cancel", "x"]])
def test_words_need_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    """A verb's help and a misspelt verb import nothing heavy of ours (Typer itself may read words with pydantic)."""
    code, names = modules(tmp_path, RUN, *arguments)
    assert code == (0 if "--help" in arguments else 2)
    assert heavy(names) - {"pydantic", "pydantic_core"} == set()
    assert list(tmp_path.iterdir()) == []


def test_no_command_needs_all(tmp_path: Path) -> None:
    """A command that only reads the store imports neither migrations (on a home that stands) nor router nor numbers."""
    modules(tmp_path, RUN, "runs")
    code, names = modules(tmp_path, RUN, "runs", "--json")
    assert code == 0
    assert heavy(names) & {"alembic", "envoy", "fastapi", "httpx", "numpy", "scipy", "psutil", "rich"} == set()
