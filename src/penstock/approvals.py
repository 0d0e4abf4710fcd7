"""An approval as rules: what it pins, who may give it, whether it still holds, and its transition table.

A person approves one package, with one set of settings, for one environment, over what was released there then. If
any of that is another by the time of the release, the approval is void: nobody has said yes to what would be released.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from penstock.errors import TransitionError


class ApprovalStatus(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    REFUSED = "refused"
    EXPIRED = "expired"
    VOID = "void"
    USED = "used"


APPROVAL_TRANSITIONS: Mapping[tuple[ApprovalStatus, str], ApprovalStatus] = {
    (ApprovalStatus.PENDING, "approve"): ApprovalStatus.APPROVED,
    (ApprovalStatus.PENDING, "refuse"): ApprovalStatus.REFUSED,
    (ApprovalStatus.PENDING, "expire"): ApprovalStatus.EXPIRED,
    (ApprovalStatus.PENDING, "void"): ApprovalStatus.VOID,
    (ApprovalStatus.APPROVED, "void"): ApprovalStatus.VOID,
    (ApprovalStatus.APPROVED, "use"): ApprovalStatus.USED,
}


def after_approval(status: ApprovalStatus, event: str) -> ApprovalStatus:
    """The status that follows; raises TransitionError for an event that the table does not allow."""
    try:
        return APPROVAL_TRANSITIONS[status, event]
    except KeyError:
        raise TransitionError(f"an approval that is {status} cannot {event}") from None


OWN = "person"
"""What a release's settings hold of whoever asked for it, their PATH and language: that is no setting."""


def settings_digest(spec: Mapping[str, Any]) -> str:
    """SHA-256 of a release's settings (plain JSON), the same for any order of their keys."""
    wanted = {key: value for key, value in spec.items() if key != OWN}
    plain = json.dumps(wanted, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return "sha256:" + hashlib.sha256(plain.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Pinned:
    """What is approved: package and settings by digest; `over` is the environment's newest release then, if any."""

    environment: str
    package: str
    version: str
    settings: str
    over: int | None

    def changed(self, now: "Pinned") -> str | None:
        """Why what would be released now is not what was pinned, as words after "because", or None if it is."""
        if self.environment != now.environment:
            return f"it is for {self.environment} and not for {now.environment}"
        if (self.package, self.version) != (now.package, now.version):
            return f"the package is another than that of {self.version}"
        if self.settings != now.settings:
            return f"the settings of {self.environment} are others"
        if self.over != now.over:
            return f"another release went to {self.environment} meanwhile"
        return None


@dataclass(frozen=True, slots=True)
class Terms:
    """Who may approve: any of `roles` (none named: anybody), until `expires` (seconds since the epoch)."""

    roles: tuple[str, ...]
    expires: float
    requester: str
    by_another: bool = False

    @property
    def whom(self) -> str:
        """Whose approval it takes, in words."""
        other = f", other than {self.requester}" if self.by_another else ""
        return f"{' or '.join(self.roles) or 'anybody'}{other}"


def has_role(held: Collection[str] | None, roles: Collection[str]) -> bool:
    """Whether a person with the roles `held` may approve; None is all roles, as the owner of a machine has them."""
    return held is None or not roles or not set(held).isdisjoint(roles)


def why_not_approve(terms: Terms, actor: str, held: Collection[str] | None) -> str | None:
    """Why a person may not decide on a request, as a sentence, or None where they may."""
    if not has_role(held, terms.roles):
        return f"{actor} may not approve this: it needs the role {' or '.join(terms.roles)}"
    if terms.by_another and actor == terms.requester:
        return f"{actor} asked for this release, and somebody else must approve it"
    return None


def ending(status: ApprovalStatus, terms: Terms, pinned: Pinned, now: Pinned, at: float) -> str | None:
    """The event that time or a change asks for (`void` or `expire`), or None while the approval holds.

    A change counts until the release begins. Time counts only until somebody has decided: one that was approved in
    time is not lost if the machine was off before the release could begin.
    """
    if status not in {ApprovalStatus.PENDING, ApprovalStatus.APPROVED}:
        return None
    if pinned.changed(now) is not None:
        return "void"
    return "expire" if status is ApprovalStatus.PENDING and at >= terms.expires else None
