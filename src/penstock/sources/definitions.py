"""`penstock.yaml` → Pipeline, or every problem of the file at once, each with line and column.

The way: bytes → nodes that know their place (`documents.py`) → plain data → the models of `pipelines.py` →
`flaws.py`. A problem of YAML itself ends the way; after any other the value is set aside and the rest is read on.
"""

import difflib
import gc
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from penstock.environments import (
    ApprovalRules,
    Certificate,
    ConfigFile,
    Deploy,
    DriftRules,
    MetricQuestion,
    Migrate,
    ProbeRules,
    Reserved,
    RolloutRules,
    StickyUsers,
    WatchRules,
)
from penstock.errors import PipelineError, Problem
from penstock.flaws import MAX_STEPS, flaws
from penstock.outlines import Flaw, Where
from penstock.parts import (
    Check,
    Concurrency,
    EvidenceFiles,
    Gpu,
    Matrix,
    Part,
    Push,
    Quarantine,
    RecordedRequests,
    Resources,
    Retry,
    Runtime,
    Triggers,
    When,
)
from penstock.pipelines import (
    HIDDEN,
    LATER,
    BaselineName,
    Environment,
    Gate,
    Package,
    Pipeline,
    Slicing,
    Step,
    json_schema,
    keys_of,
)
from penstock.rules import BASELINES, COMPARING, WHOLES
from penstock.sources.documents import MAX_BYTES as MAX_BYTES  # noqa: PLC0414 - for those who read the file
from penstock.sources.documents import Listing, Node, Scalar, Table, nodes_of, refuse
from penstock.values import described, shortened

MAX_ENTRIES = 2_000
"""Keys of one mapping; there can be more steps."""
MAX_PROBLEMS = 100
"""So many are told at once; then their number only."""


def load(data: bytes, file: str) -> Pipeline:
    """The pipeline of a file's bytes; `file` is its name for sentences.

    Its matrices are not expanded: that is `matrices.expand`. Raises PipelineError with all problems, and nothing else
    whatever the bytes.
    """
    with _undisturbed():
        reading = _Reading(file, *nodes_of(data, file))
        pipeline = reading.pipeline()
        problems = reading.problems()
    if pipeline is None or problems:
        raise PipelineError(problems)
    return pipeline


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Looking for cycles among many values without one would take half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the file, for editors; built of dict, list, str, numbers and bool."""
    return json_schema()


# --- nodes to a pipeline -------------------------------------------------------------------------------------------


def _gate_parts() -> dict[Where, type[Part]]:
    """A gate's mappings, also of gates within all_of and any_of, two levels deep."""
    own: dict[Where, type[Part]] = {(): Gate, ("slices",): Slicing, **{(key,): BaselineName for key in COMPARING}}
    levels: list[Where] = [(), *((way, "*") for way in WHOLES), *((a, "*", b, "*") for a in WHOLES for b in WHOLES)]
    return {("gates", "*", *level, *key): part for level in levels for key, part in own.items()}


_PARTS: Mapping[Where, type[Part]] = {
    (): Pipeline,
    ("on",): Triggers,
    ("on", "push"): Push,
    ("runtime",): Runtime,
    ("steps", "*"): Step,
    ("steps", "*", "evidence"): EvidenceFiles,
    ("steps", "*", "quarantine", "*"): Quarantine,
    ("steps", "*", "resources"): Resources,
    ("steps", "*", "resources", "gpu"): Gpu,
    ("steps", "*", "retry"): Retry,
    ("steps", "*", "when"): When,
    ("steps", "*", "matrix"): Matrix,
    ("package",): Package,
    ("package", "requests"): RecordedRequests,
    **_gate_parts(),
    ("environments", "*"): Environment,
    ("environments", "*", "resources"): Reserved,
    ("environments", "*", "resources", "gpu"): Gpu,
    ("environments", "*", "deploy"): Deploy,
    ("environments", "*", "config"): ConfigFile,
    ("environments", "*", "config", "*"): ConfigFile,
    ("environments", "*", "approval"): ApprovalRules,
    ("environments", "*", "sticky"): StickyUsers,
    ("environments", "*", "tls"): Certificate,
    ("environments", "*", "migrate"): Migrate,
    ("environments", "*", "probe"): ProbeRules,
    ("environments", "*", "rollout"): RolloutRules,
    ("environments", "*", "rollout", "metrics", "*"): MetricQuestion,
    ("environments", "*", "drift"): DriftRules,
    ("environments", "*", "watch"): WatchRules,
    ("check",): Check,
    ("concurrency",): Concurrency,
}
_DEEPEST = max(map(len, _PARTS))
_NOUNS: Mapping[type[Part], str] = {
    Pipeline: "the file",
    Step: "a step",
    Gate: "a gate",
    Environment: "an environment",
    EvidenceFiles: "evidence",
    RecordedRequests: "requests",
    Slicing: "slices",
    Quarantine: "a quarantine",
    Retry: "retry",
    Concurrency: "concurrency",
    ApprovalRules: "approval",
    StickyUsers: "sticky",
    Certificate: "tls",
    Migrate: "migrate",
    ProbeRules: "probe",
    RolloutRules: "rollout",
    MetricQuestion: "a metric",
    DriftRules: "drift",
    WatchRules: "watch",
    ConfigFile: "config",
    Deploy: "deploy",
}
_NAMED = ("steps", "gates", "environments")
_LARGE = 5_000
"""A file of more values is read step by step: slower, but it can be given up where nothing is right."""
_ROUNDS = 20
"""So often is the file tried again without what was wrong: a few rounds do, more would be a fault of ours."""


