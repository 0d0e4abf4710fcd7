"""What differs between two runs, from values alone."""

from hypothesis import given
from hypothesis import strategies as st

from cli.test_any_view import CALM, assert_fits
from penstock.artifacts import Digest, File, Tree
from penstock.cli.differences import (
    Change,
    Differences,
    FileChange,
    MetricRow,
    OutputChange,
    Side,
    changes,
    file_changes,
    flat,
    line_counts,
    metric_rows,
    output_change,
    pins,
    render_differences,
    with_renames,
)
from penstock.cli.markdown import escaped

NAMES = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xyz"))


def test_locks_are_read_by_name() -> None:
    """Versions and addresses are found by name, in whatever case; hashes, options and comments are none."""
    lock = (
        "--index-url somewhere\n# a comment==1\nNumpy==2.1.0 \\\n    --hash=sha256:00\nscipy[extra]==1.0 ; python>'3'\n"
        "tool @ https://example.org/tool.whl\n"
    )
    assert pins(lock) == {"numpy": "2.1.0", "scipy": "1.0", "tool": "https://example.org/tool.whl"}
    assert pins('{"images": {"python:3.12": "sha256:00"}}') == {"images.python:3.12": "sha256:00"}


def test_a_file_is_flat() -> None:
    """Nested values have paths; a list is one value; what is empty stays to be seen."""
    found = flat({"steps": {"train": {"run": "x", "inputs": ["a", "b"]}}, "variables": {}})
    assert found == {"steps.train.run": "x", "steps.train.inputs": "a, b", "variables": "{}"}


def test_metrics_that_one_run_lacks_have_no_difference() -> None:
    """Both runs' metrics are there, and a difference only where both have a value."""
    rows = {row.name: row.difference for row in metric_rows({"a": 1.0, "b": 2.0}, {"b": 2.5, "c": 3.0})}
    assert rows == {"a": None, "b": 0.5, "c": None}


@given(NAMES, NAMES)
def test_changes_lead_from_one_to_the_other(a: dict[str, str], b: dict[str, str]) -> None:
    """Applied to the first, the changes give the second; equal values make none."""
    result = dict(a)
    for change in changes(a, b):
        if change.b is None:
            del result[change.name]
        else:
            result[change.name] = change.b
    assert result == b
    assert changes(a, a) == ()


def test_files_are_added_removed_and_changed() -> None:
    """By path and digest."""
    one, two = (File(Digest(c * 64), 1) for c in "ab")
    found = file_changes(Tree({"same": one, "gone": one, "other": one}), Tree({"same": one, "new": one, "other": two}))
    assert [(f.path, f.change) for f in found] == [("gone", "removed"), ("new", "added"), ("other", "changed")]


def test_a_file_that_moved_is_renamed() -> None:
    """One that went and one that came with the same content are one; a copy is not, and each went but once."""
    one, two = (File(Digest(c * 64), 1) for c in "ab")
    before, after = Tree({"old": one, "kept": two}), Tree({"new": one, "other": one, "kept": two, "copy": two})
    found = with_renames(file_changes(before, after), before, after)
    assert found == (
        FileChange("copy", "added"),
        FileChange("new", "renamed", before="old"),
        FileChange("other", "added"),
    )


LINES = st.lists(st.sampled_from([b"a", b"b", b"", b"c d"]), max_size=12)


@given(LINES, LINES)
def test_lines_that_came_and_went_add_up(before: list[bytes], after: list[bytes]) -> None:
    """What came less what went is the difference in length; a file has no difference from itself."""
    counts = line_counts(b"".join(b"%s\n" % line for line in before), b"".join(b"%s\n" % line for line in after))
    assert counts is not None
    came, went = counts
    assert came - went == len(after) - len(before)
    assert 0 <= came <= len(after)
    assert line_counts(b"\n".join(before), b"\n".join(before)) == (0, 0)


