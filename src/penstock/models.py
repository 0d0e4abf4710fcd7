"""Models: what a model's files are, how large they are and what loading them could do, without loading them.

A file is known by what it begins with, never by its name. Of large ones only the header is read. Whatever is in a file,
it is inspected: what cannot be told stays open, with a sentence that says why.
"""

import codecs
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import prod
from typing import Any

from penstock.graphs import read_graph
from penstock.pickles import MAX_RISKS, Scan, scan, shown_risk
from penstock.readers import MAX_MEMBER, Archive, BytesReader, Cursor, DamagedError, Reader

UNKNOWN = "unknown"
COMPANIONS = frozenset({"json", "text"})
"""Formats that hold settings or words beside a model, and no model where there is one."""
MAX_HEADER = 16 << 20
"""Bytes of a safetensors header that are read."""
MAX_PARTS = 1_000_000
"""Values in a header or in settings, at most: each takes many times the memory of its text."""
MAX_PARAMETERS = 1 << 63
MAX_MORE = 10_000
"""Pickles in one file after the first that are looked at."""
_SAMPLE = 64 << 10
_STRANGE = "its format is not known"


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is known of a model, or of one file of it. `size` is in bytes.

    `parameters` is how many numbers its tensors hold, None where that cannot be told. `risks` are what loading it could
    do beside putting data together, such as `os.system`. `doubt` is a clause that says what was not told, and why.
    `files` are the names of further files, in its own folder, that hold its tensors.
    """

    format: str
    size: int
    parameters: int | None = None
    risks: tuple[str, ...] = ()
    doubt: str | None = None
    files: tuple[str, ...] = ()


def inspect(reader: Reader) -> Inspection:
    """What a file is. Never raises for any content."""
    head = reader.read(0, _SAMPLE)
    for begins, looked in _LOOKS:
        if not begins(head, reader.size):
            continue
        try:
            found = looked(reader)
        except DamagedError as error:
            return Inspection(UNKNOWN, reader.size, doubt=str(error))
        if found is not None:
            whole = found if looked in _NEVER_PICKLES else _as_pickle_too(found, reader)
            return replace(_believed(whole), size=reader.size)
    return Inspection(UNKNOWN, reader.size, doubt=_STRANGE)


def _believed(found: Inspection) -> Inspection:
    """What was found, without a number of parameters that no file can hold."""
    if found.parameters is None or found.parameters < MAX_PARAMETERS:
        return found
    return replace(found, parameters=None, doubt=found.doubt or "it counts 2^63 numbers or more: it is damaged")


def _as_pickle_too(found: Inspection, reader: Reader) -> Inspection:
    """A file of another format with what it does as a pickle: who loads it by its name asks for no format."""
    cursor = Cursor(reader)
    other = scan(cursor)
    if other.risks and (other.calls or other.has_ended):
        return replace(found, risks=tuple(dict.fromkeys((*found.risks, *other.risks))))
    if cursor.budget.is_spent:
        return replace(found, doubt=found.doubt or f"it is a pickle too, and {other.fault}")
    return found


# --- safetensors ---------------------------------------------------------------------------------------------------

_BITS: Mapping[str, int] = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    "F4": 4,
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
}
"""Bits of one number, by the kind that a header names."""


def _is_safetensors(head: bytes, size: int) -> bool:
    return 10 <= 8 + int.from_bytes(head[:8], "little") <= size and head[8:9] == b"{"


def _safetensors(reader: Reader) -> Inspection | None:
    length = int.from_bytes(reader.read(0, 8), "little")
    if length > MAX_HEADER:
        return Inspection("safetensors", 0, doubt=f"its header has {length >> 20} MiB, too many to look at")
    data = reader.read(8, length)
    if _has_many_parts(data):
        return Inspection("safetensors", 0, doubt=f"its header has more than {MAX_PARTS:,} values, too many to look at")
    try:
        header = json.loads(data)
    except (ValueError, RecursionError):
        return None
    tensors = [value for name, value in header.items() if name != "__metadata__"]
    counts = [_tensor(value, reader.size - 8 - length) for value in tensors]
    known = [count for count in counts if count is not None]
    if len(known) < len(counts):
        return Inspection("safetensors", 0, doubt="its header does not fit its content: it is damaged or cut short")
    return Inspection("safetensors", 0, sum(known))


def _has_many_parts(data: bytes) -> bool:
    """Whether JSON may hold more values than should be in memory: as many as a text has of what stands before one."""
    return sum(map(data.count, (b"{", b"[", b",", b":"))) > MAX_PARTS


def _tensor(value: Any, room: int) -> int | None:
    """The numbers of one tensor of a header; None where the entry is none, or does not fit the file."""
    entry = value if isinstance(value, dict) else {}
    kind, shape, place = entry.get("dtype"), _counts(entry.get("shape")), _counts(entry.get("data_offsets"))
    if not isinstance(kind, str) or shape is None or place is None or len(place) != 2:
        return None
    count, bits = prod(shape), _BITS.get(kind)
    begin, end = place
    fits = begin <= end <= room and (bits is None or 8 * (end - begin) == bits * count)
    return count if fits else None


def _counts(value: Any) -> list[int] | None:
    """A short list of sizes or places; None for anything else."""
    if not isinstance(value, list) or len(value) > 64:
        return None
    return value if all(type(n) is int and 0 <= n < 1 << 63 for n in value) else None


# --- GGUF ----------------------------------------------------------------------------------------------------------

_GGUF_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_GGUF_TEXT, _GGUF_LIST = 8, 9


def _gguf(reader: Reader) -> Inspection:
    cursor = Cursor(reader, 4)
    try:
        return Inspection("gguf", 0, _gguf_parameters(cursor))
    except DamagedError as error:
        return Inspection("gguf", 0, doubt=str(error))


def _gguf_parameters(cursor: Cursor) -> int:
    version = cursor.number(4)
    if version not in {2, 3}:
        raise DamagedError(f"its version {version} of GGUF is not known")
    tensors, pairs = cursor.number(8), cursor.number(8)
    for _ in range(pairs):
        cursor.skip(cursor.number(8))
        _gguf_value(cursor, cursor.number(4), 0)
    total = 0
    for _ in range(tensors):
        cursor.count()
        cursor.skip(cursor.number(8))
        dimensions = cursor.number(4)
        if dimensions > 64:
            raise DamagedError("the size of a tensor in it is none")
        total += prod(cursor.number(8) for _ in range(dimensions))
        cursor.skip(12)
    return total


def _gguf_value(cursor: Cursor, kind: int, depth: int) -> None:
    cursor.count()
    if kind in _GGUF_SIZES:
        cursor.skip(_GGUF_SIZES[kind])
    elif kind == _GGUF_TEXT:
        cursor.skip(cursor.number(8))
    elif kind == _GGUF_LIST and depth < 4:
        inner, length = cursor.number(4), cursor.number(8)
        if inner in _GGUF_SIZES:
            cursor.skip(_GGUF_SIZES[inner] * length)
            return
        for _ in range(length):
            _gguf_value(cursor, inner, depth + 1)
    else:
        raise DamagedError("it holds a value of an unknown kind")


# --- NumPy ---------------------------------------------------------------------------------------------------------


def _npy(reader: Reader) -> Inspection:
    return _array(Cursor(reader))


def _array(cursor: Cursor) -> Inspection:
    cursor.skip(6)
    count, has_objects = _npy_header(cursor)
    if not has_objects:
        return Inspection("npy", 0, count)
    found = scan(cursor)
    return Inspection("npy", 0, None, tuple(found.risks), _open_end(found))


def _npy_header(cursor: Cursor) -> tuple[int | None, bool]:
    """How many numbers an array has, and whether it holds pickled objects instead; the cursor is behind its mark."""
    version = cursor.number(2) & 0xFF
    length = cursor.number(2 if version == 1 else 4)
    if length > _SAMPLE:
        raise DamagedError("the header of its array is too large to look at")
    text = cursor.take(length).decode("latin-1")
    kind = re.search(r"'descr':\s*'[<>|=]?([a-zA-Z])", text)
    shape = re.search(r"'shape':\s*\(([\d, ]{0,1000})\)", text)
    if shape is None:
        raise DamagedError("the header of its array is none")
    sizes = [int(n) for n in re.findall(r"\d{1,19}", shape[1])]
    has_objects = kind[1] == "O" if kind else "O" in re.findall(r"'[<>|=]?([a-zA-Z])\d*'", text)
    return (prod(sizes) if kind and not has_objects else None), has_objects


# --- pickles and archives of PyTorch, NumPy and Keras --------------------------------------------------------------


def _open_end(found: Scan) -> str | None:
    return None if found.has_ended else f"its pickle was not read to the end: {found.fault or 'it is cut short'}"


def _pickle(reader: Reader) -> Inspection:
    """A pickle, or several one after the other; PyTorch's older files are five, and then the numbers."""
    cursor = Cursor(reader)
    found = scan(cursor)
    is_torch = reader.read(0, 16)[2:].startswith(_OLD_TORCH)
    for _ in range(4 if is_torch else MAX_MORE):
        if not found.has_ended or reader.read(cursor.position, 1) != b"\x80":
            break
        found.has_ended = False
        scan(cursor, found)
    kind = "pytorch" if is_torch else "joblib" if found.is_joblib else "pickle"
    parameters = found.parameters if is_torch and found.tensors else None
    return Inspection(kind, 0, parameters, tuple(found.risks), _open_end(found))


