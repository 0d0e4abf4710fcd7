"""`penstock.yaml` → Pipeline, or every problem of the file at once, each with line and column.

The way: bytes → text → YAML events, walked with limits → nodes that know their place → plain data → the models of
`pipelines.py` → `flaws.py`. A problem of YAML itself ends the way; after any other the value is set aside and the rest
is read on.
"""

import difflib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from penstock.errors import PipelineError, Problem
from penstock.flaws import Flaw, Where, flaws
from penstock.pipelines import (
    LATER,
    Check,
    Environment,
    EvidenceFiles,
    Gate,
    Package,
    Part,
    Pipeline,
    Runtime,
    Step,
    described,
    json_schema,
    shortened,
)

MAX_BYTES = 1 << 20
"""A longer file is refused; nobody needs to read more of it than one byte beyond."""
MAX_DEPTH = 100
MAX_NODES = 10_000
"""Texts, lists and mappings, each counted again wherever an alias repeats it."""
MAX_PROBLEMS = 100
"""So many are told at once; then their number only."""


def load(data: bytes, file: str) -> Pipeline:
    """The pipeline of a file's bytes; `file` is its name for sentences.

    Raises PipelineError with all problems, and nothing else whatever the bytes.
    """
    reading = _Reading(file, *_Composer(file, _decode(data, file)).compose())
    pipeline = reading.pipeline()
    problems = reading.problems()
    if pipeline is None or problems:
        raise PipelineError(problems)
    return pipeline


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the file, for editors; built of dict, list, str, numbers and bool."""
    return json_schema()


# --- bytes to text -------------------------------------------------------------------------------------------------

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def _refuse(file: str, line: int, column: int, sentence: str) -> NoReturn:
    raise PipelineError([Problem(file, line, column, sentence)])


def _decode(data: bytes, file: str) -> str:
    if len(data) > MAX_BYTES:
        _refuse(file, 1, 1, f"the file is longer than {MAX_BYTES >> 20} MiB: a pipeline file is a few kilobytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8", "replace")
        byte = f"{error.object[error.start]:#04x}"
        _refuse(file, *_place(before), f"the file is not UTF-8 (byte {byte} stands here): save it as UTF-8")
    if found := _UNPRINTABLE.search(text):
        what = f"a character that YAML forbids (U+{ord(found[0]):04X})"
        _refuse(file, *_place(text[: found.start()]), f"the file holds {what}: take it out")
    return text


def _place(before: str) -> tuple[int, int]:
    """Line and column of what comes after a text."""
    lines = re.split("\r\n|\r|\n", before)
    return len(lines), len(lines[-1]) + 1


# --- text to nodes -------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Node:
    """A value and where it stands. `size` counts it and all below it, repetitions by aliases included."""

    kind: Literal["scalar", "list", "mapping"]
    line: int
    column: int
    value: str | float | bool | None = None
    text: str = ""
    items: list["_Node"] = field(default_factory=list)
    entries: dict[str, tuple["_Node", "_Node"]] = field(default_factory=dict)
    key: "_Node | None" = None
    size: int = 1
    closed: bool = False
    refused: bool = False


class _Composer:
    """Builds nodes from events, so that no text can make the C library recurse or run on."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._text = text
        self._open: list[_Node] = []
        self._anchors: dict[str, _Node] = {}
        self._root: _Node | None = None
        self._size = 0
        self._problems: list[Problem] = []

    def compose(self) -> tuple[_Node, list[Problem]]:
        """The root, and problems that did not stop the reading. Raises PipelineError for one that does."""
        try:
            for event in yaml.parse(self._text, Loader=yaml.CSafeLoader):
                self._take(event)
        except yaml.MarkedYAMLError as error:
            self._refuse_syntax(error)
        except yaml.YAMLError as error:
            _refuse(self._file, 1, 1, f"this is not YAML: {shortened(str(error))}")
        if self._root is None or (self._root.kind == "scalar" and not self._root.text):
            _refuse(self._file, 1, 1, "the file is empty: it needs at least name and steps (penstock init writes one)")
        return self._root, self._problems

    def _take(self, event: yaml.Event) -> None:
        mark = event.start_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        if isinstance(event, yaml.DocumentStartEvent) and self._root is not None:
            _refuse(self._file, line, column, "a second document begins here: expected one document in the file")
        elif isinstance(event, yaml.AliasEvent):
            self._add(self._aliased(event, line, column), line, column)
        elif isinstance(event, yaml.ScalarEvent):
            value = _resolved(event.value) if event.implicit[0] else event.value
            self._add_new(event, _Node("scalar", line, column, value, event.value, closed=True))
        elif isinstance(event, yaml.CollectionStartEvent):
            kind: Literal["list", "mapping"] = "list" if isinstance(event, yaml.SequenceStartEvent) else "mapping"
            self._add_new(event, node := _Node(kind, line, column))
            self._open.append(node)
            if len(self._open) > MAX_DEPTH:
                _refuse(self._file, line, column, f"lists and mappings are nested more than {MAX_DEPTH} deep here")
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close(self._open.pop())

    def _add_new(self, event: yaml.NodeEvent, node: _Node) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None:
            plain = shortened(tag.replace("tag:yaml.org,2002:", "!!"))
            sentence = f'the tag "{plain}" is not read: write the value plainly, a text in quotes'
            self._problems.append(Problem(self._file, node.line, node.column, sentence))
            node.refused = True
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._add(node, node.line, node.column)

    def _aliased(self, event: yaml.AliasEvent, line: int, column: int) -> _Node:
        node = self._anchors.get(str(event.anchor))
        if node is None:
            _refuse(
                self._file, line, column, f'"*{event.anchor}" names no anchor: put "&{event.anchor}" before a value'
            )
        if not node.closed:
            _refuse(self._file, line, column, f'"*{event.anchor}" stands inside the value that it names')
        return node

    def _add(self, node: _Node, line: int, column: int) -> None:
        self._size += node.size
        if self._size > MAX_NODES:
            sentence = f"the file holds more than {MAX_NODES:,} values, with what its aliases repeat: make it smaller"
            _refuse(self._file, line, column, sentence)
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        if parent.kind == "list":
            parent.items.append(node)
        elif parent.key is None:
            parent.key = node if node.line == line and node.column == column else _moved(node, line, column)
        else:
            self._add_entry(parent, parent.key, node)

    def _add_entry(self, parent: _Node, key: _Node, node: _Node) -> None:
        parent.key = None
        sentence = None
        if key.kind != "scalar":
            sentence = f"expected a name before the colon, found {described([] if key.kind == 'list' else {})}"
        elif key.text == "<<":
            sentence = '"<<" merges nothing in YAML 1.2: write the keys out, or use an alias for a whole value'
        elif key.text in parent.entries:
            first = parent.entries[key.text][0].line
            sentence = f'the key "{shortened(key.text)}" stands here twice (first in line {first}): keep one'
        if sentence is None:
            parent.entries[key.text] = key, node
        else:
            self._problems.append(Problem(self._file, key.line, key.column, sentence))

    def _close(self, node: _Node) -> None:
        """Its size is known now: what it holds, plus itself; keys count as one each."""
        inside = [*node.items, *(value for _, value in node.entries.values())]
        node.size = 1 + sum(n.size for n in inside) + len(node.entries)
        node.closed = True

    def _refuse_syntax(self, error: yaml.MarkedYAMLError) -> NoReturn:
        mark = error.problem_mark or error.context_mark
        problem, context = error.problem or "", error.context or ""
        if "unexpected end of stream" in problem and error.context_mark is not None:
            mark = error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        lines = re.split("\r\n|[\r\n\x85\u2028\u2029]", self._text)
        rest = lines[line - 1][column - 1 :] if line <= len(lines) else ""
        start = error.context_mark
        if start is not None and "flow" in context and not "".join([rest, *lines[line:]]).strip():
            _refuse(self._file, start.line + 1, start.column + 1, "the bracket that opens here is never closed")
        opened = start.line + 1 if start is not None else line
        _refuse(self._file, line, column, _syntax_sentence(problem, context, rest, opened))


