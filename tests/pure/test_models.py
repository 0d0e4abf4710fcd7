"""What a model's files are, told without loading them."""

import bz2
import gzip
import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import models, readers
from penstock.models import Inspection, Model, inspect, model_from, model_of
from penstock.readers import BytesReader
from penstock.rules import FORMATS
from pure.model_files import (
    bytes_field,
    called,
    external,
    gguf,
    named,
    npy,
    onnx,
    pickled,
    safetensors,
    tensor,
    torch,
    torch_tensor,
    zipped,
)

EVIL = called(named("os", "system"), "true")
WEIGHTS = {"a": torch_tensor("0", (10, 4)), "b": torch_tensor("1", (10,))}
OLD_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19." + pickled(1001) + pickled({"little": True})


SCRIPT = {"m/code/net.py": b"x", "m/constants.pkl": pickled(torch_tensor("0", (2,)))}


def text(value: object) -> bytes:
    return struct.pack("<Q", len(json.dumps(value))) + json.dumps(value).encode()


MANY = [1 << 62] * 20
HUGE = {
    "safetensors": text({"w": {"dtype": "Q9", "shape": MANY, "data_offsets": [0, 0]}}),
    "gguf": gguf({"a": MANY}),
    "onnx": onnx(bytes_field(5, tensor(MANY))),
    "pytorch": torch(torch_tensor("0", tuple(MANY), 1)),
    "npy": npy("<f8", tuple(MANY)),
}
"""Files of a few bytes that count more numbers than there can be, by what they are."""


def looked(data: bytes) -> Inspection:
    found = inspect(BytesReader(data))
    assert found.size == len(data)
    return found


@pytest.mark.parametrize(
    ("data", "kind", "parameters"),
    [
        (safetensors({"a": ("F32", [3, 4], 48), "b": ("BF16", [5], 10), "c": ("F4", [4], 2)}), "safetensors", 21),
        (safetensors({"a": ("F64", [], 8), "new": ("F3", [9], 4)}), "safetensors", 10),
        (onnx(bytes_field(5, tensor([10, 4]))), "onnx", 40),
        (torch(WEIGHTS), "pytorch", 50),
        (OLD_TORCH + pickled(WEIGHTS) + pickled(["0", "1"]) + b"\x80" + bytes(60), "pytorch", 50),
        (
            torch(WEIGHTS, **{"m/code/net.py": b"x", "m/constants.pkl": pickled(torch_tensor("0", (2,)))}),
            "torchscript",
            52,
        ),
        (torch([1, 2]), "pytorch", None),
        (pickle.dumps({"w": [1.0]}), "pickle", None),
        (pickle.dumps({"w": [1.0]}, 0), "pickle", None),
        (pickle.dumps(1) + pickle.dumps(2), "pickle", None),
        (zlib.compress(pickle.dumps([1] * 100)), "joblib", None),
        (gzip.compress(pickle.dumps([1] * 100), mtime=0), "joblib", None),
        (npy("<f8", (3, 4), bytes(96)), "npy", 12),
        (npy("<f4", (), version=2), "npy", 1),
        (npy("|O", (1,), pickle.dumps(np.array([None]), 2)), "npy", None),
        (zipped({"a.npy": npy("<f8", (3,)), "b.npy": npy("<i4", (2, 2))}), "npz", 7),
        (zipped({"a.npy": npy("|O", (1,), pickle.dumps([1])), "b.npy": npy("<i4", (2,))}), "npz", None),
        (zipped({"config.json": b"{}", "model.weights.h5": b"x"}), "keras", None),
        (gguf({"a": [32, 4], "b": [10]}), "gguf", 138),
        (b"\x00\x00\x00\x00TFL3", "tflite", None),
        (b"tree\nversion=v4\n", "lightgbm", None),
        (b'{"learner":{"attributes":{}},"version":[2,0,0]}', "xgboost", None),
        (b'{"version":[2,0,0],"learner":{}}', "xgboost", None),
        (b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner", "xgboost", None),
        (b"CBM1", "catboost", None),
        (b'{"labels": ["a"]}', "json", None),
        (b'{"version": 2}', "json", None),
        (b"a\tb\n" + "ü".encode() * 70_000, "text", None),
        (b"", "text", None),
    ],
)
def test_a_file_is_known_by_its_content(data: bytes, kind: str, parameters: int | None) -> None:
    """Its format, the numbers in its tensors where they can be told, and no risk."""
    assert looked(data) == Inspection(kind, len(data), parameters)
    assert kind in FORMATS


def test_every_format_can_be_asked_for() -> None:
    """What the file may allow is what a model's file may be."""
    known = {looked(data).format for data in (b"", b"{}", b"BZh", *(make() for make in CORPUS))}
    assert known <= set(FORMATS)
    assert len(set(FORMATS)) == len(FORMATS)


def test_hdf5_may_hold_code_that_is_not_looked_for() -> None:
    """Its format is known and its risks are not."""
    assert looked(b"\x89HDF\r\n\x1a\n") == Inspection(
        "hdf5", 8, doubt="a Lambda layer in it, which holds code, cannot be looked for"
    )


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (torch({**WEIGHTS, "x": EVIL}), "pytorch"),
        (torch(WEIGHTS, **{"other/data.pkl": pickled(EVIL)}), "pytorch"),
        (zipped({"m/DATA.PKL": pickled(EVIL)}), "pytorch"),
        (OLD_TORCH + pickled({**WEIGHTS, "x": EVIL}), "pytorch"),
        (pickled(EVIL), "pickle"),
        (pickle.dumps(1) + pickled(EVIL), "pickle"),
        (b"cos\nsystem\n(S'true'\ntR.", "pickle"),
        (zlib.compress(pickled(EVIL)), "joblib"),
        (npy("|O", (1,), pickled(EVIL)), "npy"),
        (zipped({"a.npy": npy("|O", (1,), pickled(EVIL))}, zipfile.ZIP_DEFLATED), "npz"),
    ],
)
def test_what_loading_could_do_is_told(data: bytes, kind: str) -> None:
    """By name, in every format that holds pickles, wherever the pickle lies."""
    found = looked(data)
    assert (found.format, found.risks, found.doubt) == (kind, ("os.system",), None)


