"""What `init` writes: a file that loads, names only what exists, and says what it could not find."""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from penstock.artifacts import Digest, File, Tree
from penstock.cli.drafts import listed, scalar
from penstock.cli.scaffolding import scaffold
from penstock.cli.scripts import understand
from penstock.pipelines import Pipeline, order
from penstock.plans import missing_inputs
from penstock.sources.definitions import load

ROOT = Path(__file__).parents[2]
CALM = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

TRAIN = """\
import argparse, json
from pathlib import Path
import joblib
from features import columns

OUT = Path("models")

def main():
    OUT.mkdir(exist_ok=True)
    rows = open("data/train.csv").read()
    joblib.dump(rows, OUT / "model.joblib")
    json.dump({"accuracy": 1.0}, open("metrics.json", "w"))

if __name__ == "__main__":
    main()
"""
TEST = "import pytest\n\ndef test_it():\n    assert True\n"
FASTAPI = """\
from fastapi import FastAPI
import joblib
app = FastAPI()
model = joblib.load("models/model.joblib")

@app.get("/healthz")
def health():
    return "ok"
"""


@dataclass(frozen=True)
class Result:
    """What was written, read back, and what was said."""

    text: str
    remarks: list[str]
    pipeline: Pipeline

    @property
    def said(self) -> str:
        return "\n".join(self.remarks)


def fill(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)


