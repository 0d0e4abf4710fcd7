"""What a person sees of a run: live picture, plain lines, tables, closing summary, and the streams they go to."""

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from penstock.charts import Chart
from penstock.cli.pictures import chart_line, figure, fold, gate_rows, size
from penstock.cli.progress import (
    LiveProgress,
    PlanRow,
    StatusRow,
    clean,
    display,
    duration,
    plain_lines,
    render_plan,
    render_run,
    render_runs,
    render_show,
    render_status,
    summary,
    verdict,
)
from penstock.runs import GateView, ReleaseView, RunView, StepView

T = 1_700_000_000.0
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure


def step(name: str, status: str = "passed", began: float | None = 0, ended: float | None = 1, **more: Any) -> StepView:
    """A step of the build stage; times in seconds after the run's start."""
    more |= {"started": None if began is None else T + began, "ended": None if ended is None else T + ended}
    return StepView(name, more.pop("stage", "build"), status, **more)


def queued(name: str, **more: Any) -> StepView:
    return step(name, "queued", None, None, **more)


def run(**changes: Any) -> RunView:
    """A running run of the digits project."""
    view = RunView(
        run="12",
        project="digits",
        version="0.1.0.dev4",
        commit="1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d",
        branch="main",
        title="Train longer",
        trigger="manual",
        status="running",
        reason=None,
        created=T,
        started=T,
        ended=None,
        dirty=False,
        steps=(),
        gates=(),
        releases=(),
        package=None,
        package_size=None,
        metrics={},
    )
    return replace(view, **changes)


CACHED = StepView("data", "build", "skipped", reason="same as in run 11", cached=True)
UNIT_FAILED = step("unit", "failed", 0, 2.7, stage="test", reason="exit", exit_code=1)
ACCURATE = GateView("accurate", "at least 0.85", "pass", 0.96388, ("0.9639 is at least 0.85",))
RED = GateView("accurate", "at least 0.85", "fail", 0.1028, ("0.1028 is below 0.85",))
SERVING = ReleaseView("production", "0.1.0.dev4", "serving", url="http://127.0.0.1:8800", replaced="0.1.0.dev3")
SLOW = GateView("fast", "at most 50", "fail", 60.0, ("too slow",))
KEPT = replace(SERVING, status="skipped", url=None, reason="gate accurate failed")
MIXED = run(
    steps=(step("check", ended=0.4), CACHED, step("train", "running", 9, None, progress="epoch 3 of 4"), UNIT_FAILED),
    gates=(ACCURATE, GateView("fast", "at most 50")),
    releases=(replace(SERVING, status="queued", url=None),),
)


def shown(view: RunView, width: int = 80, height: int | None = None) -> list[str]:
    return [line.plain for line in render_run(view, T + 21.3, width, height).lines(width)]


def row(lines: list[str], name: str) -> str:
    """The one line of a step, gate or environment."""
    (line,) = [line for line in lines if re.match(rf"  \S {re.escape(name)}(\s|$)", line)]
    return line


# --- words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.96, "10 s"),
        (12.3, "12 s"),
        (59.7, "1 min 00 s"),
        (65, "1 min 05 s"),
        (7380, "2 h 03 min"),
        (90_000, "1 d 01 h"),
        (-3, "0.0 s"),
        (float("nan"), "unknown"),
    ],
)
def test_duration(seconds: float, words: str) -> None:
    """A duration is said in the unit a person would take, and roundings move on to the next unit."""
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (999, "999 B"), (4_212_345, "4.2 MB"), (999_950, "1.0 MB"), (3e15, "3000.0 TB")]
)
def test_size(count: int, words: str) -> None:
    """Bytes are said in powers of 1000."""
    assert size(count) == words


