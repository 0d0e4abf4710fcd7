"""The tiny project, in a folder and a home of each test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from acceptance.tiny import Tiny, end, make


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    """Committed once, never run. At the end the home is stopped, and no process of it may be left."""
    made = make(tmp_path)
    yield made
    end(made.command, tmp_path)


@pytest.fixture
def served(tiny: Tiny) -> Tiny:
    """The project with its first version in production."""
    tiny("run")
    return tiny
