"""Routes from what releases keep of the file."""

from penstock.engine.contracts import Sticky, Tls
from penstock.engine.routing import sticky_of, tls_of


def test_a_route_knows_users_and_certificates_as_its_release_does() -> None:
    """What the spec of a release says reaches the router; old releases, that say nothing, are reached as before."""
    assert sticky_of({"sticky": {"header": "x-user"}}) == Sticky("header", "x-user")
    assert sticky_of({"sticky": {"cookie": "who"}}) == Sticky("cookie", "who")
    assert tls_of({"tls": {"certificate": "/a.pem", "key": "/b.pem"}}) == Tls("/a.pem", "/b.pem")
    assert (sticky_of({}), tls_of({})) == (None, None)
