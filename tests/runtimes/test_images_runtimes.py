"""Images as runtimes, by the real container engine: pinned, pulled, built, found again, discarded."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from images import base_image, podman
from images import engine as find_engine
from penstock.artifacts import Digest
from penstock.engine.contracts import Command, ContainerEngine, RuntimeRequest, Runtimes
from penstock.errors import EngineError, SourceError
from penstock.images import parse_image
from penstock.runtimes.choosing import ChosenRuntimes
from penstock.runtimes.images import ImageRuntimes, described
from penstock.runtimes.imaging import base_reference, build_argv
from penstock.runtimes.pulling import why_not
from penstock.runtimes.uv import UvRuntimes
from runtimes.registry import Registry, served

Place = Callable[[Command, Path], "subprocess.CompletedProcess[str]"]

DOCKERFILE = RuntimeRequest("dockerfile", "docker/Dockerfile")
UNKNOWN = ContainerEngine("podman", "/nonexistent/podman", {})
HOUR = 3600.0
NOTHING: Mapping[str, bytes] = {}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with served(Registry()) as found:
        (tmp_path / "registries.conf").write_text(f'[[registry]]\nlocation = "{found.host}"\ninsecure = true\n')
        yield found


@pytest.fixture
def engine(tmp_path: Path, registry: Registry) -> ContainerEngine:
    """The machine's engine, which speaks to the registry of the test without TLS."""
    del registry
    found = find_engine()
    if found.kind != "podman":
        pytest.skip("only podman is told by a variable to pull without TLS")
    return replace(
        found, variables={**found.variables, "CONTAINERS_REGISTRIES_CONF": str(tmp_path / "registries.conf")}
    )


@pytest.fixture
def images(tmp_path: Path, engine: ContainerEngine) -> Iterator[ImageRuntimes]:
    """Image runtimes of a home of the test's own; what they built goes with it."""
    runtimes = ImageRuntimes(tmp_path / "home", engine)
    yield runtimes
    runtimes.discard((), time.time() + HOUR)


@pytest.fixture
def tag() -> Iterator[str]:
    """A name for an image of this test alone."""
    name = f"localhost/penstock-test-images:{os.urandom(6).hex()}"
    yield name
    podman("rmi", "--force", name)


def make(name: str, folder: Path, content: str, *options: str) -> str:
    """An image that holds one file; its ID."""
    folder.mkdir(exist_ok=True)
    (folder / "who").write_text(content)
    subprocess.run(["tar", "-C", str(folder), "-cf", str(folder / "image.tar"), "who"], check=True)
    done = podman("import", *options, str(folder / "image.tar"), name)
    assert done.returncode == 0, done.stderr
    return f"sha256:{podman('image', 'inspect', '--format', '{{.Id}}', name).stdout.strip()}"


def published(registry: Registry, repository: str, name: str, folder: Path) -> str:
    """Put an image of this machine into the registry, and take it off the machine; the name to pull it by."""
    assert podman("push", name, f"oci:{folder}:1").returncode == 0
    registry.images[repository] = folder
    assert podman("rmi", name).returncode == 0
    return f"{registry.host}/{repository}:1"


def image(name: str) -> RuntimeRequest:
    return RuntimeRequest("image", name)


def lay_out(folder: Path, files: Mapping[str, bytes]) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def locked(
    runtimes: Runtimes | ImageRuntimes, request: RuntimeRequest, commit: Mapping[str, bytes], place: Place, folder: Path
) -> bytes:
    files = runtimes.files(request, commit.get, commit)
    done = place(runtimes.resolve(request, files), lay_out(folder, files))
    assert done.returncode == 0, done.stdout
    return (folder / "penstock.lock").read_bytes()


def refused(runtimes: ImageRuntimes, name: str, place: Place, folder: Path) -> str:
    """The last line of a resolution that fails."""
    folder.mkdir(exist_ok=True)
    done = place(runtimes.resolve(image(name), {}), folder)
    assert done.returncode == 1
    assert not (folder / "penstock.lock").exists()
    return done.stdout.strip().splitlines()[-1]


