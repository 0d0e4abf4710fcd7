"""What an approval pins, who may give it, when it ends by itself, and that it is used once."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.approvals import (
    APPROVAL_TRANSITIONS,
    ApprovalStatus,
    Pinned,
    Terms,
    after_approval,
    ending,
    has_role,
    settings_digest,
    why_not_approve,
)
from penstock.errors import TransitionError

PINNED = Pinned("production", "sha256:aa", "1.4.0", "sha256:bb", 3)
TERMS = Terms(("deployer", "owner"), 100.0, "ada")
EVENTS = ("approve", "refuse", "expire", "void", "use")


@pytest.mark.parametrize(("status", "event"), list(product(ApprovalStatus, EVENTS)))
def test_only_what_the_table_has_happens(status: ApprovalStatus, event: str) -> None:
    """An event that the table does not have is an error that names status and event."""
    if (status, event) in APPROVAL_TRANSITIONS:
        assert after_approval(status, event) is APPROVAL_TRANSITIONS[status, event]
    else:
        with pytest.raises(TransitionError, match=f"{status} cannot {event}"):
            after_approval(status, event)


@given(st.lists(st.sampled_from(EVENTS), max_size=8))
def test_an_approval_is_used_at_most_once_and_never_unapproved(events: list[str]) -> None:
    """Whatever is tried in whatever order, a use comes after an approval, once, and ends it."""
    status, taken = ApprovalStatus.PENDING, []
    for event in events:
        if (status, event) in APPROVAL_TRANSITIONS:
            status = after_approval(status, event)
            taken.append(event)
    assert "use" not in taken or taken == ["approve", "use"]


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (PINNED, None),
        (replace(PINNED, environment="staging"), "it is for production and not for staging"),
        (replace(PINNED, package="sha256:cc"), "the package is another than that of 1.4.0"),
        (replace(PINNED, version="1.5.0"), "the package is another than that of 1.4.0"),
        (replace(PINNED, settings="sha256:cc"), "the settings of production are others"),
        (replace(PINNED, over=4), "another release went to production meanwhile"),
        (replace(PINNED, over=None), "another release went to production meanwhile"),
    ],
)
def test_any_change_of_what_is_pinned_voids(now: Pinned, words: str | None) -> None:
    """Each part that is pinned voids an approval when it changes, before and after somebody approved."""
    assert PINNED.changed(now) == words
    for status in (ApprovalStatus.PENDING, ApprovalStatus.APPROVED):
        assert ending(status, TERMS, PINNED, now, 99.0) == (None if words is None else "void")


def test_time_ends_only_what_nobody_decided() -> None:
    """A request expires at its time, to the second; an approval given in time stays, and what has ended stays ended."""
    assert ending(ApprovalStatus.PENDING, TERMS, PINNED, PINNED, 99.9) is None
    assert ending(ApprovalStatus.PENDING, TERMS, PINNED, PINNED, 100.0) == "expire"
    assert ending(ApprovalStatus.APPROVED, TERMS, PINNED, PINNED, 1e9) is None
    assert ending(ApprovalStatus.USED, TERMS, PINNED, replace(PINNED, over=9), 1e9) is None


def test_who_may_approve() -> None:
    """One of the roles does; none named is anybody; None held is all; the requester may unless another must."""
    assert has_role(None, ["deployer"])
    assert has_role([], [])
    assert has_role(["owner"], TERMS.roles)
    assert why_not_approve(TERMS, "ada", None) is None
    assert why_not_approve(TERMS, "bob", ["viewer"]) == "bob may not approve this: it needs the role deployer or owner"
    another = replace(TERMS, by_another=True)
    assert why_not_approve(another, "bob", None) is None
    words = "ada asked for this release, and somebody else must approve it"
    assert why_not_approve(another, "ada", None) == words


def test_the_digest_of_settings_does_not_know_their_order() -> None:
    """The same settings have one digest in any order; another value has another."""
    assert settings_digest({"a": 1, "b": [2]}) == settings_digest({"b": [2], "a": 1})
    assert settings_digest({"a": 1}) != settings_digest({"a": 2})


def test_the_persons_own_surroundings_are_no_settings() -> None:
    """Whoever asks again from another terminal asks for the same."""
    assert settings_digest({"a": 1, "person": {"PATH": "/bin"}}) == settings_digest({"a": 1, "person": {}})


def test_whose_approval_it_takes_in_words() -> None:
    """Roles, and that it must be another; nobody named is anybody."""
    assert TERMS.whom == "deployer or owner"
    assert replace(TERMS, by_another=True).whom == "deployer or owner, other than ada"
    assert Terms((), 1.0, "ada").whom == "anybody"
