"""Rules that hold for any view whatever: it fits its window, it is clean, and plain lines never repeat."""

import io
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from penstock.cli.happenings import render_history
from penstock.cli.progress import (
    Picture,
    PlanRow,
    StatusRow,
    clean,
    plain_lines,
    render_plan,
    render_run,
    render_runs,
    render_show,
    render_status,
    summary,
)
from penstock.engine.happenings import Happening
from penstock.runs import GateView, ReleaseView, RunStatus, RunView, StepStatus, StepView

T = 1_700_000_000.0
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure

TEXT = st.text(max_size=30)
SHORT = st.none() | TEXT
TIMES = st.none() | st.floats(T, T + 1e6)
STEPS = st.builds(
    StepView,
    name=TEXT,
    stage=st.sampled_from(["build", "test", "deploy", "other"]),
    status=st.sampled_from([*StepStatus, "odd"]),
    reason=SHORT,
    cached=st.booleans(),
    attempts=st.integers(0, 3),
    started=TIMES,
    ended=TIMES,
    exit_code=st.none() | st.integers(-300, 300),
    progress=SHORT,
    needs=st.lists(TEXT, max_size=3).map(tuple),
)
GATES = st.builds(
    GateView,
    name=TEXT,
    rule=TEXT,
    verdict=st.sampled_from(["pass", "fail", "inconclusive", None]),
    value=st.none() | st.floats(),
    reasons=st.lists(TEXT, max_size=2).map(tuple),
)
RELEASE_STATUSES = ["queued", "skipped", "starting", "probing", "canary", "serving", "draining", "retired", "odd"]
RELEASE_STATUSES += ["rejected", "rolled_back", "errored"]
RELEASES = st.builds(
    ReleaseView,
    environment=TEXT,
    version=TEXT,
    status=st.sampled_from([*RELEASE_STATUSES]),
    url=SHORT,
    reason=SHORT,
    phase=st.sampled_from([None, "switching", "starting 2 replicas", "draining 0.1"]) | TEXT,
    replaced=SHORT,
)


def some(strategy: st.SearchStrategy[Any], name: Callable[[Any], str], most: int) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, max_size=most, unique_by=name).map(tuple)


VIEWS = st.builds(
    RunView,
    run=st.just("12"),
    project=TEXT,
    version=TEXT,
    commit=TEXT,
    branch=SHORT,
    title=TEXT,
    trigger=TEXT,
    status=st.sampled_from([*RunStatus]),
    reason=SHORT,
    created=st.floats(T, T + 1e6),
    started=TIMES,
    ended=TIMES,
    dirty=st.booleans(),
    steps=some(STEPS, lambda s: s.name, 12),
    gates=some(GATES, lambda g: g.name, 4),
    releases=some(RELEASES, lambda r: r.environment, 3),
    package=SHORT,
    package_size=st.none() | st.integers(0, 10**15),
    metrics=st.dictionaries(TEXT, st.floats(), max_size=3),
    notes=st.lists(TEXT, max_size=3).map(tuple),
)


def assert_fits(picture: Picture, width: int) -> list[str]:
    """Drawn by rich itself at this width, no line is wider and none holds a control character."""
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None, force_terminal=False).print(picture)
    lines = stream.getvalue().split("\n")[:-1]
    assert [line for line in lines if cell_len(line) > width] == []
    assert [line for line in lines if clean(line) != line] == []
    return lines


@CALM
@given(VIEWS, st.integers(1, 200), st.none() | st.integers(1, 40))
def test_no_view_breaks_the_window(view: RunView, width: int, height: int | None) -> None:
    """Any view at any size of window draws without an error within its width and height."""
    lines = assert_fits(render_run(view, T + 5, width, height), width)
    assert height is None or len(lines) <= height


@CALM
@given(VIEWS, st.integers(2, 200))
def test_no_view_breaks_a_table(view: RunView, width: int) -> None:
    """Any view as a summary, a whole run or a table stays within the width, and has a plain form."""
    tails = {s.name: [s.reason or "", view.title] for s in view.steps}
    for picture in (summary(view, [view.title], tails), render_show(view), render_runs([view, view])):
        assert_fits(picture, width)
        assert all(clean(line) == line.rstrip() for line in str(picture).split("\n"))


@CALM
@given(st.lists(st.tuples(TEXT, TEXT, SHORT, SHORT), max_size=4), st.integers(2, 200))
def test_no_row_breaks_a_table(rows: list[tuple[str, str, str | None, str | None]], width: int) -> None:
    """Any plan and any status stay within the width."""
    assert_fits(render_plan([PlanRow(a, b, "wait", c or "") for a, b, c, _ in rows]), width)
    assert_fits(
        render_status(
            [StatusRow(a, b, a, c, b, None if d is None else T, () if d is None else (d, a)) for a, b, c, d in rows]
        ),
        width,
    )


@CALM
@given(st.lists(st.tuples(TEXT, SHORT, TEXT, SHORT), max_size=4), st.integers(2, 200))
def test_no_history_breaks_a_table(rows: list[tuple[str, str | None, str, str | None]], width: int) -> None:
    """Whatever happened to an environment stays within the width."""
    found = [Happening(T, what, version, 1, None, who, why) for what, version, who, why in rows]
    assert_fits(render_history(found), width)


@CALM
@given(VIEWS, VIEWS)
def test_plain_lines_are_lines_and_never_repeat(before: RunView, after: RunView) -> None:
    """Between any two views each change is one clean line, and the same view again says nothing."""
    lines = plain_lines(before, after)
    assert [line for line in lines if clean(line) != line or not line] == []
    assert plain_lines(after, after) == []