def tree(folder: Path) -> Tree:
    found = (p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    return Tree({p.relative_to(folder).as_posix(): File(Digest("0" * 64), 0) for p in found})


def result(folder: Path, root: Path | None = None) -> Result:
    """The scaffold of a folder, which is valid and names nothing that is not there."""
    text, remarks = scaffold(folder)
    pipeline = load(text.encode(), "penstock.yaml")
    assert missing_inputs(pipeline, tree(root or folder)) == []
    assert order(pipeline)
    assert all(remark and "\n" not in remark for remark in remarks)
    return Result(text, remarks, pipeline)


def made(folder: Path, files: Mapping[str, str | bytes]) -> Result:
    folder.mkdir(exist_ok=True)
    fill(folder, files)
    return result(folder)


def test_a_script_that_trains_becomes_a_step_with_what_it_reads_and_writes(tmp_path: Path) -> None:
    """A flat scikit-learn script: inputs by its imports and the paths it names, outputs by what it writes."""
    found = made(
        tmp_path / "iris",
        {
            "train.py": TRAIN,
            "features.py": "columns = []\n",
            "unrelated.py": "",
            "data/train.csv": "id\n",
            "requirements.txt": "scikit-learn\n",
            ".python-version": "3.12.1\n",
        },
    )
    step = found.pipeline.steps["train"]
    assert step.run == "python train.py"
    assert step.inputs == ("data/", "features.py", "train.py")
    assert step.outputs == ("models/",)
    assert step.metrics == "metrics.json"
    assert found.pipeline.name == "iris"
    runtime = found.pipeline.runtime
    assert runtime is not None
    assert (runtime.python, runtime.requirements) == ("3.12.1", "requirements.txt")
    assert found.pipeline.package is not None
    assert found.pipeline.package.serve is None
    assert not found.pipeline.environments
    assert "nothing was found that serves the model" in found.said


def test_no_threshold_is_invented(tmp_path: Path) -> None:
    """A metrics file gives a gate in a comment that asks for the person's number, and no gate that judges."""
    found = made(tmp_path / "p", {"train.py": TRAIN, "features.py": ""})
    assert not found.pipeline.gates
    assert "#   train_is_good: {metric: train.NAME, at_least: NUMBER}" in found.text
    assert "put your number here" in found.text


def test_every_key_has_a_comment(tmp_path: Path) -> None:
    """Beside or above each generated line that holds a key stands a comment."""
    found = made(tmp_path / "p", {"train.py": TRAIN, "features.py": "", "app.py": FASTAPI, "tests/test_a.py": TEST})
    lines = found.text.splitlines()
    keyed = [n for n, line in enumerate(lines) if ":" in line and not line.lstrip().startswith("#")]
    assert len(keyed) > 15
    assert [lines[n] for n in keyed if "  # " not in lines[n] and not lines[n - 1].lstrip().startswith("#")] == []


def test_a_web_application_is_served_and_released(tmp_path: Path) -> None:
    """A FastAPI module with a health route gives serve, health and an environment."""
    files = {
        "train.py": TRAIN,
        "features.py": "",
        "app/__init__.py": "",
        "app/main.py": FASTAPI,
        "requirements.txt": "fastapi[standard]\n",
    }
    found = made(tmp_path / "p", files)
    package = found.pipeline.package
    assert package is not None
    assert package.serve == "uvicorn app.main:app --host 127.0.0.1 --port $PORT"
    assert package.health == "/healthz"
    assert package.model == ("models/",)
    assert package.code == ("app/",)
    assert [e.port for e in found.pipeline.environments.values()] == [8800]
    assert "uvicorn" not in found.said


def test_an_application_without_health_is_not_released(tmp_path: Path) -> None:
    """Without a route that tells its health there is a package, but no environment, and a remark says why."""
    bare = "from fastapi import FastAPI\napp = FastAPI()\n"
    files = {"train.py": TRAIN, "features.py": "", "app.py": bare, "requirements.txt": "fastapi\n"}
    found = made(tmp_path / "p", files)
    assert found.pipeline.package is not None
    assert found.pipeline.package.serve is not None
    assert not found.pipeline.environments
    assert "app.py has no route such as /health" in found.said
    assert "app.py needs uvicorn, which requirements.txt does not name" in found.said


@pytest.mark.parametrize(
    ("server", "serve"),
    [
        ("gunicorn", "gunicorn --bind 127.0.0.1:$PORT app:app"),
        ("waitress", "waitress-serve --listen=127.0.0.1:$PORT app:app"),
        ("numpy", "flask --app app:app run --host 127.0.0.1 --port $PORT"),
    ],
)
def test_flask_is_served_by_what_the_runtime_has(tmp_path: Path, server: str, serve: str) -> None:
    """A Flask application with a committed model: served by the server among its requirements, else by its own."""
    files: dict[str, str | bytes] = {
        "app.py": "import pickle\nfrom flask import Flask\napp = Flask(__name__)\n"
        'm = pickle.load(open("m.pkl", "rb"))\n@app.route("/")\ndef index():\n    return "ok"\n',
        "m.pkl": b"\x80",
        "templates/index.html": "",
        "requirements.txt": f"Flask\n{server}\n",
    }
    found = made(tmp_path / "p", files)
    package = found.pipeline.package
    assert package is not None
    assert (package.serve, package.health) == (serve, "/")
    assert package.model == ("m.pkl",)
    assert package.code == ("app.py", "templates/")
    assert ("for development" in found.said) == (server == "numpy")


def test_a_package_in_src_runs_as_modules(tmp_path: Path) -> None:
    """A src layout: `python -m`, runtime.path, a server that reads $PORT, and tests by folder."""
    files = {
        "src/lepton/__init__.py": "",
        "src/lepton/train.py": 'import torch\nfrom . import net\nFILE = f"models/{net.NAME}.pt"\n'
        'if __name__ == "__main__":\n    torch.save({}, FILE)\n',
        "src/lepton/net.py": "NAME = str(1)\n",
        "src/lepton/serve.py": 'import os\nif __name__ == "__main__":\n    print(os.environ["PORT"], "/health")\n',
        "pyproject.toml": '[project]\nname = "lepton.net"\nrequires-python = ">=3.9,<3.11"\ndependencies = ["torch"]\n',
        "uv.lock": 'version = 1\n[[package]]\nname = "torch"\n[[package]]\nname = "pytest"\n',
        "tests/unit/test_net.py": TEST,
        "tests/integration/test_served.py": 'import os\nURL = os.environ["PENSTOCK_URL"]\n',
        "tests/conftest.py": "",
    }
    found = made(tmp_path / "p", files)
    runtime, package = found.pipeline.runtime, found.pipeline.package
    assert runtime is not None
    assert (runtime.python, runtime.pyproject, runtime.path) == ("3.9", "pyproject.toml", ("src",))
    assert found.pipeline.name == "lepton.net"
    assert found.pipeline.steps["train"].run == "python -m lepton.train"
    assert found.pipeline.steps["train"].outputs == ("models/",)
    assert package is not None
    assert (package.serve, package.code) == ("python -m lepton.serve", ("src/",))
    unit, integration = found.pipeline.steps["unit"], found.pipeline.steps["integration"]
    assert unit.run == "python -m pytest tests/unit --junitxml=junit.xml"
    assert unit.inputs == ("pyproject.toml", "src/", "tests/conftest.py", "tests/unit/")
    assert integration.needs == ("package",)
    assert found.remarks == []


def test_notebooks_only(tmp_path: Path) -> None:
    """Notebooks train nothing here: the file has one real step, and remarks say what is missing."""
    found = made(tmp_path / "p", {"train.ipynb": "{}", "other.ipynb": "{}", "Dockerfile": "FROM x\n"})
    assert list(found.pipeline.steps) == ["compile"]
    assert "train.ipynb" in found.said or "other.ipynb (and 1 more)" in found.said
    assert "Dockerfile is not used" in found.said


def test_an_empty_repository(tmp_path: Path) -> None:
    """Nothing at all gives a minimal file whose step can run, and says so."""
    found = made(tmp_path / "p", {})
    step = found.pipeline.steps["compile"]
    assert step.run == "python3 -m compileall -q ."
    assert found.pipeline.runtime is None
    assert "as a beginning" in found.said
    assert subprocess.run(["sh", "-ec", step.run], cwd=tmp_path, check=False).returncode == 0


def test_tests_only(tmp_path: Path) -> None:
    """Tests without a model are steps by themselves; unittest is used where pytest is nowhere named."""
    plain = made(tmp_path / "one", {"calc.py": "", "test_calc.py": "import pytest, calc\n"})
    assert list(plain.pipeline.steps) == ["unit"]
    assert plain.pipeline.steps["unit"].inputs == ("calc.py", "test_calc.py")
    assert "compile" not in plain.text
    other = made(tmp_path / "two", {"tests/test_calc.py": "import unittest\n"})
    assert other.pipeline.steps["unit"].run == "python3 -m unittest discover -s tests"
    assert other.pipeline.steps["unit"].report is None


def test_a_missing_pytest_is_told(tmp_path: Path) -> None:
    """Requirements for development are taken where they hold pytest and the others; else a remark names what lacks."""
    lacking = made(tmp_path / "one", {"requirements.txt": "numpy\n", "tests/test_a.py": TEST})
    assert "needs pytest, which requirements.txt does not name" in lacking.said
    fuller = made(
        tmp_path / "two",
        {
            "requirements.txt": "numpy\n",
            "requirements-dev.txt": "-r requirements.txt\npytest\n",
            "tests/test_a.py": TEST,
        },
    )
    assert fuller.pipeline.runtime is not None
    assert fuller.pipeline.runtime.requirements == "requirements-dev.txt"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"requirements.txt": "-e .\n"}, "requirements.txt cannot be the runtime: requirements.txt:1: -e ."),
        ({"uv.lock": ""}, "uv.lock cannot be the runtime"),
        ({"environment.yml": "name: x\n"}, "environment.yml is not read: write a requirements.txt"),
        ({"pylock.toml": "x = ["}, "pylock.toml cannot be the runtime: pylock.toml is not valid TOML"),
    ],
)
def test_a_runtime_that_cannot_be_locked_is_a_comment(tmp_path: Path, files: dict[str, str], sentence: str) -> None:
    """What the runtime would refuse later is not written, and said now."""
    found = made(tmp_path / "p", {**files, "train.py": TRAIN, "features.py": ""})
    assert found.pipeline.runtime is None
    assert "# runtime:" in found.text
    assert sentence in found.said
    assert found.pipeline.steps["train"].run == "python3 train.py"


