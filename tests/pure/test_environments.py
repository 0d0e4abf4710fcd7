"""What the file may say of an environment's users, certificates and approvals."""

from typing import Any

import pytest
from pydantic import ValidationError

from penstock.environments import ApprovalRules, Environment

FILES = {"certificate": "/etc/ssl/own.pem", "key": "/etc/ssl/own.key"}


def environment(**keys: Any) -> Environment:
    return Environment.model_validate({"name": "production", "port": 8800, **keys})


@pytest.mark.parametrize("given", [{"header": "X-User"}, {"cookie": "penstock-user"}])
def test_users_are_known_by_a_header_or_a_cookie(given: dict[str, str]) -> None:
    """Either is taken as written, and survives the round trip of a stored pipeline."""
    kept = environment(sticky=given)
    assert Environment.model_validate(kept.model_dump(by_alias=True)) == kept
    assert kept.sticky is not None
    assert kept.sticky.model_dump(exclude_none=True) == given


def test_a_certificate_is_two_files_of_the_machine() -> None:
    """Both paths are absolute, and survive the round trip of a stored pipeline; by default there is neither."""
    kept = environment(tls=FILES)
    assert Environment.model_validate(kept.model_dump(by_alias=True)) == kept
    assert kept.tls is not None
    assert kept.tls.model_dump() == FILES
    assert (environment().sticky, environment().tls) == (None, None)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"sticky": {}}, "expected either header: NAME or cookie: NAME"),
        ({"sticky": {"header": "a", "cookie": "b"}}, "expected either header: NAME or cookie: NAME"),
        ({"sticky": {"cookie": "a=b"}}, 'expected a name of letters, digits, -, _ and ., found "a=b"'),
        ({"sticky": {"header": "x-%PROTOCOL%"}}, "expected a name of letters"),
        ({"tls": {**FILES, "key": "own.key"}}, 'expected an absolute path of this machine .*, found "own.key"'),
        ({"tls": {**FILES, "key": "/etc/ssl/"}}, "expected an absolute path"),
        ({"tls": {"certificate": "/a"}}, "Field required"),
    ],
)
def test_what_reaches_nobody_is_refused(keys: dict[str, Any], sentence: str) -> None:
    """Each wrong way of saying it has a sentence of its own."""
    with pytest.raises(ValidationError, match=sentence):
        environment(**keys)


@pytest.mark.parametrize(
    ("given", "rules"),
    [
        (True, ApprovalRules()),
        ({}, ApprovalRules(roles=("deployer",), expires=86_400.0, by_another=False)),
        ({"roles": "admin", "expires": "90m"}, ApprovalRules(roles=("admin",), expires=5400.0)),
        (
            {"roles": ["developer", "deployer"], "by_another": True},
            ApprovalRules(roles=("developer", "deployer"), by_another=True),
        ),
    ],
)
def test_who_must_approve(given: Any, rules: ApprovalRules) -> None:
    """`true` is all defaults, as an empty mapping is; all survive the round trip of a stored pipeline."""
    kept = environment(approval=given)
    assert kept.approval == rules
    stored = kept.model_dump(mode="json", exclude_defaults=True)
    assert Environment.model_validate({**stored, "name": "production"}) == kept


def test_with_a_command_of_ones_own_too() -> None:
    """What is deployed elsewhere can need approval as what is served here can."""
    deploy = {"run": "sh deploy.sh", "health": "https://example.org/health"}
    assert environment(port=None, deploy=deploy, approval=True).approval == ApprovalRules()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"roles": []}, "at least 1"),
        ({"roles": ["root"]}, "'developer', 'deployer' or 'admin'"),
        ({"expires": "0s"}, "expected a duration"),
        ("deployer", "should be a valid dictionary"),
        (False, "should be a valid dictionary"),
    ],
)
def test_what_nobody_could_approve_is_refused(given: Any, sentence: str) -> None:
    """No role, a role that does not exist, no time."""
    with pytest.raises(ValidationError, match=sentence):
        environment(approval=given)
