"""Metrics of a rollout that a person's own service tells: a number out of its answer, and what the rule makes of it.

What cannot be read is errored, in one sentence, and never a pass.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.canaries import CustomWord
from penstock.environments import MetricQuestion
from penstock.errors import ReportError
from penstock.pipelines import PLACE

_PART = re.compile(r"([^.\[\]]+)|\[([0-9]{1,6})\]")
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Answer:
    """What a metric says of a release: the verdict, why in a few words, and the number where there is one."""

    word: CustomWord
    reason: str
    value: float | None = None


def filled(text: str, places: Mapping[str, str]) -> str:
    """The text with `${{ release }}` and the like in their places. The names are known; see `MetricQuestion`."""
    return PLACE.sub(lambda match: places[match[1].strip()], text)


def judged(question: MetricQuestion, value: float) -> Answer:
    """What a number is to its rule: within the limits, beyond them, or between a limit and what fails."""
    sides = (
        (question.at_most, question.fails_above, 1.0, "at most", "above"),
        (question.at_least, question.fails_below, -1.0, "at least", "below"),
    )
    found = Answer("pass", f"{value:g}", value)
    for limit, fails, sign, within, beyond in sides:
        if limit is None or sign * value <= sign * limit:
            continue
        last = limit if fails is None else fails
        if sign * value > sign * last:
            return Answer("fail", f"{value:g}, where {within} {limit:g} was allowed", value)
        found = Answer("inconclusive", f"{value:g} is not {within} {limit:g}, and not {beyond} {last:g}", value)
    return found


# --- numbers out of answers ----------------------------------------------------------------------------------------


def number_at(document: Any, path: str) -> float:
    """The number at a path such as `data.rates[0].value`. Raises ReportError where there is none."""
    found = document
    for name, index in _PART.findall(path):
        try:
            found = found[int(index)] if index else found[name]
        except (LookupError, TypeError):
            raise ReportError(f"the answer has nothing at {path}") from None
    return _number(found, f"at {path}")


def prometheus_number(document: Any) -> float:
    """The one number of an instant query: a scalar, or a vector of one series. Raises ReportError for anything else.

    The form is that of Prometheus' HTTP API: `{"status": "success", "data": {"resultType", "result"}}`.
    """
    if not isinstance(document, dict) or document.get("status") != "success":
        said = document.get("error") if isinstance(document, dict) else None
        raise ReportError(f"Prometheus refuses the query{f': {_short(said)}' if said else ''}")
    data = document.get("data")
    kind, result = (data.get("resultType"), data.get("result")) if isinstance(data, dict) else (None, None)
    if kind == "vector" and isinstance(result, list):
        if len(result) != 1:
            many = "no series" if not result else f"{len(result)} series"
            raise ReportError(f"the query gives {many}: it must give one number")
        result = result[0].get("value") if isinstance(result[0], dict) else None
    elif kind != "scalar":
        raise ReportError("the query gives no instant number: it must give a scalar or one series")
    if not isinstance(result, list) or len(result) != 2:
        raise ReportError("the answer of Prometheus cannot be read")
    return _number(result[1], "of the query", texts=True)


def _number(value: Any, where: str, *, texts: bool = False) -> float:
    if texts and isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ReportError(f"what stands {where} is no number: {_short(value)}") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ReportError(f"what stands {where} is no number: {_short(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ReportError(f"the number {where} is not finite")
    return number


def _short(value: Any) -> str:
    text = " ".join(str(value)[:200].split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
