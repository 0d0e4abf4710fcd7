"""Reading pipeline files in tests, with all or none of the keys that the models know before the engine does."""

import pytest

from penstock.errors import PipelineError
from penstock.pipelines import SWITCHES, Pipeline
from penstock.sources.definitions import load

NONE: frozenset[str] = frozenset()
ALL = frozenset(word for keys in SWITCHES.values() for word in keys.values())
"""What the file would have with nothing of, and all of, what the models know before the engine does."""

ONE = "name: x\nsteps:\n  a: {run: x}\n"
STEP = "name: x\nsteps:\n  a:\n    run: x\n    "
PACK = ONE + "package: {code: src/, serve: x}\n"


def read(text: str | bytes, built: frozenset[str] = NONE) -> Pipeline:
    return load(text if isinstance(text, bytes) else text.encode(), "penstock.yaml", built)


def refused(text: str | bytes, built: frozenset[str] = NONE) -> list[tuple[int, int, str]]:
    with pytest.raises(PipelineError) as caught:
        read(text, built)
    assert all(problem.file == "penstock.yaml" for problem in caught.value.problems)
    return [(problem.line, problem.column, problem.sentence) for problem in caught.value.problems]
