"""Arrays of texts say the same as texts one by one: canonical form, numbers, order, labels."""

import random
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.texts import (
    WIDTH,
    abbreviated,
    canonical,
    canonical_text,
    coded,
    digest_of_texts,
    matched,
    numbers,
    order,
    repeated,
    texts_of,
)

DIGITS = st.text("0123456789", max_size=26)
NUMERALS = st.builds("{}{}{}{}{}".format, st.sampled_from(["", "-", "+"]), DIGITS, st.sampled_from(["", "."]), DIGITS,
    st.sampled_from(["", "", "", "e5", "E-3", "e+30", "e", ".0", "-1"]))  # fmt: skip
TEXTS = NUMERALS | st.sampled_from(["True", "False", "true", "T", "F", "Fa", "2020-01-01", "nan", "ü", ""]) | st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=80
)  # fmt: skip


@given(values=st.lists(TEXTS, min_size=1, max_size=20))
def test_the_canonical_form_of_many_is_that_of_each(values: list[str]) -> None:
    """Looking at all texts at once gives what looking at each gives, and a second time changes nothing."""
    texts = texts_of(values)
    found = canonical(texts)
    assert [abbreviated(canonical_text(text)) for text in texts.tolist()] == found.tolist()
    assert canonical(found).tolist() == found.tolist()


@given(text=NUMERALS)
def test_the_canonical_form_of_a_number_is_the_same_number(text: str) -> None:
    """No digit is lost and none is added."""
    try:
        wanted = Decimal(text)
    except ArithmeticError:
        assert canonical_text(text.encode()) == text.encode()
    else:
        assert Decimal(canonical_text(text.encode()).decode()) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("+3.0", "3"), ("03", "3"), ("3e0", "3"), ("-0", "0"), ("-0.00", "0"), ("0.10", "0.1"), (".5", "0.5"), ("5.", "5"),
     ("1e-5", "0.00001"), ("1e30", "1e30"), ("-12.50e1", "-125"), ("1e-30", "1e-30"), ("True", "true"), ("3 ", "3 "),
     ("1_0", "1_0"), ("1.2.0", "1.2.0"), ("2020-01-10", "2020-01-10"), ("1000000000000000000000000", "1e24")],
)  # fmt: skip
def test_numbers_have_one_notation(text: str, wanted: str) -> None:
    """Plus signs, needless zeros and exponents go; what is no number stays."""
    assert canonical_text(text.encode()) == wanted.encode()
    assert canonical(texts_of([text])).tolist() == [wanted.encode()]


@given(values=st.lists(st.floats(-1e300, 1e300) | st.integers(-(10**15), 10**15), min_size=1))
def test_numbers_are_read_to_the_last_bit_or_nearly(values: list[float]) -> None:
    """What a float writes is read within one unit in the last place, and up to 15 digits exactly."""
    found = numbers(canonical(texts_of([repr(value) for value in values])))
    for one, value in zip(found.tolist(), values, strict=True):
        assert abs(one - value) <= np.spacing(abs(float(value)))
        if len(repr(value).strip("-0.").replace(".", "")) <= 15 and "e" not in repr(value):
            assert one == value


def test_what_is_no_number_is_nan() -> None:
    """Texts, dates, two points and half exponents are no numbers."""
    assert np.isnan(numbers(texts_of(["cat", "2020-01-01", "1.2.3", "1e", "", "-", ".", "1_0", "inf", "nan"]))).all()
    assert numbers(texts_of(["-1.5", "1e999", "12345678901234567890123"])).tolist() == [
        -1.5,
        np.inf,
        12345678901234567890123.0,
    ]


@given(
    values=st.lists(
        st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=16), min_size=1
    )
)
def test_order_is_that_of_the_bytes(values: list[str]) -> None:
    """Sorting is stable and by bytes, whatever they have in common; what is there twice is found."""
    texts = texts_of(values)
    encoded = [value.encode() for value in values]
    places = order(texts)
    assert places.tolist() == sorted(range(len(values)), key=lambda place: encoded[place])
    ordered = texts[places]
    assert len(repeated(ordered)) == len(values) - len(set(values))
    codes, labels = coded(texts)
    assert list(labels) == [label.decode() for label in sorted(set(encoded))]
    assert [labels[code] for code in codes.tolist()] == values


@pytest.mark.parametrize("width", [6, 20, 60])
def test_order_holds_for_many_long_texts(width: int) -> None:
    """Keys of one number with places in it, of one without, and of several, sort alike."""
    draw = random.Random(1)  # noqa: S311 (no secret)
    values = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=width)) for _ in range(70_000)]
    assert texts_of(values)[order(texts_of(values))].tolist() == sorted(value.encode() for value in values)


@given(one=st.sets(st.text("abc", min_size=1, max_size=3)), other=st.sets(st.text("abc", min_size=1, max_size=5)))
def test_matched_finds_what_both_have(one: set[str], other: set[str]) -> None:
    """Places in both, in order."""
    first, second = sorted(one), sorted(other)
    mine, theirs = matched(_array(first), _array(second))
    assert [first[i] for i in mine.tolist()] == [second[i] for i in theirs.tolist()] == sorted(one & other)


def _array(values: Sequence[str]) -> "np.typing.NDArray[np.bytes_]":
    return texts_of(values) if values else np.zeros(0, "S1")


def test_long_texts_keep_their_difference() -> None:
    """A text of more than the width is its beginning and its digest."""
    one, other = texts_of(["x" * 200 + "a"]), texts_of(["x" * 200 + "b"])
    assert one.dtype.itemsize <= WIDTH
    assert one[0] != other[0]
    assert texts_of(["y" * WIDTH]).tolist() == [b"y" * WIDTH]


def test_the_digest_does_not_see_how_wide_an_array_is() -> None:
    """Room that no text uses is no part of the digest; columns do not run into each other."""
    wide = np.array([b"a", b"bc"], "S30")
    assert digest_of_texts("t", [texts_of(["a", "bc"])]) == digest_of_texts("t", [wide])
    assert digest_of_texts("t", [texts_of(["ab", "c"])]) != digest_of_texts("t", [wide])
    assert digest_of_texts("t", [texts_of([""])]) != digest_of_texts("t", [texts_of(["", ""])])