PROGRAM = b"0cos\nsystem\n(S'true'\ntR."


def as_safetensors(program: bytes) -> bytes:
    """Tensors of none, in a header whose length begins with an opcode that takes what is behind it for a text."""
    header = b'{"__metadata__":{"a":"V'.ljust(0x1C43 - 4, b"x") + b'"\n}}'
    return struct.pack("<Q", len(header)) + header + program


def as_onnx(program: bytes) -> bytes:
    """A graph after a text that is a field of it, and the argument of an opcode."""
    return b"B\x04" + bytes(4) + bytes([0x12, len(program) + 1]) + b"z" + program + b"\x3a\x00\x08\x01"


POLYGLOTS = {
    "tflite": b"C\x0aaaTFL3bbbb" + PROGRAM,
    "catboost": b"CBM1" + bytes(64) + PROGRAM,
    "onnx": as_onnx(PROGRAM),
    "safetensors": as_safetensors(PROGRAM),
}
"""Files of a harmless format that are programs to who loads them as pickles."""


@pytest.mark.parametrize("kind", POLYGLOTS)
def test_what_a_file_would_do_as_a_pickle_is_told(kind: str) -> None:
    """Though it is a good file of another format."""
    found = looked(POLYGLOTS[kind])
    assert (found.format, found.risks, found.doubt) == (kind, ("os.system",), None)


