"""The report as a page and as Markdown: everything is there, no text becomes markup, and nothing is loaded."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.test_any_view import CALM, VIEWS
from penstock.charts import Chart
from penstock.cli.markdown import written
from penstock.cli.pages import FLIPS, FOLDED, page
from penstock.cli.sheets import Opponent, Sheet, StepTests
from penstock.flips import Flip, Flips, SliceRow
from penstock.runs import GateView, ReleaseView, RunView, StepView, TestView

GAIN = Chart("gain", "correct", -0.05, -0.07, -0.02, None, None, 0.95, 900, 70, "counted")
LEVEL = Chart("level", "correct", 0.9, 0.88, 0.92, 0.8, None, 0.95, 900, None, "exact")
T = 1_700_000_000.0
VOID = {"meta", "link", "path", "circle", "line", "rect"}


def flips(text: str = "x", count: int = 2, score: str = "correct") -> Flips:
    """Two models that differ in so many examples; whatever has a name has this one."""
    examples = tuple(Flip(f"{text}{n}", text, text, None, 1.0, 0.0) for n in range(count))
    slices = (SliceRow(text, text, 85, 0.95, 0.59, -0.36, "worse"), SliceRow("pen", "a", 80, 0.9, 0.91, 0.01, None))
    counted = {"n": 900, "only_a": 0, "only_b": 0, "relabelled": 0}
    means = {"a": 0.95, "b": 0.9, "better": 0, "worse": count}
    return Flips(text, score, False, True, **counted, **means, gain=GAIN, examples=examples, slices=slices)  # type: ignore[arg-type]  # keys are names


def view(text: str = "x") -> RunView:
    """A run that has one of everything."""
    return RunView(
        run="3",
        project=text,
        version=text,
        commit="bf5f76f",
        branch=text,
        title=text,
        trigger="manual",
        status="failed",
        reason=text,
        created=T,
        started=T,
        ended=T + 70,
        dirty=False,
        steps=(
            StepView(text, "build", "passed", attempts=1, started=T, ended=T + 9, exit_code=0),
            StepView("evaluate", "test", "failed", reason=text, attempts=2, started=T + 9, ended=T + 70, exit_code=1),
            StepView("data", "build", "skipped", cached=True),
        ),
        gates=(
            GateView(text, text, "fail", 0.9, (text,), replace(LEVEL, slice_of=text)),
            GateView("odd", "at most 3", None),
        ),
        releases=(ReleaseView(text, text, "skipped", reason=text),),
        package="15" * 32,
        package_size=601,
        metrics={text: 0.5, "train.loss": 1.0},
        notes=(text,),
        tests=(TestView(text, text, "failed", 0.5, f"assert 1\n  {text}", quarantine=text),),
    )


def sheet(text: str = "x", **others: Any) -> Sheet:
    lineage: dict[str, Any] = {"commit": {"sha": text}, "lock": text, "variables": {text: text}, "files": {text: text}}
    file = {"format": "pickle", "size": 4200, "risks": [text, "builtins.eval"]}
    lineage["model"] = {"size": 4200, "parameters": 1204, "formats": ["pickle", text], "files": {text: file}}
    lineage["hardware"] = {"system": text, "machine": text, "cpus": 2}
    before = replace(view(text), run="2", metrics={"train.loss": 2.0})
    values: dict[str, Any] = {
        "before": before,
        "tests": (StepTests(text, 3, 1, 0, 2, text),),
        "opponent": Opponent(2, text, text),
        "evidence": (flips(text),),
        "gaps": (text,),
        "lineage": lineage,
    }
    return Sheet(view(text), **(values | others))


class Reading(HTMLParser):
    """The page as a browser reads it: elements, attributes, texts, and whether it is well nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes what it did not open"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def test_everything_is_on_the_page() -> None:
    """Verdict, gates with charts, evidence, metrics beside those before, tests, steps, environments, package."""
    reading = Reading(page(sheet()))
    for words in (
        "✗ failed",
        "Held against x (run 2), x.",
        "newly wrong",
        "5.0 points worse; its 95 % bounds −7.0 … −2.0 show a loss",
        "x x 85 0.950 0.590 −36.0 worse",
        "Beside those of x (run 2)",
        "train.loss 2 1 -1",
        "3 passed, 1 failed , 2 skipped",
        "x ✗ failed x, 0.5 s; x what it said assert 1 x",
        "in x",
        "data cached",
        "attempt 2",
        "- skipped x",
        "15" * 32,
        "x x, 2 processors",
        "model pickle, x, 1,204 parameters, 4.2 kB risks x: x, builtins.eval",
        "limit 0.8",
    ):
        assert words in reading.text
    assert (reading.open, reading.elements.count("svg")) == ([], 10)


def test_many_examples_are_folded() -> None:
    """The first stand there, some hundreds more behind a fold, and of all the count; of numeric scores both scores."""
    count = FLIPS + FOLDED + 50
    text = page(sheet(evidence=(flips(count=count, score="absolute_error"),)))
    assert text.count('class="lost"><td') == FLIPS + FOLDED
    assert f"{FOLDED} more of {count}" in text
    assert "the largest changes first" in text
    assert text.count("1 → 0") == FLIPS + FOLDED
    assert f"more of {FLIPS}" not in page(sheet(evidence=(flips(count=FLIPS),)))


