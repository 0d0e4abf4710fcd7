"""Flips: two models on the same examples, which of these one newly has right or wrong, and in which slices.

`a` is the model that is held against, `b` the other; a gain is what `b` has more. Many slices are looked at, so some
look worse by chance: a slice is only called worse or better where that stands up to all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from penstock.charts import Chart
from penstock.columns import Columns, column_names, read_columns
from penstock.errors import ReportError
from penstock.evidence import EMPTY, PROBABILITY, Evidence, Pairs, Slices, paired
from penstock.families import stepped_down
from penstock.pipelines import Gate
from penstock.proportions import is_beyond
from penstock.samples import is_binary, paired_gain
from penstock.texts import canonical, coded, decoded, matched, numbers

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from penstock.texts import Floats, Places, Texts

    Codes = npt.NDArray[np.int32]

CONFIDENCE = 0.95
MAX_EXAMPLES = 1000
"""So many flipped examples are kept, the largest changes."""
MAX_LABELS = 20
"""A column with more values makes no slices unless a gate names it; these have 1,000 at most, as everywhere."""
MAX_COLUMNS = 30
_NAMED_LABELS = 1000
_LOOKED = 4096


@dataclass(frozen=True, slots=True)
class Flip:
    """An example that two models score differently; scores have their own sign, predictions may be lacking."""

    id: str
    truth: str
    a: str | None
    b: str | None
    score_a: float
    score_b: float


@dataclass(frozen=True, slots=True)
class SliceRow:
    """The mean scores of both models in one slice, with their own sign; `difference` is b - a.

    `shown` says that `b` is worse or better there at the confidence of the whole, all slices considered (Holm).
    """

    column: str
    label: str
    n: int
    a: float
    b: float
    difference: float
    shown: Literal["worse", "better"] | None


@dataclass(frozen=True, slots=True)
class Flips:
    """Two models on the examples that both answered, by one score of one step.

    `a` and `b` are the mean scores with their own sign, `gain` is an interval of what `b` is better by (None for a
    single numeric score). `better` and `worse` count examples; for `correct` these are newly right and newly wrong.
    `examples` are the largest changes, losses before gains of the same size; `slices` begin with the worst change.
    """

    step: str
    score: str
    lower_is_better: bool
    same_test_set: bool
    n: int
    only_a: int
    only_b: int
    relabelled: int
    a: float
    b: float
    better: int
    worse: int
    gain: Chart | None
    examples: tuple[Flip, ...]
    slices: tuple[SliceRow, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Judged:
    """What the gates of a file do with a step's evidence: by which scores, in which columns, and whether one hides."""

    scores: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    enforced_by: str | None = None


def judged(gates: Iterable[Gate]) -> dict[str, Judged]:
    """What gates do with the evidence of each step that they score."""
    found: dict[str, Judged] = {}
    for gate in gates:
        for leaf in gate.leaves:
            if leaf.evidence is None or leaf.same_as is not None:
                continue
            known = found.get(leaf.evidence, Judged())
            columns = () if leaf.slices is None else leaf.slices.by
            found[leaf.evidence] = Judged(
                tuple(dict.fromkeys((*known.scores, leaf.score or "correct"))),
                tuple(dict.fromkeys((*known.columns, *columns))),
                known.enforced_by or (gate.name if leaf.reuse == "enforce" else None),
            )
    return found


# --- the columns that make slices ----------------------------------------------------------------------------------


def slices_of(
    evidence: Evidence, files: Sequence[tuple[str, bytes]], named: Sequence[str] = ()
) -> tuple[tuple[Slices, ...], tuple[str, ...]]:
    """The columns of the evidence's own files (name and bytes) that divide its examples, and what cannot be read.

    These are the named ones, and all of a few texts: neither numbers nor ids. An example belongs to one slice of each.
    """
    found: dict[str, Slices] = {}
    notes: list[str] = []
    for file, data in files:
        given = [name for name in dict.fromkeys(column_names(data, file)) if name not in found]
        wanted = [name for name in given if name in named or _may_divide(name, evidence)][:MAX_COLUMNS]
        for columns in _columns(data, file, wanted, notes):
            _, places = matched(evidence.ids, columns.texts["id"])
            for name, texts in columns.texts.items():
                slices = _divided(name, texts[places], name in named) if name != "id" else None
                found |= {} if slices is None else {name: slices}
    return tuple(found.values()), tuple(notes)


def _may_divide(name: str, evidence: Evidence) -> bool:
    taken = ("id", "truth", "prediction", PROBABILITY, *evidence.columns)
    return name not in taken and not name.startswith(f"{PROBABILITY}:")


def _columns(data: bytes, file: str, names: Sequence[str], notes: list[str]) -> list[Columns]:
    """All columns at once, or one by one where one of them cannot be read: this one is noted."""
    if not names:
        return []
    try:
        return [read_columns(data, file, ("id", *names), gaps=names).sorted_by("id")]
    except ReportError as error:
        if len(names) == 1:
            notes.append(f'the column "{names[0]}" makes no slices: {error}')
            return []
    return [columns for name in names for columns in _columns(data, file, [name], notes)]


def _divided(name: str, texts: Texts, is_named: bool) -> Slices | None:
    """The slices of a column, gaps among them; None where it has one value only, too many, or nothing but numbers."""
    import numpy as np

    most = _NAMED_LABELS if is_named else MAX_LABELS
    if len(np.unique(texts[:_LOOKED])) > most:
        return None
    codes, labels = coded(texts)
    if not 1 < len(labels) <= most:
        return None
    filled = np.unique(texts[texts != b""])
    is_text = bool(np.isnan(numbers(canonical(filled))).any())
    return Slices(name, codes, tuple(label or EMPTY for label in labels)) if is_named or is_text else None


