"""Pickles: what a pickle would import and make, told from its opcodes; nothing of it is ever loaded.

A pickle is a program for a small stack machine. Here the machine runs without hands: it moves texts, numbers and
tuples, and everything else is a blank. What it would import is held against a short list of names that only put data
together; any other name is a risk, since a pickle may call whatever it names.
"""

import pickletools
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any, TypeGuard

from penstock.readers import Cursor, DamagedError

MAX_RISKS = 100
MAX_TENSORS = 1_000_000
MAX_TEXT = 4096
"""Bytes of a text or number that are looked at; nothing that matters is longer."""
_MAX_DIMENSIONS = 64
_MAX_DIMENSION = 1 << 63


# --- what is harmless ----------------------------------------------------------------------------------------------

_CLASS = r"[A-Z][A-Za-z0-9]*"
_HARMLESS: Mapping[str, str] = {
    r"builtins|__builtin__": "bool|bytearray|bytes|complex|dict|float|frozenset|int|list|object|range|set|slice|str|"
    "tuple",
    "collections": "Counter|OrderedDict|defaultdict|deque",
    "copyreg|copy_reg": "_reconstructor",
    "_codecs": "encode",
    "datetime": "date|datetime|time|timedelta|timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "uuid": "UUID",
    r"joblib\.numpy_pickle": "NumpyArrayWrapper",  # its forerunner NDArrayWrapper loads any file it names
    "numpy": r"bool_?|bytes_|complex\d+|dtype|float\d+|int\d+|longlong|matrix|ndarray|object_|str_|uint\d+|ulonglong|"
    "void",
    r"numpy\._?core\.multiarray": "_reconstruct|scalar",
    r"numpy\._?core\.numeric": "_frombuffer",
    r"numpy\.ma(\.core)?": "MaskedArray|_mareconstruct",
    r"numpy\.dtypes": r"\w+DType",
    r"numpy\.random\._pickle": "__(bit_generator|generator|randomstate)_ctor",
    r"numpy\.random\.(_\w+|bit_generator)": rf"{_CLASS}|__pyx_unpickle_\w+",
    r"scipy\.sparse(\._?\w+)?": "(bsr|coo|csc|csr|dia|dok|lil)_(array|matrix)",
    r"scipy\.interpolate\._?\w+": "BSpline|interp1d",
    r"sklearn(\.\w+)*": rf"{_CLASS}|newObj|__pyx_unpickle_\w+",
    "torch": r"Size|Tensor|device|dtype|layout|memory_format|\w+Storage|b?float\d*|u?int\d+|long|half|double|bool|"
    r"short|complex\d+|cfloat|cdouble|strided|per_tensor_affine|per_channel_affine|float8_\w+",
    r"torch\._utils": "_rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state|qtensor|sparse_tensor)",
    r"torch\._tensor": "Tensor|_rebuild_from_type_v2",
    r"torch\.nn\.parameter": "Parameter|Buffer",
    r"torch\.nn\.modules\.\w+": _CLASS,
    r"torch\.optim\.\w+": _CLASS,
    r"torch\.serialization": "_get_layout",
    r"torch\.storage": "TypedStorage|UntypedStorage",
    r"torch\.cuda": r"\w+Storage",
    r"__torch__(\.\w+)*": r"\w+",
}
"""Patterns of modules, and of what in them only puts data together, whatever it is called with."""


@cache
def _is_harmless(module: str, name: str) -> bool:
    return any(re.fullmatch(m, module) and re.fullmatch(n, name) for m, n in _HARMLESS.items())


# --- values --------------------------------------------------------------------------------------------------------


class _Blank:
    """Anything that is not looked at further."""


BLANK = _Blank()