@pytest.mark.parametrize(
    ("value", "rule", "words"),
    [
        (0.963889, "at least 0.85", "0.9639"),
        (0.849999, "at least 0.85", "0.849999"),
        (0.85, "at least 0.85", "0.85"),
        (1_234_567.0, "", "1234567"),
        (float("nan"), "at most 1", "nan"),
        (1e-9, "", "1e-09"),
    ],
)
def test_figure(value: float, rule: str, words: str) -> None:
    """A value that misses its rule by a hair is never rounded to the very number of the rule."""
    assert figure(value, rule) == words


def test_clean_takes_out_what_a_terminal_would_obey() -> None:
    """Escape sequences, C0 and C1 controls, line ends and bidirectional marks do not reach the terminal."""
    assert clean("a\x1b[31mred\x1b[0m \x1b]0;title\x07b\x9b2Jc\x07d\u202ee\r\nf\x1b") == "ared bcde  f"
    assert clean("[bold]x[/bold] :smile:") == "[bold]x[/bold] :smile:"


@CALM
@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\x1b\x9b[]m;0\x07\\\t\r\n"))))
def test_clean_leaves_one_printable_line(text: str) -> None:
    """Whatever the text, what is left is one line of characters that only show themselves."""
    left = clean(text)
    assert not [c for c in left if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]
    assert clean(left) == left


@CALM
@given(st.text(alphabet=st.characters(exclude_categories=["C", "M", "Z"]), max_size=60), st.integers(2, 30))
def test_fold_loses_nothing(text: str, width: int) -> None:
    """Folding keeps every character in order and stays within the width."""
    lines = fold(text, width)
    assert "".join(lines) == text
    assert all(cell_len(line) <= width for line in lines)


# --- the live picture ----------------------------------------------------------------------------------------------


def test_header_names_the_run() -> None:
    """The head of the picture says project, version, run, status, time, commit, branch and title."""
    first, second, *_ = shown(run(dirty=True))
    assert first.split() == ["digits", "0.1.0.dev4", "run", "12", "running", "21", "s"]
    assert first.endswith("21 s")
    assert len(first) == 80
    assert second == "1a2b3c4 + uncommitted work  main  Train longer"


def test_steps_say_what_they_do() -> None:
    """Running steps show elapsed time and progress, cached ones the word, failed ones the reason."""
    lines = shown(MIXED)
    assert row(lines, "check").split() == ["✓", "check", "passed", "0.4", "s"]
    assert row(lines, "train").split()[1:] == ["train", "running", "12", "s", "epoch", "3", "of", "4"]
    assert row(lines, "data").split()[:3] == ["✓", "data", "cached"]
    assert row(lines, "unit").split("  ")[-1] == "exit code 1"


def test_columns_align() -> None:
    """Names, words and times stand under each other, over all stages."""
    lines = shown(MIXED)
    starts = {row(lines, n).index(w) for n, w in [("check", "passed"), ("train", "running"), ("unit", "failed")]}
    starts |= {row(lines, n).index(w) for n, w in [("accurate", "0.9639"), ("production", "queued")]}
    assert len(starts) == 1
    assert row(lines, "check").index("0.4 s") == row(lines, "train").index(" 12 s")


def test_stages_stand_in_order() -> None:
    """Build, test, gates and deploy follow each other whatever the order of the steps."""
    view = replace(MIXED, steps=(step("migrate", stage="deploy"), *reversed(MIXED.steps)))
    flush = [line for line in shown(view) if line and not line.startswith(" ")]
    assert flush[2:] == ["build", "test", "gates", "deploy"]


def test_a_queued_step_says_what_it_waits_for() -> None:
    """A queued step names the needed steps that have not ended, at most two."""
    open_steps = [queued(name) for name in "abc"]
    view = run(steps=(step("done"), *open_steps, queued("last", needs=("done", "a", "b", "c"))))
    assert row(shown(view), "last").endswith("after a, b and 1 more")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reason": "oom"}, "out of memory"),
        ({"reason": "timeout", "attempts": 2}, "timed out  attempt 2"),
        ({"exit_code": -9}, "ended by SIGKILL"),
        ({"exit_code": -200}, "ended by signal 200"),
        ({"reason": "src/a.py:3: invalid syntax", "exit_code": 1}, "src/a.py:3: invalid syntax"),
    ],
)
def test_reasons_are_words(changes: dict[str, Any], words: str) -> None:
    """A red step says why in words a person reads, not in our own codes."""
    assert row(shown(run(steps=(step("train", "failed", **changes),))), "train").endswith(f"1.0 s  {words}")


