"""Config files of an environment: a template of the package with its places filled in, as text and once.

A place is `${{ NAME }}`, as in the pipeline file, and may name more here: `environment`, `release`, the environment's
own variables, and the secrets that the environment lists. Values stand in the file as they are: what a format wants
quoted, the template quotes.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from penstock.pipelines import PLACE, Environment, Pipeline
from penstock.values import shortened

MAX_TEMPLATE = 1 << 20
"""Bytes of a template."""
MAX_TOLD = 20
"""So many mistakes of a template are told."""


@dataclass(frozen=True, slots=True)
class Place:
    """A place of a template: the name in it, where it stands (from 1, in characters), and whether it is closed."""

    name: str
    line: int
    column: int
    is_closed: bool


def places(text: str) -> Iterator[Place]:
    """The places of a template, in order."""
    line, begin, seen = 1, 0, 0
    for match in PLACE.finditer(text):
        at = match.start()
        line += text.count("\n", seen, at)
        begin, seen = text.rfind("\n", 0, at) + 1, at
        yield Place(match[1].strip(), line, at - begin + 1, match[2] is not None)


def known_names(variables: Collection[str], secrets: Collection[str]) -> tuple[str, ...]:
    """What a template of an environment with these variables and secrets can name."""
    own = ("version", "commit", "environment", "release")
    return (*own, *(f"variables.{name}" for name in variables), *(f"secrets.{name}" for name in secrets))


def names_of(pipeline: Pipeline, environment: Environment) -> tuple[str, ...]:
    """What a template of an environment of the file can name."""
    return known_names({**pipeline.variables, **environment.variables}, environment.secrets)


def mistakes(template: str, data: bytes, known: Collection[str]) -> list[str]:
    """A sentence for each mistake of a template, with its line and column; `template` is its path."""
    if len(data) > MAX_TEMPLATE:
        return [f"{template} has more than {MAX_TEMPLATE >> 20} MiB, too much for a template: take it out of config"]
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return [f"{template} is no UTF-8 text, so it cannot be a template: take it out of config"]
    found = [f"{template}:{place.line}:{place.column}: {why}" for place, why in _wrong(text, known)]
    return found[:MAX_TOLD]


def _wrong(text: str, known: Collection[str]) -> Iterator[tuple[Place, str]]:
    for place in places(text):
        if not place.is_closed:
            yield place, '"${{" is not closed: expected a name and "}}" after it'
        elif place.name not in known:
            yield place, f'"${{{{ {shortened(place.name)} }}}}" names nothing{_hint(place.name, known)}'


def _hint(name: str, known: Collection[str]) -> str:
    if name.startswith("secrets."):
        return ": list the secret in the environment's secrets"
    near = get_close_matches(name, known, 1)
    return f': did you mean "{near[0]}"?' if near else ": write " + ", ".join(list(known)[:4]) + " or variables.NAME"


def render(text: str, values: Mapping[str, str]) -> str:
    """The template with every place replaced by its value, once: what a value holds is not looked at again.

    Raises KeyError for a place that names nothing; a template without `mistakes` has none.
    """
    return PLACE.sub(lambda match: values[match[1].strip()], text)