def test_what_is_no_text_has_no_lines() -> None:
    """Bytes with a NUL are not counted, nor is a file of very many other lines; a line in the middle is one line."""
    assert line_counts(b"a\0b\n", b"c\n") is None
    long = [b"%d\n" % n for n in range(12_000)]
    assert line_counts(b"".join(long), b"".join(long[::-1])) is None
    assert line_counts(b"".join(long), b"".join([*long[:6000], b"new\n", *long[6001:]])) == (1, 1)


def test_outputs_are_counted_where_they_are_at_hand() -> None:
    """Of two trees the files that differ; of one that the cache has no more only the digest."""
    one, two = (File(Digest(c * 64), 1) for c in "ab")
    trees = Tree({"same": one, "gone": one, "other": one}), Tree({"same": one, "new": one, "other": two})
    found = output_change("data", "x", "y", *trees)
    assert (found.added, found.removed, found.changed) == (1, 1, 1)
    assert output_change("data", "x", "y", None, trees[1]).changed is None


TEXT = st.text(max_size=30)
VALUE = st.none() | TEXT | st.just("0" * 64)
COUNT = st.none() | st.integers(0, 10**6)
CHANGES = st.lists(st.builds(Change, TEXT, VALUE, VALUE), max_size=50).map(tuple)
FILES = st.builds(
    FileChange, TEXT, st.sampled_from(["added", "removed", "changed", "renamed"]), COUNT, COUNT, st.none() | TEXT
)
SIDES = st.builds(Side, st.integers(1, 999), TEXT, TEXT, TEXT, st.none() | TEXT, TEXT, st.booleans())
METRICS = st.builds(MetricRow, TEXT, st.none() | st.floats(), st.none() | st.floats(), st.none() | st.floats(-1e9, 1e9))


@CALM
@given(
    found=st.builds(
        Differences,
        a=SIDES,
        b=SIDES,
        metrics=st.lists(METRICS, max_size=4).map(tuple),
        evidence=st.just(()),
        gates=CHANGES,
        parameters=CHANGES,
        outputs=st.lists(st.builds(OutputChange, TEXT, VALUE, VALUE, COUNT, COUNT, COUNT), max_size=3).map(tuple),
        dependencies=CHANGES,
        files=st.lists(FILES, max_size=50).map(tuple),
        inputs=CHANGES,
        notes=st.lists(TEXT, max_size=3).map(tuple),
    ),
    width=st.integers(2, 160),
)
def test_no_difference_breaks_the_window(found: Differences, width: int) -> None:
    """Whatever differs and whatever it is called, every line is clean and within the window."""
    lines = assert_fits(render_differences(found), width)
    long = (found.gates, found.parameters, found.dependencies, found.files)
    if width >= 40:
        assert any("nothing else differs" in line for line in lines) != any((*long, found.outputs, found.inputs))
        assert sum("more: --json has them" in line for line in lines) >= sum(len(kind) > 40 for kind in long)


def test_what_differs_alike_in_many_keys_is_said_once() -> None:
    """An ingredient that changed from the same to the same in several steps is one line, with these steps."""
    side = Side(1, "1.0", "c" * 40, "passed")
    inputs = (Change("data runtime", "x", "y"), Change("train runtime", "x", "y"), Change("train inputs", None, "z"))
    said = str(render_differences(Differences(side, side, (), (), (), (), (), (), (), inputs, ())))
    assert said.splitlines()[-2:] == ["  runtime  x  →  y  data, train", "  inputs   -  →  z  train"]


def test_files_are_summed_up() -> None:
    """As git does: how many files, and how many lines came and went; a renamed one says where it was."""
    side = Side(1, "1.0", "c" * 40, "passed")
    files = (FileChange("a", "changed", 3, 1), FileChange("b", "renamed", before="old"), FileChange("c", "added"))
    said = str(render_differences(Differences(side, side, (), (), (), (), (), (), files, (), ())))
    assert "files  3 files, +3 −1 lines" in said
    assert "renamed from old" in said


@given(st.text(max_size=30))
def test_nothing_escapes_a_cell(text: str) -> None:
    """Whatever a repository says is one line without tags and without an open column."""
    shown = escaped(text)
    assert "\n" not in shown
    assert "<" not in shown
    assert shown.replace("\\\\", "").replace("\\|", "").count("|") == 0
