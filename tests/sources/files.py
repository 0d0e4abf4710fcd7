"""Reading pipeline files in tests."""

import pytest

from penstock.errors import PipelineError
from penstock.pipelines import Pipeline
from penstock.sources.definitions import load

ONE = "name: x\nsteps:\n  a: {run: x}\n"
STEP = "name: x\nsteps:\n  a:\n    run: x\n    "
PACK = ONE + "package: {code: src/, serve: x}\n"


def read(text: str | bytes) -> Pipeline:
    return load(text if isinstance(text, bytes) else text.encode(), "penstock.yaml")


def refused(text: str | bytes) -> list[tuple[int, int, str]]:
    with pytest.raises(PipelineError) as caught:
        read(text)
    assert all(problem.file == "penstock.yaml" for problem in caught.value.problems)
    return [(problem.line, problem.column, problem.sentence) for problem in caught.value.problems]
