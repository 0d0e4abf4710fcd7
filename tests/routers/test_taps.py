"""Listening to what passes: which requests are drawn, what is read of Envoy's words, and that no request notices."""

import asyncio
import base64
import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.contracts import Backend, Exchange, Route
from penstock.errors import EngineError
from penstock.routers import taps
from penstock.routers.envoy import EnvoyRouter
from routers.toys import Toy, ask, free_port

pytestmark = pytest.mark.anyio


@pytest.fixture
async def port(router: EnvoyRouter, toy: Toy) -> int:
    """Where a routed environment, production, answers."""
    port = free_port()
    await router.apply([Route("production", port, (Backend("1", "1.0+g1a2b3c4", (toy.port,), "/health", 10_000),))])
    return port


# --- words ---------------------------------------------------------------------------------------------------------


@given(st.floats(0, 1))
def test_the_pattern_draws_the_share_of_all_ids(share: float) -> None:
    """Of all beginnings of an id it matches the share to 1/4096, and at least one."""
    pattern = re.compile(taps.drawn(share))
    found = sum(pattern.fullmatch(f"{start:03x}0-rest") is not None for start in range(4096))
    assert found == max(1, round(share * 4096))


def trace(**request: Any) -> dict[str, Any]:
    head = [{"key": ":method", "value": "POST"}, {"key": ":path", "value": "/predict"}]
    answer = [{"key": ":status", "value": "200"}, {"key": "x-penstock-release", "value": "1.0"}]
    body = {"as_bytes": base64.b64encode(b"{}").decode(), "truncated": False}
    return {
        "http_buffered_trace": {
            "request": {"headers": head, "body": body, **request},
            "response": {"headers": answer, "body": body},
        }
    }


def test_whole_exchanges_are_read_and_others_left_out() -> None:
    """One after the other they are read; one that was cut short, or never answered, is none."""
    unanswered = trace()
    del unanswered["http_buffered_trace"]["response"]
    cut = trace(body={"as_bytes": "e30=", "truncated": True})
    damaged = trace(body={"as_bytes": "é"})
    text = "\n".join(json.dumps(one, indent=1) for one in (trace(), unanswered, cut, damaged, trace()))
    whole = Exchange("1.0", "POST", "/predict", b"{}", 200, b"{}")
    assert taps.exchanges(text) == (whole, whole)
    assert taps.exchanges("") == ()
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        taps.exchanges(text[:-20])


# --- Envoy ---------------------------------------------------------------------------------------------------------


async def heard(router: EnvoyRouter, port: int, most: int, share: float = 1.0, headers: str = "") -> Sequence[Exchange]:
    """What is heard of requests that go on until so many were."""
    task = asyncio.create_task(router.sampled("production", share, most, 30))
    number = 0
    while not task.done():
        reply = await ask(port, f"/predict?{number}", f'{{"number": {number}}}'.encode(), headers)
        assert reply.status == 200
        number += 1
    return await task


async def test_requests_are_heard_with_their_answers(router: EnvoyRouter, port: int) -> None:
    """Each is whole: method, path, both bodies, the status and the release; and none is heard twice."""
    found = await heard(router, port, 20)
    assert len(found) == 20
    assert {(one.method, one.status, one.release) for one in found} == {("POST", 200, "1.0+g1a2b3c4")}
    assert len({one.path for one in found}) == 20
    assert all(one.request == f'{{"number": {one.path.partition("?")[2]}}}'.encode() for one in found)
    assert all(len(one.answer) == 64 for one in found)


async def test_a_tenth_is_about_a_tenth(router: EnvoyRouter, port: int, toy: Toy) -> None:
    """60 requests at 10 % take between 300 and 1,200 (beyond four standard deviations)."""
    found = await heard(router, port, 60, share=0.1)
    assert len(found) == 60
    assert 300 <= toy.asked <= 1200


async def test_own_requests_and_large_bodies_are_left_out(router: EnvoyRouter, port: int) -> None:
    """Neither a request of Penstock's own nor one beyond 64 KiB is heard; each is answered like any other."""
    task = asyncio.create_task(router.sampled("production", 1, 5, 30))
    while not task.done():
        assert (await ask(port, "/own", b"1", f"{taps.SYNTHETIC}: 1\r\n")).status == 200
        assert (await ask(port, "/large", b"x" * (taps.MOST_BYTES + 1))).status == 200
        assert (await ask(port, "/small", b"x" * 1000)).status == 200
    assert {one.path for one in await task} == {"/small"}


async def test_a_listener_that_is_gone_leaves_the_place_to_the_next(router: EnvoyRouter, port: int) -> None:
    """Whoever listens may be cut off at any moment: the next one hears, and requests go on."""
    for _ in range(3):
        task = asyncio.create_task(router.sampled("production", 1, 1000, 30))
        assert (await ask(port, "/predict", b"1")).status == 200
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert len(await heard(router, port, 3)) == 3


async def test_nothing_is_heard_where_nothing_passes(router: EnvoyRouter, port: int) -> None:
    """A quiet environment gives an empty sample after the time; one that is not routed, or no router, is an error."""
    assert await router.sampled("production", 1, 10, 0.2) == ()
    with pytest.raises(EngineError, match="cannot be listened to"):
        await router.sampled("staging", 1, 10, 0.2)
    await router.stop()
    with pytest.raises(EngineError, match="does not run"):
        await router.sampled("production", 1, 10, 0.2)
    assert port


async def test_a_stream_is_not_held_back(router: EnvoyRouter, port: int, toy: Toy) -> None:
    """While all is listened to, the first event of a stream arrives before its second was written."""
    task = asyncio.create_task(router.sampled("production", 1, 2, 30))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /stream HTTP/1.1\r\nhost: toys\r\n\r\n")
    assert b"first" in await reader.readuntil(b"first\n\n")
    toy.slow.set()
    assert b"second" in await reader.readuntil(b"second\n\n")
    writer.close()
    while not task.done():
        await ask(port, "/after", b"1")
    assert len(await task) == 2
