"""What pickles would import and make, told without loading them."""

import collections
import datetime as dt
import decimal
import fractions
import pickle
import struct
import uuid
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import pickles
from penstock.pickles import Scan, scan
from penstock.readers import BytesReader, Cursor
from pure.model_files import called, kept, named, pickled, torch_tensor

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def scanned(data: bytes) -> Scan:
    return scan(Cursor(BytesReader(data)))


class Evil:
    """What calls whatever it likes as it is loaded."""

    def __reduce__(self) -> Any:
        import os  # noqa: PLC0415 - the name is what matters

        return os.system, ("true",)


HARMLESS: list[Any] = [
    {"a": [1, -2.5, None, True, 10**40], "b": (1, (2, ()), b"x" * 300, "ü" * 5000), "c": {1, 2}, "d": frozenset("ab")},
    bytearray(b"abc"),
    collections.OrderedDict(a=1),
    collections.Counter("abca"),
    collections.defaultdict(list, a=[1]),
    dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    decimal.Decimal("1.5"),
    fractions.Fraction(1, 3),
    uuid.UUID(int=5),
    complex(1, 2),
    slice(1, 2),
    np.arange(6.0).reshape(2, 3),
    np.float32(1.5),
    np.dtype([("a", "f8")]),
    np.array(["a", None], dtype=object),
    np.ma.masked_array([1, 2], mask=[True, False]),
    np.random.default_rng(1),
]


@pytest.mark.parametrize("value", HARMLESS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_data_is_no_risk(value: Any, protocol: int) -> None:
    """What only holds numbers, texts and arrays is read to its end in every protocol, and names nothing."""
    found = scanned(pickle.dumps(value, protocol))
    assert (found.risks, found.has_ended, found.fault) == ({}, True, None)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_call_of_anything_else_is_a_risk(protocol: int) -> None:
    """By the name that would be imported, wherever it stands."""
    found = scanned(pickle.dumps({"weights": [1.0, 2.0], "more": (Evil(),)}, protocol))
    assert list(found.risks) == ["posix.system"]
    assert found.has_ended


@pytest.mark.parametrize(
    ("program", "risk"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"(S'true'\nios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\nS'true'\no.", "os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93)R.", "os.system"),
        (b"\x80\x04\x8c\x05numpy\x8c\x09os.system\x93)R.", "numpy.os.system"),
        (b"\x80\x04\x8c\x05numpy0\x8c\x02os\x94\x8c\x06system\x94\x30\x30h\x00h\x01\x93)R.", "os.system"),
        (b"\x8c\x02osp1_0\n0\x8c\x06systemp1_1\n0h\x0ah\x0b\x93)R.", "os.system"),
        (b"V" + b"x" * 70_000 + b"\n0cos\nsystem\n)R.", "os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93)\x81.", "os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93)}\x92.", "os.system"),
        (b"\x80\x02ctorch.storage\n_load_from_bytes\n)R.", "torch.storage._load_from_bytes"),
        (b"\x80\x02csklearn.utils\nos.system\n)R.", "sklearn.utils.os.system"),
        (b"\x80\x02cbuiltins\neval\n)R.", "builtins.eval"),
        (b"\x80\x02cjoblib.numpy_pickle\nNDArrayWrapper\n)R.", "joblib.numpy_pickle.NDArrayWrapper"),
        (b"\x80\x02ccollections\nOrderedDict\n)R\x82\x07.", "extension 7"),
        (b"\x80\x04N\x8c\x01a\x93.", "a name that is made while it loads"),
        (b"\x80\x02c\xc3\xbc\n\xe2\x80\xae\n.", "?.?"),
    ],
)
def test_no_way_to_a_name_is_missed(program: bytes, risk: str) -> None:
    """Every opcode that leads to a function is followed, through memo, stack and extensions."""
    assert risk in scanned(program).risks


def test_names_before_a_fault_count() -> None:
    """A program that breaks off has already done what stands before."""
    found = scanned(b"cos\nsystem\n(S'true'\ntR\xff")
    assert (list(found.risks), found.has_ended, found.fault) == (["os.system"], False, "it holds what is no opcode")


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        (b"", "cut short"),
        (b"\x80", "cut short"),
        (b".", "never put there"),
        (b"R.", "never put there"),
        (b"\x86.", "never put there"),
        (b"h\x05.", "never put there"),
        (b"t.", "never put there"),
        (b"cos\n\xff\xfe\n.", "a text of it is none"),
        (b"T\xff\xff\xff\xff.", "a length in it is below 0"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "cut short"),
        (b"cos", "does not end"),
    ],
)
def test_what_is_no_program_is_told(program: bytes, fault: str) -> None:
    """In a clause, however long a length pretends to be."""
    found = scanned(program)
    assert fault in str(found.fault)
    assert not found.has_ended


