"""A rollout below the tables of `status` and `show`: what a person reads, at any width."""

import pytest

from penstock.charts import Chart
from penstock.cli.standings import render_standing
from penstock.standings import Seen, Standing

CHART = Chart("level", "error rate", 0.0, 0.0, 0.0331, None, 0.01, 0.95, 100, None, "bets")
GOES_ON = Standing(
    "canary",
    stable=1,
    width=0.05,
    widths=(0.05, 0.5),
    begun=0.0,
    until=1800.0,
    verdict="inconclusive",
    reason="0 errors in 100 requests of the canary do not exclude a rate of 1 %",
    missing=347,
    at_canary=Seen(100, 0, None, None),
    at_stable=Seen(1900, 2, 2.25, 11.39),
    charts=(CHART,),
)
ENDED = Standing(
    "canary",
    width=0.0,
    widths=(0.05,),
    verdict="fail",
    reason="at 5 % errors: 30 of 100 requests",
    missing=9,
    at_canary=Seen(100, 30, None, None),
    at_stable=Seen(1900, 19, None, None),
    ended="roll_back",
    cause="evidence",
    probe={"verdict": "pass", "reason": "12 requests"},
    charts=(CHART,),
)


def lines(standing: Standing, stable: str | None = None) -> list[str]:
    return str(render_standing("production", "0.3", standing, stable)).splitlines()


def test_one_that_goes_on_says_what_it_takes() -> None:
    """Verdict so far, how many more requests, the widths that follow, both releases' counts, and the chart."""
    found = lines(GOES_ON, "0.2")
    assert found[:2] == ["", "  production  canary of 0.3 against 0.2"]
    facts = dict(line.strip().split(maxsplit=1) for line in found[2:])
    assert facts["so"] == "far    inconclusive: 0 errors in 100 requests of the canary do not exclude a rate of 1 %"
    assert facts["missing"] == "about 347 more requests of the canary"
    assert facts["width"] == "5 %, then 50 %, then all"
    assert facts["stable"] == "1,900 requests, 2 errors (0.105 %), p50 2.25 ms, p99 11.4 ms"
    assert facts["errors"].endswith(" 3.31 %  at most 1 %")
    assert facts["bounds"] == "each holds at 95 %, however often one looks"
    assert "deadline" in facts


def test_one_that_ended_says_why() -> None:
    """The reason, what was counted, the probe and the chart; nothing of what would have followed."""
    found = lines(ENDED)
    assert found[1] == "  production  canary of 0.3"
    assert found[2] == "  rolled back  at 5 % errors: 30 of 100 requests"
    assert [line.split()[0] for line in found[3:]] == ["canary", "stable", "probe", "errors", "bounds"]


def test_a_probe_alone_is_told() -> None:
    """A release that was only probed has its verdict and no counts."""
    found = lines(Standing(None, probe={"verdict": "fail", "reason": "2 of 12 are wrong"}))
    assert found[1:] == ["  production  probe of 0.3", "  probe  fail: 2 of 12 are wrong"]


def test_a_strategy_alone_is_a_heading() -> None:
    """Of `recreate` there is nothing to count."""
    assert lines(Standing("recreate", stable=1), "0.2") == ["", "  production  recreate of 0.3 against 0.2"]


@pytest.mark.parametrize("width", [1, 7, 20, 40, 60, 200])
def test_it_fits(width: int) -> None:
    """No line is wider than the terminal."""
    for standing in (GOES_ON, ENDED):
        assert all(len(line.plain) <= width for line in render_standing("p", "0.3", standing, "0.2").lines(width))
