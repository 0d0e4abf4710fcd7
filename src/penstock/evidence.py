"""Evidence: per-example results, read from a step's files, joined by id, and scored.

Examples are places in arrays, in the order of their ids: a million of them are a few arrays, not a million objects.
Whatever makes the evidence doubtful raises ReportError, naming the file and the line where that is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from penstock.artifacts import Digest
from penstock.columns import Columns, read_columns, shown
from penstock.errors import ReportError
from penstock.texts import canonical, canonical_text, coded, digest_of_texts, matched, numbers, order, texts_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from penstock.texts import Floats, Places, Texts

    Codes = npt.NDArray[np.int32]

ERRORS = ("absolute_error", "squared_error", "log_loss")
"""The scores of which less is better."""
COMPUTED = ("correct", *ERRORS)
"""The scores that Penstock computes; every other name is a numeric column of the file."""

PROBABILITY = "probability"
MAX_SLICES = 1000
EMPTY = "(empty)"
"""The slice of the examples that have no value in its column."""
LEAST_PROBABILITY = 1e-15
_SUM_TOLERANCE = 1e-3


# --- what evidence is ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """One score per example, in the order of the evidence's ids.

    `values` are float64 and higher is better: errors and log losses are negated, and `sign` is then -1. A named
    column is taken as higher is better, `sign` 1.
    """

    name: str
    values: Floats
    sign: Literal[1, -1] = 1

    @property
    def own(self) -> Floats:
        """The scores with their own sign: errors as they are, lower is better."""
        return self.values if self.sign == 1 else -self.values

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True, eq=False)
class Slices:
    """To which slice each example belongs: the place of its label in `labels`, which are in order."""

    name: str
    codes: Codes
    labels: tuple[str, ...]

    def places(self, label: str) -> Places:
        """The places of the examples of one slice. Raises ValueError for a label that there is not."""
        import numpy as np

        return np.flatnonzero(self.codes == self.labels.index(label))

    def at(self, places: Places) -> Slices:
        """The same of the examples at some places, in their order."""
        return Slices(self.name, self.codes[places], self.labels)

    def members(self) -> list[tuple[str, Places]]:
        """Each slice that has an example, by its label, with the places of its examples."""
        import numpy as np

        places = np.argsort(self.codes, kind="stable")
        ends = np.cumsum(np.bincount(self.codes, minlength=len(self.labels)))
        parts = np.split(places, ends[:-1])
        return [(label, part) for label, part in zip(self.labels, parts, strict=True) if len(part)]


@dataclass(frozen=True, eq=False, init=False)
class Evidence:
    """Examples that have both truth and prediction, in the order of their ids.

    `ids`, `truth` and `predictions` are arrays of bytes, UTF-8, the latter two in canonical form (see `texts`).
    `unpredicted` counts examples of the truth without a prediction, `unlabelled` predictions without a truth.
    `test_set` is the digest of all (id, truth) that were asked, predicted or not: ids as they are written, truths in
    canonical form, so neither the order of rows nor the format of the file matters, nor `3` or `3.0`. `columns` are
    the numeric columns that were read, by name.
    """

    ids: Texts
    truth: Texts
    predictions: Texts | None
    unpredicted: int
    unlabelled: int
    test_set: Digest
    columns: Mapping[str, Floats]
    slices: Mapping[str, Slices]
    sources: tuple[Columns, ...]

    def __init__(
        self,
        ids: Sequence[str],
        truth: Sequence[str],
        predictions: Sequence[str],
        unpredicted: int = 0,
        unlabelled: int = 0,
    ) -> None:
        """Evidence of texts that are at hand; files are read by `read_evidence`."""
        places = order(texts_of(ids))
        labels, answers = canonical(texts_of(truth))[places], canonical(texts_of(predictions))[places]
        self._fill(texts_of(ids)[places], labels, answers, unpredicted, unlabelled)

    def _fill(
        self, ids: Texts, truth: Texts, predictions: Texts | None, unpredicted: int, unlabelled: int, **others: object
    ) -> Evidence:
        asked = others.get("test_set") or test_set_of(ids, truth)
        plain = {"ids": ids, "truth": truth, "predictions": predictions}
        counts = {"unpredicted": unpredicted, "unlabelled": unlabelled, "test_set": asked}
        for name, value in ({"columns": {}, "slices": {}, "sources": ()} | plain | others | counts).items():
            object.__setattr__(self, name, value)
        return self

    @classmethod
    def read(
        cls, given: Columns, asked: Columns, scores: Sequence[str], slices: Sequence[str], **others: Any
    ) -> Evidence:
        """The evidence of rows that belong together, one by one; `asked` has the truths, in canonical form."""
        answers, sources = given.texts.get("prediction"), (given, asked)
        numeric = [name for name in (*given.texts, *asked.texts) if name in scores or _is_probability(name)]
        return cls.__new__(cls)._fill(  # noqa: SLF001 (another way to be made)
            asked.texts["id"],
            asked.texts["truth"],
            None if answers is None else canonical(answers),
            columns={name: _column(sources, name) for name in dict.fromkeys(numeric)},
            slices={name: _slices(sources[::-1], name) for name in slices},
            sources=tuple(source.emptied() for source in sources),
            **others,
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def unmatched(self) -> int:
        """Examples that only one of the two files has."""
        return self.unpredicted + self.unlabelled

    def sliced(self, columns: Sequence[str]) -> tuple[Slices, ...]:
        """The slices by some columns. Raises ReportError for a column that was not read."""
        lacking = next((name for name in columns if name not in self.slices), None)
        if lacking is not None:
            raise ReportError(f'the evidence has no column "{lacking}" to make slices of')
        return tuple(self.slices[name] for name in columns)

    def scored(self, name: str) -> Scores:
        """The score of each example: one of `COMPUTED`, or a numeric column that was read.

        `correct` is 1 or 0: whether the prediction is the truth, as a text or as a number (`3` and `3.0`). Errors are
        absolute or squared, in the truth's unit. `log_loss` is -ln of the probability that was given to the truth, in
        nats; less than 1e-15 counts as that. Raises ReportError naming the example whose score cannot be computed.
        """
        if name == "correct":
            return Scores(name, (self.truth == self._predictions()).astype(float))
        if name in ("absolute_error", "squared_error"):
            return Scores(name, -self._errors(1 if name == "absolute_error" else 2), -1)
        if name == "log_loss":
            return Scores(name, self._log_probabilities(), -1)
        if name not in self.columns:
            raise ReportError(f'the score "{name}" was not read: it is none of {", ".join(COMPUTED)}, and no column')
        return Scores(name, self.columns[name])

    def _predictions(self) -> Texts:
        if self.predictions is None:
            raise ReportError('the evidence has no column "prediction", which this score needs: write one')
        return self.predictions

    def _errors(self, power: int) -> Floats:
        import numpy as np

        truth, found = self._numbers(self.truth, "truth"), self._numbers(self._predictions(), "prediction")
        with np.errstate(over="ignore"):
            errors: Floats = np.abs(found - truth) if power == 1 else np.square(found - truth)
        huge = np.flatnonzero(np.isinf(errors))
        if len(huge):
            raise ReportError(f"the error of {self._example(huge[0])} is too large to be counted")
        return errors

    def _numbers(self, texts: Texts, column: str) -> Floats:
        import numpy as np

        found = numbers(texts)
        wrong = np.flatnonzero(~np.isfinite(found))
        if len(wrong):
            self._refuse(int(wrong[0]), column, f"is {shown(texts[wrong[0]])!r}, expected a finite number")
        return found

    def _refuse(self, place: int, column: str, sentence: str) -> NoReturn:
        raise ReportError(f"{self._where(place, column)}the {column} of {self._example(place)} {sentence}")

    def _example(self, place: int) -> str:
        return f'example "{shown(self.ids[place])}"'

    def _where(self, place: int, column: str) -> str:
        source = next((source for source in self.sources if column in source.texts), None)
        return "" if source is None else f"{source.where(place)}: "

    def _log_probabilities(self) -> Floats:
        """The logarithm of the probability of the truth: of `probability` that it is 1, or of `probability:TRUTH`."""
        import numpy as np

        if PROBABILITY in self.columns:
            positive = self._is_positive()
            found = np.where(positive, self.columns[PROBABILITY], 1 - self.columns[PROBABILITY])
        else:
            found = self._chosen_probabilities()
        logs: Floats = np.log(np.clip(found, LEAST_PROBABILITY, 1))
        return logs

    def _is_positive(self) -> npt.NDArray[np.bool_]:
        import numpy as np

        positive: npt.NDArray[np.bool_] = (self.truth == b"1") | (self.truth == b"true")
        wrong = np.flatnonzero(~(positive | (self.truth == b"0") | (self.truth == b"false")))
        if len(wrong):
            place = int(wrong[0])
            hint = f'with one column "{PROBABILITY}" expected 0 or 1: else write "{PROBABILITY}:CLASS" for each class'
            self._refuse(place, "truth", f"is {shown(self.truth[place])!r}, {hint}")
        return positive

    def _chosen_probabilities(self) -> Floats:
        import numpy as np

        classes = {n.partition(":")[2]: c for n, c in self.columns.items() if n.startswith(f"{PROBABILITY}:")}
        if not classes:
            raise ReportError(f'log_loss needs a column "{PROBABILITY}", or "{PROBABILITY}:CLASS" for each class')
        found, total = np.full(len(self), np.nan), np.zeros(len(self))
        for name, column in classes.items():
            total += column
            found = np.where(self.truth == canonical_text(name.encode()), column, found)
        wrong = np.flatnonzero(np.isnan(found))
        if len(wrong):
            place = int(wrong[0])
            label = shown(self.truth[place])
            self._refuse(place, "truth", f'is {label!r}, and there is no column "{PROBABILITY}:{label}": add it')
        off = np.flatnonzero(np.abs(total - 1) > _SUM_TOLERANCE)
        if len(off):
            place = int(off[0])
            where = self._where(place, f"{PROBABILITY}:{next(iter(classes))}")
            raise ReportError(f"{where}the probabilities of {self._example(place)} add up to {total[place]:.6g}, not 1")
        return found


def mean(scores: Sequence[float]) -> float:
    """The mean of at least one score, without loss by adding up."""
    return math.fsum(scores) / len(scores)


def is_same(truth: str, prediction: str) -> bool:
    """Whether two texts are equal, or write the same number; digits beyond a float's count too."""
    return truth == prediction or canonical_text(truth.encode()) == canonical_text(prediction.encode())


