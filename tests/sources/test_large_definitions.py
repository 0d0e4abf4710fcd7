"""Large pipeline files, and those made to hurt."""

import tracemalloc

import pytest

from penstock.matrices import expand
from penstock.pipelines import needs, order, stages
from penstock.sources.definitions import MAX_BYTES
from penstock.sources.documents import MAX_DEPTH
from sources.files import ONE, read, refused
from sources.hostile import HOSTILE


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(case: str) -> None:
    """A file that is made to hurt is refused, each problem in one short sentence, and none is left out silently."""
    problems = refused(HOSTILE[case]())
    assert problems
    assert all(len(sentence) < 1000 and "\n" not in sentence for _, _, sentence in problems)


@pytest.mark.parametrize(
    "case",
    ["open brackets", "alias bomb", "100 MB", "many values", "wrong inputs", "all need all", "needed by many"],
)
def test_hostile_files_need_little_memory(case: str) -> None:
    """Refusing such a file takes less than 100 MB beside the file itself."""
    data = HOSTILE[case]()
    tracemalloc.start()
    try:
        refused(data)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["a chain", "independent"])
def test_ten_thousand_steps_load(kind: str) -> None:
    """A file of 10,000 steps with an input and an output each loads, and is worked out as it is meant."""
    count = 10_000
    read_from = "o%d/" if kind == "a chain" else "src/s%d"
    text = "".join(f"  s{n}: {{run: x, inputs: [{read_from % (n - 1)}], outputs: [o{n}/]}}\n" for n in range(1, count))
    pipeline = expand(read(f"name: x\nsteps:\n  s0: {{run: x, outputs: o0/}}\n{text}"))
    wanted = needs(pipeline)
    assert len(pipeline.steps) == len(stages(pipeline, wanted)) == count
    assert order(pipeline, wanted) == tuple(f"s{n}" for n in range(count))
    assert wanted["s9"] == ({"s8"} if kind == "a chain" else frozenset())


def test_ten_thousand_cells_load() -> None:
    """So many cells are a plan too."""
    matrix = "matrix: {a: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], b: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}"
    text = "".join(f"  s{n}: {{run: 'x ${{{{ matrix.a }}}}', {matrix}}}\n" for n in range(100))
    assert len(order(expand(read(f"name: x\nsteps:\n{text}")))) == 10_000


def test_many_problems_in_a_large_file_are_told_in_part() -> None:
    """A large file in which nothing is right is not read to its end, and its first problems are told."""
    found = refused("name: x\nsteps:\n" + "".join(f"  s{n}: {{run: x, timeout: y}}\n" for n in range(2_000)))
    assert found[0][:2] == (3, 25)
    assert found[-1][2] == "and many more problems: mend these first"


def test_nesting_up_to_the_limit_is_read() -> None:
    """The depth that is allowed is allowed: the complaint is about the key."""
    depth = MAX_DEPTH - 1
    assert "unknown key" in refused(ONE + "zzz: " + "[" * depth + "]" * depth + "\n")[0][2]
    assert "nested" in refused(ONE + "zzz: " + "[" * (depth + 1) + "]" * (depth + 1) + "\n")[0][2]


def test_longest_file_is_read() -> None:
    """A file of exactly the longest length is read, one byte more is not."""
    data = ONE.encode() + b"#" * (MAX_BYTES - len(ONE))
    assert read(data).name == "x"
    assert refused(data + b"#")[0][:2] == (1, 1)
