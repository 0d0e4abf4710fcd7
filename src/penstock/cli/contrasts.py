"""Flips in words: what a person reads of two models on the same examples, in a terminal, a report or a page. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich.text import Text

from penstock.charts import Chart
from penstock.cli.pictures import Row, chart_line, figure, safe, stacked, style_of
from penstock.comparisons import MINUS, percent, short
from penstock.flips import Flip, Flips, SliceRow

SLICES = 10
"""So many slices are shown, the worst first."""


@dataclass(frozen=True, slots=True)
class Names:
    """What the two models are called: `run 3` and `run 4`, or `the champion 0.1.0` and `this run`."""

    a: str
    b: str


def is_share(flips: Flips) -> bool:
    """Whether the score is 0 or 1, so that differences are points."""
    return flips.score == "correct"


def score_word(flips: Flips) -> str:
    return flips.score.replace("_", " ")


def levels(flips: Flips) -> str:
    """Both mean scores and what they are of: `0.9 → 0.85 correct on the same 500 examples`."""
    what = score_word(flips) if is_share(flips) else f"mean {score_word(flips)}"
    return f"{figure(flips.a)} → {figure(flips.b)} {what} on {_examples(flips)}"


def _examples(flips: Flips) -> str:
    count = f"{flips.n:,} example{'' if flips.n == 1 else 's'}"
    is_whole = flips.same_test_set and not flips.only_a and not flips.only_b
    return f"the same {count}" if is_whole else f"{count} that both answered"


def left_out(flips: Flips, names: Names) -> str:
    """What could not be held against anything, in one sentence; empty where both answered the very same."""
    counts = [
        (flips.only_a, f"that only {names.a} answered"),
        (flips.only_b, f"that only {names.b} answered"),
        (flips.relabelled, "with another truth"),
    ]
    told = ", ".join(f"{count:,} {what}" for count, what in counts if count)
    if flips.same_test_set:
        return told and f"left out: {told}"
    return f"the test set is another one; left out: {told or 'examples that neither answered'}"


def counts(flips: Flips) -> str:
    """How many examples changed, each way."""
    if not flips.better and not flips.worse:
        return "no example changed"
    gained, lost = ("newly right", "newly wrong") if is_share(flips) else ("better", "worse")
    return f"{flips.better:,} {gained}, {flips.worse:,} {lost}"


def bounded(flips: Flips) -> Chart | None:
    """The gain with its bounds; None where there is nothing between them, or no bounds at all."""
    return flips.gain if flips.gain is not None and flips.gain.low < flips.gain.high else None


def gain_words(flips: Flips) -> str:
    """The gain with its bounds, and what they show: `5.0 points worse; its 95 % bounds -7.1 … -2.9 show a loss`."""
    chart = bounded(flips)
    if chart is None:
        return "one example says nothing of others" if flips.gain is None else ""
    factor = 100 if is_share(flips) else 1
    gain, low, high = short([factor * n for n in (chart.estimate, chart.low, chart.high)], [0.0], signed=True)
    amount = f"{gain.lstrip(f'+{MINUS}')}{' points' if is_share(flips) else ''}"
    what = {"+": f"{amount} better", MINUS: f"{amount} worse"}.get(gain[0], "neither better nor worse")
    shows = "a gain" if chart.low > 0 else "a loss" if chart.high < 0 else "neither a gain nor a loss"
    return f"{what}; its {percent(chart.confidence)} bounds {low} … {high} show {shows}"


def zeroed(chart: Chart) -> Chart:
    """The chart of a gain with its edge at zero: what lies below is a loss."""
    return replace(chart, least=0.0)


def is_loss(flip: Flip, flips: Flips) -> bool:
    return (flip.score_b > flip.score_a) == flips.lower_is_better


def flip_cells(flip: Flip, flips: Flips) -> tuple[str, ...]:
    """Id, truth, both predictions, and of numeric scores also both of these; an empty cell where there is none."""
    scores = () if is_share(flips) else (f"{figure(flip.score_a)} → {figure(flip.score_b)}",)
    return flip.id, flip.truth, flip.a or "", flip.b or "", *scores


def flip_titles(flips: Flips, names: Names) -> tuple[str, ...]:
    return ("id", "truth", names.a, names.b, *(() if is_share(flips) else (score_word(flips),)))


def slice_rows(flips: Flips, limit: int) -> tuple[SliceRow, ...]:
    """The worst slices, so many; none where no example changed."""
    return flips.slices[:limit] if flips.better or flips.worse else ()


def slice_cells(row: SliceRow, flips: Flips) -> tuple[str, ...]:
    """Column, label, how many examples, both means, the difference (of `correct` in points), what is shown."""
    moved = f"{100 * row.difference:+.1f}" if is_share(flips) else f"{row.difference:+.3g}"
    moved = moved if float(moved) else "0"
    means = (f"{mean:.3f}" if is_share(flips) else figure(mean) for mean in (row.a, row.b))
    return row.column, row.label, f"{row.n:,}", *means, moved.replace("-", MINUS), row.shown or ""


def slice_titles(flips: Flips, names: Names) -> tuple[str, ...]:
    return ("slice", "", "examples", names.a, names.b, "points" if is_share(flips) else "difference", "")


# --- in a terminal -------------------------------------------------------------------------------------------------


def flip_lines(flips: Flips, names: Names, limit: int, width: int) -> Iterator[Text]:
    """All of it: levels, gain with its picture, the first flipped examples, the worst slices."""
    yield Text.assemble("  ", safe(flips.step, "bold"), "  ", safe(levels(flips)))
    facts = [counts(flips), gain_words(flips), left_out(flips, names)]
    yield from stacked([Row(Text(" "), (), safe(fact), 3) for fact in facts if fact], width)
    chart = bounded(flips)
    if chart is not None:
        yield from stacked([Row(Text(" "), (), safe(chart_line(zeroed(chart)), "dim"))], width)
    yield from _table(flip_titles(flips, names), [_flip_row(e, flips) for e in flips.examples[:limit]], width)
    hidden = flips.better + flips.worse - min(limit, len(flips.examples))
    if hidden and flips.examples:
        yield Text(f"    and {hidden:,} more: --examples N shows so many", "dim")
    rows = [_slice_row(row, flips) for row in slice_rows(flips, SLICES)]
    yield from _table(slice_titles(flips, names), rows, width, frozenset({2, 3, 4, 5}))
    if len(flips.slices) > len(rows) > 0:
        yield Text(f"    and {len(flips.slices) - len(rows):,} slices more: --json has them", "dim")


def _table(titles: Sequence[str], rows: list[Row], width: int, right: frozenset[int] = frozenset()) -> Iterator[Text]:
    if rows:
        yield Text("")
        yield from stacked([Row(Text(" "), tuple(safe(t, "dim") for t in titles), Text("")), *rows], width, right=right)


def _flip_row(flip: Flip, flips: Flips) -> Row:
    lost = is_loss(flip, flips)
    mark = Text("✗", "red") if lost else Text("✓", "green")
    return Row(mark, tuple(map(safe, flip_cells(flip, flips))), Text(""))


def _slice_row(row: SliceRow, flips: Flips) -> Row:
    *cells, shown = slice_cells(row, flips)
    style = {"worse": "red", "better": "green"}.get(shown, "")
    return Row(Text(" "), (*map(safe, cells), safe(shown, style or style_of(shown))), Text(""))
