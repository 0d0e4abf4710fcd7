"""When a schedule comes due, above all on the days when the clock jumps."""

from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.crons import cron_of
from penstock.schedules import due

BERLIN = ZoneInfo("Europe/Berlin")
"""Jumps from 02:00 to 03:00 on 2026-03-29 (01:00 UTC), back from 03:00 to 02:00 on 2026-10-25 (01:00 UTC)."""
MINUTE = timedelta(minutes=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def times(cron: str, after: str, until: str, zone: tzinfo = BERLIN) -> list[str]:
    """The due times as the clock of the zone shows them, with its offset."""
    return [f"{m.astimezone(zone):%m-%d %H:%M%z}" for m in due(cron, utc(after), utc(until), zone)]


def test_each_day_at_three() -> None:
    """A plain daily time comes once a day, on the zone's clock, whatever its offset."""
    found = times("0 3 * * *", "2026-03-27 12:00", "2026-03-31 12:00")
    assert found == ["03-28 03:00+0100", "03-29 03:00+0200", "03-30 03:00+0200", "03-31 03:00+0200"]


def test_the_beginning_is_left_out_and_the_end_is_in() -> None:
    """What was due exactly at `after` has been seen to; what is due exactly at `until` has come."""
    assert due("0 3 * * *", utc("2026-01-01 03:00"), utc("2026-01-02 03:00"), UTC) == [utc("2026-01-02 03:00")]
    assert due("0 3 * * *", utc("2026-01-02 03:00"), utc("2026-01-02 03:00"), UTC) == []


def test_a_clock_that_went_back_makes_nothing_due() -> None:
    """Where `until` lies before `after`, nothing comes a second time."""
    assert due("* * * * *", utc("2026-01-02 03:00"), utc("2026-01-01 03:00"), UTC) == []


def test_a_skipped_time_comes_at_the_end_of_the_jump() -> None:
    """02:30 does not exist on 29 March: it comes at 03:00, the first moment there is, and on other days at 02:30."""
    found = times("30 2 * * *", "2026-03-28 00:00", "2026-03-30 12:00")
    assert found == ["03-28 02:30+0100", "03-29 03:00+0200", "03-30 02:30+0200"]


def test_all_that_one_jump_skips_comes_once() -> None:
    """Four skipped quarters and the one at the end of the jump are one due time."""
    found = times("*/15 * * * *", "2026-03-29 00:30", "2026-03-29 01:15")
    assert found == ["03-29 01:45+0100", "03-29 03:00+0200", "03-29 03:15+0200"]


def test_a_time_that_comes_twice_is_due_the_first_time() -> None:
    """02:30 is shown twice on 25 October: only the summer one counts, so that nothing runs twice."""
    assert times("30 2 * * *", "2026-10-24 12:00", "2026-10-25 12:00") == ["10-25 02:30+0200"]
    assert times("30 2 * * *", "2026-10-25 00:30", "2026-10-25 12:00") == []


def test_an_hour_shown_twice_holds_one_set_of_quarters() -> None:
    """A schedule of quarters pauses for the hour that is shown a second time."""
    found = times("*/15 * * * *", "2026-10-25 00:29", "2026-10-25 02:00")
    assert found == ["10-25 02:30+0200", "10-25 02:45+0200", "10-25 03:00+0100"]


def test_a_jump_of_half_an_hour() -> None:
    """Lord Howe jumps by half an hour, from 02:00 to 02:30."""
    found = times("15 2 * * *", "2026-10-03 12:00", "2026-10-04 12:00", ZoneInfo("Australia/Lord_Howe"))
    assert found == ["10-04 02:30+1100"]


def test_a_day_that_does_not_exist() -> None:
    """Samoa had no 30 December 2011: what was due then came at the first moment of the 31st."""
    found = times("0 12 30 12 *", "2011-12-28 00:00", "2012-01-02 00:00", ZoneInfo("Pacific/Apia"))
    assert found == ["12-31 00:00+1400"]


def test_a_leap_day_waits_for_its_year() -> None:
    """29 February comes in leap years only."""
    assert times("0 0 29 2 *", "2026-01-01 00:00", "2030-01-01 00:00", UTC) == ["02-29 00:00+0000"]


def test_a_text_that_is_no_schedule_is_refused() -> None:
    """The sentence is the one of the file's own check."""
    with pytest.raises(ValueError, match="expected five fields"):
        due("daily", utc("2026-01-01 00:00"), utc("2026-01-02 00:00"), UTC)


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "America/St_Johns"]
HOURS = ["*", "*/2", "1", "2", "3", "0,2", "1-3", "23"]
MINUTES = ["0", "30", "*/20", "59", "15,45", "*"]


def scanned(cron: str, after: datetime, until: datetime, zone: tzinfo) -> list[datetime]:
    """The same by looking at the clock in every single minute: slow, and with no arithmetic of its own."""
    wanted, found = cron_of(cron), []
    moments = [after - MINUTE]
    while moments[-1] <= until:
        moments.append(moments[-1] + MINUTE)
    for previous, moment in pairwise(moments):
        was, wall = previous.astimezone(zone).replace(tzinfo=None), moment.astimezone(zone)
        now = wall.replace(tzinfo=None, fold=0)
        skipped = [was + MINUTE * n for n in range(1, max(1, int((now - was) / MINUTE)))]
        if after < moment <= until and ((wall.fold == 0 and wanted.matches(now)) or any(map(wanted.matches, skipped))):
            found.append(moment)
    return found


@settings(max_examples=60, deadline=None)
@given(
    minute=st.sampled_from(MINUTES),
    hour=st.sampled_from(HOURS),
    days=st.sampled_from(["* *", "*/2 *", "29-31 *", "* 0"]),
    zone=st.sampled_from(ZONES),
    start=st.integers(0, 365 * 24).map(lambda hours: utc("2026-01-01 00:00") + timedelta(hours=hours)),
    length=st.integers(0, 72 * 60),
)
def test_every_minute_that_the_clock_shows(
    minute: str, hour: str, days: str, zone: str, start: datetime, length: int
) -> None:
    """Whatever the schedule, zone and span: exactly the minutes that a person would find by watching the clock."""
    day, weekday = days.split()
    cron, end = f"{minute} {hour} {day} * {weekday}", start + MINUTE * length
    assert due(cron, start, end, ZoneInfo(zone)) == scanned(cron, start, end, ZoneInfo(zone))


@settings(max_examples=40, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    cuts=st.lists(st.integers(0, 60 * 24 * 400), min_size=2, max_size=12).map(sorted),
    cron=st.sampled_from(["30 2 * * *", "*/20 1-3 * * *", "0 3 * * sun"]),
)
def test_looking_often_finds_the_same(zone: str, cuts: list[int], cron: str) -> None:
    """However a span is cut into looks, every due time is found by exactly one of them."""
    moments = [utc("2026-01-01 00:00") + MINUTE * cut for cut in cuts]
    pieces = [m for a, b in pairwise(moments) for m in due(cron, a, b, ZoneInfo(zone))]
    assert pieces == due(cron, moments[0], moments[-1], ZoneInfo(zone))
