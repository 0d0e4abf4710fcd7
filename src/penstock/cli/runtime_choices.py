"""Which runtime a repository asks for: its requirements, lock or project file, and its version of Python."""

import posixpath
import re
import sys
import tomllib
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.cli.repositories import Repository
from penstock.errors import SourceError
from penstock.runtimes.projects import groups, project_files, pylock_files, rows, table, uv_lock_files
from penstock.runtimes.requirements import follow, lines

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CLAUSE = re.compile(r"(>=|>|~=|==|<=|<|\^|~)?\s*3\.(\d{1,2})(?:\.(\d{1,3}))?")
_FOREIGN = ("environment.yml", "environment.yaml", "Pipfile", "poetry.lock", "pixi.toml", "setup.py", "setup.cfg")

Entry = tuple[str, str | tuple[str, ...], str]
"""A key of `runtime`, its value, and a comment."""


@dataclass(frozen=True, slots=True)
class RuntimeChoice:
    """`source` is the file that says which packages there are, or nothing; `packages` are their plain names."""

    source: str
    entries: tuple[Entry, ...]
    packages: frozenset[str]
    remarks: tuple[str, ...]

    def has(self, package: str) -> bool:
        """Whether the runtime names the package; without a runtime that is not known, and it has not."""
        return package in self.packages


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A file that could be the runtime: its key, the value there, and how it is found to be usable or not."""

    key: str
    file: str
    value: str
    comment: str
    files: Callable[[str, Callable[[str], bytes | None]], Mapping[str, bytes]]


def choose_runtime(repository: Repository) -> RuntimeChoice:
    """The first usable file: a lock, then requirements, then a project's dependencies. Never raises."""
    remarks: list[str] = []
    found: list[tuple[_Candidate, frozenset[str]]] = []
    for candidate in _candidates(repository):
        place = f"{repository.prefix}/{candidate.file}" if repository.prefix else candidate.file
        try:
            files = candidate.files(place, repository.read_from_root)
        except SourceError as error:
            remarks.append(f"{candidate.file} cannot be the runtime: {error}")
            continue
        found.append((candidate, _packages(candidate, place, files)))
    return _chosen(repository, found, remarks)


def _chosen(
    repository: Repository, found: list[tuple[_Candidate, frozenset[str]]], remarks: list[str]
) -> RuntimeChoice:
    python = _python(repository, remarks)
    entries: list[Entry] = [("python", *python)] if python else []
    if not found:
        foreign = next((name for name in _FOREIGN if name in repository), None)
        instead = f" ({foreign} is not read: write a requirements.txt)" if foreign else ""
        remarks.append(f"no requirements, lock or project file was found{instead}: steps use the Python of your PATH")
        return RuntimeChoice("", (), frozenset(), tuple(remarks))
    chosen, packages = found[0]
    fuller = [(c, p) for c, p in found[1:] if c.key == "requirements" and p > packages]
    if chosen.key == "requirements" and "pytest" not in packages:
        chosen, packages = next(((c, p) for c, p in fuller if "pytest" in p), found[0])
    return RuntimeChoice(chosen.file, (*entries, (chosen.key, chosen.value, chosen.comment)), packages, tuple(remarks))


def _candidates(repository: Repository) -> Iterator[_Candidate]:
    if "uv.lock" in repository:
        yield _Candidate("pyproject", "uv.lock", ".", "the packages of uv.lock, as locked", uv_lock_files)
    locks = [p for p in repository.files if re.fullmatch(r"pylock(\.[^./]+)?\.toml", p)]
    for file in locks:
        yield _Candidate("lock", file, file, "installed as it is", pylock_files)
    for file in sorted(filter(_is_requirements, repository.files), key=_rank):
        yield _Candidate("requirements", file, file, "locked with hashes when first run", _followed)
    if "pyproject.toml" in repository and _depends(repository):
        comment = "the dependencies of pyproject.toml, locked when first run"
        yield _Candidate("pyproject", "pyproject.toml", ".", comment, project_files)


def _followed(file: str, read: Callable[[str], bytes | None]) -> Mapping[str, bytes]:
    return follow(file, read)


def _is_requirements(path: str) -> bool:
    name = posixpath.basename(path)
    in_folder = posixpath.dirname(path) == "requirements" and name.endswith(".txt")
    return in_folder or ("/" not in path and re.fullmatch(r"requirements([._-].*)?\.txt", name) is not None)