# --- reading -------------------------------------------------------------------------------------------------------


def read_evidence(
    predictions: bytes,
    truth: bytes | Columns | None,
    predictions_file: str,
    truth_file: str | None,
    scores: Sequence[str] = ("correct",),
    slices: Sequence[str] = (),
) -> Evidence:
    """Read a file of predictions and one of truths, or one file that holds both (`truth` is None).

    Where several models are read with the same truths, these are read once by `read_truth` and handed in.

    Files are CSV, JSON Lines or Parquet (see `columns.read_columns`). Columns are `id`, `truth` and `prediction`; what
    `scores` and `slices` name besides; for `log_loss` `probability`, that of the truth 1 where truths are 0 and 1, or
    one `probability:CLASS` for each class. `prediction` may be missing where no score needs it. A slice is taken from
    the file of truths where that has it, so that a model does not choose its own; a score from the file of predictions
    where that has it. What has no value in a slice's column is a slice of its own.
    Raises ReportError for all that is doubtful, as a doubled id.
    """
    needs = any(score in COMPUTED and score != "log_loss" for score in scores) or "prediction" in slices
    answer = ("prediction",) if needs else ()
    extra = further(scores, slices)
    spare = () if needs else ("prediction",)
    spare = (*spare, PROBABILITY, f"{PROBABILITY}:") if "log_loss" in scores else spare
    gaps = tuple(name for name in extra if name in slices and name not in scores)
    if truth is None or (truth_file is None and not isinstance(truth, Columns)):
        wanted = ("id", *answer, "truth", *extra)
        both = read_columns(predictions, predictions_file, wanted, spare, gaps).sorted_by("id").mended("truth")
        return _joined(both, both, scores, slices)
    given = read_columns(predictions, predictions_file, ("id", *answer), (*extra, *spare), gaps).sorted_by("id")
    lacking = tuple(name for name in extra if name not in given.texts)
    asked = truth if isinstance(truth, Columns) else read_truth(truth, truth_file, lacking, gaps, extra)
    for name in lacking:
        if name not in asked.texts:
            raise ReportError(f'neither {given.file} nor {asked.file} has the column "{name}": write it into one')
    return _joined(given, asked, scores, slices)


