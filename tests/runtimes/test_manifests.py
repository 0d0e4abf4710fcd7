"""An environment that is shared between runs is used again only as it was made."""

import os
import py_compile
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from penstock.artifacts import Digest
from penstock.engine.contracts import Command, RuntimeRequest
from penstock.runtimes import building
from penstock.runtimes.uv import UvRuntimes

Place = Callable[[Command, Path], "subprocess.CompletedProcess[str]"]
HOUR = 3600


@pytest.fixture
def environment(
    runtimes: UvRuntimes, request_for_lock: RuntimeRequest, lock: bytes, workspace: Path, place: Place, tmp_path: Path
) -> Path:
    """The finished environment of the lock, with files of its own."""
    command = runtimes.build(request_for_lock, lock)
    assert command is not None
    done = place(Command(command.text, {**command.variables, "UV_LINK_MODE": "copy"}), workspace)
    assert done.returncode == 0, done.stdout
    return tmp_path / "home/runtimes" / runtimes.digest(request_for_lock, lock)


def module(environment: Path) -> Path:
    (found,) = environment.glob("lib/*/site-packages/sluice.py")
    return found


def keep_time(path: Path, act: Callable[[], object]) -> None:
    """Do something to a file and give it back its time."""
    status = path.stat()
    act()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


# --- what counts ---------------------------------------------------------------------------------------------------


def test_the_manifest_names_every_file(environment: Path) -> None:
    """Size, time and SHA-256 of files, targets of links; a package's own digests are the true ones."""
    made = building.recorded(environment)
    assert made is not None
    assert {"bin/python", "pyvenv.cfg", "penstock.lock"} <= set(made)
    for path, (size, when, digest) in ((p, e) for p, e in made.items() if len(e) == 3):
        status = (environment / path).stat()
        assert (status.st_size, status.st_mtime_ns) == (size, when)
        assert building.digest(environment / path) == digest
    assert not any(path.endswith(".pyc") for path in made)


def become_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def install_another(path: Path) -> None:
    folder = path.with_name("weir-0.3.dist-info")
    folder.mkdir()
    (folder / "METADATA").touch()