def built(runtimes: ImageRuntimes, request: RuntimeRequest, lock: bytes, place: Place, folder: Path) -> str:
    """Make the environment of a lock; its image."""
    command = runtimes.build(request, lock)
    assert command is not None
    done = place(command, folder)
    assert done.returncode == 0, done.stdout
    assert runtimes.build(request, lock) is None
    found = runtimes.image(runtimes.digest(request, lock))
    assert found is not None
    return found


# --- an image by its name ------------------------------------------------------------------------------------------


def test_a_local_image(images: ImageRuntimes, tag: str, workspace: Path, place: Place, tmp_path: Path) -> None:
    """What this machine holds under a tag is what it means; where it means another image, the key is another."""
    absent = images.key(image(tag), {})
    first = make(tag, tmp_path / "image", "one")
    key = images.key(image(tag), {})
    lock = locked(images, image(tag), {}, place, workspace)
    assert json.loads(lock) == {"image": tag, "pinned": first, "id": first, "platform": images_platform()}
    assert described(lock) == f"{tag} at {first[:19]}…"
    assert built(images, image(tag), lock, place, workspace) == first
    assert images.variables(images.digest(image(tag), lock)) == {}
    second = make(tag, tmp_path / "image", "two")
    assert len({absent, key, images.key(image(tag), {})}) == 3
    again = locked(images, image(tag), {}, place, workspace)
    assert json.loads(again)["id"] == second
    assert images.digest(image(tag), again) != images.digest(image(tag), lock)
    podman("rmi", first)


def images_platform() -> str:
    return f"linux/{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(os.uname().machine, os.uname().machine) }"


def test_a_pulled_image(
    images: ImageRuntimes, registry: Registry, tag: str, workspace: Path, place: Place, tmp_path: Path
) -> None:
    """It is pinned by its registry's digest, by which it comes back after it was removed; discarding leaves it."""
    made = make(tag, tmp_path / "image", registry.host)
    name = published(registry, "team/base", tag, tmp_path / "layout")
    lock = locked(images, image(name), {}, place, workspace)
    pinned = f"{registry.host}/team/base@{registry.digest('team/base')}"
    assert json.loads(lock)["pinned"] == pinned
    assert described(lock) == f"{name} at {registry.digest('team/base')[:19]}…"
    assert built(images, image(name), lock, place, workspace) == made
    podman("rmi", "--force", made)
    command = images.build(image(name), lock)
    assert command is not None
    assert command.reason == "the image was removed from podman since then"
    assert built(images, image(name), lock, place, workspace) == made
    assert images.discard((), time.time() + HOUR) == 1
    assert images.image(images.digest(image(name), lock)) is None
    assert podman("image", "inspect", made).returncode == 0
    command = images.build(image(name), lock)
    assert command is not None
    assert command.reason == f"{described(lock)} is not here yet"
    podman("rmi", "--force", made)


def test_a_name_with_a_digest(
    registry: Registry, images: ImageRuntimes, tag: str, place: Place, tmp_path: Path
) -> None:
    """Its key needs no engine's answer; it is pulled by the digest, and the tag beside it says nothing."""
    made = make(tag, tmp_path / "image", registry.host)
    name = published(registry, "team/base", tag, tmp_path / "layout")
    digest = registry.digest("team/base")
    deaf = ImageRuntimes(tmp_path / "home", UNKNOWN)
    assert deaf.key(image(f"{name}@{digest}"), {}) == images.key(image(f"{name}@{digest}"), {})
    lock = json.loads(locked(images, image(f"{name}@{digest}"), {}, place, tmp_path / "workspace"))
    assert (lock["pinned"], lock["id"]) == (f"{registry.host}/team/base@{digest}", made)
    podman("rmi", "--force", made)


