"""What the benchmarks share: peers in environments of their own, turns, medians and tables of ratios.

Everything that is compared takes turns in each round, on the same two processors, so that a busy machine slows all
alike; a ratio is the median of the rounds' ratios. Peers are installed with pip on first use, each into its own virtual
environment under `$XDG_CACHE_HOME/penstock-benchmarks` (delete it to have them anew); ninja and make may be the
system's. A peer that cannot be had is reported and left out. No timing fails anything.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PENSTOCK = (sys.executable, "-m", "penstock")
PROCESSORS = 2
PATIENCE = 30.0
"""Seconds after which something that was waited for will not come."""

PEERS: Mapping[str, str] = {name: name for name in ("ninja", "doit", "snakemake", "dvc", "gunicorn")}
"""The program of each peer that PyPI has, and its package."""

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "ninja": ("-j2",),
    "make": ("-j2",),
    "doit": ("-n2",),
    "snakemake": ("-c2", "--quiet"),
    "dvc": ("repro", "--quiet"),
}
"""How each peer is asked to make everything, two at a time where it can."""

Measured = Callable[[], float]
"""One turn: prepares what it needs, and returns the figure (seconds, mostly) of what counts."""


class MissingError(Exception):
    """A peer that this machine does not have and that could not be installed; says why in one sentence."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a command took, with all its processes that were waited for.

    `seconds` on the clock; `processor`, seconds of processors; `memory`, the peak of the largest process, in bytes.
    """

    seconds: float
    processor: float
    memory: int


# --- peers ---------------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """Where peers are installed."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock-benchmarks"


def program(name: str) -> str:
    """The path of a peer's program: ninja and make from the system, else from PyPI. Raises MissingError."""
    found = shutil.which(name) if name in {"ninja", "make", "git"} else None
    if found is not None:
        return found
    if name not in PEERS:
        raise MissingError(f"{name} is not on the PATH: install it with the system's packages")
    return str(_installed(name, PEERS[name]))


def _installed(name: str, package: str) -> Path:
    """A program of its own virtual environment, made where it is not there yet."""
    folder = cache_folder() / package
    path = folder / "bin" / name
    if not path.exists():
        print(f"installing {package} into {folder} ...", file=sys.stderr)
        _run_quietly((sys.executable, "-m", "venv", "--clear", str(folder)), f"an environment for {package}")
        pip = (str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "-q", package)
        _run_quietly(pip, package)
    return path


def _run_quietly(command: Sequence[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise MissingError(f"{what} could not be installed: {last}")


def begin(name: str, folder: Path) -> None:
    """What a peer wants once in a new folder."""
    if name == "dvc":
        run((program(name), "init", "--no-scm", "--quiet"), folder, environment(folder))


def version(name: str) -> str:
    """What a peer's `--version` answers, in one line."""
    done = subprocess.run((program(name), "--version"), capture_output=True, text=True, check=False)
    return next(iter(done.stdout.splitlines()), "?").strip()


def chosen(names: Sequence[str], wanted: str | None) -> list[str]:
    """Those of `names` that `--peers a,b` asks for (all for None) and that this machine can have; says what is not."""
    found = []
    for name in names if wanted is None else [n for n in names if n in wanted.split(",")]:
        try:
            print(f"{name:<12} {version(name)}", file=sys.stderr)
        except (MissingError, OSError) as error:
            print(f"{name:<12} left out: {error}", file=sys.stderr)
        else:
            found.append(name)
    return found


# --- commands ------------------------------------------------------------------------------------------------------


def two_processors() -> None:
    """Keep this process and all that it starts on two processors, so that figures of machines compare."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:PROCESSORS])


def environment(home: Path, **more: str) -> dict[str, str]:
    """The variables of a measured command: a home of its own, and a person for Git's commits.

    Python keeps its compiled modules, as it does for everybody who did not forbid that.
    """
    who = {f"GIT_{role}_{what}": "bench@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    person = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**person, **who, "PENSTOCK_HOME": str(home), **more}


def run(command: Sequence[str], folder: Path, variables: Mapping[str, str]) -> None:
    """A command that must end well and is not measured."""
    done = subprocess.run(
        command, cwd=folder, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"


def taken(command: Sequence[str], folder: Path, variables: Mapping[str, str]) -> Taken:
    """What a command takes that must end well; its output goes to files, as a pipe would slow it."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=out, stderr=errors
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            sys.stderr.write(errors.read()[-2000:].decode(errors="replace"))
    assert process.returncode == 0, f"{' '.join(command)} ended with {process.returncode}"
    return Taken(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def lay_out(folder: Path, files: Mapping[str, str]) -> None:
    """Write files into a folder, which need not exist yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def repository(folder: Path, files: Mapping[str, str]) -> Path:
    """A Git repository of one commit with these files; returns its folder."""
    lay_out(folder, files)
    variables = environment(folder)
    for command in ("git init -q -b main", "git add -A", "git commit -q -m one"):
        run(command.split(), folder, variables)
    return folder


def prepared_home(place: Path) -> Path:
    """A home whose database has its tables already and nothing else; to be copied for every turn."""
    home = place / "prepared-home"
    run((*PENSTOCK, "runs"), place, environment(home))
    return home


def new_home(place: Path, home: Path) -> None:
    """Replace a home by a copy of the prepared one (without its pipe, which every command makes where it lacks)."""
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(place / "prepared-home", home, ignore=shutil.ignore_patterns("poke"))


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until something has happened; what is measured takes the time by itself."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE:g} s"
        time.sleep(0.005)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for the whole measurement, on the file system of `$TMPDIR`."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-", ignore_cleanup_errors=True) as name:
        yield Path(name)


# --- turns and tables ----------------------------------------------------------------------------------------------


def by_turns(contenders: Mapping[str, Measured], rounds: int, *, warm: bool = True) -> dict[str, list[float]]:
    """The figures of every contender by round; one more round at the beginning does not count where `warm`."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + warm):
        if sys.stderr.isatty():
            print(f"\rround {number + 1} of {rounds + warm} ", end="", file=sys.stderr, flush=True)
        for name, measured in contenders.items():
            found[name].append(measured())
    return {name: values[warm:] for name, values in found.items()}


def ratio(values: Sequence[float], yardstick: Sequence[float]) -> float:
    """The median of the rounds' ratios: a slow minute weighs on both sides of one ratio."""
    return statistics.median(value / other for value, other in zip(values, yardstick, strict=True))


def table(
    title: str, found: Mapping[str, Sequence[float]], yardstick: str, unit: str = "ms", scale: float = 1000.0
) -> None:
    """Print the median of each contender, its span, and its ratio to the yardstick."""
    print(f"\n{title}")
    wide = max(map(len, found))
    for name, values in found.items():
        low, middle, high = (f(values) * scale for f in (min, statistics.median, max))
        beside = f"{ratio(values, found[yardstick]):8.2f}×" if yardstick in found else ""
        print(f"  {name:<{wide}} {middle:10.3f} {unit}{beside}   ({low:.3f} to {high:.3f})")


def sub_commands(
    doc: str | None, commands: Mapping[str, tuple[Callable[[argparse.Namespace], None], int]], *, rounds: int
) -> None:
    """Execute the sub-command that was asked for, and say how long it took; each stands with its usual runs."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="command", required=True)
    for name, (_, runs) in commands.items():
        part = parts.add_parser(name)
        part.add_argument("--runs", type=int, default=runs)
        part.add_argument("--rounds", type=int, default=rounds)
        part.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    begin = time.perf_counter()
    commands[asked.command][0](asked)
    print(f"in {time.perf_counter() - begin:.0f} s, seed {asked.seed}")
