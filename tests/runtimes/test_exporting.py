"""Layers that are the same wherever they are made, and images given to the real container engine."""

import base64
import csv
import fcntl
import gzip
import hashlib
import io
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from images import MINOR, bare_image, base_image, engine, podman
from penstock import oci
from penstock.artifacts import Digest, File, Link, Tree
from penstock.cache.disk import DiskCache
from penstock.engine.contracts import Command, ContainerEngine, RuntimeRequest
from penstock.errors import EngineError, PenstockError, StateError, UsageError
from penstock.oci import Blob, Exported
from penstock.packages import Manifest, assemble
from penstock.runtimes import bases, exporting
from penstock.runtimes.exporting import Exports, Image, locked_request, target_of
from penstock.runtimes.layers import DamagedError, Item, Shelf, dependencies, write_layer
from penstock.runtimes.uv import UvRuntimes

# They make the same images, so their names for these would meet.
pytestmark = pytest.mark.xdist_group("exported images")

Place = Callable[[Command, Path], "subprocess.CompletedProcess[str]"]
Members = dict[str, tuple[tarfile.TarInfo, bytes]]

PYTHON = f"/usr/local/bin/python{MINOR}"


def quiet(_line: str) -> None:
    """Nobody listens."""


def members(path: Path) -> Members:
    """What a tar holds, by name."""
    return members_of(path.read_bytes())


def members_of(data: bytes) -> Members:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        contents = ((entry, tar.extractfile(entry) if entry.isreg() else None) for entry in tar)
        return {entry.name: (entry, content.read() if content else b"") for entry, content in contents}


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    made = Shelf(tmp_path / "images")
    with made.held(lambda: None):
        yield made


def layer(shelf: Shelf, *items: Item) -> Blob:
    with shelf.new() as written:
        write_layer(items, written)
    return written.blob


# --- the shelf and its layers --------------------------------------------------------------------------------------


def test_a_layer_depends_on_what_it_holds_alone(shelf: Shelf, tmp_path: Path) -> None:
    """Times, owners and modes of files do not matter; folders are there once, before what they hold."""
    one, two = tmp_path / "one", tmp_path / "two"
    for file, mode in ((one, 0o600), (two, 0o664)):
        file.write_bytes(b"same")
        file.chmod(mode)
    os.utime(two, (1, 1))
    made = [layer(shelf, Item("/a/b", data=b"x"), Item("/a", owner=7), Item("/a/c", path=file)) for file in (one, two)]
    assert made[0] == made[1]
    found = members(shelf.path(made[0]))
    assert list(found) == ["a", "a/b", "a/c"]
    assert {(m.uid, m.gid, m.uname, m.mtime) for m, _ in found.values()} == {(0, 0, "", 315532800)}
    assert [oct(m.mode) for m, _ in found.values()] == ["0o755", "0o644", "0o644"]


def test_programs_links_and_folders_of_others(shelf: Shelf) -> None:
    """A program may be executed, a link leads where it was written to, the one folder of another's is only theirs."""
    long = f"/{'long/' * 40}name-\u00e9"
    made = layer(shelf, Item("/x", data=b"#!", executable=True), Item(long, target="../y"), Item("/z", owner=9))
    found = members(shelf.path(made))
    assert (found["x"][0].mode, found["z"][0].mode, found["z"][0].uid) == (0o755, 0o700, 9)
    assert found[long[1:]][0].linkname == "../y"


def test_a_file_that_changed_since_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    """A layer is not made of a file whose digest is another than was told, and nothing of it is kept."""
    file = tmp_path / "file"
    file.write_bytes(b"changed")
    with pytest.raises(DamagedError):
        layer(shelf, Item("/file", path=file, sha256=hashlib.sha256(b"before").hexdigest()))
    assert [path.name for path in (shelf.folder / "blobs/sha256").iterdir()] == ["new.unfinished"]