def test_gates_show_value_against_rule() -> None:
    """A gate's row is value, rule and verdict; a passed one's reason that only repeats them is left out."""
    first = GateView("first", "at least 1", "pass", 2.0, ("no champion yet",))
    lines = shown(run(gates=(ACCURATE, replace(RED, name="red"), first)))
    assert row(lines, "accurate").split("  ")[1:] == ["✓ accurate", "0.9639", "at least 0.85", "pass"]
    assert row(lines, "red").endswith("fail  0.1028 is below 0.85")
    assert row(lines, "first").endswith("no champion yet")
    warned = GateView("warned", "better than the champion", "pass", 0.5, ("warning: 0.5 was compared with nothing",))
    assert row(shown(run(gates=(warned,)), 120), "warned").endswith("compared with nothing")


def test_the_interval_of_a_gate_stands_below_it() -> None:
    """A gate that an interval decided has a chart of it in the closing tables, between its bounds."""
    chart = Chart("gain", "correct", -0.008, -0.023, 0.006, -0.01, None, 0.95, 360, 7, "counted", 2100)
    first, second = gate_rows(replace(RED, chart=chart), 1000)
    assert first.cells[0].plain == "accurate"
    assert second.note.plain == "-2.3 ░░░├──────────│─●───────────┤    +0.6"
    level = replace(chart, kind="level", estimate=0.96, low=0.94, high=0.98, least=0.85)
    assert chart_line(level).startswith("0.94 ")


def test_a_long_reason_goes_on_below() -> None:
    """What does not fit beside a red gate stands below it, whole."""
    sentence = "the champion has evidence on another test set, so the two cannot be compared on the same examples"
    gate = GateView("even", "not worse than the champion by more than 0.03", "inconclusive", 0.9, (sentence,))
    lines = shown(run(gates=(gate,)), 60)
    rule = slice(lines[4].index("not worse"), lines[4].index("inconclusive"))
    assert " ".join(line[rule].rstrip() for line in lines[4:6]) == gate.rule
    assert sentence in " ".join(line.strip() for line in lines)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": "queued", "phase": "starting 2 replicas"}, "production  starting 2 replicas …"),
        ({"status": "starting", "phase": "switching"}, "production  switching 0.1.0.dev3 → 0.1.0.dev4"),
        ({"status": "starting", "phase": "switching", "replaced": None}, "production  switching to 0.1.0.dev4"),
        ({}, "production  serving  http://127.0.0.1:8800"),
        ({"phase": "draining 0.1.0.dev3"}, "production  serving  http://127.0.0.1:8800  draining 0.1.0.dev3 …"),
        ({"status": "rolled_back", "reason": "errors rose"}, "production  rolled back  errors rose"),
    ],
)
def test_environments_show_the_rollout(changes: dict[str, Any], words: str) -> None:
    """An environment's row says which phase the rollout is in, and in the end where it serves."""
    assert row(shown(run(releases=(replace(SERVING, **changes),))), "production")[4:] == words


def test_the_live_mark_moves_with_time_only() -> None:
    """The same view at the same moment is the same picture; a moment later only mark and time differ."""
    one, two, three = (str(render_run(MIXED, T + at, 80)) for at in (20.0, 20.0, 20.5))
    assert one == two != three
    assert re.sub(r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]|\d+ s", "", one) == re.sub(r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]|\d+ s", "", three)


