"""The two routes: what they answer, to whom, and with which headers."""

import asyncio
import json
from dataclasses import asdict

import httpx
import pytest

from penstock.server.app import create_app
from penstock.server.states import State
from server.states import state

HOST = "127.0.0.1:8700"


def ask(path: str = "/", method: str = "GET", host: str = HOST, shown: State | None = None) -> httpx.Response:
    """One request, straight into the application."""

    async def story() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(lambda: shown or state()), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8700") as client:
            return await client.request(method, path, headers={"host": host})

    return asyncio.run(story())


def test_the_page() -> None:
    """`/` is the page, as HTML."""
    answer = ask()
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "Train for eight epochs" in answer.text


def test_the_state_as_json() -> None:
    """`/api/state` is the same state, with nothing left out."""
    answer = ask("/api/state")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == json.loads(json.dumps(asdict(state())))


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/api", "/api/runs", "/../etc/passwd", "/x"])
def test_there_are_no_other_routes(path: str) -> None:
    """Nothing else is there, not even the framework's own pages."""
    assert ask(path).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/api/state"])
def test_nothing_can_be_changed(method: str, path: str) -> None:
    """Only reading is possible."""
    assert ask(path, method).status_code == 405


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8700", "localhost:8700", "LocalHost", "localhost:9000"])
def test_the_machine_itself_is_answered(host: str) -> None:
    """By either name, and by another port: a tunnel is the person's own."""
    assert ask(host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8700",
        "127.0.0.1.evil.example",
        "localhost.evil.example:8700",
        "0.0.0.0:8700",
        "",
        ":8700",
        "127.0.0.1:8700@evil.example",
        "127.0.0.1:port",
        "localhost ",
        "[::1]:8700",
        "10.0.0.1",
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/state", "/x"])
def test_any_other_name_is_refused(host: str, path: str) -> None:
    """A page elsewhere that rebinds its name to this machine learns nothing, not even which routes there are."""
    answer = ask(path, host=host)
    assert answer.status_code == 421
    assert answer.json() == {
        "detail": "this page answers to 127.0.0.1 and localhost only: open it by one of these names"
    }


@pytest.mark.parametrize(("path", "host"), [("/", HOST), ("/api/state", HOST), ("/x", HOST), ("/", "evil.example")])
def test_every_answer_has_the_headers(path: str, host: str) -> None:
    """Whatever is answered says what a browser may do with it."""
    headers = ask(path, host=host).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["content-security-policy"].startswith("default-src 'none'; ")
    assert "unsafe" not in headers["content-security-policy"]
    assert "access-control-allow-origin" not in headers


def test_a_defect_says_nothing_of_itself() -> None:
    """An answer that cannot be made is an error without details, with the headers all the same."""

    async def story() -> httpx.Response:
        def broken() -> State:
            raise ZeroDivisionError("a secret of the house")

        transport = httpx.ASGITransport(create_app(broken), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get("/")

    answer = asyncio.run(story())
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert answer.headers["x-content-type-options"] == "nosniff"