@pytest.mark.parametrize(
    "program",
    [
        b"(I01\nI00\nI-5\nL10L\nF1.5\nV\\u00fc\nNl.",
        b"((I1\n2I2\n1l.",
        b"(lp0\nI1\na(I2\nI3\neg0\n.",
        b"(dp0\nS'a'\nI1\ns.",
        b"(S'a'\nI1\nS'b'\nI2\nd.",
        b"(0N.",
        b"Pid\n.",
        b"\x80\x05\x96\x02\x00\x00\x00\x00\x00\x00\x00ab\x97\x98.",
        b"\x80\x02K\x01K\x02K\x03\x87.",
        b"Iabc\n.",
        b"\x80\x02ccopyreg\n_reconstructor\n(cnumpy\nndarray\ncbuiltins\nobject\nNtR.",
        b"\x80\x02NNNs.",
    ],
)
def test_old_and_rare_opcodes_are_followed(program: bytes) -> None:
    """To the end, without a risk."""
    found = scanned(program)
    assert (found.risks, found.has_ended) == ({}, True)


def test_only_so_many_risks_are_named() -> None:
    """Enough for anyone to see, and no more to keep."""
    assert len(scanned(b"".join(f"cos\nf{n}\n0".encode() for n in range(200)) + b"N.").risks) == 100


# --- PyTorch -------------------------------------------------------------------------------------------------------


def test_numbers_of_tensors_are_counted() -> None:
    """Each once, though two names mean the same tensor; a view counts as what it shows."""
    tied = torch_tensor("0", (10, 4))
    value = {"a": tied, "b": tied, "c": torch_tensor("1", (3,)), "d": torch_tensor("1", (2,), 3)}
    found = scanned(pickled(value))
    assert (found.parameters, found.risks, found.has_ended) == (45, {}, True)


def test_parameters_and_kinds_of_tensors_are_counted_once() -> None:
    """A parameter is a tensor that was made before; a tensor of another kind is remade by what made it."""
    tensor = torch_tensor("0", (5,))
    parameter = called(named("torch._utils", "_rebuild_parameter"), tensor, True, {})
    rebuilt = named("torch._utils", "_rebuild_tensor_v2")
    kind = called(
        named("torch._tensor", "_rebuild_from_type_v2"),
        rebuilt,
        named("torch.nn.parameter", "Buffer"),
        (kept("storage", named("torch", "FloatStorage"), "7", "cpu", 6), 0, (6,), (1,)),
        {},
    )
    assert scanned(pickled([]) + pickled({})[2:]).parameters == 0
    assert scanned(pickled({"p": parameter, "k": kind})).parameters == 11


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (1, 0, (2,)),
        (kept("storage", 1, 2, 3, 4), 0, (2,)),
        (kept("elsewhere"), 0, (2,)),
        (kept("storage", 1, "0", "cpu", 4), 0, (-2,)),
        (kept("storage", 1, "0", "cpu", 4), 0, (True,)),
        (kept("storage", 1, "0", "cpu", 4), 0, (1 << 63,)),
        (kept("storage", 1, "0", "cpu", 4), 0, (1,) * 65),
        (kept("storage", 1, "0", "cpu", 4), 0, None),
    ],
)
def test_a_tensor_without_a_size_makes_the_number_unknown(arguments: tuple[Any, ...]) -> None:
    """It is not guessed."""
    made = called(named("torch._utils", "_rebuild_tensor_v2"), *arguments)
    assert scanned(pickled({"a": torch_tensor("1", (3,)), "b": made})).parameters is None