def test_a_program_too_long_to_look_at_is_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file of another format, in one of none, and packed: what stands at its end is not seen."""
    monkeypatch.setattr(readers, "MAX_ITEMS", 50)
    long = b"N0" * 50 + PROGRAM[1:]
    for data in (b"C\x0aaaTFL3bbbb0" + long, long, zlib.compress(long)):
        assert "it has more than 50 parts to look at" in str(looked(data).doubt)


def test_a_packed_pickle_of_the_oldest_kind_is_looked_at() -> None:
    """Without a mark at its beginning, and cut short."""
    data = zlib.compress(PROGRAM[1:])
    assert looked(data) == Inspection("joblib", len(data), None, ("os.system",))
    cut = zlib.compress(PROGRAM[1:-1] + bytes(range(256)))[:-6]
    found = looked(cut)
    assert (found.risks, found.doubt) == (
        ("os.system",),
        "its pickle is cut short, or unpacked too large to look at",
    )


def test_an_archive_of_two_kinds_hides_none_of_its_risks() -> None:
    """What is PyTorch's to one program is Keras's to another."""
    settings = b'{"class_name": "Lambda"}'
    found = looked(torch({"x": EVIL}, **{"config.json": settings, "model.weights.h5": b""}))
    assert (found.format, found.risks) == ("pytorch", ("os.system", LAMBDA))


LAMBDA = "a Lambda layer, which holds code"


@pytest.mark.parametrize(
    ("settings", "risks"),
    [
        ('{"layers": [{"class_name": "Lambda"}]}', [LAMBDA]),
        ('{"class_name" : "Lambda"}', [LAMBDA]),
        ('{"class_name": "\\u004cambda"}', [LAMBDA]),
        ('{"module": "keras", "class_name": "layers.Lambda"}', [LAMBDA]),
        ('{"class_name": "x", "registered_name": "keras>Lambda"}', [LAMBDA]),
        ('{"class_name": "__lambda__", "config": {"value": ["4wE"]}}', [LAMBDA]),
        ('[[{"a": [{"module": "os", "class_name": "function", "config": "system"}]}]]', ["os.system"]),
        ('{"module": "builtins", "class_name": "Layer", "config": {}}', ["builtins.Layer"]),
        ('{"module": "kerasx.layers", "class_name": "\\u00e9"}', ["kerasx.layers.?"]),
        ('{"module": "keras.layers", "class_name": "Dense", "config": {"name": "Lambda"}}', []),
        ('{"module": null, "class_name": "Own", "registered_name": "mine>Own"}', []),
        ('{"config": {"module": "encoder"}}', []),
    ],
)
def test_what_keras_would_make_is_told(settings: str, risks: list[str]) -> None:
    """Layers that hold code and whatever is of other modules, however the JSON is written."""
    for encoding in ("utf-8", "utf-16"):
        found = looked(zipped({"config.json": settings.encode(encoding), "model.weights.h5": b""}))
        assert (found.format, list(found.risks), found.doubt) == ("keras", risks, None)


def test_every_settings_of_keras_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is twice in an archive hides nothing, and settings that cannot be read are in doubt."""
    evil = b'{"module": "os", "class_name": "function", "config": "system"}'
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = zipped_twice("config.json", b"{}", evil)
    assert looked(twice).risks == ("os.system",)
    for bad in (b"{", b"[" * 50_000):
        assert looked(zipped({"config.json": bad, "w.h5": b""})).doubt == "its settings (config.json) are no JSON"
    monkeypatch.setattr(models, "MAX_PARTS", 2)
    many = looked(zipped({"config.json": evil, "w.h5": b""}))
    assert many.doubt == "its settings have more than 2 values"


def zipped_twice(name: str, *contents: bytes) -> bytes:
    """An archive of Keras with several members of one name."""
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("model.weights.h5", b"")
            for content in contents:
                archive.writestr(name, content)
        return file.getvalue()


def test_other_risks_are_told() -> None:
    """Tensors that lie where they should not."""
    for place in ("../../etc/passwd", "/etc/passwd", "a/../../b", "C:\\x"):
        found = looked(onnx(bytes_field(5, tensor([2], external(place)))))
        assert (found.risks, found.files) == ((f"data outside of its folder, {place}",), ())


