"""How a rollout stands, or how it ended, as `status` and `show` draw it below their tables. Pure."""

from collections.abc import Iterator

from rich.text import Text

from penstock.charts import Chart
from penstock.cli.pictures import Picture, chart_line, fact_lines, moment, safe, style_of
from penstock.standings import Standing


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
        if standing.charts:
            sure = f"each holds at {standing.charts[0].confidence * 100:g} %, however often one looks"
            yield from fact_lines([("bounds".ljust(edge - 4), sure)], width)

    return Picture(draw)


def _facts(standing: Standing) -> list[tuple[str, str | Text]]:
    word = standing.verdict_word if standing.ended else ""
    verdict = f"{standing.verdict}: {standing.reason}" if standing.verdict else ""
    facts: list[tuple[str, str | Text]] = [
        (word or "so far", Text(standing.reason or "", style_of(word.replace(" ", "_"))) if word else verdict),
        ("missing", standing.needs),
        ("width", standing.way),
        ("deadline", "" if word or standing.until is None else moment(standing.until)),
        ("canary", standing.at_canary.words if standing.at_canary else ""),
        ("stable", standing.at_stable.words if standing.at_stable else ""),
        ("probe", f"{standing.probe['verdict']}: {standing.probe['reason']}" if standing.probe else ""),
    ]
    return [(name, text) for name, text in facts if text]


def _drawn(chart: Chart) -> str:
    """A chart with the limit that it is held against."""
    most = "" if chart.most is None else f"{chart.most:g} times" if chart.kind == "ratio" else f"{chart.most * 100:g} %"
    limit = f"  at most {most}" if most else ""
    return f"{chart_line(chart)}{limit}"
