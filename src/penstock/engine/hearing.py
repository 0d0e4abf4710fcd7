"""Results of pytest without a file: a plugin beside the step, and what it wrote.

The plugin is found by an entry point in a folder at the end of PYTHONPATH. Where that folder is lost, nothing looks for
the plugin, so that a step can never fail for want of it.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from penstock.engine import pytest_results
from penstock.engine.contracts import Mount
from penstock.pipelines import Step
from penstock.reports import MAX_BYTES, Heard, TestReport, parse_results

VARIABLE = "PENSTOCK_TESTS"
MOST = 1000
"""Sessions of pytest in one step that are read."""

_FOLDER = "penstock_results-1.dist-info"
_METADATA = "Metadata-Version: 2.1\nName: penstock-results\nVersion: 1\n"
_ENTRY_POINTS = "[pytest11]\npenstock = penstock_results\n"


def results_folder(workspace: Path) -> Path:
    """Where the results of an attempt come to lie: beside its workspace."""
    return workspace.with_name(f"{workspace.name}.tests")


def listen(step: Step, workspace: Path, variables: dict[str, str], *, inside: bool) -> tuple[str, tuple[Mount, ...]]:
    """Have a step that runs pytest tell its results: sets its variables, in place.

    Returns what goes in front of its command, and what its container finds. `inside` says that it runs in an image,
    whose own PYTHONPATH the shell alone knows.
    """
    plugin, results = workspace.with_name("pytest"), results_folder(workspace)
    by_shell = inside and "PYTHONPATH" not in variables
    if not step.runs_pytest or os.pathsep in str(plugin) or (by_shell and step.shell == "python"):
        return "", ()
    _write_plugin(plugin)
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    if step.secrets:
        (results / "quiet").touch()
    variables[VARIABLE] = str(results)
    mounts = (Mount(plugin, read_only=True), Mount(results))
    if by_shell:
        return f'export PYTHONPATH="${{PYTHONPATH:+$PYTHONPATH:}}{_quoted(plugin)}"; ', mounts
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, (variables.get("PYTHONPATH"), str(plugin))))
    return "", mounts


def _quoted(path: Path) -> str:
    """A path between double quotes of a shell."""
    return "".join(f"\\{c}" if c in '\\"$`' else c for c in str(path))


def _write_plugin(folder: Path) -> None:
    """Write the plugin once for a run. The entry point comes last: without it nothing looks for the rest."""
    known = folder / _FOLDER / "entry_points.txt"
    if known.exists():
        return
    known.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(pytest_results.__file__, folder / "penstock_results.py")
    (known.parent / "METADATA").write_text(_METADATA)
    known.write_text(_ENTRY_POINTS)


def hear(workspace: Path) -> Heard | None:
    """What the sessions of pytest in an attempt told, as one; None where there was none.

    `whole` where each came to its end, whole, and none with another exit code than 0, 1 or 5 (no tests were found).
    """
    found = [parse_results(data) for data in _contents(results_folder(workspace))]
    if not found:
        return None
    cases = tuple(case for heard in found for case in heard.report.cases)
    whole = all(heard.whole and heard.exit_code in {0, 1, 5} for heard in found)
    return Heard(TestReport(cases), found[-1].exit_code, whole)


def _contents(folder: Path) -> Iterator[bytes]:
    """What lies in the folder, in the order in which it began; a step may have put anything there."""
    try:
        files = sorted(entry.name for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False))
    except OSError:
        return
    left = MAX_BYTES
    for name in [name for name in files if name != "quiet"][:MOST]:
        try:
            with (folder / name).open("rb") as file:
                data = file.read(left)
        except OSError:
            continue
        left -= len(data)
        yield data
