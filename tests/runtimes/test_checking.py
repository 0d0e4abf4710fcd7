"""The check step, executed as it is in a run."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.contracts import Command
from penstock.runtimes import checking
from penstock.runtimes.uv import UvRuntimes

Place = Callable[[Command, Path], subprocess.CompletedProcess[str]]
Check = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def check(place: Place, workspace: Path) -> Check:
    def checked(strict: Sequence[str] = (), lenient: Sequence[str] = ()) -> tuple[int, list[str]]:
        done = place(UvRuntimes(workspace / "home", {}).check(None, strict, lenient), workspace)
        return done.returncode, done.stdout.splitlines()

    return checked


def test_a_syntax_error_fails_with_its_position(workspace: Path, check: Check) -> None:
    """The line names file, line, column and the source, and the step fails."""
    (workspace / "good.py").write_text("x = 1\n")
    (workspace / "bad.py").write_text("x = 1\ndef f(:\n    pass\n")
    code, said = check(["good.py", "bad.py"])
    assert code == 1
    assert said == ["bad.py:2:7: invalid syntax: def f(:", "checked 2 files: 1 problem"]


def test_good_files_pass(workspace: Path, check: Check) -> None:
    """Nothing but the closing line where all is well, whatever the encoding and the line endings."""
    (workspace / "latin.py").write_bytes("# -*- coding: latin-1 -*-\nname = 'Müller'\n".encode("latin-1"))
    (workspace / "bom.py").write_bytes(b"\xef\xbb\xbfx = 1\r\ny = 2\r\n")
    (workspace / "tags.yaml").write_text("a: !Ref b\n---\nb: !!python/object:os.system [x]\n")
    (workspace / "a.toml").write_text("[a]\nb = 1\n")
    (workspace / "n.ipynb").write_text('{"cells": []}')
    (workspace / "notes.txt").write_text("{")
    files = ["tags.yaml", "a.toml", "n.ipynb", "notes.txt"]
    assert check(["latin.py", "bom.py"], files) == (0, ["checked 5 files"])


HOSTILE = {
    "null.py": b"x = 1\0",
    "bytes.py": b"x = '\xff'\n",
    "coding.py": b"# coding: nonsense\n",
    "parens.py": b"(" * 100_000,
    "minus.py": b"-" * 1_000_000 + b"1",
    "chain.py": b"f" + b"()" * 100_000,
    "lambdas.py": b"lambda: " * 50_000 + b"1",
    "indents.py": b"".join(b" " * n + b"if 1:\n" for n in range(150)),
    "terminal.py": b"x = \x1b]0;owned\x07\n",
}


def test_hostile_python_is_a_problem_and_no_traceback(workspace: Path, check: Check) -> None:
    """Null bytes, wrong encodings and deep nesting fail with one line each; nothing reaches the terminal."""
    for name, data in HOSTILE.items():
        (workspace / name).write_bytes(data)
    code, said = check([*HOSTILE, "absent.py"])
    assert code == 1
    assert [line.partition(":")[0] for line in said[:-1]] == [*HOSTILE, "absent.py"]
    assert said[-1] == "checked 10 files: 10 problems"
    assert "\x1b" not in "".join(said)


def test_lenient_files_only_warn(workspace: Path, check: Check) -> None:
    """Other files that do not parse are named with their position, and the step passes."""
    broken = {
        "a.json": (b'{"a": 1,}\n', 1),
        "b.toml": (b"a = 1\nb = \n", 2),
        "c.yaml": (b"a: 1\nb: [1\n", 3),
        "d.ipynb": (b"{", 1),
        "e.py": (b"print 'old'\n", 1),
        "deep.json": (b"[" * 100_000, 1),
        "deep.toml": (b"a = " + b"[" * 50_000, 1),
        "deep.yml": (b"[" * 50_000, 1),
        "empty.json": (b"", 1),
    }
    for name, (data, _) in broken.items():
        (workspace / name).write_bytes(data)
    code, said = check([], list(broken))
    assert code == 0
    assert [line.split(":")[1:3] for line in said[:-1]] == [[f" {name}", str(at)] for name, (_, at) in broken.items()]
    assert all(line.startswith("warning: ") for line in said[:-1])
    assert said[-1] == "checked 9 files: 9 warnings"


def test_large_data_is_left_out(workspace: Path, check: Check) -> None:
    """A data file of many megabytes is not read for the sake of a warning."""
    with (workspace / "data.json").open("wb") as file:
        file.truncate(100 << 20)
    assert check([], ["data.json"]) == (0, ["checked 0 files"])


def test_warnings_of_the_compiler_are_shown(workspace: Path, check: Check) -> None:
    """What the compiler warns of is shown and does not fail the step."""
    (workspace / "a.py").write_text("x = 1\ny = x is 1\n")
    code, said = check(["a.py"])
    assert code == 0
    assert said[0].startswith("warning: a.py:2:1: ")


def test_links_that_lead_away_are_not_followed(workspace: Path, check: Check, tmp_path: Path) -> None:
    """A link out of the workspace is not read, so nothing of the machine shows in a log."""
    (tmp_path / "secret").write_text("my secret")
    (workspace / "a.py").symlink_to(tmp_path / "secret")
    assert check(["a.py"], ["a.py"]) == (0, ["checked 0 files"])


def test_many_paths_of_any_name(workspace: Path, check: Check) -> None:
    """Twenty thousand paths and names that a shell would act on arrive as they are."""
    odd = ["a b.py", "$(touch x).py", "-rf.py", "'\".py", "new\nline.py", "ünï.py"]
    for name in odd:
        (workspace / name).write_text("x = (\n")
    missing = [f"some/rather/long/folder/of/a/large/repository/file{n}.json" for n in range(20_000)]
    code, said = check(odd, missing)
    assert code == 1
    assert said[-1] == "checked 20006 files: 6 problems, 20000 warnings"
    assert said[4].startswith("new\\nline.py:1:5: ")
    assert {path.name for path in workspace.iterdir()} == set(odd)


def test_the_interpreter_of_the_version_is_found(tmp_path: Path, place: Place) -> None:
    """A program of that version on PATH is taken, a script that stands for one is not, else our own says so."""
    scripts, programs = tmp_path / "scripts", tmp_path / "programs"
    for folder in (scripts, programs):
        folder.mkdir()
    (scripts / "python3.98").write_text("#!/bin/sh\nexit 127\n")
    (programs / "python3.98").symlink_to(sys.executable)
    found = UvRuntimes(tmp_path, {"PATH": f"{scripts}:{programs}"}).check("3.98", [], [])
    assert found.text.startswith(f"{programs}/python3.98 ")
    own = UvRuntimes(tmp_path, {"PATH": str(scripts)}).check("3.98", [], [])
    assert place(own, tmp_path).stdout.splitlines()[0].endswith(": 3.98 is not installed here")


@given(st.binary(max_size=300), st.sampled_from([".py", ".json", ".toml", ".yaml", ".ipynb"]))
def test_any_bytes_give_an_answer(tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str) -> None:
    """No content of any kind raises: it parses, or it has problems with a position from 1 on."""
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(data)
    for problem in checking.lenient_problems(str(path)):
        assert problem.line >= 1
        assert problem.column >= 1
        assert problem.sentence


@pytest.mark.parametrize("name", ["checking", "building"])
def test_the_scripts_import_nothing_of_ours(name: str) -> None:
    """What is executed by path imports the standard library only, but for PyYAML where it is there."""
    source = (Path(checking.__file__).parent / f"{name}.py").read_text()
    imported = {
        line.split()[1].partition(".")[0] for line in source.splitlines() if line.startswith(("import", "from"))
    }
    assert imported <= sys.stdlib_module_names
