"""Results of pytest without a file: the plugin in real pytests, started as a step would, and what is read of them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from penstock.engine import pytest_results
from penstock.engine.hearing import VARIABLE, hear, listen, results_folder
from penstock.pipelines import Pipeline, Step
from penstock.reports import Heard, parse_junit

TESTS = """
import unittest
import pytest

def test_passes(): pass
def test_fails(): assert 1 == 2, "one is not two"
def test_skips(): pytest.skip("not today")
@pytest.mark.xfail
def test_fails_as_expected(): raise ValueError
@pytest.mark.xfail(strict=True)
def test_passes_unexpectedly(): pass
@pytest.mark.parametrize("name", ["a b", "x::y.py", "a/b.py", "\\u00fc"])
def test_takes(name): pass
@pytest.fixture
def broken(): raise RuntimeError("no ground")
@pytest.fixture
def leaky():
    yield
    raise RuntimeError("not tidied")
def test_errs(broken): pass
def test_leaks(leaky): pass
def test_fails_and_leaks(leaky): assert False
class TestGroup:
    def test_inside(self): pass
class Old(unittest.TestCase):
    def test_old(self): self.assertEqual(1, 2)
"""


def made(**fields: Any) -> Step:
    values = {"run": "pytest", **fields}
    return Pipeline.model_validate({"name": "x", "steps": {"unit": values}}).steps["unit"]


class Place:
    """A workspace with tests in it, and the variables that a step in it would get."""

    def __init__(self, folder: Path, **fields: Any) -> None:
        self.workspace = folder / "0"
        self.workspace.mkdir()
        self.write(**{"tests/test_it.py": TESTS})
        self.variables = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
        self.step = made(**fields)
        self.before, self.mounts = listen(self.step, self.workspace, self.variables, inside=False)

    def write(self, **files: str) -> None:
        for name, text in files.items():
            (self.workspace / name).parent.mkdir(parents=True, exist_ok=True)
            (self.workspace / name).write_text(text)

    def pytest(self, *options: str, **variables: str) -> int:
        return self.execute("-m", "pytest", "-q", "-p", "no:cacheprovider", *options, **variables)

    def execute(self, *arguments: str, **variables: str) -> int:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.workspace,
            env={**self.variables, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        self.said = done.stdout + done.stderr
        return done.returncode

    def heard(self) -> Heard:
        found = hear(self.workspace)
        assert found is not None, self.said
        return found

    def statuses(self) -> dict[str, str]:
        return {case.name: case.status for case in self.heard().report.cases}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


ALL = {
    "test_passes": "passed",
    "test_fails": "failed",
    "test_skips": "skipped",
    "test_fails_as_expected": "skipped",
    "test_passes_unexpectedly": "failed",
    "test_takes[a b]": "passed",
    "test_takes[x::y.py]": "passed",
    "test_takes[a/b.py]": "passed",
    "test_takes[\\xfc]": "passed",
    "test_errs": "errored",
    "test_leaks": "errored",
    "test_fails_and_leaks": "errored",
    "test_inside": "passed",
    "test_old": "failed",
}


def test_every_result_is_told(place: Place) -> None:
    """Whatever a test does, its result is told as pytest has it, and the exit code is pytest's own."""
    assert place.pytest() == 1
    assert place.statuses() == ALL
    found = {case.name: case for case in place.heard().report.cases}
    assert "one is not two" in found["test_fails"].message
    assert "not today" in found["test_skips"].message
    assert "no ground" in found["test_errs"].message
    assert found["test_inside"].suite == "tests.test_it.TestGroup"
    assert (place.heard().exit_code, place.heard().whole) == (1, True)


def test_names_are_those_of_junit_files(place: Place) -> None:
    """A step that changes from a report to none, or back, keeps the history of each test."""
    place.write(**{"tests/test_broken.py": "import nothing_of_this_name\n"})
    place.pytest("--junitxml", "junit.xml", "--continue-on-collection-errors")
    junit = parse_junit((place.workspace / "junit.xml").read_bytes(), "junit.xml")
    names = {(case.suite, case.name) for case in junit.cases}
    assert {(case.suite, case.name) for case in place.heard().report.cases} == names


def test_parallel_tests_are_told_once(place: Place) -> None:
    """With pytest-xdist the workers tell their pytest, and it tells all of it."""
    assert place.pytest("-n", "2") == 1
    assert place.statuses() == ALL
    assert len(place.heard().report.cases) == len(ALL)
    assert place.heard().whole


