"""How a rollout stands, or how it ended, as `status` and `show` draw it below their tables. Pure."""

from collections.abc import Iterator

from rich.text import Text

from penstock.charts import Chart
from penstock.cli.pictures import Picture, chart_line, fact_lines, moment, safe, style_of
from penstock.rollouts import FULL, percent
from penstock.standings import Seen, Standing

_ENDS = {"promote": "promoted", "roll_back": "rolled back"}


def render_standing(environment: str, version: str, standing: Standing, stable: str | None = None) -> Picture:
    """What is known of the rollout of a version in an environment; `stable` is the version it is compared with."""

    def draw(width: int) -> Iterator[Text]:
        yield Text("")
        what = f"{standing.strategy or 'probe'} of {version}{f' against {stable}' if stable else ''}"
        yield Text.assemble("  ", safe(environment, "bold"), "  ", safe(what))
        facts = _facts(standing)
        yield from fact_lines(facts, width)
        edge = 4 + max([6, *(len(name) for name, _ in facts)])
        for chart in standing.charts:  # not folded: a chart in two lines is none
            name = "  times" if chart.kind == "ratio" else "  errors"
            yield Text.assemble((name.ljust(edge), "dim"), safe(_drawn(chart)))

    return Picture(draw)


def _facts(standing: Standing) -> list[tuple[str, str | Text]]:
    word = _ENDS.get(standing.ended or "")
    verdict = f"{standing.verdict}: {standing.reason}" if standing.verdict else ""
    facts: list[tuple[str, str | Text]] = [
        (word or "so far", Text(standing.reason or "", style_of(word.replace(" ", "_"))) if word else verdict),
        ("missing", "" if word else missing(standing)),
        ("width", "" if word or standing.width is None else _widths(standing)),
        ("deadline", "" if word or standing.until is None else moment(standing.until)),
        ("canary", counts(standing.at_canary)),
        ("stable", counts(standing.at_stable)),
        ("probe", f"{standing.probe['verdict']}: {standing.probe['reason']}" if standing.probe else ""),
    ]
    return [(name, text) for name, text in facts if text]


def missing(standing: Standing) -> str:
    """How many more requests are needed, in words; empty where no number is known."""
    if standing.missing is None:
        return ""
    return f"about {standing.missing:,} more {'request' if standing.missing == 1 else 'requests'} of the canary"


def _widths(standing: Standing) -> str:
    shares = [percent(round(share * FULL)) for share in standing.widths]
    now = percent(round((standing.width or 0.0) * FULL))
    after = [*shares[shares.index(now) + 1 :], "all"] if now in shares else []
    return ", then ".join((now, *after))


def counts(seen: Seen | None) -> str:
    """What a release did, in words: `1,900 requests, 2 errors (0.105 %), p50 2.2 ms, p99 11 ms`."""
    if seen is None:
        return ""
    rate = f" ({seen.errors / seen.requests * 100:.3g} %)" if seen.errors else ""
    parts = [
        f"{seen.requests:,} {'request' if seen.requests == 1 else 'requests'}",
        f"{seen.errors:,} {'error' if seen.errors == 1 else 'errors'}{rate}",
        *(f"{name} {ms:.3g} ms" for name, ms in (("p50", seen.p50_ms), ("p99", seen.p99_ms)) if ms is not None),
    ]
    return ", ".join(parts)


def _drawn(chart: Chart) -> str:
    """A chart with the limit that it is held against."""
    limit = "" if chart.most is None else f"  at most {chart.most:g}"
    return f"{chart_line(chart)}{limit}"