def test_thousands_of_steps_fit_a_window() -> None:
    """In a small window running, failed and recent steps stay and the rest is counted."""
    steps = [step(f"t{i}", began=i, ended=i + 1) for i in range(900)]
    steps += [step(f"r{i}", "running", 900, None) for i in range(3)] + [queued(f"q{i}") for i in range(2000)]
    view = run(steps=(UNIT_FAILED, *steps), gates=(ACCURATE,), releases=(SERVING,))
    lines = shown(view, 80, 20)
    assert len(lines) <= 20
    assert all(row(lines, name) for name in ("unit", "r0", "r1", "r2", "t899", "accurate", "production"))
    (heading,) = [line for line in lines if line.startswith("build")]
    hidden = sum(int(count.replace(",", "")) for count in re.findall(r"[\d,]*\d", heading))
    assert hidden + sum(bool(re.match(r"  \S [tr]\d", line)) for line in lines) == len(steps)


def test_a_tiny_window_shows_what_matters_most() -> None:
    """In five lines the head, the counts, the running and the failed step are left."""
    steps = [queued(f"q{i}") for i in range(50)]
    lines = shown(run(steps=(*steps, step("train", "running", 1, None), UNIT_FAILED)), 60, 5)
    assert len(lines) <= 5
    assert re.fullmatch(r"\d+ queued not shown", lines[1])
    assert row(lines, "train")
    assert row(lines, "unit")


def test_markup_and_escapes_in_names_are_only_text() -> None:
    """A commit title or step name that looks like markup or an escape sequence changes nothing but its own text."""
    view = run(title="[red]x[/red] \x1b[2J", steps=(step("a[seed=0]\x1b[31m"),))
    console = Console(record=True, file=io.StringIO(), width=80, force_terminal=True)
    console.print(render_run(view, T, 80))
    text = console.export_text(styles=False)
    assert "[red]x[/red]" in text
    assert "a[seed=0]  " in text
    assert "\x1b" not in text


# --- plain lines ---------------------------------------------------------------------------------------------------


def test_plain_lines_tell_a_run_from_its_start() -> None:
    """The first view gives the head and everything that is known already, in stable words."""
    assert plain_lines(None, MIXED) == [
        "run 12  digits  0.1.0.dev4  1a2b3c4  main  Train longer",
        "data  cached",
        "check  passed  0.4 s",
        "unit  failed  2.7 s  exit code 1",
        "train  running",
        "accurate  0.9639  at least 0.85  pass",
    ]


def test_plain_lines_tell_only_what_changed() -> None:
    """Later views give one line per change, also where several changes lie between two views."""
    done = step("train", began=9, ended=21.3)
    later = replace(MIXED, steps=(*MIXED.steps[:2], done, UNIT_FAILED), gates=(ACCURATE, SLOW), notes=("look here",))
    ended = replace(later, status="failed", ended=T + 30, releases=(KEPT,))
    assert plain_lines(MIXED, later) == [
        "note  look here",
        "train  passed  12.3 s",
        "fast  60  at most 50  fail  too slow",
    ]
    assert plain_lines(later, ended) == ["production  skipped  gate accurate failed", "run 12  failed  30.0 s"]
    assert plain_lines(ended, ended) == []
    assert plain_lines(ended, replace(MIXED, run="13")) == plain_lines(None, replace(MIXED, run="13"))


def test_plain_lines_of_a_rollout() -> None:
    """Each phase of a rollout is one line."""
    phases = [
        replace(SERVING, status="queued", url=None),
        replace(SERVING, status="starting", url=None, phase="starting 2 replicas"),
        replace(SERVING, status="starting", url=None, phase="switching"),
        SERVING,
    ]
    views = [run(releases=(phase,)) for phase in phases]
    told = [line for before, after in pairwise(views) for line in plain_lines(before, after)]
    assert told == [
        "production  starting 2 replicas …",
        "production  switching 0.1.0.dev3 → 0.1.0.dev4",
        "production  serving  http://127.0.0.1:8800",
    ]


