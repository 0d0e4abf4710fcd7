"""Tensors of ONNX files, counted without loading them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import graphs
from penstock.graphs import Graph, read_graph
from penstock.readers import BytesReader, Cursor, DamagedError
from pure.model_files import bytes_field, external, number_field, onnx, tensor, varint


def read(data: bytes) -> Graph | None:
    return read_graph(Cursor(BytesReader(data)))


def nested(depth: int) -> bytes:
    """A graph with a branch in a branch, so many deep, with one tensor of 6 in the last."""
    found = bytes_field(5, tensor([2, 3]))
    for _ in range(depth):
        found = bytes_field(1, bytes_field(5, bytes_field(6, found)))
    return onnx(found)


def test_numbers_of_tensors_are_counted() -> None:
    """Packed or not, scalars and sparse ones too; other fields are passed over unread."""
    parts = (
        bytes_field(5, tensor([10, 4], bytes_field(9, bytes(160)))),
        bytes_field(5, tensor([3, 5], packed=True)),
        bytes_field(5, tensor([])),
        bytes_field(15, bytes_field(1, tensor([7])) + bytes_field(2, tensor([7])) + number_field(3, 100)),
        bytes_field(2, b"main"),
        number_field(9, 1),
        varint(20 << 3 | 5) + bytes(4) + varint(21 << 3 | 1) + bytes(8),
    )
    assert read(onnx(*parts)) == Graph(40 + 15 + 1 + 7)


def test_tensors_of_branches_and_loops_are_counted() -> None:
    """Graphs lie in attributes of nodes, in each other."""
    several = bytes_field(
        1, bytes_field(5, bytes_field(1, b"body") + bytes_field(11, bytes_field(5, tensor([5])))) + number_field(9, 2)
    )
    assert read(onnx(several, several)) == Graph(10)
    assert read(nested(graphs.MAX_DEPTH)) == Graph(6)
    with pytest.raises(DamagedError, match="nested more than 20 deep"):
        read(nested(graphs.MAX_DEPTH + 1))


def test_tensors_of_constants_are_counted() -> None:
    """They are attributes of nodes, one or several."""
    one = bytes_field(1, bytes_field(5, bytes_field(1, b"value") + bytes_field(5, tensor([6]))))
    several = bytes_field(1, bytes_field(5, bytes_field(10, tensor([2])) + bytes_field(10, tensor([3, 3]))))
    assert read(onnx(one, several, bytes_field(5, tensor([4])))) == Graph(21)


def test_files_beside_are_named() -> None:
    """A large model keeps its tensors elsewhere, and what it calls them may be anything."""
    found = read(
        onnx(bytes_field(5, tensor([2], external("weights.bin"))), bytes_field(5, tensor([2], external("a\nb"))))
    )
    assert found == Graph(4, {"weights.bin": None, "a?b": None})
    long = bytes_field(13, bytes_field(1, b"location") + bytes_field(2, b"x" * 5000))
    other = bytes_field(13, bytes_field(1, b"offset") + bytes_field(2, b"0") + number_field(2, 1))
    assert read(onnx(bytes_field(5, tensor([2], long)), bytes_field(5, tensor([2], other)))) == Graph(4, {"": None})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        number_field(1, 8),
        bytes_field(7, b"") + number_field(3, 1),
        number_field(1, 8) + b"\xff",
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x0b\x00",
    ],
)
def test_what_is_no_model_is_none(data: bytes) -> None:
    """Other bytes, and messages of protobuf that have no graph and version."""
    assert read(data) is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (onnx(bytes_field(5, tensor([1 << 63]))), "the size of a tensor in it is none"),
        (onnx(bytes_field(5, tensor([1] * 65))), "the size of a tensor in it is none"),
        (onnx(bytes_field(5, tensor([1] * 65, packed=True))), "the size of a tensor in it is none"),
        (onnx(bytes_field(5, bytes_field(1, b"\x80") + b"\x01")), "the size of a tensor in it is none"),
        (onnx(bytes_field(5, tensor([4])))[:-1], "cut short"),
        (onnx(varint(5 << 3 | 2) + varint(1 << 40)), "cut short"),
        (number_field(1, 8) + bytes_field(7, b"") + b"\x0f", "what is no field"),
        (number_field(1, 8) + bytes_field(7, b"") + b"\x00", "what is no field"),
    ],
)
def test_damaged_models_are_told(data: bytes, said: str) -> None:
    """Once there is a graph it is a model, and what is wrong with it is a clause."""
    with pytest.raises(DamagedError, match=said):
        read(data)


@given(data=st.binary(max_size=100), cut=st.integers(0, 200))
@settings(deadline=None)
def test_no_bytes_break_the_reader(data: bytes, cut: int) -> None:
    """Whatever is in the file, it is read or refused."""
    good = onnx(bytes_field(5, tensor([10, 4])), bytes_field(1, bytes_field(5, bytes_field(6, b""))))
    for content in (b"\x08" + data, good[:cut] + data, good[:cut] + data + good[cut:]):
        try:
            read(content)
        except DamagedError:
            continue
