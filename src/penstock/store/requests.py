"""Requests in the database: what people and triggers ask for, and what came of it."""

import time
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, update

from penstock.errors import NotFoundError
from penstock.runs import RequestStatus
from penstock.store.contract import Follower, Request
from penstock.store.journal import inserted
from penstock.store.tables import requests


class Requests:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, kind: str, payload: Mapping[str, Any], follower: Follower, actor: str) -> int:
        """Ask for something; the coordinator of the home finds it. Returns the request's number."""
        row = {
            "kind": kind,
            "payload": dict(payload),
            "follower": asdict(follower),
            "actor": actor,
            "status": RequestStatus.OPEN,
            "created": time.time(),
        }
        result = self._connection.execute(insert(requests), row)
        return inserted(result)

    def get(self, number: int) -> Request:
        row = self._connection.execute(select(requests).where(requests.c.id == number)).mappings().first()
        if row is None:
            raise NotFoundError(f"there is no request {number} in this home")
        return _request(row)

    def is_open(self, number: int) -> bool:
        """Whether a request was not ended yet; its payload is not read."""
        query = select(requests.c.status).where(requests.c.id == number)
        return self._connection.execute(query).scalar_one_or_none() == RequestStatus.OPEN

    def open_numbers(self) -> list[int]:
        """The numbers of the open requests, oldest first."""
        query = select(requests.c.id).where(requests.c.status == RequestStatus.OPEN).order_by(requests.c.id)
        return list(self._connection.execute(query).scalars())

    def open(self) -> list[Request]:
        """Requests that nobody has ended yet, oldest first."""
        query = select(requests).where(requests.c.status == RequestStatus.OPEN).order_by(requests.c.id)
        return [_request(row) for row in self._connection.execute(query).mappings()]

    def of_kinds(self, kinds: Collection[str]) -> list[Request]:
        """All requests of some kinds, oldest first."""
        query = select(requests).where(requests.c.kind.in_(kinds)).order_by(requests.c.id)
        return [_request(row) for row in self._connection.execute(query).mappings()]

    def end(self, number: int, exit_code: int, result: Mapping[str, Any] | None = None) -> None:
        """The request was carried out (well or not); ending one twice keeps the first end."""
        self._close(number, RequestStatus.ENDED, exit_code, result, None)

    def reopen(self, number: int) -> None:
        """What has ended for the time being is carried out again."""
        values = {"status": RequestStatus.OPEN, "exit_code": None, "result": None, "error": None, "ended": None}
        self._connection.execute(update(requests).where(requests.c.id == number).values(**values))

    def refuse(self, number: int, exit_code: int, error: str) -> None:
        """The request cannot be carried out, with the sentence that says why."""
        self._close(number, RequestStatus.REFUSED, exit_code, None, error)

    def _close(
        self, number: int, status: RequestStatus, code: int, result: Mapping[str, Any] | None, error: str | None
    ) -> None:
        self._connection.execute(
            update(requests)
            .where(requests.c.id == number, requests.c.status == RequestStatus.OPEN)
            .values(
                status=status,
                exit_code=code,
                result=None if result is None else dict(result),
                error=error,
                ended=time.time(),
            )
        )


def _request(row: RowMapping) -> Request:
    return Request(
        **{
            **row,
            "follower": Follower(**row["follower"]),
            "status": RequestStatus(row["status"]),
        }
    )
