"""Coverages: which lines the tests ran, of Cobertura XML and LCOV files, and of the lines of a change.

Every file may be hostile or cut short: what cannot be read raises ReportError, in one sentence that begins with the
file's name and, where one is known, the line.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.errors import ReportError
from penstock.reports import MAX_BYTES, MAX_DEPTH, read_xml


@dataclass(frozen=True, slots=True)
class FileCoverage:
    """The numbers of the lines that ran and of those that did not; lines without code are in neither."""

    covered: frozenset[int]
    missed: frozenset[int]


@dataclass(frozen=True, slots=True)
class Coverage:
    """What ran, by the path of each file as the report writes it; `roots` are where those paths begin.

    `branches` are how many ways out of a decision were taken, and how many there are; None where none was counted.
    """

    files: Mapping[str, FileCoverage]
    roots: tuple[str, ...] = ()
    branches: tuple[int, int] | None = None

    @property
    def covered(self) -> int:
        return sum(len(file.covered) for file in self.files.values())

    @property
    def missed(self) -> int:
        return sum(len(file.missed) for file in self.files.values())

    @property
    def rate(self) -> float | None:
        """The share of lines that ran, counted anew from the lines; None where there is no line."""
        return _share(self.covered, self.missed)

    @property
    def branch_rate(self) -> float | None:
        """The share of branches that were taken; None where none was counted."""
        return None if self.branches is None else self.branches[0] / self.branches[1]

    def of(self, path: str) -> FileCoverage | None:
        """The coverage of a file by its path in the repository; None where it was not measured.

        Reports write paths from a folder of their own or from the root of the disk: the file is meant whose path is
        the same, else the one whose full path ends so. Where the report does not say where its paths begin, it is the
        one with which the path ends. Of several it is the longest.
        """
        if path in self.files:
            return self.files[path]
        whole = [name for name in self.files for root in ("", *self.roots) if _ends(f"{root}/{name}", path)]
        known = any(re.match(r"/|[A-Za-z]:", root) for root in self.roots)
        part = [] if known else [name for name in self.files if _ends(path, name)]
        found = max(whole or part, key=len, default=None)
        return None if found is None else self.files[found]


def _ends(path: str, end: str) -> bool:
    path, end = re.sub(r"[\\/]+", "/", path), re.sub(r"[\\/]+", "/", end).removeprefix("./")
    return path == end or path.endswith(f"/{end.lstrip('/')}")


def _share(covered: int, missed: int) -> float | None:
    return covered / (covered + missed) if covered + missed else None


@dataclass(frozen=True, slots=True)
class ChangedCoverage:
    """Of the lines of a change that hold code, those that ran and those that did not, by path in the repository.

    `unmeasured` are changed files that the report does not know.
    """

    covered: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    missed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    unmeasured: tuple[str, ...] = ()

    @property
    def rate(self) -> float | None:
        """The share of changed lines with code that ran; None where no changed line holds code that was measured."""
        return _share(*(sum(map(len, lines.values())) for lines in (self.covered, self.missed)))


def coverage_of_change(coverage: Coverage, changed: Mapping[str, Sequence[range]]) -> ChangedCoverage:
    """The coverage of changed lines, given by path in the repository as ranges of line numbers that begin with 1."""
    covered: dict[str, tuple[int, ...]] = {}
    missed: dict[str, tuple[int, ...]] = {}
    known = measured(coverage, changed)
    for path, found in known.items():
        for kept, lines in ((covered, found.covered), (missed, found.missed)):
            within = _within(lines, changed[path])
            if within:
                kept[path] = within
    return ChangedCoverage(covered, missed, tuple(path for path in changed if path not in known))


def measured(coverage: Coverage, paths: Iterable[str]) -> dict[str, FileCoverage]:
    """Those of the repository's paths that the report knows, as `Coverage.of` finds them."""
    named: dict[str, dict[str, FileCoverage]] = {}
    for name, file in coverage.files.items():
        named.setdefault(re.split(r"[\\/]", name)[-1], {})[name] = file
    alike = ((path, Coverage(named.get(path.rpartition("/")[2], {}), coverage.roots)) for path in paths)
    return {path: found for path, few in alike if (found := few.of(path)) is not None}


def neglected(coverage: Coverage, paths: Collection[str], unmeasured: Iterable[str]) -> tuple[str, ...]:
    """Those of the unmeasured paths that should be in the report: sources in a folder that it looks into.

    `paths` are all of the commit. A source has the ending of a file that was measured; the report looks into the
    folders in which such a file lies and into all below, though into the repository's own only for files right there.
    """
    endings = endings_of(coverage)
    folders = {path.rpartition("/")[0] for path in measured(coverage, (p for p in paths if _ending(p) in endings))}
    return tuple(path for path in unmeasured if _ending(path) in endings and _lies_in(path, folders))


def endings_of(coverage: Coverage) -> frozenset[str]:
    """The endings of the measured files, such as `.py`."""
    return frozenset(_ending(name) for name in coverage.files)


def _ending(path: str) -> str:
    name, dot, ending = re.split(r"[\\/]", path)[-1].rpartition(".")
    return dot + ending if name else ""


def _lies_in(path: str, folders: Collection[str]) -> bool:
    folder = path.rpartition("/")[0]
    while folder and folder not in folders:
        folder = folder.rpartition("/")[0]
    return folder in folders and (folder != "" or "/" not in path)


def _within(lines: Iterable[int], ranges: Sequence[range]) -> tuple[int, ...]:
    return tuple(sorted(line for line in lines if any(line in part for part in ranges)))


# --- reading -------------------------------------------------------------------------------------------------------