class _Reading:
    """One file being read: what stands where, what was found wrong, and what was therefore set aside."""

    def __init__(self, file: str, root: Node, problems: Iterable[Problem]) -> None:
        self._file = file
        self._root = root
        self._problems = list(problems)
        self._refused = {
            part: LATER.get(part, frozenset()) | (HIDDEN.get(part, frozenset()) - {"axes"}) for part in _PARTS.values()
        }
        self._flaws: list[Flaw] = []
        self._aside: set[Where] = set()
        self._partly = False

    def pipeline(self) -> Pipeline | None:
        """The pipeline without what is wrong, as far as it can be made; whole where `problems` is empty."""
        root = self._root
        if not isinstance(root, Table):
            found = described(self._value(()))
            refuse(self._file, root.line, root.column, f"expected keys such as name and steps, found {found}")
        _refuse_too_many(self._file, root)
        data = self._table(root, ())
        if root.size > _LARGE and not self._read_steps(data):
            return None
        for _ in range(_ROUNDS):
            try:
                pipeline = Pipeline.model_validate(data)
            except ValidationError as error:
                for details in error.errors(include_url=False):
                    self._set_aside(data, details)
            else:
                self._flaws += [flaw for flaw in flaws(pipeline) if not self._follows(flaw)]
                return pipeline
        self._partly = True
        return None

    def _read_steps(self, data: dict[str, Any]) -> bool:
        """Put the steps of a large file in the place of their data, one by one; whether all of them were looked at.

        After very many problems the rest is not, so that no file has more of them than there is time for.
        """
        found = data.get("steps")
        steps = found if isinstance(found, dict) else {}
        for name in list(steps):
            for _ in range(_ROUNDS):
                if not isinstance(steps.get(name), dict):
                    break
                try:
                    steps[name] = Step.model_validate({**steps[name], "name": name})
                except ValidationError as error:
                    for details in error.errors(include_url=False):
                        details["loc"] = ("steps", name, *details["loc"])
                        self._set_aside(data, details)
            if len(self._flaws) > MAX_PROBLEMS:
                self._partly = True
                return False
        return True

    def problems(self) -> list[Problem]:
        """Every problem in order, with its hint, up to MAX_PROBLEMS."""
        placed = {(*self._find(flaw), flaw.sentence): flaw for flaw in self._flaws}
        placed |= {(p.line, p.column, p.sentence): Flaw((), p.sentence) for p in self._problems}
        rows = sorted(placed.items(), key=lambda row: row[0][:2])
        every = [Problem(self._file, line, column, _sentence(flaw)) for (line, column, _), flaw in rows[:MAX_PROBLEMS]]
        left = len(rows) - MAX_PROBLEMS
        if left <= 0:
            return every
        last, count = every[-1], "many" if self._partly else f"{left:,}"
        more = Problem(self._file, last.line, last.column, f"and {count} more problems: mend these first")
        return [*every, more]

    # --- plain data

    def _table(self, table: Table, where: Where) -> dict[str, Any]:
        """The mapping as pydantic takes it; what has no value is a flaw and left out."""
        part = _part_at(where)
        refused = self._refused[part] if part is not None else ()
        if len(table.entries) > MAX_ENTRIES and where != ("steps",):
            sentence = f"expected at most {MAX_ENTRIES:,} keys here, found {len(table.entries):,}"
            refuse(self._file, table.line, table.column, sentence)
        written = _is_written(where)
        plain: dict[str, Any] = {}
        for key, (_, node) in table.entries.items():
            if key in refused:
                self._add(self._unknown((*where, key)))
            elif node.refused:
                self._set((*where, key))
            elif isinstance(node, Table):
                plain[key] = self._table(node, (*where, key))
            elif isinstance(node, Listing):
                plain[key] = self._list(node, (*where, key))
            elif node.value is None:
                self._add(self._without_value((*where, key)))
            else:
                plain[key] = node.text if written and not isinstance(node.value, str) else node.value
        return plain

    def _list(self, listing: Listing, where: Where) -> list[Any]:
        return [self._item(item, (*where, n)) for n, item in enumerate(listing.items)]

    def _item(self, item: Node, where: Where) -> Any:
        if item.refused:
            self._set(where)
            return _placeholder(where)
        if isinstance(item, Table):
            return self._table(item, where)
        if isinstance(item, Listing):
            return self._list(item, where)
        if item.value is None:
            self._add(Flaw(where, "this entry of the list has no value: give it one, or take it out"))
            return _placeholder(where)
        return item.text if not isinstance(item.value, str) and _is_written(where[:-1]) else item.value

    def _without_value(self, where: Where) -> Flaw:
        part = _part_at(where[:-1])
        if part is not None and part is not Matrix and where[-1] not in keys_of(part):
            return self._unknown(where)
        return Flaw(where, f'"{shortened(str(where[-1]))}" has no value: give it one, or take the key out')

    # --- what pydantic found

    def _set(self, where: Where) -> None:
        """Note that a value is set aside; a matrix that lacks one is not judged as a whole."""
        self._aside.add(where)
        if where[2:3] == ("matrix",):
            self._aside.add(where[:3])

    def _add(self, flaw: Flaw) -> None:
        self._set(flaw.where if flaw.lacking is None else flaw.lacking)
        self._flaws.append(flaw)

    def _set_aside(self, data: Any, details: ErrorDetails) -> None:
        """Keep a finding as a flaw, and take its value out of the data so that the rest can be read."""
        where: Where = tuple(details["loc"])
        if where[2:4] == ("matrix", "axes"):  # they stand beside include and exclude in the file
            where = (*where[:3], *where[4:])
        if where[2:4] == ("config", 0) and isinstance(self._walk(where[:3])[1], Table):  # one without a list
            self._set(where)
            where = (*where[:3], *where[4:])
        if details["type"] == "missing":
            if where not in self._aside:
                self._add(self._missing(where))
            _fill(data, where)
            return
        if where[-1] == "[key]":
            where = where[:-1]
            self._add(Flaw(where, details["msg"], at_key=True))
        elif details["type"] == "extra_forbidden":
            self._add(self._unknown(where))
        else:
            self._add_wrong(where, details)
        self._set(_remove(data, where))

    def _add_wrong(self, where: Where, details: ErrorDetails) -> None:
        context = details.get("ctx", {})
        if details["type"] == "too_short":
            node = self._walk(where)[1]
            if isinstance(node, Scalar) or node.size == 1:  # else its entries were wrong, and that is told
                self._add(Flaw(where, "expected at least one entry, found none", at_key=True))
        elif details["type"] != "penstock":
            value = self._value(where)
            choices = tuple(_choices(context.get("expected", "")))
            word = value if isinstance(value, str) and choices else ""
            self._add(Flaw(where, f"expected {_expected(where, details)}, found {described(value)}", word, choices))
        elif self._lost(where, context["lacks"]):
            self._set(where)
        elif context["at"] is not None:
            self._add(Flaw((*where, context["at"]), context["sentence"], at_key=True))
        else:
            self._add(Flaw(where, context["sentence"], at_key=isinstance(self._value(where), dict)))

    def _lost(self, where: Where, keys: tuple[str, ...]) -> bool:
        """Whether one of the keys that a mapping is said to lack stands in the file and was set aside."""
        if "*" in keys:
            return any(gone[:-1] == where for gone in self._aside)
        return any((*where, key) in self._aside for key in keys)

    def _missing(self, where: Where) -> Flaw:
        part = _part_at(where[:-1])
        noun = _NOUNS.get(part, "it") if part is not None else "it"
        return Flaw(where[:-1], f'"{where[-1]}" is missing: {noun} needs it', at_key=True, lacking=where)

    def _unknown(self, where: Where) -> Flaw:
        part, key = _part_at(where[:-1]), str(where[-1])
        if part is not None and key in LATER.get(part, ()):
            return Flaw(where, f'"{key}" is not available yet', at_key=True)
        known = keys_of(part) if part is not None else ()
        if len(self._flaws) < MAX_PROBLEMS and (meant := _nearest(key, known)):
            self._aside.add((*where[:-1], meant))
        inside = ".".join(map(str, where[:-1])) or "the file"
        return Flaw(where, f'unknown key "{shortened(key)}" in {shortened(inside)}', key, known, at_key=True)

    def _follows(self, flaw: Flaw) -> bool:
        """Whether a flaw only follows from a value that was set aside, and would go with it."""
        ways = [way for way in (flaw.where, flaw.lacking) if way is not None]
        return any(way[:n] in self._aside for way in ways for n in range(1, len(way) + 1))

    # --- where things stand

    def _walk(self, where: Where) -> tuple[Node, Node, bool]:
        """The key (or the value itself in a list) and the value that a way leads to, and whether it got there."""
        key: Node = self._root
        node = key
        for step in where:
            if isinstance(node, Table) and isinstance(step, str) and step in node.entries:
                key, node = node.entries[step]
            elif isinstance(node, Listing) and isinstance(step, int) and step < len(node.items):
                key = node = node.items[step]
            elif not (isinstance(node, Table) and step == 0):  # one mapping in the place of a list of them
                return key, node, False
        return key, node, True

    def _find(self, flaw: Flaw) -> tuple[int, int]:
        key, node, arrived = self._walk(flaw.where)
        at = key if flaw.at_key or (not arrived and not isinstance(node, Scalar)) else node
        return at.line, at.column

    def _value(self, where: Where) -> Any:
        node = self._walk(where)[1]
        return node.value if isinstance(node, Scalar) else [] if isinstance(node, Listing) else {}


