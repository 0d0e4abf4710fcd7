"""The page: rendered here, shown as it is, looked at again by a few lines of script."""

import base64
import hashlib
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from penstock.charts import drawn
from penstock.server.states import RunState, State

TEMPLATES = Path(__file__).with_name("templates")
STYLE = (TEMPLATES / "page.css").read_text(encoding="utf-8")
SCRIPT = (TEMPLATES / "page.js").read_text(encoding="utf-8")

ORDER = ("passed", "cached", "warned", "failed", "errored", "canceled", "running", "queued", "skipped")
"""How the parts of a run's bar follow each other."""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY = "; ".join(
    (
        "default-src 'none'",
        f"style-src {_hash(STYLE)}",
        f"script-src {_hash(SCRIPT)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""What a browser may do on the page: exactly our style and script, and asking for the page again."""


def templates_in(folder: Path, finalize: Callable[[Any], Any] | None = None) -> Environment:
    """The templates of a folder: every value is escaped, after `finalize`, and an unknown name is an error."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(state: State) -> str:
    """The page of a state, as HTML; every value in it is escaped."""
    return _template().render(state=state, style=STYLE, script=SCRIPT)


@cache
def _template() -> Template:
    environment = templates_in(TEMPLATES)
    environment.filters.update(ago=ago, stamp=stamp, lasting=lasting, parts=parts, plain=plain, drawn=drawn)
    return environment.get_template("page.html")


# --- words ---------------------------------------------------------------------------------------------------------


def ago(moment: float | None, now: float) -> str:
    """How long ago a moment was, in the largest unit that fits: `just now`, `3 min ago`."""
    if moment is None:
        return "not yet"
    seconds = max(0.0, now - moment)
    return "just now" if seconds < 10 else f"{lasting(seconds)} ago"


def lasting(seconds: float) -> str:
    """A duration in one unit: `40 s`, `3 min`, `5 h`, `2 d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def stamp(moment: float) -> str:
    """A moment on the machine's clock, with its offset."""
    return datetime.fromtimestamp(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def parts(run: RunState) -> list[tuple[str, int]]:
    """How a run's steps stand, in the order of the bar."""
    return [(name, run.steps[name]) for name in ORDER if run.steps.get(name)]


def plain(status: str) -> str:
    """A status in words."""
    return status.replace("_", " ")
