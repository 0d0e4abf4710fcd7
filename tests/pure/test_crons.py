"""Times of a schedule."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.crons import cron_fault, cron_of


@pytest.mark.parametrize(
    ("text", "moment", "expected"),
    [
        ("0 3 * * 1", "2024-01-01 03:00", True),  # a Monday
        ("0 3 * * 1", "2024-01-02 03:00", False),
        ("0 3 * * mon", "2024-01-01 03:00", True),
        ("0 3 * * Mon-Fri", "2024-01-05 03:00", True),
        ("0 3 * * mon-sun", "2024-01-07 03:00", True),
        ("0 3 * * 7", "2024-01-07 03:00", True),
        ("0 3 * * 0", "2024-01-07 03:00", True),
        ("*/15 * * * *", "2024-01-01 00:45", True),
        ("*/15 * * * *", "2024-01-01 00:50", False),
        ("5/20 * * * *", "2024-01-01 00:45", True),
        ("1-10/3 * * * *", "2024-01-01 00:07", True),
        ("1-10/3 * * * *", "2024-01-01 00:10", True),
        ("0 0 1,15 jan-mar,dec *", "2024-12-15 00:00", True),
        ("0 0 1,15 jan-mar,dec *", "2024-04-15 00:00", False),
        ("0 0 13 * fri", "2024-01-13 00:00", True),  # either day is enough
        ("0 0 13 * fri", "2024-01-12 00:00", True),
        ("0 0 13 * fri", "2024-01-11 00:00", False),
        ("0 0 */2 * fri", "2024-01-12 00:00", False),  # a star: both must fit
        ("0 0 */2 * fri", "2024-01-05 00:00", True),
        ("0 0 29 2 *", "2024-02-29 00:00", True),
        ("0\t3  * * *", "2024-01-01 03:00", True),
    ],
)
def test_schedules(text: str, moment: str, expected: bool) -> None:
    """A schedule comes in the minutes that its fields name."""
    assert cron_of(text).matches(datetime.fromisoformat(moment).replace(tzinfo=UTC)) is expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "expected five fields"),
        ("* * * *", "expected five fields"),
        ("* * * * * *", "expected five fields"),
        ("@daily", "expected five fields"),
        ("60 * * * *", 'the minute "60" does not exist: expected 0 to 59'),
        ("* 24 * * *", 'the hour "24" does not exist'),
        ("* * 0 * *", 'the day of the month "0" does not exist: expected 1 to 31'),
        ("* * * 13 *", 'the month "13" does not exist: expected 1 to 12 or jan to dec'),
        ("* * * * 8", "expected 0 to 7 or sun to sat"),
        ("* * * * day", 'the day of the week "day" does not exist'),
        ("* * mon * *", 'the day of the month "mon" does not exist'),
        ("* * * january *", 'the month "january" is not read'),
        ("5-1 * * * *", 'the minute "5-1" runs backwards'),
        ("* * * * fri-mon", "runs backwards"),
        ("*/0 * * * *", "the step of the minute is 0: expected 1 to 59"),
        ("*/60 * * * *", "the step of the minute is 60"),
        ("1,,2 * * * *", 'the minute "" is not read'),
        ("-1 * * * *", "is not read: expected a number, a range such as 1-5"),
        ("* * L * *", 'the day of the month "l" is not read'),
        ("* * ? * *", "is not read"),
        ("1.5 * * * *", "is not read"),
        ("٣ * * * *", "is not read"),
        ("0 0 30 2 *", "this never comes: no such month has a day 30"),
        ("0 0 31 4,jun *", "this never comes: no such month has a day 31"),
        ("1," * 300 + "1 * * * *", "expected five fields"),
    ],
)
def test_not_schedules(text: str, sentence: str) -> None:
    """What is no schedule, or never comes, is told in one sentence."""
    fault = cron_fault(text)
    assert fault is not None
    assert sentence in fault
    with pytest.raises(ValueError, match=r"expected|never comes"):
        cron_of(text)


@settings(deadline=None)
@given(st.text(alphabet="0123456789*/-, jansun", max_size=30))
def test_any_text(text: str) -> None:
    """Whatever the text, it is a schedule that comes within eight years, or is refused."""
    if cron_fault(text) is not None:
        return
    cron = cron_of(text)
    first = datetime(2024, 1, 1, min(cron.hours), min(cron.minutes), tzinfo=UTC)
    assert any(cron.matches(first + timedelta(days=day)) for day in range(366 * 8 + 366 * 24))


@given(st.datetimes())
def test_every_minute(moment: datetime) -> None:
    """Five stars come always."""
    assert cron_of("* * * * *").matches(moment)