def _part_at(where: Where) -> type[Part] | None:
    """The model of the mapping that a way leads to."""
    if len(where) > _DEEPEST:
        return None
    named = len(where) > 1 and where[0] in _NAMED
    inside = tuple("*" if isinstance(step, int) else step for step in where[2:])
    return _PARTS.get((where[0], "*", *inside) if named else where)


def _is_written(where: Where) -> bool:
    """Whether the values that stand there are texts as written, numbers too: of variables and of a matrix."""
    return (len(where) in {1, 3} and where[-1] == "variables") or (where[2:3] == ("matrix",) and where[0] == "steps")


def _refuse_too_many(file: str, root: Table) -> None:
    """So many steps are not even looked at."""
    key, steps = root.entries.get("steps", (root, root))
    if isinstance(steps, Table) and key is not root and len(steps.entries) > MAX_STEPS:
        found = len(steps.entries)
        refuse(file, key.line, key.column, f"expected at most {MAX_STEPS:,} steps, found {found:,}")


_SOUND: Mapping[str, Any] = {
    "steps": {"placeholder": {"run": "true"}},
    "port": 1,
    "max": 1,
    "health": "http://placeholder",
    "until": "2000-01-01",
}
"""What stands for a required value that is missing, where a text will not do."""


def _placeholder(where: Where) -> Any:
    """A value for an entry of a list that was set aside, so that the others keep their places."""
    if _part_at(where) is Quarantine:
        return {"test": "placeholder", "owner": "placeholder", "reason": "placeholder", "until": _SOUND["until"]}
    return f"placeholder_{where[-1]}"


