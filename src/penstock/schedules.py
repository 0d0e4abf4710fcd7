"""When a schedule comes due: cron's minutes on the clock of a time zone, with a rule for the days when it jumps.

A time that the clock skips comes once, at the first moment after the jump. A time that the clock shows twice comes
once, the first time. So every time that is written comes exactly once on every day that it is written for.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo

from penstock.crons import Cron, cron_of

_DAY = timedelta(days=1)


def due(cron: str, after: datetime, until: datetime, zone: tzinfo) -> list[datetime]:
    """The moments later than `after` and up to `until` at which a schedule comes due, in order, in UTC.

    `after` and `until` are aware; `zone` is the clock that `cron` is read by. Raises ValueError for a text that
    `crons.cron_of` refuses.
    """
    wanted = cron_of(cron)
    moments = {moment for wall in _walls(wanted, after, until, zone) for moment in [_moment(wall, zone)]}
    return sorted(moment for moment in moments if after < moment <= until)


def _walls(cron: Cron, after: datetime, until: datetime, zone: tzinfo) -> Iterator[datetime]:
    """What the clock shows at the times of a schedule, a day more on both sides: a jump can be that long."""
    day = (after.astimezone(zone) - _DAY).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    last = until.astimezone(zone).replace(tzinfo=None) + _DAY
    times = [timedelta(hours=hour, minutes=minute) for hour in cron.hours for minute in cron.minutes]
    while day <= last:
        if times and cron.matches(day + times[0]):
            yield from (day + time for time in times)
        day += _DAY


def _moment(wall: datetime, zone: tzinfo) -> datetime:
    """The moment at which a clock shows a time first, or the end of the jump that skips it."""
    early = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if early.astimezone(zone).replace(tzinfo=None) == wall:
        return early
    return _jump(wall.replace(tzinfo=zone, fold=1).astimezone(UTC), early, zone)


def _jump(before: datetime, after: datetime, zone: tzinfo) -> datetime:
    """The first second of the later offset between two moments that a jump lies between."""
    offset = after.astimezone(zone).utcoffset()
    low, high = 0, int((after - before).total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        if (before + timedelta(seconds=middle)).astimezone(zone).utcoffset() == offset:
            high = middle
        else:
            low = middle
    return before + timedelta(seconds=high)
