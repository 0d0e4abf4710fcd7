"""Content on its way between descriptors, on as many processors as help.

Nothing is mapped into memory: a disk that fails to give a page of a mapped file kills the process that reads it.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from typing import TypeAlias, TypeVar

import zstandard

_PIECE = 256 << 10
"""Bytes of one piece: few enough to stay in a processor's own memory from the reading to the writing."""

_LARGE = 4 << 20  # from here on a thread more costs less than it saves
_AHEAD = 4
_FEW = 8
_BATCH = 64
_HANDS = 4

T = TypeVar("T")
Buffer: TypeAlias = bytes | memoryview


def pieces(descriptor: int, size: int = -1) -> Iterator[memoryview]:
    """The content from where the descriptor stands; it is read to its end, whatever its `size` should be.

    A piece holds until so many more were asked for as `pour` has ahead: then its memory serves another one.
    """
    asked = min(size + 1, _PIECE) if size >= 0 else _PIECE
    seen = 0
    for memory in _ring(asked):
        count = os.readv(descriptor, [memory])
        if count:
            yield memory[:count]
        seen += count
        if not count or (seen == size and count < asked):
            return


def unpacked(descriptor: int) -> Iterator[memoryview]:
    """The content of a zstd frame in pieces, which hold as those of `pieces`. Raises ZstdError for what is none."""
    with (
        open(descriptor, "rb", buffering=0, closefd=False) as file,
        zstandard.ZstdDecompressor().stream_reader(file) as reader,
    ):
        for memory in _ring(_PIECE):
            count = reader.readinto(memory)
            if not count:
                return
            yield memory[:count]


def _ring(size: int) -> Iterator[memoryview]:
    """Memory for pieces, made when it is first needed, then used again and again."""
    made: list[memoryview] = []
    while len(made) < _AHEAD + 2:
        made.append(memoryview(bytearray(size)))
        yield made[-1]
    yield from cycle(made)


def write_all(descriptor: int, data: Buffer) -> None:
    """Write all of it: a disk that is nearly full takes a part without an error."""
    view = memoryview(data)
    written = os.write(descriptor, view)
    while written < len(view):
        written += os.write(descriptor, view[written:])


def pour(content: Iterable[Buffer], descriptor: int, size: int) -> None:
    """Write the pieces in their order; large content by a thread of its own, while the next pieces are made."""
    if size < _LARGE:
        for piece in content:
            write_all(descriptor, piece)
        return
    with ThreadPoolExecutor(1) as writer:
        waiting: deque[Future[None]] = deque()
        for piece in content:
            waiting.append(writer.submit(write_all, descriptor, piece))
            if len(waiting) > _AHEAD:
                waiting.popleft().result()
        for written in waiting:
            written.result()


def at_once(items: Sequence[T], size: Callable[[T], int], act: Callable[[T], object]) -> None:
    """Do it for all items, by several threads where there is enough to do; `size` is an item's in bytes.

    Raises what the first of them raised, in their order; after a failure no new ones are begun.
    """
    hands = min(_HANDS, os.cpu_count() or 1)
    if hands == 1 or (len(items) <= _FEW and sum(map(size, items)) < _LARGE):
        for item in items:
            act(item)
        return

    def do(batch: Sequence[T]) -> None:
        for item in batch:
            act(item)

    pool = ThreadPoolExecutor(hands)
    try:
        for done in [pool.submit(do, batch) for batch in _batches(items, size)]:
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(items: Sequence[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Neighbours together, few enough that all threads end at about the same time."""
    batch: list[T] = []
    held = 0
    for item in items:
        batch.append(item)
        held += size(item)
        if len(batch) >= _BATCH or held >= _LARGE:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