_OLD_TORCH = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""The number that PyTorch's older files begin with, as a pickle writes it."""


def _maybe_pickle(reader: Reader) -> Inspection | None:
    """A pickle of the oldest kind has no mark: it is one if it runs to its end, or on and on, or calls a risk."""
    cursor = Cursor(reader)
    found = scan(cursor)
    if found.has_ended or (found.risks and found.calls) or cursor.budget.is_spent:
        return Inspection("pickle", 0, None, tuple(found.risks), _open_end(found))
    return None


def _packed_pickle(reader: Reader) -> Inspection | None:
    """A pickle that joblib compressed, by zlib or gzip."""
    unpacker = zlib.decompressobj(wbits=47)
    try:
        data = unpacker.decompress(reader.read(0, MAX_MEMBER), MAX_MEMBER)
    except zlib.error:
        return None
    found = (_pickle if data[:1] == b"\x80" else _maybe_pickle)(BytesReader(data))
    if found is None or unpacker.eof:
        return None if found is None else replace(found, format="joblib")
    return replace(found, format="joblib", doubt="its pickle is cut short, or unpacked too large to look at")


def _zip(reader: Reader) -> Inspection:
    """An archive that is of two kinds is of the first, with what the other would do."""
    archive = Archive(reader)
    found = [look(archive) for holds, look in _ARCHIVES if holds(archive)]
    if not found:
        return Inspection(UNKNOWN, 0, doubt="it is a zip archive of no known kind of model")
    risks = dict.fromkeys(risk for one in found for risk in one.risks)
    return replace(found[0], risks=tuple(risks), doubt=next((one.doubt for one in found if one.doubt), None))


