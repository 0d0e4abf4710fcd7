"""Calls where nobody calls: recorded requests of a package that go to a port again and again, marked as ours."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from engine.builders import House, until
from engine.servers import Small
from penstock.engine.calling import PACE, call
from penstock.engine.installing import package_folder
from penstock.engine.replicas import Replicas
from penstock.engine.rolling import Rolling
from penstock.engine.routing import Routing
from penstock.environments import RolloutRules
from penstock.errors import ReportError
from penstock.recordings import SYNTHETIC
from penstock.rollouts import Terms
from penstock.store.contract import Release

LINES = '{"path": "/1", "headers": {"X-Penstock-Synthetic": "no", "X-Own": "yes"}}\n{"path": "/2", "json": 1}\n'


def released(house: House, text: str = LINES, **spec: Any) -> Release:
    """A release whose package holds recorded requests."""
    wanted = house.wanted("0.1", **spec)
    values = {name: getattr(wanted, name) for name in type(wanted).__slots__ if name != "force"}
    with house.store.transaction():
        release = house.store.releases.add(values)
    folder = package_folder(house.world, release)
    folder.mkdir(parents=True)
    (folder / "asked.jsonl").write_text(text)
    return release


def certificate(folder: Path) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate for another name that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "shop.example")])
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(1).not_valid_before(datetime(2000, 1, 1, tzinfo=UTC))
    signed = built.not_valid_after(datetime(2100, 1, 1, tzinfo=UTC)).sign(key, hashes.SHA256())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "own.pem").write_bytes(private + signed.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "own.pem")
    return context


async def calling(
    house: House, release: Release, port: int, meanwhile: Callable[[], Awaitable[None]], *, tls: bool = False
) -> None:
    """Call a port while something goes on, and then stop."""
    task = asyncio.create_task(call(house.world, release, port, "asked.jsonl", tls=tls))
    try:
        await meanwhile()
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def test_the_requests_are_asked_again_and_again(house: House) -> None:
    """In the file's order, over and over, each marked once as synthetic beside its own headers."""
    release = released(house)

    async def story() -> None:
        async with Small().serving() as server:
            await calling(house, release, server.port, lambda: until(lambda: len(server.asked) >= 5))
            assert server.paths[:5] == ["/1", "/2", "/1", "/2", "/1"]
            assert all(head.lower().count(SYNTHETIC) == 1 and f"{SYNTHETIC}: 1\r\n" in head for head in server.asked)
            assert "X-Own: yes\r\n" in server.asked[0]

    house.play(story())


def test_the_pace_is_bounded(house: House) -> None:
    """However quick the answers are, no more than 200 requests a second are asked."""
    release = released(house)

    async def story() -> None:
        async with Small().serving() as server:
            loop = asyncio.get_running_loop()
            began = loop.time()
            await calling(house, release, server.port, lambda: until(lambda: len(server.asked) >= 21))
            assert loop.time() - began >= 20 * PACE - 0.01

    house.play(story())


def test_what_fails_does_not_end_it(house: House) -> None:
    """Errors, broken connections and a port where nothing listens for a while are for the router to count."""
    release = released(house)
    server = Small(lambda path, n: None if path == "/2" else (500, n))

    async def meanwhile() -> None:
        async with server.serving():
            await until(lambda: len(server.asked) >= 4)
        before = len(server.asked) + 1  # one may be on its way
        async with server.serving():
            await until(lambda: len(server.asked) > before)

    async def story() -> None:
        async with server.serving():
            pass
        await calling(house, release, server.port, meanwhile)

    house.play(story())


def test_an_environment_with_certificates_is_called_over_tls(house: House, tmp_path: Path) -> None:
    """Whatever name the certificate is for, the requests arrive."""
    server = Small()

    async def story() -> None:
        async with server.serving(certificate(tmp_path)):
            release = released(house)
            await calling(house, release, server.port, lambda: until(lambda: len(server.asked) >= 3), tls=True)
        assert server.paths[:3] == ["/1", "/2", "/1"]

    house.play(story())


def test_the_file_of_the_probe_is_meant(house: House) -> None:
    """Without a file of its own that of the release's probe is asked; one without requests is refused."""

    async def story() -> None:
        release = released(house, "\n", probe={"requests": "asked.jsonl"})
        with pytest.raises(ReportError, match=r"asked\.jsonl: the file holds no request"):
            await call(house.world, release, 1, tls=False)

    house.play(story())


@pytest.mark.parametrize("brings", [True, False])
def test_the_port_speaks_what_the_stable_release_has(house: House, tmp_path: Path, brings: bool) -> None:
    """A canary that brings certificates, or drops them, is called as the release that serves is."""
    server, own = Small(), {"certificate": "own.crt", "key": "own.key"}
    certificates = (None, own) if brings else (own, None)

    async def story() -> None:
        async with server.serving(None if brings else certificate(tmp_path)):
            stable = released(house, port=server.port, tls=certificates[0])
            canary = released(
                house,
                port=server.port,
                tls=certificates[1],
                probe={"requests": "asked.jsonl"},
                rollout=RolloutRules.model_validate({"canary": ["5%"], "traffic": "probe"}).model_dump(),
            )
            house.store.releases.move(stable.id, "promote")
            routing = Routing(house.world)
            rolling = Rolling(house.world, routing, Replicas(house.world, routing))
            rolling.begin(canary, stable, Terms("canary", (500,)))
            move = await rolling.judge(canary, lambda: "enough" if len(server.asked) >= 3 else None)
        assert (move.reason, server.paths[:3]) == ("enough", ["/1", "/2", "/1"])

    house.play(story())