@pytest.mark.parametrize(
    ("data", "kind", "doubt"),
    [
        (b"\x00\x01\x02\x03" * 10, "unknown", "its format is not known"),
        (text([1]), "unknown", "its format is not known"),
        (
            text({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}),
            "safetensors",
            "does not fit its content",
        ),
        (
            text({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 0]}}),
            "safetensors",
            "does not fit its content",
        ),
        (text({"a": {"dtype": "F32", "shape": [1 << 63], "data_offsets": [0, 0]}}), "safetensors", "does not fit"),
        (text({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 0]}}), "safetensors", "does not fit"),
        (text({"a": {"dtype": "F32", "shape": [1] * 65, "data_offsets": [0, 4]}}), "safetensors", "does not fit"),
        (text({"a": {"dtype": None, "shape": [], "data_offsets": [0]}}), "safetensors", "does not fit"),
        (text({"a": 5}), "safetensors", "its header does not fit its content: it is damaged or cut short"),
        (struct.pack("<Q", 200_000) + b'{"a":' * 40_000, "unknown", "its format is not known"),
        (b"PK\x03\x04 and more", "unknown", "its zip directory cannot be read"),
        (zipped({"x": b"y"}), "unknown", "it is a zip archive of no known kind of model"),
        (zipped({}), "unknown", "it is a zip archive of no known kind of model"),
        (zipped({"a.npy": b"no array"}), "unknown", "one of its arrays is none"),
        (zipped({"m/data.pkl": b"\x80\x02cos"}), "pytorch", "its pickle was not read to the end: a line of it"),
        (torch(WEIGHTS, **{"x/data.pkl": b"\x80"}), "pytorch", "its pickle was not read to the end: it is cut short"),
        (b"\x80\x04\x95", "pickle", "its pickle was not read to the end: it is cut short"),
        (pickle.dumps(1) + b"\x80\x04\xff", "pickle", "it holds what is no opcode"),
        (b"cos\nsystem\n(S'true'\ntR\xff", "pickle", "it holds what is no opcode"),
        (zlib.compress(pickle.dumps([1] * 100))[:-6], "joblib", "its pickle is cut short, or unpacked too large"),
        (zlib.compress(b"words"), "unknown", "its format is not known"),
        (b"x is no zlib", "text", None),
        (b"BZh91AY", "unknown", "it is packed, and not unpacked here"),
        (b"\x93NUMPY\x01\x00", "unknown", "it is cut short"),
        (b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 31), "unknown", "the header of its array is too large"),
        (npy("<f8", ()).replace(b"shape", b"ships"), "unknown", "the header of its array is none"),
        (npy("|O", (1,), b"\x80"), "npy", "its pickle was not read to the end"),
        (gguf({"a": [2]})[:-3], "gguf", "it is cut short"),
        (gguf({}, version=1), "gguf", "its version 1 of GGUF is not known"),
        (gguf({"a": [1] * 65}), "gguf", "the size of a tensor in it is none"),
        (onnx(bytes_field(5, tensor([1 << 63]))), "onnx", "the size of a tensor in it is none"),
        *((data, kind, "it counts 2^63 numbers or more: it is damaged") for kind, data in HUGE.items()),
    ],
)
def test_what_cannot_be_told_is_in_doubt(data: bytes, kind: str, doubt: str | None) -> None:
    """Damaged, cut short, too large or unknown: no number, and a clause that says why."""
    found = looked(data)
    assert (found.format, found.parameters) == (kind, None)
    assert found.doubt is None if doubt is None else doubt in str(found.doubt)


def test_settings_of_gguf_are_passed_over() -> None:
    """Numbers, texts, lists of both, lists of lists up to a depth, and nothing else."""

    def pair(kind: int, value: bytes) -> bytes:
        return struct.pack("<Q", 1) + b"k" + struct.pack("<I", kind) + value

    words = struct.pack("<IQ", 8, 2) + 2 * (struct.pack("<Q", 3) + b"abc")
    lists = struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 5, 3) + bytes(12)
    pairs = pair(4, bytes(4)) + pair(8, struct.pack("<Q", 2) + b"hi") + pair(9, words) + pair(9, lists)
    assert looked(gguf({"a": [7]}, pairs, 4)).parameters == 7
    deep = pair(9, struct.pack("<IQ", 9, 1) * 5)
    for bad in (pair(99, b""), deep):
        assert looked(gguf({"a": [7]}, bad, 1)).doubt == "it holds a value of an unknown kind"
    assert looked(gguf({}, pair(9, struct.pack("<IQ", 0, 1 << 62)), 1)).doubt == "it is cut short"