def test_plain_lines_of_a_canary_are_few() -> None:
    """What changes at every look is told when it has doubled, and at each width; nothing is told twice."""
    counted = [f"canary 5 %: {n:,} requests, about {1000 - n:,} more" for n in range(1, 1000)]
    phases = ["canary 5 %", *counted, "canary 50 %", "canary 50 %: 1 request"]
    views = [run(releases=(replace(SERVING, status="canary", url=None, phase=phase),)) for phase in phases]
    told = [line for before, after in pairwise(views) for line in plain_lines(before, after)]
    wanted = [counted[2**power - 1] for power in range(10)] + phases[-2:]
    assert told == [f"production  {phase} …" for phase in wanted]


def test_plain_lines_of_attempts_and_interruptions() -> None:
    """A new attempt and a return to the queue are told, progress within an attempt is not."""
    first = step("train", "running", 1, None, attempts=1, progress="epoch 1")
    views = [run(steps=(s,)) for s in (first, replace(first, progress="epoch 2"), replace(first, attempts=2))]
    back = run(steps=(queued("train", reason="interrupted"),), status="queued", reason="interrupted")
    assert plain_lines(views[0], views[1]) == []
    assert plain_lines(views[1], views[2]) == ["train  running  attempt 2"]
    assert plain_lines(views[2], back) == ["train  queued  interrupted", "run 12  queued  interrupted"]


# --- the closing summary -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"status": "passed", "releases": (SERVING,)},
            "0.1.0.dev4 is serving in production at http://127.0.0.1:8800",
        ),
        (
            {"status": "passed", "releases": (replace(SERVING, environment="staging", url=None), SERVING)},
            "0.1.0.dev4 is serving in production at http://127.0.0.1:8800 and in staging",
        ),
        (
            {"status": "passed", "releases": (replace(KEPT, reason="branch fix is not main"),)},
            "0.1.0.dev4 passed; nothing was deployed (production: branch fix is not main)",
        ),
        ({"status": "passed"}, "0.1.0.dev4 passed; nothing was deployed"),
        (
            {"status": "passed", "releases": (replace(SERVING, status="retired"),)},
            "0.1.0.dev4 passed; it served in production until another release took its place",
        ),
        (
            {"status": "failed", "gates": (RED,), "releases": (replace(SERVING, status="retired"),)},
            "stopped at gate accurate: 0.1028 is below 0.85",
        ),
        (
            {"status": "failed", "gates": (RED,), "releases": (KEPT,)},
            "stopped at gate accurate: 0.1028 is below 0.85; production still serves 0.1.0.dev3",
        ),
        (
            {"status": "failed", "steps": (UNIT_FAILED, replace(UNIT_FAILED, name="lint")), "gates": (RED,)},
            "stopped at step unit: exit code 1, and at step lint and gate accurate",
        ),
        (
            {"status": "failed", "steps": tuple(replace(UNIT_FAILED, name=n) for n in "abcd")},
            "stopped at step a: exit code 1, and at step b and step c and 1 more",
        ),
        (
            {"status": "failed", "releases": (replace(KEPT, status="rejected", reason="never healthy"),)},
            "stopped at production: never healthy; production still serves 0.1.0.dev3",
        ),
        (
            {"status": "errored", "gates": (replace(RED, verdict="inconclusive", reasons=("no evidence",)),)},
            "stopped at gate accurate: inconclusive, no evidence",
        ),
        ({"status": "errored", "reason": "the disk is full"}, "run 12 errored: the disk is full"),
        ({"status": "canceled"}, "run 12 was canceled"),
        ({"status": "superseded", "reason": "run 13 is newer"}, "run 12 was superseded: run 13 is newer"),
        ({"status": "waiting", "reason": "approve it"}, "run 12 waits for a person: approve it"),
        ({"status": "queued"}, "run 12 is queued"),
    ],
)
def test_the_verdict_is_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    """The closing sentence says where the run ended, why, and what production serves."""
    assert verdict(run(**changes)) == sentence


