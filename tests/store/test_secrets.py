"""Secrets at rest: only names in clear, the key outside the database, and every loss of it one sentence."""

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.errors import EngineError, NotFoundError, StateError, UntrustworthyError, UsageError
from penstock.store.secrets import KEY_FILE, LONGEST, Secrets, check_name, check_value
from penstock.store.sql import Store, open_store

VALUE = b"hunter2-hunter2"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    with open_store(home / "penstock.db") as opened:
        yield opened


@pytest.fixture
def key(home: Path) -> Path:
    return home / KEY_FILE


@pytest.fixture
def secrets(store: Store, key: Path) -> Secrets:
    return Secrets(store, key)


# --- keeping -------------------------------------------------------------------------------------------------------


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=6, max_size=200))
def test_what_was_put_comes_back(secrets: Secrets, value: str) -> None:
    """A value comes back byte by byte, spaces and ends of lines included."""
    if len(value.strip()) >= 6 and len(value.encode().strip()) >= 6:
        secrets.put("p", "TOKEN", value.encode(), "ada")
        assert secrets.values("p", ["TOKEN"]) == {"TOKEN": value}


def test_the_last_value_counts(secrets: Secrets) -> None:
    """Setting a secret again replaces its value, and says who did it last."""
    secrets.put("p", "TOKEN", VALUE, "ada")
    secrets.put("p", "TOKEN", b"another", "bob")
    assert secrets.values("p", ["TOKEN"]) == {"TOKEN": "another"}
    assert [(s.name, s.environment, s.actor) for s in secrets.names("p")] == [("TOKEN", "", "bob")]


def test_an_environment_has_its_own(secrets: Secrets) -> None:
    """An environment's secret goes before the project's, and nothing but that environment gets it."""
    secrets.put("p", "URL", b"for all of us", "ada")
    secrets.put("p", "URL", b"for production", "ada", environment="production")
    secrets.put("p", "KEY", b"for production", "ada", environment="production")
    assert secrets.values("p", ["URL"], environment="production") == {"URL": "for production"}
    assert secrets.values("p", ["URL"], environment="staging") == {"URL": "for all of us"}
    assert secrets.values("p", ["URL"]) == {"URL": "for all of us"}
    with pytest.raises(StateError, match="KEY is not set"):
        secrets.values("p", ["KEY"])
    assert [(s.name, s.environment) for s in secrets.names("p")] == [
        ("KEY", "production"),
        ("URL", ""),
        ("URL", "production"),
    ]


def test_projects_are_apart(secrets: Secrets) -> None:
    """A project neither gets nor lists nor removes the secrets of another."""
    secrets.put("p", "TOKEN", VALUE, "ada")
    assert secrets.names("q") == []
    with pytest.raises(StateError):
        secrets.values("q", ["TOKEN"])
    with pytest.raises(NotFoundError, match='no secret "TOKEN" in this project: penstock secret list'):
        secrets.remove("q", "TOKEN")


def test_removed_is_gone(secrets: Secrets) -> None:
    """A removed secret is neither listed nor given out, and cannot be removed twice."""
    secrets.put("p", "TOKEN", VALUE, "ada")
    secrets.remove("p", "TOKEN")
    assert secrets.names("p") == []
    with pytest.raises(NotFoundError, match="of environment staging"):
        secrets.remove("p", "TOKEN", environment="staging")


def test_every_missing_secret_is_named(secrets: Secrets) -> None:
    """One error names all that is missing and the commands that set it."""
    secrets.put("p", "TOKEN", VALUE, "ada")
    with pytest.raises(StateError) as caught:
        secrets.values("p", ["HF_TOKEN", "TOKEN", "DATABASE_URL"])
    assert str(caught.value) == (
        "the secrets HF_TOKEN, DATABASE_URL are not set in this project: set them with "
        "penstock secret set HF_TOKEN; penstock secret set DATABASE_URL"
    )
    with pytest.raises(
        StateError, match=r"the secret X is not set in this project: set it with penstock secret set X$"
    ):
        secrets.values("p", ["X"])


