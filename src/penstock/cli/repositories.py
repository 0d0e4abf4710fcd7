"""What a folder holds, read within limits, never executed: names, small files, how Python files hang together."""

import itertools
import keyword
import os
import posixpath
import re
import stat
import subprocess
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from penstock.cli.checking import IGNORED, repository_root
from penstock.cli.drafts import argument
from penstock.cli.scripts import Script, understand
from penstock.pipelines import FilePath, FolderPath

MAX_PATHS = 5_000
"""Of a larger repository the paths nearest to its top are known."""
MAX_FILE = 256 * 1024
"""Bytes; no larger file is read."""
MAX_SCRIPTS = 400
MAX_READ = 4 * 1024 * 1024
"""Bytes of Python read in all: a few seconds of parsing at most."""

_FILE: TypeAdapter[str] = TypeAdapter(FilePath)
_FOLDER: TypeAdapter[str] = TypeAdapter(FolderPath)
_ASIDE = frozenset({"docs", "doc", "examples", "example", "notebooks", "benchmarks", "migrations"})
_NO_SCRIPTS = frozenset({"setup.py", "conftest.py", "noxfile.py", "__init__.py", "versioneer.py"})
_LIKELY = re.compile(r"(train|fit|eval|serv|app|api|main|data|prep|score)")


def is_file_name(path: str) -> bool:
    """Whether a pipeline file can name the path, and a comment can show it."""
    return path.isprintable() and _accepts(_FILE, path)


def is_folder_name(path: str) -> bool:
    """Whether `runtime.path` can name the folder."""
    return path.isprintable() and _accepts(_FOLDER, path)


def _accepts(kind: TypeAdapter[str], path: str) -> bool:
    try:
        return kind.validate_python(path) == path  # "./x" and "x" are one path: only the plain form is used here
    except ValidationError:
        return False