def test_what_cannot_be_collected_is_an_error(place: Place) -> None:
    """A file that cannot be imported is an errored test of its name."""
    place.write(**{"tests/test_it.py": "import nothing_of_this_name\n", "tests/test_b.py": "def test_b(): pass\n"})
    assert place.pytest("--continue-on-collection-errors") == 1
    (broken, fine) = sorted(place.heard().report.cases, key=lambda case: case.status)
    assert (broken.name, broken.status, fine.status) == ("tests.test_it", "errored", "passed")
    assert "nothing_of_this_name" in broken.message


@pytest.mark.parametrize(
    ("options", "whole"),
    [
        (("-x",), False),
        (("--maxfail=2",), False),
        (("-k", "test_fails"), True),
        (("--no-such-option",), None),
        (("-k", "nothing"), True),
    ],
)
def test_what_is_whole(place: Place, options: tuple[str, ...], *, whole: bool | None) -> None:
    """A session that was stopped early is not whole: what it did not come to may have failed too."""
    place.pytest(*options)
    heard = hear(place.workspace)
    assert (None if heard is None else heard.whole) is whole


LIKE_COVERAGE = """
import pytest
@pytest.hookimpl(hookwrapper=True)
def pytest_runtestloop(session):
    yield
    session.testsfailed += 1
"""


def test_something_else_that_fails_is_not_whole(place: Place) -> None:
    """A session that fails by more than its tests, as a coverage that is too low, is no matter of its tests."""
    place.write(
        **{
            "tests/test_it.py": "def test_passes(): pass\n",
            "conftest.py": LIKE_COVERAGE,
        }
    )
    assert place.pytest() == 1
    assert not place.heard().whole


def test_a_killed_pytest_tells_what_it_had(place: Place) -> None:
    """Results before a crash are there; the session is not whole."""
    place.write(**{"tests/test_it.py": "import os\ndef test_a(): pass\ndef test_b(): os._exit(9)\n"})
    assert place.pytest() == 9
    assert place.statuses() == {"test_a": "passed"}
    assert not place.heard().whole


def test_several_sessions_add_up(place: Place) -> None:
    """Two pytests of one step are told together; whole is what both are."""
    place.write(**{"tests/test_b.py": "def test_b(): pass\n"})
    place.pytest("tests/test_b.py")
    place.pytest("tests/test_it.py", "-k", "test_passes")
    assert {"test_b", "test_passes"} <= set(place.statuses())
    assert place.heard().whole
    place.pytest("-x")
    assert not place.heard().whole


NESTED = """
import subprocess, sys
def test_outer():
    open("test_inner.py", "w").write("def test_inner(): assert False")
    assert subprocess.run([sys.executable, "-m", "pytest", "test_inner.py"]).returncode == 1
"""


def test_a_pytest_within_a_test_is_not_heard(place: Place) -> None:
    """What tests start is their own business, though it finds the plugin too."""
    place.write(**{"tests/test_it.py": NESTED})
    assert place.pytest("tests") == 0
    assert place.statuses() == {"test_outer": "passed"}


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        (("-p", "no:penstock"), {}),
        ((), {"PYTHONPATH": "src"}),
        ((), {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}),
        ((), {VARIABLE: ""}),
        ((), {VARIABLE: "/no/such/folder"}),
    ],
)
def test_without_the_plugin_nothing_changes(place: Place, options: tuple[str, ...], variables: dict[str, str]) -> None:
    """Where a step turns it off or loses it there are no results, and pytest does what it did."""
    place.write(**{"tests/test_it.py": "def test_passes(): pass\n"})
    assert place.pytest(*options, **variables) == 0, place.said
    assert hear(place.workspace) is None


def test_a_persons_own_settings_stay(place: Place) -> None:
    """PYTEST_ADDOPTS, an own PYTHONPATH, warnings that are errors and a strict configuration go with it."""
    place.write(
        **{
            "tests/test_it.py": "import mine\ndef test_passes(): pass\ndef test_other(): assert False\n",
            "lib/mine.py": "",
            "pytest.ini": "[pytest]\nfilterwarnings = error\naddopts = --strict-markers --strict-config\n",
        }
    )
    variables = {"PYTHONPATH": f"lib:{place.variables['PYTHONPATH']}", "PYTEST_ADDOPTS": "-k passes"}
    assert place.pytest(**variables) == 0, place.said
    assert place.statuses() == {"test_passes": "passed"}


def test_a_defect_of_the_plugin_is_no_failure(place: Place) -> None:
    """What goes wrong while it writes ends its writing and nothing else."""
    place.write(**{"conftest.py": "import json\njson.dumps = None\n", "tests/test_it.py": "def test_passes(): pass\n"})
    assert place.pytest() == 0
    assert (place.heard().report.cases, place.heard().whole) == ((), False)