def test_headers_and_pickles_have_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too large to look at is said so, and never read."""
    monkeypatch.setattr(models, "MAX_HEADER", 10)
    found = looked(safetensors({"a": ("F32", [1], 4)}))
    assert found.doubt == "its header has 0 MiB, too many to look at"
    monkeypatch.setattr(models, "MAX_HEADER", 1000)
    monkeypatch.setattr(models, "MAX_PARTS", 10)
    found = looked(safetensors({"a": ("F32", [1], 4)}))
    assert found.doubt == "its header has more than 10 values, too many to look at"
    monkeypatch.setattr(models, "MAX_MEMBER", 50)
    assert "too large to look at" in str(looked(zlib.compress(pickle.dumps(list(range(100))))).doubt)


def test_all_pickles_of_an_archive_share_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many members that are each small enough are too much together, of PyTorch as of NumPy."""
    half = pickle.dumps([None] * 300)
    objects = npy("|O", (1,), half)
    monkeypatch.setattr(readers, "MAX_ITEMS", 700)
    for one, two in (
        (torch(half), torch(half, **{"m/b.pkl": half, "m/c.pkl": half})),
        (zipped({"a.npy": objects}), zipped({"a.npy": objects, "b.npy": objects})),
    ):
        assert "parts to look at" not in str(looked(one).doubt)
        assert "it has more than 700 parts to look at" in str(looked(two).doubt)


def test_of_a_large_file_only_the_header_is_read() -> None:
    """Gigabytes of tensors cost nothing."""
    header = text({"a": {"dtype": "F32", "shape": [1 << 31], "data_offsets": [0, 1 << 33]}})

    class Large:
        size = len(header) + (1 << 33)
        asked = 0

        def read(self, offset: int, length: int) -> bytes:
            Large.asked += length
            return (header[offset : offset + length]).ljust(min(length, 1 << 20), b"\0")

    assert inspect(Large()).parameters == 1 << 31
    assert Large.asked < 1 << 20


CORPUS: list[Callable[[], bytes]] = [
    lambda: safetensors({"a": ("F32", [3], 12)}),
    lambda: onnx(bytes_field(5, tensor([4]))),
    lambda: torch(WEIGHTS),
    lambda: OLD_TORCH + pickled(WEIGHTS),
    lambda: npy("|O", (1,), pickle.dumps([1])),
    lambda: zipped({"a.npy": npy("<f8", (3,))}, zipfile.ZIP_DEFLATED),
    lambda: gguf({"a": [2]}),
    lambda: zlib.compress(pickle.dumps([1])),
]


@given(st.integers(8, 1 << 13))
@settings(deadline=None)
def test_no_length_of_a_header_makes_tensors_anything_else(eighths: int) -> None:
    """Whatever its bytes would be elsewhere."""
    header = b'{"a":{"dtype":"U8","shape":[5000],"data_offsets":[0,5000]}}'.ljust(8 * eighths)
    data = struct.pack("<Q", len(header)) + header + bytes(5000)
    assert looked(data) == Inspection("safetensors", len(data), 5000)


@pytest.mark.parametrize("length", [0x180, 0x280, 0x380, 0x480, 0x580])
def test_a_header_that_begins_as_a_pickle_does_is_one_of_tensors(length: int) -> None:
    """Its length is the mark of a protocol."""
    header = b'{"a":{"dtype":"U8","shape":[5],"data_offsets":[0,5]}}'.ljust(length)
    assert looked(struct.pack("<Q", length) + header + bytes(5)).parameters == 5