def _fill(data: Any, where: Where) -> None:
    """Put something sound where a required value is missing, unless its mapping went with a wrong name."""
    for key in where[:-1]:
        if isinstance(data, dict) and key not in data:
            return
        data = data[key]
    data[where[-1]] = _SOUND.get(str(where[-1]), "placeholder")


def _remove(data: Any, where: Where) -> Where:
    """Take a value out and say which: a short form on the way is taken out whole. An entry of a list is replaced."""
    for n, key in enumerate(where[:-1]):
        if isinstance(data, dict) and key not in data:
            return where
        if not isinstance(data[key], dict | list):
            where = where[: n + 1]
            break
        data = data[key]
    if isinstance(data, list):
        data[int(where[-1])] = _placeholder(where)
    else:
        data.pop(where[-1], None)
    return where


# --- sentences -----------------------------------------------------------------------------------------------------

_EXPECTED: Mapping[str, str] = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "dict_type": "names, each with a value",
    "model_type": "a mapping",
    "tuple_type": "a text or a list of texts",
    "greater_than": "more than {gt:g}",
    "less_than": "less than {lt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than_equal": "at most {le:g}",
}
_SHAPES: Mapping[type[Part] | None, str] = {
    Triggers: "the keys push, schedule and drift",
    Push: "a mapping such as {branches: main}, or {} for all",
    Runtime: "keys such as python and requirements",
    Step: "keys such as run and outputs",
    EvidenceFiles: "a file, or the keys predictions and truth",
    RecordedRequests: "a file, or the keys file, tolerance and repeat",
    Package: "keys such as model, code and serve",
    Gate: "keys such as metric and at_least",
    Environment: "keys such as port",
    Deploy: "the keys run, rollback, health and timeout",
    ConfigFile: "the path of a template, or a mapping with the keys template, to and as",
    StickyUsers: "the key header or cookie",
    Certificate: "the keys certificate and key",
    ApprovalRules: "true, or keys such as roles and expires",
    Migrate: "a command, or the keys run, timeout, lock_timeout and contract",
    ProbeRules: "a file of recorded requests, or keys such as requests and agreement",
    RolloutRules: "blue_green, recreate, or keys such as canary and abort_if",
    DriftRules: "a file of the package with a sample of requests, or keys such as reference and window",
    WatchRules: "a duration, or keys such as for and error_rate_at_most",
    Check: "the key exclude",
    Resources: "keys such as cpu and memory",
    Gpu: "a number of GPUs, or the keys count and type",
    Quarantine: "the keys test, owner, reason and until",
    Retry: "a number of further attempts, or keys such as max and on",
    When: "passed, failed or always, or keys such as outcome and branches",
    Matrix: "axes, each with a list of values",
    Concurrency: "keys such as group and limit",
    Slicing: "a column, a list of columns, or the keys by, judge and min_examples",
    BaselineName: BASELINES,
}
_DURATION = "a duration such as 90s, 30m or 1h30m"
_BY_KEY: Mapping[str, str] = {
    "python": 'a Python version in quotes, such as "3.11"',
    "timeout": _DURATION,
    "start_timeout": _DURATION,
    "backoff": _DURATION,
    "memory": "a size such as 2GiB or 512MiB",
    "until": "a day such as 2026-12-31",
}