def _moved(node: _Node, line: int, column: int) -> _Node:
    return _Node(node.kind, line, column, node.value, node.text, size=node.size, closed=True)


def _syntax_sentence(problem: str, context: str, rest: str, opened: int) -> str:
    if rest.startswith("\t"):
        return "a tab stands where YAML wants spaces: indent with spaces"
    if "cannot start any token" in problem and rest:
        return f'a text cannot begin with "{rest[0]}": put it in quotes'
    if "unexpected end of stream" in problem:
        return "the quote that opens here is never closed"
    if "flow sequence" in context or "flow mapping" in context or "flow node" in context:
        bracket = "{…}" if "mapping" in context else "[…]" if "sequence" in context else "[…] or {…}"
        return f'expected "," or the end of the {bracket} that opens in line {opened}, found {_rest(rest)}'
    for part, sentence in _SYNTAX.items():
        if part in problem:
            return f"{sentence}, found {_rest(rest)}"
    return f"this is not YAML ({problem}), found {_rest(rest)}"


def _rest(rest: str) -> str:
    return f'"{shortened(rest)}"' if rest.strip() else "the end of the line"


_SYNTAX: Mapping[str, str] = {
    "mapping values are not allowed": 'a ":" stands where no key can: check the indentation, or quote a text with ": "',
    "could not find expected ':'": 'expected a ":" after the key of the line before',
    "expected key": "expected a key in the column of the keys above: check the indentation",
    "expected '-' indicator": 'expected "- " in the column of the entries above: check the indentation',
    "block sequence entries are not allowed": 'a list entry "- " cannot stand here: put it on a line of its own',
    "expected <document start>": "expected the end of the file, because the value before is complete",
    "expected node content": "expected a value",
    "alphabetic or numeric character": 'expected a name after "&" or "*"',
    "unknown escape": 'expected an escape that YAML knows after "\\" (in single quotes a backslash is plain)',
}


