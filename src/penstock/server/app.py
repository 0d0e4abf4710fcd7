"""The web application: one page and one JSON route, for this machine's own browsers."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.server.pages import POLICY, render
from penstock.server.states import State

NAMES = frozenset({"127.0.0.1", "localhost"})
"""A page from elsewhere that makes its name lead to this machine still sends its own name, and is refused."""

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


def create_app(now: Callable[[], State]) -> ASGIApp:
    """The application; `now` gives the state of the home and is called in the event loop's thread."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/", response_class=HTMLResponse)
    async def page() -> HTMLResponse:
        return HTMLResponse(render(now()))

    @app.get("/api/state", response_class=JSONResponse)
    async def state() -> JSONResponse:
        return JSONResponse(asdict(now()))

    return Guard(app)  # outside of everything: refusals and defects have the headers too


class Guard:
    """Refuses requests for any name but this machine's own, and puts `HEADERS` on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # no lifespan is asked for, and there are no websockets

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        app = self._app if is_for_us(scope["headers"]) else _REFUSAL
        await app(scope, receive, guarded)


def is_for_us(headers: Any) -> bool:
    """Whether exactly one Host header names this machine by a loopback name, with any port."""
    hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
    if len(hosts) != 1:
        return False
    name, _, port = hosts[0].partition(":")
    return name.lower() in NAMES and (port == "" or port.isdecimal())


_REFUSAL = JSONResponse(
    {"detail": "this page answers to 127.0.0.1 and localhost only: open it by one of these names"}, status_code=421
)
