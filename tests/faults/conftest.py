"""A house per test, which is stopped and looked over at its end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.house import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.end()