def test_summary_holds_verdict_tail_gates_counts_and_commands() -> None:
    """The summary has everything a person needs to go on, once each, the log's tail without its escapes."""
    view = run(status="failed", ended=T + 34, steps=(step("check"), CACHED, UNIT_FAILED), gates=(RED,))
    view = replace(view, package="ab" * 32, package_size=4_200_000)
    tails = {"unit": ["\x1b[31mFAILED\x1b[0m test_shape", "10%\r100%\r\n", "", "    assert [1] == [2]"]}
    lines = str(summary(view, ["penstock logs 12 unit", "penstock  show 12"], tails)).splitlines()
    assert lines[0] == "✗ stopped at step unit: exit code 1, and at gate accurate"
    assert lines[2] == "  unit  the end of its log"
    assert lines[3:7] == ["  │ FAILED test_shape", "  │ 100%", "  │", "  │     assert [1] == [2]"]
    assert lines[8] == "  ✗ accurate  0.1028  at least 0.85  fail  0.1028 is below 0.85"
    assert lines[10:] == [
        "  steps    2 run, 1 cached, 1 failed in 34 s",
        "  package  0.1.0.dev4@abababababab  4.2 MB",
        "  next     penstock logs 12 unit",
        "           penstock  show 12",
    ]
    assert "accurate  " not in str(summary(view, [], gates=False))


def test_a_monstrous_log_line_is_cut() -> None:
    """A log line of a megabyte does not flood the terminal."""
    picture = summary(run(status="failed"), [], {"unit": ["x" * 1_000_000]})
    assert sum(cell_len(line.plain) for line in picture.lines(80)) < 2000


# --- tables --------------------------------------------------------------------------------------------------------


def test_runs_table_has_one_aligned_line_each() -> None:
    """Runs stand one a line under their titles; the project appears only where there are several."""
    views = [run(run="9", status="failed", ended=T + 65), run(run="10", branch=None, dirty=True)]
    head, first, second = str(render_runs(views)).splitlines()
    assert head.split() == ["run", "status", "version", "commit", "branch", "created", "time", "title"]
    assert first.index("failed") == second.index("running") == head.index("status")
    assert "1 min 05 s  Train longer" in first
    assert "1a2b3c4+" in second
    assert "project" in str(render_runs([*views, run(project="other")]))
    assert str(render_runs([])) == "no runs yet"


def test_plan_table_says_why() -> None:
    """A plan names each step with its action and reason, and counts them."""
    rows = [PlanRow("check", "build", "run", "always"), PlanRow("data", "build", "cached", "same")]
    rows += [PlanRow("t", "test", "wait", "needs data")]
    head, first, second, third, _, last = str(render_plan(rows)).splitlines()
    assert head.index("reason") == first.index("always") == second.index("same") == third.index("needs data")
    assert last == "  1 to run, 1 cached, 1 not known yet"
    assert str(render_plan([])) == "nothing to run"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_status_never_cuts_an_address(width: int) -> None:
    """At every usual width the whole address of an environment can be read."""
    rows = [StatusRow("staging", "serving", "0.1.0.dev4", None, "1 of 1", None)]
    notes = ("dev5 was rolled back to dev4 by ada: it is slow", "dev3 is kept")
    rows += [StatusRow("production", "unattended", "0.1.0.dev4", "http://127.0.0.1:8800", "2 of 2", T, notes)]
    text = "\n".join(line.plain for line in render_status(rows).lines(width))
    assert "http://127.0.0.1:8800" in text
    assert "2 of 2" in text
    assert " ".join(notes) in " ".join(text.split())
    assert rows[-1].as_json()["note"] == "; ".join(notes)
    assert str(render_status([])) == "nothing is served from this home"


