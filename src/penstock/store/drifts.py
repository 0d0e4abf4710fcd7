"""What windows of requests showed beside the samples of their releases. One row is one look, for ever."""

import time
from dataclasses import fields

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.sqlite import insert

from penstock.store.contract import DriftLook
from penstock.store.tables import drifts

KEPT = 100
"""Of so many looks of a release every feature is kept; of older ones what was said."""


class Drifts:
    """The room of the looks."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, look: DriftLook) -> bool:
        """Keep a look; False where the release has one with this number. Call it in a transaction."""
        row = {field.name: getattr(look, field.name) for field in fields(look)} | {"at": time.time()}
        added = self._connection.execute(insert(drifts).values(row).on_conflict_do_nothing()).rowcount == 1
        old = (drifts.c.release == look.release, drifts.c.number == look.number - KEPT)
        self._connection.execute(drifts.update().where(*old).values(features=[]))
        return added

    def count(self, release: int) -> int:
        """How many looks a release has."""
        query = select(func.max(drifts.c.number)).where(drifts.c.release == release)
        return int(self._connection.execute(query).scalar_one() or 0)

    def newest(self, release: int) -> DriftLook | None:
        """The last look of a release."""
        query = select(drifts).where(drifts.c.release == release).order_by(drifts.c.number.desc()).limit(1)
        row = self._connection.execute(query).mappings().first()
        return None if row is None else DriftLook(**row)

    def detections(self, release: int) -> list[DriftLook]:
        """The looks of a release that showed drift, oldest first."""
        query = select(drifts).where(drifts.c.release == release, func.json_array_length(drifts.c.drifted) > 0)
        return [DriftLook(**row) for row in self._connection.execute(query.order_by(drifts.c.number)).mappings()]
