"""Readers: parts of a file of any size, so that a model of gigabytes costs its header.

Every file may be hostile: a declared length is never believed, and what is looked at is counted.
"""

import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, Protocol, cast

WINDOW = 64 << 10
MAX_PART = 32 << 20
"""Bytes that are read at once, at most."""
MAX_ITEMS = 5_000_000
"""Opcodes, fields and names that are looked at in one file, at most."""
MAX_DIRECTORY = 8 << 20
MAX_MEMBER = 64 << 20
_ITEMS_OF_MEMBER, _BYTES_OF_ITEM = 100, 256
"""What unpacking costs, beside an opcode: to open a member, and bytes of it for one item."""


class Reader(Protocol):
    """The bytes of a file, any part of which can be asked for."""

    @property
    def size(self) -> int:
        """How many bytes there are."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """So many bytes from an offset on; fewer where the file ends before."""
        ...


@dataclass(frozen=True, slots=True)
class BytesReader:
    """A file that is in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


class DamagedError(ValueError):
    """A file does not hold what it promises, or too much of it; the text is a clause that says so."""


@dataclass(slots=True)
class Budget:
    """What was looked at in one file so far, the members of an archive included."""

    items: int = 0

    def count(self, more: int = 1) -> None:
        """Count what is looked at. Raises DamagedError where it becomes too much."""
        self.items += more
        if self.is_spent:
            raise DamagedError(f"it has more than {MAX_ITEMS:,} parts to look at")

    @property
    def is_spent(self) -> bool:
        return self.items > MAX_ITEMS


class Cursor:
    """Reads a file from a place on, in order; nothing is read beyond `end`. What it looks at counts in its budget."""

    def __init__(self, reader: Reader, start: int = 0, end: int | None = None, budget: Budget | None = None) -> None:
        self._reader = reader
        self._end = reader.size if end is None else min(end, reader.size)
        self._window = b""
        self._base = self.position = start
        self.budget = Budget() if budget is None else budget
        self.count = self.budget.count  # called for every opcode: no detour

    @property
    def left(self) -> int:
        return self._end - self.position

    def take(self, length: int) -> bytes:
        """The next bytes. Raises DamagedError where the file ends before, or they are too many."""
        if length > self.left:
            raise DamagedError("it is cut short")
        if length > MAX_PART:
            raise DamagedError(f"a part of it has {length:,} bytes, too many to look at")
        begin = self.position - self._base
        if begin + length > len(self._window):
            self._window = self._reader.read(self.position, min(max(length, WINDOW), self.left))
            self._base, begin = self.position, 0
            if len(self._window) < length:
                raise DamagedError("it is cut short")
        self.position += length
        return self._window[begin : begin + length]

    def skip(self, length: int) -> None:
        """Pass over bytes unread."""
        if length > self.left:
            raise DamagedError("it is cut short")
        self.position += length
        if self.position - self._base > len(self._window):
            self._window, self._base = b"", self.position

    def number(self, length: int, *, signed: bool = False) -> int:
        """A little-endian number of so many bytes."""
        return int.from_bytes(self.take(length), "little", signed=signed)

    def line(self) -> bytes:
        """The bytes up to the next newline, which is passed over; at most as many as are read at once."""
        for most in (0, WINDOW, MAX_PART):
            begin = self._ahead(min(most, self.left))
            end = self._window.find(b"\n", begin)
            if end >= 0:
                self.position += end - begin + 1
                return self._window[begin:end]
        raise DamagedError("a line of it does not end")

    def _ahead(self, length: int) -> int:
        """Where in the window the cursor stands, which holds so many bytes behind it then."""
        start = self.position
        self.take(length)
        self.position = start
        return start - self._base

    def at(self, start: int, length: int) -> "Cursor":
        """Another cursor on a part of the file, with the same budget."""
        return Cursor(self._reader, start, min(start + length, self._end), self.budget)


# --- zip archives --------------------------------------------------------------------------------------------------


class _Seekable:
    """A reader as the open file that zipfile wants; it gives out no more than a directory's worth at once."""

    def __init__(self, reader: Reader) -> None:
        self._reader, self._position = reader, 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = max((0, self._position, self._reader.size)[whence] + offset, 0)
        return self._position

    def read(self, length: int = -1) -> bytes:
        left = max(self._reader.size - self._position, 0)
        length = left if length < 0 else min(length, left)
        if length > MAX_DIRECTORY:
            raise DamagedError("its directory is too large to look at")
        data = self._reader.read(self._position, length)
        self._position += len(data)
        return data


class Archive:
    """A zip archive: its members by name, and the beginnings of their content. Raises DamagedError for what is none.

    All that is unpacked of it counts in one budget.
    """

    def __init__(self, reader: Reader) -> None:
        try:
            self._zip = zipfile.ZipFile(cast("IO[bytes]", _Seekable(reader)))
        except _ZIP_FAULTS as error:
            raise DamagedError(f"its zip directory cannot be read ({_plain(error)})") from error
        self.members = tuple(self._zip.infolist())
        self.names = tuple(member.filename for member in self.members)
        self.budget = Budget()

    def ending(self, *endings: str) -> list[zipfile.ZipInfo]:
        """The members whose names end so, in small letters or large ones: some readers see no difference."""
        return [member for member in self.members if member.filename.lower().endswith(endings)]

    def cursor(self, member: zipfile.ZipInfo) -> Cursor:
        """A cursor on the content of a member."""
        return Cursor(BytesReader(self.content(member)), budget=self.budget)

    def content(self, member: zipfile.ZipInfo, limit: int = MAX_MEMBER, *, whole: bool = True) -> bytes:
        """The content of a member, which has to have at most `limit` bytes, or its first `limit` bytes."""
        if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise DamagedError(f"its {_shown(member)} is packed in an unusual way")
        self.budget.count(_ITEMS_OF_MEMBER)
        try:
            with self._zip.open(member) as stream:
                data = stream.read(limit + 1) if whole else stream.read(limit)
        except _ZIP_FAULTS as error:
            raise DamagedError(f"its {_shown(member)} cannot be read ({_plain(error)})") from error
        self.budget.count(len(data) // _BYTES_OF_ITEM)
        if len(data) > limit:
            raise DamagedError(f"its {_shown(member)} has more than {limit >> 20} MiB, too many to look at")
        return data


_ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, RuntimeError, OverflowError)


def _plain(error: Exception) -> str:
    text = str(error).partition("\n")[0]
    return re.sub(r"[^\x20-\x7e]", "?", text)[:100] or type(error).__name__


def _shown(member: zipfile.ZipInfo) -> str:
    return re.sub(r"[^\x20-\x7e]", "?", member.filename)[:80]