# --- two models ----------------------------------------------------------------------------------------------------


def guessed_score(evidence: Evidence) -> str:
    """The score of evidence that no gate judges: how large errors are where truths are many numbers, else `correct`."""
    import numpy as np

    seen = np.unique(evidence.truth[:_LOOKED])
    is_numeric = len(seen) > MAX_LABELS and not np.isnan(numbers(seen)).any()
    return "absolute_error" if is_numeric else "correct"


def flips(step: str, new: Evidence, old: Evidence, score: str, slices: Sequence[Slices] = ()) -> Flips:
    """Hold the model `b` that gave the new evidence against `a`, which gave the old, by one score.

    `slices` are of the new evidence; truths of few values make some too. Raises ReportError where no example is in
    both, or the score of one cannot be computed.
    """
    pairs = paired(new, old)
    if not len(pairs):
        raise ReportError("no example is in both, with the same truth")
    scores = new.scored(score)
    fresh, stale = pairs.scores(scores, old.scored(score))
    sign = scores.sign
    return Flips(
        step=step,
        score=score,
        lower_is_better=sign == -1,
        same_test_set=pairs.same_test_set,
        n=len(pairs),
        only_a=pairs.only_old,
        only_b=pairs.only_new,
        relabelled=pairs.relabelled,
        a=sign * float(stale.mean()),
        b=sign * float(fresh.mean()),
        better=int((fresh > stale).sum()),
        worse=int((fresh < stale).sum()),
        gain=_gain(score, fresh, stale, seed=int(new.test_set[:8], 16)),
        examples=_examples(pairs, (new, old), (fresh, stale), sign),
        slices=_rows([*slices, *_classes(new)], pairs.new, (fresh, stale), sign),
    )


def _gain(score: str, fresh: Floats, stale: Floats, seed: int) -> Chart | None:
    try:
        found = paired_gain(fresh, stale, CONFIDENCE, seed=seed)
    except ReportError:
        return None
    bounds = (found.estimate, found.low, found.high, None, None)
    return Chart("gain", score, *bounds, CONFIDENCE, found.n, found.discordant, found.method)


def _examples(
    pairs: Pairs, models: tuple[Evidence, Evidence], scores: tuple[Floats, Floats], sign: int
) -> tuple[Flip, ...]:
    import numpy as np

    (new, old), (fresh, stale) = models, scores
    moved = fresh - stale
    places = np.flatnonzero(moved)
    chosen = places[np.lexsort((places, moved[places] > 0, -np.abs(moved[places])))][:MAX_EXAMPLES]

    def answers(evidence: Evidence, own: Places) -> list[str | None]:
        found = evidence.predictions
        return [None] * len(chosen) if found is None else [decoded(text) for text in found[own[chosen]].tolist()]

    columns = (
        [decoded(text) for text in new.ids[pairs.new[chosen]].tolist()],
        [decoded(text) for text in new.truth[pairs.new[chosen]].tolist()],
        answers(old, pairs.old),
        answers(new, pairs.new),
        (sign * stale[chosen]).tolist(),
        (sign * fresh[chosen]).tolist(),
    )
    return tuple(Flip(*row) for row in zip(*columns, strict=True))


# --- slices --------------------------------------------------------------------------------------------------------


def _classes(evidence: Evidence) -> list[Slices]:
    """The classes of the truth, where there are few."""
    import numpy as np

    if len(np.unique(evidence.truth[:_LOOKED])) > MAX_LABELS:
        return []
    codes, labels = coded(evidence.truth)
    return [Slices("truth", codes, labels)] if 1 < len(labels) <= MAX_LABELS else []


def _rows(slices: Sequence[Slices], places: Places, scores: tuple[Floats, Floats], sign: int) -> tuple[SliceRow, ...]:
    """Every slice that has an example of both, the worst change first, of equal ones the larger slice."""
    members = [(division.name, label, found) for division in slices for label, found in division.at(places).members()]
    fresh, stale = scores
    parts = [(fresh[found], stale[found]) for _, _, found in members]
    worse = stepped_down([_shows(stale, fresh) for fresh, stale in parts], CONFIDENCE) if parts else ()
    better = stepped_down([_shows(fresh, stale) for fresh, stale in parts], CONFIDENCE) if parts else ()
    rows = [
        (float(b.mean() - a.mean()), _row(name, label, (b, a), sign, "worse" if bad else "better" if good else None))
        for (name, label, _), (b, a), bad, good in zip(members, parts, worse, better, strict=True)
    ]
    return tuple(row for _, row in sorted(rows, key=lambda pair: (pair[0], -pair[1].n)))


def _row(
    name: str, label: str, scores: tuple[Floats, Floats], sign: int, shown: Literal["worse", "better"] | None
) -> SliceRow:
    b, a = (sign * float(part.mean()) for part in scores)
    return SliceRow(name, label, len(scores[0]), a, b, b - a, shown)


def _shows(more: Floats, less: Floats) -> Callable[[float], bool]:
    """Whether one model is shown to be better than another on these examples, with a given confidence."""
    wins, losses = int((more > less).sum()), int((more < less).sum())
    if is_binary(more) and is_binary(less):
        return lambda confidence: wins > losses and is_beyond(wins, losses, len(more), 0.0, confidence)
    return lambda confidence: len(more) > 1 and wins > 0 and paired_gain(more, less, confidence).low > 0