def _rank(path: str) -> tuple[int, str]:
    """requirements.txt first, then the usual names of what production and training need."""
    usual = ["requirements", "base", "main", "prod", "production", "common", "train", "all"]
    stem = posixpath.basename(path).removesuffix(".txt").removeprefix("requirements-").removeprefix("requirements_")
    return (usual.index(stem) if stem in usual else len(usual), path)


def _depends(repository: Repository) -> bool:
    content = _toml(repository, "pyproject.toml")
    return bool(table(content, "project").get("dependencies")) or bool(table(content, "dependency-groups"))


# --- packages ------------------------------------------------------------------------------------------------------


def _packages(candidate: _Candidate, place: str, files: Mapping[str, bytes]) -> frozenset[str]:
    if candidate.key == "requirements":
        named = (line.text for file, data in files.items() for line in lines(file, data))
        return _names(text for text in named if not text.startswith("-"))
    content = _parsed(files[place])
    if candidate.file.endswith("pyproject.toml"):
        return _names(_strings(_declared(content)))
    return _names(_strings(row.get("name") for key in ("package", "packages") for row in rows(content.get(key))))


def _declared(content: Mapping[str, Any]) -> Iterator[Any]:
    """The requirements of a `pyproject.toml` that uv installs by default."""
    yield from _list(table(content, "project").get("dependencies"))
    known = table(content, "dependency-groups")
    chosen = table(content, "tool", "uv").get("default-groups", ["dev"])
    for group in groups(content) if isinstance(chosen, list | str) else ():
        yield from _list(known.get(group))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _strings(values: Iterable[Any]) -> Iterator[str]:
    return (v for v in values if isinstance(v, str))


def _names(texts: Iterable[str]) -> frozenset[str]:
    """The plain names at the beginning of requirements; `fastapi[standard]` brings uvicorn."""
    found = set()
    for text in texts:
        if match := _NAME.match(text):
            found.add(re.sub(r"[-_.]+", "-", match[0]).lower())
        if re.match(r"fastapi\[[^]]*(standard|all)", text):
            found.add("uvicorn")
    return frozenset(found)


def _toml(repository: Repository, path: str) -> dict[str, Any]:
    return _parsed(repository.read(path) or b"")


def _parsed(data: bytes) -> dict[str, Any]:
    """The content of a TOML file; empty where it is none, which `check` tells."""
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError):
        return {}


# --- Python and the name -------------------------------------------------------------------------------------------


def _python(repository: Repository, remarks: list[str]) -> tuple[str, str] | None:
    """The version and where it comes from."""
    text = (repository.read(".python-version") or b"").decode("utf-8", "replace").split("\n", 1)[0].strip()
    if match := re.fullmatch(r"(?:cpython-|python-?)?(3\.\d{1,2}(?:\.\d{1,3})?)", text):
        return match[1], "from .python-version"
    if text:
        remarks.append(".python-version names no version such as 3.11: python is left out")
    content = _toml(repository, "pyproject.toml")
    asked = table(content, "project").get("requires-python")
    if isinstance(asked, str) and (version := _version(asked)):
        return version, "fits requires-python"
    return None


def _version(asked: str) -> str | None:
    """A minor version that the clauses allow: Penstock's own where it is one of them, else the lowest."""
    low, high = 0, 99
    for sign, minor, _ in _CLAUSE.findall(asked):
        number = int(minor)
        if sign in {"==", ""}:
            return f"3.{number}"
        low = max(low, number) if sign in {">=", ">", "~=", "^", "~"} else low
        high = min(high, number - 1) if sign == "<" else min(high, number) if sign == "<=" else high
    own = sys.version_info.minor
    if not low:
        return None
    return f"3.{own}" if low <= own <= high else f"3.{low}"


def project_name(repository: Repository) -> str:
    """The name in `pyproject.toml`, else the folder's, in letters that every name may have."""
    content = _toml(repository, "pyproject.toml")
    named = (table(content, "project").get("name"), table(content, "tool", "poetry").get("name"))
    for text in (*named, repository.folder.name):
        if isinstance(text, str) and (name := _cleaned(text)):
            return name
    return "project"


def _cleaned(text: str) -> str:
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", ascii_only).strip("._-")[:64]