def test_what_is_damaged_is_gone(shelf: Shelf) -> None:
    """A blob that does not match its digest is found when it is read, and is not there from then on."""
    blob = oci.blob_of(b"whole")
    shelf.add(b"whole", blob)
    assert (shelf.drop_damaged(), shelf.has(blob)) == (0, True)
    shelf.path(blob).write_bytes(b"holes")
    assert shelf.has(blob)
    with pytest.raises(DamagedError):
        shelf.pour(blob, io.BytesIO())
    assert not shelf.has(blob)


def test_unused_blobs_are_discarded(tmp_path: Path) -> None:
    """What no export used since a time goes, leftovers of a killed one too, and what is used stays."""
    exports, shelf = Exports(tmp_path, None), Shelf(tmp_path / "images")
    old, new = oci.blob_of(b"old"), oci.blob_of(b"new")
    with shelf.held(lambda: None):
        shelf.add(b"old", old)
        shelf.add(b"new", new)
        assert exports.discard((), 2) == 0  # an export is going on
        shelf.note("known", [1])
    left = shelf.path(old).with_name("new.unfinished")
    left.write_bytes(b"half")
    os.utime(shelf.path(old), (1, 1))
    assert exports.discard((), 2) == 3
    assert (shelf.has(old), shelf.has(new), left.exists(), shelf.record("known")) == (False, True, False, [1])


def test_one_export_at_a_time(tmp_path: Path) -> None:
    """A second export of a home says that it waits, and goes on when the first has ended."""
    script = (
        "import sys, pathlib; from penstock.runtimes.layers import Shelf\n"
        "with Shelf(pathlib.Path(sys.argv[1])).held(lambda: print('waits', flush=True)): print('has', flush=True)"
    )
    with Shelf(tmp_path).held(lambda: None):
        argv = [sys.executable, "-c", script, str(tmp_path)]
        second = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert second.stdout is not None
        assert second.stdout.readline() == "waits\n"
    assert second.communicate()[0] == "has\n"
    assert second.returncode == 0


# --- dependencies --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Path]:
    """A lock of one package with a program, a `.pth` file and a script of its own, and the folder of its wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    wheel = folder / "gate-1.0-py3-none-any.whl"
    meta, data = "gate-1.0.dist-info", "gate-1.0.data/scripts/gate-raw"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("gate/__init__.py", "opened = 1\ndef main(): print('gate', opened)\n")
        file.writestr("gate_path.pth", "import sys; sys.gate = 'from a .pth'\n")
        file.writestr(data, "#!python\nimport sys; print(sys.prefix)\n")
        file.writestr(f"{meta}/METADATA", "Metadata-Version: 2.1\nName: gate\nVersion: 1.0\n")
        file.writestr(f"{meta}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{meta}/entry_points.txt", "[console_scripts]\ngate = gate:main\n")
        names = ("gate/__init__.py", "gate_path.pth", data, *(f"{meta}/{n}" for n in ("METADATA", "WHEEL", "RECORD")))
        file.writestr(f"{meta}/RECORD", "".join(f"{name},,\n" for name in (*names, f"{meta}/entry_points.txt")))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return f"gate==1.0 --hash=sha256:{digest}\n".encode(), folder


def built(home: Path, lock: tuple[bytes, Path], person: Mapping[str, str], place: Place) -> tuple[UvRuntimes, Path]:
    """The environment of the lock in a home, by the real uv."""
    runtimes = UvRuntimes(home, {**person, "PIP_FIND_LINKS": str(lock[1])})
    request = RuntimeRequest("lock", "requirements.lock", MINOR)
    command = runtimes.build(request, lock[0])
    home.mkdir(parents=True, exist_ok=True)
    if command is not None:
        done = place(command, home)
        assert done.returncode == 0, done.stdout
    return runtimes, home / "runtimes" / runtimes.digest(request, lock[0])


def test_dependencies_are_the_same_from_every_home(
    shelf: Shelf, tmp_path: Path, lock: tuple[bytes, Path], person: dict[str, str], place: Place
) -> None:
    """Neither the home's path, however long, nor bytecode, nor what was added since is in the layer."""
    _, short = built(tmp_path / "h", lock, person, place)
    _, long = built(tmp_path / ("home-" * 30), lock, person, place)
    subprocess.run([long / "bin/python", "-c", "import gate"], check=True)
    (long / f"lib/python{MINOR}/site-packages/gate/notes.txt").write_text("added later")
    made = [layer(shelf, *dependencies(folder, PYTHON, MINOR)) for folder in (short, long)]
    assert made[0] == made[1]
    assert str(tmp_path).encode() not in shelf.path(made[0]).read_bytes()