@given(good=st.sampled_from(CORPUS), noise=st.binary(max_size=60), cut=st.integers(0, 300), kept=st.booleans())
@settings(deadline=None)
def test_no_bytes_break_an_inspection(good: Callable[[], bytes], noise: bytes, cut: int, *, kept: bool) -> None:
    """Whatever is in a file, and wherever it was damaged, something is said of it."""
    data = good()
    damaged = data[:cut] + noise + (data[cut + len(noise) :] if kept else b"")
    found = inspect(BytesReader(damaged))
    assert found.format
    assert found.parameters is None or found.parameters >= 0


# --- models of several files ---------------------------------------------------------------------------------------


def test_a_model_is_all_of_its_weights() -> None:
    """Sizes and numbers add up; settings and words beside it are no part of the model but of its size."""
    files = {
        "model/a.safetensors": Inspection("safetensors", 100, 20),
        "model/b.onnx": Inspection("onnx", 50, 5),
        "model/config.json": Inspection("json", 7),
        "model/vocabulary.txt": Inspection("text", 3),
    }
    found = model_of(files)
    assert (found.size, found.parameters, found.formats) == (160, 25, ("onnx", "safetensors"))
    alone = model_of({"model/weights.json": Inspection("json", 7)})
    assert (alone.formats, alone.parameters) == (("json",), None)
    assert (Model().parameters, Model().formats, Model().size) == (None, (), 0)
    assert model_of({**files, "model/x.pkl": Inspection("pickle", 1)}).parameters is None


def test_files_that_hold_the_tensors_of_another_are_counted_with_it() -> None:
    """An ONNX file names them, in its own folder; a file that is known by itself stays what it is."""
    files = {
        "model/a.onnx": Inspection("onnx", 50, 5, files=("a.data", "b.pkl", "none")),
        "model/a.data": Inspection("unknown", 20, doubt="its format is not known"),
        "model/b.pkl": Inspection("pickle", 20),
        "a.data": Inspection("unknown", 20, doubt="its format is not known"),
    }
    found = model_of(files).files
    assert found["model/a.data"] == Inspection("onnx", 20, 0)
    assert {path: file for path, file in found.items() if path != "model/a.data"} == {
        path: file for path, file in files.items() if path != "model/a.data"
    }
    packed = looked(bz2.compress(pickled(EVIL)))
    named_too = {"a.onnx": Inspection("onnx", 1, 1, files=("model.joblib",)), "model.joblib": packed}
    assert packed.doubt == "it is packed, and not unpacked here"
    assert model_of(named_too).files["model.joblib"] == packed
    root = {"a.onnx": Inspection("onnx", 1, 1, files=("a.data",)), "a.data": Inspection("unknown", 1)}
    assert model_of(root).formats == ("onnx",)


def test_a_model_is_told_in_a_line() -> None:
    """Format, size and parameters, and what a person should know of single files."""
    known = model_of({"a": Inspection("pytorch", 1_234_567, 300_000)})
    assert (known.words, known.remarks) == ("pytorch, 1.235 MB, 300,000 parameters", ())
    files = {"a": Inspection("pickle", 7, None, ("os.system",)), "b": Inspection("unknown", 1, doubt="it is cut short")}
    odd = Model(files)
    assert odd.words == "pickle and unknown, 8 bytes, parameters not counted"
    assert odd.remarks == ("a: loading it could call os.system", "b: it is cut short")


def test_a_model_survives_being_written_down() -> None:
    """As plain JSON, without what says nothing."""
    files = {
        "b": Inspection("pytorch", 9, None, ("os.system",), "its pickle was not read to the end"),
        "a": Inspection("onnx", 5, 0, files=("a.data",)),
    }
    values = json.loads(json.dumps(Model(files).as_json()))
    assert model_from(values) == Model(files)
    assert values["files"]["a"] == {"format": "onnx", "size": 5, "parameters": 0, "files": ["a.data"]}
    assert (values["size"], values["parameters"], values["formats"]) == (14, None, ["onnx", "pytorch"])