def test_there_may_be_little_to_show() -> None:
    """A run without gates, evidence, metrics, tests, package or a run before has a page too, without empty parts."""
    bare = replace(view(), gates=(), releases=(), metrics={}, notes=(), tests=(), package=None, package_size=None)
    reading = Reading(page(Sheet(bare)))
    assert reading.open == []
    for words in ("Gates", "Evidence", "Metrics", "Tests", "Environments", "Package"):
        assert words not in reading.text
    assert "**Evidence**" not in written(Sheet(bare))


def test_one_example_has_no_interval() -> None:
    """What could not be bounded is said, and nothing is drawn of it."""
    lonely = replace(flips(), gain=None, slices=(), same_test_set=False, only_a=3)
    found = sheet(evidence=(lonely,))
    assert "one example says nothing of others" in Reading(page(found)).text
    assert "left out: 3 that only run 2 answered" in Reading(page(found)).text
    assert "one example says nothing of others" in written(found)


# --- nothing becomes markup, nothing is loaded ---------------------------------------------------------------------

ATTACKS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style></main><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "&lt;b&gt;",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_no_name_becomes_markup(text: str) -> None:
    """Branch, step, gate, reason, example, slice or variable that looks like markup is shown as it was written."""
    plain, attacked = Reading(page(sheet("x"))), Reading(page(sheet(text)))
    assert (attacked.elements, attacked.open) == (plain.elements, [])
    assert {name for name, _ in attacked.attributes} == {name for name, _ in plain.attributes}
    assert " ".join(text.split()) in attacked.text


@CALM
@given(VIEWS, VIEWS, st.text(max_size=30))
def test_any_run_has_a_sound_page(shown: RunView, before: RunView, text: str) -> None:
    """Whatever a run is called and holds, its page is well nested, without scripts, handlers or control characters."""
    found = page(replace(sheet(text), view=shown, before=replace(before, run="2")))
    reading = Reading(found)
    assert reading.open == []
    assert "script" not in reading.elements
    assert not [name for name, _ in reading.attributes if name.startswith("on")]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", found)


def test_the_page_needs_nothing_beside_it() -> None:
    """Its policy allows no script and no address; nothing on it names one but the words of the run."""
    found = page(sheet())
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in found
    addresses = [value for name, value in Reading(found).attributes if name in {"href", "src", "srcset", "action"}]
    assert addresses == ["data:,"]
    assert "url(" not in found
    assert "@import" not in found


# --- Markdown ------------------------------------------------------------------------------------------------------


def test_markdown_shows_the_evidence() -> None:
    """Charts in a block of code, what changed, the worst slices, and the flipped examples behind a fold."""
    said = written(sheet(evidence=(flips(count=70),)))
    lines = said.splitlines()
    for line in (
        "**Evidence** against x (run 2), x",
        "| x | x | 85 | 0.950 | 0.590 | −36.0 | worse |",
        "<details><summary>70 examples changed</summary>",
        "| ❌ | x0 | x | x |  |",
        "| ❌ x | 3 | 1 | 2 | x |",
        "| x | x | failed | x | assert 1 |",
        "> x  ",
    ):
        assert line in lines
    assert re.search(r"^x x  ░+.*●.*  0\.9000, bounds 0\.8800 … 0\.9200, limit 0\.8$", said, re.MULTILINE)
    assert said.count("| ❌ | x") == 10


def test_a_report_fits_a_comment() -> None:
    """However much a run holds, what is pasted stays below the 65,536 characters of a comment on GitHub."""
    many = replace(
        view(),
        metrics={f"train.metric_{n}": n / 7 for n in range(5000)},
        tests=tuple(TestView("unit", f"test_{n}", "failed", 0.5, "assert " + "1" * 5000) for n in range(100)),
        steps=tuple(StepView(f"step_{n}", "build", "passed", started=T, ended=T + n) for n in range(1500)),
    )
    said = written(replace(sheet(evidence=(flips("y" * 500, count=900),)), view=many))
    assert len(said) < 65_536
    assert "and 4,941 metrics more" in said
    assert "and 1,300 steps more" in said
    assert "and 80 more tests that failed" in said


@CALM
@given(VIEWS, st.text(max_size=30))
def test_no_text_breaks_out_of_markdown(shown: RunView, text: str) -> None:
    """Whatever a run holds, each line of a table has its columns, each block of code its end, and tags are our own."""
    said = written(replace(sheet(text), view=shown))
    assert said.count("```") % 2 == 0
    tags = set(re.findall(r"<[^\s>]*", re.sub(r"```text\n.*?\n```", "", said, flags=re.DOTALL)))
    assert tags <= {"<details", "<summary", "</summary", "</details"}
    for table in re.findall(r"(?:^\|.*\n?)+", said, re.MULTILINE):
        assert len({row.replace("\\\\", "").replace("\\|", "").count("|") for row in table.splitlines()}) == 1