def test_dependencies_are_an_environment_of_the_image(
    shelf: Shelf, tmp_path: Path, lock: tuple[bytes, Path], person: dict[str, str], place: Place
) -> None:
    """Its Python is the image's, its scripts name it, each list of files is right, and what uv adds is gone."""
    _, folder = built(tmp_path / ("home-" * 30), lock, person, place)
    found = members(shelf.path(layer(shelf, *dependencies(folder, PYTHON, MINOR))))
    root, site = "opt/penstock/env", f"opt/penstock/env/lib/python{MINOR}/site-packages"
    assert sorted(name.removeprefix(f"{root}/bin/") for name in found if name.startswith(f"{root}/bin/")) == [
        "gate",
        "gate-raw",
        "python",
        "python3",
        f"python{MINOR}",
    ]
    assert found[f"{root}/bin/python"][0].linkname == PYTHON
    assert found[f"{root}/pyvenv.cfg"][1].splitlines()[0] == b"home = /usr/local/bin"
    for script in ("gate", "gate-raw"):
        entry, text = found[f"{root}/bin/{script}"]
        assert (text.splitlines()[0], entry.mode) == (b"#!/opt/penstock/env/bin/python", 0o755)
    rows = list(csv.reader(io.StringIO(found[f"{site}/gate-1.0.dist-info/RECORD"][1].decode())))
    assert rows == sorted(rows)
    for path, hashed, size in rows:
        _, data = found[os.path.normpath(f"{site}/{path}")]
        told = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        assert (hashed, size) in {(f"sha256={told}", str(len(data))), ("", "")}
    assert [name for name in found if name.endswith((".pyc", "uv_cache.json", "_virtualenv.py", ".lock"))] == []


def test_the_lock_of_a_package_gives_its_environment_again(
    tmp_path: Path, lock: tuple[bytes, Path], person: dict[str, str], place: Place
) -> None:
    """The request is found also where the package does not say which Python it was; else it is another machine's."""
    runtimes, folder = built(tmp_path, lock, person, place)
    environment = Digest(folder.name)
    for said in (MINOR, None):
        assert runtimes.digest(locked_request(runtimes, environment, lock[0], said), lock[0]) == environment
    assert Exports(tmp_path, None).minor(environment) == MINOR
    with pytest.raises(StateError, match="locked on another kind of machine"):
        locked_request(runtimes, Digest("0" * 64), lock[0], MINOR)
    with pytest.raises(EngineError, match="not here any more"):
        Exports(tmp_path, None).minor(Digest("0" * 64))


# --- images --------------------------------------------------------------------------------------------------------


