"""Recorded requests: what a server was asked, what the answer should be, and how well it answers now.

A file of them is JSON Lines, one request a line; only `path` is required:
`{"method": "POST", "path": "/predict", "json": …, "headers": {…}, "answer": …, "status": 200, "id": "…"}`. It may be
hostile or cut short: what cannot be read raises ReportError, in one sentence that begins with file and line.
"""

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.errors import ReportError

STEP = "replay"
"""The planned step that asks the recorded requests; its metrics are `replay.NAME`."""
SYNTHETIC = "x-penstock-synthetic"
"""The header of requests that are asked where nobody calls, so that who serves, routes or counts can tell them."""
NAMES = ("requests", "agreement", "errors", "p50_ms", "p90_ms", "p99_ms", "memory_mib")
"""What is measured, by the names that metrics have."""
ABSENT: Mapping[str, str] = {
    f"{STEP}.agreement": "no recorded request has an answer to agree with",
    f"{STEP}.memory_mib": "the memory of what serves cannot be told, as in a container",
    **{f"{STEP}.p{percent}_ms": "no request was answered" for percent in (50, 90, 99)},
}
"""Why a metric may be absent after a replay."""
SEEN: Mapping[str, str] = {
    f"{STEP}.agreement": f"the log of {STEP} shows what was expected and what came",
    f"{STEP}.errors": f"the log of {STEP} shows what came",
}
"""Where to look after a gate on a metric has failed."""
SHOWN = 10
"""Requests that are told of where something was wrong with them."""

MAX_BYTES = 64 << 20
MAX_REQUESTS = 100_000
_KEYS = ("method", "path", "json", "body", "headers", "answer", "status", "id")
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection"})
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_PATH = re.compile(r"/(?!/)[!-~]{0,8000}")


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded request. `answer` is JSON or text, of meaning only where one `has_answer`; `status` None is any 2xx.

    `line` is counted from 1; `headers` are by their written names, without those that every request has.
    """

    line: int
    path: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    has_answer: bool = False
    answer: Any = None
    status: int | None = None
    id: str = ""

    @property
    def name(self) -> str:
        """What a person finds it by."""
        return f"line {self.line}{f' ({_short(self.id)})' if self.id else ''}: {self.method} {_short(self.path)}"

    def expects(self, status: int) -> bool:
        """Whether this is the status that it should be answered with."""
        return status == self.status if self.status is not None else 200 <= status < 300


# --- the file ------------------------------------------------------------------------------------------------------


def parse_recordings(data: bytes, file: str) -> tuple[Recording, ...]:
    """The requests of a file, in its order; blank lines are passed over. Raises ReportError for what is none."""
    if len(data) > MAX_BYTES:
        raise ReportError(f"{file}: {len(data) >> 20} MiB of requests are too many: the limit is {MAX_BYTES >> 20} MiB")
    if data.startswith(b"version https://git-lfs"):
        raise ReportError(f"{file}: this is a Git LFS pointer, not the requests: commit the file itself")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ReportError(f"{file}:{line}: this is no UTF-8 text") from error
    lines = enumerate(text.split("\n"), start=1)
    found = tuple(_recording(line, row, f"{file}:{line}") for line, row in lines if row.strip())
    if not found:
        raise ReportError(f'{file}: the file holds no request: write one a line, such as {{"path": "/predict"}}')
    if len(found) > MAX_REQUESTS:
        raise ReportError(f"{file}: {len(found):,} requests are too many: the limit is {MAX_REQUESTS:,}")
    return found


def _recording(line: int, row: str, where: str) -> Recording:
    values = _object(row, where)
    has_body = "json" in values or "body" in values
    return Recording(
        line=line,
        path=_matching(values, "path", _PATH, where, 'a path that begins with one "/", such as /predict'),
        method=_method(values, "POST" if has_body else "GET", where),
        headers=_headers(values, where),
        body=_body(values, where),
        has_answer="answer" in values,
        answer=values.get("answer"),
        status=_status(values, where),
        id=_text(values, "id", where),
    )


def _object(row: str, where: str) -> dict[str, Any]:
    try:
        values = json.loads(row)
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{where}: this is no JSON: {_reason(error)}") from error
    if not isinstance(values, dict):
        raise ReportError(f"{where}: expected a JSON object with a path, found {shown(values)}")
    unknown = [key for key in values if key not in _KEYS]
    if unknown:
        raise ReportError(f"{where}: unknown key {shown(unknown[0])}: a request has {', '.join(_KEYS)}")
    if "json" in values and "body" in values:
        raise ReportError(f"{where}: expected either json or body, found both")
    return values


def _reason(error: Exception) -> str:
    return "it is nested too deep" if isinstance(error, RecursionError) else str(error).partition(":")[0].lower()


def _matching(values: Mapping[str, Any], key: str, pattern: re.Pattern[str], where: str, expected: str) -> str:
    if key not in values:
        raise ReportError(f"{where}: {key} is missing: expected {expected}")
    value = values[key]
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ReportError(f"{where}: {key} is {shown(value)}: expected {expected}")
    return value


def _method(values: Mapping[str, Any], default: str, where: str) -> str:
    if "method" not in values:
        return default
    return _matching(values, "method", re.compile(r"(?!CONNECT$)[A-Z]{1,20}"), where, "a method such as GET or POST")


def _headers(values: Mapping[str, Any], where: str) -> tuple[tuple[str, str], ...]:
    headers = values.get("headers", {})
    if not isinstance(headers, dict):
        raise ReportError(f"{where}: headers is {shown(headers)}: expected an object of texts")
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or not isinstance(value, str) or not re.fullmatch(r"[\t -~\x80-\xff]*", value):
            raise ReportError(f"{where}: the header {shown(name)} cannot be sent: expected a name and a text of a line")
        if name.lower() in _OURS:
            raise ReportError(f"{where}: the header {name} is set by Penstock: leave it out")
    known = {name.lower() for name in headers}
    plain = {"Content-Type": "application/json"} if "json" in values and "content-type" not in known else {}
    return tuple({**plain, **headers}.items())


def _body(values: Mapping[str, Any], where: str) -> bytes | None:
    if "json" in values:
        return json.dumps(values["json"], separators=(",", ":")).encode()
    return _text(values, "body", where).encode("utf-8", "surrogatepass") if "body" in values else None


def _text(values: Mapping[str, Any], key: str, where: str) -> str:
    value = values.get(key, "")
    if not isinstance(value, str):
        way = ' (a value is sent as JSON by "json" instead)' if key == "body" else ""
        raise ReportError(f"{where}: {key} is {shown(value)}: expected a text{way}")
    return value


def _status(values: Mapping[str, Any], where: str) -> int | None:
    value = values.get("status")
    if value is not None and (type(value) is not int or not 200 <= value <= 599):
        raise ReportError(f"{where}: status is {shown(value)}: expected a number from 200 to 599")
    return value


# --- agreement -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two answers differ: a JSON path such as `$.scores[3]`, both values, and by how much two numbers do.

    `needed` is the tolerance at which they would agree, infinite where none would do.
    """

    path: str
    expected: str
    found: str
    by: float | None = None
    needed: float = math.inf

    def __str__(self) -> str:
        much = "" if self.by is None else f", off by {self.by:.3g}"
        return f"at {self.path} expected {self.expected}, came {self.found}{much}"


