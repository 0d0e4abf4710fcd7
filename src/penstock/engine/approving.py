"""Approvals in time: asked for by runs, given or refused by persons, ended by time and by what changes meanwhile.

What is pinned is looked at when somebody decides, and once more right before the release begins.
"""

from collections.abc import Iterable
from dataclasses import replace

from penstock.approvals import ApprovalStatus, Pinned, Terms, ending, why_not_approve
from penstock.engine.followers import is_alive
from penstock.engine.world import World
from penstock.environments import ApprovalRules
from penstock.errors import NotFoundError, StateError
from penstock.runs import ENDED_RUN, RunStatus
from penstock.store.contract import Approval, Request, Run, Target
from penstock.store.sql import Store

NEWER = "a newer release takes its place"
TOO_LATE = "a newer release was there first"
GIVEN = frozenset({ApprovalStatus.APPROVED, ApprovalStatus.USED})
OPEN = frozenset({ApprovalStatus.PENDING, ApprovalStatus.APPROVED})


class UnapprovedError(StateError):
    """A release that nobody has approved, or whose approval does not hold any more."""


# --- what runs ask -------------------------------------------------------------------------------------------------


def sought(world: World, run: Run, target: Target, pinned: Pinned, rules: ApprovalRules) -> Approval:
    """The approval of what a run is to release; where nobody was asked yet somebody is, and the target waits.

    Raises UnapprovedError where it was not given, or where a newer release is to be there.
    """
    store = world.store
    known = store.approvals.newest(run.id, target.environment)
    if known is None:
        if _is_outrun(store, run.project, target.environment, run.request):
            raise UnapprovedError(TOO_LATE)
        terms = Terms(
            roles=rules.roles,
            expires=world.clock.now() + rules.expires,
            requester=store.requests.get(run.request).actor,
            by_another=rules.by_another,
        )
        with store.transaction(durable=True):
            asked = store.approvals.ask(run.project, run.id, run.request, pinned, terms)
            store.runs.set_target(replace(target, status="waiting", reason=asked.sentence))
        return asked
    if known.status not in {*OPEN, *GIVEN}:
        raise UnapprovedError(known.sentence)
    return known


def insist(world: World, number: int, pinned: Pinned) -> None:
    """The release of what was approved is to begin. Raises UnapprovedError where it must not; what changed is recorded.

    Once: only what was interrupted before it served is begun again on the same word. A `number` of 0 is none.
    """
    store = world.store
    if not number:
        raise UnapprovedError("nobody has approved it")
    approval = store.approvals.get(number)
    changed = approval.pinned.changed(pinned)
    if approval.status is ApprovalStatus.APPROVED and changed is not None:
        with store.transaction(durable=True):
            approval = store.approvals.move(number, "void", reason=changed)
    if approval.status not in GIVEN:
        raise UnapprovedError(approval.sentence)
    served = [r for r in store.releases.of(approval.project, approval.environment) if r.since is not None]
    if approval.status is ApprovalStatus.USED and any(r.request == approval.request for r in served):
        raise UnapprovedError("what was approved has served already")
    if changed is not None:
        raise UnapprovedError(replace(approval, status=ApprovalStatus.VOID, reason=changed).sentence)


def use(store: Store, number: int) -> None:
    """What was approved is released now, in the caller's transaction."""
    if store.approvals.get(number).status is ApprovalStatus.APPROVED:
        store.approvals.move(number, "use")


def refuse_unapproved(world: World, project: str, pinned: Pinned) -> None:
    """Raise UnapprovedError unless the last word on this package with these settings was a yes."""
    asked = [a for a in world.store.approvals.of(project, pinned.environment) if _is_of(a, pinned)]
    said = [a for a in asked if a.status in {*GIVEN, ApprovalStatus.REFUSED}]
    said.sort(key=lambda a: a.decided or 0.0)
    if said and said[-1].status in GIVEN:
        return
    what = f"{pinned.version} with these settings"
    for approval in asked:
        if approval.status is ApprovalStatus.PENDING:
            raise UnapprovedError(f"{what} {approval.sentence}")
    if said:
        raise UnapprovedError(f"{what} was {said[-1].sentence}")
    raise UnapprovedError(f"{what} is not approved for {pinned.environment}: penstock run of its commit asks for it")


def _is_of(approval: Approval, pinned: Pinned) -> bool:
    return pinned.changed(replace(approval.pinned, over=pinned.over)) is None


def drop(world: World, run: int, why: str) -> None:
    """Nothing of a run waits for anybody's word any more, in the caller's transaction that ends the run."""
    store = world.store
    for approval in store.approvals.of_run(run):
        if approval.status in OPEN:
            store.approvals.move(approval.id, "void", reason=why)
    for target in store.runs.targets(run):
        if target.status == "waiting":
            store.runs.set_target(replace(target, status="skipped", reason=why))


# --- what ends by itself -------------------------------------------------------------------------------------------


def tend(world: World) -> None:
    """End what waits in vain: its time is over, something pinned changed, or a newer release takes its place."""
    for approval in world.store.approvals.pending():
        end_if_over(world, approval)


def end_if_over(world: World, approval: Approval) -> bool:
    """End a request for approval that is over; whether it is."""
    store = world.store
    place = (approval.project, approval.environment)
    if store.runs.status(approval.run) in ENDED_RUN:
        with store.transaction(durable=True):
            drop(world, approval.run, f"run {approval.run} has ended")
        return True
    if _is_outrun(store, *place, approval.request):
        _settle(world, approval, "void", NEWER)
        return True
    now = replace(approval.pinned, over=store.releases.newest_number(*place, approval.request))
    event = ending(approval.status, approval.terms, approval.pinned, now, world.clock.now())
    if event is not None:
        _settle(world, approval, event, approval.pinned.changed(now))
    return event is not None


