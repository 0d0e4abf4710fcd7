"""Charts: what a gate measured, against what its rule allows, as one value that terminal, report and page draw."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

_NOTHING = 1e-300
"""A bound so near to 0 only says that 0 is inside: it is drawn and told as 0."""


@dataclass(frozen=True, slots=True)
class Chart:
    """An estimate with its bounds, on the axis of its rule. Numbers are fractions, or in the unit of the score.

    `kind` says whether it is a level, a gain over another model (more is better), or a ratio to another's; `least` and
    `most` are the edges of what the rule allows, None where it has no edge on that side. Each bound holds with
    `confidence`. `n` counts examples (of a ratio rounds), `discordant` those on which two models differ (None for one
    model), `needed` is about how many would decide (None where it is decided, or no number would). `slice_of` names the
    slice whose chart it is, as in `digit=3`; None where it is of all examples. `relative` says that numbers are
    fractions of the other model's score.
    """

    kind: Literal["level", "gain", "ratio"]
    score: str
    estimate: float
    low: float
    high: float
    least: float | None
    most: float | None
    confidence: float
    n: int
    discordant: int | None
    method: str
    needed: int | None = None
    slice_of: str | None = None
    relative: bool = False

    def __post_init__(self) -> None:
        for bound in ("low", "high"):
            if abs(getattr(self, bound)) < _NOTHING:
                object.__setattr__(self, bound, 0.0)

    def allows(self, number: float) -> bool:
        """Whether a number is on the allowed side of every edge."""
        return (self.least is None or number >= self.least) and (self.most is None or number <= self.most)

    @property
    def span(self) -> tuple[float, float]:
        """The part of the axis that shows bounds and edges, and for a gain also zero, with some room around them."""
        marks = [self.low, self.high, self.estimate, *(e for e in (self.least, self.most) if e is not None)]
        marks += [0.0] if self.kind == "gain" else []
        start, end = min(marks), max(marks)
        room = (end - start) / 8 or max(abs(end), 1e-9) / 8
        return start - room, end + room

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def chart_of(values: Mapping[str, Any] | None) -> Chart | None:
    """The chart that `as_json` wrote down."""
    return None if values is None else Chart(**values)


def drawn(chart: Chart, width: int = 32) -> str:
    """The chart in `width` characters: what is forbidden, the edge, the interval between its bounds, the estimate.

    As in `░░░░░░│   ├──●───┤     `. Two things in one place show the more important: estimate, bounds, edge.
    """
    start, end = chart.span
    step = (end - start) / (width - 1)
    cells = [" " if chart.allows(start + place * step) else "░" for place in range(width)]

    def put(number: float, sign: str) -> None:
        cells[round((number - start) / step)] = sign

    for place in range(round((chart.low - start) / step), round((chart.high - start) / step) + 1):
        cells[place] = "─"
    for edge in (chart.least, chart.most):
        if edge is not None:
            put(edge, "│")
    put(chart.low, "├")
    put(chart.high, "┤")
    put(chart.estimate, "●")
    return "".join(cells)
