"""Drawings: charts as SVG, to stand in a page whose style sheet colours them; pure.

Across they are measured in percent and down in pixels, so they take whatever width there is while their words stay as
large as they are. Colours come from classes; without a style sheet everything is black.
"""

from collections.abc import Iterable
from html import escape

from penstock.charts import Chart
from penstock.comparisons import MINUS, short

_MIDDLE = 34
_ABOVE, _BELOW, _LOWEST = 12, 63, 80
"""The base lines of the estimate, of its bounds, and of edges."""
_ROOM = 0.2
"""The share of the width that a number takes at most."""
_NEAR = 8
"""Percent of the width from an edge within which words begin, or end, at their place."""


def element(tag: str, *children: str, **attributes: str | float | None) -> str:
    """An element with children that are markup already; values are escaped, and `_` in a name stands for `-`."""
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{named}>{''.join(children)}</{tag}>" if children else f"<{tag}{named}/>"


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


def _percent(share: float) -> str:
    return f"{_text(100 * min(max(share, 0.0), 1.0))}%"


# --- what a gate measured ------------------------------------------------------------------------------------------


def interval(chart: Chart, word: str = "") -> str:
    """A chart: estimate and bounds on their axis, what the rule forbids, its edges, and for a gain also zero.

    `word` is the verdict, which becomes a class: it colours the interval.
    """
    start, end = chart.span
    axis = _Axis(start, end)
    parts = [
        *_ground(chart, axis),
        *_marks(chart, axis),
        _line(axis.at(chart.low), axis.at(chart.high), _MIDDLE, _MIDDLE, "reach"),
        *(_line(axis.at(n), axis.at(n), _MIDDLE - 7, _MIDDLE + 7, "bound") for n in (chart.low, chart.high)),
        element("circle", cx=axis.at(chart.estimate), cy=_MIDDLE, r=6, class_="estimate"),
        *_numbers(chart, axis),
    ]
    where = "" if chart.slice_of is None else f" of {chart.slice_of}"
    label = f"{chart.kind} in {chart.score.replace('_', ' ')}{where}: {described(chart)}"
    name = " ".join(filter(None, ("chart", word)))
    height = max(_zero_line(chart, axis), _LOWEST if _edges(chart) else _BELOW) + 6
    return element("svg", *parts, class_=name, width="100%", height=height, role="img", aria_label=label)


def _edges(chart: Chart) -> list[float]:
    return [edge for edge in (chart.least, chart.most) if edge is not None]


def described(chart: Chart) -> str:
    """The numbers of a chart in words, for who cannot see it: `-5.2, bounds -6.8 … -3.8, limit -3`."""
    estimate, low, high, *edges = _labels(chart)
    limits = f", limit {' and '.join(edges)}" if edges else ""
    return f"{estimate}, bounds {low} … {high}{limits}"


def _labels(chart: Chart) -> list[str]:
    """Estimate, bounds and edges as they are written: gains of `correct` in points, relative ones in percent."""
    edges, is_gain = _edges(chart), chart.kind == "gain"
    factor = 100 if chart.relative or (is_gain and chart.score == "correct") else 1
    numbers = [factor * n for n in (chart.estimate, chart.low, chart.high)]
    limits = [float(f"{factor * n:.12g}") for n in edges]
    shown = [*short(numbers, limits, signed=is_gain), *(f"{n:.6g}".replace("-", MINUS) for n in limits)]
    return [f"{text} %" for text in shown] if chart.relative else shown


class _Axis:
    """The places of numbers in percent of the width."""

    def __init__(self, start: float, end: float) -> None:
        self._start, self._size = start, end - start if end > start else 1.0

    def share(self, number: float) -> float:
        return (number - self._start) / self._size

    def at(self, number: float) -> str:
        return _percent(self.share(number))


def _ground(chart: Chart, axis: _Axis) -> Iterable[str]:
    """The whole axis, and over it what the rule forbids."""
    yield element("rect", x="0%", y=_MIDDLE - 14, width="100%", height=28, rx=5, class_="ground")
    if chart.least is not None:
        yield _forbidden("0%", axis.at(chart.least))
    if chart.most is not None:
        rest = _percent(1 - axis.share(chart.most))
        yield _forbidden(axis.at(chart.most), rest)


def _forbidden(start: str, width: str) -> str:
    return element("rect", x=start, y=_MIDDLE - 14, width=width, height=28, rx=5, class_="forbidden")