def test_images_that_cannot_be_had(images: ImageRuntimes, registry: Registry, place: Place, tmp_path: Path) -> None:
    """Each failure ends in one sentence with what to do, and the engine's own words behind it."""
    host, folder = registry.host, tmp_path / "workspace"
    registry.images["team/base"] = tmp_path
    (tmp_path / "index.json").write_text('{"manifests": [{"digest": "sha256:00"}]}')
    said = refused(images, f"{host}/team/none:1", place, folder)
    assert said.startswith(f"the image {host}/team/none:1 does not exist at its registry: correct its name (podman: ")
    assert "does not exist" in refused(images, f"{host}/team/base:2", place, folder)
    said = refused(images, f"{host}/private/x:1", place, folder)
    assert said.startswith(f"the image {host}/private/x:1 may not be pulled: ")
    assert f"`podman login {host}`" in said
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = f"localhost:{free.getsockname()[1]}/x:1"
    assert "its registry cannot be reached" in refused(images, closed, place, folder)
    assert "localhost is no registry" in refused(images, "localhost/penstock-test-none:1", place, folder)


def test_a_number_in_a_port_is_no_status() -> None:
    """A registry at port 40337 or 40443 that is down is not taken for one that answered 403 or 404."""
    for port in (40337, 40443):
        name = parse_image(f"localhost:{port}/x:1")
        said = f"pinging container registry localhost:{port}: dial tcp 127.0.0.1:{port}: connect: connection refused"
        assert "its registry cannot be reached" in why_not(name, said, "podman")
        assert "may not be pulled" in why_not(name, f"localhost:{port}: StatusCode: 403, <html>", "podman")
        assert "does not exist" in why_not(name, f"localhost:{port}: unexpected status code 404", "podman")


def test_a_name_without_a_host(images: ImageRuntimes, place: Place, tmp_path: Path) -> None:
    """Where the person's engine takes it for nothing, it is Docker Hub's, as everywhere."""
    done = place(images.resolve(image("penstock-test-none:1"), {}), tmp_path)
    assert done.returncode == 1
    assert "docker.io/library/penstock-test-none:1" in done.stdout.splitlines()[-1]


def test_an_image_for_another_machine(
    images: ImageRuntimes, tag: str, place: Place, workspace: Path, tmp_path: Path
) -> None:
    """An image of another architecture is refused before anything runs in it."""
    other = "s390x"
    make(tag, tmp_path / "image", "one", "--arch", other)
    said = refused(images, tag, place, workspace)
    assert said.startswith(f"the image {tag} is made for linux/{other}, and {images_platform()} is needed")


def test_a_local_image_that_is_gone(
    images: ImageRuntimes, tag: str, place: Place, workspace: Path, tmp_path: Path
) -> None:
    """What no registry has cannot come back: the sentence says what to do."""
    made = make(tag, tmp_path / "image", "one")
    lock = locked(images, image(tag), {}, place, workspace)
    podman("rmi", made)
    command = images.build(image(tag), lock)
    assert command is not None
    done = place(command, workspace)
    assert done.returncode == 1
    assert "is gone from this machine, and no registry has it: build or load it again" in done.stdout


def test_without_an_engine(tmp_path: Path) -> None:
    """Whoever asks for an image is told what to install; the rest works."""
    images = ImageRuntimes(tmp_path, None)
    with pytest.raises(EngineError, match="runtime names python:3, and this machine has no container engine"):
        images.files(image("python:3"), NOTHING.get)
    with pytest.raises(EngineError, match="podman or docker"):
        images.files(DOCKERFILE, NOTHING.get)
    assert images.discard((), time.time()) == 0


def test_an_engine_that_does_not_answer(tmp_path: Path) -> None:
    """It is one sentence, where its answer is needed."""
    with pytest.raises(EngineError, match=r"/nonexistent/podman does not answer .* repair podman"):
        ImageRuntimes(tmp_path, UNKNOWN).key(image("python:3"), {})