def _is_outrun(store: Store, project: str, environment: str, request: int) -> bool:
    """Whether a newer command than this one has released to an environment, or waits to."""
    place = (project, environment)
    newest = store.releases.newest_generation(*place), store.approvals.newest_request(*place)
    return max(store.releases.generation(*place), *newest) > request


def _settle(world: World, approval: Approval, event: str, reason: str | None, request: Request | None = None) -> None:
    """A request for approval ends without one: its target is refused, and so is its run once nothing of it waits.

    `request` is the one by which a person refused it.
    """
    store = world.store
    with store.transaction(durable=True):
        by, decision = (None, None) if request is None else (request.actor, request.id)
        ended = store.approvals.move(approval.id, event, reason=reason, by=by, decision=decision)
        sentence = NEWER if reason == NEWER else ended.sentence
        targets = store.runs.targets(approval.run)
        own = next(t for t in targets if t.environment == approval.environment)
        store.runs.set_target(replace(own, status="unapproved", reason=sentence))
        if store.runs.status(approval.run) is RunStatus.WAITING:
            _close(store, approval.run, f"{approval.environment}: {sentence}")


def _close(store: Store, run: int, reason: str) -> None:
    """End a run that waits, unless something of it still does."""
    targets = store.runs.targets(run)
    if any(t.status == "waiting" for t in targets):
        store.runs.note(run, waiting_words(targets))
        return
    pipeline = store.runs.get(run).pipeline
    released = {t.environment for t in targets if t.status == "released"}
    for target in targets:
        if target.status == "queued":
            needs = pipeline["environments"][target.environment]["needs"]
            lacking = next(name for name in needs if name not in released)
            why = f"needs {lacking}, which was not released to"
            store.runs.set_target(replace(target, status="skipped", reason=why))
    newer = any(t.status == "unapproved" and "newer release" in (t.reason or "") for t in targets)
    store.runs.move(run, "supersede" if newer else "fail", reason=reason)


def waiting_words(targets: Iterable[Target]) -> str:
    """What a run waits for, in words."""
    return "; ".join(f"{t.environment} {t.reason}" for t in targets if t.status == "waiting")


# --- what persons say ----------------------------------------------------------------------------------------------


def decide(world: World, request: Request) -> Run:
    """Approve or refuse by a person's word, durably; what was approved may go on. Returns the run as it was before.

    Doing so twice for the same request does it once. Raises NotFoundError or StateError with what stands against it.
    """
    store, wanted = world.store, request.payload
    run = store.runs.get(int(wanted["run"]))
    approval = store.approvals.newest(run.id, wanted["environment"])
    if approval is not None and approval.decision == request.id:
        return run
    approval = _open(world, run, str(wanted["environment"]), approval)
    by_another = approval.terms.by_another and not wanted.get("reject")  # whoever asked may take it back
    why = why_not_approve(replace(approval.terms, by_another=by_another), request.actor, None)
    if why is not None:
        raise StateError(why)
    if wanted.get("reject"):
        _settle(world, approval, "refuse", wanted.get("reason"), request)
        return run
    frozen = store.releases.frozen(run.project, approval.environment)
    if frozen is not None:
        raise StateError(f"{frozen.sentence(approval.environment)}: penstock unfreeze {approval.environment} first")
    _approve(store, run, approval, request)
    return run


def _open(world: World, run: Run, environment: str, approval: Approval | None) -> Approval:
    """What waits for a person's word. Raises StateError where nothing does, NotFoundError for an unknown place."""
    known = [t.environment for t in world.store.runs.targets(run.id)]
    if environment not in known:
        has = ", ".join(known) or "none"
        raise NotFoundError(f'run {run.id} releases to no environment "{environment}"; it has {has}')
    if approval is None:
        raise StateError(
            f"run {run.id} asks for no approval for {environment}: penstock show {run.id} says where it stands"
        )
    if approval.status is ApprovalStatus.PENDING and end_if_over(world, approval):
        approval = world.store.approvals.get(approval.id)
    what = f"run {run.id} for {environment}"
    match approval.status:
        case ApprovalStatus.PENDING:
            return approval
        case ApprovalStatus.APPROVED | ApprovalStatus.USED:
            goes_on = run.status in {RunStatus.QUEUED, RunStatus.RUNNING}
            way = f"resume {run.id} goes on with it" if goes_on else f"show {run.id} says where it stands"
            raise StateError(f"{what} was {approval.sentence}; penstock {way}")
        case ApprovalStatus.REFUSED:
            raise StateError(f"{what} was {approval.sentence}; penstock run asks again")
        case ApprovalStatus.EXPIRED:
            raise StateError(f"the time to approve {what} ended on {approval.until}: penstock run asks again")
        case ApprovalStatus.VOID:
            raise StateError(f"{what} cannot be approved any more, because {approval.reason}: penstock run asks again")


def _approve(store: Store, run: Run, approval: Approval, request: Request) -> None:
    """The word, and the run that goes on by it, in one transaction on the disk."""
    reason = request.payload.get("reason")
    with store.transaction(durable=True):
        store.approvals.move(approval.id, "approve", reason=reason, by=request.actor, decision=request.id)
        for target in store.runs.targets(run.id):
            if target.environment == approval.environment:
                store.runs.set_target(replace(target, status="queued", reason=None))
        if run.status is RunStatus.WAITING:
            store.runs.move(run.id, "continue")
            store.requests.reopen(run.request)
        if not is_alive(run.owner) or run.status is RunStatus.WAITING:
            store.runs.own(run.id, request.follower)
