"""What `insight` shows: chances with their intervals, forecasts beside what came, durations. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.text import Text

from penstock.cli.pictures import Picture, Row, duration, fact_lines, safe, stacked
from penstock.reliability import BLOCK, FEWEST

_BAR = 20
_SHOWN = 12
_GOOD, _FAIR = 0.9, 0.7


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage: how many commits passed it of those that told, and the chance with its 90 % interval."""

    stage: str
    passed: int
    total: int
    estimate: float
    low: float
    high: float
    prior: float


@dataclass(frozen=True, slots=True)
class CalibrationRow:
    """How one way to foretell fared; `covered` of `blocks` blocks of ten were within their bounds."""

    name: str
    brier: float
    log_loss: float
    calibration_error: float
    covered: int
    blocks: int


@dataclass(frozen=True, slots=True)
class DurationRow:
    """How long a step takes when it runs: the median of its last `runs` times, in seconds."""

    step: str
    seconds: float
    runs: int


@dataclass(frozen=True, slots=True)
class Chances:
    """All that is known of a project's next commit.

    `forecast` is the chance, with its bounds, to pass the `asked` stages; `effect` the run effect's μ and τ.
    """

    project: str
    commits: int
    stages: tuple[StageRow, ...]
    product: float
    asked: tuple[str, ...]
    forecast: tuple[float, float, float]
    effect: tuple[float, float]
    forgetting: float
    weight: float
    foretold: int
    calibrations: tuple[CalibrationRow, ...]
    durations: tuple[DurationRow, ...]


def percent(share: float) -> str:
    """A share as people say it, in tenths: `96.4 %`, and never `100 %` for what is not certain."""
    shown = f"{100 * share:.1f} %"
    return "> 99.9 %" if share < 1 and shown == "100.0 %" else shown


def bounds(low: float, high: float) -> str:
    """An interval of shares in whole percent: `43 to 83 %`; nothing is certain, so it never ends at 100."""
    return f"{100 * low:.0f} to {'> 99' if round(100 * high) == 100 else f'{100 * high:.0f}'} %"


def render_chances(found: Chances) -> Picture:
    """Stages, forecast, how such forecasts fared, and how long steps take."""
    return Picture(lambda width: list(_lines(found, width)))


def _lines(found: Chances, width: int) -> Iterator[Text]:
    commits = f"{found.commits:,} commit{'' if found.commits == 1 else 's'}"
    yield Text.assemble(
        safe(found.project, "bold"), ("  what its history of ", "dim"), (commits, "dim"), (" says", "dim")
    )
    yield Text("")
    yield from _table(
        ("stage", "passed", "chance", "90 % interval"), [_stage_row(s) for s in found.stages], width, {1, 2}
    )
    yield Text("")
    yield from fact_lines(_facts(found), width)
    yield from (Text(""), Text("how such forecasts fared"))
    yield from _calibration_lines(found, width)
    if found.durations:
        yield from (Text(""), Text("how long steps take"))
        rows = [_duration_row(row) for row in found.durations[:_SHOWN]]
        yield from _table(("step", "median", "of"), rows, width, {1})
    more = len(found.durations) - _SHOWN
    if more > 0:
        yield Text(f"  and {more:,} that take less", "dim")


def _table(titles: Sequence[str], rows: Sequence[Row], width: int, right: set[int]) -> list[Text]:
    *cells, note = (Text(title, "dim") for title in titles)
    return stacked([Row(Text(" "), tuple(cells), note), *rows], width, right=frozenset(right))


def _colour(share: float) -> str:
    return "green" if share >= _GOOD else "yellow" if share >= _FAIR else "red"


def _stage_row(row: StageRow) -> Row:
    counted = f"{row.passed:,} of {row.total:,}" if row.total else "-"
    cells = (
        safe(row.stage, "bold"),
        safe(counted),
        Text(percent(row.estimate), _colour(row.estimate) if row.total else "dim"),
    )
    note = Text.assemble(_bar(row), f"  {bounds(row.low, row.high)}", ("" if row.total else "  (the prior)", "dim"))
    return Row(Text("●", _colour(row.estimate)) if row.total else Text("·", "dim"), cells, note)


def _bar(row: StageRow) -> Text:
    """Where chance and interval lie between 0 and 100 %."""
    low, middle, high = (min(_BAR - 1, int(x * _BAR)) for x in (row.low, row.estimate, row.high))
    style = _colour(row.estimate) if row.total else "dim"
    bar = Text()
    for place in range(_BAR):
        if place == middle:
            bar.append("●", style)
        else:
            bar.append("━" if low <= place <= high else "─", style if low <= place <= high else "dim")
    return bar


def _facts(found: Chances) -> list[tuple[str, str | Text]]:
    estimate, low, high = found.forecast
    words = Text(f"{percent(estimate)} ({bounds(low, high)}) to pass {_listed(found.asked)}", "bold")
    facts: list[tuple[str, str | Text]] = [
        ("next commit", words),
        ("product", f"{percent(found.product)} for all four stages"),
    ]
    if found.effect[1]:
        facts.append(("run effect", f"±{found.effect[1]:.2f} in log odds: stages of one commit fail together"))
    return facts


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _calibration_lines(found: Chances, width: int) -> list[Text]:
    if not found.calibrations:
        told = f"too few commits to say: {found.foretold} foretold, {FEWEST} are needed"
        return fact_lines([("", told)], width)
    titles = (f"{found.foretold} foretold", "Brier", "log loss", "off by", f"failures in {BLOCK} within bounds")
    best = min(row.brier for row in found.calibrations)
    return _table(titles, [_calibration_row(row, best) for row in found.calibrations], width, {1, 2, 3})


def _calibration_row(row: CalibrationRow, best: float) -> Row:
    style = "bold" if row.brier == best else ""
    cells = (
        safe(row.name, style),
        Text(f"{row.brier:.3f}", style),
        Text(f"{row.log_loss:.3f}", style),
        Text(percent(row.calibration_error), style),
    )
    return Row(Text(" "), cells, Text(f"{row.covered} of {row.blocks}" if row.blocks else "-"))


def _duration_row(row: DurationRow) -> Row:
    times = "once" if row.runs == 1 else f"the last {row.runs} times"
    return Row(Text(" "), (safe(row.step, "bold"), safe(duration(row.seconds))), Text(times, "dim"))
