"""Reports: the bytes of JUnit, metrics and benchmark files as values (coverage is read by `coverages.py`).

Every file may be hostile or cut short: what cannot be read raises ReportError, in one sentence that begins with the
file's name and, where one is known, the line.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any, ClassVar, Literal, Protocol

from penstock.errors import ReportError

Status = Literal["passed", "failed", "errored", "skipped"]

MAX_BYTES = 64 << 20
MAX_DEPTH = 50
MAX_MESSAGE = 4000
MAX_NAME = 1000
MAX_NUMBERS = 10_000


# --- tests ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TestCase:
    """One test: `suite` is its class or module, else its suite's name; `message` says why it did not pass."""

    __test__: ClassVar[bool] = False  # pytest collects classes by this name

    name: str
    suite: str
    status: Status
    seconds: float
    message: str = ""


@dataclass(frozen=True, slots=True)
class TestReport:
    """The tests of a report, in the file's order. `seconds` adds up theirs, which may have run side by side."""

    __test__: ClassVar[bool] = False

    cases: tuple[TestCase, ...]

    def count(self, status: Status) -> int:
        return sum(case.status == status for case in self.cases)

    @property
    def passed(self) -> int:
        return self.count("passed")

    @property
    def failed(self) -> int:
        return self.count("failed")

    @property
    def errored(self) -> int:
        return self.count("errored")

    @property
    def skipped(self) -> int:
        return self.count("skipped")

    @property
    def seconds(self) -> float:
        return math.fsum(case.seconds for case in self.cases)


def parse_junit(data: bytes, file: str) -> TestReport:
    """The tests of a JUnit XML file, from any depth of `testsuites` and `testsuite`.

    A case that errs and fails is errored; one without a child that says so is what its `status` or `result` says. A
    suite that fails by itself, or says that tests failed and shows none, counts as an errored case of its name. A time
    that is no number counts as 0 seconds; long names and messages are cut. Raises ReportError for what is no
    well-formed JUnit file, declares a document type or entities, or is too large or too deep.
    """
    target = _JunitTarget()
    read_xml(data, file, target)
    return TestReport(tuple(target.cases))


class Target(Protocol):
    """Takes the events of an XML parser; a ValueError becomes a sentence with the line."""

    def start(self, tag: str, attributes: dict[str, str]) -> None: ...
    def data(self, text: str) -> None: ...
    def end(self, tag: str) -> None: ...
    def close(self) -> None: ...


def read_xml(data: bytes, file: str, target: Target) -> None:
    """Hand the events of an XML file to a target, tags as `NAME` or `{NAMESPACE}NAME`; no tree is built.

    A document type that names where its grammar lies is passed over and never fetched; one that declares anything is
    refused. Raises ReportError for that, for what is not well-formed, and for a file that is empty or too large.
    """
    from defusedxml.common import DefusedXmlException  # noqa: PLC0415 (only runs with a report need it)
    from defusedxml.ElementTree import DefusedXMLParser, ParseError  # noqa: PLC0415 (as above)

    _check_size(data, file)
    parser = DefusedXMLParser(target=target)
    parser.parser.StartDoctypeDeclHandler = _check_document_type
    try:
        parser.feed(data)
        parser.close()
    except ParseError as error:
        raise ReportError(f"{file}:{error.position[0]}: this is no well-formed XML: {_reason(error)}") from error
    except (DefusedXmlException, _DeclarationError) as error:
        raise ReportError(f"{file}:{_line(parser)}: a document type or entity is declared, which is refused") from error
    except (ValueError, LookupError) as error:
        raise ReportError(f"{file}:{_line(parser)}: {error}") from error


class _DeclarationError(Exception):
    """A document type that declares something."""


def _check_document_type(_name: str, _system: str | None, _public: str | None, has_declarations: object) -> None:
    if has_declarations:
        raise _DeclarationError


def _reason(error: Exception) -> str:
    return str(error).partition(":")[0]


def _line(parser: Any) -> int:
    return int(parser.parser.CurrentLineNumber)


class _RefusedError(ValueError):
    """What the target of the parser will not take; the parser knows the line."""