def test_what_is_no_name(tmp_path: Path) -> None:
    """The file's schema refuses it first; a draft or an old file is refused here."""
    with pytest.raises(SourceError, match=r"runtime.image: .* lower case"):
        ImageRuntimes(tmp_path, UNKNOWN).files(image("Python"), NOTHING.get)


def test_a_lock_that_is_none(tmp_path: Path) -> None:
    """A lock of uv or a damaged one is said to be none."""
    for lock in (b"six==1 --hash=sha256:00", b"{}", b"[1]"):
        with pytest.raises(EngineError, match="the lock of the image cannot be read"):
            ImageRuntimes(tmp_path, UNKNOWN).digest(image("python:3"), lock)


# --- an image by its Dockerfile ------------------------------------------------------------------------------------


def commit_of(text: str, **more: bytes) -> dict[str, bytes]:
    files = {f"docker/{name}": data for name, data in more.items()}
    return {"docker/Dockerfile": text.encode(), "README.md": b"", **files}


def inside(image: str, text: str) -> str:
    done = podman("run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", image, "-c", text)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_image_is_built_from_a_dockerfile(
    images: ImageRuntimes, workspace: Path, place: Place, tmp_path: Path
) -> None:
    """Once per lock, upon the pinned image, with the build's words in the log; made again it is the same image."""
    text = f"ARG BASE={base_image()}\nFROM $BASE AS one\nRUN echo hello; echo two > /two\nFROM one\nCOPY x /x\n"
    commit = commit_of(text, x=b"ex")
    lock = locked(images, DOCKERFILE, commit, place, workspace)
    assert described(lock).startswith(f"docker/Dockerfile upon {base_image()} at sha256:")
    command = images.build(DOCKERFILE, lock)
    assert command is not None
    done = place(command, workspace)
    assert done.returncode == 0, done.stdout
    assert "hello" in done.stdout
    found = images.image(images.digest(DOCKERFILE, lock))
    assert found is not None
    assert images.build(DOCKERFILE, lock) is None
    assert inside(found, "read a </x; read b </two; echo $a $b") == "ex two\n"
    podman("rmi", "--force", found)
    command = images.build(DOCKERFILE, lock)
    assert command is not None
    assert command.reason == "the image was removed from podman since then"
    assert json.loads(lock)["bases"][0]["image"] == base_image()
    pinned = (tmp_path / "home/runtimes" / images.digest(DOCKERFILE, lock) / "Dockerfile").read_text()
    assert pinned.splitlines()[1] == f"FROM {json.loads(lock)['bases'][0]['id']} AS one"


def test_files_keep_their_times(images: ImageRuntimes, workspace: Path, place: Place) -> None:
    """What a build writes is dated when it was written: bytecode that goes by dates would be useless otherwise."""
    commit = commit_of(f"FROM {base_image()}\nRUN touch /written\n")
    built(images, DOCKERFILE, locked(images, DOCKERFILE, commit, place, workspace), place, workspace)
    image = images.image(images.digest(DOCKERFILE, locked(images, DOCKERFILE, commit, place, workspace)))
    look = "import os; print(os.stat('/written').st_mtime)"
    found = podman("run", "--rm", "--network", "host", image or "", "python3", "-c", look).stdout
    assert abs(float(found) - time.time()) < HOUR


def test_a_shell_of_its_own(images: ImageRuntimes, workspace: Path, place: Place) -> None:
    """SHELL counts, as with docker, though podman's own format does not know it."""
    commit = commit_of(f'FROM {base_image()}\nSHELL ["/bin/sh", "-e", "-c"]\nRUN false; true\n')
    lock = locked(images, DOCKERFILE, commit, place, workspace)
    command = images.build(DOCKERFILE, lock)
    assert command is not None
    assert place(command, workspace).returncode == 1


