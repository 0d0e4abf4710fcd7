"""Charts as SVG: well-formed whatever the numbers are, and what a person must see is at its place."""

import re
from dataclasses import replace
from xml.etree.ElementTree import Element

from defusedxml.ElementTree import fromstring
from hypothesis import given
from hypothesis import strategies as st

from penstock.charts import Chart
from penstock.cli.drawings import change, described, element, interval, shares, stretch
from penstock.cli.pictures import chart_line

GAIN = Chart("gain", "correct", -0.008, -0.023, 0.006, -0.01, None, 0.95, 360, 7, "counted", 2100)
LEVEL = replace(GAIN, kind="level", estimate=0.9, low=0.88, high=0.92, least=0.8, most=0.95)
NUMBERS = st.floats(-1e6, 1e6)


def read(svg: str) -> Element:
    found: Element = fromstring(svg)
    return found


def place(svg: Element, name: str, attribute: str = "x") -> float:
    """Where the element of a class begins, in percent."""
    found = svg.find(f".//*[@class='{name}']")
    assert found is not None, name
    return float(found.get(attribute, "").rstrip("%"))


def words(svg: Element) -> list[str]:
    return [text.text or "" for text in svg.iter("text")]


def test_an_interval_shows_what_is_forbidden_and_where_it_reaches() -> None:
    """The forbidden part ends at the edge, within the bounds; the estimate is between them; zero is shown too."""
    svg = read(interval(GAIN, "inconclusive"))
    edge, low, high = place(svg, "edge", "x1"), place(svg, "reach", "x1"), place(svg, "reach", "x2")
    assert low < edge < place(svg, "estimate", "cx") < place(svg, "zero", "x1") < high
    assert place(svg, "forbidden", "width") == edge
    assert words(svg) == ["−0.8", "−2.3", "+0.6", "limit −1", "0"]
    assert (svg.get("class"), svg.get("role")) == ("chart inconclusive", "img")
    assert svg.get("aria-label") == "gain in correct: −0.8, bounds −2.3 … +0.6, limit −1"


def test_a_range_is_forbidden_on_both_sides() -> None:
    """Both edges are drawn and named, and their words turn away from each other; a level has no zero."""
    svg = read(interval(LEVEL))
    forbidden = [e for e in svg.iter("rect") if e.get("class") == "forbidden"]
    assert [e.get("x") for e in forbidden] == ["0%", f"{place(svg, 'ground', 'x') + 90:g}%"]
    assert words(svg)[3:] == ["limit 0.8", "limit 0.95"]
    anchors = [e.get("text-anchor") for e in svg.iter("text") if e.get("class") == "edge-label"]
    assert anchors == ["end", "start"]
    assert svg.find(".//*[@class='zero']") is None


def test_zero_stands_beside_the_bounds_where_there_is_room() -> None:
    """Without edges the drawing is lower, unless zero would run into a bound."""
    free, near = (
        read(interval(replace(GAIN, least=None, low=low, high=high, estimate=high)))
        for low, high in ((-0.02, 0.03), (0.001, 0.03))
    )
    assert (free.get("height"), near.get("height")) == ("69", "86")
    assert described(replace(GAIN, least=None)) == "−0.8, bounds −2.3 … +0.6"


def test_a_relative_gain_is_told_in_percent_and_a_slice_by_its_name() -> None:
    """Shares of the other model's score are no points, whatever the score is."""
    svg = read(interval(replace(GAIN, score="absolute_error", relative=True, slice_of="region=north")))
    label = "gain in absolute error of region=north: −0.8 %, bounds −2.3 % … +0.6 %, limit −1 %"
    assert svg.get("aria-label") == label
    assert words(svg)[0] == "−0.8 %"
    line = chart_line(replace(GAIN, score="absolute_error", relative=True, slice_of="region=north"))
    assert (line[:20], line[-6:]) == ("region=north  -2.3 %", "+0.6 %")
    assert (chart_line(GAIN)[:4], chart_line(GAIN)[-4:]) == ("-2.3", "+0.6")


@given(
    marks=st.lists(NUMBERS, min_size=3, max_size=3).map(sorted),
    edges=st.lists(NUMBERS, max_size=2, unique=True).map(sorted),
    kind=st.sampled_from(["gain", "level"]),
    score=st.sampled_from(["correct", 'a"<b>&']),
)
def test_every_interval_is_well_formed(marks: list[float], edges: list[float], kind: str, score: str) -> None:
    """Whatever the numbers and names are, it reads as XML, nothing lies outside, and the estimate is there."""
    least, most = [*edges, None, None][:2]
    chart = replace(LEVEL, low=marks[0], estimate=marks[1], high=marks[2], least=least, most=most, score=score)
    chart = replace(chart, kind="gain" if kind == "gain" else "level")
    svg = interval(chart)
    assert 0 <= place(read(svg), "estimate", "cx") <= 100
    assert all(0 <= float(number) <= 100 for number in re.findall(r'"([-\d.e]+)%"', svg))


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=20))
def test_attributes_are_escaped(text: str) -> None:
    """Any text is the value of an attribute, and no more."""
    assert read(element("rect", class_=text, aria_label=text)).attrib == {"class": text, "aria-label": text}


def test_a_change_leads_from_a_ring_to_a_dot() -> None:
    """On a common axis, and in the middle of nowhere if there is only one place."""
    svg = read(change(0.9, 0.6, 0.5, 1.0, "worse"))
    assert (place(svg, "from", "cx"), place(svg, "to", "cx"), svg.get("class")) == (80.0, 20.0, "change worse")
    assert place(read(change(0.9, 0.9, 0.9, 0.9)), "to", "cx") == 0.0


@given(st.lists(st.tuples(st.sampled_from(["passed", "failed"]), st.integers(0, 10**6)), max_size=4))
def test_shares_fill_the_bar(counts: list[tuple[str, int]]) -> None:
    """The parts add up to the whole, in their order, and nothing is drawn of what is not there."""
    parts = list(read(shares(counts)).iter("rect"))
    assert [part.get("class") for part in parts] == [word for word, count in counts if count]
    wide = sum(float(part.get("width", "").rstrip("%")) for part in parts)
    assert abs(wide - 100) < 0.1 or not parts


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 1e9))
def test_a_stretch_can_be_seen_and_stays_within(start: float, end: float, first: float, last: float) -> None:
    """However short it was, and whatever the clock did, something is drawn, and within the row."""
    svg = read(stretch(start, end, (first, last), "passed"))
    left, wide = place(svg, "bar"), place(svg, "bar", "width")
    assert wide >= 1
    assert 0 <= left <= left + wide <= 100.02