def packaged(home: Path, weights: bytes = b"weights", environment: str | None = None, lock: bytes = b"") -> Exported:
    """A package in the home's cache, and what its image is made of."""
    cache = DiskCache(home / "cache")

    def kept(data: bytes, *, executable: bool = False) -> File:
        return File(cache.add_bytes(data), len(data), executable)

    manifest = Manifest("tiny", "exec sleep 60", "/health", 20, None, None, environment, ("src",), ("model/",))
    files = Tree(
        {
            "src/serve.py": kept(b"print(1)\n"),
            "run": kept(b"#!/bin/sh\n", executable=True),
            "same": Link("src/serve.py"),
            "model/weights.bin": kept(weights),
        }
    )
    tree = assemble(files, kept(manifest.encode()), kept(lock) if lock else None)
    cache.add_tree(tree)
    return oci.exported_of(
        manifest,
        tree.digest,
        version="1.0+g1",
        commit="abc",
        identity="example.org/tiny",
        base=base_image(),
        python=MINOR if environment else None,
        variables={},
    )


def export(home: Path, exported: Exported, target: Path | str) -> Image:
    return Exports(home, engine()).export(exported, str(target), quiet)


def test_two_homes_give_the_same_file(
    tmp_path: Path, lock: tuple[bytes, Path], person: dict[str, str], place: Place
) -> None:
    """The same package on the same base: the same digest, and the same archive byte for byte."""
    made = []
    for name in ("one", "another-home"):
        _, folder = built(tmp_path / name, lock, person, place)
        exported = packaged(tmp_path / name, environment=folder.name, lock=lock[0])
        made.append(export(tmp_path / name, exported, tmp_path / f"{name}.tar"))
    assert made[0].digest == made[1].digest
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "another-home.tar").read_bytes()
    assert [part.what for part in made[0].layers][-3:] == ["dependencies", "code", "model"]


def test_what_an_archive_holds(tmp_path: Path) -> None:
    """An OCI layout whose every blob has its digest, with the package's files at their paths in its last layers."""
    image = export(tmp_path, packaged(tmp_path), tmp_path / "a.tar")
    found = members(tmp_path / "a.tar")
    assert json.loads(found["oci-layout"][1]) == {"imageLayoutVersion": "1.0.0"}
    blobs = {name: data for name, (_, data) in found.items() if name.startswith("blobs/")}
    assert all(name.rpartition("/")[2] == hashlib.sha256(data).hexdigest() for name, data in blobs.items())
    assert json.loads(found["index.json"][1])["manifests"][0]["digest"] == image.digest
    code, model = (members_of(blobs[f"blobs/{part.digest.replace(':', '/')}"]) for part in image.layers[-2:])
    assert code["opt/penstock/package/run"][0].mode == 0o755
    assert code["opt/penstock/package/same"][0].linkname == "src/serve.py"
    assert (code["opt/penstock/home"][0].uid, code["opt/penstock/home"][0].mode) == (oci.USER, 0o700)
    assert json.loads(code["opt/penstock/manifest.json"][1])["name"] == "tiny"
    assert [name for name in code if "model" in name] == []
    assert model["opt/penstock/package/model/weights.bin"][1] == b"weights"


def test_a_new_model_is_one_new_layer(tmp_path: Path) -> None:
    """Everything else stays: the base, the dependencies, the code. A large model goes by the disk and is whole."""
    first = export(tmp_path, packaged(tmp_path), tmp_path / "a.tar")
    weights = random.Random(1).randbytes(9 << 20)  # noqa: S311 (content, no secret)
    second = export(tmp_path, packaged(tmp_path, weights), tmp_path / "b.tar")
    assert [part.what for part in second.layers if part.new] == ["model"]
    assert [part.digest for part in first.layers[:-1]] == [part.digest for part in second.layers[:-1]]
    shelf = Shelf(tmp_path / "images")
    found = members(shelf.path(Blob(second.layers[-1].digest, second.layers[-1].size)))
    assert found["opt/penstock/package/model/weights.bin"][1] == weights


def test_an_unchanged_file_is_left_as_it_is(tmp_path: Path) -> None:
    """The second export writes nothing; a file that somebody touched or removed is written again, the same."""
    file, exported = tmp_path / "a.tar", packaged(tmp_path)
    first = export(tmp_path, exported, file)
    data, status = file.read_bytes(), file.stat()
    second = export(tmp_path, exported, file)
    assert (first.written, second.written, second.digest) == (True, False, first.digest)
    assert file.stat() == status
    for change in (lambda: file.write_bytes(b"other"), file.unlink):
        change()
        assert export(tmp_path, exported, file).written
        assert file.read_bytes() == data