def test_none_is_named_none_is_needed(secrets: Secrets, key: Path) -> None:
    """Who names no secret needs no key."""
    assert secrets.values("p", []) == {}
    assert not key.exists()


# --- on the disk ---------------------------------------------------------------------------------------------------


def test_the_database_never_holds_a_value(secrets: Secrets, home: Path) -> None:
    """Neither the database nor its log holds the value, and the key is in neither."""
    secrets.put("p", "TOKEN", VALUE, "ada")
    secrets.values("p", ["TOKEN"])
    key = (home / KEY_FILE).read_bytes().strip()
    files = {p.name: p.read_bytes() for p in home.iterdir() if p.is_file()}
    assert {"penstock.db", "penstock.db-wal"} <= files.keys()
    assert [name for name, data in files.items() if VALUE in data or VALUE.hex().encode() in data] == []
    assert [name for name, data in files.items() if key in data] == [KEY_FILE]


def test_the_same_value_is_another_token(secrets: Secrets, store: Store) -> None:
    """Two secrets with one value cannot be told to be the same."""
    secrets.put("p", "A", VALUE, "ada")
    first = store.secrets.get("p", "A")
    secrets.put("p", "A", VALUE, "ada")
    assert first is not None
    assert first[:12] != (store.secrets.get("p", "A") or b"")[:12]
    assert first != store.secrets.get("p", "A")


def test_the_key_is_its_owners(secrets: Secrets, key: Path) -> None:
    """The key can be read by its owner alone, and nothing else is left of its making."""
    secrets.put("p", "TOKEN", VALUE, "ada")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert [p.name for p in key.parent.glob(".secret*")] == []


