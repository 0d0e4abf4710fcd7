"""Times of a schedule, as cron writes them: five fields, strictly read, and when they come.

`minute hour day-of-month month day-of-week`: `*`, numbers, ranges `1-5`, steps `*/15` and `1-31/2`, lists `1,15`, names
`jan` to `dec` and `mon` to `sun`; Sunday is 0 or 7. Where both days are given (neither begins with `*`), either of
them is enough, as POSIX has it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

_MONTHS = {"janfebmaraprmayjunjulaugsepoctnovdec"[n * 3 - 3 : n * 3]: n for n in range(1, 13)}
_WEEKDAYS = {"sunmontuewedthufrisat"[n * 3 : n * 3 + 3]: n for n in range(7)}
_LONGEST = {n: 29 if n == 2 else 30 if n in {4, 6, 9, 11} else 31 for n in range(1, 13)}
_ITEM = re.compile(r"(?:(\*)|([0-9]{1,3}|[a-z]{3})(?:-([0-9]{1,3}|[a-z]{3}))?)(?:/([0-9]{1,3}))?")


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    first: int
    last: int
    names: Mapping[str, int]


_FIELDS = (
    _Field("minute", 0, 59, {}),
    _Field("hour", 0, 23, {}),
    _Field("day of the month", 1, 31, {}),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 7, _WEEKDAYS),
)


@dataclass(frozen=True, slots=True)
class Cron:
    """The minutes of a schedule; `weekdays` count from Sunday, 0. `either` day is enough, else both must fit."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    def matches(self, moment: datetime) -> bool:
        """Whether the schedule comes in the minute of a moment; the moment's own clock counts."""
        day, weekday = moment.day in self.days, moment.isoweekday() % 7 in self.weekdays
        fits = (day or weekday) if self.either else (day and weekday)
        return fits and moment.month in self.months and moment.hour in self.hours and moment.minute in self.minutes


def cron_of(text: str) -> Cron:
    """The schedule that a text writes. Raises ValueError with one sentence that says what is wrong with it."""
    fields = text.split()
    if len(fields) != len(_FIELDS) or len(text) > 500:
        example = 'minute, hour, day of the month, month and day of the week, such as "0 3 * * mon"'
        raise ValueError(f"expected five fields: {example}")
    minutes, hours, days, months, weekdays = map(_values, _FIELDS, fields)
    either = not fields[2].startswith("*") and not fields[4].startswith("*")
    if not either and min(days) > max(_LONGEST[month] for month in months):
        raise ValueError(f"this never comes: no such month has a day {min(days)}")
    return Cron(minutes, hours, days, months, frozenset(day % 7 for day in weekdays), either)


def cron_fault(text: str) -> str | None:
    """What is wrong with the text of a schedule, in one sentence, or None."""
    try:
        cron_of(text)
    except ValueError as error:
        return str(error)
    return None


def _values(field: _Field, text: str) -> frozenset[int]:
    return frozenset(value for item in text.lower().split(",") for value in _range(field, item))


def _range(field: _Field, item: str) -> range:
    found = _ITEM.fullmatch(item)
    if found is None:
        expected = "a number, a range such as 1-5, a step such as */2, or a list of these"
        raise ValueError(f'the {field.name} "{item[:20]}" is not read: expected {expected}')
    star, first, last, step = found.groups()
    if step is not None and not 1 <= int(step) <= field.last:
        raise ValueError(f"the step of the {field.name} is {step}: expected 1 to {field.last}")
    if star:
        return range(field.first, field.last + 1, int(step or 1))
    start = _number(field, first)
    end = _number(field, last) if last is not None else field.last if step is not None else start
    if field.names is _WEEKDAYS and last == "sun":
        end = 7
    if end < start:
        raise ValueError(f'the {field.name} "{item}" runs backwards: expected the smaller first')
    return range(start, end + 1, int(step or 1))


def _number(field: _Field, text: str) -> int:
    number = int(text) if text.isdigit() else field.names.get(text, -1)
    if not field.first <= number <= field.last:
        words = f" or {next(iter(field.names))} to {list(field.names)[-1]}" if field.names else ""
        raise ValueError(f'the {field.name} "{text}" does not exist: expected {field.first} to {field.last}{words}')
    return number