def parse_coverage(data: bytes, file: str) -> Coverage:
    """The lines of a Cobertura XML file, or of an LCOV file (which never begins with `<`).

    A line that is there several times ran if it ran once. The rates that a report writes about itself are not looked
    at. Raises ReportError for what is neither, for line numbers and counts that are none, and for hostile XML.
    """
    if re.match(rb"\s*(\xef\xbb\xbf|\xff\xfe|\xfe\xff)?\s*\0?<", data) or not data.strip():
        target = _CoberturaTarget()
        read_xml(data, file, target)
        roots = tuple(dict.fromkeys(root.strip() for root in target.roots))
        return Coverage(_split(target.files), roots, _added(target.branches.values()))
    lines, branches = _lcov(data, file)
    return Coverage(_split(lines), branches=_added(branches.values()))


def _added(branches: Iterable[tuple[int, int]]) -> tuple[int, int] | None:
    """All branches of all lines as one count."""
    found = list(branches)
    taken, whole = sum(taken for taken, _ in found), sum(whole for _, whole in found)
    return (taken, whole) if whole else None


def _split(files: Mapping[str, Mapping[int, bool]]) -> dict[str, FileCoverage]:
    return {
        name: FileCoverage(
            frozenset(line for line, ran in lines.items() if ran),
            frozenset(line for line, ran in lines.items() if not ran),
        )
        for name, lines in files.items()
    }


_CONDITIONS = re.compile(r"\((\d{1,9})/(\d{1,9})\)", re.ASCII)
"""How many branches of a line were taken, of how many: `50% (1/2)`."""


class _CoberturaTarget:
    """Takes the parser's events one by one; `files` says of each line of each file whether it ran.

    `branches` are how many were taken of how many, by file and line.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[int, bool]] = {}
        self.roots: list[str] = []
        self.branches: dict[tuple[str, int], tuple[int, int]] = {}
        self._depth = 0
        self._file = ""
        self._lines: dict[int, bool] | None = None
        self._is_root = False
        self._is_cobertura = False

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        tag = tag.rpartition("}")[2]
        self._depth += 1
        if self._depth == 1 and tag != "coverage":
            raise ValueError(f"expected <coverage>, found <{tag[:80]}>: is this a Cobertura file?")
        if self._depth > MAX_DEPTH:
            raise ValueError(f"elements are nested more than {MAX_DEPTH} deep")
        if tag == "packages":
            self._is_cobertura = True
        elif tag == "class":
            self._file = _named(attributes.get("filename", ""))
            self._lines = self.files.setdefault(self._file, {})
        elif tag == "line" and self._lines is not None:
            number, hits = _counted(attributes.get("number", "")), _counted(attributes.get("hits", ""))
            self._lines[number] = self._lines.get(number, False) or hits > 0
            if (told := _CONDITIONS.search(attributes.get("condition-coverage", ""))) is not None:
                # The same line stands in its method and in its class: the one that says more counts.
                key, found = (self._file, number), (min(int(told[1]), int(told[2])), int(told[2]))
                self.branches[key] = max(self.branches.get(key, found), found)
        elif tag == "source":
            self._is_root = True
            self.roots.append("")

    def data(self, text: str) -> None:
        if self._is_root:
            self.roots[-1] += text

    def end(self, tag: str) -> None:
        tag = tag.rpartition("}")[2]
        self._depth -= 1
        self._is_root = False
        if tag == "class":
            self._lines = None
        elif not self._depth and not self._is_cobertura:
            raise ValueError("there is no <packages> in it: is this a Cobertura file?")

    def close(self) -> None:
        """The parser asks for a result at the end; `files` is it."""


def _counted(text: str) -> int:
    """A number of a line, or how often it ran."""
    if not re.fullmatch(r"\d{1,18}", text, re.ASCII):
        raise ValueError(f"{text[:40]!r} is no line number or count of hits")
    return int(text)


def _named(path: str) -> str:
    if not path.strip() or not path.isprintable():
        raise ValueError(f"{path[:40]!r} is no name of a file")
    return path


Lines = dict[str, dict[int, bool]]
Branches = dict[str, tuple[int, int]]


def _lcov(data: bytes, file: str) -> tuple[Lines, Branches]:
    """The records of an LCOV file: `SF:PATH`, `DA:LINE,HITS`, `BRDA:LINE,BLOCK,BRANCH,TAKEN`, `end_of_record`.

    Others are left alone. Branches are by what names them; one that is there several times was taken if it was once.
    """
    if len(data) > MAX_BYTES:
        raise ReportError(f"{file}: {len(data) >> 20} MiB are too much for a report")
    files: Lines = {}
    branches: Branches = {}
    name, lines = "", None
    for place, row in enumerate(data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").splitlines(), start=1):
        key, _, value = row.strip().partition(":")
        try:
            if key == "SF":
                name = _named(value)
                lines = files.setdefault(name, {})
            elif key == "DA" and lines is not None:
                number, hits = (_counted(text) for text in (*value.split(","), "")[:2])
                lines[number] = lines.get(number, False) or hits > 0
            elif key == "BRDA" and lines is not None:
                branch, _, taken = f"{name}:{value}".rpartition(",")
                was = branches.get(branch, (0, 1))[0] or (taken != "-" and _counted(taken) > 0)
                branches[branch] = int(was), 1
            elif key == "end_of_record":
                lines = None
        except ValueError as error:
            raise ReportError(f"{file}:{place}: {error}: is this an LCOV file?") from error
    if not files:
        raise ReportError(f"{file}: this is neither Cobertura XML nor LCOV: there is no <coverage> and no SF: in it")
    if lines is not None:
        raise ReportError(f"{file}: the last file has no end_of_record: the file is cut short")
    return files, branches