def test_dependency_groups_and_poetry(tmp_path: Path) -> None:
    """The project file's own dependencies are taken; those that only another tool reads are told."""
    project = '[project]\nname = "x"\ndependencies = ["numpy"]\n[dependency-groups]\ndev = ["pytest>=8"]\n'
    found = made(tmp_path / "one", {"pyproject.toml": project, "tests/test_a.py": TEST})
    assert found.pipeline.runtime is not None
    assert found.pipeline.runtime.pyproject == "pyproject.toml"
    assert found.remarks == []
    poetry = '[tool.poetry]\nname = "Poet & Co"\n[tool.poetry.dependencies]\npython = "^3.10"\n'
    other = made(tmp_path / "two", {"pyproject.toml": poetry, "poetry.lock": "", "tests/test_a.py": TEST})
    assert other.pipeline.name == "Poet-Co"
    assert other.pipeline.runtime is None
    assert "poetry.lock is not read" in other.said


def test_an_import_that_cannot_be_read_gives_the_whole_commit(tmp_path: Path) -> None:
    """Where a script needs a file that is no Python, what it reads is unknown, and inputs are left out."""
    found = made(
        tmp_path / "p", {"train.py": TRAIN, "features.py": "(", "evaluate.py": "import features\n", "n.py": ""}
    )
    assert found.pipeline.steps["train"].inputs is None
    assert found.pipeline.steps["train"].outputs == ("models/",)