_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(["", "~", "null", "Null", "NULL"]),
    **dict.fromkeys(["true", "True", "TRUE"], True),
    **dict.fromkeys(["false", "False", "FALSE"], False),
}


def _resolved(text: str) -> str | float | bool | None:
    """What an unquoted text means in the core schema of YAML 1.2."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > 300:
        return text
    if _INTEGER.fullmatch(text):
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text if base == 10 else text[2:], base)
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan")) if _FLOAT.fullmatch(text) else text


# --- nodes to a pipeline -------------------------------------------------------------------------------------------

_PARTS: Mapping[tuple[str, ...], type[Part]] = {
    (): Pipeline,
    ("runtime",): Runtime,
    ("steps", "*"): Step,
    ("steps", "*", "evidence"): EvidenceFiles,
    ("package",): Package,
    ("gates", "*"): Gate,
    ("environments", "*"): Environment,
    ("check",): Check,
}
_NOUNS: Mapping[type[Part], str] = {
    Pipeline: "the file",
    Step: "a step",
    Gate: "a gate",
    Environment: "an environment",
    EvidenceFiles: "evidence",
}
_NAMED = ("steps", "gates", "environments")
_ROUNDS = 20
"""So often is the file tried again without what was wrong: a few rounds do, more would be a fault of ours."""


class _Reading:
    """One file being read: what stands where, what was found wrong, and what was therefore set aside."""

    def __init__(self, file: str, root: _Node, problems: Iterable[Problem]) -> None:
        self._file = file
        self._root = root
        self._problems = list(problems)
        self._flaws: list[Flaw] = []
        self._aside: set[Where] = set()

    def pipeline(self) -> Pipeline | None:
        """The pipeline without what is wrong, as far as it can be made; whole where `problems` is empty."""
        if self._root.kind != "mapping":
            found = described(self._value(()))
            _refuse(
                self._file, self._root.line, self._root.column, f"expected keys such as name and steps, found {found}"
            )
        data = self._plain(self._root, ())
        for _ in range(_ROUNDS):
            try:
                pipeline = Pipeline.model_validate(data)
            except ValidationError as error:
                for details in error.errors(include_url=False):
                    self._set_aside(data, details)
            else:
                self._flaws += [flaw for flaw in flaws(pipeline) if not self._follows(flaw)]
                return pipeline
        return None

    def problems(self) -> list[Problem]:
        """Every problem in order, with its hint, up to MAX_PROBLEMS."""
        placed = {(*self._find(flaw), flaw.sentence): flaw for flaw in self._flaws}
        placed |= {(p.line, p.column, p.sentence): Flaw((), p.sentence) for p in self._problems}
        rows = sorted(placed.items(), key=lambda row: row[0][:2])
        every = [Problem(self._file, line, column, _sentence(flaw)) for (line, column, _), flaw in rows[:MAX_PROBLEMS]]
        left = len(rows) - MAX_PROBLEMS
        if left <= 0:
            return every
        last = every[-1]
        more = Problem(self._file, last.line, last.column, f"and {left:,} more problems: mend these first")
        return [*every, more]

    # --- plain data

    def _plain(self, node: _Node, where: Where) -> Any:
        """The node as pydantic takes it; what has no value is a flaw and left out."""
        if node.kind == "scalar":
            is_variable = len(where) > 1 and where[-2] == "variables" and len(where) in {2, 4}
            return node.text if is_variable and not isinstance(node.value, str) else node.value
        if node.kind == "list":
            return [self._item(item, (*where, n)) for n, item in enumerate(node.items)]
        return {key: self._plain(value, (*where, key)) for key, (_, value) in self._entries(node, where)}

    def _item(self, item: _Node, where: Where) -> Any:
        if item.refused:
            self._aside.add(where)
            return _placeholder(where)
        if item.kind == "scalar" and item.value is None:
            self._add(Flaw(where, "this entry of the list has no value: give it one, or take it out"))
            return _placeholder(where)
        return self._plain(item, where)

    def _entries(self, node: _Node, where: Where) -> Iterator[tuple[str, tuple[_Node, _Node]]]:
        for key, (at, value) in node.entries.items():
            here = (*where, key)
            if key == "name" and len(where) == 2 and where[0] in _NAMED:
                self._add(self._unknown(here))
            elif value.refused:
                self._aside.add(here)
            elif value.kind == "scalar" and value.value is None:
                self._add(self._without_value(here))
            else:
                yield key, (at, value)

    def _without_value(self, where: Where) -> Flaw:
        part = _part_at(where[:-1])
        if part is not None and where[-1] not in part.model_fields:
            return self._unknown(where)
        return Flaw(where, f'"{shortened(str(where[-1]))}" has no value: give it one, or take the key out')

    # --- what pydantic found

    def _add(self, flaw: Flaw) -> None:
        self._aside.add(flaw.where if flaw.lacking is None else flaw.lacking)
        self._flaws.append(flaw)

    def _set_aside(self, data: Any, details: ErrorDetails) -> None:
        """Keep a finding as a flaw, and take its value out of the data so that the rest can be read."""
        where = tuple(details["loc"])
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
        self._aside.add(_remove(data, where))

    def _add_wrong(self, where: Where, details: ErrorDetails) -> None:
        context = details.get("ctx", {})
        if details["type"] != "penstock":
            value = self._value(where)
            choices = tuple(_choices(context.get("expected", "")))
            word = value if isinstance(value, str) and choices else ""
            self._add(Flaw(where, f"expected {_expected(where, details)}, found {described(value)}", word, choices))
        elif self._lost(where, context["lacks"]):
            self._aside.add(where)
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
        known = tuple(k for k in part.model_fields if k != "name" or part is Pipeline) if part is not None else ()
        if len(self._flaws) < MAX_PROBLEMS and (meant := _nearest(key, known)):
            self._aside.add((*where[:-1], meant))
        inside = ".".join(map(str, where[:-1])) or "the file"
        return Flaw(where, f'unknown key "{shortened(key)}" in {shortened(inside)}', key, known, at_key=True)

    def _follows(self, flaw: Flaw) -> bool:
        """Whether a flaw only follows from a value that was set aside, and would go with it."""
        ways = [way for way in (flaw.where, flaw.lacking) if way is not None]
        return any(way[:n] in self._aside for way in ways for n in range(1, len(way) + 1))

    # --- where things stand

    def _walk(self, where: Where) -> tuple[_Node, _Node, bool]:
        """The key (or the value itself in a list) and the value that a way leads to, and whether it got there."""
        key = node = self._root
        for step in where:
            if node.kind == "mapping" and isinstance(step, str) and step in node.entries:
                key, node = node.entries[step]
            elif node.kind == "list" and isinstance(step, int) and step < len(node.items):
                key = node = node.items[step]
            else:
                return key, node, False
        return key, node, True

    def _find(self, flaw: Flaw) -> tuple[int, int]:
        key, node, arrived = self._walk(flaw.where)
        at = key if flaw.at_key or (not arrived and node.kind != "scalar") else node
        return at.line, at.column

    def _value(self, where: Where) -> Any:
        node = self._walk(where)[1]
        return node.value if node.kind == "scalar" else [] if node.kind == "list" else {}


def _part_at(where: Where) -> type[Part] | None:
    """The model of the mapping that a way leads to."""
    plain = tuple("*" if n == 1 and where[0] in _NAMED else str(key) for n, key in enumerate(where))
    return _PARTS.get(plain)


def _placeholder(where: Where) -> str:
    """A value for an entry of a list that was set aside, so that the others keep their places."""
    return f"placeholder_{where[-1]}"


def _fill(data: Any, where: Where) -> None:
    """Put something sound where a required value is missing, unless its mapping went with a wrong name."""
    for key in where[:-1]:
        if key not in data:
            return
        data = data[key]
    data[where[-1]] = {"steps": {"placeholder": {"run": "true"}}, "port": 1}.get(str(where[-1]), "placeholder")


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
    "greater_than_equal": "at least {ge:g}",
    "less_than_equal": "at most {le:g}",
}
_SHAPES: Mapping[type[Part] | None, str] = {
    Runtime: "keys such as python and requirements",
    Step: "keys such as run and outputs",
    EvidenceFiles: "a file, or the keys predictions and truth",
    Package: "keys such as model, code and serve",
    Gate: "keys such as metric and at_least",
    Environment: "keys such as port",
    Check: "the key exclude",
}
_DURATION = "a duration such as 90s, 30m or 1h30m"
_BY_KEY: Mapping[str, str] = {
    "python": 'a Python version in quotes, such as "3.11"',
    "timeout": _DURATION,
    "start_timeout": _DURATION,
}


def _expected(where: Where, details: ErrorDetails) -> str:
    context, kind = details.get("ctx", {}), details["type"]
    if kind == "literal_error":
        return " or ".join(_choices(context["expected"]))
    if kind == "model_type":
        return _SHAPES[_part_at(where)]
    if kind in {"string_type", "float_type"} and where[-1] in _BY_KEY:
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
