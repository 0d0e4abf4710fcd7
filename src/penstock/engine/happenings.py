"""What happened to an environment: releases, rollbacks, migrations and freezes, each with who, when and why.

It is read from the journal and from what people asked for; nothing is kept for it beside these.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.migrations import Migration, MigrationStatus
from penstock.store.contract import Approval, Release, ReleaseEvent, Request
from penstock.store.sql import Store
from penstock.watches import WATCH


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened. `at` is in seconds since the epoch; `what` is a word or two; `why` a half-sentence."""

    at: float
    what: str
    version: str | None
    release: int | None
    run: int | None
    who: str
    why: str | None


_RELEASES: Mapping[str, str] = {
    "widen": "tried",
    "promote": "released",
    "reject": "rejected",
    "withdraw": "rolled back",
    "restore": "rolled back to",
    "stop": "stopped",
}
_ASKED: Mapping[str, str] = {
    "restore": "rollback",
    "stop": "stop",
    "promote": "promote",
    "reject": "abort",
    "withdraw": "abort",
}
"""The request that has an event follow, where a person asked for it."""
_DECIDED: Mapping[str, str] = {"evidence": "its evidence", "deadline": "its deadline", "failure": "penstock"}
"""Who decided what no person asked for, by the cause of a rollout's last move."""


def happenings(store: Store, project: str, environment: str) -> list[Happening]:
    """All that happened to an environment, oldest first."""
    requests = store.requests.of_kinds(("rollback", "stop", "promote", "abort", "freeze", "unfreeze"))
    here = [r for r in requests if _is_about(r, project, environment)]
    known = {r.id: r for r in store.releases.of(project, environment)}
    found = [
        *(
            _release(store, known[e.release], e, here)
            for e in store.releases.events(list(known))
            if e.event in _RELEASES
        ),
        *map(_migration, (m for m in store.migrations.of(project, environment) if m.ended is not None)),
        *_freezes(here),
        *(one for asked in store.approvals.of(project, environment) for one in _approval(store, asked)),
    ]
    return sorted(found, key=lambda h: h.at)


def _is_about(request: Request, project: str, environment: str) -> bool:
    """Whether a request was about the environment; a bare `stop` is about all."""
    wanted = request.payload
    return wanted.get("project") in {None, project} and wanted.get("environment") in {None, environment}


def _release(store: Store, release: Release, event: ReleaseEvent, requests: list[Request]) -> Happening:
    broken = _broken(store, release, event)
    if broken is not None:
        return Happening(event.at, _RELEASES[event.event], release.version, release.id, None, WATCH, broken)
    kind = _ASKED.get(event.event)
    asked = next((r for r in requests if r.kind == kind and r.created <= event.at <= (r.ended or event.at)), None)
    who, why = _decided(release, event) or release.actor, event.detail
    if asked is not None:
        who, why = asked.actor, asked.payload.get("reason")
    elif event.event == "promote":
        why = why or _evidence(release) or _asked_by(store, release)
    return Happening(event.at, _RELEASES[event.event], release.version, release.id, release.run or None, who, why)


def _decided(release: Release, event: ReleaseEvent) -> str | None:
    """Who had an event follow where no person did: the probe, or the judgement in traffic."""
    rollout = release.rollout or {}
    if event.event == "widen":
        return None if _begins(rollout, event) else _DECIDED["evidence"]
    if event.event == "reject" and event.detail is not None and event.detail.startswith("the probe: "):
        return "its probe"
    move = rollout.get("move") or {}
    ends = {"promote": "promote", "withdraw": "roll_back"}
    return _DECIDED.get(str(move.get("cause"))) if ends.get(event.event) == move.get("kind", "") else None


def _begins(rollout: Mapping[str, Any], event: ReleaseEvent) -> bool:
    """Whether an event is a release's first move in traffic, which whoever released it asked for."""
    return event.detail == f"{rollout.get('strategy')} begins"


def _evidence(release: Release) -> str | None:
    """What promoted a release that was tried in traffic."""
    move = (release.rollout or {}).get("move") or {}
    return str(move["reason"]) if move.get("kind") == "promote" else None


def _asked_by(store: Store, release: Release) -> str:
    by_hand = store.requests.get(release.request).kind == "deploy"
    return "by hand" if by_hand else f"run {release.run}"


def _migration(row: Migration) -> Happening:
    passed = row.status in {MigrationStatus.PASSED, MigrationStatus.REVERTED}
    if row.reverts is None:
        what = "migrated" if passed else "did not migrate"
    else:
        what = "undid the migration" if passed else "did not undo the migration"
    why = None if passed else row.reason
    return Happening(row.ended or row.created, what, row.version, row.release, None, row.actor, why)


def _freezes(requests: list[Request]) -> Iterator[Happening]:
    for request in requests:
        if request.kind in {"freeze", "unfreeze"} and request.exit_code == 0:
            what = "frozen" if request.kind == "freeze" else "unfrozen"
            at = request.ended or request.created
            yield Happening(at, what, None, None, None, request.actor, request.payload.get("reason"))


_ENDED: Mapping[str, str] = {"refuse": "not approved", "expire": "not approved", "void": "approval void"}


def _approval(store: Store, asked: Approval) -> Iterator[Happening]:
    """Who was asked, and what was said or what ended it."""
    who, version, run = asked.terms.requester, asked.pinned.version, asked.run
    yield Happening(asked.created, "approval asked", version, None, run, who, f"role {asked.terms.whom}")
    for at, event, reason in store.approvals.events(asked.id):
        if event == "approve":
            yield Happening(at, "approved", version, None, run, asked.decided_by or "", reason)
        elif event in _ENDED:
            by = asked.decided_by if event == "refuse" else None
            why = f"nobody did until {asked.until}" if event == "expire" else reason
            yield Happening(at, _ENDED[event], version, None, run, by or "penstock", why)


def _broken(store: Store, release: Release, event: ReleaseEvent) -> str | None:
    """What the release before was seen to do, where its watch gave the traffic back to this one."""
    if event.event != "restore" or release.replaced is None:
        return None
    before = store.releases.get(release.replaced)
    ended = ((before.watch or {}).get("state") or {}).get("ended") or {}
    by_watch = f"rolled back to {release.version} by {WATCH}" in (before.reason or "")
    return f"{before.version}: {ended['reason']}" if by_watch and "reason" in ended else None
