"""Bytes → text → YAML events, walked with limits → nodes that know their place.

No text can make the C library recurse or run on: it only parses, and what it finds is counted as it comes.
"""

import re
from collections.abc import Mapping
from typing import Any, NoReturn

import yaml

from penstock.errors import PipelineError, Problem
from penstock.values import described, shortened

MAX_BYTES = 4 << 20
"""A longer file is refused; nobody needs to read more of it than one byte beyond."""
MAX_DEPTH = 100
MAX_NODES = 250_000
"""Texts, lists and mappings, each counted again wherever an alias repeats it."""


def nodes_of(data: bytes, file: str) -> "tuple[Node, list[Problem]]":
    """The root of a file's bytes, and problems that did not stop the reading; PipelineError for one that does."""
    return _Composer(file, decoded(data, file)).compose()


# --- bytes to text -------------------------------------------------------------------------------------------------

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def refuse(file: str, line: int, column: int, sentence: str) -> NoReturn:
    raise PipelineError([Problem(file, line, column, sentence)])


def decoded(data: bytes, file: str) -> str:
    if len(data) > MAX_BYTES:
        refuse(file, 1, 1, f"the file is longer than {MAX_BYTES >> 20} MiB: a pipeline file is a few kilobytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8", "replace")
        byte = f"{error.object[error.start]:#04x}"
        refuse(file, *_place(before), f"the file is not UTF-8 (byte {byte} stands here): save it as UTF-8")
    if found := _UNPRINTABLE.search(text):
        what = f"a character that YAML forbids (U+{ord(found[0]):04X})"
        refuse(file, *_place(text[: found.start()]), f"the file holds {what}: take it out")
    return text


def _place(before: str) -> tuple[int, int]:
    """Line and column of what comes after a text."""
    lines = re.split("\r\n|\r|\n", before)
    return len(lines), len(lines[-1]) + 1


# --- text to nodes -------------------------------------------------------------------------------------------------


class Scalar:
    """A text and what it means; there are many, so they are small."""

    __slots__ = ("column", "line", "refused", "text", "value")
    size = 1
    closed = True

    def __init__(self, line: int, column: int, value: str | float | bool | None, text: str) -> None:
        self.line = line
        self.column = column
        self.value = value
        self.text = text
        self.refused = False


class Collection:
    """A list or mapping. `size` counts it and all below it, repetitions by aliases included."""

    __slots__ = ("closed", "column", "line", "refused", "size")

    def __init__(self, line: int, column: int) -> None:
        self.line = line
        self.column = column
        self.size = 1
        self.closed = False
        self.refused = False


class Listing(Collection):
    """A list of nodes."""

    __slots__ = ("items",)

    def __init__(self, line: int, column: int) -> None:
        super().__init__(line, column)
        self.items: list[Node] = []


class Table(Collection):
    """A mapping: keys in their order, each with its node and that of its value. `key` waits for a value."""

    __slots__ = ("entries", "key")

    def __init__(self, line: int, column: int) -> None:
        super().__init__(line, column)
        self.entries: dict[str, tuple[Node, Node]] = {}
        self.key: Node | None = None


Node = Scalar | Listing | Table