def test_too_many_tensors_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that leaves some out is none."""
    monkeypatch.setattr(pickles, "MAX_TENSORS", 2)
    tensors = [torch_tensor(str(n), (3,)) for n in range(3)]
    assert scanned(pickled(tuple(tensors[:2]))).parameters == 6
    assert scanned(pickled(tuple(tensors))).parameters is None


# --- joblib --------------------------------------------------------------------------------------------------------


def wrapper(dtype: Any, shape: Any, **more: Any) -> Any:
    state = {"subclass": named("numpy", "ndarray"), "shape": shape, "order": "C", "dtype": dtype, **more}
    return called(named("joblib.numpy_pickle", "NumpyArrayWrapper"), state=state)


def dtype(code: str) -> Any:
    return called(named("numpy", "dtype"), code, False, True)


def joblib(array: Any, content: bytes, after: bytes = b"cos\nsystem\n)R") -> bytes:
    """An array, its content between the opcodes, and more opcodes."""
    return pickled(array)[:-1] + content + after + b"."


@pytest.mark.parametrize(
    ("array", "content"),
    [
        (wrapper(dtype("f8"), (2, 3)), b"\xff" * 48),
        (wrapper(dtype("U2"), (3,)), b"\xff" * 24),
        (wrapper(dtype("f4"), (2,), numpy_array_alignment_bytes=16), b"\x03\xff\xff\xff" + b"\xff" * 8),
        (wrapper(dtype("O8"), (2,)), pickle.dumps(np.array(["a", None], dtype=object), 2)),
    ],
)
def test_what_stands_behind_an_array_of_joblib_is_seen(array: Any, content: bytes) -> None:
    """The array is passed over, whatever its bytes look like."""
    found = scanned(joblib(array, content))
    assert (list(found.risks), found.has_ended, found.is_joblib) == (["os.system"], True, True)


def test_what_only_pickle_would_read_is_seen() -> None:
    """The bytes of an array may be opcodes to who does not know that they are an array."""
    hidden = b"cos\nsystem\n)R.".ljust(48, b"\xff")
    assert list(scanned(joblib(wrapper(dtype("f8"), (6,)), hidden, b"")).risks) == ["os.system"]
    # An array of objects is a pickle of its own, which pickle would read on with the memo of the one around it.
    inner = b"\x80\x04\x8c\x05numpy\x94\x8c\x05dtype\x94\x30\x30h\x00h\x01\x93."
    for words, risks in ((b"\x8c\x02osq\0\x8c\x06systemq\1", ["os.system"]), (b"\x8c\x01aq\0\x8c\x01bq\1", [])):
        outer = pickled(wrapper(dtype("O8"), (1,)))[:-2] + words + b"\x30\x30b"
        assert list(scanned(outer + inner + b".").risks) == risks
    objects = pickle.dumps(np.array(["a"], dtype=object), 2)
    assert list(scanned(joblib(wrapper(dtype("O8"), (1,)), objects, b"")).risks) == []


@pytest.mark.parametrize(
    ("array", "content", "fault"),
    [
        (wrapper(dtype("f8"), (1 << 40,)), b"", "cut short"),
        (wrapper(dtype("what"), (2,)), b"", "an array of an unknown kind"),
        (wrapper(None, (2,)), b"", "an array of an unknown kind"),
        (wrapper(dtype("f8"), "x"), b"", "an array of an unknown kind"),
        (wrapper(dtype("O8"), (2,)), b"\xff", "no opcode"),
        (called(named("joblib.numpy_pickle", "NumpyArrayWrapper"), state=5), b"", "an array of an unknown kind"),
    ],
)
def test_arrays_that_lie_are_told(array: Any, content: bytes, fault: str) -> None:
    """A size beyond the file, a kind that is none, objects that are none."""
    found = scanned(joblib(array, content, b""))
    assert fault in str(found.fault)
    assert not found.has_ended


@given(data=st.binary(max_size=120), cut=st.integers(0, 400))
@settings(deadline=None)
def test_no_bytes_break_the_scan(data: bytes, cut: int) -> None:
    """Whatever is in the file, something is said of it, and quickly."""
    good = joblib(wrapper(dtype("f8"), (2, 3)), bytes(48))
    for content in (data, good[:cut] + data, good[:cut] + data + good[cut:]):
        found = scanned(content)
        assert found.has_ended or found.fault


@given(
    values=st.recursive(
        st.none() | st.integers() | st.text() | st.binary(), lambda inner: st.lists(inner) | st.tuples(inner, inner)
    ),
    protocol=st.sampled_from(PROTOCOLS),
)
@settings(deadline=None)
def test_every_pickle_of_plain_values_is_read_to_its_end(values: Any, protocol: int) -> None:
    """As pickle itself would."""
    found = scanned(pickle.dumps(values, protocol) + struct.pack("d", 1.5))
    assert (found.has_ended, found.risks) == (True, {})