def test_a_step_with_secrets_writes_no_messages(tmp_path: Path) -> None:
    """What a test says may hold a secret: it never reaches the disk."""
    place = Place(tmp_path, secrets=["TOKEN"])
    place.pytest()
    assert place.statuses() == ALL
    assert not any(case.message for case in place.heard().report.cases)


# --- what is set for a step ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "runs"),
    [
        ("pytest tests/unit", True),
        ("python -m pytest", True),
        (".venv/bin/pytest -x", True),
        ("cd a && py.test", True),
        ("uv run pytest", True),
        ("make test", False),
        ("pip install pytest-cov", False),
        ("python my_pytest.py", False),
    ],
)
def test_which_steps_run_pytest(run: str, *, runs: bool) -> None:
    """The word stands in the text by itself."""
    assert made(run=run).runs_pytest is runs


def test_a_report_is_enough(tmp_path: Path) -> None:
    """Where a step declares a report, or runs no pytest, nothing is set."""
    for step in (made(report="junit.xml"), made(run="make test")):
        variables: dict[str, str] = {}
        assert listen(step, tmp_path / "0", variables, inside=False) == ("", ())
        assert variables == {}


def test_in_an_image_the_shell_adds_to_its_path(tmp_path: Path) -> None:
    """An image's own PYTHONPATH stays in front; python as a shell has no way to add to it and tells nothing."""
    workspace = tmp_path / 'a "$b" c' / "0"
    variables: dict[str, str] = {}
    before, mounts = listen(made(), workspace, variables, inside=True)
    assert "PYTHONPATH" not in variables
    assert [(m.path, m.read_only) for m in mounts] == [
        (workspace.with_name("pytest"), True),
        (results_folder(workspace), False),
    ]
    for own, expected in (("", ""), ("/app", "/app:")):
        done = subprocess.run(
            ["sh", "-euc", f'{before}printf %s "$PYTHONPATH"'],
            env={"PYTHONPATH": own} if own else {},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"{expected}{workspace.with_name('pytest')}"
    python = Step.model_validate({"name": "unit", "run": "import pytest", "shell": "python"})
    assert listen(python, workspace, {}, inside=True) == ("", ())
    known = {"PYTHONPATH": "src"}
    assert listen(made(), workspace, known, inside=True)[0] == ""
    assert known["PYTHONPATH"] == f"src:{workspace.with_name('pytest')}"


def test_a_path_that_pythonpath_cannot_hold(tmp_path: Path) -> None:
    """A home with a colon in its path has no plugin."""
    assert listen(made(), tmp_path / "a:b" / "0", {}, inside=False) == ("", ())


def test_an_attempt_finds_no_results_of_an_earlier_one(place: Place) -> None:
    """The next attempt in the same place begins with nothing."""
    place.pytest("-k", "test_inside")
    assert place.statuses() == {"test_inside": "passed"}
    listen(place.step, place.workspace, {}, inside=False)
    assert hear(place.workspace) is None


# --- what is read --------------------------------------------------------------------------------------------------


def test_anything_may_lie_there(tmp_path: Path) -> None:
    """A step may put whatever it likes into the folder: what is no result is passed over, and nothing is whole."""
    workspace = tmp_path / "0"
    folder = results_folder(workspace)
    folder.mkdir()
    (folder / "1").write_bytes(b'["t","a","passed",0.5,""]\n\xff\xfe\n[1]\n{"exit": "x"}\n["t","b","lost",0.5,""]\n')
    (folder / "2").write_text("[" * 100_000)
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe")
    (folder / "3").write_text(json.dumps(["t", "n" * 5000, "failed", -1.0, "m" * 9000]) + "\n")
    found = hear(workspace)
    assert found is not None
    assert [(case.name[:2], case.seconds) for case in found.report.cases] == [("a", 0.5), ("nn", 0.0)]
    assert len(found.report.cases[1].name) == 1001
    assert not found.whole


def test_half_a_character_is_a_question_mark(tmp_path: Path) -> None:
    """A pytest may know names that no UTF-8 can write; what is kept can be written."""
    folder = results_folder(tmp_path / "0")
    folder.mkdir()
    (folder / "1").write_text(json.dumps(["t\udcff", "n\ud800", "passed", 0.5, "m\udfff"]) + "\n")
    found = hear(tmp_path / "0")
    assert found is not None
    assert [(c.suite, c.name, c.message) for c in found.report.cases] == [("t?", "n?", "m?")]


def test_no_folder_is_no_report(tmp_path: Path) -> None:
    """A step that an earlier coordinator began without it told nothing."""
    assert hear(tmp_path / "0") is None


def test_the_plugin_needs_nothing() -> None:
    """It imports the standard library alone, for it runs in a Python of the user's."""
    text = Path(pytest_results.__file__).read_text()
    imports = {line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imports == {"json", "os", "re", "time", "typing"}
