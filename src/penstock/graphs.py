"""Graphs: the tensors of an ONNX file, told from its protobuf fields; nothing of it is loaded.

The wire format is that of the Protocol Buffers encoding: a field is a key (its number, and how it is written) and a
value; a message is a field with a length. Only fields that lead to tensors are entered, all others are passed over.
The numbers of the fields are those of `onnx.proto3`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

from penstock.readers import Cursor, DamagedError

MAX_DEPTH = 20
_MAX_DIMENSIONS = 64
_MAX_FILES = 1000
_VARINT, _FIXED8, _BYTES, _FIXED4 = 0, 1, 2, 5

_GRAPH_OF_MODEL = 7
_VERSION_OF_MODEL, _OPSETS_OF_MODEL = 1, 8
_NODES, _TENSORS, _SPARSE_TENSORS = 1, 5, 15
_ATTRIBUTES = 5
_GRAPHS_OF_ATTRIBUTE = frozenset({6, 11})
_TENSORS_OF_ATTRIBUTE = frozenset({5, 10})
_DIMENSIONS, _EXTERNAL = 1, 13
_VALUES = 1


@dataclass(slots=True)
class Graph:
    """What a graph holds: the numbers in its tensors, and the files beside it that some of them are kept in."""

    parameters: int = 0
    files: dict[str, None] = field(default_factory=dict)


def read_graph(cursor: Cursor) -> Graph | None:
    """The tensors of an ONNX model; None for bytes that are none.

    Raises DamagedError for a model that is cut short, nested too deep or too large to look at.
    """
    graph = Graph()
    if not _begins_well(cursor):
        return None
    seen = set()
    try:
        for number, kind, value in _fields(cursor):
            seen.add(number)
            if (number, kind) == (_GRAPH_OF_MODEL, _BYTES):
                _graph(cursor, value, graph, 0)
    except DamagedError:
        if _GRAPH_OF_MODEL in seen:
            raise
        return None
    is_model = _GRAPH_OF_MODEL in seen and (_VERSION_OF_MODEL in seen or _OPSETS_OF_MODEL in seen)
    return graph if is_model else None


def _begins_well(cursor: Cursor) -> bool:
    """Whether the first byte is the key of a field that a model may begin with, so that other files are left soon."""
    if not cursor.left:
        return False
    key = cursor.take(1)[0]
    cursor.position -= 1
    return key in {_VERSION_OF_MODEL << 3, *((n << 3) | _BYTES for n in (2, 3, 4, 6, 7, 8))}


def _fields(cursor: Cursor, length: int | None = None) -> Iterator[tuple[int, int, int]]:
    """The fields of a message: number, kind, and the value, or for bytes the length.

    Who takes a field of bytes may read of it; what is left of it is passed over.
    """
    end = cursor.position + (cursor.left if length is None else length)
    while cursor.position < end:
        cursor.count()
        key = _varint(cursor)
        number, kind = key >> 3, key & 7
        if kind not in {_VARINT, _FIXED8, _BYTES, _FIXED4} or not 0 < number < 1 << 29:
            raise DamagedError("it holds what is no field of a graph")
        if kind in {_FIXED4, _FIXED8}:
            cursor.skip(4 if kind == _FIXED4 else 8)
            yield number, kind, 0
            continue
        value = _varint(cursor)
        after = cursor.position + (value if kind == _BYTES else 0)
        if after > end or (kind == _BYTES and value > cursor.left):
            raise DamagedError("it is cut short")
        yield number, kind, value
        cursor.skip(after - cursor.position)


def _varint(cursor: Cursor) -> int:
    value = 0
    for place in range(10):
        byte = cursor.take(1)[0]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF
    raise DamagedError("a number in it does not end")


def _graph(cursor: Cursor, length: int, graph: Graph, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise DamagedError(f"its graphs are nested more than {MAX_DEPTH} deep")
    for number, kind, size in _fields(cursor, length):
        if kind != _BYTES:
            continue
        if number == _TENSORS:
            _tensor(cursor, size, graph)
        elif number == _SPARSE_TENSORS:
            for inner, kind_of_inner, size_of_inner in _fields(cursor, size):
                if (inner, kind_of_inner) == (_VALUES, _BYTES):
                    _tensor(cursor, size_of_inner, graph)
        elif number == _NODES:
            _node(cursor, size, graph, depth)


def _node(cursor: Cursor, length: int, graph: Graph, depth: int) -> None:
    """The graphs that a node holds, as branches and loops do, and the tensors, as constants do."""
    for number, kind, size in _fields(cursor, length):
        if (number, kind) == (_ATTRIBUTES, _BYTES):
            _attribute(cursor, size, graph, depth)


def _attribute(cursor: Cursor, length: int, graph: Graph, depth: int) -> None:
    for number, kind, size in _fields(cursor, length):
        if kind == _BYTES and number in _GRAPHS_OF_ATTRIBUTE:
            _graph(cursor, size, graph, depth + 1)
        elif kind == _BYTES and number in _TENSORS_OF_ATTRIBUTE:
            _tensor(cursor, size, graph)


def _tensor(cursor: Cursor, length: int, graph: Graph) -> None:
    dimensions: list[int] = []
    for number, kind, value in _fields(cursor, length):
        if number == _DIMENSIONS and kind == _VARINT:
            dimensions.append(value)
        elif number == _DIMENSIONS and kind == _BYTES:
            end = cursor.position + value
            while cursor.position < end and len(dimensions) <= _MAX_DIMENSIONS:
                dimensions.append(_varint(cursor))
            if cursor.position > end:
                raise DamagedError("the size of a tensor in it is none")
        elif number == _EXTERNAL and kind == _BYTES:
            _file(cursor, value, graph)
        if len(dimensions) > _MAX_DIMENSIONS or any(n >> 63 for n in dimensions[-_MAX_DIMENSIONS:]):
            raise DamagedError("the size of a tensor in it is none")
    graph.parameters += prod(dimensions)


def _file(cursor: Cursor, length: int, graph: Graph) -> None:
    """The place of a tensor that lies in another file, from an entry of key (1) and value (2)."""
    texts = {1: "", 2: ""}
    for number, kind, size in _fields(cursor, length):
        if number in texts and kind == _BYTES and size <= 4096:
            texts[number] = cursor.take(size).decode("utf-8", "replace")
    if texts[1] == "location" and len(graph.files) < _MAX_FILES:
        graph.files[re.sub(r"[^\x20-\x7e]", "?", texts[2])] = None
