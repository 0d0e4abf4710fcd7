"""Templates of config files: where their places stand, what is wrong with them, and what they become."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.configs import MAX_TEMPLATE, MAX_TOLD, Place, known_names, mistakes, places, render

KNOWN = known_names(("LEVEL",), ("TOKEN",))


def test_what_a_template_can_name() -> None:
    """The release, its environment's variables and its secrets."""
    own = ("version", "commit", "environment", "release")
    assert (*own, "variables.LEVEL", "secrets.TOKEN") == KNOWN


def test_places_stand_where_they_are_written() -> None:
    """Lines and columns count from 1, in characters, also behind letters of several bytes and another place."""
    found = list(places("é ${{ version }}${{commit}}\n\n  ${{ open"))
    assert found == [Place("version", 1, 3, True), Place("commit", 1, 17, True), Place("open", 3, 3, False)]


def test_a_template_without_mistakes() -> None:
    """Everything that can be named is fine, and so is a text without places."""
    assert mistakes("a", " ".join(f"${{{{ {name} }}}}" for name in KNOWN).encode(), KNOWN) == []
    assert mistakes("a", b"plain ${ text } {{ }}", KNOWN) == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\n x ${{ versoin }}", 'app.toml:2:4: "${{ versoin }}" names nothing: did you mean "version"?'),
        (b"${{ secrets.WORD }}", "names nothing: list the secret in the environment's secrets"),
        (b"${{ ???? }}", "names nothing: write version, commit, environment, release or variables.NAME"),
        (b"${{ version", '"${{" is not closed'),
        (b"\xff", "app.toml is no UTF-8 text"),
        (b"x" * (MAX_TEMPLATE + 1), "app.toml has more than 1 MiB"),
    ],
)
def test_mistakes_say_where_and_what_to_do(data: bytes, said: str) -> None:
    """One sentence with line and column, or on the file as a whole."""
    (sentence,) = mistakes("app.toml", data, KNOWN)
    assert said in sentence


def test_not_every_mistake_is_told() -> None:
    """A file of something else is not told place by place."""
    assert len(mistakes("a", b"${{ x }}" * 100, KNOWN)) == MAX_TOLD


def test_a_value_with_a_newline() -> None:
    """Values are put in as they are, whatever they hold."""
    assert render("a ${{ release }}\r\n", {"release": "x\ny"}) == "a x\ny\r\n"


@given(st.text(), st.lists(st.tuples(st.sampled_from(KNOWN), st.text())))
def test_places_are_filled_in_once(value: str, parts: list[tuple[str, str]]) -> None:
    """What stands between places stays, and a value is not looked at again, even where it looks like a place."""
    plain = [(name, text.replace("$", "")) for name, text in parts]
    template = "".join(f"${{{{ {name} }}}}{text}" for name, text in plain)
    values = dict.fromkeys(KNOWN, f"${{{{ {value} }}}}")
    assert render(template, values) == "".join(f"{values[name]}{text}" for name, text in plain)
    assert mistakes("a", template.encode(errors="ignore"), KNOWN) == []