def further(scores: Sequence[str], slices: Sequence[str]) -> tuple[str, ...]:
    """The columns that scores and slices need besides `id`, `truth`, `prediction` and probabilities."""
    named = (*(score for score in scores if score not in COMPUTED), *slices)
    return tuple(name for name in dict.fromkeys(named) if name not in ("id", "truth", "prediction"))


def read_truth(
    data: bytes, file: str | None, names: Sequence[str] = (), gaps: Sequence[str] = (), spare: Sequence[str] = ()
) -> Columns:
    """A file of truths in the order of its ids, with further columns by name, and those of the `spare` that it has.

    Columns among `gaps` may have empty values.
    """
    found = read_columns(data, str(file), ("id", "truth", *names), spare, gaps)
    return found.sorted_by("id").mended("truth")


def _joined(given: Columns, asked: Columns, scores: Sequence[str], slices: Sequence[str]) -> Evidence:
    own, places = matched(given.texts["id"], asked.texts["id"])
    is_whole = len(given.lines) == len(asked.lines) == len(places)
    if not len(places):
        raise ReportError(f"{given.file}: no id of it is in {asked.file}: write the same ids into both")
    return Evidence.read(
        given if is_whole else given.at(own),
        asked if is_whole else asked.at(places),
        scores,
        slices,
        unpredicted=len(asked.lines) - len(places),
        unlabelled=len(given.lines) - len(places),
        test_set=test_set_of(asked.texts["id"], asked.texts["truth"]),
    )