def test_scripts_in_a_folder_find_modules_at_the_top(tmp_path: Path) -> None:
    """A script that is executed by its path and imports from the repository's top gets the top on PYTHONPATH."""
    found = made(tmp_path / "p", {"scripts/train.py": TRAIN, "features.py": "", "requirements.txt": "joblib\n"})
    assert found.pipeline.runtime is not None
    assert found.pipeline.runtime.path == (".",)
    assert found.pipeline.steps["train"].inputs == ("features.py", "scripts/train.py")


def test_data_is_made_before_training(tmp_path: Path) -> None:
    """A script that writes data comes first; training needs it by its inputs."""
    prepare = 'import csv\nfor f in ("data/a.csv", "data/b.csv"):\n    with open(f, "w") as s:\n        csv.writer(s)\n'
    found = made(tmp_path / "p", {"scripts/prepare_data.py": prepare, "train.py": TRAIN, "features.py": ""})
    assert found.pipeline.steps["data"].outputs == ("data/",)
    assert "data/" in (found.pipeline.steps["train"].inputs or ())
    assert order(found.pipeline)[:2] == ("data", "train")


def test_steps_never_need_each_other_in_a_loop(tmp_path: Path) -> None:
    """Where training writes into a folder that the data script reads, the data step is given the whole commit."""
    prepare = 'open("store/clean.csv", "w")\nopen("store/raw.csv")\nprint("store")\n'
    train = 'import joblib\njoblib.dump(open("store/clean.csv"), "store/m.joblib")\n'
    found = made(tmp_path / "p", {"prepare.py": prepare, "train.py": train, "store/raw.csv": "", "store/b.csv": ""})
    assert found.pipeline.steps["data"].outputs == ("store/clean.csv",)
    assert found.pipeline.steps["train"].outputs == ("store/m.joblib",)
    assert found.pipeline.steps["data"].inputs is None or "store/" not in found.pipeline.steps["data"].inputs


def test_arguments_that_must_be_given_are_told(tmp_path: Path) -> None:
    """A command line that wants more than its name would fail at once: a remark names the arguments."""
    train = (
        "import argparse, torch\np = argparse.ArgumentParser()\np.add_argument('--data', required=True)\n"
        "p.add_argument('--out', default='out/best.pt')\np.add_argument('folder')\n"
        "a = p.parse_args()\ntorch.save({}, a.out)\n"
    )
    found = made(tmp_path / "p", {"train.py": train})
    assert "train.py wants arguments (--data, folder): add them to run of the step train" in found.said
    assert found.pipeline.steps["train"].outputs == ("out/",)


def test_a_model_in_an_unknown_place_is_not_guessed(tmp_path: Path) -> None:
    """A path that begins with something unknown is no output: no package, and a block of comments that shows how."""
    train = "import sys, torch\nfrom pathlib import Path\ntorch.save({}, Path(sys.argv[1]) / 'model.pt')\n"
    found = made(tmp_path / "p", {"train.py": train, "app.py": FASTAPI})
    assert found.pipeline.steps["train"].outputs is None
    assert found.pipeline.package is None
    assert "# package:" in found.text
    assert "no file was found that is the model" in found.said


def test_what_asks_a_package_is_left_out_without_one(tmp_path: Path) -> None:
    """Tests and evaluation against the served package wait until there is one, and remarks say so."""
    asks = 'import os\nprint(os.environ["PENSTOCK_URL"])\n'
    found = made(tmp_path / "p", {"train.py": TRAIN, "features.py": "", "evaluate.py": asks, "test_served.py": asks})
    assert list(found.pipeline.steps) == ["train"]
    assert "evaluate.py asks a package" in found.said
    assert "test_served.py asks a package" in found.said