def test_only_what_it_takes_changes_it(images: ImageRuntimes, workspace: Path, place: Place) -> None:
    """An unrelated file does not; the content of a file, or that it may be executed, does."""
    text = f"FROM {base_image()}\nCOPY x /x\n"
    first = locked(images, DOCKERFILE, commit_of(text, x=b"1", other=b"1"), place, workspace)
    same = locked(images, DOCKERFILE, commit_of(text, x=b"1", other=b"2"), place, workspace)
    other = locked(images, DOCKERFILE, commit_of(text, x=b"2"), place, workspace)
    assert first == same
    assert images.digest(DOCKERFILE, first) != images.digest(DOCKERFILE, other)
    files = images.files(DOCKERFILE, commit_of(text, x=b"1").get, list(commit_of(text, x=b"1")))
    assert sorted(files) == ["docker/Dockerfile", "docker/x"]
    lay_out(workspace, files)
    (workspace / "docker/x").chmod(0o755)
    assert place(images.resolve(DOCKERFILE, files), workspace).returncode == 0
    assert json.loads((workspace / "penstock.lock").read_bytes())["context"] != json.loads(first)["context"]
    command = images.build(DOCKERFILE, first)
    assert command is not None
    done = place(command, workspace)
    assert done.returncode == 1
    assert "what docker/Dockerfile is built from is not what its lock was made for" in done.stdout


def test_a_base_that_means_another_image(images: ImageRuntimes, tag: str, tmp_path: Path) -> None:
    """A tag in a FROM is looked at as the name of an image is."""
    files = commit_of(f"FROM {tag}\nCOPY --from={tag} /who /\n")
    make(tag, tmp_path / "image", "one")
    before = images.key(DOCKERFILE, files)
    podman("rmi", tag)
    make(tag, tmp_path / "image", "two")
    assert images.key(DOCKERFILE, files) != before


def test_a_build_that_fails(images: ImageRuntimes, workspace: Path, place: Place) -> None:
    """The engine says which line failed, and the last line where to look; the next one begins anew."""
    commit = commit_of(f"FROM {base_image()}\nRUN exit 7\n")
    lock = locked(images, DOCKERFILE, commit, place, workspace)
    command = images.build(DOCKERFILE, lock)
    assert command is not None
    done = place(command, workspace)
    assert done.returncode == 1
    assert "RUN exit 7" in done.stdout
    assert done.stdout.endswith(
        "the image of docker/Dockerfile could not be built: podman says above which line failed and why\n"
    )
    assert images.image(images.digest(DOCKERFILE, lock)) is None
    assert images.discard((), time.time() + HOUR) == 1


def test_what_a_base_copies_by_itself(images: ImageRuntimes, tag: str, workspace: Path, place: Place) -> None:
    """ONBUILD of a base would copy what is not there: it is refused, unless all of the context is."""
    lay_out(workspace, {"Dockerfile": f"FROM {base_image()}\nONBUILD COPY x /x\n".encode()})
    assert podman("build", "--format", "docker", "--tag", tag, str(workspace)).returncode == 0
    files = commit_of(f"FROM {tag}\n", x=b"1")
    done = place(images.resolve(DOCKERFILE, files), lay_out(workspace, files))
    assert done.returncode == 1
    assert done.stdout.startswith(f"docker/Dockerfile:1: {tag} itself copies from the context (ONBUILD COPY x /x)")
    files = commit_of(f"FROM {tag}\nCOPY . /y\n", x=b"1")
    lock = locked(images, DOCKERFILE, files, place, workspace)
    assert inside(built(images, DOCKERFILE, lock, place, workspace), "read a </x || echo $a") == "1\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("FROM $X\n", "docker/Dockerfile:1: which image FROM \\$X means"),
        ("FROM a\nFROM Big\n", 'docker/Dockerfile:2: "Big" has capital letters'),
        ("FROM a\nCOPY gone /x\n", "docker/Dockerfile:2: COPY takes gone"),
    ],
)
def test_a_dockerfile_that_cannot_be_built(tmp_path: Path, text: str, sentence: str) -> None:
    """It is said before anything is begun, with its line."""
    commit = commit_of(text)
    with pytest.raises(SourceError, match=sentence):
        ImageRuntimes(tmp_path, UNKNOWN).files(DOCKERFILE, commit.get, commit)