def test_keys_made_at_once_are_one(home: Path) -> None:
    """Two commands that set the first secrets of a home at the same time use one key."""
    together = threading.Barrier(4)

    def put(name: str) -> None:
        with open_store(home / "penstock.db") as store:
            together.wait()
            Secrets(store, home / KEY_FILE).put("p", name, VALUE, "ada")

    with open_store(home / "penstock.db") as store:
        threads = [threading.Thread(target=put, args=(name,)) for name in "ABCD"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Secrets(store, home / KEY_FILE).values("p", "ABCD") == dict.fromkeys("ABCD", VALUE.decode())


# --- losses --------------------------------------------------------------------------------------------------------


def test_a_lost_key(secrets: Secrets, key: Path) -> None:
    """Without the key no value opens and no other key is made, and the sentence says what to do."""
    secrets.put("p", "TOKEN", VALUE, "ada")
    key.unlink()
    for act in (lambda: secrets.values("p", ["TOKEN"]), lambda: secrets.put("p", "B", VALUE, "ada")):
        with pytest.raises(EngineError, match=r"the key .*secret\.key is gone, .*: put it back, or remove all secrets"):
            act()
    secrets.remove("p", "TOKEN")
    secrets.put("p", "B", VALUE, "ada")
    assert secrets.values("p", ["B"]) == {"B": VALUE.decode()}


def test_a_wrong_key(secrets: Secrets, store: Store, key: Path, tmp_path: Path) -> None:
    """The key of another home opens nothing, and the sentence names the secret and not its value."""
    secrets.put("p", "TOKEN", VALUE, "ada")
    token = store.secrets.get("p", "TOKEN") or b""
    store.secrets.remove("p", "TOKEN")
    key.rename(tmp_path / "old")
    secrets.put("p", "OTHER", VALUE, "ada")
    store.secrets.put("p", "TOKEN", token, "ada")
    with pytest.raises(
        UntrustworthyError, match=r"the secret TOKEN does not open with the key in .*secret\.key"
    ) as found:
        secrets.values("p", ["TOKEN"])
    assert "hunter2" not in str(found.value)
    assert found.value.__cause__ is None


@pytest.mark.parametrize("place", [("p", "OTHER", ""), ("q", "TOKEN", ""), ("p", "TOKEN", "production")])
def test_a_moved_row_does_not_open(secrets: Secrets, store: Store, place: tuple[str, str, str]) -> None:
    """A token that somebody copied to another name, project or environment is refused."""
    secrets.put("p", "TOKEN", VALUE, "ada")
    project, name, environment = place
    store.secrets.put(project, name, store.secrets.get("p", "TOKEN") or b"", "eve", environment=environment)
    with pytest.raises(UntrustworthyError):
        secrets.values(project, [name], environment=environment)


@pytest.mark.parametrize("token", [b"", b"short", bytes(100)])
def test_a_damaged_token(secrets: Secrets, store: Store, token: bytes) -> None:
    """What is no token is refused in the same sentence."""
    secrets.put("p", "TOKEN", VALUE, "ada")
    store.secrets.put("p", "TOKEN", token, "ada")
    with pytest.raises(UntrustworthyError, match="does not open"):
        secrets.values("p", ["TOKEN"])


@pytest.mark.parametrize("text", [b"", b"no base64!", b"c2hvcnQ=\n"])
def test_a_damaged_key(secrets: Secrets, key: Path, text: bytes) -> None:
    """A key file that holds no key is one sentence."""
    key.touch(0o600)
    key.write_bytes(text)
    with pytest.raises(EngineError, match=r"the key .* is damaged"):
        secrets.put("p", "TOKEN", VALUE, "ada")


def test_an_open_key(secrets: Secrets, key: Path) -> None:
    """A key that others can read is not used before it is closed."""
    secrets.put("p", "TOKEN", VALUE, "ada")
    key.chmod(0o640)
    with pytest.raises(EngineError, match=r"is open to others \(mode 640\): chmod 600 it"):
        secrets.values("p", ["TOKEN"])


def test_a_key_that_cannot_be_read_or_made(store: Store, home: Path) -> None:
    """What stands in the key's place, and a folder that is not there, are one sentence each."""
    (home / "folder").mkdir(mode=0o700)
    with pytest.raises(EngineError, match="cannot be read"):
        Secrets(store, home / "folder").put("p", "TOKEN", VALUE, "ada")
    with pytest.raises(EngineError, match="cannot be written"):
        Secrets(store, home / "none" / KEY_FILE).put("p", "TOKEN", VALUE, "ada")


def test_a_full_disk_leaves_no_key(secrets: Secrets, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the key cannot be written whole there is none, and nothing was kept."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EngineError, match="cannot be written: No space left on device"):
        secrets.put("p", "TOKEN", VALUE, "ada")
    assert [p.name for p in key.parent.iterdir() if "secret" in p.name] == []
    assert secrets.names("p") == []


# --- what may be kept ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"12345", "under 6 characters: masking it would shred every log"),
        (b"  123\n  ", "under 6 characters"),
        ("äöüäö".encode(), "under 6 characters"),
        (b"", "under 6 characters"),
        (b"hunter2\0hunter2", "a NUL byte"),
        (b"hunter2\xff", "not UTF-8 text"),
        (b"x" * (LONGEST + 1), "over 64 KiB"),
    ],
)
def test_values_that_are_refused(secrets: Secrets, key: Path, value: bytes, reason: str) -> None:
    """A value that could not be a variable, or not be masked, is refused with the reason and without itself."""
    with pytest.raises(UsageError, match=f"^the value of TOKEN .*{reason}") as found:
        secrets.put("p", "TOKEN", value, "ada")
    assert not value.strip() or value.decode(errors="replace") not in str(found.value)
    assert secrets.names("p") == []
    assert not key.exists()


def test_values_at_the_edges() -> None:
    """Six characters and 64 KiB are allowed."""
    for value in (b"123456", b"x" * LONGEST, "äöüäöü".encode()):
        check_value("TOKEN", value)


@pytest.mark.parametrize("name", ["", "1X", "A-B", "A B", "A=B", "Ä", "A\n", "x" * 201, "PENSTOCK_MASK"])
def test_names_that_are_refused(name: str) -> None:
    """A name becomes a variable, and never one of Penstock's own."""
    with pytest.raises(UsageError, match="is no name for a secret"):
        check_name(name)