@pytest.mark.parametrize(
    "name", ["on", "123", "true", "-rf", "a b", 'say "hi"', "it's", "münchen", "日本", "~", "1e3", "#x"]
)
def test_weird_names_are_quoted(tmp_path: Path, name: str) -> None:
    """Folders and files of any name give a file that reads back as these names, or leaves them out."""
    script = f"{name}/train.py"
    found = made(tmp_path / name, {script: 'import joblib\njoblib.dump(1, "m.joblib")\n', f"{name}/test_a.py": TEST})
    assert found.pipeline.name
    if name != "~":
        assert found.pipeline.steps["train"].inputs == (script,)
        assert found.pipeline.steps["train"].run.startswith("python3 ")
        assert f"{name}/" in " ".join(found.pipeline.steps["unit"].inputs or ())


def test_a_weird_command_runs(tmp_path: Path) -> None:
    """What is quoted for the shell reaches Python as one name, even where it looks like an option."""
    train = 'open("m.joblib", "w").write("x")\n'
    found = made(tmp_path / "p", {"-o 'n'/train.py": train})
    step = found.pipeline.steps["train"]
    subprocess.run(["sh", "-ec", step.run], cwd=tmp_path / "p", check=True)
    assert (tmp_path / "p" / "m.joblib").exists()


@pytest.mark.parametrize("project", ["examples/digits", "tests/acceptance/projects/houses"])
def test_our_own_projects_are_understood(tmp_path: Path, project: str) -> None:
    """From the example and the second project, without their file, the whole road is found: data to environment."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / project, folder, ignore=shutil.ignore_patterns("*.yaml", "Dockerfile", "__pycache__"))
    found = result(folder)
    assert {"data", "train", "unit", "integration"} <= found.pipeline.steps.keys()
    assert found.pipeline.environments
    assert found.remarks == []


def test_a_dockerfile_is_no_runtime_unasked(tmp_path: Path) -> None:
    """Where requirements say what the runtime is, a Dockerfile is told of, with the line that would use it."""
    fill(tmp_path, {"train.py": TRAIN, "requirements.txt": "numpy\n", "docker/Dockerfile": "FROM scratch\n"})
    sentence = "docker/Dockerfile is not used: runtime: {dockerfile: docker/Dockerfile} runs all steps in its image"
    assert sentence in result(tmp_path).remarks


def test_a_folder_inside_a_repository(tmp_path: Path) -> None:
    """Paths start at the repository's top, and commands in the folder."""
    files = {"train.py": TRAIN, "features.py": "", "requirements.txt": "-r ../all.txt\n", "app.py": FASTAPI}
    fill(tmp_path, {".git/HEAD": "", "all.txt": "numpy\n", **{f"one two/{p}": c for p, c in files.items()}})
    found = result(tmp_path / "one two", tmp_path)
    step, runtime = found.pipeline.steps["train"], found.pipeline.runtime
    assert step.run == "cd 'one two' && python train.py"
    assert step.inputs == ("one two/features.py", "one two/train.py")
    assert step.outputs == ("one two/models/",)
    assert runtime is not None
    assert runtime.requirements == "one two/requirements.txt"
    assert "begin with one two/" in found.said


def test_a_folder_that_cannot_be_named(tmp_path: Path) -> None:
    """A folder whose name the file cannot hold is told, and nothing of it is named."""
    fill(tmp_path, {".git/HEAD": "", "a$b/train.py": TRAIN})
    found = result(tmp_path / "a$b", tmp_path)
    assert list(found.pipeline.steps) == ["compile"]
    assert "cannot hold" in found.said


