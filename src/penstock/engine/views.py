"""Runs as people see them, read from the store in one go."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from penstock.engine.observations import red_tests
from penstock.releases import ReleaseStatus, address
from penstock.runs import ApprovalView, ReleaseView, RunView, StepView
from penstock.standings import standing_of
from penstock.store.contract import Approval, Attempt, Release, Run, Target
from penstock.store.sql import Store


def view(store: Store, run: Run) -> RunView:
    """One run, whole."""
    names = {p.id: p.name for p in store.runs.projects()}
    commit = run.commit
    return RunView(
        run=str(run.id),
        project=names[run.project],
        version=run.version,
        commit=str(commit["sha"]),
        branch=commit["branch"],
        title=str(commit["title"]),
        trigger=run.trigger,
        status=run.status,
        reason=run.reason,
        created=run.created,
        started=run.started,
        ended=run.ended,
        dirty=bool(commit["dirty"]),
        steps=_steps(store, run),
        gates=tuple(store.runs.gates(run.id)),
        releases=tuple(_release(store, run, t) for t in store.runs.targets(run.id)),
        package=run.package,
        package_size=run.package_size,
        metrics=store.runs.metrics(run.id),
        notes=run.notes,
        tests=red_tests(store, run),
    )


def _steps(store: Store, run: Run) -> tuple[StepView, ...]:
    last = store.runs.ends(run.id)
    never = (0, None, None)
    return tuple(
        StepView(
            name=s.name,
            stage=s.stage,
            status=s.status,
            reason=s.reason,
            cached=s.cached,
            attempts=last.get(s.name, never)[0],
            started=s.started,
            ended=s.ended,
            exit_code=last.get(s.name, never)[1],
            log=last.get(s.name, never)[2],
            needs=s.needs,
        )
        for s in store.runs.outline(run.id)
    )


def _release(store: Store, run: Run, target: Target) -> ReleaseView:
    phase, status, replaced, url, rollout = None, target.status, None, None, None
    release = _release_of(store, run, target)
    if release is not None:
        status, phase, rollout = release.status, release.phase, release.rollout
        replaced = _replaced(store, release)
        if release.status is ReleaseStatus.SERVING:
            url = address(release.spec)
    else:
        serving = store.releases.serving(run.project, target.environment)
        replaced = serving.version if serving else None
        if target.status == "moving":
            status, phase = "starting", "waiting for its turn"
    asked = store.approvals.newest(run.id, target.environment)
    return ReleaseView(
        target.environment,
        run.version,
        status,
        url,
        target.reason,
        phase,
        replaced,
        rollout,
        None if asked is None else _approval(asked),
    )


def _replaced(store: Store, release: Release) -> str | None:
    """The version in whose place a release came; of one that got no place, what serves there."""
    if release.replaced:
        return store.releases.get(release.replaced).version
    serving = store.releases.serving(release.project, release.environment)
    return None if serving is None or serving.id == release.id else serving.version


def _approval(asked: Approval) -> ApprovalView:
    return ApprovalView(
        status=str(asked.status),
        roles=asked.terms.roles,
        requester=asked.terms.requester,
        expires=asked.terms.expires,
        by=asked.decided_by,
        at=asked.decided,
        reason=asked.reason,
        sentence=asked.sentence,
    )


def _release_of(store: Store, run: Run, target: Target) -> Any:
    if target.release is not None:
        return store.releases.get(target.release)
    if target.status == "queued":
        return None
    found = [
        r for r in store.releases.of(run.project, target.environment) if r.request == run.request and r.run == run.id
    ]
    return found[-1] if found else None


def to_json(shown: RunView) -> dict[str, Any]:
    """The documented object of `run --json` and `runs --json`."""
    return {
        "run": int(shown.run),
        "project": shown.project,
        "version": shown.version,
        "commit": shown.commit,
        "branch": shown.branch,
        "dirty": shown.dirty,
        "trigger": shown.trigger,
        "status": shown.status,
        "reason": shown.reason,
        "seconds": shown.seconds,
        "steps": [_step_json(s) for s in shown.steps],
        "gates": [
            {
                "name": g.name,
                "rule": g.rule,
                "verdict": g.verdict,
                "reasons": list(g.reasons),
                "value": g.value,
                "chart": None if g.chart is None else g.chart.as_json(),
            }
            for g in shown.gates
        ],
        "package": {"digest": shown.package, "size": shown.package_size} if shown.package else None,
        "metrics": dict(shown.metrics),
        "releases": [
            {
                "environment": r.environment,
                "version": r.version,
                "status": r.status,
                "url": r.url,
                "reason": r.reason,
                "rollout": rollout_json(r.rollout, r.status, r.reason),
                "approval": None if r.approval is None else asdict(r.approval),
            }
            for r in shown.releases
        ],
        "notes": list(shown.notes),
        "tests": [asdict(test) for test in shown.tests],
    }


def rollout_json(kept: Mapping[str, Any] | None, status: str, reason: str | None) -> dict[str, Any] | None:
    """The documented object of a rollout, from what a release keeps of it."""
    found = standing_of(kept, status, reason)
    return None if found is None else found.as_json()


def _step_json(step: StepView) -> dict[str, Any]:
    return {
        "name": step.name,
        "stage": step.stage,
        "status": step.status,
        "reason": step.reason,
        "cached": step.cached,
        "attempts": step.attempts,
        "seconds": step.seconds,
        "exit_code": step.exit_code,
        "log": step.log,
    }


def log_range(attempt: Attempt) -> tuple[str, int, int | None]:
    """Where the log of an attempt lies: file, first byte, and the byte after its last (None while it runs)."""
    start = int(attempt.handle["log_start"]) if attempt.handle else 0
    end = attempt.log_end if attempt.handle else 0
    return str(attempt.detail["log"]), start, end