CHANGES: Mapping[str, tuple[Callable[[Path], object], str]] = {
    "longer": (lambda p: p.write_text("version = 'poison'\n"), "sluice.py was changed"),
    "same size": (lambda p: p.write_bytes(p.read_bytes().replace(b"1.2", b"6.6")), "sluice.py was changed"),
    "longer, same time": (lambda p: keep_time(p, lambda: p.write_text("version = 1  #\n")), "sluice.py was changed"),
    "gone": (lambda p: p.unlink(), "sluice.py is missing"),
    "a link": (become_a_link, "sluice.py was changed"),
    "another module": (lambda p: p.with_name("extra.py").touch(), "extra.py was added"),
    "a start-up file": (lambda p: p.with_name("extra.pth").touch(), "extra.pth was added"),
    "another package": (install_another, "METADATA was added"),
    "a program": (lambda p: (p.parents[3] / "bin/ls").touch(), "bin/ls was added"),
    "no list": (lambda p: (p.parents[3] / building.FILES).unlink(), "nothing says which files it had"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_changed_is_set_aside_and_made_anew(
    environment: Path,
    runtimes: UvRuntimes,
    request_for_lock: RuntimeRequest,
    lock: bytes,
    workspace: Path,
    place: Place,
    name: str,
) -> None:
    """A changed environment does not stand: a sentence says what was changed, and building gives the true one."""
    change, sentence = CHANGES[name]
    change(module(environment))
    command = runtimes.build(request_for_lock, lock)
    assert command is not None
    assert command.reason is not None
    assert command.reason.startswith("the environment was changed since it was made (")
    assert sentence in command.reason
    done = place(command, workspace)
    assert done.returncode == 0, done.stdout
    assert "it is set aside as" in done.stdout.splitlines()[0]
    assert module(environment).read_text() == "version = '1.2'\n"
    assert not module(environment).with_name("extra.py").exists()
    assert runtimes.build(request_for_lock, lock) is None
    assert len([p for p in environment.parent.iterdir() if building.ASIDE in p.name]) == 1


def test_bytecode_and_data_that_nothing_executes_do_not_count(
    environment: Path, runtimes: UvRuntimes, request_for_lock: RuntimeRequest, lock: bytes
) -> None:
    """Python writes bytecode when it likes, and packages keep data of theirs: neither is a change."""
    py_compile.compile(str(module(environment)))
    module(environment).with_name("sluice.pyc").write_bytes(b"?")
    module(environment).with_name("fonts.json").write_text("{}")
    assert runtimes.build(request_for_lock, lock) is None


def test_a_file_that_only_looks_changed_is_read_once(
    environment: Path,
    runtimes: UvRuntimes,
    request_for_lock: RuntimeRequest,
    lock: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another time with the same content is no change, and is remembered so that the next look needs no digest."""
    os.utime(module(environment), (0, 0))
    assert runtimes.build(request_for_lock, lock) is None
    monkeypatch.setattr(building, "digest", lambda _: pytest.fail("it was read again"))
    assert runtimes.build(request_for_lock, lock) is None


def test_too_many_to_read_are_made_anew(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where reading what looks changed takes longer than the patience, it counts as changed."""
    for path in environment.glob("lib/*/site-packages/**/*"):
        os.utime(path, (0, 0), follow_symlinks=False)
    monkeypatch.setattr(building, "_PATIENCE", -1.0)
    found = building.changed(environment)
    assert found is not None
    assert "of its files have another time" in found[1]


def test_a_change_that_uvs_cache_shares_is_not_installed_again(
    runtimes: UvRuntimes, request_for_lock: RuntimeRequest, lock: bytes, workspace: Path, place: Place, tmp_path: Path
) -> None:
    """Files are links out of uv's cache, so that a change in place is in the cache too: then it is fetched anew."""
    command = runtimes.build(request_for_lock, lock)
    assert command is not None
    own_cache = {"UV_CACHE_DIR": str(tmp_path / "uv"), "UV_LINK_MODE": "hardlink"}
    assert place(Command(command.text, {**command.variables, **own_cache}), workspace).returncode == 0
    environment = tmp_path / "home/runtimes" / runtimes.digest(request_for_lock, lock)
    if module(environment).stat().st_nlink == 1:
        pytest.skip("uv cannot link out of its cache here")
    with module(environment).open("a") as file:
        file.write("poison = True\n")
    again = runtimes.build(request_for_lock, lock)
    assert again is not None
    done = place(Command(again.text, {**again.variables, **own_cache}), workspace)
    assert done.returncode == 0, done.stdout
    assert "uv's cache holds the changed" in done.stdout
    assert module(environment).read_text() == "version = '1.2'\n"
    assert runtimes.build(request_for_lock, lock) is None


# --- what is removed -----------------------------------------------------------------------------------------------


def test_environments_that_nobody_needs_are_removed(
    environment: Path, runtimes: UvRuntimes, request_for_lock: RuntimeRequest, lock: bytes
) -> None:
    """Kept or lately asked for stays; the others go, and what was set aside long ago with them."""
    name, now = Digest(environment.name), time.time()
    aside = environment.with_name(f"{name}{building.ASIDE}{time.time_ns()}")
    aside.mkdir()
    os.utime(environment / building.MANIFEST, (0, 0))
    assert runtimes.build(request_for_lock, lock) is None  # it is used, so that its time is new
    assert runtimes.discard((), now - HOUR) == 0
    assert runtimes.discard({name}, now + HOUR) == 1
    assert not aside.exists()
    assert environment.exists()
    assert runtimes.discard((), now + HOUR) == 1
    assert not environment.exists()
    assert runtimes.build(request_for_lock, lock) is not None


_HOLD = """
import fcntl, sys
with open(sys.argv[1], "a") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("held", flush=True)
    input()
"""


def test_an_environment_that_is_being_made_stays(environment: Path, runtimes: UvRuntimes) -> None:
    """Whoever makes it holds its lock: it is left alone however old it looks."""
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, f"{environment}.flock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    assert runtimes.discard((), time.time() + HOUR) == 0
    assert environment.exists()
    holder.communicate(b"\n")
    assert runtimes.discard((), time.time() + HOUR) == 1
