"""What passes an environment's address, as Envoy's tap filter tells it. Pure: what to ask of it, what it answered.

The filter waits in every listener and does nothing until the admin address is asked for exchanges. It then copies those
that the question matches into Envoy's own memory, at most so many and so much of each, and sends them all at once: the
requests themselves never wait, nothing is written to disk, and a reader that dies leaves nothing behind.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

from penstock.engine.contracts import Exchange

MOST_BYTES = 64 << 10
"""A request or an answer that is longer is left out."""
SYNTHETIC = "x-penstock-synthetic"
"""The header of requests that are Penstock's own."""

_DIGITS = 3
_WHOLE = 16**_DIGITS


def question(environment: str, share: float, most: int, seconds: float) -> str:
    """The body of `POST /tap` for at most so many exchanges of an environment within so many seconds.

    Which ones is drawn by the random id that Envoy gives every request; the share is rounded to 1/4096, at least one.
    """
    headers = [
        {"name": "x-request-id", "string_match": {"safe_regex": {"regex": drawn(share)}}},
        {"name": SYNTHETIC, "present_match": True, "invert_match": True},
    ]
    sink = {"format": "JSON_BODY_AS_BYTES", "buffered_admin": {"max_traces": most, "timeout": f"{seconds:g}s"}}
    output = {"sinks": [sink], "max_buffered_rx_bytes": MOST_BYTES, "max_buffered_tx_bytes": MOST_BYTES}
    config = {"match": {"http_request_headers_match": {"headers": headers}}, "output_config": output}
    return json.dumps({"config_id": environment, "tap_config": config})


def drawn(share: float) -> str:
    """A pattern of the ids of this share of all requests: those whose first digits, as a number, lie below it."""
    limit = max(1, round(share * _WHOLE))
    if limit >= _WHOLE:
        return ".*"
    digits = f"{limit:0{_DIGITS}x}"
    below = [
        f"{digits[:place]}[{''.join('0123456789abcdef'[: int(digit, 16)])}]"
        for place, digit in enumerate(digits)
        if digit != "0"
    ]
    return f"({'|'.join(below)}).*"


def exchanges(text: str) -> tuple[Exchange, ...]:
    """The whole exchanges of an answer, in its order. Raises ValueError where it is none."""
    traces = (trace["http_buffered_trace"] for trace in _objects(text) if "http_buffered_trace" in trace)
    return tuple(exchange for trace in traces if (exchange := _exchange(trace)) is not None)


def _objects(text: str) -> Iterator[dict[str, Any]]:
    decoder, place = json.JSONDecoder(), 0
    while (place := text.find("{", place)) >= 0:
        found, place = decoder.raw_decode(text, place)
        yield found


def _exchange(trace: Mapping[str, Any]) -> Exchange | None:
    request, answer = trace.get("request") or {}, trace.get("response") or {}
    asked, said = _headers(request), _headers(answer)
    bodies = _body(request), _body(answer)
    status = said.get(":status", "")
    if bodies[0] is None or bodies[1] is None or not status.isdecimal():
        return None
    return Exchange(
        release=said.get("x-penstock-release", ""),
        method=asked.get(":method", ""),
        path=asked.get(":path", ""),
        request=bodies[0],
        status=int(status),
        answer=bodies[1],
    )


def _headers(message: Mapping[str, Any]) -> dict[str, str]:
    return {str(h.get("key", "")).lower(): str(h.get("value", "")) for h in message.get("headers", ())}


def _body(message: Mapping[str, Any]) -> bytes | None:
    """A message's body; None where it was cut short."""
    body = message.get("body") or {}
    if body.get("truncated"):
        return None
    try:
        return base64.b64decode(body.get("as_bytes", ""), validate=True)
    except ValueError:
        return None
