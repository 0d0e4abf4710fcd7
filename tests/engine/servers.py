"""Small servers in the test's own event loop: they answer as a function says, and remember what they were asked."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

Say = Callable[[str, int], tuple[int, Any] | None]
"""The status and the JSON for a path that is asked for the n-th time, from 1; None ends the connection instead."""


@dataclass
class Small:
    """A server; `asked` are the heads of all requests so far, `mute` has it take requests and never answer."""

    say: Say = lambda path, _: (200, {"path": path})
    mute: bool = False
    port: int = 0
    asked: list[str] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Self]:
        """Listen, always at the same port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    @property
    def paths(self) -> list[str]:
        return [head.split(" ", 2)[1] for head in self.asked]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
                self.came.set()
                path = self.paths[-1]
                said = self.say(path, self.paths.count(path))
                if said is None:
                    return
                if not self.mute:
                    body = json.dumps(said[1]).encode()
                    writer.write(b"HTTP/1.1 %d Said\r\nContent-Length: %d\r\n\r\n" % (said[0], len(body)) + body)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