def _torch(archive: Archive) -> Inspection:
    """Every pickle of the archive is looked at: which of them a program loads is its own affair."""
    risks: dict[str, None] = {}
    scans = [scan(archive.cursor(member), Scan(risks)) for member in archive.ending(".pkl")]
    is_script = any("/code/" in name or name.endswith("/constants.pkl") for name in archive.names)
    doubt = next((end for end in map(_open_end, scans) if end is not None), None)
    parameters = _sum(one.parameters for one in scans) if any(one.tensors for one in scans) and not doubt else None
    return Inspection("torchscript" if is_script else "pytorch", 0, parameters, tuple(risks), doubt)


def _sum(counts: Iterable[int | None]) -> int | None:
    """The sum; None where one is not known."""
    found = list(counts)
    known = [count for count in found if count is not None]
    return sum(known) if len(known) == len(found) else None


def _npz(archive: Archive) -> Inspection:
    total: int | None = 0
    risks: dict[str, None] = {}
    doubt = None
    for member in archive.members:
        head = archive.content(member, _SAMPLE, whole=False)
        if not head.startswith(b"\x93NUMPY"):
            raise DamagedError("one of its arrays is none")
        count, has_objects = _npy_header(Cursor(BytesReader(head), 6))
        total = None if total is None or count is None else total + count
        if has_objects:
            found = _array(archive.cursor(member))
            risks.update(dict.fromkeys(found.risks))
            doubt = doubt or found.doubt
    return Inspection("npz", 0, total, tuple(risks), doubt)


_KERAS_OWN = frozenset({"keras", "keras_cv", "keras_hub", "keras_nlp", "tensorflow", "tf_keras"})
_CODE_OF_KERAS = frozenset({"Lambda", "__lambda__"})


