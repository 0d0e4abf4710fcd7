"""Asking a person's own service for a metric, over HTTP: one question, one answer, bounded in time and size."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from penstock.canaries import Told
from penstock.environments import MetricQuestion
from penstock.errors import PenstockError, ReportError
from penstock.questions import Answer, filled, judged, number_at, prometheus_number

if TYPE_CHECKING:
    import httpx

Tokens = Callable[[], Mapping[str, str]]
"""The secrets of an environment by name, read anew for each question."""
PATIENCE = 5.0
"""Seconds that an answer may take, all of it."""
PAUSE = 10.0
"""Seconds between two questions."""
STALE = 60.0
"""Seconds after which an answer counts no more."""
MOST = 1 << 20
"""Bytes that an answer may have."""


async def asked(question: MetricQuestion, places: Mapping[str, str], token: str | None = None) -> Answer:
    """What a metric says of the release that the places name. Whatever the other side does is an answer, too.

    `token` is sent as a bearer token, and stands in no message.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            document = await _document(question, places, token)
        found = number_at(document, question.value) if question.value is not None else prometheus_number(document)
    except TimeoutError:
        return Answer("errored", f"no answer within {PATIENCE:g} s")
    except ReportError as error:
        return Answer("errored", str(error))
    return judged(question, found)


async def _document(question: MetricQuestion, places: Mapping[str, str], token: str | None) -> Any:
    """The JSON of an answer. Raises ReportError where there is none."""
    import httpx  # noqa: PLC0415 - start-up time is a promise

    headers = {"accept": "application/json", **({} if token is None else {"authorization": f"Bearer {token}"})}
    try:
        async with (
            httpx.AsyncClient(follow_redirects=False, timeout=PATIENCE, trust_env=False) as client,
            client.stream("GET", _url(question, places), params=_query(question, places), headers=headers) as answer,
        ):
            body = await _body(answer)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, OSError) as error:
        raise ReportError(f"not answered: {type(error).__name__}") from error
    if answer.status_code != httpx.codes.OK and not (question.prometheus and body.startswith(b"{")):
        raise ReportError(f"answered with status {answer.status_code}")
    if token is not None:
        body = body.replace(token.encode(), b"***")  # what echoes it must not bring it into a reason
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ReportError("the answer is no JSON") from None


def _url(question: MetricQuestion, places: Mapping[str, str]) -> str:
    if question.prometheus is not None:
        return f"{question.prometheus.rstrip('/')}/api/v1/query"
    return filled(question.url or "", places)


def _query(question: MetricQuestion, places: Mapping[str, str]) -> Mapping[str, str] | None:
    return None if question.query is None else {"query": filled(question.query, places)}


async def _body(answer: "httpx.Response") -> bytes:
    body = b""
    async for part in answer.aiter_bytes():
        body += part
        if len(body) > MOST:
            raise ReportError(f"the answer is longer than {MOST >> 20} MiB")
    return body


class Questions:
    """The metrics of one rollout, asked again and again beside its looks; each has an answer once it was asked."""

    def __init__(self, questions: Mapping[str, MetricQuestion], places: Mapping[str, str], tokens: Tokens) -> None:
        self._questions = questions
        self._places = places
        self._tokens = tokens
        self._answers: dict[str, tuple[float, Answer]] = {}
        self._asking: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Ask from now on; what was asked before, at another width, does not count."""
        if self._asking is not None:
            self._asking.cancel()
        self._answers = {}
        self._asking = asyncio.create_task(self._ask_on(self._answers)) if self._questions else None

    async def end(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def told(self) -> dict[str, Told]:
        """The last answer of each metric; one that is a minute old is none."""
        now = asyncio.get_running_loop().time()
        return {name: _told(answer, now - at) for name, (at, answer) in self._answers.items()}

    async def _ask_on(self, answers: dict[str, tuple[float, Answer]]) -> None:
        while True:
            await asyncio.gather(*(self._ask(name, answers) for name in self._questions))
            await asyncio.sleep(PAUSE)

    async def _ask(self, name: str, answers: dict[str, tuple[float, Answer]]) -> None:
        began = asyncio.get_running_loop().time()
        answers[name] = began, await self._answer(self._questions[name])

    async def _answer(self, question: MetricQuestion) -> Answer:
        secret = question.authorization
        try:
            token = None if secret is None else self._tokens().get(secret)
        except PenstockError as error:
            return Answer("errored", str(error))
        if secret is not None and not token:
            return Answer("errored", f"the secret {secret} has no value")
        return await asked(question, self._places, token)


def _told(answer: Answer, age: float) -> Told:
    if age > STALE:
        return Told("errored", f"the last answer is {age:.0f} s old")
    return Told(answer.word, answer.reason)