# --- killed, and at once -------------------------------------------------------------------------------------------


def asking(listener: socket.socket, base: str) -> str:
    """A Dockerfile whose one RUN waits until the test answers."""
    code = f"import socket; s = socket.create_connection(('127.0.0.1', {listener.getsockname()[1]})); s.recv(1)"
    return f'FROM {base}\nRUN ["/usr/local/bin/python3", "-c", "{code}"]\n'


def placed(command: Command, folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        ["sh", "-e", "-c", command.text],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **command.variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_two_at_once_build_once(images: ImageRuntimes, workspace: Path, place: Place) -> None:
    """The second waits for the first, and has its image."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(240)  # builds wait for each other's storage
        lock = locked(images, DOCKERFILE, commit_of(asking(listener, base_image())), place, workspace)
        command = images.build(DOCKERFILE, lock)
        assert command is not None
        with placed(command, workspace) as first:
            asked = listener.accept()[0]
            with placed(command, workspace) as second, asked:
                assert second.stdout is not None
                assert second.stdout.readline() == "another run is making this image: waiting for it\n"
                asked.sendall(b"x")
                assert second.communicate()[0] == "the image was built already\n"
                assert "was built as sha256:" in first.communicate()[0]
        assert (first.returncode, second.returncode) == (0, 0)


def test_a_killed_build_is_begun_again(images: ImageRuntimes, tag: str, workspace: Path, place: Place) -> None:
    """Whether the whole tree is killed or the script alone, the next build stands in the end."""
    lay_out(workspace, {"Dockerfile": f"FROM {base_image()}\nLABEL of={tag[-12:]}\n".encode()})
    assert podman("build", "--tag", tag, str(workspace)).returncode == 0  # with it goes what killed builds leave
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        lock = locked(images, DOCKERFILE, commit_of(asking(listener, tag)), place, workspace)
        command = images.build(DOCKERFILE, lock)
        assert command is not None
        with placed(command, workspace) as process, listener.accept()[0]:
            os.killpg(process.pid, signal.SIGKILL)
        assert images.build(DOCKERFILE, lock) is not None
        with placed(command, workspace) as process, listener.accept()[0] as asked:
            os.kill(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            assert images.build(DOCKERFILE, lock) is not None
            with placed(command, workspace) as next_one:
                assert next_one.stdout is not None
                assert next_one.stdout.readline() == "another run is making this image: waiting for it\n"
                asked.sendall(b"x")
                said = next_one.communicate()[0]
        assert next_one.returncode == 0, said
        assert images.build(DOCKERFILE, lock) is None


# --- discarding ----------------------------------------------------------------------------------------------------


def test_only_what_we_built_is_discarded(
    images: ImageRuntimes, tag: str, workspace: Path, place: Place, tmp_path: Path
) -> None:
    """Not what is kept, was used lately or has another name too; never what the person built or pulled."""
    base = base_image()
    made: dict[Digest, str] = {}
    for number in ("1", "2", "3"):
        lock = locked(
            images, DOCKERFILE, commit_of(f"FROM {base}\nCOPY x /{tag[-8:]}\n", x=number.encode()), place, workspace
        )
        made[images.digest(DOCKERFILE, lock)] = built(images, DOCKERFILE, lock, place, workspace)
    kept, named, gone = made
    assert images.environments() == set(made)
    assert images.discard((), time.time() - HOUR) == 0
    podman("tag", made[named], tag)
    assert images.discard([kept], time.time() + HOUR) == 2
    there = {environment for environment in made if podman("image", "inspect", made[environment]).returncode == 0}
    assert there == {kept, named}
    assert images.image(kept) == made[kept]
    assert images.image(gone) is None
    assert podman("image", "inspect", base).returncode == 0
    assert {path.name for path in (tmp_path / "home/runtimes").iterdir() if path.is_dir()} == {kept}


def test_an_image_in_use_goes_later(images: ImageRuntimes, workspace: Path, place: Place) -> None:
    """Where a container uses it the environment is unfinished from then on, and goes when it can."""
    commit = commit_of(f"FROM {base_image()}\nCOPY x /x\n", x=os.urandom(8))
    lock = locked(images, DOCKERFILE, commit, place, workspace)
    found = built(images, DOCKERFILE, lock, place, workspace)
    container = podman("create", found, "/bin/sh").stdout.strip()
    assert images.discard((), time.time() + HOUR) == 0
    assert images.environments() == {images.digest(DOCKERFILE, lock)}
    podman("rm", container)
    assert images.discard((), time.time() + HOUR) == 1
    assert podman("image", "inspect", found).returncode != 0


# --- both kinds of engine, both kinds of runtime -------------------------------------------------------------------


def flags_of(program: str, verb: str) -> set[str]:
    said = subprocess.run([program, verb, "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"--[a-z][a-z-]*", said))


@pytest.mark.parametrize("kind", ["podman", "docker"])
def test_each_engine_has_the_flags(kind: str) -> None:
    """The arguments of a build name only what the engine's own help names; docker's are all known beforehand."""
    argv = build_argv(kind, "/f", "localhost/x:1", "e", "context", shell=True)  # noqa: S604 - no shell of ours
    flags = {word.partition("=")[0] for word in argv if word.startswith("--")}
    if kind == "docker":
        assert flags <= {"--file", "--tag", "--label", "--network", "--force-rm"}
    if (program := shutil.which(kind)) is not None:
        assert flags <= flags_of(program, "build")


def test_how_a_from_names_an_image_of_this_machine() -> None:
    """An ID for podman; for docker's builder a digest, or a name that it is given first."""
    identity = f"sha256:{'1a' * 32}"
    alias = f"localhost/penstock/base:{'1a' * 32}"
    assert base_reference("podman", identity, "python@sha256:2b") == ((), identity)
    assert base_reference("docker", identity, "python@sha256:2b") == ((), "python@sha256:2b")
    assert base_reference("docker", identity, identity) == (("tag", identity, alias), alias)


def test_each_request_goes_to_its_own(
    images: ImageRuntimes,
    runtimes: UvRuntimes,
    request_for_lock: RuntimeRequest,
    lock: bytes,
    tag: str,
    workspace: Path,
    place: Place,
    tmp_path: Path,
) -> None:
    """By the request's kind, and by what an environment's folder says; neither discards the other's."""
    chosen: Runtimes = ChosenRuntimes(runtimes, images)
    made = make(tag, tmp_path / "image", "one")
    image_lock = locked(chosen, image(tag), {}, place, workspace)
    pairs = [(image(tag), image_lock), (request_for_lock, lock)]
    for request, content in pairs:
        command = chosen.build(request, content)
        assert command is not None
        assert place(command, workspace).returncode == 0
        assert chosen.build(request, content) is None
    of_image, of_uv = (chosen.digest(*pair) for pair in pairs)
    assert (chosen.image(of_image), chosen.image(of_uv)) == (made, None)
    assert (dict(chosen.variables(of_image)), chosen.variables(of_uv)) == ({}, runtimes.variables(of_uv))
    files = chosen.files(request_for_lock, {"requirements.lock": lock}.get)
    assert chosen.key(request_for_lock, files) == runtimes.key(request_for_lock, files)
    assert chosen.check(None, [], []) == runtimes.check(None, [], [])
    assert chosen.fingerprint([]) == runtimes.fingerprint([])
    assert chosen.discard([of_image], time.time() + HOUR) == 1
    assert chosen.image(of_image) == made
    assert chosen.discard((), time.time() + HOUR) == 1
    assert chosen.image(of_image) is None