def _keras(archive: Archive) -> Inspection:
    """Its settings tell what is made of which modules; where their name is twice in the archive, all are looked at."""
    risks: dict[str, None] = {}
    for member in (member for member in archive.members if member.filename == "config.json"):
        data = archive.content(member)
        if _has_many_parts(data):
            return Inspection("keras", 0, doubt=f"its settings have more than {MAX_PARTS:,} values")
        try:
            risks.update(dict.fromkeys(_risks_of_keras(json.loads(data))))
        except (ValueError, RecursionError):
            return Inspection("keras", 0, None, tuple(risks), "its settings (config.json) are no JSON")
    return Inspection("keras", 0, None, tuple(risks)[:MAX_RISKS])


def _risks_of_keras(settings: Any) -> Iterator[str]:
    """What settings would make that holds code, or is from a module that is not of Keras."""
    left = [settings]
    while left:
        value = left.pop()
        left += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if not isinstance(value, dict) or "class_name" not in value:
            continue
        names = [str(value.get(key)) for key in ("class_name", "registered_name")]
        if any(re.split(r"[.>]", name)[-1] in _CODE_OF_KERAS for name in names):
            yield "a Lambda layer, which holds code"
        module = value.get("module")
        if isinstance(module, str) and module.partition(".")[0] not in _KERAS_OWN:
            yield shown_risk(f"{module}.{_function_of_keras(value) or names[0]}")


def _function_of_keras(value: Mapping[str, Any]) -> str | None:
    """The name of a function, which stands where else the settings of a layer are."""
    config = value.get("config")
    return config if value["class_name"] == "function" and isinstance(config, str) else None


_ARCHIVES: tuple[tuple[Callable[[Archive], bool], Callable[[Archive], Inspection]], ...] = (
    (lambda archive: bool(archive.ending("data.pkl")), _torch),
    (lambda archive: "config.json" in archive.names and bool(archive.ending(".h5", ".npz")), _keras),
    (lambda archive: bool(archive.names) and all(name.endswith(".npy") for name in archive.names), _npz),
)
"""What an archive may hold, and who looks at it then."""


# --- the rest ------------------------------------------------------------------------------------------------------


def _onnx(reader: Reader) -> Inspection | None:
    try:
        graph = read_graph(Cursor(reader))
    except DamagedError as error:
        return Inspection("onnx", 0, doubt=str(error))
    if graph is None:
        return None
    outside = tuple(f"data outside of its folder, {name}" for name in graph.files if _leaves(name))
    beside = tuple(name for name in graph.files if not _leaves(name))
    return Inspection("onnx", 0, graph.parameters, outside, files=beside)


def _leaves(name: str) -> bool:
    return name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or ":" in name


def _text(reader: Reader) -> Inspection | None:
    """Settings and words: text to its end, as far as is looked."""
    head = reader.read(0, _SAMPLE)
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head, final=len(head) == reader.size)
    except UnicodeDecodeError:
        return None
    if re.search(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]", text):
        return None
    return Inspection("json" if text.lstrip()[:1] in {"{", "["} else "text", 0)


def _plain(kind: str, doubt: str | None = None) -> Callable[[Reader], Inspection]:
    """A format that is known by its beginning, and no more."""
    return lambda _reader: Inspection(kind, 0, doubt=doubt)


def _begins(*marks: bytes) -> Callable[[bytes, int], bool]:
    return lambda head, _size: head.startswith(marks)


def _is_xgboost(head: bytes, _size: int) -> bool:
    return bool(re.match(rb'\s*\{\s*"(learner|version)"\s*:|\{L.{8}learner', head, re.DOTALL)) and b"learner" in head


