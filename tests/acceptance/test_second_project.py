"""A project of another kind, as a person would bring it: scikit-learn, joblib and Flask, installed by uv.

Once, in one test: installing takes most of a minute.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from acceptance.tiny import Command, Said, end, free_ports, sentence
from sources.repositories import Repo, isolated, new_repo

HOUSES = Path(__file__).parent / "projects" / "houses"
UNREACHABLE = re.compile(
    r"dns error|error sending request|tcp connect|timed out|failed to fetch|connection", re.IGNORECASE
)


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    """The command with the person's own index settings; only git is apart from this machine's."""
    git = {k: v for k, v in isolated(tmp_path / "person").items() if k.startswith("GIT_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    home = tmp_path / "home"
    made = Command(home, {**os.environ, **git, "PATH": path, "PENSTOCK_HOME": str(home)})
    yield made
    end(made, tmp_path)


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture
def houses(tmp_path: Path, command: Command, port: int) -> Repo:
    """The project in a repository; its port is the only thing changed, as tests must not share one."""
    repo = new_repo(tmp_path / "houses", dict(command.environment))
    shutil.copytree(HOUSES, repo.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    text = (HOUSES / "penstock.yaml").read_text()
    repo.put("penstock.yaml", text.replace("port: 8810", f"port: {port}"))
    repo.commit("how diabetes progresses")
    return repo


def _skip_without_an_index(command: Command, cwd: Path, said: Said) -> None:
    """A machine without a network skips, unless it is the one that must not."""
    if said.code == 0 or os.environ.get("CI") == "true":
        return
    log = command("logs", "1", "lock", cwd=cwd).out + command("logs", "1", "runtime", cwd=cwd).out
    if UNREACHABLE.search(log):
        pytest.skip(f"the package index cannot be reached: {log.strip().splitlines()[-1]}")


def _predict(port: int, rows: list[list[float]]) -> tuple[str | None, list[float]]:
    body = json.dumps({"rows": rows}).encode()
    request = Request(f"http://127.0.0.1:{port}/predict", body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=20) as answer:
        return answer.headers["x-penstock-release"], json.load(answer)["predictions"]


def test_a_second_project_goes_to_production(command: Command, houses: Repo, port: int) -> None:
    """From its first commit to a prediction; a changed server reuses the model; a spoiled model stops at its gates."""
    cwd = houses.folder
    said = command("run", "--json", cwd=cwd)
    _skip_without_an_index(command, cwd, said)
    assert said.code == 0, said.all
    first = said.json
    assert {s["status"] for s in first["steps"]} == {"passed"}
    assert {g["name"]: g["verdict"] for g in first["gates"]} == dict.fromkeys(
        ("measured", "explained", "close"), "pass"
    )
    release, (low, high) = _predict(port, [[0.0] * 10, [0.05] * 10])
    assert release == first["version"]
    assert 0 < low < high < 400

    (cwd / "serve.py").write_text((cwd / "serve.py").read_text() + "\n# the same answers\n")
    houses.commit("another server")
    second = command("run", "--json", cwd=cwd, code=0).json
    assert {"lock", "runtime", "prepare", "train"} <= {s["name"] for s in second["steps"] if s["cached"]}
    assert _predict(port, [[0.0] * 10]) == (second["version"], [low])

    (cwd / "train.py").write_text((cwd / "train.py").read_text().replace("np.logspace(0, 4, 30)", "[1e9]"))
    houses.commit("a model that knows nothing")
    spoiled = command("run", cwd=cwd, code=1)
    sentence(spoiled.out, r"stopped at gate \w+: .*still serves " + re.escape(second["version"]))
    assert _predict(port, [[0.0] * 10]) == (second["version"], [low])
