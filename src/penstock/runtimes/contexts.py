"""What an image is built from: the files of the commit that a Dockerfile can reach, and no more than it takes."""

import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Mapping

from penstock.errors import SourceError
from penstock.patterns import any_of, has_wildcard, matches
from penstock.runtimes.dockerfiles import Dockerfile, DockerfileError, Taken, read, taken


def read_dockerfile(file: str, data: bytes | None) -> Dockerfile:
    """The Dockerfile of a commit. Raises SourceError where it is missing or cannot be read."""
    if data is None:
        raise SourceError(f"runtime names {file}, which the commit does not have: commit it, or correct the name")
    try:
        return read(file, data)
    except DockerfileError as error:
        raise SourceError(str(error)) from error


def context_files(file: str, read_file: Callable[[str], bytes | None], paths: Collection[str]) -> Mapping[str, bytes]:
    """What building a Dockerfile needs, by path: itself, and what it takes of its folder.

    A link has no bytes here. What `.dockerignore` names is left out. Where it cannot be told what the Dockerfile
    takes, it is all that is left. Raises SourceError for a path that it names and that is not there.
    """
    dockerfile = read_dockerfile(file, read_file(file))
    folder = posixpath.dirname(file)
    within = sorted(path[len(folder) + 1 :] if folder else path for path in paths if _is_below(path, folder))
    kept = _without_ignored(file, folder, read_file, within)
    chosen = _chosen(dockerfile, folder, within, kept, paths)
    if chosen is not None:
        found = _contents(folder, chosen, read_file)
        chosen = None if any(data is None for data in found.values()) else chosen
    if chosen is None:  # all of it, for a link may lead anywhere
        found = _contents(folder, kept, read_file)
    return {**{path: data or b"" for path, data in found.items()}, file: read_file(file) or b""}


def _is_below(path: str, folder: str) -> bool:
    return not folder or path.startswith(f"{folder}/")


def _contents(folder: str, chosen: Iterable[str], read_file: Callable[[str], bytes | None]) -> dict[str, bytes | None]:
    paths = (posixpath.join(folder, path) for path in chosen)
    return {path: read_file(path) for path in paths}


# --- what is left out ----------------------------------------------------------------------------------------------


def _without_ignored(
    file: str, folder: str, read_file: Callable[[str], bytes | None], within: Iterable[str]
) -> list[str]:
    for name in (f"{file}.dockerignore", posixpath.join(folder, ".dockerignore")):
        data = read_file(name)
        if data is not None:
            return list(unignored(name, data, within))
    return list(within)


def unignored(name: str, data: bytes, paths: Iterable[str]) -> Iterable[str]:
    """The paths that an ignore file leaves; its last line that names a path, or a folder of it, counts."""
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SourceError(f"{name} is not UTF-8 text: save it as UTF-8") from error
    rules = [rule for line in lines if not line.startswith("#") if (rule := _rule(line.strip())) is not None]
    for path in paths:
        if not next((ignored for ignored, named in reversed(rules) if named(path)), False):
            yield path


def _rule(line: str) -> tuple[bool, Callable[[str], bool]] | None:
    """Whether a line ignores or takes back, and what it names; None where it says nothing."""
    ignores = not line.startswith("!")
    pattern = _pattern(line if ignores else line[1:].strip())
    return None if pattern is None else (ignores, any_of([pattern]))


def _pattern(text: str) -> str | None:
    """A pattern of docker's as one of ours: relative, complements by `!`, escaped signs in brackets."""
    text = re.sub(r"\\(.)", lambda m: f"[{m[1]}]" if m[1] in "*?[" else m[1], text)
    plain = posixpath.normpath(f"/{text}").lstrip("/") if text else ""
    return plain.replace("[^", "[!") or None


# --- what is taken -------------------------------------------------------------------------------------------------


def _chosen(
    dockerfile: Dockerfile, folder: str, within: Collection[str], kept: Collection[str], paths: Collection[str]
) -> list[str] | None:
    """The paths that the Dockerfile takes; None where it takes all, or nobody can tell."""
    wanted = taken(dockerfile)
    if wanted is None:
        return None
    patterns: list[str] = []
    files, there = frozenset(within), frozenset(_folders(kept))
    for source in wanted:
        pattern = _source_pattern(source)
        if not pattern or _passes_through(pattern, files):
            return None
        if not has_wildcard(pattern) and pattern not in there:
            raise SourceError(_missing(dockerfile, source, pattern, folder, within, paths))
        patterns.append(pattern)
    named = any_of(patterns)
    return [path for path in kept if named(path)]


def is_narrowed(dockerfile: Dockerfile) -> bool:
    """Whether less than all may be there of the context, by what the Dockerfile takes."""
    wanted = taken(dockerfile)
    return wanted is not None and all(_source_pattern(source) for source in wanted)


def _source_pattern(source: Taken) -> str:
    """A source as a pattern of ours, relative to the context; '' for all of it."""
    return posixpath.normpath(f"/{source.path}").lstrip("/").replace("[^", "[!")


def _folders(paths: Iterable[str]) -> set[str]:
    """The paths and all folders above them."""
    found: set[str] = set()
    for path in paths:
        while path and path not in found:
            found.add(path)
            path = posixpath.dirname(path)  # noqa: PLW2901 - upwards
    return found


def _passes_through(pattern: str, files: Collection[str]) -> bool:
    """Whether a part of a source before its last is no folder, so a link."""
    parts = pattern.split("/")
    return any("/".join(parts[:count]) in files for count in range(1, len(parts)))


def _missing(
    dockerfile: Dockerfile, source: Taken, pattern: str, folder: str, within: Iterable[str], paths: Collection[str]
) -> str:
    start = f"{dockerfile.place(source.line)}: {source.name} takes {source.path}, which"
    if any(matches(pattern, path) for path in within):
        return f"{start} .dockerignore leaves out: take it out of the one or the other"
    where = f"is not below {folder}/, the folder of the Dockerfile" if folder else "the commit does not have"
    if folder and any(matches(pattern, path) for path in paths):
        return f"{start} {where}: move the Dockerfile to the folder from which its paths are meant"
    return f"{start} {where}: commit it, or correct the name"
