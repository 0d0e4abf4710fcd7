"""How callers come in: HTTPS with a certificate of the machine, and users who are known again."""

import ssl
from http.client import HTTPSConnection
from pathlib import Path

from acceptance.tiny import Tiny, sentence
from penstock.engine.contracts import Tls
from routers.pairs import issue


def ask(port: int, tls: Tls, cookie: str = "") -> tuple[str, str | None]:
    """The release that answers a caller who trusts this certificate, and the cookie that it is given."""
    trust = ssl.create_default_context(cafile=tls.certificate)
    trust.check_hostname = False
    connection = HTTPSConnection("127.0.0.1", port, timeout=20, context=trust)
    try:
        connection.request("GET", "/", headers={"cookie": cookie} if cookie else {})
        answer = connection.getresponse()
        answer.read()
        return str(answer.getheader("x-penstock-release")), answer.getheader("set-cookie")
    finally:
        connection.close()


def test_an_environment_has_a_certificate_and_knows_its_users(tiny: Tiny, tmp_path: Path) -> None:
    """What the file says is what callers meet; a pair that does not fit stops a release and nothing else."""
    port, tls = tiny.ports["staging"], issue(tmp_path / "own")
    door = f"sticky: {{cookie: who}}, tls: {{certificate: {tls.certificate}, key: {tls.key}}}"
    tiny.edit("penstock.yaml", f"staging: {{port: {port}}}", f"staging: {{port: {port}, {door}}}")
    tiny.commit()
    version = tiny.run("--to", "staging")["version"]
    release, cookie = ask(port, tls)
    assert release == version
    assert cookie is not None
    assert cookie.startswith("who=")
    assert cookie.endswith("; Secure")
    assert ask(port, tls, cookie.partition(";")[0]) == (version, None)
    assert f"https://127.0.0.1:{port}" in tiny("status").all

    before = Path(tls.key).read_bytes()
    Path(tls.key).write_bytes(Path(issue(tmp_path / "other").key).read_bytes())
    tiny.commit(accuracy=0.95)
    said = tiny("run", "--to", "staging", code=1)
    assert f"the key {tls.key} does not belong to the certificate" in sentence(said.out, "stopped at staging")
    assert ask(port, tls)[0] == version
    Path(tls.key).write_bytes(before)
    assert ask(port, tls)[0] == version
    newer = tiny.run("--to", "staging")["version"]
    assert ask(port, tls)[0] == newer != version
