"""Log files: read by ranges, capped by a hole in their midst, compressed when nobody writes them any more.

A log is read by offsets, and these never change: neither by a hole (it takes no room on the disk, and a reader shows
one line instead of it) nor by compression. `N.log` becomes `N.log.zst`: a zstd frame for each MiB, which any zstd
can unpack one after the other, and at the end a skippable frame that says where each of them lies:

    frame …  |  magic, length  |  offset in the log, length in the log, place in the file  × count  |  size, count, mark

What no frame covers is a hole. Whoever asks for a log names `N.log`, whatever has become of it.
"""

import errno
import fcntl
import os
import struct
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from penstock.errors import EngineError, UntrustworthyError

PIECE = 65536
FRAME = 1 << 20
BLOCK = 4096
"""Bytes that a hole begins and ends at a multiple of; other sizes of a file system's blocks only keep a bit more."""

SUFFIX = ".zst"
SMALL = 4 * BLOCK
"""Bytes up to which compressing would free next to nothing."""

AT_ONCE = 4 << 20
"""Bytes of logs that compress so quickly that whoever waits for their run does not notice."""

_SKIPPABLE = struct.Struct("<II")
_ENTRY = struct.Struct("<QQQ")
_END = struct.Struct("<QI8s")
_MAGIC = 0x184D2A5D
_MARK = b"penstock"
_KEEP_SIZE, _PUNCH_HOLE = 1, 2


class Piece(NamedTuple):
    """Bytes of a log to show (or the line that stands for a hole), and the offset up to which it is read with them."""

    data: bytes
    position: int