def _has_zero(chart: Chart) -> bool:
    """Whether zero is shown by itself: of a gain, where it is no edge."""
    return chart.kind == "gain" and 0.0 not in _edges(chart)


def _marks(chart: Chart, axis: _Axis) -> Iterable[str]:
    """Zero of a gain, and the edges of the rule."""
    if _has_zero(chart):
        yield _line(axis.at(0.0), axis.at(0.0), _MIDDLE - 14, _MIDDLE + 14, "zero")
    for edge in _edges(chart):
        yield _line(axis.at(edge), axis.at(edge), _MIDDLE - 18, _MIDDLE + 18, "edge")


def _numbers(chart: Chart, axis: _Axis) -> Iterable[str]:
    """The estimate above, the bounds below and outwards, and below these the edges."""
    estimate, low, high, *edges = _labels(chart)
    yield _words(axis.share(chart.estimate), _ABOVE, estimate, "estimate-label")
    yield _words(axis.share(chart.low), _BELOW, low, "bound-label", "end")
    yield _words(axis.share(chart.high), _BELOW, high, "bound-label", "start")
    marks = [*_edges(chart), *([0.0] if _has_zero(chart) else [])]
    for mark, label in zip(marks, [*(f"limit {text}" for text in edges), "0"], strict=False):
        others = [other for other in marks if other != mark]
        anchor = None if not others else "end" if others[0] > mark else "start"
        line = _LOWEST if mark in _edges(chart) else _zero_line(chart, axis)
        yield _words(axis.share(mark), line, label, "edge-label", anchor)


def _zero_line(chart: Chart, axis: _Axis) -> int:
    """Zero stands beside the bounds where it does not meet them, else below as edges do."""
    if not _has_zero(chart):
        return 0
    apart = min(abs(axis.share(0.0) - axis.share(bound)) for bound in (chart.low, chart.high))
    is_free = chart.low < 0 < chart.high or apart > _ROOM
    return _BELOW if is_free and not _edges(chart) else _LOWEST


def _words(share: float, y: float, text: str, name: str, anchor: str | None = None) -> str:
    """Words at a place; near an end of the axis they turn inwards, whatever is wished."""
    turned = "start" if 100 * share < _NEAR else "end" if 100 * share > 100 - _NEAR else anchor
    return element("text", escape(text), x=_percent(share), y=y, text_anchor=turned or "middle", class_=name)


def _line(x1: str, x2: str, y1: float, y2: float, name: str) -> str:
    return element("line", x1=x1, x2=x2, y1=y1, y2=y2, class_=name)


# --- small ones, one in a row of a table ---------------------------------------------------------------------------


def change(a: float, b: float, low: float, high: float, word: str = "") -> str:
    """From `a`, a ring, to `b`, a dot, on an axis from `low` to `high`; `word` becomes a class."""
    axis = _Axis(low, high)
    parts = (
        _line("0%", "100%", 9, 9, "rail"),
        _line(axis.at(a), axis.at(b), 9, 9, "reach"),
        element("circle", cx=axis.at(a), cy=9, r=4, class_="from"),
        element("circle", cx=axis.at(b), cy=9, r=5, class_="to"),
    )
    return element("svg", *parts, class_=f"change {word}".strip(), width="100%", height=18, aria_hidden="true")


def shares(counts: Iterable[tuple[str, int]]) -> str:
    """Counts as parts of one bar, each with its word as class; the largest share is the longest."""
    known = [(word, count) for word, count in counts if count > 0]
    whole = sum(count for _, count in known) or 1
    parts, start = [], 0
    for word, count in known:
        parts.append(element("rect", x=_percent(start / whole), width=_percent(count / whole), height=8, class_=word))
        start += count
    return element("svg", *parts, class_="shares", width="100%", height=8, aria_hidden="true")


def stretch(start: float, end: float, whole: tuple[float, float], word: str = "") -> str:
    """A stretch of time within a whole one, both from and to seconds; never so short that it cannot be seen."""
    axis = _Axis(*whole)
    left = min(max(axis.share(start), 0.0), 0.99)
    wide = max(min(axis.share(end), 1.0) - left, 0.01)
    bar = element("rect", x=_percent(left), y=3, width=_percent(wide), height=10, rx=3, class_="bar")
    rail = _line("0%", "100%", 8, 8, "rail")
    return element("svg", rail, bar, class_=f"stretch {word}".strip(), width="100%", height=16, aria_hidden="true")
