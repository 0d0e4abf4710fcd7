"""Requests for approval in a real SQLite file: what is pinned and under which terms, and each word once."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from penstock.approvals import ApprovalStatus, Pinned, Terms
from penstock.errors import TransitionError
from penstock.plans import PlannedStep, StepKind
from penstock.runs import RequestStatus
from penstock.store.contract import Approval, Follower, Project
from penstock.store.sql import Store, open_store

PROJECT = Project("p1", "digits", "example.org/digits", "penstock.yaml", "digits")
ME = Follower(1, 1, "boot")
PINNED = Pinned("production", "ab", "0.1", "sha256:cd", 3)
TERMS = Terms(("deployer", "admin"), 1_790_000_000.0, "ada", by_another=True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "penstock.db") as made:
        made.runs.project(PROJECT)
        yield made


def add_run(store: Store) -> int:
    values = {
        "request": store.requests.add("run", {}, ME, "ada"),
        "project": PROJECT.id,
        "owner": ME,
        "version": "0.1",
        "commit": {},
        "change": [],
        "trigger": "manual",
        "mirror": "sources/m",
        "pipeline": {},
        "options": {},
        "notes": [],
    }
    return store.runs.add(values, (PlannedStep("check", StepKind.CHECK, "build", ()),), ())


def ask(store: Store, run: int, environment: str = "production") -> Approval:
    request = store.runs.get(run).request
    return store.approvals.ask(PROJECT.id, run, request, replace(PINNED, environment=environment), TERMS)


def test_what_is_asked_is_kept(store: Store) -> None:
    """Pins and terms come back as they were; it is found by run, by environment, and among what waits."""
    run, other = add_run(store), add_run(store)
    asked, second, third = ask(store, run), ask(store, run, "staging"), ask(store, other)
    assert (asked.pinned, asked.terms, asked.status) == (PINNED, TERMS, ApprovalStatus.PENDING)
    assert (asked.run, asked.request, asked.decided_by, asked.decided) == (run, store.runs.get(run).request, None, None)
    assert store.approvals.newest(run, "production") == asked
    assert store.approvals.newest(other, "staging") is None
    assert store.approvals.of_run(run) == [asked, second]
    assert store.approvals.of(PROJECT.id, "production") == [asked, third]
    assert store.approvals.newest_request(PROJECT.id, "production") == third.request
    assert store.approvals.newest_request(PROJECT.id, "moon") == 0
    assert store.approvals.of(PROJECT.id) == store.approvals.pending() == [asked, second, third]


def test_a_word_is_given_once(store: Store) -> None:
    """Who, when, why and by which request; what the table does not allow changes nothing; the journal tells."""
    asked = ask(store, add_run(store))
    decision = store.requests.add("approve", {}, ME, "bob")
    given = store.approvals.move(asked.id, "approve", reason="fine", by="bob", decision=decision)
    assert (given.status, given.decided_by, given.decision, given.reason) == ("approved", "bob", decision, "fine")
    assert given.decided is not None
    assert store.approvals.pending() == []
    with pytest.raises(TransitionError, match="approved cannot refuse"):
        store.approvals.move(asked.id, "refuse", by="eve", decision=decision)
    used = store.approvals.move(asked.id, "use")
    assert used == replace(given, status=ApprovalStatus.USED)
    told = [(event, reason) for _, event, reason in store.approvals.events(asked.id)]
    assert told == [("ask", None), ("approve", "fine"), ("use", None)]


def test_sentences(store: Store) -> None:
    """Where it stands, in words: whom it waits for and until when, who said what, why it is void."""
    asked = ask(store, add_run(store))
    waits = f"waits for approval (deployer or admin, other than ada) until {asked.until}: penstock approve 1 production"
    assert asked.sentence == waits
    said = replace(asked, status=ApprovalStatus.REFUSED, decided_by="bob", decided=asked.terms.expires, reason="no")
    assert said.sentence == f"refused by bob on {asked.until}: no"
    assert replace(said, status=ApprovalStatus.USED, reason=None).sentence == f"approved by bob on {asked.until}"
    assert replace(asked, status=ApprovalStatus.EXPIRED).sentence == f"nobody approved it until {asked.until}"
    changed = replace(asked, status=ApprovalStatus.VOID, reason="the settings of production are others")
    assert changed.sentence == "its approval is void, because the settings of production are others"


def test_a_request_is_opened_again(store: Store) -> None:
    """What has ended for the time being is open again, and its next end is the one that stands."""
    number = store.requests.add("run", {}, ME, "ada")
    store.requests.end(number, 4, {"run": 1})
    store.requests.reopen(number)
    request = store.requests.get(number)
    assert (request.status, request.exit_code, request.result, request.ended) == (RequestStatus.OPEN, None, None, None)
    store.requests.end(number, 0, {"run": 1})
    assert store.requests.get(number).exit_code == 0