class Repository:
    """A folder of a repository. Paths are relative to the folder; `prefix` leads there from the repository's top.

    `files` are those that a pipeline file can name and that git would not ignore; links are left out. There are none
    where the folder itself cannot be named (`is_nameable`).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        root = repository_root(self.folder)
        prefix = self.folder.relative_to(root).as_posix()
        self.prefix = "" if prefix == "." else prefix
        self.is_nameable = not self.prefix or is_folder_name(self.prefix)
        self._root = root
        found = sorted(set(_listing(self.folder)), key=lambda p: (p.count("/"), p))
        self.is_cut = len(found) > MAX_PATHS
        kept = [p for p in found[:MAX_PATHS] if _is_plain_file(self.folder / p)]
        self.files = tuple(p for p in kept if self.is_nameable and is_file_name(posixpath.join(self.prefix, p)))
        self.unnamed = len(kept) - len(self.files)
        self.folders = frozenset(f for p in self.files for f in _parents(p))
        self._known = frozenset(self.files)

    def __contains__(self, path: object) -> bool:
        return path in self._known

    def below(self, folder: str) -> Iterator[str]:
        """The files below a folder, which is given with or without its last slash."""
        start = f"{folder.rstrip('/')}/"
        return (p for p in self.files if p.startswith(start))

    def read(self, path: str) -> bytes | None:
        """The content of a small file of the folder; None where there is none or it is too large."""
        return self.read_from_root(f"{self.prefix}/{path}" if self.prefix else path)

    def read_from_root(self, path: str) -> bytes | None:
        """The same by the path from the repository's top. No link is followed."""
        target = self._root / path
        try:
            if not target.is_file() or any(f.is_symlink() for f in _way(target, self._root)):
                return None
            return target.read_bytes() if target.stat().st_size <= MAX_FILE else None
        except (OSError, ValueError):  # gone, not ours to read, or a name that no file can have
            return None

    @cached_property
    def scripts(self) -> dict[str, Script]:
        """The Python files that could be read, those whose names speak of training and serving first."""
        found: dict[str, Script] = {}
        left = MAX_READ
        python = sorted((p for p in self.files if p.endswith(".py")), key=lambda p: not _LIKELY.search(p))
        for path in python[:MAX_SCRIPTS]:
            data = self.read(path)
            if data is None or len(data) > left:
                continue
            left -= len(data)
            if script := understand(path, data):
                found[path] = script
        return found

    @cached_property
    def programs(self) -> tuple[Script, ...]:
        """The scripts that may be steps: no tests, no examples; nearest to the top first."""
        found = [s for p, s in self.scripts.items() if not is_test(p) and posixpath.basename(p) not in _NO_SCRIPTS]
        kept = [s for s in found if not _ASIDE & set(s.path.split("/"))]
        return tuple(sorted(kept, key=lambda s: (s.path.count("/"), s.path)))

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """`src` where it is a folder of packages, not a package itself."""
        if "src/__init__.py" in self or not any(p.endswith(".py") for p in self.below("src")):
            return ()
        names = {n.partition(".")[0] for s in self.scripts.values() for n in s.imports}
        return () if "src" in names else ("src",)

    # --- how Python files hang together ----------------------------------------------------------------------------

    def module(self, path: str) -> str | None:
        """The dotted name by which a file can be imported, or None where it has none."""
        inside = next((path[len(s) + 1 :] for s in self.sources if path.startswith(f"{s}/")), path)
        parts = inside.removesuffix(".py").split("/")
        return ".".join(parts) if all(p.isidentifier() and not keyword.iskeyword(p) for p in parts) else None

    def command(self, script: Script, python: str) -> str:
        """How the script is executed: `-m` where it is part of a package, else by its path."""
        module = self.module(script.path)
        if module is not None and "." in module and self._is_of_package(script, module):
            return f"{python} -m {module}"
        return f"{python} {argument(script.path)}"

    def _is_of_package(self, script: Script, module: str) -> bool:
        folder = posixpath.dirname(script.path)
        own = any(n.partition(".")[0] == module.partition(".")[0] for n in script.imports)
        in_source = any(script.path.startswith(f"{s}/") for s in self.sources)
        return in_source or own or bool(script.neighbours) or f"{folder}/__init__.py" in self

    def needs_top(self, script: Script) -> bool:
        """Whether a script that is executed by its path imports modules from the repository's top."""
        folder = posixpath.dirname(script.path)
        if not folder or " -m " in self.command(script, "python"):
            return False
        beside = (self._resolve(n, [folder, *self.sources]) for n in script.imports)
        return any(near is None and self._resolve(n, [""]) for near, n in zip(beside, script.imports, strict=True))

    def closure(self, starts: Iterable[Script]) -> tuple[Script, ...]:
        """Scripts with all files of the repository that they import, directly or not."""
        found: dict[str, Script] = {}
        waiting = list(starts)
        while waiting:
            script = waiting.pop()
            if script.path in found:
                continue
            found[script.path] = script
            waiting.extend(self.scripts[p] for p in self._imported(script) if p in self.scripts)
        return tuple(found[p] for p in sorted(found))

    def unread(self, scripts: Iterable[Script]) -> bool:
        """Whether some file that the scripts import could not be read, so that what it needs is unknown."""
        return any(p not in self.scripts for s in scripts for p in self._imported(s))

    def _imported(self, script: Script) -> Iterator[str]:
        roots = [posixpath.dirname(script.path), *self.sources, ""]
        for name in script.imports:
            if (path := self._resolve(name, roots)) is not None:
                yield path
        for stem in script.neighbours:
            yield from (p for p in (f"{stem}.py", f"{stem}/__init__.py") if p in self)

    def _resolve(self, name: str, roots: Iterable[str]) -> str | None:
        parts = name.split(".")[:20]
        for root, length in itertools.product(roots, range(len(parts), 0, -1)):
            stem = posixpath.join(root, *parts[:length])
            for path in (f"{stem}.py", f"{stem}/__init__.py"):
                if path in self:
                    return path
        return None

    # --- what a step of these scripts reads ------------------------------------------------------------------------

    def code(self, scripts: Iterable[Script]) -> set[str]:
        """Patterns that name the scripts: whole packages and `src/`, else single files."""
        return {self._unit(s.path) for s in scripts}

    def _unit(self, path: str) -> str:
        first, slash, _ = path.partition("/")
        whole = first in self.sources or f"{first}/__init__.py" in self
        return f"{first}/" if slash and whole else path

    def data(self, scripts: Iterable[Script]) -> set[str]:
        """Patterns that name the files and folders of the repository whose paths stand in the scripts."""
        found: set[str] = set()
        for script in scripts:
            folder = posixpath.dirname(script.path)
            for path in script.read | script.named:
                found.update(filter(None, map(self._existing, (path, posixpath.join(folder, path)))))
        return {p for p in found if not is_test(p) and not _ASIDE & set(p.split("/"))}

    def _existing(self, path: str) -> str | None:
        """The file or folder itself, else the nearest folder above that holds no code."""
        plain = path.rstrip("/")
        if plain in self:
            return plain
        while plain:
            if plain in self.folders:
                return None if any(p.endswith(".py") for p in self.below(plain)) else f"{plain}/"
            plain = posixpath.dirname(plain) if plain != posixpath.dirname(plain) else ""
        return None


