"""Readings: evidence in trees of the cache, read once for all gates that judge it.

Two models that met the same test set share a file of truths, which is read once for both.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from penstock.artifacts import Digest, File
from penstock.cache.contract import Cache
from penstock.columns import Columns
from penstock.errors import ReportError
from penstock.evidence import Evidence, further, read_evidence, read_truth
from penstock.parities import read_answers
from penstock.parts import EvidenceFiles
from penstock.rules import Gate

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What evidence is read for: by which scores it is judged, and in which slices."""

    scores: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()

    @classmethod
    def of(cls, leaves: Iterable[Gate]) -> "Wanted":
        """What some gates on evidence want of it."""
        judged = [leaf for leaf in leaves if leaf.same_as is None]
        scores = dict.fromkeys(leaf.score or "correct" for leaf in judged)
        slices = dict.fromkeys(name for leaf in judged if leaf.slices is not None for name in leaf.slices.by)
        return cls(tuple(scores), tuple(slices))

    @property
    def whole(self) -> "Wanted":
        """The same without slices."""
        return Wanted(self.scores)


class Readings:
    """Reads evidence; where it `keeps`, each file once until it is told to forget: a million examples are 100 MB."""

    def __init__(self, cache: Cache, *, keeps: bool = False) -> None:
        self._cache = cache
        self._keeps = keeps
        self._kept: dict[Hashable, object] = {}

    def forget(self) -> None:
        self._kept.clear()

    def evidence(self, files: EvidenceFiles, collected: Digest, wanted: Wanted) -> Evidence:
        """The evidence in a tree of the cache. Raises BlobError, or ReportError for files that are no evidence."""
        return self._once((files, collected, wanted), lambda: self._read(files, collected, wanted), Evidence)

    def answers(self, files: EvidenceFiles, collected: Digest) -> Columns:
        """The predictions alone, without a truth. Raises BlobError, or ReportError for what is no such file."""
        path = files.predictions
        return self._once((path, collected), lambda: read_answers(self._content(collected, path), path), Columns)

    def _read(self, files: EvidenceFiles, collected: Digest, wanted: Wanted) -> Evidence:
        truth = None if files.truth is None else self._truth(files.truth, collected, wanted)
        predictions = self._content(collected, files.predictions)
        return read_evidence(predictions, truth, files.predictions, None, wanted.scores, wanted.slices)

    def _truth(self, path: str, collected: Digest, wanted: Wanted) -> Columns:
        """A file of truths, with those of the wanted columns that it has; another model's may be the very same file."""
        digest = self._digest(collected, path)
        known = self._kept.get((path, digest))
        names = further(wanted.scores, wanted.slices)
        if isinstance(known, _Truth) and set(names) <= set(known.names):
            return known.columns
        gaps = tuple(name for name in wanted.slices if name not in wanted.scores)
        columns = read_truth(self._cache.read(digest), path, gaps=gaps, spare=names)
        if self._keeps:
            self._kept[path, digest] = _Truth(names, columns)
        return columns

    def _content(self, collected: Digest, path: str) -> bytes:
        return self._cache.read(self._digest(collected, path))

    def _digest(self, collected: Digest, path: str) -> Digest:
        entry = self._cache.tree(collected).entries.get(path)
        if not isinstance(entry, File):
            raise ReportError(f"{path} is not among the files that the step left")
        return entry.digest

    def _once(self, key: Hashable, read: Callable[[], T], kind: type[T]) -> T:
        known = self._kept.get(key)
        if isinstance(known, kind):
            return known
        found = read()
        if self._keeps:
            self._kept[key] = found
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _Truth:
    """A file of truths, and which columns were looked for in it."""

    names: tuple[str, ...]
    columns: Columns
