"""Envoy's admin address: a unix socket in the router's folder that only its owner can open."""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from penstock.errors import EngineError
from penstock.routers.counts import Counts

if TYPE_CHECKING:
    import httpx

SOCKET = "admin.sock"

_LONGEST_SOCKET_PATH = 107
_POLL_SECONDS = 0.005


class Admin:
    """Questions to one Envoy. Each may be asked while Envoy is just being restarted: then it waits for the answer."""

    def __init__(self, client: "httpx.AsyncClient", patience: float) -> None:
        self._client = client
        self._patience = patience

    async def ready(self) -> None:
        """Return when Envoy has initialised and listens. Raises EngineError after `patience` seconds without."""
        await self._ask("/ready")

    async def stats(self, pattern: str) -> dict[str, str]:
        """All statistics whose name matches the regular expression, as text. Raises EngineError as `ready`."""
        answer = await self._ask(f"/stats?format=json&filter={quote(pattern, safe='')}")
        return {stat["name"]: str(stat["value"]) for stat in answer.json()["stats"] if "name" in stat}

    async def counts(self, pattern: str) -> Counts:
        """All counters, and the buckets of all histograms, whose name matches. Raises EngineError as `ready`."""
        answer = await self._ask(f"/stats?format=json&histogram_buckets=disjoint&filter={quote(pattern, safe='')}")
        stats = answer.json()["stats"]
        return Counts(
            {stat["name"]: int(stat["value"]) for stat in stats if "name" in stat},
            {
                histogram["name"]: [(float(b["upper_bound"]), int(b["cumulative"])) for b in histogram["buckets"]]
                for stat in stats
                for histogram in stat.get("histograms", ())
            },
        )

    async def tap(self, question: str, seconds: float) -> str:
        """What passes while `question` waits, for about so many seconds at most. Raises EngineError where it cannot."""
        import httpx  # noqa: PLC0415 - start-up time is a promise

        try:
            answer = await self._client.post("/tap", content=question, timeout=seconds + self._patience)
        except httpx.TransportError as error:
            raise EngineError(f"the router (Envoy) cannot be listened to: {error or type(error).__name__}") from error
        if answer.status_code != httpx.codes.OK:
            raise EngineError(f"the router (Envoy) cannot be listened to: {answer.text.strip()}")
        return answer.text

    async def _ask(self, path: str) -> "httpx.Response":
        import httpx  # noqa: PLC0415 - start-up time is a promise

        until = asyncio.get_running_loop().time() + self._patience
        why = ""
        while asyncio.get_running_loop().time() < until:
            try:
                answer = await self._client.get(path)
            except httpx.TransportError as error:
                why = str(error) or type(error).__name__
            else:
                if answer.status_code == httpx.codes.OK:
                    return answer
                why = answer.text.strip()
            await asyncio.sleep(_POLL_SECONDS)
        raise EngineError(f"the router (Envoy) did not answer within {self._patience:g} s: {why}")


@asynccontextmanager
async def connected(folder: Path, patience: float) -> AsyncIterator[Admin]:
    """Envoy's admin address in `folder`; every question may take `patience` seconds."""
    import httpx  # noqa: PLC0415 - start-up time is a promise

    with _address(folder) as path:
        # A bare TLS context: the default one reads all certificates of the machine for a connection without TLS.
        bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        transport = httpx.AsyncHTTPTransport(uds=path, verify=bare)
        async with httpx.AsyncClient(transport=transport, base_url="http://envoy", timeout=patience) as client:
            yield Admin(client, patience)


def answering(folder: Path) -> bool:
    """Whether somebody takes connections at the admin address in `folder`; asks nothing."""
    try:
        with _address(folder) as path, socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(0)
            probe.connect(path)
    except OSError:
        return False
    return True


@contextmanager
def _address(folder: Path) -> Iterator[str]:
    """A path of the socket that is short enough for the kernel."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        path = str(folder / SOCKET)
        yield f"/proc/self/fd/{opened}/{SOCKET}" if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH else path
    finally:
        os.close(opened)
