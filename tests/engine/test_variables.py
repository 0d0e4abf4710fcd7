"""The environment of a process: what is passed on from the person, and what a runtime puts in front."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.variables import PASSED_ON, passed_on, with_runtime

NAMES = st.sampled_from([*sorted(PASSED_ON), "LC_ALL", "LC_TIME", "HF_TOKEN", "AWS_SECRET", "PYTHONPATH", "HOME", "LC"])


@given(st.dictionaries(NAMES, st.text(max_size=5)), st.lists(st.sampled_from(["HF_TOKEN", "MISSING"])))
def test_nothing_else_leaks_in(person: dict[str, str], more: list[str]) -> None:
    """A process gets what the contract passes on and what the file names, unchanged, and nothing else."""
    found = passed_on(person, more)
    allowed = {n for n in person if n in PASSED_ON or n.startswith("LC_") or n in more}
    assert allowed <= found.keys() <= allowed | {"NO_PROXY", "no_proxy"}
    assert all(found[n] == person[n] for n in allowed - {"NO_PROXY", "no_proxy"})


def test_this_machine_is_never_behind_a_proxy() -> None:
    """Where a proxy is set, requests to this machine go around it, beside what the person exempted."""
    assert "NO_PROXY" not in passed_on({"PATH": "/bin"})
    found = passed_on({"https_proxy": "http://proxy", "NO_PROXY": "example.org"})
    assert found["NO_PROXY"] == found["no_proxy"] == "example.org,127.0.0.1,localhost"
    assert passed_on({"ALL_PROXY": "socks://proxy"})["no_proxy"] == "127.0.0.1,localhost"
    assert passed_on({"no_proxy": "example.org"}) == {"no_proxy": "example.org"}
    assert passed_on({"HTTP_PROXY": "p", "no_proxy": "a.org"})["NO_PROXY"] == "a.org,127.0.0.1,localhost"


def test_a_runtime_stands_in_front() -> None:
    """A runtime's programs come before the person's, and the repository's folders can be imported."""
    variables = {"PATH": "/bin", "VIRTUAL_ENV": "/theirs"}
    with_runtime(variables, {"PATH": "/env/bin", "VIRTUAL_ENV": "/env"}, Path("/work"), ("src", "lib"))
    assert variables == {"PATH": "/env/bin:/bin", "VIRTUAL_ENV": "/env", "PYTHONPATH": "/work/src:/work/lib"}


def test_without_a_path_the_runtime_is_the_path() -> None:
    """Where the person has no PATH, no empty entry is made, which would be the current folder."""
    for variables in ({}, {"PATH": ""}):
        with_runtime(variables, {"PATH": "/env/bin"}, Path("/work"), ())
        assert variables == {"PATH": "/env/bin"}