@dataclass(frozen=True, slots=True)
class _Global:
    module: str
    name: str

    @property
    def path(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class _Storage:
    """The numbers behind tensors: its key in the file, and how many they are."""

    key: str
    count: int


@dataclass(frozen=True, slots=True)
class _Dtype:
    """What an array holds, as `f8` or `U10`; `O` are objects, pickled one by one."""

    code: str

    @property
    def size(self) -> int:
        """Bytes of one element."""
        found = re.fullmatch(r"([a-zA-Z])(\d{1,9})", self.code)
        if found is None:
            raise DamagedError("it holds an array of an unknown kind")
        return int(found[2]) * (4 if found[1] == "U" else 1)


class _Wrapper(_Blank):
    """An array of joblib, whose bytes stand in the file right behind the opcodes that describe it."""


def shown_risk(what: str) -> str:
    """A name out of a file, short and as letters that a terminal shows."""
    return re.sub(r"[^\x21-\x7e ]", "?", what[:200])


@dataclass(slots=True)
class Scan:
    """What is known of a pickle. `risks` are the names it would import that are not known to be harmless.

    `tensors` are the sizes of tensors (of PyTorch) by what tells two of them apart; a tensor whose size cannot be told
    is counted in `sizeless`. `has_ended` says that it was read to its end, `fault` why it was not; `calls` how often
    something would be called, `is_joblib` that arrays stand between its opcodes, `has_objects` that one is of objects.
    """

    risks: dict[str, None] = field(default_factory=dict)
    tensors: dict[tuple[object, ...], int] = field(default_factory=dict)
    sizeless: int = 0
    calls: int = 0
    has_ended: bool = False
    fault: str | None = None
    is_joblib: bool = False
    has_objects: bool = False

    def risk(self, what: str) -> None:
        if len(self.risks) < MAX_RISKS:
            self.risks[shown_risk(what)] = None

    @property
    def parameters(self) -> int | None:
        """The numbers in all tensors; None where one cannot be told."""
        return None if self.sizeless else sum(self.tensors.values())


def scan(cursor: Cursor, found: Scan | None = None) -> Scan:
    """What the pickle at a cursor holds, which is left behind it; never raises, `fault` says what is wrong.

    Where joblib's arrays stand between the opcodes, it is read both as joblib and as pickle would.
    """
    found = Scan() if found is None else found
    start = cursor.position
    _run(cursor, found, joblib=True)
    if found.is_joblib:
        plain = Scan()
        again = cursor.at(start, cursor.position + cursor.left - start)
        _run(again, plain, joblib=False)
        found.risks.update((risk, None) for risk in plain.risks if not found.has_objects or _is_real(risk))
    return found


def _is_real(risk: str) -> bool:
    """Whether a name is of a module that is everywhere.

    Read as a pickle, an array of objects puts together names that nobody wrote, of words that are no modules.
    """
    return risk.partition(".")[0] in sys.stdlib_module_names


def _run(cursor: Cursor, found: Scan, *, joblib: bool) -> None:
    machine = _Machine(cursor, found, joblib=joblib)
    try:
        machine.run()
    except DamagedError as error:
        found.fault = str(error)
    except (IndexError, KeyError):
        found.fault = "it takes what it never put there"
    except UnicodeDecodeError:
        found.fault = "a text of it is none"


# --- the machine ---------------------------------------------------------------------------------------------------


class _Machine:
    """Runs the opcodes of one pickle on a stack of blanks."""

    def __init__(self, cursor: Cursor, found: Scan, *, joblib: bool) -> None:
        self._cursor, self._found, self._joblib = cursor, found, joblib
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> None:
        """Until STOP. Raises DamagedError, IndexError or KeyError where the program is none."""
        opcodes = _opcodes()
        while True:
            self._cursor.count()
            code = self._cursor.take(1)
            if code not in opcodes:
                raise DamagedError("it holds what is no opcode")
            name, read = opcodes[code]
            if name == "STOP":
                self._stack.pop()
                self._found.has_ended = True
                return
            self._step(name, read(self._cursor))

    def _step(self, name: str, argument: Any) -> None:
        handler = _HANDLERS.get(name)
        if handler is not None:
            handler(self, argument)
        elif name not in _NOTHING:
            self._stack.append(argument)

    # --- the stack

    def _from_mark(self) -> list[Any]:
        place = self._marks.pop()
        found = self._stack[place:]
        del self._stack[place:]
        return found

    def mark(self, _argument: Any) -> None:
        self._marks.append(len(self._stack))

    def pop(self, _argument: Any) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def drop(self, _argument: Any) -> None:
        """What goes into the list or set below is of no interest."""
        self._from_mark()

    def drop_one(self, _argument: Any) -> None:
        self._stack.pop()

    def twice(self, _argument: Any) -> None:
        self._stack.append(self._stack[-1])

    def put(self, place: Any) -> None:
        self._memo[place] = self._stack[-1]

    def memoize(self, _argument: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def get(self, place: Any) -> None:
        self._stack.append(self._memo[place])

    # --- containers

    def gather(self, _argument: Any) -> None:
        self._stack.append(tuple(self._from_mark()))

    def blank(self, _argument: Any) -> None:
        self._from_mark()
        self._stack.append(BLANK)

    def empty(self, _argument: Any) -> None:
        self._stack.append(BLANK)

    def tuple_of(self, count: int) -> None:
        found = tuple(self._stack[-count:]) if count else ()
        if len(found) < count:
            raise IndexError
        del self._stack[len(self._stack) - count :]
        self._stack.append(found)

    def empty_mapping(self, _argument: Any) -> None:
        self._stack.append({})

    def mapping(self, _argument: Any) -> None:
        items = self._from_mark()
        self._stack.append({})
        self._fill(items)

    def set_item(self, _argument: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._fill([key, value])

    def set_items(self, _argument: Any) -> None:
        self._fill(self._from_mark())

    def _fill(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, dict):
            target.update((k, v) for k, v in zip(items[::2], items[1::2], strict=False) if isinstance(k, str))

    # --- names and calls

    def name(self, pair: Any) -> None:
        self._stack.append(self._named(*pair))

    def stack_name(self, _argument: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(self._named(module, name))

    def _named(self, module: Any, name: Any) -> Any:
        if not isinstance(module, str) or not isinstance(name, str):
            self._found.risk("a name that is made while it loads")
            return BLANK
        if not _is_harmless(module, name):
            self._found.risk(f"{module}.{name}")
        return _Global(module, name)

    def extension(self, code: Any) -> None:
        self._found.risk(f"extension {code}")
        self._stack.append(BLANK)

    def instance(self, pair: Any) -> None:
        self._from_mark()
        self._named(*pair)
        self._called(BLANK, ())

    def marked_object(self, _argument: Any) -> None:
        items = self._from_mark()
        self._called(items[0], tuple(items[1:]))

    def reduce(self, _argument: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._called(function, arguments)

    def new(self, _argument: Any) -> None:
        self.reduce(None)

    def new_extended(self, _argument: Any) -> None:
        self._stack.pop()
        self.reduce(None)

    def _called(self, function: Any, arguments: Any) -> None:
        self._found.calls += 1
        self._stack.append(self._made(function, arguments if isinstance(arguments, tuple) else ()))

    def _made(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        path = function.path if isinstance(function, _Global) else ""
        if path == "copyreg._reconstructor" and arguments:
            function, path = arguments[0], arguments[0].path if isinstance(arguments[0], _Global) else ""
        if path == "torch._tensor._rebuild_from_type_v2" and len(arguments) > 2:
            function, arguments = arguments[0], arguments[2] if isinstance(arguments[2], tuple) else ()
            path = function.path if isinstance(function, _Global) else ""
        if path.startswith("torch._utils._rebuild_") and not path.endswith(_REMADE):
            self._tensor(arguments)
        if path == "numpy.dtype" and arguments and isinstance(arguments[0], str):
            return _Dtype(arguments[0])
        return _Wrapper() if path == "joblib.numpy_pickle.NumpyArrayWrapper" else BLANK

    def _tensor(self, arguments: tuple[Any, ...]) -> None:
        storage, offset, size = (*arguments, None, None, None)[:3]
        if not isinstance(storage, _Storage) or not _is_size(size) or len(self._found.tensors) >= MAX_TENSORS:
            self._found.sizeless += 1
        else:
            self._found.tensors[storage.key, offset if isinstance(offset, int) else None, size] = prod(size)

    def persistent(self, _argument: Any) -> None:
        """What stands elsewhere in the file: of PyTorch ("storage", kind, key, place, count)."""
        told = self._stack.pop()
        found: Any = BLANK
        if isinstance(told, tuple) and len(told) >= 5 and told[0] == "storage":
            key, count = told[2], told[4]
            if isinstance(key, str) and isinstance(count, int):
                found = _Storage(key, count)
        self._stack.append(found)

    def build(self, _argument: Any) -> None:
        state = self._stack.pop()
        self._found.calls += 1
        if isinstance(self._stack[-1], _Wrapper):
            self._found.is_joblib = True
            if self._joblib:
                self._array(state if isinstance(state, dict) else {})

    def _array(self, state: Mapping[str, Any]) -> None:
        """Pass over the bytes of an array of joblib; one of objects is a pickle of its own."""
        dtype, shape = state.get("dtype"), state.get("shape")
        if not isinstance(dtype, _Dtype) or not _is_size(shape):
            raise DamagedError("it holds an array of an unknown kind")
        if dtype.code.startswith("O"):
            self._found.has_objects = True
            inner = Scan(self._found.risks)
            _run(self._cursor, inner, joblib=False)
            if not inner.has_ended:
                raise DamagedError(inner.fault or "it is cut short")
            return
        if isinstance(state.get("numpy_array_alignment_bytes"), int):
            self._cursor.skip(self._cursor.number(1))
        self._cursor.skip(dtype.size * prod(shape))


_REMADE = ("_parameter", "_parameter_with_state", "_sparse_tensor")
"""What PyTorch makes of tensors that were made before."""


def _is_size(value: Any) -> TypeGuard[tuple[int, ...]]:
    """Whether a value is the size of a tensor or array."""
    if not isinstance(value, tuple) or len(value) > _MAX_DIMENSIONS:
        return False
    return all(type(n) is int and 0 <= n < _MAX_DIMENSION for n in value)


_M = _Machine
_HANDLERS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "MARK": _M.mark,
    "POP": _M.pop,
    "POP_MARK": _M.drop,
    "DUP": _M.twice,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _M.put),
    "MEMOIZE": _M.memoize,
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _M.get),
    "TUPLE": _M.gather,
    "EMPTY_TUPLE": lambda machine, _: machine.tuple_of(0),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    **dict.fromkeys(("LIST", "FROZENSET"), _M.blank),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET", "NEXT_BUFFER", "PERSID"), _M.empty),
    "EMPTY_DICT": _M.empty_mapping,
    "DICT": _M.mapping,
    "APPEND": _M.drop_one,
    **dict.fromkeys(("APPENDS", "ADDITEMS"), _M.drop),
    "SETITEM": _M.set_item,
    "SETITEMS": _M.set_items,
    "GLOBAL": _M.name,
    "STACK_GLOBAL": _M.stack_name,
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _M.extension),
    "INST": _M.instance,
    "OBJ": _M.marked_object,
    "REDUCE": _M.reduce,
    "NEWOBJ": _M.new,
    "NEWOBJ_EX": _M.new_extended,
    "BUILD": _M.build,
    "BINPERSID": _M.persistent,
}
_NOTHING = frozenset({"PROTO", "FRAME", "READONLY_BUFFER"})


# --- opcodes and their arguments -----------------------------------------------------------------------------------


@cache
def _opcodes() -> Mapping[bytes, tuple[str, Callable[[Cursor], Any]]]:
    return {o.code.encode("latin-1"): (o.name, _argument_of(o.name, o.arg)) for o in pickletools.opcodes}


_LENGTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: (1, False),
    pickletools.TAKEN_FROM_ARGUMENT4: (4, True),
    pickletools.TAKEN_FROM_ARGUMENT4U: (4, False),
    pickletools.TAKEN_FROM_ARGUMENT8U: (8, False),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}


def _argument_of(name: str, described: pickletools.ArgumentDescriptor | None) -> Callable[[Cursor], Any]:
    """What reads the argument of an opcode, and gives the value that it stands for."""
    if described is None:
        return lambda _cursor: _CONSTANTS.get(name, BLANK)
    if described.n in _LENGTHS:
        length, signed = _LENGTHS[described.n]
        made = _WITH_LENGTH.get(described.name, lambda _data: BLANK)
        return lambda cursor: _counted(cursor, cursor.number(length, signed=signed), made)
    if described.n >= 0:
        size, is_number, signed = described.n, "int" in described.name, described.name == "int4"
        return lambda cursor: cursor.number(size, signed=signed) if is_number else _passed(cursor, size)
    if described.name == "stringnl_noescape_pair":
        return lambda cursor: (cursor.line().decode(), cursor.line().decode())
    return lambda cursor: _of_line(described.name, cursor.line())


def _passed(cursor: Cursor, size: int) -> object:
    cursor.skip(size)
    return BLANK


def _counted(cursor: Cursor, length: int, made: Callable[[bytes], Any]) -> Any:
    if length < 0:
        raise DamagedError("a length in it is below 0")
    if length > MAX_TEXT:
        return _passed(cursor, length)
    return made(cursor.take(length))


_WITH_LENGTH: Mapping[str, Callable[[bytes], Any]] = {
    **{f"unicodestring{n}": lambda data: data.decode("utf-8", "surrogatepass") for n in (1, 4, 8)},
    **dict.fromkeys(("string1", "string4"), lambda d: d.decode("latin-1")),
    **dict.fromkeys(("long1", "long4"), lambda d: int.from_bytes(d, "little", signed=True)),
}


def _of_line(kind: str, line: bytes) -> Any:
    """The value of an argument that is written as a line of text."""
    text = line[:MAX_TEXT].decode("latin-1")
    if kind == "unicodestringnl":
        return line[:MAX_TEXT].decode("raw-unicode-escape", "replace")
    if kind.startswith("stringnl"):
        return text.strip().strip("'\"") if kind == "stringnl" else text
    if kind.startswith("decimalnl"):
        if text in {"00", "01"} and kind == "decimalnl_short":
            return text == "01"
        number = re.fullmatch(r"\s*([-+]?\d+(?:_\d+)*)L?\s*", text, re.ASCII)
        return int(number[1]) if number else BLANK
    return BLANK
