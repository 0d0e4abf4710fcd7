"""Bytes by digest: digests, files, links and trees, and the one canonical way to hash a value."""

import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NewType

from blake3 import blake3

from penstock.errors import UntrustworthyError
from penstock.patterns import any_of, has_wildcard, parts_of
from penstock.patterns import matches as matches  # noqa: PLC0414 - a tree is selected by it
from penstock.patterns import overlaps as overlaps  # noqa: PLC0414 - its twin

Digest = NewType("Digest", str)
"""BLAKE3 of some bytes, 64 lower-case hexadecimal digits."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_NOT_PLAIN = re.compile(r"(?:^|/)\.{0,2}(?:/|\Z)|\0")
"""A part that is empty, `.` or `..`, or a character that no name has."""


def digest_of_bytes(data: bytes) -> Digest:
    return Digest(blake3(data).hexdigest())


def digest_of(tag: str, value: Any) -> Digest:
    """Digest of a JSON-like value, with a type tag in front so that values of two kinds never collide.

    `value` is built of dict, list, tuple, str, int, bool and None; anything else raises TypeError. Key order does
    not matter; tuples and lists are equal.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return digest_of_bytes(f"{tag}\0{text}".encode("utf-8", "surrogatepass"))


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class File:
    """A regular file: digest of its content, its size in bytes, and whether it may be executed."""

    digest: Digest
    size: int
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link and its target as written; it is never followed."""

    target: str


Entry = File | Link


@dataclass(frozen=True)
class Tree:
    """Paths (relative, `/`-separated, no `.` or `..`) to files and links; no path lies below another entry.

    Raises UntrustworthyError for a path that leaves the tree or passes through a file or link.
    """

    entries: Mapping[str, Entry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ordered = dict(sorted(self.entries.items()))
        object.__setattr__(self, "entries", ordered)
        folders: set[str] = set()
        for path in ordered:
            if not _is_plain(path):
                raise UntrustworthyError(f"the path {path!r} would leave its folder, so the tree is refused")
            parent = path.rpartition("/")[0]
            while parent and parent not in folders:
                folders.add(parent)
                parent = parent.rpartition("/")[0]
        for path in folders & ordered.keys():
            raise UntrustworthyError(f"{path!r} is a file or link and a folder at once, so the tree is refused")

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, path: object) -> bool:
        return path in self.entries

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(e.size for e in self.entries.values() if isinstance(e, File))

    @cached_property
    def digest(self) -> Digest:
        return digest_of_bytes(self.encode())

    def encode(self) -> bytes:
        """The tree's canonical bytes, whose digest is the tree's digest."""
        rows = [[path, *_encode_entry(entry)] for path, entry in self.entries.items()]
        return b"tree\0" + json.dumps(rows, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")

    @classmethod
    def decode(cls, data: bytes) -> "Tree":
        """The inverse of `encode`; raises UntrustworthyError where the bytes are no tree."""
        head, _, body = data.partition(b"\0")
        if head != b"tree":
            raise UntrustworthyError("the stored bytes are no tree")
        try:
            rows = json.loads(body.decode("utf-8", "surrogatepass"))
            return cls({path: _decode_entry(kind, rest) for path, kind, *rest in rows})
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise UntrustworthyError("the stored tree is damaged") from error

    def select(self, patterns: Iterable[str]) -> "Tree":
        """The part of the tree that any of the patterns names (see `matches`).

        A file or folder is found without a look at every path: many steps name few of many files.
        """
        wanted = tuple(patterns)
        wild = [p for p in wanted if has_wildcard(p) or not parts_of(p)]
        chosen = set(filter(any_of(wild), self.entries)) if wild else set()
        for pattern in (p for p in wanted if p not in wild):
            chosen.update(self._named(pattern))
        return self if len(chosen) == len(self.entries) else Tree({p: self.entries[p] for p in chosen})

    def _named(self, pattern: str) -> list[str]:
        """The paths that a pattern without wildcards names: a file, or all below a folder."""
        plain = "/".join(parts_of(pattern))
        if plain in self.entries and not pattern.endswith("/"):
            return [plain]
        start, end = bisect_left(self._paths, f"{plain}/"), bisect_left(self._paths, f"{plain}0")  # 0 comes after /
        return self._paths[start:end]

    @cached_property
    def _paths(self) -> list[str]:
        return list(self.entries)

    def merge(self, other: "Tree") -> "Tree":
        """Both trees in one; where both have a path, `other` wins."""
        if not other.entries or not self.entries:
            return self if not other.entries else other
        return Tree({**self.entries, **other.entries})

    def digests(self) -> set[Digest]:
        return {e.digest for e in self.entries.values() if isinstance(e, File)}


def _is_plain(path: str) -> bool:
    return _NOT_PLAIN.search(path) is None


def _encode_entry(entry: Entry) -> list[Any]:
    if isinstance(entry, File):
        return ["x" if entry.executable else "f", entry.digest, entry.size]
    return ["l", entry.target]


def _decode_entry(kind: str, rest: list[Any]) -> Entry:
    if kind == "l":
        return Link(str(rest[0]))
    digest, size = rest
    if kind not in {"f", "x"} or not is_digest(digest) or not isinstance(size, int):
        raise ValueError(kind)
    return File(Digest(digest), size, executable=kind == "x")
