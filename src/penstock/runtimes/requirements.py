"""Requirements files as text: what they include, what Penstock cannot lock, which indexes they name."""

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from penstock.errors import SourceError

_INCLUDE = re.compile(r"(?:-r|-c|--requirement|--constraint)(?:\s+|\s*=\s*)?(?P<file>\S+)")
_EDITABLE = re.compile(r"(?:-e|--editable)(?:\s|=)")
_ADDRESS = re.compile(r"(?P<option>-i|--index-url|--extra-index-url|-f|--find-links)(?:\s+|\s*=\s*)(?P<address>\S+)")
_ARCHIVE = re.compile(r"\.(?:whl|zip|tar\.gz|tgz|tar\.bz2)(?:[#;\s]|$)")
_PINNED_COMMIT = re.compile(r"@\s*git\+\S+@[0-9a-f]{40}\b")


@dataclass(frozen=True, slots=True)
class Line:
    """One requirement or option: its file, the number of its first line (from 1), its text without comments."""

    file: str
    number: int
    text: str

    @property
    def place(self) -> str:
        return f"{self.file}:{self.number}"


def lines(file: str, data: bytes) -> Iterator[Line]:
    """The lines that say something, continuations joined. Raises SourceError where the file is not UTF-8 text."""
    start, parts = 0, list[str]()
    for number, raw in enumerate(_text(file, data).splitlines(), start=1):
        start = start if parts else number
        text = re.sub(r"(^|\s)#.*$", "", raw)
        parts.append(text.removesuffix("\\").strip())
        if not text.endswith("\\"):
            if joined := " ".join(filter(None, parts)):
                yield Line(file, start, joined)
            parts = []
    if joined := " ".join(filter(None, parts)):
        yield Line(file, start, joined)


def _text(file: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{file} is not UTF-8 text: save it as UTF-8") from error


def follow(file: str, read: Callable[[str], bytes | None]) -> dict[str, bytes]:
    """A requirements file and all that it includes, by path.

    Raises SourceError for a file that is missing, lies outside the repository, or names something that cannot be
    locked: a local path, an editable, an included address.
    """
    found: dict[str, bytes] = {}
    waiting = [(file, "runtime")]
    while waiting:
        path, origin = waiting.pop()
        if path in found:
            continue
        data = read(path)
        if data is None:
            raise SourceError(f"{origin} names {path}, which the commit does not have: commit it, or correct the name")
        found[path] = data
        for line in lines(path, data):
            _refuse_local(line)
            if include := _INCLUDE.match(line.text):
                waiting.append((_included(line, include["file"]), line.place))
    return found


def _included(line: Line, name: str) -> str:
    if "://" in name:
        raise SourceError(f"{line.place}: {name} is not part of the commit: copy the file into the repository")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(line.file), name.strip("'\"")))
    if path.startswith(("../", "/")) or path == "..":
        raise SourceError(f"{line.place}: {name} lies outside the repository: move the file into it")
    return path


def _refuse_local(line: Line) -> None:
    if _EDITABLE.match(line.text) or _is_local(line.text):
        raise SourceError(
            f"{line.place}: {line.text} is a local path, and a runtime holds published packages only: "
            "remove the line, and name the folder of the code under runtime.path"
        )


def _is_local(text: str) -> bool:
    if address := _ADDRESS.match(text):
        return address["option"] in {"-f", "--find-links"} and "://" not in address["address"]
    if text.startswith("-"):
        return False
    text = re.split(r"\s--", text, maxsplit=1)[0]
    target = text.partition(" @ ")[2].strip() or re.sub(r"^[\w.\-]+(?:\[[^]]*\])?\s*@\s*", "", text)
    if target.startswith(("./", "../", "/", "file:", "~")) or target in {".", ".."}:
        return True
    name = target.partition(";")[0]
    return "://" not in name and ("/" in name or _ARCHIVE.search(name) is not None)


def unhashed(file: str, data: bytes) -> Line | None:
    """The first line of a lock that neither a hash nor a full commit of git holds fast; None where all are."""
    for line in lines(file, data):
        is_option = line.text.startswith("-")
        if not is_option and "--hash=" not in line.text and not _PINNED_COMMIT.search(line.text):
            return line
    return None


def addresses(files: Mapping[str, bytes], names: Iterable[str]) -> list[str]:
    """The index options that requirements files themselves name, as lines that a lock may begin with."""
    long = {"-i": "--index-url", "-f": "--find-links"}
    matches = (_ADDRESS.match(line.text) for name in names for line in lines(name, files[name]))
    found = (f"{long.get(m['option'], m['option'])} {m['address']}" for m in matches if m)
    return list(dict.fromkeys(found))
