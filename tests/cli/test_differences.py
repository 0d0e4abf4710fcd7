"""What differs between two runs, from values alone."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.artifacts import Digest, File, Tree
from penstock.cli.differences import changes, file_changes, flat, metric_rows, pins
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


@given(st.text(max_size=30))
def test_nothing_escapes_a_cell(text: str) -> None:
    """Whatever a repository says is one line without tags and without an open column."""
    shown = escaped(text)
    assert "\n" not in shown
    assert "<" not in shown
    assert shown.replace("\\\\", "").replace("\\|", "").count("|") == 0
