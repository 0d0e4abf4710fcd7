"""The `check` step: do the files of a commit parse?

Executed by its path with any Python from 3.9 on, so it imports the standard library only and nothing of Penstock.
The paths come as JSON, compressed, in the variables PENSTOCK_CHECK_0, 1, …, because a command line and a single
variable hold no more than 128 KiB. The answer is one line per problem, `file:line:column: sentence`, on stdout.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
import threading
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

try:
    import tomllib
except ModuleNotFoundError:  # before 3.11
    tomllib = None  # type: ignore[assignment, unused-ignore]
try:
    import yaml
except ModuleNotFoundError:
    yaml = None  # type: ignore[assignment, unused-ignore]

BYTES_AT_MOST = {".json": 16 << 20, ".ipynb": 16 << 20, ".toml": 1 << 20, ".yaml": 1 << 20, ".yml": 1 << 20}
"""Larger files are data, and reading them would cost more than the warning is worth."""

DEPTH_AT_MOST = 500
STACK_BYTES = 512 << 20
"""The compiler recurses in C: a deep expression must end in an error, not in the end of the process."""


class Problem(NamedTuple):
    line: int
    column: int
    sentence: str


def main() -> int:
    """Check all files; 1 where a strict one does not compile, else 0."""
    wanted = json.loads(unpacked("PENSTOCK_CHECK"))
    if wanted["note"]:
        say(wanted["note"])
    strict = [path for path in wanted["strict"] if not leads_away(path)]
    lenient = [path for path in wanted["lenient"] if is_known(path) and not leads_away(path)]
    problems, remarks = 0, 0
    for path in strict:
        errors, notes = python_problems(path)
        problems, remarks = problems + len(errors), remarks + len(notes)
        show("", path, errors)
        show("warning: ", path, notes)
    for path in lenient:
        found = lenient_problems(path)
        remarks += len(found)
        show("warning: ", path, found)
    say(summary(len(strict) + len(lenient), problems, remarks))
    return 1 if problems else 0


def unpacked(name: str) -> bytes:
    """The value that was split over the variables NAME_0, NAME_1, …"""
    parts, number = [], 0
    while (part := os.environ.get(f"{name}_{number}")) is not None:
        parts.append(part)
        number += 1
    return zlib.decompress(base64.b64decode("".join(parts)))


def leads_away(path: str) -> bool:
    """Whether a link leads out of the workspace, where nothing is the commit's."""
    here = os.path.realpath(".")
    return os.path.commonpath([here, os.path.realpath(path)]) != here


def is_known(path: str) -> bool:
    suffix = Path(path).suffix.lower()
    if (suffix == ".toml" and tomllib is None) or (suffix in {".yaml", ".yml"} and yaml is None):
        return False
    return suffix == ".py" or (suffix in BYTES_AT_MOST and size(path) <= BYTES_AT_MOST[suffix])


def size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def python_problems(path: str) -> tuple[list[Problem], list[Problem]]:
    """What keeps a Python file from compiling, and what its compiler warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            compile(Path(path).read_bytes(), path, "exec", dont_inherit=True)
            errors = []
        except Exception as error:  # noqa: BLE001 - whatever the compiler raises is what is wrong with the file
            errors = [problem(error)]
    return errors, [Problem(w.lineno, 1, str(w.message)) for w in caught]


def lenient_problems(path: str) -> list[Problem]:
    """What keeps a file of another kind, or Python that no step needs, from being read."""
    suffix = Path(path).suffix.lower()
    if suffix == ".py":
        return python_problems(path)[0]
    try:
        data = Path(path).read_bytes()
        if suffix in {".json", ".ipynb"}:
            json.loads(data)
        elif suffix == ".toml":
            tomllib.loads(data.decode("utf-8-sig"))
        else:
            read_yaml(data)
    except Exception as error:  # noqa: BLE001 - whatever the reader raises is what is wrong with the file
        return [problem(error)]
    return []


def read_yaml(data: bytes) -> None:
    """Walk the events only: tags and aliases mean nothing here, and depth is bounded before it costs time."""
    depth = 0
    for event in yaml.parse(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH_AT_MOST:
            raise RecursionError


def problem(error: Exception) -> Problem:
    """One sentence for whatever a reader raised, at its position where it has one."""
    if isinstance(error, SyntaxError):
        source = (error.text or "").strip()
        sentence = f"{error.msg}: {source[:120]}" if source else str(error.msg)
        return Problem(error.lineno or 1, max(error.offset or 1, 1), sentence)
    if (mark := getattr(error, "problem_mark", None)) is not None:  # YAML
        return Problem(mark.line + 1, mark.column + 1, str(getattr(error, "problem", None) or "is no valid YAML"))
    if at := re.search(r" \(at line (\d+), column (\d+)\)$", str(error)):  # TOML, which has no attributes for it
        return Problem(int(at[1]), int(at[2]), str(error)[: at.start()])
    line, column = getattr(error, "lineno", None) or 1, getattr(error, "colno", None) or 1  # JSON, or none
    return Problem(line, column, sentence_of(error))


def sentence_of(error: Exception) -> str:
    if isinstance(error, (RecursionError, MemoryError)):
        return "is nested too deeply to be read"
    if isinstance(error, UnicodeDecodeError):
        return f"is not {error.encoding} text (byte {error.start})"
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror}"
    return str(getattr(error, "msg", None) or error)


def show(kind: str, path: str, found: list[Problem]) -> None:
    for one in found:
        say(f"{kind}{path}:{one.line}:{one.column}: {one.sentence}")


def say(text: str) -> None:
    """Print one line in which nothing that a file holds can act on a terminal."""
    print("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text))  # noqa: T201 - its output is its purpose


def summary(files: int, problems: int, remarks: int) -> str:
    counts = [f"{n} {word}{'' if n == 1 else 's'}" for n, word in ((problems, "problem"), (remarks, "warning")) if n]
    return f"checked {files} file{'' if files == 1 else 's'}" + (": " + ", ".join(counts) if counts else "")


def run() -> None:
    codes: list[int] = []
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=lambda: codes.append(main()))
    thread.start()
    thread.join()
    sys.stdout.flush()
    sys.exit(codes[0] if codes else 2)


if __name__ == "__main__":
    run()