def test_a_damaged_layer_is_made_anew(tmp_path: Path) -> None:
    """What rotted on the disk is found when it is copied, said, and made again: the image is the same."""
    exported, said = packaged(tmp_path), list[str]()
    first = export(tmp_path, exported, tmp_path / "a.tar")
    for part in first.layers:
        blob = Shelf(tmp_path / "images").path(Blob(part.digest, part.size))
        blob.write_bytes(b"\1" * part.size)
    second = Exports(tmp_path, engine()).export(exported, str(tmp_path / "b.tar"), said.append)
    assert second.digest == first.digest
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert "something was changed since it was made: it is made anew" in said


@pytest.fixture
def name() -> Iterator[str]:
    """A name for an image of the test's own, which is gone afterwards."""
    made = f"localhost/penstock-test-made-{os.getpid()}:{random.SystemRandom().randint(0, 10**9)}"
    yield made
    podman("image", "rm", "--force", made)


def test_podman_gets_the_image_under_its_name(tmp_path: Path, name: str) -> None:
    """It has the digest that was told and no other name; a second export finds it there, a newer one replaces it."""
    exported = packaged(tmp_path)
    first = export(tmp_path, exported, name)
    known = json.loads(podman("image", "inspect", name).stdout)[0]
    assert (known["Digest"], f"sha256:{known['Id']}") == (first.digest, first.id)
    # What a killed test left may be the same image.
    assert [n for n in known["RepoTags"] if n == name or "penstock-test-made" not in n] == [name]
    assert (first.written, export(tmp_path, exported, name).written) == (True, False)
    second = export(tmp_path, packaged(tmp_path, b"newer"), name)
    assert json.loads(podman("image", "inspect", name).stdout)[0]["Digest"] == second.digest != first.digest
    assert list(Path("/tmp").glob(f"penstock-export-{os.getuid()}-{second.digest[7:23]}")) == []  # noqa: S108


def test_what_a_killed_export_left_with_podman_goes(tmp_path: Path, name: str) -> None:
    """Killed when the image had its name already, the next export finds it and takes away the name in between."""
    exported = packaged(tmp_path)
    image = export(tmp_path, exported, name)
    layout = bases.layout_folder(image.digest.removeprefix("sha256:"))
    layout.mkdir()
    podman("tag", name, f"localhost{layout}")
    assert not export(tmp_path, exported, name).written
    names = json.loads(podman("image", "inspect", name).stdout)[0]["RepoTags"]  # another test may have made the same
    assert name in names
    assert not [other for other in names if str(layout) in other]
    assert not layout.exists()


def test_docker_gets_an_archive(tmp_path: Path, name: str) -> None:
    """An engine that is called as docker is reads the archive from its standard input and has the same image."""
    program = tmp_path / "docker"
    program.write_text(f'#!/bin/sh\nexec {engine().program} "$@"\n')
    program.chmod(0o755)
    docker = ContainerEngine("docker", str(program), engine().variables)
    exported = packaged(tmp_path)
    image = Exports(tmp_path, docker).export(exported, name, quiet)
    assert json.loads(podman("image", "inspect", name).stdout)[0]["Id"] == image.id.removeprefix("sha256:")
    assert not Exports(tmp_path, docker).export(exported, name, quiet).written