def test_show_is_everything_about_a_run() -> None:
    """One run in full has its commit, package, steps, gates with reasons, environments, metrics and notes."""
    view = replace(MIXED, package="ab" * 32, package_size=10, releases=(SERVING,), gates=(RED,), notes=("read me",))
    view = replace(view, metrics={"train.accuracy": 0.99128}, steps=(*view.steps, step("migrate", stage="deploy")))
    text = str(render_show(view))
    words = [view.commit, "ab" * 32, "10 B", "manual", "train", "cached", "migrate", "http://127.0.0.1:8800"]
    assert [w for w in (*words, "0.1028 is below 0.85", "0.9913", "! read me") if w not in text] == []
    assert "⠋" not in text


def test_a_rollback_is_told_once() -> None:
    """From the verdict to the end there is one line, with the reason; and the summary says what serves instead."""
    tried = ReleaseView("production", "0.2", "canary", phase="canary 5 %", replaced="0.1")
    stages = [tried, replace(tried, phase="canary 0 %"), replace(tried, status="draining", phase="canary 0 %")]
    stages += [replace(tried, status="rolled_back", phase=None)]
    stages += [replace(stages[-1], reason="at 5 % errors: 30 of 100")]
    views = [run(releases=(release,)) for release in stages]
    told = [line for before, after in pairwise(views) for line in plain_lines(before, after)]
    assert told == ["production  rolled back  at 5 % errors: 30 of 100"]
    ended = run(status="failed", releases=(ReleaseView("staging", "0.2", "skipped", replaced="0.0"), stages[-1]))
    assert verdict(ended) == "stopped at production: at 5 % errors: 30 of 100; production still serves 0.1"


# --- streams -------------------------------------------------------------------------------------------------------


class Terminal:
    """A real pseudo-terminal of a given size; `said` is all that was written to it, once it is closed."""

    def __init__(self, columns: int, lines: int) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.stream = os.fdopen(slave, "w", encoding="utf-8")
        self._bytes = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO is how a terminal says that its last writer is gone
            while data := os.read(self.master, 65536):
                self._bytes += data

    def said(self) -> str:
        self.stream.close()
        self._reader.join()
        os.close(self.master)
        return self._bytes.decode()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], Terminal]]:
    """Makes pseudo-terminals, with an environment that says nothing unusual about them."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    made: list[Terminal] = []
    yield lambda columns, lines: made.append(Terminal(columns, lines)) or made[-1]  # type: ignore[func-returns-value]
    for one in made:
        if not one.stream.closed:
            one.said()


def follow(stream: Any, *views: RunView) -> None:
    with LiveProgress(stream, lambda: T + 21.3) as live:
        for view in views:
            live.update(view)


def test_live_on_a_terminal(terminal: Callable[[int, int], Terminal]) -> None:
    """On a terminal the picture is redrawn in place, in colour, and stays at the end with the cursor shown again."""
    window = terminal(100, 40)
    follow(window.stream, run(steps=(queued("train"),)), run(steps=(step("train"),)))
    said = window.said()
    assert "\x1b[32m✓" in said
    assert "\x1b[1A" in said
    first, *_, last = [frame for frame in re.split(r"(?:\x1b\[1A|\r|\x1b\[2K)+", said) if "train" in frame]
    assert "queued" in first
    assert "passed" in last
    assert said.rstrip().endswith("\x1b[?25h")


@pytest.mark.parametrize(("columns", "lines"), [(0, 0), (1, 1), (20, 3), (60, 10)])
def test_live_in_any_window(terminal: Callable[[int, int], Terminal], columns: int, lines: int) -> None:
    """A terminal of no known size or of hardly any is no error, and no redraw is higher than the window."""
    window = terminal(columns, lines)
    steps = tuple(queued(f"q{i}") for i in range(200))
    follow(window.stream, run(steps=steps), run(steps=(*steps, UNIT_FAILED)))
    frames = re.split(r"(?:\x1b\[1A\x1b\[2K|\r\x1b\[2K)+", window.said())
    assert all(frame.count("\n") <= (lines or 24) for frame in frames)


def test_no_color_is_honoured(terminal: Callable[[int, int], Terminal], monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR set the picture has no colours."""
    monkeypatch.setenv("NO_COLOR", "1")
    window = terminal(80, 24)
    follow(window.stream, MIXED)
    display(render_show(MIXED), window.stream)
    assert re.search(r"\x1b\[(?:\d+;)*3[0-7]", window.said()) is None


