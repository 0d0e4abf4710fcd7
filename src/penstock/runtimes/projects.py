"""`pyproject.toml`, `uv.lock` and `pylock.toml` as text: what Penstock takes from them and what it must refuse."""

import posixpath
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from penstock.errors import SourceError

Read = Callable[[str], bytes | None]


def beside(file: str, name: str) -> str:
    """The path of a file in the same folder."""
    return posixpath.join(posixpath.dirname(file), name)


def parse(file: str, data: bytes) -> dict[str, Any]:
    """A TOML file as a dict. Raises SourceError naming the file and the position where it is no TOML."""
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise SourceError(f"{file} is not valid TOML ({error}): correct it") from error


def table(value: Any, *keys: str) -> dict[str, Any]:
    """The table below the keys; empty where there is none or where something else stands there."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def rows(value: Any) -> list[dict[str, Any]]:
    """The tables of an array; anything else is left out."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def uv_files(file: str, read: Read) -> dict[str, bytes]:
    """The nearest repository settings of uv for a file: `uv.toml`, or a `pyproject.toml` that has `[tool.uv]`."""
    folder = posixpath.dirname(file)
    while True:
        settings = posixpath.join(folder, "uv.toml")
        if (data := read(settings)) is not None:
            return {settings: data}
        project = posixpath.join(folder, "pyproject.toml")
        if (data := read(project)) is not None and table(parse(project, data), "tool", "uv"):
            return {project: data}
        if not folder:
            return {}
        folder = posixpath.dirname(folder)


def project_files(file: str, read: Read) -> dict[str, bytes]:
    """A `pyproject.toml` with its `uv.lock` and what that needs. Raises SourceError for what cannot be locked."""
    data = _required(file, read)
    _refuse_unlockable(file, parse(file, data), locked=read(beside(file, "uv.lock")) is not None)
    found = {file: data, **uv_files(file, read)}
    lock = beside(file, "uv.lock")
    if (locked := read(lock)) is not None:
        found |= {lock: locked, **_members(lock, parse(lock, locked), read)}
    return found


def uv_lock_files(file: str, read: Read) -> dict[str, bytes]:
    """A `uv.lock` with the `pyproject.toml` beside it. Raises SourceError where one of the two is missing."""
    _required(file, read)
    project = beside(file, "pyproject.toml")
    if read(project) is None:
        raise SourceError(f"{file} has no pyproject.toml beside it: commit it, or name a lock that stands alone")
    return project_files(project, read)


def _required(file: str, read: Read) -> bytes:
    data = read(file)
    if data is None:
        raise SourceError(f"runtime names {file}, which the commit does not have: commit it, or correct the name")
    return data


def _refuse_unlockable(file: str, content: Mapping[str, Any], *, locked: bool) -> None:
    if locked:
        return
    project = table(content, "project")
    if not project:
        raise SourceError(f"{file} has no [project] table: add one with its dependencies, or name a requirements file")
    if "dependencies" in project.get("dynamic", []):
        raise SourceError(
            f"{file} leaves its dependencies to its build: list them under [project], or name a requirements file"
        )
    for name, source in table(content, "tool", "uv", "sources").items():
        for entry in rows(source if isinstance(source, list) else [source]):
            if entry.keys() & {"path", "workspace"}:
                raise SourceError(
                    f"{file} takes {name} from a local path, and a runtime holds published packages only: "
                    "remove the dependency, and name the folder of its code under runtime.path"
                )


def _members(lock: str, content: Mapping[str, Any], read: Read) -> dict[str, bytes]:
    """The `pyproject.toml` of the members of a workspace, without which uv does not read the lock."""
    known = table(content, "manifest").get("members", [])
    found = {}
    for package in rows(content.get("package")):
        source = table(package, "source")
        folder = next((source[k] for k in ("editable", "virtual", "directory", "path") if k in source), None)
        if folder is None or folder == ".":
            continue
        if package.get("name") not in known:
            raise SourceError(
                f"{lock} takes {package.get('name')} from the local path {folder}, and a runtime holds published "
                "packages only: remove the dependency, and name the folder of its code under runtime.path"
            )
        member = posixpath.normpath(posixpath.join(posixpath.dirname(lock), str(folder), "pyproject.toml"))
        if (data := read(member)) is not None:
            found[member] = data
    return found


def pylock_files(file: str, read: Read) -> dict[str, bytes]:
    """A `pylock.toml` by itself. Raises SourceError where it is none or takes a package from a local path."""
    data = _required(file, read)
    content = parse(file, data)
    if "lock-version" not in content:
        raise SourceError(f"{file} has no lock-version and so is no pylock.toml: make it with `uv export`")
    for package in rows(content.get("packages")):
        archive = table(package, "archive")
        if "directory" in package or "path" in archive or any("path" in w for w in rows(package.get("wheels"))):
            raise SourceError(
                f"{file} takes {package.get('name')} from a local path: a runtime holds published packages only"
            )
    return {file: data}


def groups(content: Mapping[str, Any]) -> list[str]:
    """The dependency groups that uv installs by default: `tool.uv.default-groups`, else `dev` where it exists."""
    known = table(content, "dependency-groups")
    chosen = table(content, "tool", "uv").get("default-groups", ["dev"])
    return sorted(known) if chosen == "all" else [g for g in chosen if g in known]


def addresses(file: str, data: bytes) -> list[str]:
    """The index options of a `uv.toml` or of `[tool.uv]`, as lines that a lock may begin with."""
    content = parse(file, data)
    settings = content if posixpath.basename(file) == "uv.toml" else table(content, "tool", "uv")
    return list(dict.fromkeys(_lines(settings))) + list(dict.fromkeys(_lines(table(settings, "pip"))))


def _lines(settings: Mapping[str, Any]) -> Iterator[str]:
    for index in rows(settings.get("index")):
        if "://" in str(index.get("url")):
            yield f"{'--index-url' if index.get('default') is True else '--extra-index-url'} {index['url']}"
    for option in ("index-url", "extra-index-url", "find-links"):
        value = settings.get(option, [])
        for address in value if isinstance(value, list) else [value]:
            if "://" in str(address):
                yield f"--{option} {address}"