def test_what_git_ignores_is_not_named(tmp_path: Path) -> None:
    """Data that is not part of a commit is no input, though it lies in the folder."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    fill(tmp_path, {"train.py": TRAIN, "features.py": "", "data/train.csv": "", ".gitignore": "data/\n"})
    assert result(tmp_path).pipeline.steps["train"].inputs == ("features.py", "train.py")


def test_nothing_is_executed_or_followed(tmp_path: Path) -> None:
    """Scripts are read and not run, links are not followed, hidden and foreign folders not looked into."""
    bomb = f'open({str(tmp_path / "ran")!r}, "w")\n'
    outside = tmp_path / "outside"
    fill(outside, {"train.py": TRAIN})
    fill(tmp_path / "p", {"serve.py": bomb, "setup.py": bomb, ".venv/train.py": TRAIN, "node_modules/train.py": TRAIN})
    (tmp_path / "p" / "train.py").symlink_to(outside / "train.py")
    (tmp_path / "p" / "linked").symlink_to(outside)
    found = result(tmp_path / "p")
    assert not (tmp_path / "ran").exists()
    assert list(found.pipeline.steps) == ["compile"]


def test_large_and_broken_files_are_passed_over(tmp_path: Path) -> None:
    """No Python, too long, or nested too deep: such a file tells nothing and stops nothing."""
    files: dict[str, str | bytes] = {
        "train.py": b"\xff\xfe\x00",
        "fit.py": "x = " + "(" * 5_000,
        "train_deep.py": "x = " + "-" * 50_000 + "1",
        "train_long.py": "x = " + "+".join("1" * 50_000),
        "train_big.py": "#" * 300_000,
        ".python-version": b"\xff",
        "pyproject.toml": "[[[",
    }
    found = made(tmp_path / "p", files)
    assert list(found.pipeline.steps) == ["compile"]


def test_a_very_large_repository_is_cut(tmp_path: Path) -> None:
    """Of thousands of files those nearest to the top are known, and a remark says that there were more."""
    fill(tmp_path, {"train.py": TRAIN, "features.py": ""})
    (tmp_path / "deep").mkdir()
    for number in range(5_100):
        (tmp_path / "deep" / f"{number}.txt").touch()
    found = result(tmp_path)
    assert "train" in found.pipeline.steps
    assert "very many files" in found.said


@pytest.mark.parametrize(
    "text", ["on", "No", "null", "3.10", "-x", "a: b", "a #b", "a:", "ü", "'", '"\\', "{a}", "@x", ""]
)
def test_a_text_reads_back_as_itself(text: str) -> None:
    """In old YAML and new, in a list and alone."""
    assert yaml.safe_load(f"k: {scalar(text)}  # c") == {"k": text}
    assert yaml.safe_load(f"k: {listed([text, text])}  # c") == {"k": [text, text]}


@CALM
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30))
@example("\u2028 # x")
@example("\ufeff")
def test_any_text_reads_back_as_itself(text: str) -> None:
    """Whatever the text holds, what is written is this text and no other value."""
    assert yaml.safe_load(f"k: {scalar(text)}") == {"k": text}


_NAMES = [
    "train",
    "src",
    "app",
    "tests",
    "data",
    "models",
    "on",
    "-x",
    "ü b",
    "a*",
    "$",
    "#",
    "it's",
    "test_a",
    "\u2028",
    "x\n",
]
_PARTS = st.sampled_from(_NAMES) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), max_size=8
)
_ENDINGS = st.sampled_from([".py", ".py", ".txt", ".csv", ".pt", ".toml", ".ipynb", ""])
_FILES = st.builds(lambda parts, end: "/".join(parts) + end, st.lists(_PARTS, min_size=1, max_size=3), _ENDINGS)
_CONTENTS = st.sampled_from(
    ["", TRAIN, TEST, FASTAPI, "import torch\ntorch.save(1, 'src/x.pt')\n", "x = 'data'\n", "("]
)


@CALM
@given(st.dictionaries(_FILES, _CONTENTS, max_size=8))
@example({"src/train.py": "import torch\ntorch.save(1, 'src/x.pt')\n", "data.py": TRAIN, "evaluate.py": TRAIN})
def test_any_repository_gives_a_file_that_loads(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, str]
) -> None:
    """Whatever names and contents there are: no crash, a valid file, nothing named that is not there."""
    folder = tmp_path_factory.mktemp("any")
    for path, content in files.items():
        if {"", ".", ".."} & set(path.split("/")) or len(path.encode()) > 200:
            continue
        target = folder / path
        if target.exists() or any(p.is_file() for p in target.parents):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")
    result(folder)
    shutil.rmtree(folder)


@CALM
@given(
    st.lists(st.sampled_from([*"ab/.()[]{}'\"=:, \n+*@", "open", "Path", "import ", "from "]), max_size=60).map("".join)
)
def test_any_python_is_understood_or_not(text: str) -> None:
    """Any text is a script or none, and its paths stay in the repository."""
    script = understand("a/b.py", text.encode())
    if script is not None:
        found = script.written | script.read | script.named | script.neighbours
        assert not [p for p in found if p.startswith(("/", "../"))]