def is_test(path: str) -> bool:
    """Whether a path belongs to tests, by the names that pytest goes by."""
    *folders, name = path.rstrip("/").split("/")
    is_named = name.startswith("test_") or name.endswith("_test.py") or name in {"conftest.py", "tests", "test"}
    return is_named or bool({"tests", "test"} & set(folders))


def _parents(path: str) -> Iterator[str]:
    while path := posixpath.dirname(path):
        yield path


def _way(target: Path, root: Path) -> Iterator[Path]:
    """The file and the folders above it, up to the root."""
    yield target
    yield from itertools.takewhile(lambda f: f != root, target.parents)


# --- names ---------------------------------------------------------------------------------------------------------


def _listing(folder: Path) -> list[str]:
    """The files below a folder: those that git would not ignore, else all that a walk finds."""
    found = _tracked(folder)
    paths = list(itertools.islice(_walk(folder), 4 * MAX_PATHS)) if found is None else found
    return [p for p in paths if _is_open(p)]


def _is_open(path: str) -> bool:
    parts = path.split("/")
    return not IGNORED & set(parts) and not any(p.startswith(".") for p in parts[:-1])


def _tracked(folder: Path) -> list[str] | None:
    """What git lists, hooks and monitors of the repository's own settings turned off; None where it cannot."""
    argv = ["git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "ls-files", "-z"]
    try:
        listed = subprocess.run(
            [*argv, "--cached", "--others", "--exclude-standard"],
            cwd=folder,
            capture_output=True,
            check=False,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if listed.returncode != 0:
        return None
    return [p.decode(errors="surrogateescape") for p in listed.stdout.split(b"\0") if p]


def _is_plain_file(path: Path) -> bool:
    """Whether it is there and no link; git lists deleted files and submodules too."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _walk(folder: Path) -> Iterator[str]:
    """Files nearest to the top first; folders that cannot be read are passed over, links not followed."""
    waiting = [""]
    while waiting:
        below: list[str] = []
        for inside in waiting:
            entries = _entries(folder / inside)
            files = [e.name for e in entries if e.is_file(follow_symlinks=False)]
            yield from (posixpath.join(inside, name) for name in sorted(files))
            names = sorted(e.name for e in entries if e.is_dir(follow_symlinks=False))
            below += [posixpath.join(inside, n) for n in names if _is_open(f"{n}/x")]
        waiting = below


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return list(itertools.islice(entries, 4 * MAX_PATHS))
    except OSError:
        return []