def test_the_command_does_the_same(tmp_path: Path, place: Place) -> None:
    """A runner that executes the command gets the image on the last line, or one sentence that says why not."""
    exported, exports = packaged(tmp_path), Exports(tmp_path, engine())
    done = place(exports.command(exported, str(tmp_path / "a.tar")), tmp_path)
    assert done.returncode == 0, done.stdout
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["digest"] == export(tmp_path, exported, tmp_path / "a.tar").digest
    lost = place(exports.command(exported, str(tmp_path / "no/where/a.tar")), tmp_path)
    assert (lost.returncode, "Traceback" in lost.stdout) == (1, False)
    assert "cannot be written (No such file or directory): name another file" in lost.stdout


def test_killed_exports_converge(tmp_path: Path) -> None:
    """Killed at many moments and started again, the export ends with the image of one that nobody killed."""
    exported = packaged(tmp_path / "whole", random.Random(2).randbytes(20 << 20))  # noqa: S311 (as above)
    whole = export(tmp_path / "whole", exported, tmp_path / "whole.tar")
    home, file = tmp_path / "killed", tmp_path / "killed.tar"
    packaged(home, random.Random(2).randbytes(20 << 20))  # noqa: S311 (as above)
    command = Exports(home, engine()).command(exported, str(file))
    for seconds in (0.15, 0.3, 0.45, 0.6, 0.75, 0.9):
        argv = ["sh", "-c", f"exec {command.text}"]
        process = subprocess.Popen(argv, env=dict(command.variables), stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert export(home, exported, file).digest == whole.digest
    assert file.read_bytes() == (tmp_path / "whole.tar").read_bytes()
    assert list(home.glob("images/**/*.unfinished")) == []


# --- what does not fit ---------------------------------------------------------------------------------------------


def refused(home: Path, exported: Exported, target: str = "/nowhere/a.tar") -> str:
    with pytest.raises(PenstockError) as error:
        Exports(home, engine()).export(exported, target, quiet)
    return str(error.value)


def test_a_base_must_fit(tmp_path: Path) -> None:
    """No sh, no Python of that version, another C library or another processor: each is one sentence."""
    exported = packaged(tmp_path)
    empty = replace(exported, base=bare_image("empty", "/usr/bin/true"))
    assert "has no sh, which starts the server: name another with --base" in refused(tmp_path, empty)
    other = replace(exported, base=bare_image("other", "/bin/sh", "/usr/local/bin/python3.9"), python="3.11")
    assert "has no python3.11 on its PATH" in refused(tmp_path, other)
    assert "(it has python3.9)" in refused(tmp_path, other)
    programs = ("/bin/sh", "/usr/bin/python3.11", "/lib/ld-musl-x86_64.so.1")
    musl = replace(exported, base=bare_image("musl", *programs), python="3.11")
    assert "has another C library than the machine on which" in refused(tmp_path, musl)


def test_a_base_that_nobody_has(tmp_path: Path) -> None:
    """An image that is not here and cannot be pulled is named, with the engine's own words."""
    lost = replace(packaged(tmp_path), base="localhost:1/no/such:image")
    said = refused(tmp_path, lost)
    assert "is not on this machine and" in said
    assert "pull it, or name another with --base" in said


def test_without_an_engine(tmp_path: Path) -> None:
    """A machine without podman and docker is told so."""
    exported = Exported("a", "1", "c", "d", "base", None, "/")
    with pytest.raises(EngineError, match="needs podman or docker"):
        Exports(tmp_path, None).export(exported, "/nowhere/a.tar", quiet)


def test_an_environment_that_is_gone(tmp_path: Path) -> None:
    """Dependencies are read where they were built; without them there is a sentence, not half an image."""
    assert "is not here any more: try again" in refused(tmp_path, packaged(tmp_path, environment="e" * 64))


def test_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is told by its whole path, a name by its whole reference."""
    monkeypatch.chdir(tmp_path)
    assert target_of("sub/../a.tar", "1") == str(tmp_path / "a.tar")
    assert target_of("a", "1+x") == "localhost/a:1-x"
    with pytest.raises(UsageError):
        target_of("A", "1")


# --- archives of other engines -------------------------------------------------------------------------------------


def saved(
    folder: Path, files: Mapping[str, bytes], links: Mapping[str, str], *, id_: str = "f" * 64
) -> ContainerEngine:
    """An engine that saves an image as these files; all it knows is this one image."""
    with tarfile.open(folder / "saved.tar", "w") as tar:
        for path, data in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        for path, target in links.items():
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    told = json.dumps([{"Id": f"sha256:{id_}", "RepoDigests": ["docker.io/a@sha256:2", "docker.io/a@sha256:1"]}])
    program = folder / "docker"
    program.write_text(
        f"#!/bin/sh\ncase $1 in image) echo '{told}';; save) exec cat {folder / 'saved.tar'};; *) exit 1;; esac\n"
    )
    program.chmod(0o755)
    return ContainerEngine("docker", str(program), {"PATH": os.environ["PATH"]})


def _tar(*names: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    return out.getvalue()


def _saved_files(first: bytes, second: bytes, architecture: str) -> dict[str, bytes]:
    digests = [oci.blob_of(data).digest for data in (first, second, first)]
    config: dict[str, Any] = {"architecture": architecture, "rootfs": {"diff_ids": digests}}
    listed = [{"Config": "config.json", "Layers": ["1/layer.tar", "2/layer.tar", "3/layer.tar"]}]
    return {
        "1/layer.tar": gzip.compress(first),
        "2/layer.tar": second,
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(listed).encode(),
    }


def test_layers_of_a_saved_image_are_unpacked(tmp_path: Path) -> None:
    """Compressed layers, and layers that are links to others, are taken by the digest of what they hold."""
    files = _saved_files(_tar("bin/sh"), _tar("etc/name"), "none")
    docker = saved(tmp_path, files, {"3/layer.tar": "../1/layer.tar"})
    exported = Exported("a", "1", "c", "d", "docker.io/a:1", None, "/")
    with pytest.raises(UsageError, match=r"docker.io/a:1 is for none, this machine is \w+: name another"):
        Exports(tmp_path, docker).export(exported, str(tmp_path / "a.tar"), quiet)
    kept = {path.name for path in (tmp_path / "images/blobs/sha256").iterdir()}
    assert kept == {hashlib.sha256(data).hexdigest() for data in (_tar("bin/sh"), _tar("etc/name"))}


@pytest.mark.parametrize("lost", ["manifest.json", "2/layer.tar", "config.json"])
def test_an_image_that_is_not_whole(tmp_path: Path, lost: str) -> None:
    """A part that is missing or another than the configuration says is told, and nothing is built on it."""
    files = _saved_files(_tar("bin/sh"), _tar("etc/name"), "none")
    files[lost] = b"{}"
    exported = Exported("a", "1", "c", "d", "docker.io/a:1", None, "/")
    with pytest.raises(EngineError, match="was not saved whole: try again, or name another base"):
        Exports(tmp_path, saved(tmp_path, files, {"3/layer.tar": "1/layer.tar"})).export(exported, "/x.tar", quiet)


def test_an_engine_that_fails(tmp_path: Path) -> None:
    """An engine that cannot save says why, in its own words."""
    program = saved(tmp_path, {}, {})
    Path(program.program).write_text(
        "#!/bin/sh\ncase $1 in image) echo '[{\"Id\": \"1\"}]';; *) echo 'no room.' >&2; exit 1;; esac\n"
    )
    exported = Exported("a", "1", "c", "d", "docker.io/a:1", None, "/")
    with pytest.raises(EngineError, match=r"could not save the image docker.io/a:1: no room$"):
        Exports(tmp_path, program).export(exported, str(tmp_path / "a.tar"), quiet)


def test_an_engine_that_cannot_look(tmp_path: Path) -> None:
    """An engine that fails when it is asked for an image is not taken for one that has none: nothing is pulled."""
    program = saved(tmp_path, {}, {})
    Path(program.program).write_text(
        "#!/bin/sh\ncase $1 in image) echo 'Error: no space.' >&2; exit 125;; *) touch \"$0.pulled\"; exit 1;; esac\n"
    )
    exported = Exported("a", "1", "c", "d", "docker.io/a:1", None, "/")
    with pytest.raises(EngineError, match=r"docker could not look at the image docker.io/a:1: Error: no space$"):
        Exports(tmp_path, program).export(exported, str(tmp_path / "a.tar"), quiet)
    assert not Path(f"{program.program}.pulled").exists()


def test_a_start_hands_term_on() -> None:
    """TERM reaches the server through the first process, which ends as the server does, when it has finished."""
    script = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: (print('ending', flush=True), sys.exit(5)))\n"
        "print('serving', flush=True); signal.pause()"
    )
    argv = ["sh", "-c", oci.START, "serve", f"{shlex.join([sys.executable, '-c', script])}\necho no"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "serving\n"
        process.send_signal(signal.SIGTERM)
        assert process.communicate()[0] == "ending\n"
    assert process.returncode == 5


@pytest.mark.parametrize(("serve", "code"), [("exit 3", 3), ("false\nexit 0", 1), ("cd / && true", 0)])
def test_a_start_ends_as_its_server(serve: str, code: int) -> None:
    """The exit code is that of the serve command, which stops at the first error as under Penstock."""
    done = subprocess.run(["sh", "-c", oci.START, "serve", serve], start_new_session=True, check=False)
    assert done.returncode == code


# --- what goes wrong at the end ------------------------------------------------------------------------------------


def failing(folder: Path, kind: str) -> ContainerEngine:
    """The engine of this machine, but that it takes no image."""
    program = folder / kind
    program.write_text(
        f'#!/bin/sh\n[ "$1" = load ] && {{ cat; echo "Error: no room." >&2; exit 1; }}\nexec {engine().program} "$@"\n'
    )
    program.chmod(0o755)
    return replace(engine(), kind="podman" if kind == "podman" else "docker", program=str(program))


@pytest.mark.parametrize("kind", ["podman", "docker"])
def test_an_engine_that_takes_nothing(tmp_path: Path, kind: str, name: str) -> None:
    """Its own words are told, the layers stay for the next try, and what was rotten among them is made anew."""
    exported, said = packaged(tmp_path), list[str]()
    broken = Exports(tmp_path, failing(tmp_path, kind))
    with pytest.raises(EngineError, match=rf"{kind} could not take the image {name}: Error: no room$"):
        broken.export(exported, name, quiet)
    shelf = Shelf(tmp_path / "images")
    model = max((shelf.folder / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    model.write_bytes(b"\1" * model.stat().st_size)
    with pytest.raises(EngineError):
        broken.export(exported, name, said.append)
    assert "something was changed since it was made: it is made anew" in said
    assert export(tmp_path, exported, name).written


def test_two_homes_do_not_write_one_file(tmp_path: Path) -> None:
    """While another export writes the same file, this one says so and touches nothing."""
    with (tmp_path / ".a.tar.unfinished").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StateError, match=r"another export is writing .*: try again when it has ended"):
            export(tmp_path, packaged(tmp_path), tmp_path / "a.tar")
    assert export(tmp_path, packaged(tmp_path), tmp_path / "a.tar").written


def test_what_a_runner_executes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The image on the last line and 0, or one sentence and 1."""
    argv = shlex.split(Exports(tmp_path, engine()).command(packaged(tmp_path), str(tmp_path / "a.tar")).text)
    for variable, value in engine().variables.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(sys, "argv", argv[3:])
    assert exporting.main() == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["reference"] == str(tmp_path / "a.tar")
    monkeypatch.setattr(sys, "argv", [*argv[3:-3], str(tmp_path / "no/a.tar"), *argv[-2:]])
    assert exporting.main() == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith("name another file")
