"""Drift: whether what is asked of a release, and what it answers, still looks like the sample its package brings.

Of each request with its answer a row of features is made: numbers and short texts. A window of rows is compared with
the sample, feature by feature. The population stability index says how much differs, a two-sample test whether chance
would do that; a feature has drifted where both say so. A window is looked at once, and no row is in two windows. The
k-th look since a release serves may err with 6α/π²k² (`reuse_budgets.share`), over all features together (Holm), so
that the chance of any false alarm is at most α, however long it is watched and however the looks depend on each other.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.families import holm
from penstock.reuse_budgets import share

Value = float | str
Row = Mapping[str, Value]
"""The features of one request by name; one that it does not have is absent."""

ANSWER = "answer"
MOST = 64
"""Features that are compared at most: the first ones by name."""
_LONGEST_TEXT = 64
_LONGEST_NAME = 120
_DEEPEST = 8
_BY_PLACE = 8
_MOST_OF_ROW = 1_000

BINS = 10
"""A number with more different values in the sample than this is compared by its quantiles, else value by value."""
_CELLS = 20
_EXPECTED = 10
ABSENT = "(absent)"
OTHER = "(other)"


# --- features ------------------------------------------------------------------------------------------------------


def features(request: Any, answer: Any = None) -> dict[str, Value]:
    """The row of a request's JSON and its answer's (None where there is none), at most 1,000 features.

    A key is named by its dotted path, below `answer.` in the answer. Up to 8 numbers in a list stand each by its place,
    longer lists and tables of numbers by `mean`, `std`, `min`, `max` and `length`. Of a list of anything else the first
    item and the `length` count. Texts beyond 64 characters count by their `length`.
    """
    row: dict[str, Value] = {}
    for name, value in (*_of(request, "", 0), *_of(answer, ANSWER, 0)):
        if len(row) < _MOST_OF_ROW:
            row.setdefault(name[:_LONGEST_NAME], value)
    return row


_Found = Iterator[tuple[str, Value]]


def _of(value: Any, path: str, depth: int) -> _Found:
    if isinstance(value, dict) and depth < _DEEPEST:
        for key, inner in value.items():
            # A key of the request that is called so must not be taken for the answer.
            own = f"body.{key}" if not path and str(key).split(".", 1)[0] == ANSWER else str(key)
            yield from _of(inner, f"{path}.{own}" if path else own, depth + 1)
    elif isinstance(value, list):
        yield from _of_list(value, path, depth)
    elif value is not None:
        yield from _of_one(value, path or "body")


def _of_one(value: Any, path: str) -> _Found:
    number = _number(value)
    if number is not None:
        yield path, number
    elif isinstance(value, str) and len(value) > _LONGEST_TEXT:
        yield f"{path}.length", float(len(value))
    elif isinstance(value, str | bool | float):
        yield path, str(value).lower() if isinstance(value, bool) else str(value)


def _of_list(value: list[Any], path: str, depth: int) -> _Found:
    numbers = _numbers(value)
    if numbers is None or (len(value) <= _BY_PLACE and not any(isinstance(v, list) for v in value)):
        if numbers is None:
            yield f"{path or 'body'}.length", float(len(value))
        for place, inner in enumerate(value[: 1 if numbers is None else _BY_PLACE]):
            yield from _of(inner, f"{path or 'body'}[{place}]", depth + 1) if depth < _DEEPEST else ()
        return
    mean = math.fsum(numbers) / len(numbers)
    spread = math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / len(numbers))
    summary = {"mean": mean, "std": spread, "min": min(numbers), "max": max(numbers), "length": float(len(numbers))}
    yield from ((f"{path or 'body'}.{name}", number) for name, number in summary.items() if math.isfinite(number))


def _number(value: Any) -> float | None:
    """A JSON number as one that can be compared; None for anything else, and for what is too large."""
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 1e150:
        return None
    return float(value) if math.isfinite(value) else None


def _numbers(value: list[Any]) -> list[float] | None:
    """All numbers of a list, or of a table of them; None where anything in it is no number, and for an empty one."""
    found: list[float] = []
    queue = [value]
    while queue:
        for inner in queue.pop():
            if isinstance(inner, list):
                queue.append(inner)
                continue
            number = _number(inner)
            if number is None:
                return None
            found.append(number)
    return found or None


# --- one feature ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Compared:
    """One feature of a window beside the sample's.

    `psi` is the population stability index, `chance` about what it is where nothing has drifted, `p` the p value of the
    two-sample test; `rows` are those of the window, `sample` those of the sample.
    """

    name: str
    psi: float
    chance: float
    p: float
    rows: int
    sample: int

    def sentence(self) -> str:
        """As in "feature petal_length: PSI 0.41, 1,000 requests against 5,000 of the sample, p < 1e-9"."""
        p = "p < 1e-9" if self.p < 1e-9 else f"p = {self.p:.2g}"
        counts = f"{self.rows:,} requests against {self.sample:,} of the sample"
        return f"feature {self.name}: PSI {self.psi:.2f}, {counts}, {p}"


def compared(name: str, sample: Sequence[Row], window: Sequence[Row]) -> Compared:
    """A feature of a window beside the sample's. Both have rows.

    Numbers meet in the test of Kolmogorov and Smirnov, common values in Pearson's chi-squared test. How many rows lack
    the number, or have a value that is not common, is tested too (Fisher's exact test); the smaller p value counts
    twice.
    """
    old, new = [row.get(name) for row in sample], [row.get(name) for row in window]
    by_size = _is_measured(old)
    table = _binned(old, new) if by_size else _categories(old, new)
    psi, chance = stability(*table)
    p = _p_of_numbers(_only_numbers(old), _only_numbers(new), len(old), len(new)) if by_size else _p_of_table(*table)
    return Compared(name, psi, chance, p, len(new), len(old))


def stability(sample: Sequence[int], window: Sequence[int]) -> tuple[float, float]:
    """The population stability index of counts in the same cells, and about what it is by chance alone.

    PSI = Σ (q - p) · ln(q / p), with the shares p = (count + ½) / (n + B/2) of the sample and q, alike, of the window:
    the halves keep an empty cell finite. Where both are drawn from the same law its expectation is about
    (B - 1) · (1/n + 1/m) for B cells, n and m rows, since it is nearly 1/n + 1/m times a chi-squared variable of B - 1
    degrees (Yurdakul and Naranjo, Journal of Risk Model Validation 14, 2020). With 10 cells and 100 rows each that is
    .18: there a bare limit of .2 flags chance.
    """
    used = [(one, other) for one, other in zip(sample, window, strict=True) if one + other]
    cells, n, m = len(used), sum(one for one, _ in used), sum(other for _, other in used)
    if cells < 2 or not n or not m:
        return 0.0, 0.0
    shares = [((one + 0.5) / (n + cells / 2), (other + 0.5) / (m + cells / 2)) for one, other in used]
    return math.fsum((q - p) * math.log(q / p) for p, q in shares), (cells - 1) * (1 / n + 1 / m)


_Column = Sequence[Value | None]
_Table = tuple[list[int], list[int]]


def _is_measured(column: _Column) -> bool:
    """Whether a feature is a number with many values, by its column of the sample."""
    present = {value for value in column if value is not None}
    return len(present) > BINS and not any(isinstance(value, str) for value in present)


def _only_numbers(column: _Column) -> list[float]:
    return [value for value in column if isinstance(value, float)]


def _binned(old: _Column, new: _Column) -> _Table:
    """Counts between the sample's deciles, and last of the rows without a number."""
    import numpy as np  # noqa: PLC0415 - start-up time is a promise

    edges = np.unique(np.quantile(_only_numbers(old), np.arange(1, BINS) / BINS))
    counted = []
    for column in (old, new):
        numbers = np.asarray(_only_numbers(column), dtype=float)
        counts = np.bincount(np.searchsorted(edges, numbers), minlength=len(edges) + 1)
        counted.append([*map(int, counts), len(column) - len(numbers)])
    return counted[0], counted[1]


def _categories(old: _Column, new: _Column) -> _Table:
    """Counts of each value that is common in both columns together, and last of all others together.

    That only the two together decide which values stand alone is what keeps the test valid: with a value chosen because
    it is common in the sample alone, the window would seem to lack it.
    """
    names = [[ABSENT if value is None else str(value) for value in column] for column in (old, new)]
    together = Counter((*names[0], *names[1]))
    least = _EXPECTED * (len(old) + len(new)) / min(len(old), len(new))
    ordered = sorted(together, key=lambda value: (-together[value], value))[:_CELLS]
    alone = [value for value in ordered if together[value] >= least]
    counts = [Counter(value if value in alone else OTHER for value in column) for column in names]
    cells = [*alone, OTHER]
    return [counts[0][cell] for cell in cells], [counts[1][cell] for cell in cells]


def _p_of_numbers(old: list[float], new: list[float], rows_old: int, rows_new: int) -> float:
    from scipy.stats import ks_2samp  # noqa: PLC0415 - start-up time is a promise

    found = [float(ks_2samp(old, new, method="asymp").pvalue)] if new else []
    if len(old) < rows_old or len(new) < rows_new:
        found.append(_p_of_shares((len(old), rows_old - len(old)), (len(new), rows_new - len(new))))
    return _least(found)


def _p_of_table(old: list[int], new: list[int]) -> float:
    """Of the counts of common values, and last those of all others, which may be few: these are tested exactly."""
    from scipy.stats import chi2_contingency  # noqa: PLC0415 - start-up time is a promise

    found = []
    if len(old) > 2:
        found.append(float(chi2_contingency([old[:-1], new[:-1]], correction=False).pvalue))
    if old[-1] + new[-1]:
        found.append(_p_of_shares((sum(old[:-1]), old[-1]), (sum(new[:-1]), new[-1])))
    return _least(found)


def _p_of_shares(old: tuple[int, int], new: tuple[int, int]) -> float:
    from scipy.stats import fisher_exact  # noqa: PLC0415 - start-up time is a promise

    return float(fisher_exact([old, new]).pvalue)


def _least(found: Sequence[float]) -> float:
    """The p value of several tests at once, by Bonferroni; 1 where there is none."""
    return min(1.0, min(found) * len(found)) if found else 1.0


# --- a window ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rules:
    """When a window has drifted: the risk of any false alarm while a release serves, the least PSI, which features.

    A name in `features` stands for all that begins with it and goes on with a dot or a bracket; none stands for all.
    """

    alpha: float = 0.05
    psi: float = 0.2
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """What a window showed: its number since the release serves, each feature, and the names of those that drifted."""

    number: int
    features: tuple[Compared, ...]
    drifted: tuple[str, ...]

    def sentence(self) -> str:
        """What drifted, the worst first; or that nothing did, with the feature that came nearest."""
        worst = sorted(self.features, key=lambda feature: -feature.psi)
        fallen = [feature for feature in worst if feature.name in self.drifted]
        if fallen:
            more = f"; and {len(fallen) - 1} more" if len(fallen) > 1 else ""
            return f"{fallen[0].sentence()}{more}"
        if not worst:
            return "the window has none of the sample's features"
        near = worst[0]
        several = f"{len(worst)} features" if len(worst) > 1 else "1 feature"
        return f"no drift in {several}; most {near.name}: PSI {near.psi:.2f} (chance: {near.chance:.2f})"


def watched(sample: Sequence[Row], wanted: Sequence[str] = ()) -> list[str]:
    """The features of the sample that are compared, by name, at most `MOST`."""
    names = sorted({name for row in sample for name in row})
    return [name for name in names if not wanted or any(_stands_for(one, name) for one in wanted)][:MOST]


def _stands_for(wanted: str, name: str) -> bool:
    return name == wanted or name.startswith((f"{wanted}.", f"{wanted}["))


def look(sample: Sequence[Row], window: Sequence[Row], number: int, rules: Rules) -> Look:
    """What a window shows that nobody looked at before; `number` counts the looks since the release serves, from 1."""
    found = [compared(name, sample, window) for name in watched(sample, rules.features)]
    fallen = holm([feature.p for feature in found], share(number, rules.alpha))
    names = (feature.name for feature, fell in zip(found, fallen, strict=True) if fell and feature.psi >= rules.psi)
    return Look(number, tuple(found), tuple(names))


def asks_again(detections: int) -> bool:
    """Whether so many drifted windows of one release ask for another run: the 1st, 2nd, 4th, 8th and so on.

    Where training does not help, or a gate does not let its result through, drift goes on and asks ever less often.
    """
    return detections > 0 and detections & (detections - 1) == 0