class _Log(Protocol):
    """An open log, plain or compressed."""

    @property
    def size(self) -> int:
        """Bytes by offsets, holes included."""
        ...

    def extents(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of a range that hold data, in order."""
        ...

    def data(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes of a part that holds data, in pieces; ends early where they have become a hole meanwhile."""
        ...

    def close(self) -> None: ...


# --- reading ------------------------------------------------------------------------------------------------------


def read(path: Path, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """A log from byte `start` to before byte `end` (to its end for None), in pieces of up to 1 MiB.

    A hole is one line that says how much was left out. Nothing where there is no log. Raises UntrustworthyError where
    a compressed log is damaged.
    """
    return (piece.data for piece in pieces(path, start, end))


def pieces(path: Path, start: int = 0, end: int | None = None) -> Iterator[Piece]:
    """As `read`; each piece says up to where it leads, so that whoever follows can go on from there."""
    with _opened(path) as log:
        if log is None:
            return
        stop = log.size if end is None else min(end, log.size)
        position, last, again = start, b"\n", False
        while position < stop:
            first, after = next(log.extents(position, stop), (stop, stop))
            if first > position:
                yield Piece(_left_out(first - position, last), first)
                position, last = first, b"\n"
            for data in log.data(first, after):
                position, last = position + len(data), data[-1:]
                yield Piece(data, position)
            if position == first and again:
                return  # cut off while it was read: there is no more
            again = position == first


def tail(path: Path, start: int, end: int | None, lines: int, max_bytes: int) -> list[str]:
    """The last lines of a range, as text; they are looked for in its last `max_bytes` bytes only."""
    stop = size(path) if end is None else end
    data = b"".join(read(path, max(start, stop - max_bytes), stop))
    return data.decode(errors="replace").splitlines()[-lines:]


def size(path: Path) -> int:
    """The bytes of a log by its offsets, holes included; 0 where there is none."""
    with _opened(path) as log:
        return 0 if log is None else log.size


def _left_out(count: int, last: bytes) -> bytes:
    return b"%s... %s left out (log limit) ...\n" % (b"" if last == b"\n" else b"\n", _amount(count).encode())


def _amount(count: int) -> str:
    """Bytes in powers of 1000, as people say them."""
    amount = float(count)
    for unit in ("B", "kB", "MB"):
        if round(amount, 1) < 1000:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


@contextmanager
def _opened(path: Path) -> Iterator[_Log | None]:
    """The plain log, else the compressed one, which is there before the plain one goes; None where there is neither."""
    try:
        log = _open(path)
    except OSError as error:
        raise EngineError(f"the log {path} cannot be read: {error.strerror}") from None
    try:
        yield log
    finally:
        if log is not None:
            log.close()


def _open(path: Path) -> _Log | None:
    with suppress(FileNotFoundError):
        return _Plain(path.open("rb", buffering=0))
    with suppress(FileNotFoundError):
        return _open_compressed(_compressed(path))
    return None


def _compressed(path: Path) -> Path:
    return path.with_name(path.name + SUFFIX)


class _Plain:
    """A log as it is written."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._number = stream.fileno()
        self.size = os.fstat(self._number).st_size

    def extents(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        position = start
        while position < end:
            first = self._seek(position, os.SEEK_DATA, end)
            if first >= end:
                return
            position = min(self._seek(first, os.SEEK_HOLE, end), end)
            yield first, position

    def _seek(self, position: int, what: int, end: int) -> int:
        try:
            return os.lseek(self._number, position, what)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return end
            # A file system that knows no holes: all is data.
            return position if what == os.SEEK_DATA else end

    def data(self, start: int, end: int) -> Iterator[bytes]:
        position = start
        while position < end and (data := os.pread(self._number, min(PIECE, end - position), position)):
            if b"\0" in data and self._seek(position, os.SEEK_HOLE, end) < position + len(data):
                return  # punched while it was read
            yield data
            position += len(data)

    def close(self) -> None:
        self._stream.close()


@dataclass(frozen=True, slots=True)
class _Frame:
    """A part of a log and where its compressed bytes begin in the file."""

    start: int
    length: int
    place: int

    @property
    def end(self) -> int:
        return self.start + self.length


@dataclass(frozen=True, slots=True)
class _Compressed:
    """A log at rest: a frame is unpacked when a range needs it."""

    stream: BinaryIO
    name: str
    frames: tuple[_Frame, ...]
    size: int
    index: int

    def extents(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        for frame in self._from(start):
            if frame.start >= end:
                return
            yield max(start, frame.start), min(end, frame.end)

    def data(self, start: int, end: int) -> Iterator[bytes]:
        for frame in self._from(start):
            if frame.start >= end:
                return
            yield self._unpack(frame)[max(0, start - frame.start) : end - frame.start]

    def _from(self, start: int) -> Iterator[_Frame]:
        """The frames that end after `start`."""
        first = bisect_right(self.frames, start, key=lambda frame: frame.end)
        return iter(self.frames[first:])

    def _unpack(self, frame: _Frame) -> bytes:
        import zstandard  # noqa: PLC0415 - costs milliseconds, needed by old logs only

        after = bisect_right(self.frames, frame.start, key=lambda frame: frame.start)
        stop = self.frames[after].place if after < len(self.frames) else self.index
        self.stream.seek(frame.place)
        try:
            data = zstandard.ZstdDecompressor().decompress(self.stream.read(stop - frame.place), FRAME)
        except zstandard.ZstdError:
            raise _damaged(self.name) from None
        if len(data) != frame.length:
            raise _damaged(self.name)
        return data

    def close(self) -> None:
        self.stream.close()


def _open_compressed(path: Path) -> _Compressed:
    stream = path.open("rb")
    try:
        return _read_index(stream, str(path))
    except BaseException:
        stream.close()
        raise


def _read_index(stream: BinaryIO, name: str) -> _Compressed:
    """Raises UntrustworthyError where the end of the file is no index."""
    whole = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, whole - _END.size))
    end = stream.read()
    log_size, count, mark = _END.unpack(end) if len(end) == _END.size else (0, 0, b"")
    index = whole - _END.size - count * _ENTRY.size - _SKIPPABLE.size
    if mark != _MARK or index < 0:
        raise _damaged(name)
    stream.seek(index + _SKIPPABLE.size)
    frames = tuple(_Frame(*entry) for entry in _ENTRY.iter_unpack(stream.read(count * _ENTRY.size)))
    return _Compressed(stream, name, frames, log_size, index)


def _damaged(name: str) -> UntrustworthyError:
    return UntrustworthyError(f"the compressed log {name} is damaged: what of it can be saved, zstd -d will tell")


# --- capping ------------------------------------------------------------------------------------------------------


def cap(path: Path, start: int, limit: int) -> int:
    """Keep at most `limit` bytes of what a log holds from byte `start` on: half of it from the beginning, half of the
    end. Returns how many bytes are left out by now.

    Works while a process appends, and again whenever it has: the hole grows, the beginning stays and the end moves.
    Where the file system cannot punch holes (or the log is gone or compressed) nothing is changed and 0 returned.
    Raises EngineError where the disk fails.
    """
    half = limit // 2
    try:
        number = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        end = os.fstat(number).st_size
        first = max(_up(start), _down(start + half))
        after = min(_up(end - half), _down(end))
        wanted = end - start > limit and after > first
        return after - first if wanted and _punch(number, first, after - first) else 0
    except OSError as error:
        raise EngineError(f"the log {path} cannot be shortened: {error.strerror}") from None
    finally:
        os.close(number)


def _down(offset: int) -> int:
    return offset // BLOCK * BLOCK


def _up(offset: int) -> int:
    return -(-offset // BLOCK) * BLOCK


def _punch(number: int, first: int, count: int) -> bool:
    """Give a part of a file back to the disk; whether the file system can."""
    import ctypes  # noqa: PLC0415 - needed only by logs that hit their limit

    library = ctypes.CDLL(None, use_errno=True)
    call = getattr(library, "fallocate64", None) or getattr(library, "fallocate", None)
    if call is None:
        return False
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if call(number, _KEEP_SIZE | _PUNCH_HOLE, first, count) == 0:
        return True
    code = ctypes.get_errno()
    if code in {errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.EINVAL}:
        return False
    raise OSError(code, os.strerror(code))


# --- compressing --------------------------------------------------------------------------------------------------


def put_to_rest(folder: Path) -> None:
    """Compress the logs in the folder of a run that has ended.

    A few MiB at once; more by a process of its own at the lowest priority, for which nobody waits. Raises EngineError
    where the disk fails.
    """
    logs = [path for path in sorted(folder.glob("*.log")) if path.stat().st_size > SMALL]
    if sum(path.stat().st_size for path in logs) > AT_ONCE:
        _compress_apart(logs)
    else:
        for path in logs:
            compress(path)


def _compress_apart(logs: Iterable[Path]) -> None:
    """By a process that has no parent any more when this returns; `-P` keeps it from importing what lies around."""
    script = '"$@" </dev/null >/dev/null 2>&1 &'
    python = (sys.executable, "-P", "-m", "penstock.engine.logfiles")
    command = ("/bin/sh", "-c", script, "sh", *python, *(str(path.absolute()) for path in logs))
    subprocess.run(command, cwd="/", start_new_session=True, check=True)


def compress(path: Path) -> bool:
    """Replace a log that nobody writes any more by its compressed form; returns whether that was done.

    Small logs stay as they are, and so does one that grew meanwhile or that somebody else compresses. At every moment
    one of the two can be read, and a reader that has the plain one open goes on with it. Raises EngineError where the
    disk fails; the plain log stays.
    """
    try:
        stream = path.open("rb", buffering=0)
    except FileNotFoundError:
        return False
    draft = path.with_name(f".{path.name}{SUFFIX}.part")
    with stream:
        if os.fstat(stream.fileno()).st_size <= SMALL or not _only_ours(stream, path):
            return False
        try:
            return _replace(_Plain(stream), path, draft)
        except OSError as error:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise EngineError(f"the log {path} cannot be compressed: {error.strerror}") from None


def _only_ours(stream: BinaryIO, path: Path) -> bool:
    """Whether nobody else compresses the log, or has just done so. The lock goes with the stream."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _replace(plain: _Plain, path: Path, draft: Path) -> bool:
    with draft.open("wb") as out:
        _write(plain, out)
        out.flush()
        os.fsync(out.fileno())
    if path.stat().st_size != plain.size:
        draft.unlink()
        return False
    draft.replace(_compressed(path))
    _sync(path.parent)
    path.unlink()
    return True


def _write(plain: _Plain, out: BinaryIO) -> None:
    """Frames, then the index in a frame that unpackers skip."""
    import zstandard  # noqa: PLC0415 - see `_unpack`

    packer = zstandard.ZstdCompressor(level=3, write_checksum=True, write_content_size=True)
    entries, place = [], 0
    for start, data in filter(lambda frame: frame[1], _frames(plain)):
        entries.append(_ENTRY.pack(start, len(data), place))
        place += out.write(packer.compress(data))
    index = b"".join(entries) + _END.pack(plain.size, len(entries), _MARK)
    out.write(_SKIPPABLE.pack(_MAGIC, len(index)) + index)


def _frames(plain: _Plain) -> Iterable[tuple[int, bytes]]:
    """The data of a log in parts of up to one frame, with their offsets."""
    for first, after in plain.extents(0, plain.size):
        for start in range(first, after, FRAME):
            yield start, b"".join(plain.data(start, min(after, start + FRAME)))


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def main() -> None:
    """Compress the logs that the arguments name, when nothing else wants the processor; what cannot be stays plain."""
    os.nice(19)
    for name in sys.argv[1:]:
        with suppress(EngineError):
            compress(Path(name))


if __name__ == "__main__":
    main()