class _JunitTarget:
    """Takes the parser's events one by one, so that no tree is ever built; the class collects `cases`."""

    _SAID: ClassVar[dict[str, Status]] = {
        **dict.fromkeys(("notrun", "disabled", "skipped", "ignored", "suppressed", "untested"), "skipped"),
        **dict.fromkeys(("fail", "failed", "failure"), "failed"),
        **dict.fromkeys(("error", "errored"), "errored"),
    }
    _TROUBLE: ClassVar[dict[str, Status]] = {"skipped": "skipped", "failure": "failed", "error": "errored"}

    def __init__(self) -> None:
        self.cases: list[TestCase] = []
        self._depth = 0
        self._suites: list[_Suite] = []
        self._case: dict[str, str] | None = None
        self._found: dict[str, list[str]] = {}
        self._open: list[str] | None = None
        self._is_suite = False

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        tag = _plain(tag)
        self._depth += 1
        if self._depth == 1 and tag not in {"testsuites", "testsuite"}:
            raise _RefusedError(f"expected <testsuites> or <testsuite>, found <{tag[:80]}>: is this a JUnit file?")
        if self._depth > MAX_DEPTH:
            raise _RefusedError(f"elements are nested more than {MAX_DEPTH} deep")
        if self._case is not None and tag == "testcase":
            raise _RefusedError("a <testcase> lies inside another")
        if self._case is not None:
            self._start_trouble(tag, attributes)
        elif tag == "testcase":
            self._case, self._found = dict(attributes), {}
        elif tag in {"testsuites", "testsuite"}:
            self._suites.append(_Suite(attributes.get("name", ""), _declared(attributes), len(self.cases)))
        elif tag in ("error", "failure") and len(self._suites) == self._depth - 1:
            self._case, self._found, self._is_suite = {"name": self._named("suite")}, {}, True
            self._start_trouble(tag, attributes)

    def _start_trouble(self, tag: str, attributes: dict[str, str]) -> None:
        if tag in self._TROUBLE and self._open is None:
            self._open = self._found.setdefault(tag, [attributes.get("message", "")])

    def data(self, text: str) -> None:
        if self._open is not None:
            self._open.append(text)

    def end(self, tag: str) -> None:
        tag = _plain(tag)
        self._depth -= 1
        if tag in self._TROUBLE:
            self._open = None
        if self._case is not None and (tag == "testcase" or (self._is_suite and tag in ("error", "failure"))):
            self.cases.append(self._made(self._case))
            self._case, self._is_suite = None, False
        elif tag in {"testsuites", "testsuite"} and self._case is None:
            self._end_suite(self._suites[-1])
            self._suites.pop()

    def _end_suite(self, suite: "_Suite") -> None:
        """A suite that says of itself that tests failed, and shows none of them, is not taken for green."""
        if suite.red and not any(case.status in ("failed", "errored") for case in self.cases[suite.begin :]):
            message = f"the suite says that {suite.red} failed, and shows none of them"
            self.cases.append(TestCase(self._named("suite"), self._named(""), "errored", 0.0, message))

    def _named(self, unnamed: str) -> str:
        """The name of the nearest suite that has one."""
        return next((_short(suite.name) for suite in reversed(self._suites) if suite.name), unnamed)

    def _made(self, attributes: dict[str, str]) -> TestCase:
        worst = next((tag for tag in ("error", "failure", "skipped") if tag in self._found), None)
        said: Status = next((self._SAID[word] for word in _words(attributes) if word in self._SAID), "passed")
        return TestCase(
            name=_short(attributes.get("name") or "unnamed"),
            suite=_short(attributes.get("classname") or self._named("")),
            status=said if worst is None else self._TROUBLE[worst],
            seconds=_seconds(attributes.get("time", "")),
            message="" if worst is None else _message(*self._found[worst]),
        )

    def close(self) -> None:
        """The parser asks for a result at the end; the cases are it."""


@dataclass(frozen=True, slots=True)
class _Suite:
    """A suite that is open: its name, how many of its tests it says failed, and how many cases came before it."""

    name: str
    red: int
    begin: int


def _declared(attributes: dict[str, str]) -> int:
    counts = (attributes.get(name, "") for name in ("failures", "errors"))
    return sum(int(count) for count in counts if re.fullmatch(r"\d{1,9}", count, re.ASCII))


def _words(attributes: dict[str, str]) -> tuple[str, str]:
    """What a case without trouble says of itself, as GoogleTest, CTest and Behave do."""
    return attributes.get("status", "").lower(), attributes.get("result", "").lower()


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…"


def _plain(tag: str) -> str:
    """The tag without a namespace."""
    return tag.rpartition("}")[2]


