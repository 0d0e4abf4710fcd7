"""Model files by hand: as small as their format allows, so that no framework is needed."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any


def safetensors(tensors: Mapping[str, tuple[str, list[int], int]], more: bytes = b"") -> bytes:
    """Tensors by name: kind, shape, and bytes each."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, (kind, shape, size) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(place) + more


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def number_field(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(dimensions: Iterable[int], more: bytes = b"", *, packed: bool = False) -> bytes:
    """A tensor of ONNX, of 32-bit floats, without its numbers."""
    if packed:
        return bytes_field(1, b"".join(map(varint, dimensions))) + number_field(2, 1) + more
    return b"".join(number_field(1, n) for n in dimensions) + number_field(2, 1) + more


def external(location: str) -> bytes:
    """The part of a tensor that says in which file its numbers are."""
    return bytes_field(13, bytes_field(1, b"location") + bytes_field(2, location.encode()))


def onnx(*parts: bytes) -> bytes:
    """A model with a graph of these parts."""
    return number_field(1, 8) + bytes_field(2, b"by hand") + bytes_field(7, b"".join(parts)) + bytes_field(8, b"")


def zipped(members: Mapping[str, bytes], packing: int = zipfile.ZIP_STORED) -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", packing) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return file.getvalue()


def npy(kind: str, shape: tuple[int, ...], data: bytes = b"", version: int = 1) -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data


def gguf(tensors: Mapping[str, list[int]], pairs: bytes = b"", count: int = 0, version: int = 3) -> bytes:
    infos = b"".join(
        struct.pack("<Q", len(name)) + name.encode() + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, 0)
        for name, shape in tensors.items()
    )
    return b"GGUF" + struct.pack("<IQQ", version, len(tensors), count) + pairs + infos


class _Named:
    """A name that pickles as it is written, wherever it is from."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class _Called:
    """A call that pickles as it is written."""

    def __init__(self, function: _Named, *arguments: Any, state: Any = None) -> None:
        self.function, self.arguments, self.state = function, arguments, state


class _Kept:
    """What stands elsewhere in the file."""

    def __init__(self, *told: Any) -> None:
        self.told = told


named, called, kept = _Named, _Called, _Kept


def pickled(value: Any) -> bytes:
    """A pickle of protocol 2 of plain values, names and calls, written by hand: nothing of it is ever real."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value: Any) -> bytes:
    if isinstance(value, _Named):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, _Called):
        made = _opcodes(value.function) + _opcodes(value.arguments) + b"R"
        return made if value.state is None else made + _opcodes(value.state) + b"b"
    if isinstance(value, _Kept):
        return _opcodes(value.told) + b"Q"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_opcodes, value)) + b"t"
    if isinstance(value, dict):
        return b"}(" + b"".join(_opcodes(k) + _opcodes(v) for k, v in value.items()) + b"u"
    return pickle.dumps(value, 2)[2:-1]


def torch_tensor(key: str, shape: tuple[int, ...], count: int | None = None) -> _Called:
    """A tensor as PyTorch pickles it: a view on numbers that stand elsewhere."""
    total = 1
    for size in shape:
        total *= size
    storage = _Kept("storage", _Named("torch", "FloatStorage"), key, "cpu", total if count is None else count)
    hooks = _Called(_Named("collections", "OrderedDict"))
    return _Called(_Named("torch._utils", "_rebuild_tensor_v2"), storage, 0, shape, (), False, hooks)


def torch(value: Any, **members: bytes) -> bytes:
    """A file of PyTorch that holds a value."""
    return zipped({"m/data.pkl": pickled(value), "m/version": b"3\n", "m/data/0": b"", **members})