class _Composer:
    """Builds nodes from events."""

    def __init__(self, file: str, text: str) -> None:
        self._file = file
        self._text = text
        self._open: list[Listing | Table] = []
        self._anchors: dict[str, Node] = {}
        self._root: Node | None = None
        self._size = 0
        self._problems: list[Problem] = []

    def compose(self) -> tuple[Node, list[Problem]]:
        """The root, and problems that did not stop the reading. Raises PipelineError for one that does."""
        try:
            parser = yaml.CSafeLoader(self._text)
            while True:
                event: Any = parser.get_event()
                if event.__class__ is yaml.ScalarEvent:
                    self._take_scalar(event)
                elif event.__class__ is yaml.StreamEndEvent:
                    break
                else:
                    self._take(event)
        except yaml.MarkedYAMLError as error:
            self._refuse_syntax(error)
        except yaml.YAMLError as error:
            refuse(self._file, 1, 1, f"this is not YAML: {shortened(str(error))}")
        if self._root is None or (isinstance(self._root, Scalar) and not self._root.text):
            refuse(self._file, 1, 1, "the file is empty: it needs at least name and steps (penstock init writes one)")
        return self._root, self._problems

    def _take_scalar(self, event: Any) -> None:
        """Most events are scalars: this is kept short."""
        mark, text = event.start_mark, event.value
        plain = event.implicit[0] and text[:1] in _FIRST
        node = Scalar(mark.line + 1, mark.column + 1, _resolved(text) if plain else text, text)
        if event.tag is not None or event.anchor is not None:
            self._take_properties(event, node)
        self._size += 1
        if self._size > MAX_NODES:
            self._count(0, node.line, node.column)
        self._add(node, 1)

    def _take(self, event: yaml.Event) -> None:
        mark = event.start_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        if isinstance(event, yaml.CollectionEndEvent):
            self._close(self._open.pop())
        elif isinstance(event, yaml.CollectionStartEvent):
            node = (Listing if isinstance(event, yaml.SequenceStartEvent) else Table)(line, column)
            self._take_properties(event, node)
            self._count(1, line, column)
            self._add(node, 0)
            self._open.append(node)
            if len(self._open) > MAX_DEPTH:
                refuse(self._file, line, column, f"lists and mappings are nested more than {MAX_DEPTH} deep here")
        elif isinstance(event, yaml.AliasEvent):
            aliased = self._aliased(event, line, column)
            self._count(aliased.size, line, column)
            parent = self._open[-1] if self._open else None
            is_key = isinstance(parent, Table) and parent.key is None
            self._add(_moved(aliased, line, column) if is_key else aliased, aliased.size)
        elif isinstance(event, yaml.DocumentStartEvent) and self._root is not None:
            refuse(self._file, line, column, "a second document begins here: expected one document in the file")

    def _close(self, node: Listing | Table) -> None:
        node.closed = True
        if self._open:
            self._open[-1].size += node.size

    def _take_properties(self, event: yaml.NodeEvent, node: Node) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None:
            plain = shortened(tag.replace("tag:yaml.org,2002:", "!!"))
            sentence = f'the tag "{plain}" is not read: write the value plainly, a text in quotes'
            self._problems.append(Problem(self._file, node.line, node.column, sentence))
            node.refused = True
        if event.anchor is not None:
            self._anchors[event.anchor] = node

    def _aliased(self, event: yaml.AliasEvent, line: int, column: int) -> Node:
        name = str(event.anchor)
        node = self._anchors.get(name)
        if node is None:
            refuse(self._file, line, column, f'"*{name}" names no anchor: put "&{name}" before a value')
        if not node.closed:
            refuse(self._file, line, column, f'"*{name}" stands inside the value that it names')
        return node

    def _count(self, size: int, line: int, column: int) -> None:
        self._size += size
        if self._size > MAX_NODES:
            sentence = f"the file holds more than {MAX_NODES:,} values, with what its aliases repeat: make it smaller"
            refuse(self._file, line, column, sentence)

    def _add(self, node: Node, size: int) -> None:
        """Put a node where it belongs; `size` is what is known of its own by now."""
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        parent.size += size
        if isinstance(parent, Listing):
            parent.items.append(node)
        elif parent.key is None:
            parent.key = node
        else:
            key, parent.key = parent.key, None
            if isinstance(key, Scalar) and key.text not in parent.entries and key.text != "<<":
                parent.entries[key.text] = key, node
            else:
                self._refuse_key(parent, key)

    def _refuse_key(self, parent: Table, key: Node) -> None:
        if not isinstance(key, Scalar):
            sentence = f"expected a name before the colon, found {described([] if isinstance(key, Listing) else {})}"
        elif key.text == "<<":
            sentence = '"<<" merges nothing in YAML 1.2: write the keys out, or use an alias for a whole value'
        else:
            first = parent.entries[key.text][0].line
            sentence = f'the key "{shortened(key.text)}" stands here twice (first in line {first}): keep one'
        self._problems.append(Problem(self._file, key.line, key.column, sentence))

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
            refuse(self._file, start.line + 1, start.column + 1, "the bracket that opens here is never closed")
        opened = start.line + 1 if start is not None else line
        refuse(self._file, line, column, _syntax_sentence(problem, context, rest, opened))


def _moved(node: Node, line: int, column: int) -> Node:
    """A key where an alias repeats it: a complaint is about this place."""
    return Scalar(line, column, node.value, node.text) if isinstance(node, Scalar) else node.__class__(line, column)


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


_FIRST = frozenset(["", *"-+.0123456789tTfFnN~"])
"""What a text begins with that could mean something else than itself."""


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