def _seconds(text: str) -> float:
    """A time as JUnit files write it (`0.012`, `1,234.5`); 0 for what is no finite, positive number."""
    if re.fullmatch(r"[1-9]\d{0,2}(,\d{3})+(\.\d+)?", text):
        text = text.replace(",", "")
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return seconds if 0 <= seconds < math.inf else 0.0


def _message(summary: str, *pieces: str) -> str:
    """The summary, then the text where it says more; at most `MAX_MESSAGE` characters."""
    text = "".join(pieces).strip()
    summary = summary.strip()
    whole = text if not summary or text.startswith(summary) else f"{summary}\n{text}".rstrip()
    cut = len(whole) - MAX_MESSAGE
    return whole if cut <= 0 else f"{whole[:MAX_MESSAGE]}… ({cut} more characters)"


# --- results as pytest tells them ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heard:
    """What one session of pytest told: its tests, and its exit code where it came to its end.

    `whole` says that nothing else failed and nothing was left out, so that these tests explain a red exit code.
    """

    report: TestReport
    exit_code: int | None
    whole: bool


def parse_results(data: bytes) -> Heard:
    """The lines of Penstock's plugin for pytest: a list per test, and an object at the end.

    A line that is none of these, as the last one of a killed process, is passed over, and then nothing is whole.
    """
    cases: list[TestCase] = []
    exit_code, whole = None, True
    for line in data.decode("utf-8", "replace").splitlines():
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        case = _heard_case(found)
        if case is not None:
            cases.append(case)
        elif isinstance(found, dict) and type(found.get("exit")) is int:
            exit_code, whole = found["exit"], whole and found.get("whole") is True
        else:
            whole = False
    return Heard(TestReport(tuple(cases)), exit_code, whole and exit_code is not None)


def _heard_case(found: Any) -> TestCase | None:
    """A test of a line `[suite, name, status, seconds, message]`."""
    match found:
        case [str(suite), str(name), "passed" | "failed" | "errored" | "skipped" as status, float(seconds), str(why)]:
            taken = seconds if 0 <= seconds < math.inf else 0.0
            return TestCase(_short(_utf8(name)), _short(_utf8(suite)), status, taken, _utf8(why[:MAX_MESSAGE]))
        case _:
            return None


def _utf8(text: str) -> str:
    """The text with a question mark for each half of a character, which JSON can write and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


# --- numbers -------------------------------------------------------------------------------------------------------


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it was written, so that a name that stands there twice is seen."""


def parse_metrics(data: bytes, file: str) -> dict[str, float]:
    """The numbers of a JSON object, nested names joined by dots (`{"train": {"loss": 1}}` is `train.loss`).

    Raises ReportError, naming the metric, for what is no finite number (text, true, null, a list, NaN, Infinity) and
    for a name that comes twice.
    """
    return _numbers(_parse_json(data, file), file)


_STATISTICS = ("min", "max", "mean", "median", "stddev")


def parse_benchmark(data: bytes, file: str) -> dict[str, float]:
    """The numbers of a benchmark: plain JSON as in `parse_metrics`, or a file of pytest-benchmark.

    Of the latter each benchmark gives `NAME.median_ms`, `NAME.mean_ms`, `NAME.min_ms`, `NAME.max_ms` and
    `NAME.stddev_ms`: milliseconds, where the file has seconds. In plain JSON a list of numbers is the rounds of a
    benchmark, and gives `NAME.median`, `NAME.mean`, `NAME.min` and `NAME.max`, in its own unit. Raises ReportError as
    `parse_metrics` does.
    """
    value = _parse_json(data, file)
    benchmarks = _benchmarks(value)
    if benchmarks is None:
        return _numbers(value, file, _summarised)
    return _numbers(_Pairs(_timings(benchmarks, file)), file)


def benchmark_rounds(data: bytes, file: str) -> dict[str, list[float]]:
    """The rounds of each benchmark of such a file that has them, by its name: seconds of pytest-benchmark's.

    Raises ReportError for a file that is none, and for rounds that are no finite numbers.
    """
    value = _parse_json(data, file)
    benchmarks = _benchmarks(value)
    found = _flat(value, "", file) if isinstance(value, _Pairs) and benchmarks is None else ()
    pairs = found if benchmarks is None else _recorded(benchmarks)
    lists = {name: rounds for name, rounds in pairs if isinstance(rounds, list) and rounds}
    for name, rounds in lists.items():
        if not _are_numbers(rounds):
            raise ReportError(f"{file}: the rounds of {name!r} are not all finite numbers: mend them or leave them out")
    return lists