def test_set_of(ids: Texts, truth: Texts) -> Digest:
    """The digest of (id, truth), which are in the order of the ids; truths in canonical form."""
    return digest_of_texts("test-set", (ids, truth))


def _is_probability(name: str) -> bool:
    return name == PROBABILITY or name.startswith(f"{PROBABILITY}:")


def _column(sources: Sequence[Columns], name: str) -> Floats:
    """A column as finite numbers; a probability is between 0 and 1."""
    import numpy as np

    source = next(source for source in sources if name in source.texts)
    texts = canonical(source.texts[name])
    found = numbers(texts)
    wrong = np.flatnonzero(~np.isfinite(found))
    if len(wrong):
        place = int(wrong[source.lines[wrong].argmin()])
        source.refuse(place, f'the column "{name}" is {shown(texts[place])!r}, expected a finite number')
    if _is_probability(name):
        off = np.flatnonzero((found < 0) | (found > 1))
        if len(off):
            place = int(off[source.lines[off].argmin()])
            source.refuse(place, f'the column "{name}" is {shown(texts[place])}, expected a probability from 0 to 1')
    return found


def _slices(sources: Sequence[Columns], name: str) -> Slices:
    source = next(source for source in sources if name in source.texts)
    codes, labels = coded(source.texts[name])
    if len(labels) > MAX_SLICES:
        raise ReportError(
            f'{source.file}: the column "{name}" has {len(labels):,} different values, and slices may be '
            f"{MAX_SLICES:,}: group them in a column of fewer"
        )
    return Slices(name, codes, tuple(label or EMPTY for label in labels))


# --- two models on the same examples -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """The examples that two models answered, by their places in the evidence of either.

    `only_new` and `only_old` count examples that one of them lacks, `relabelled` those whose truth is not the same in
    both; all these are left out. `same_test_set` tells whether both were asked the very same.
    """

    new: Places
    old: Places
    only_new: int
    only_old: int
    relabelled: int
    same_test_set: bool

    def __len__(self) -> int:
        return len(self.new)

    def scores(self, new: Scores, old: Scores) -> tuple[Floats, Floats]:
        """The scores of the examples of both, new and old, higher is better, of equal length and in equal order."""
        return new.values[self.new], old.values[self.old]


def paired(new: Evidence, old: Evidence) -> Pairs:
    """Join the evidence of two models by id; there may be no pair at all."""
    mine, theirs = matched(new.ids, old.ids)
    same = new.test_set == old.test_set
    only_new, only_old, relabelled = len(new) - len(mine), len(old) - len(theirs), 0
    if not same:
        alike = new.truth[mine] == old.truth[theirs]
        mine, theirs, relabelled = mine[alike], theirs[alike], int((~alike).sum())
    return Pairs(mine, theirs, only_new, only_old, relabelled, same)