def _expected(where: Where, details: ErrorDetails) -> str:
    context, kind = details.get("ctx", {}), details["type"]
    if kind == "literal_error":
        return " or ".join(_choices(context["expected"]))
    if kind == "model_type":
        return _SHAPES[_part_at(where)]
    if kind == "tuple_type" and where[-1] == "quarantine":
        return "a list of tests, each with the keys test, owner, reason and until"
    if kind in {"string_type", "float_type", "int_type", "int_from_float"} and where[-1] in _BY_KEY:
        return _BY_KEY[str(where[-1])]
    return _EXPECTED.get(kind, "another value").format_map(context)


def _choices(expected: object) -> list[str]:
    return re.findall(r"'([^']*)'", expected) if isinstance(expected, str) else []


def _sentence(flaw: Flaw) -> str:
    """A flaw's sentence with the nearest name that exists, or with those that exist."""
    if not flaw.known:
        return flaw.sentence
    if nearest := _nearest(flaw.word, flaw.known):
        return f'{flaw.sentence}: did you mean "{nearest}"?'
    if flaw.sentence.startswith("expected"):
        return flaw.sentence
    more = " …" if len(flaw.known) > 12 else ""
    return f"{flaw.sentence}: expected one of {', '.join(map(shortened, flaw.known[:12]))}{more}"


def _nearest(word: str, known: tuple[str, ...]) -> str | None:
    """The name that a wrong one was probably meant to be; among very many, only those that look alike are compared."""
    word = word[:40]
    if len(known) > 50:
        alike = (k for k in known if abs(len(k) - len(word)) <= 2 and (k[:1] == word[:1] or k[-1:] == word[-1:]))
        known = tuple(itertools.islice(alike, 20))
    return next(iter(difflib.get_close_matches(word, known, n=1)), None)
