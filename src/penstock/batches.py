"""Batches: evidence that is asked batch by batch, and judged at the end of each, until the verdict stands.

The order of the examples is drawn from the digest of the test set, so nobody chooses it and every package meets the
same. The verdict is that of `sequences.py`, which holds whenever one stops.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.charts import Chart
from penstock.comparisons import CONFIDENCE, MINUS, exact, percent, rules_of, short
from penstock.decisions import Kind, Rule
from penstock.errors import ReportError
from penstock.evidence import paired, test_set_of
from penstock.gates import Verdict, without_baseline, written
from penstock.sequences import Bets, advanced, begun, drawn_order, judged
from penstock.texts import WIDTH, decoded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    from penstock.artifacts import Digest
    from penstock.columns import Columns
    from penstock.comparisons import Champion
    from penstock.evidence import Evidence
    from penstock.pipelines import Gate
    from penstock.texts import Texts

    Floats = npt.NDArray[np.float64]

_HALVINGS = 20
"""So often is the range of a bound halved: to a millionth."""


# --- what is asked -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Drawn:
    """The examples that may be asked: their ids in the order in which they are, a batch's size, the test set.

    `whole` counts all examples of the test set; there are fewer ids where the file says `at_most`.
    """

    ids: tuple[str, ...]
    batch: int
    whole: int
    test_set: Digest

    def batches(self, asked: int) -> tuple[str, ...]:
        """The ids of the next batch after so many examples; none after the last."""
        return self.ids[asked : asked + self.batch]


def drawn(truth: Columns, batch: int, at_most: int | None = None) -> Drawn:
    """The examples of a file of truths (see `evidence.read_truth`) in drawn order, `at_most` of them.

    Raises ReportError for an id that cannot be written as one line, or has more than 64 bytes.
    """
    ids, test_set = truth.texts["id"], test_set_of(truth.texts["id"], truth.texts["truth"])
    order = drawn_order(test_set, len(ids))[:at_most]
    for place in order.tolist():
        text = ids[place]
        if len(text) >= WIDTH or b"\n" in text or b"\r" in text:
            truth.refuse(place, f"the id is asked for as one line: write one of less than {WIDTH} bytes")
    return Drawn(tuple(decoded(ids[place]) for place in order.tolist()), batch, len(ids), test_set)


def joined(parts: Sequence[bytes], file: str) -> bytes:
    """The rows of several files of predictions as one file. Raises ReportError where they differ in their columns.

    They are CSV, whose first line stands once, or JSON Lines, by the file's name.
    """
    if file.endswith((".jsonl", ".ndjson")):
        return b"".join(_ended(part) for part in parts)
    whole = io.BytesIO()
    first = b""
    for number, part in enumerate(parts):
        header, _, rows = part.removeprefix(b"\xef\xbb\xbf").partition(b"\n")
        header = header.rstrip(b"\r")
        if number and header != first:
            raise ReportError(f"{file}: batch {number + 1} has other columns than the first: write the same for each")
        if not number:
            first = header
            whole.write(header + b"\n")
        whole.write(_ended(rows))
    return whole.getvalue()


def _ended(rows: bytes) -> bytes:
    return rows if not rows or rows.endswith(b"\n") else rows + b"\n"


def unanswered(evidence: Evidence, ids: Sequence[str]) -> list[str]:
    """Those of the ids that have no prediction, in their order."""
    known = set(evidence.ids.tolist())
    return [one for one in ids if one.encode("utf-8", "surrogatepass") not in known]


def answers_all(evidence: Evidence, asked: Evidence) -> bool:
    """Whether evidence has an answer for every example that other evidence answers."""
    from penstock.texts import matched

    return len(matched(asked.ids, evidence.ids)[0]) == len(asked)


def decided(gate: Gate, evidence: Evidence, asked: Drawn, champion: Champion | None, package: str | None) -> bool:
    """Whether a verdict stands after what was answered so far, without the words for it; see `judge_batches`."""
    if gate.against is None:
        answers = _level(evidence, asked)
    elif champion is None or package == champion.digest:
        return True
    elif champion.evidence is None:
        return False
    else:
        answers = _pair(evidence, champion.evidence, asked)
    (rule,) = rules_of(gate)
    return judged(begun(rule), answers.differences(rule), asked.batch).verdict != "inconclusive"


# --- what is decided -----------------------------------------------------------------------------------------------


def judge_batches(
    gate: Gate,
    evidence: Evidence | None,
    asked: Drawn,
    champion: Champion | None,
    package: str | None,
    lacking: str = "",
) -> Verdict:
    """Judge what was answered so far, by bets on the examples in drawn order.

    `champion`, `package` and `lacking` are as for `comparisons.judge_examples`. An answer that was not asked for counts
    for nothing; an example that the champion did not answer is left out.
    """
    if evidence is None or not len(evidence):
        return Verdict(gate.name, "errored", None, (f"step {gate.evidence} left no evidence to judge",))
    if gate.against is None:
        return _judged(gate, _level(evidence, asked), asked, None)
    value = float(evidence.scored("correct").own.mean())
    if champion is None:
        return without_baseline(gate, value, lacking)
    if package == champion.digest:
        return Verdict(gate.name, "pass", value, (f"this is the same package as {champion.called}",))
    if champion.evidence is None:
        reason = f"{champion.called} {champion.lacking}, so there is nothing to compare with"
        return Verdict(gate.name, "inconclusive", value, (reason,))
    return _judged(gate, _pair(evidence, champion.evidence, asked), asked, champion)


@dataclass(frozen=True, slots=True, eq=False)
class _Answers:
    """The scores of the new model in drawn order, and of the old one on the same examples; None for a level."""

    new: Floats
    old: Floats | None = None

    def differences(self, rule: Rule) -> Floats:
        return self.new if self.old is None else self.new - rule.scale * self.old


def _level(evidence: Evidence, asked: Drawn) -> _Answers:
    places = _in_order(evidence.ids, asked)
    return _Answers(evidence.scored("correct").values[places])


def _pair(evidence: Evidence, other: Evidence, asked: Drawn) -> _Answers:
    pairs = paired(evidence, other)
    new, old = pairs.scores(evidence.scored("correct"), other.scored("correct"))
    places = _in_order(evidence.ids[pairs.new], asked)
    return _Answers(new[places], old[places])


def _in_order(ids: Texts, asked: Drawn) -> npt.NDArray[np.int64]:
    """The places of the examples that were asked, as they were drawn."""
    import numpy as np

    known = {text: place for place, text in enumerate(ids.tolist())}
    wanted = (known.get(one.encode("utf-8", "surrogatepass")) for one in asked.ids)
    return np.array([place for place in wanted if place is not None], dtype=np.int64)


def _judged(gate: Gate, answers: _Answers, asked: Drawn, champion: Champion | None) -> Verdict:
    (rule,) = rules_of(gate)
    values = answers.differences(rule)
    if not len(values):
        reason = "no example of this run is among those that were drawn and answered: there is nothing to judge"
        return Verdict(gate.name, "inconclusive", None, (reason,))
    bets = judged(begun(rule), values, asked.batch)
    low, high = _bounds(rule, values[: bets.n], asked.batch)
    chart = _chart(rule, answers, bets, (low, high))
    value = float(answers.new[: bets.n].mean())
    spared = len(asked.ids) - bets.n
    saved = (f"{spared:,} examples were spared",) if spared > 0 else ()
    return Verdict(gate.name, bets.verdict, value, (_sentence(chart, bets, champion, asked), *saved), chart)


def _chart(rule: Rule, answers: _Answers, bets: Bets, bounds: tuple[float, float]) -> Chart:
    values = answers.differences(rule)[: bets.n]
    is_most = rule.kind == "at_most"
    edge = rule.bound if not rule.paired else rule.threshold
    return Chart(
        kind="gain" if rule.paired else "level",
        score="correct",
        estimate=float(values.mean()),
        low=bounds[0],
        high=bounds[1],
        least=None if is_most else edge,
        most=edge if is_most else None,
        confidence=rule.confidence,
        n=bets.n,
        discordant=bets.discordant if rule.paired else None,
        method="betting",
    )


def _bounds(rule: Rule, values: Floats, batch: int) -> tuple[float, float]:
    """The outermost levels or gains that the bets do not exclude, each with the rule's confidence, at any time."""
    lowest, highest = (-1.0, 1.0) if rule.paired else (0.0, 1.0)
    bar = -math.log(1 - rule.confidence)

    def at(threshold: float) -> Bets:
        kind: Kind = ("not_worse_than" if threshold < 0 else "better_than") if rule.paired else "at_least"
        bound = abs(threshold) if rule.paired else threshold
        return _whole(begun(Rule(kind, bound, confidence=rule.confidence)), values, batch)

    low = _edge(lambda number: at(number).highest[0] >= bar, lowest, highest)
    high = -_edge(lambda number: at(-number).highest[1] >= bar, -highest, -lowest)
    return low, high


