"""Asking for a metric over HTTP, of servers that behave and of those that do not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from penstock.canaries import Told
from penstock.engine import querying
from penstock.engine.querying import Questions, asked
from penstock.environments import MetricQuestion

Behaviour = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(behaviour: Behaviour) -> AsyncIterator[str]:
    """A server that does something with each request's head; its address."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await behaviour(await reader.readuntil(b"\r\n\r\n"), writer)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def replying(body: bytes, status: str = "200 OK", *more: str) -> Behaviour:
    async def reply(_: bytes, writer: asyncio.StreamWriter) -> None:
        head = "\r\n".join([f"HTTP/1.1 {status}", f"content-length: {len(body)}", *more, "", ""])
        writer.write(head.encode() + body)

    return reply


def ask(behaviour: Behaviour, **fields: Any) -> tuple[str, str]:
    """The word and the reason of one question to such a server."""

    async def story() -> tuple[str, str]:
        async with serving(behaviour) as url:
            values = {"at_most": 1, **({"url": f"{url}/m", "value": "rate"} if not fields else {})}
            values |= {"prometheus": url, **fields} if fields else {}
            answer = await asked(MetricQuestion.model_validate(values), {"version": "1.2"}, "sesame")
            return answer.word, answer.reason

    return asyncio.run(story())


def test_a_number_is_judged() -> None:
    """A number within the limit passes, beyond it fails."""
    assert ask(replying(b'{"rate": 0.5}')) == ("pass", "0.5")
    assert ask(replying(b'{"rate": 2}')) == ("fail", "2, where at most 1 was allowed")


def test_prometheus_is_asked_its_query() -> None:
    """The query goes to the API with its places filled in, and the secret in the header alone."""
    heads: list[bytes] = []

    async def note(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        body = b'{"status": "success", "data": {"resultType": "scalar", "result": [1, "0.25"]}}'
        await replying(body)(head, writer)

    assert ask(note, query='up{v="${{ version }}"}') == ("pass", "0.25")
    assert heads[0].startswith(b"GET /api/v1/query?query=up%7Bv%3D%221.2%22%7D HTTP/1.1")
    assert b"authorization: Bearer sesame" in heads[0].replace(b"Authorization", b"authorization")


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (replying(b"<html>"), "the answer is no JSON"),
        (replying(b"[" * 100_000), "the answer is no JSON"),
        (replying(b"{}"), "the answer has nothing at rate"),
        (replying(b'{"rate": NaN}'), "the number at rate is not finite"),
        (replying(b"oops", "500 Internal Server Error"), "answered with status 500"),
        (replying(b"", "302 Found", "location: http://127.0.0.1:1/"), "answered with status 302"),
        (replying(b'{"rate": "' + b"9" * (2 << 20) + b'"}'), "the answer is longer than 1 MiB"),
    ],
)
def test_what_cannot_be_read_is_errored(behaviour: Behaviour, reason: str) -> None:
    """Never a pass, and the secret stands in no sentence."""
    assert ask(behaviour) == ("errored", reason)


def test_an_echoed_secret_stands_in_no_reason() -> None:
    """A server that repeats what it was sent does not bring the secret into what is kept."""
    assert ask(replying(b'{"rate": "Bearer sesame"}')) == ("errored", "what stands at rate is no number: Bearer ***")


def test_a_secret_without_a_value_is_not_left_out() -> None:
    """Where the token is not there nothing is asked: an answer for strangers is no answer."""

    async def story() -> None:
        values = {"url": "http://127.0.0.1:9/x", "value": "rate", "at_most": 1, "authorization": "TOKEN"}
        questions = Questions({"sales": MetricQuestion.model_validate(values)}, {}, dict)
        questions.begin()
        async with asyncio.timeout(10):
            while not questions.told():
                await asyncio.sleep(0)
        assert questions.told() == {"sales": Told("errored", "the secret TOKEN has no value")}
        await questions.end()

    asyncio.run(story())


def test_an_answer_of_another_width_does_not_count() -> None:
    """What was asked before the next width began is not heard at it, however late it comes."""
    asked_, free = asyncio.Event(), asyncio.Event()

    async def late(head: bytes, writer: asyncio.StreamWriter) -> None:
        asked_.set()
        await free.wait()
        await replying(b'{"rate": 0}')(head, writer)

    async def story() -> None:
        async with serving(late) as url:
            values = {"url": url, "value": "rate", "at_most": 1}
            questions = Questions({"sales": MetricQuestion.model_validate(values)}, {}, dict)
            questions.begin()
            await asked_.wait()
            first = questions._answers
            questions.begin()
            free.set()
            async with asyncio.timeout(10):
                while not questions.told():
                    await asyncio.sleep(0.01)
            assert first == {}
            await questions.end()

    asyncio.run(story())


def test_nobody_answers() -> None:
    """A refused connection, and a server that closes it, are errors."""

    async def hang_up(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    word, reason = ask(hang_up)
    assert (word, reason.startswith("not answered: ")) == ("errored", True)


def test_an_answer_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that drips is given up when its time is over, however often something comes."""
    monkeypatch.setattr(querying, "PATIENCE", 0.2)
    never = asyncio.Event

    async def drip(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n[")
        await writer.drain()
        await never().wait()

    assert ask(drip) == ("errored", "no answer within 0.2 s")
