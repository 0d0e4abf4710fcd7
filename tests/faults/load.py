"""Clients that never try a request twice, in a thread with an event loop of their own."""

import asyncio
import threading
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from routers.toys import Client


@dataclass
class Load:
    """Callers of one port until the end of the `with`: half keep their connection, half make a new one each time."""

    port: int
    callers: int = 6
    answers: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._call_all()))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        assert self._thread is not None
        self._thread.join()

    async def _call_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self.callers):
                group.create_task(self._call(keep=number % 2 == 0))

    async def _call(self, *, keep: bool) -> None:
        client = Client(self.port)
        while not self._over.is_set():
            try:
                async with asyncio.timeout(30):
                    reply = await client.ask()
                if reply.status != 200 or reply.release is None:
                    self.failed.append(f"{reply.status} {reply.body!r}")
                self.answers[str(reply.release)] += 1
                if not keep:
                    await client.close()
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                self.failed.append(repr(error))
                client = Client(self.port)
            await asyncio.sleep(0.01)  # callers, servers and Penstock share the machine's processors
        await client.close()
