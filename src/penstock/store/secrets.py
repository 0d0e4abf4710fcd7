"""Secrets at rest: encrypted in the database, with the key in a file of its own beside it.

A secret belongs to a project, or to one environment of it. Values go only to the processes that name them: this file
gives them out, and no request, log, lineage or command line ever holds one.
"""

import base64
import os
import re
import stat
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import ColumnElement, Connection, and_, delete, select
from sqlalchemy.dialects.sqlite import insert

from penstock.errors import EngineError, NotFoundError, StateError, UntrustworthyError, UsageError
from penstock.store.tables import secrets

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_FILE = "secret.key"
SHORTEST = 6
LONGEST = 65536

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_NONCE = 12
_KEY = 32


# --- rows ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SecretName:
    """A secret as it may be shown: everything but its value. `environment` is "" for the whole project."""

    name: str
    environment: str
    actor: str
    created: float


class Tokens:
    """Encrypted secrets by project, environment ("" for the whole project) and name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, project: str, name: str, token: bytes, actor: str, *, environment: str = "") -> None:
        """Keep a token; a later one of the same name replaces it. The project need not be known yet."""
        key = {"project": project, "environment": environment, "name": name}
        changed = {"token": token, "actor": actor, "created": time.time()}
        self._connection.execute(
            insert(secrets).values(**key, **changed).on_conflict_do_update(list(key), set_=changed)
        )

    def names(self, project: str) -> list[SecretName]:
        """The secrets of a project, by name and then environment."""
        query = (
            select(secrets.c.name, secrets.c.environment, secrets.c.actor, secrets.c.created)
            .where(secrets.c.project == project)
            .order_by(secrets.c.name, secrets.c.environment)
        )
        return [SecretName(**row) for row in self._connection.execute(query).mappings()]

    def get(self, project: str, name: str, *, environment: str = "") -> bytes | None:
        """The token of one secret, or None where it was never set."""
        query = select(secrets.c.token).where(_is(project, name, environment))
        found = self._connection.execute(query).scalar_one_or_none()
        return None if found is None else bytes(found)

    def remove(self, project: str, name: str, *, environment: str = "") -> bool:
        """Forget a secret; returns whether there was one."""
        return self._connection.execute(delete(secrets).where(_is(project, name, environment))).rowcount > 0

    def any(self) -> bool:
        """Whether this home keeps any secret at all."""
        return self._connection.execute(select(secrets.c.name).limit(1)).first() is not None


def _is(project: str, name: str, environment: str) -> ColumnElement[bool]:
    columns = secrets.c
    return and_(columns.project == project, columns.environment == environment, columns.name == name)


class Keeping(Protocol):
    """What of a `Store` is needed here."""

    @property
    def secrets(self) -> Tokens: ...

    def transaction(self, *, durable: bool = False) -> AbstractContextManager[None]:
        """See `Store.transaction`."""
        ...


# --- values -------------------------------------------------------------------------------------------------------


class Secrets:
    """The values: encrypted on their way in, given out to whoever starts a process that names them.

    AES-256-GCM; project, environment and name are authenticated with the value, so a row that was moved does not open.
    """

    def __init__(self, store: Keeping, key_path: Path) -> None:
        self._store = store
        self._path = key_path

    def put(self, project: str, name: str, value: bytes, actor: str, *, environment: str = "") -> None:
        """Encrypt and keep a value, on the disk when this returns; the key is made at first need.

        Raises UsageError where the name or the value cannot be kept, and EngineError where the key cannot be used.
        """
        check_name(name)
        check_value(name, value)
        key = self._key() or self._make_key()
        nonce = os.urandom(_NONCE)
        token = nonce + _cipher(key).encrypt(nonce, value, _place(project, environment, name))
        with self._store.transaction(durable=True):
            self._store.secrets.put(project, name, token, actor, environment=environment)

    def names(self, project: str) -> list[SecretName]:
        """The secrets of a project, without their values."""
        return self._store.secrets.names(project)

    def remove(self, project: str, name: str, *, environment: str = "") -> None:
        """Forget a secret. Raises NotFoundError."""
        with self._store.transaction(durable=True):
            found = self._store.secrets.remove(project, name, environment=environment)
        if not found:
            where = f" of environment {environment}" if environment else ""
            raise NotFoundError(f'there is no secret "{name}"{where} in this project: penstock secret list shows them')

    def values(self, project: str, names: Sequence[str], *, environment: str = "") -> dict[str, str]:
        """The values of some secrets: the environment's own, else the project's.

        Raises StateError that names every missing one and the command that sets it, EngineError where the key is
        missing, and UntrustworthyError where a token does not open with it.
        """
        found = {name: self._find(project, name, environment) for name in names}
        missing = [name for name, place in found.items() if place is None]
        if missing:
            raise StateError(_missing(missing))
        return {name: self._open(project, name, *place) for name, place in found.items() if place is not None}

    def _find(self, project: str, name: str, environment: str) -> tuple[str, bytes] | None:
        for place in dict.fromkeys((environment, "")):
            token = self._store.secrets.get(project, name, environment=place)
            if token is not None:
                return place, token
        return None

    def _open(self, project: str, name: str, environment: str, token: bytes) -> str:
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - costs milliseconds, needed by few runs

        key = self._key()
        if key is None:
            raise self._lost()
        try:
            value = _cipher(key).decrypt(token[:_NONCE], token[_NONCE:], _place(project, environment, name))
        except (InvalidTag, ValueError):
            raise UntrustworthyError(
                f"the secret {name} does not open with the key in {self._path}: put the key back that it was set with, "
                f"or set it again with penstock secret set {name}"
            ) from None
        return value.decode()

    # --- the key

    def _key(self) -> bytes | None:
        """The key of this home; None where there is none yet. Raises EngineError where it cannot be used."""
        try:
            with self._path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                text = file.read(200)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise EngineError(f"the key {self._path} cannot be read ({error.strerror}): make it readable") from None
        if mode & 0o077:
            raise EngineError(f"the key {self._path} is open to others (mode {mode:o}): chmod 600 it")
        try:
            key = base64.b64decode(text.strip(), validate=True)
        except ValueError:
            key = b""
        if len(key) != _KEY:
            raise EngineError(
                f"the key {self._path} is damaged: put it back from a copy, or delete it and set all anew"
            )
        return key

    def _make_key(self) -> bytes:
        """A new key, whole on the disk or not at all; of several that are made at once all use the first."""
        if self._store.secrets.any():
            raise self._lost()
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            draft.touch(0o600, exist_ok=False)
            with draft.open("wb") as file:
                file.write(base64.b64encode(os.urandom(_KEY)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            _link(draft, self._path)
        except OSError as error:
            raise EngineError(f"the key {self._path} cannot be written: {error.strerror}") from None
        finally:
            draft.unlink(missing_ok=True)
        key = self._key()
        if key is None:
            raise self._lost()
        return key

    def _lost(self) -> EngineError:
        return EngineError(
            f"the key {self._path} is gone, and without it no secret opens: put it back, or remove all secrets of this "
            "home with penstock secret remove and set them anew"
        )


def _link(draft: Path, path: Path) -> None:
    """Give the draft its name for good. A link, because a rename would replace the key that another made meanwhile."""
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _cipher(key: bytes) -> "AESGCM":
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - see `_open`

    return AESGCM(key)


def _place(project: str, environment: str, name: str) -> bytes:
    return f"penstock secret 1\0{project}\0{environment}\0{name}".encode()


def _missing(names: Sequence[str]) -> str:
    several = len(names) > 1
    commands = "; ".join(f"penstock secret set {name}" for name in names)
    return (
        f"the secret{'s' if several else ''} {', '.join(names)} {'are' if several else 'is'} not set in this project: "
        f"set {'them' if several else 'it'} with {commands}"
    )


# --- what may be kept ---------------------------------------------------------------------------------------------


def check_name(name: str) -> None:
    """Raise UsageError where no variable that a person may set can have this name."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f'"{name[:40]}" is no name for a secret: it becomes a variable, so letters, digits and _, no digit first'
        )
    if name.startswith("PENSTOCK_"):
        raise UsageError(f"{name} is no name for a secret: PENSTOCK_ is for what Penstock itself sets")


def check_value(name: str, value: bytes) -> None:
    """Raise UsageError, with the reason and without the value, where it cannot be a variable or cannot be masked."""
    if len(value) > LONGEST:
        raise UsageError(f"the value of {name} is over 64 KiB: keep it in a file elsewhere, and its password here")
    if b"\0" in value:
        raise UsageError(f"the value of {name} holds a NUL byte, which no variable can: encode it, say with base64")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise UsageError(f"the value of {name} is not UTF-8 text: encode it, say with base64") from None
    if len(value.strip()) < SHORTEST or len(text.strip()) < SHORTEST:
        raise UsageError(
            f"the value of {name} has under {SHORTEST} characters: masking it would shred every log, and not masking "
            "it would show it: take a longer one"
        )
