"""The page: escaped everywhere, allowed by its own policy, with every part of the state on it."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.server.pages import POLICY, SCRIPT, STYLE, ago, lasting, parts, render
from penstock.server.states import PassedState, RepositoryState, State
from server.states import NOW, SHA, environment, run, state, trial

VOID = {"meta", "link", "rect", "path"}


class Reading(HTMLParser):
    """The page as a browser reads it: its elements, their attributes, its text, and whether it is well nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes what it did not open"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def hostile(text: str) -> State:
    """A home in which everything that anybody can name is named the same."""
    return state(
        repositories=[RepositoryState(text, NOW, text)],
        environments=[
            environment(text, "serving", project=text, version=text, note=text, tried=text, rollout=trial(reason=text))
        ],
        runs=[run(1, "failed", text, project=text, version=text, branch=text, reason=text, running=[text])],
        passed_over=[PassedState(text, text, SHA, text, NOW)],
    )


def test_a_release_that_is_tried_is_on_its_card() -> None:
    """The verdict so far, what it takes, the widths that follow, and both releases' counts."""
    text = Reading(render(state())).text
    for words in (
        "canary of 1.4.0.dev11 at 5 %, then 50 %, then all",
        "inconclusive 0 errors in 100 requests of the canary do not exclude a rate of 1 %",
        "about 347 more requests of the canary, deadline in 20 min",
        "canary 100 requests, 0 errors stable 1,900 requests, 2 errors (0.105 %), p50 2.25 ms, p99 11.4 ms",
        "errors 0 to 3.31 %, at most 1 %",
    ):
        assert words in text


def test_one_that_ended_says_why() -> None:
    """What was rolled back says so with its reason, and nothing of what would have followed."""
    over = trial(ended="roll_back", width=0.0, verdict="fail", reason="at 5 % errors: 30 of 100")
    text = Reading(render(state(environments=[environment("production", "serving", tried="1.5", rollout=over)]))).text
    assert "canary of 1.5 rolled back at 5 % errors: 30 of 100" in text
    assert "deadline" not in text


def test_everything_is_on_it() -> None:
    """Environments, runs, repositories with their problems, and what was not run with its reason."""
    text = Reading(render(state())).text
    for words in (
        "staging serving 1.4.0.dev11+g4f1c2ab digits · 2 of 2 replicas · 1 h ago",
        "12 Train for eight epochs, with a warm-up of the learning rate 10 min ago",
        "now: train",
        "gate no_regression failed",
        "https://example.org/team/houses looked at 31 s ago https://example.org cannot be reached",
        "4f1c2ab on main digits 15 min ago it touches none of on.push.paths: src/**",
        "coordinates, up for 3 d",
    ):
        assert words in text


def test_an_empty_home_says_what_to_do() -> None:
    """Where there is nothing yet, each part says where its first thing comes from."""
    text = Reading(render(state(runs=[], environments=[], repositories=[], passed_over=[]))).text
    assert "Nothing is released yet" in text
    assert "No runs yet" in text
    assert "penstock serve --repo PATH" in text
    assert "were not run" not in text


ATTACKS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style></main><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_no_name_becomes_markup(text: str) -> None:
    """A title, branch, version, reason or address that looks like markup is shown as it was written."""
    plain, attacked = Reading(render(hostile("x"))), Reading(render(hostile(text)))
    assert (attacked.elements, attacked.attributes, attacked.open) == (plain.elements, plain.attributes, [])
    assert " ".join(text.split()) in attacked.text


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=60))
def test_no_text_becomes_markup(text: str) -> None:
    """The same for any text at all."""
    plain, attacked = Reading(render(hostile("x"))), Reading(render(hostile(text or "x")))
    assert [e for e in attacked.elements if e != "div"] == [e for e in plain.elements if e != "div"]
    assert attacked.attributes == plain.attributes


def test_the_policy_allows_exactly_our_own() -> None:
    """The style and the script on the page are the ones whose hashes the policy names; nothing is inline elsewhere."""
    page = render(state())
    for tag, own in (("style", STYLE), ("script", SCRIPT)):
        (found,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert found == own
        assert base64.b64encode(hashlib.sha256(found.encode()).digest()).decode() in POLICY
    reading = Reading(page)
    assert not {a for a in reading.attributes if a.startswith("on") or a == "style"}
    assert not re.search(r"""(?:src|href)="(?!/api/state|data:,|http://127\.0\.0\.1:)""", page)


def test_it_is_shown_again_without_scripts_too() -> None:
    """Where scripts are off, the browser itself asks again."""
    assert '<noscript><meta http-equiv="refresh" content="10"></noscript>' in render(state())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.44, "0.4 s"), (40, "40 s"), (59.9, "60 s"), (60, "1 min"), (3599, "59 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_durations_have_one_unit(seconds: float, words: str) -> None:
    """The largest unit that fits."""
    assert lasting(seconds) == words


def test_moments_are_told_from_now() -> None:
    """What is new is `just now`, also where clocks differ a little; what has not come yet says so."""
    assert [ago(m, NOW) for m in (NOW, NOW + 3, NOW - 90, None)] == ["just now", "just now", "1 min ago", "not yet"]


def test_the_bar_has_every_step() -> None:
    """The parts of a run's bar add up to its steps, whatever their states."""
    steps = {"queued": 1, "skipped": 2, "cached": 3, "warned": 4, "canceled": 5}
    shown = parts(run(1, "running", "x", steps=steps))
    assert dict(shown) == steps
