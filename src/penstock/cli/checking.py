"""The verb `check` on files as they lie in a folder, by the same command as the `check` step of a run."""

import os
from collections.abc import Iterator
from pathlib import Path

from penstock.artifacts import Digest, File, Tree
from penstock.cli.settings import Settings
from penstock.engine.contracts import Command
from penstock.engine.variables import passed_on
from penstock.pipelines import Pipeline
from penstock.plans import checked_files

IGNORED = {".git", ".venv", "node_modules", "__pycache__"}


def command_for(pipeline: Pipeline, target: Path, settings: Settings) -> tuple[Path, Command, int]:
    """Where to check, the command with its whole environment, and how many files it reads."""
    from penstock.runtimes.uv import UvRuntimes

    root = repository_root(target.parent)
    strict, lenient = checked_files(pipeline, _listing(root))
    python = pipeline.runtime.python if pipeline.runtime else None
    command = UvRuntimes(settings.home, settings.environment, gpu=bool(settings.gpus)).check(python, strict, lenient)
    variables = {**passed_on(settings.environment), **command.variables}
    return root, Command(command.text, variables), len(strict) + len(lenient)


def check_recordings(pipeline: Pipeline, root: Path) -> None:
    """Read the recorded requests of probes, where they lie in the repository. Raises ReportError with file and line."""
    from penstock.recordings import parse_recordings

    probes = (environment.probe for environment in pipeline.environments.values())
    for file in dict.fromkeys(probe.requests for probe in probes if probe is not None):
        if (root / file).is_file():  # else a step may make it
            parse_recordings((root / file).read_bytes(), file)


def repository_root(folder: Path) -> Path:
    """The nearest folder above with a `.git`, else the folder itself: paths of the file start there."""
    start = folder.absolute()
    return next((f for f in (start, *start.parents) if (f / ".git").exists()), start)


def _walk(root: Path) -> Iterator[str]:
    """The paths of all files below a folder that can be read and that nobody removes meanwhile."""
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if f not in IGNORED]
        yield from (os.path.relpath(Path(folder, name), root) for name in names)


def _listing(root: Path) -> Tree:
    """The files below a folder that git would not ignore, without their content."""
    import subprocess

    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0:
        paths = [p.decode(errors="surrogateescape") for p in listed.stdout.split(b"\0") if p]
    else:
        paths = list(_walk(root))
    return Tree({p: File(Digest("0" * 64), 0) for p in paths if (root / p).is_file() and not (root / p).is_symlink()})