def difference(expected: Any, found: Any, tolerance: float) -> Difference | None:
    """The worst difference of two JSON values, the first of equally bad ones; None where they agree.

    Numbers agree where |a - b| ≤ tolerance · max(1, |a|, |b|); NaN agrees with NaN. All else must be exactly the same:
    texts, booleans, keys, lengths of lists.
    """
    worst: Difference | None = None
    queue = [("$", expected, found)]
    while queue:
        path, one, other = queue.pop()
        pairs, here = _compared(path, one, other, tolerance)
        queue.extend(pairs)
        if here is not None and (worst is None or here.needed > worst.needed):
            worst = here
    return worst


_Pairs = list[tuple[str, Any, Any]]


def _compared(path: str, one: Any, other: Any, tolerance: float) -> tuple[_Pairs, Difference | None]:
    """What is inside both of two values, and how they differ themselves."""
    if isinstance(one, dict) and isinstance(other, dict):
        inner = [(f"{path}{_key(key)}", one[key], other[key]) for key in reversed(one) if key in other]
        return inner, _keys_apart(path, one, other)
    if isinstance(one, list) and isinstance(other, list):
        inner = [(f"{path}[{n}]", one[n], other[n]) for n in reversed(range(min(len(one), len(other))))]
        same = len(one) == len(other)
        return inner, None if same else Difference(path, f"a list of {len(one):,}", f"a list of {len(other):,}")
    if _is_number(one) and _is_number(other):
        return [], _numbers_apart(path, one, other, tolerance)
    same = type(one) is type(other) and one == other
    return [], None if same else Difference(path, shown(one), shown(other))


