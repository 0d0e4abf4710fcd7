"""TLS with certificates that a person gives, before a real Envoy."""

import asyncio
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption

from penstock.engine.contracts import Backend, Route, Tls
from penstock.errors import EngineError
from penstock.routers.envoy import EnvoyRouter
from routers.pairs import issue
from routers.toys import Client, Toy, ask, envoys, free_port, listens, until

pytestmark = pytest.mark.anyio


def remove(tls: Tls) -> None:
    Path(tls.certificate).unlink()
    Path(tls.key).unlink()


def spoil(tls: Tls, folder: Path, how: str) -> None:
    """Renew the certificate in a way that is not to be served with."""
    if how == "gone":
        remove(tls)
    elif how == "weak":
        issue(folder, weak=True)
    else:
        Path(tls.key).write_bytes(Path(issue(folder / "strange").key).read_bytes())


def trusting(tls: Tls, *protocols: str) -> ssl.SSLContext:
    """A caller that trusts this very certificate as it is now."""
    context = ssl.create_default_context(cafile=tls.certificate)
    context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def secured(port: int, toy: Toy, tls: Tls | None) -> list[Route]:
    return [Route("production", port, (Backend(toy.name, "1", (toy.port,), "/health", 10_000),), tls=tls)]


async def shown(port: int, *protocols: str) -> tuple[bytes | None, str | None]:
    """The certificate and the protocol that a new connection gets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(list(protocols))
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    session: ssl.SSLObject = writer.get_extra_info("ssl_object")
    writer.close()
    return session.getpeercert(binary_form=True), session.selected_alpn_protocol()


async def test_an_environment_answers_over_tls(router: EnvoyRouter, tmp_path: Path, toy: Toy) -> None:
    """Callers who trust the certificate are answered; plain HTTP is not; both protocols are offered, HTTP/1.1 first."""
    port, tls = free_port(), issue(tmp_path)
    await router.apply(secured(port, toy, tls))
    client = Client(port, trusting(tls))
    assert (await client.ask()).status == 200
    await client.close()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await ask(port)
    assert (await shown(port, "h2", "http/1.1"))[1] == "http/1.1"
    assert (await shown(port, "h2"))[1] == "h2"
    assert [path.stat().st_mode & 0o077 for path in (tmp_path / "router").glob("tls-*")] == [0, 0, 0]


async def test_a_renewed_certificate_is_taken_up_and_no_connection_notices(
    router: EnvoyRouter, tmp_path: Path, toy: Toy
) -> None:
    """After the next `apply` new connections get the new one; a connection with an open stream stays."""
    port, tls = free_port(), issue(tmp_path)
    await router.apply(secured(port, toy, tls))
    client = Client(port, trusting(tls))
    await client.ask("/stream")
    reader, _ = client.streams
    assert b"first" in await reader.readuntil(b"\n\n\r\n")
    old, _ = await shown(port)
    await router.apply(secured(port, toy, issue(tmp_path)))
    assert (await shown(port))[0] not in {None, old}
    toy.slow.set()
    assert b"second" in await reader.readuntil(b"0\r\n\r\n")
    await client.close()
    assert len(list((tmp_path / "router").glob("tls-*"))) == 3


async def test_what_is_no_certificate_is_told_and_changes_nothing(
    router: EnvoyRouter, tmp_path: Path, toy: Toy
) -> None:
    """Each way in which files can be wrong has one sentence, and the certificate before serves on."""
    port, tls = free_port(), issue(tmp_path)
    await router.apply(secured(port, toy, tls))
    before, _ = await shown(port)
    strange, locked, weak = (tmp_path / name for name in ("strange", "locked", "weak"))
    for wrong, sentence in (
        (Tls(tls.certificate, str(tmp_path / "none")), "the key .*none cannot be read: No such file"),
        (Tls(tls.key, tls.key), "the certificate .*own.key is no certificate in PEM format"),
        (Tls(tls.certificate, tls.certificate), "the key .*own.crt is no private key in PEM format"),
        (Tls(tls.certificate, issue(strange).key), "the key .* does not belong to the certificate"),
        (issue(locked, lock=BestAvailableEncryption(b"word")), "the key .* has a passphrase"),
        (issue(weak, weak=True), "the router refuses its new state: .*RSA certificates with 2048-bit"),
    ):
        with pytest.raises(EngineError, match=sentence) as told:
            await router.apply(secured(port, toy, wrong))
        assert "\n" not in str(told.value)
        assert (await shown(port))[0] == before
    assert b"PRIVATE" not in (tmp_path / "router" / "envoy.log").read_bytes()
    await router.apply(secured(port, toy, issue(tmp_path)))
    assert (await shown(port))[0] != before


@pytest.mark.parametrize("broken", ["gone", "weak", "strange"])
async def test_a_renewal_that_fails_holds_up_nobody(
    router: EnvoyRouter, tmp_path: Path, toy: Toy, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What was renewed and is not to be served with is told; all other changes come into force beside it."""
    port, other, tls = free_port(), free_port(), issue(tmp_path)
    await router.apply(secured(port, toy, tls))
    before, _ = await shown(port)
    spoil(tls, tmp_path, broken)
    plain = Route("other", other, (Backend("other", "1", (toy.port,), "/health", 10_000),))
    await router.apply([*secured(port, toy, tls), plain])
    assert (await shown(port))[0] == before
    assert (await ask(other)).status == 200
    assert "keeps the certificate" in caplog.text
    issue(tmp_path)
    await router.apply(secured(port, toy, tls))
    assert (await shown(port))[0] not in {None, before}


async def test_tls_can_begin_and_end(router: EnvoyRouter, tmp_path: Path, toy: Toy) -> None:
    """An environment may get a certificate later and lose it again; copies of what is not used are not kept."""
    port, tls = free_port(), issue(tmp_path)
    for _ in range(2):
        await router.apply(secured(port, toy, None))
        assert (await ask(port)).status == 200
        assert not list((tmp_path / "router").glob("tls-*"))
        await router.apply(secured(port, toy, tls))
        assert (await shown(port))[0] is not None
    await router.stop()
    assert not list((tmp_path / "router").glob("*.key"))


async def test_a_killed_envoy_serves_with_what_it_had(router: EnvoyRouter, tmp_path: Path, toy: Toy) -> None:
    """The copies are enough: after a kill -9 the same certificate is shown, though its files are gone."""
    port, tls = free_port(), issue(tmp_path)
    await router.apply(secured(port, toy, tls))
    before, _ = await shown(port)
    remove(tls)
    epoch = (await router.counted([])).epoch
    (envoy,) = envoys(tmp_path / "router")
    envoy.kill()
    await until(lambda: _is_another(router, epoch))
    await until(lambda: listens(port))
    assert (await shown(port))[0] == before


async def _is_another(router: EnvoyRouter, epoch: str) -> bool:
    return (await router.counted([])).epoch != epoch