_LAMBDA = "a Lambda layer in it, which holds code, cannot be looked for"
_LOOKS: tuple[tuple[Callable[[bytes, int], bool], Callable[[Reader], Inspection | None]], ...] = (
    (_begins(b"GGUF"), _gguf),
    (_begins(b"\x93NUMPY"), _npy),
    (_begins(b"PK\x03\x04", b"PK\x05\x06"), _zip),
    (_begins(b"\x89HDF\r\n\x1a\n"), _plain("hdf5", _LAMBDA)),
    (_is_safetensors, _safetensors),  # a header of 640 bytes begins as a pickle of protocol 2 does
    (_begins(*(bytes([0x80, protocol]) for protocol in range(1, 6))), _pickle),
    (_begins(b"\x1f\x8b", b"\x78"), _packed_pickle),
    (
        _begins(b"BZh", b"\xfd7zXZ", b"\x5d\x00\x00", b"\x04\x22\x4d\x18"),
        _plain(UNKNOWN, "it is packed, and not unpacked here"),
    ),
    (lambda head, _size: head[4:8] == b"TFL3", _plain("tflite")),
    (_begins(b"tree\nversion=", b"tree\r\nversion="), _plain("lightgbm")),
    (_is_xgboost, _plain("xgboost")),
    (_begins(b"CBM1"), _plain("catboost")),
    (lambda _head, _size: True, _onnx),
    (lambda _head, _size: True, _maybe_pickle),
    (lambda _head, _size: True, _text),
)
"""What a file may begin with, and who looks at it then; None of these means that it is something else."""
_NEVER_PICKLES = frozenset({_pickle, _maybe_pickle, _text, _zip})
"""Who has looked at a file as a pickle already. An archive, as a pickle, fails: it asks for what stands elsewhere."""


# --- models of several files ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Model:
    """All files of a model, by their paths."""

    files: Mapping[str, Inspection] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    @property
    def weights(self) -> Mapping[str, Inspection]:
        """The files that are a model: all but settings and words, unless there is nothing else."""
        found = {path: file for path, file in self.files.items() if file.format not in COMPANIONS}
        return found or self.files

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats of the weights, each once, sorted."""
        return tuple(sorted({file.format for file in self.weights.values()}))

    @property
    def parameters(self) -> int | None:
        """The numbers in all tensors; None where those of one file cannot be told, or there is no file."""
        return _sum(file.parameters for file in self.weights.values()) if self.files else None

    @property
    def words(self) -> str:
        """The whole in a line: `pytorch, 1.2 MB, 300,000 parameters`."""
        count = self.parameters
        counted = "parameters not counted" if count is None else f"{count:,} parameters"
        return f"{' and '.join(self.formats)}, {sized(self.size)}, {counted}"

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a person should know of single files: what loading them could do, and what was not told."""
        risks = [f"{path}: loading it could call {risk}" for path, file in self.files.items() for risk in file.risks]
        return (*risks, *(f"{path}: {file.doubt}" for path, file in self.files.items() if file.doubt is not None))

    def as_json(self) -> dict[str, Any]:
        """As plain values: the whole, then each file with what is known of it."""
        return {
            "size": self.size,
            "parameters": self.parameters,
            "formats": list(self.formats),
            "files": {path: _written(file) for path, file in sorted(self.files.items())},
        }


def sized(size: float, digits: int = 4) -> str:
    """Bytes in the largest unit that they fill: `200 MB`, `1.234 GB`, `17 bytes`."""
    units = ((4, "TB"), (3, "GB"), (2, "MB"), (1, "kB"))
    power, unit = next(((p, u) for p, u in units if size >= 1000**p), (0, "bytes"))
    return f"{size / 1000**power:.{digits}g} {unit}"


def _written(file: Inspection) -> dict[str, Any]:
    values = {**asdict(file), "risks": list(file.risks), "files": list(file.files)}
    return {name: value for name, value in values.items() if value not in (None, [])}


def model_from(values: Mapping[str, Any]) -> Model:
    """The model that `as_json` wrote down."""
    files = values["files"].items()
    return Model({path: _read_back(file) for path, file in files})


def _read_back(values: Mapping[str, Any]) -> Inspection:
    return Inspection(**{**values, "risks": tuple(values.get("risks", ())), "files": tuple(values.get("files", ()))})


def model_of(files: Mapping[str, Inspection]) -> Model:
    """A model of inspected files; those in which an ONNX file keeps its tensors are counted with it.

    Only bytes that are nothing else are tensors: what is packed or damaged keeps its doubt, whoever names it.
    """
    folders = {path: path.rpartition("/")[0] for path in files}
    beside = {f"{folders[path]}/{name}".lstrip("/") for path, file in files.items() for name in file.files}
    held = {
        path
        for path in beside & files.keys()
        if files[path].format == UNKNOWN and files[path].doubt in {None, _STRANGE}
    }
    as_data = {path: replace(files[path], format="onnx", parameters=0, doubt=None) for path in held}
    return Model({**files, **as_data})