def _benchmarks(value: Any) -> list[Any] | None:
    """The benchmarks of a file of pytest-benchmark; None for plain JSON."""
    found = dict(value).get("benchmarks") if isinstance(value, _Pairs) else None
    return found if isinstance(found, list) and not isinstance(found, _Pairs) else None


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(n, float) and math.isfinite(n) for n in value)


def _summarised(pairs: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """The numbers of plain JSON, with the summaries of lists of numbers in their places."""
    for name, value in pairs:
        if not value or not _are_numbers(value):
            yield name, value
            continue
        mean = math.fsum(number / len(value) for number in value)
        summaries = {"median": median(value), "mean": mean, "min": min(value), "max": max(value)}
        yield from ((f"{name}.{word}", made) for word, made in summaries.items())


def _recorded(benchmarks: list[Any]) -> Iterator[tuple[str, Any]]:
    for benchmark in benchmarks:
        fields = dict(benchmark) if isinstance(benchmark, _Pairs) else {}
        stats = fields.get("stats")
        if isinstance(stats, _Pairs) and isinstance(fields.get("name"), str):
            yield fields["name"], dict(stats).get("data")


def _timings(benchmarks: list[Any], file: str) -> Iterator[tuple[str, Any]]:
    for number, benchmark in enumerate(benchmarks, start=1):
        fields = dict(benchmark) if isinstance(benchmark, _Pairs) else {}
        name, stats = fields.get("name"), fields.get("stats")
        if not isinstance(name, str) or not isinstance(stats, _Pairs):
            raise ReportError(f"{file}: benchmark {number} has no name or no stats: is this a pytest-benchmark file?")
        known = dict(stats)
        yield name, _Pairs((f"{s}_ms", _milliseconds(known[s])) for s in _STATISTICS if s in known)


def _milliseconds(value: Any) -> Any:
    return value * 1000 if isinstance(value, float) else value


def _parse_json(data: bytes, file: str) -> Any:
    _check_size(data, file)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ReportError(f"{file}:{line}: this is no UTF-8 text") from error
    try:
        return json.loads(text, object_pairs_hook=_Pairs, parse_int=float, parse_constant=float)
    except json.JSONDecodeError as error:
        raise ReportError(f"{file}:{error.lineno}: this is no JSON: {_reason(error).lower()}") from error
    except RecursionError as error:
        raise ReportError(f"{file}: objects or lists are nested too deep") from error


Named = Iterable[tuple[str, Any]]


def _numbers(value: Any, file: str, of: Callable[[Named], Named] = iter) -> dict[str, float]:
    if not isinstance(value, _Pairs):
        raise ReportError(f"{file}: expected a JSON object of numbers, found {_found(value)}")
    numbers: dict[str, float] = {}
    for name, number in of(_flat(value, "", file)):
        if name in numbers:
            raise ReportError(f"{file}: {name!r} is there twice: leave one out")
        if not isinstance(number, float) or not math.isfinite(number):
            raise ReportError(
                f"{file}: {name!r} is {_found(number)}, expected a finite number: mend it or leave it out"
            )
        numbers[name] = number
        if len(numbers) > MAX_NUMBERS:
            raise ReportError(f"{file}: more than {MAX_NUMBERS} numbers are too many to keep")
    return numbers


def _flat(pairs: _Pairs, prefix: str, file: str) -> Iterator[tuple[str, Any]]:
    if prefix.count(".") > MAX_DEPTH:
        raise ReportError(f"{file}: objects are nested more than {MAX_DEPTH} deep")
    for key, value in pairs:
        if not key.strip() or not key.isprintable() or len(key) > 200:
            raise ReportError(f"{file}: {key[:40]!r} cannot name a metric: use up to 200 printable characters")
        if isinstance(value, _Pairs):
            yield from _flat(value, f"{prefix}{key}.", file)
        else:
            yield prefix + key, value


def _found(value: Any) -> str:
    """A JSON value that is no object in words."""
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return "a text"
    return {"None": "null", "True": "true", "False": "false", "nan": "NaN"}.get(str(value), str(value))


def _check_size(data: bytes, file: str) -> None:
    if not data.strip():
        raise ReportError(f"{file}: the file is empty: did the step write it?")
    if len(data) > MAX_BYTES:
        raise ReportError(
            f"{file}: {len(data) >> 20} MiB are too much for a report: the limit is {MAX_BYTES >> 20} MiB"
        )