def test_nothing_to_show_is_no_error(terminal: Callable[[int, int], Terminal]) -> None:
    """Progress that ends before the first view leaves an empty line at most, and the cursor shown."""
    window = terminal(80, 24)
    follow(window.stream)
    assert re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", window.said()).strip() == ""


def test_a_dumb_terminal_gets_lines(terminal: Callable[[int, int], Terminal], monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that cannot move its cursor gets the plain lines."""
    monkeypatch.setenv("TERM", "dumb")
    window = terminal(80, 24)
    follow(window.stream, MIXED)
    assert window.said().splitlines() == plain_lines(None, MIXED)


def test_a_pipe_gets_lines() -> None:
    """Without a terminal there are plain lines and nothing else, even where colours are forced."""
    stream = io.StringIO()
    follow(stream, run(), MIXED, MIXED)
    assert stream.getvalue().splitlines() == [*plain_lines(None, run()), *plain_lines(run(), MIXED)]


def test_a_stream_that_cannot_encode_gets_plainer_marks() -> None:
    """A stream of ASCII shows every line, its marks spelt in ASCII."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    follow(stream, run(title="Größe", releases=(replace(SERVING, status="starting", phase="switching"),)))
    display(render_plan([PlanRow("data", "build", "cached", "x")]), stream)
    stream.flush()
    text = raw.getvalue().decode()
    assert "Gr??e" in text
    assert "switching 0.1.0.dev3 > 0.1.0.dev4" in text
    assert "+ data" in text


def test_a_reader_that_left_is_no_error() -> None:
    """Progress into a closed pipe ends quietly, and so does a table."""
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    follow(stream, run(), MIXED)
    display(render_show(MIXED), stream)
    with contextlib.suppress(BrokenPipeError):  # what Python itself still held back
        stream.close()


def test_a_terminal_that_left_is_no_error(terminal: Callable[[int, int], Terminal]) -> None:
    """A terminal that is closed in the middle of a run ends the picture quietly."""
    master, slave = pty.openpty()
    stream = os.fdopen(slave, "w", encoding="utf-8")
    with LiveProgress(stream, lambda: T) as live:
        os.close(master)
        live.update(MIXED)
        live.update(run())
    with contextlib.suppress(OSError):
        stream.close()


def test_a_closed_stream_is_no_error() -> None:
    """A stream that was closed before anything was shown gets nothing."""
    stream = io.StringIO()
    stream.close()
    follow(stream, MIXED)


def test_display_uses_the_width_of_a_terminal(terminal: Callable[[int, int], Terminal]) -> None:
    """A table on a terminal is as wide as it and coloured; in a pipe it is whole and plain."""
    long = run(title="word " * 60)
    window = terminal(70, 24)
    display(render_runs([long]), window.stream)
    said = re.sub(r"\x1b\[[0-9;]*m", "", window.said()).splitlines()
    assert max(map(cell_len, said)) <= 70
    stream = io.StringIO()
    display(render_runs([long]), stream)
    assert long.title.strip() in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_rich_is_imported_here_and_nowhere_else() -> None:
    """Importing the command line's package does not import rich; importing progress does."""
    script = """
import sys, penstock.cli
assert "rich" not in sys.modules
import penstock.cli.progress
assert "rich" in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_run_that_waits_says_for_whom() -> None:
    """The second line of a queued run's picture ends with what it waits for, where there is room for that."""
    reason = "waits for run 11 of its concurrency group"
    waiting = run(status="queued", reason=reason, started=None)
    assert shown(waiting)[1].endswith(reason)
    assert reason not in "\n".join(shown(waiting, 50))
    assert plain_lines(None, waiting)[-1] == f"run 12  queued  {reason}"