def _key(key: str) -> str:
    return f".{key}" if re.fullmatch(r"[A-Za-z_]\w{0,99}", key) else f"[{_short(json.dumps(key))}]"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_nan(value: float) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _keys_apart(path: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> Difference | None:
    for key in one:
        if key not in other:
            return Difference(f"{path}{_key(key)}", shown(one[key]), "nothing")
    more = next((key for key in other if key not in one), None)
    return None if more is None else Difference(f"{path}{_key(more)}", "nothing", shown(other[more]))


def _numbers_apart(path: str, one: float, other: float, tolerance: float) -> Difference | None:
    if one == other or (_is_nan(one) and _is_nan(other)):
        return None
    try:
        apart, scale = float(abs(one - other)), float(max(1.0, abs(one), abs(other)))
    except OverflowError:  # whole numbers beyond all fractions: exactly the same, or not at all
        apart, scale = math.inf, 1.0
    if not math.isfinite(apart):
        return Difference(path, shown(one), shown(other))
    needed = apart / scale
    if needed <= tolerance or apart <= tolerance * scale:  # either may be off by a last digit
        return None
    return Difference(path, shown(one), shown(other), apart, needed)


def answered(recording: Recording, body: bytes, tolerance: float) -> Difference | None:
    """How an answer differs from the recorded one; None where it agrees, or none was recorded.

    A recorded text agrees with exactly this body, and with the JSON of the text.
    """
    if not recording.has_answer:
        return None
    expected = recording.answer
    text = body.decode("utf-8", "replace")
    if isinstance(expected, str) and text == expected:
        return None
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        what = shown(text) if isinstance(expected, str) else f"no JSON: {shown(text)}"
        return Difference("$", shown(expected), what)
    return difference(expected, found, tolerance)


def shown(value: Any) -> str:
    """A JSON value as a person reads it, on one line of at most 80 characters."""
    if isinstance(value, list) and len(value) > 20:
        return _short(f"a list of {len(value):,}: {json.dumps(value[:20], ensure_ascii=False)}")
    return _short(json.dumps(value, ensure_ascii=False))


def _short(text: str) -> str:
    """At most 80 characters of a text, on one line, none of which does something to a terminal."""
    line = " ".join(text[:1000].split())
    line = line if len(line) <= 80 else f"{line[:79]}…"
    return "".join(c if c.isprintable() else "�" for c in line)


# --- what became of the requests -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server sent: `status` and body; where nothing whole came the status is None and `fault` says why."""

    status: int | None
    body: bytes = b""
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request, however often it was asked.

    `fault` says how an answer was none, or had another status; `difference` is the worst of answers that came.
    """

    recording: Recording
    fault: str = ""
    difference: Difference | None = None

    @property
    def agrees(self) -> bool:
        return not self.fault and self.difference is None

    def joined(self, later: "Outcome") -> "Outcome":
        """Both together: a request is as good as its worst answer."""
        found = [o.difference for o in (self, later) if o.difference is not None]
        worst = max(found, key=lambda d: d.needed, default=None)
        return Outcome(self.recording, self.fault or later.fault, worst)


def judged(recording: Recording, reply: Reply, tolerance: float) -> Outcome:
    """What a reply is to a recorded request."""
    if reply.status is None:
        return Outcome(recording, reply.fault or "not answered")
    if not recording.expects(reply.status):
        wanted = "2xx" if recording.status is None else str(recording.status)
        said = reply.body[:1000].decode("utf-8", "replace")
        return Outcome(recording, f"expected status {wanted}, came {reply.status}: {shown(said)}")
    return Outcome(recording, "", answered(recording, reply.body, tolerance))


def measured(outcomes: Collection[Outcome], milliseconds: Sequence[float], mib: float | None) -> dict[str, float]:
    """The metrics of a replay by name; what nothing tells is absent.

    `milliseconds` are those of answered requests, in any order; `mib` is the memory that the server took at most.
    """
    asked = [o for o in outcomes if o.recording.has_answer]
    found = {"requests": float(len(outcomes)), "errors": sum(bool(o.fault) for o in outcomes) / len(outcomes)}
    if asked:
        found["agreement"] = sum(o.agrees for o in asked) / len(asked)
    if milliseconds:
        ordered = sorted(milliseconds)
        found.update({f"p{percent}_ms": quantile(ordered, percent / 100) for percent in (50, 90, 99)})
    if mib is not None:
        found["memory_mib"] = mib
    return found


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which this share of ascending values lies, between two of them in proportion.

    It is the seventh definition of Hyndman and Fan (1996), as of numpy and most spreadsheets.
    """
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def summary(outcomes: Collection[Outcome]) -> str | None:
    """What was wrong with a replay, in a few words; None where nothing was."""
    faults = sum(bool(o.fault) for o in outcomes)
    apart = sum(o.difference is not None for o in outcomes)
    whole = len(outcomes)
    words = [f"{apart} of {whole} answers disagree"] if apart else []
    words += [f"{faults} of {whole} requests were not answered as expected"] if faults else []
    return ", ".join(words) or None


def told(outcomes: Collection[Outcome]) -> Iterator[str]:
    """The first requests with which something was wrong, each with what: lines for a log."""
    wrong = [o for o in outcomes if not o.agrees]
    for outcome in wrong[:SHOWN]:
        yield outcome.recording.name
        yield from (f"  {words}" for words in (outcome.fault, outcome.difference) if words)
    if len(wrong) > SHOWN:
        yield f"and {len(wrong) - SHOWN} more"