def _whole(bets: Bets, values: Floats, batch: int) -> Bets:
    """The bets after all values, batch by batch, whether or not a verdict stood before."""
    for start in range(0, len(values), batch):
        bets = advanced(bets, values[start : start + batch])
    return bets


def _edge(excludes: Callable[[float], bool], lowest: float, highest: float) -> float:
    """The largest number that is excluded, where all below it are too; the lowest where none is."""
    below, above = lowest, highest
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        if lowest < middle < highest and excludes(middle):
            below = middle
        else:
            above = middle
    return below


def _sentence(chart: Chart, bets: Bets, champion: Champion | None, asked: Drawn) -> str:
    rule = bets.rule
    factor = 100 if rule.paired else 1
    edge = factor * (rule.threshold if rule.paired else rule.bound)
    mean, low, high = short([factor * n for n in (chart.estimate, chart.low, chart.high)], [edge], signed=rule.paired)
    drawn_from = f"the first {chart.n:,} of {asked.whole:,} examples in drawn order"
    if champion is None:
        where = f"{mean} correct on {drawn_from}"
    else:
        size = f"{mean.lstrip(f'+{MINUS}')} points"
        words = {"+": f"{size} better than", MINUS: f"{size} worse than"}.get(mean[0], "as good as")
        where = f"{words} {champion.short} on {drawn_from}"
    bound = f"{written(exact(edge))}{' points' if rule.paired else ''}"
    does = {
        "pass": f"are on the allowed side of {bound}",
        "fail": f"are on the forbidden side of {bound}",
        "inconclusive": f"do not exclude {bound}",
    }[bets.verdict]
    more = "" if bets.verdict != "inconclusive" else _what_now(chart.n, asked)
    sure = percent(rule.confidence or CONFIDENCE)
    return f"{where}; its {sure} bounds at any time {low} … {high} {does}: {bets.verdict}{more}"


def _what_now(seen: int, asked: Drawn) -> str:
    if seen < len(asked.ids):
        return ""
    return "; a larger at_most may decide" if len(asked.ids) < asked.whole else "; a larger test set may decide"
