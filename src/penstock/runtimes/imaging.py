"""Pins, pulls and builds the images that steps run in, by podman or docker.

Executed by its path with Penstock's own Python, standard library only, so that it starts quickly whatever is
installed. It may be killed at any point: an environment without a manifest is unfinished and is made again, of which
the engine's own cache of layers makes a short affair. The lock comes, compressed, in the variables PENSTOCK_LOCK_0,
1, …
"""

import argparse
import base64
import fcntl
import hashlib
import json
import os
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from penstock.runtimes.dockerfiles import Dockerfile, DockerfileError, bases, pinned, read
from penstock.runtimes.pulling import Calls, Image, ImageError, again, architecture, have

MANIFEST = "penstock.json"
INTENT = "penstock-image.json"
"""What an image that we build is called, written before it is begun."""
LOCK = "penstock.lock"
LABEL = "penstock.environment"

_BUILD_VARIABLES = {"BUILDKIT_PROGRESS": "plain", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}


def main() -> int:
    """Do what the first argument says; 0 where it is done, else 1 after one sentence that says why not."""
    wanted = arguments()
    kept = {name: os.environ[name] for name in wanted.keep.split(",") if name in os.environ}
    calls = Calls(wanted.kind, wanted.program, kept)
    try:
        _VERBS[wanted.verb](calls, wanted)
    except (ImageError, DockerfileError) as error:
        say(str(error))
        return 1
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name in ("--kind", "--program", "--keep"):
        parser.add_argument(name, required=True)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("pin-image").add_argument("image")
    dockerfile = verbs.add_parser("pin-dockerfile")
    dockerfile.add_argument("file")
    dockerfile.add_argument("--narrowed", action="store_true")
    verbs.add_parser("take").add_argument("folder", type=Path)
    building = verbs.add_parser("build")
    building.add_argument("folder", type=Path)
    building.add_argument("--tag", required=True)
    return parser.parse_args()


# --- pinning -------------------------------------------------------------------------------------------------------


def pin_image(calls: Calls, wanted: argparse.Namespace) -> None:
    """Write the lock of an image's name."""
    found, pinned_as = have(calls, wanted.image)
    write(Path(LOCK), {"image": wanted.image, "pinned": pinned_as, "id": found.id, "platform": found.platform})
    say(f"{wanted.image} is {pinned_as}")


def pin_dockerfile(calls: Calls, wanted: argparse.Namespace) -> None:
    """Write the lock of a Dockerfile: what it builds upon, and the digest of its context."""
    dockerfile = read_here(wanted.file)
    context = context_digest(Path(wanted.file).parent)
    found = []
    for upon in bases(dockerfile, architecture()):
        image, pinned_as = have(calls, upon.image, upon.platform)
        if wanted.narrowed:
            refuse_triggers(dockerfile, upon.line, upon.image, image)
        found.append({"image": upon.image, "asked": upon.platform, "pinned": pinned_as, "id": image.id})
        say(f"{upon.image} is {pinned_as}")
    platform = f"linux/{architecture()}"
    write(Path(LOCK), {"dockerfile": wanted.file, "context": context, "platform": platform, "bases": found})


def read_here(file: str) -> Dockerfile:
    try:
        return read(file, Path(file).read_bytes())
    except OSError as error:
        raise ImageError(f"{file} cannot be read: {error.strerror}") from error


def refuse_triggers(dockerfile: Dockerfile, line: int, image: str, found: Image) -> None:
    """What a base image copies by ONBUILD cannot be told from the Dockerfile."""
    for trigger in found.triggers:
        if trigger.split(None, 1)[0].upper() in {"COPY", "ADD"} and "--from=" not in trigger:
            raise ImageError(
                f"{dockerfile.place(line)}: {image} itself copies from the context (ONBUILD {trigger}), of which only "
                "what the Dockerfile names is there: build upon an image that does not, or add the line COPY . ."
            )


def context_digest(folder: Path) -> str:
    """SHA-256 over the paths of a folder, what they hold, and whether they may be executed."""
    whole = hashlib.sha256()
    for path, entry in sorted(entries(folder, "")):
        whole.update(json.dumps([path, *entry]).encode() + b"\n")
    return f"sha256:{whole.hexdigest()}"


def entries(folder: Path, below: str) -> Iterator[tuple[str, list[Any]]]:
    with os.scandir(folder / below) as found:
        for entry in found:
            path = f"{below}{entry.name}"
            if entry.is_symlink():
                yield path, ["link", os.readlink(entry.path)]  # noqa: PTH115 - as written
            elif entry.is_dir():
                yield from entries(folder, f"{path}/")
            else:
                with open(entry.path, "rb") as file:  # noqa: PTH123 - a string
                    said = hashlib.file_digest(file, "sha256").hexdigest()
                yield path, ["file", said, bool(entry.stat().st_mode & 0o100)]


# --- making --------------------------------------------------------------------------------------------------------


def take(calls: Calls, wanted: argparse.Namespace) -> None:
    """Make the environment of a lock that pins an image: have the image here."""
    lock = unpacked("PENSTOCK_LOCK")
    held = hold(wanted.folder)
    if standing(calls, wanted.folder) is not None:
        say("the image is here already")
        return
    found = again(calls, lock, [held])
    finish(wanted.folder, {"image": found.id, "name": lock["image"], "pinned": lock["pinned"], "built": None})
    say(f"{lock['image']} is here as {found.id}")


def build(calls: Calls, wanted: argparse.Namespace) -> None:
    """Make the environment of a lock that pins what a Dockerfile builds upon."""
    lock = unpacked("PENSTOCK_LOCK")
    file, folder, held = lock["dockerfile"], wanted.folder, hold(wanted.folder)
    if standing(calls, folder) is not None:
        say("the image was built already")
        return
    if context_digest(Path(file).parent) != lock["context"]:
        raise ImageError(f"what {file} is built from is not what its lock was made for: start a new run")
    dockerfile = read_here(file)
    (folder / MANIFEST).unlink(missing_ok=True)
    write(folder / INTENT, {"tag": wanted.tag})
    upon = {(one["image"], one["asked"]): take_base(calls, one, held) for one in lock["bases"]}
    pinned_file = folder / "Dockerfile"
    pinned_file.write_text(pinned(dockerfile, architecture(), upon), encoding="utf-8")
    shell = any(instruction.name == "SHELL" for instruction in dockerfile.instructions)
    argv = build_argv(calls.kind, str(pinned_file), wanted.tag, folder.name, str(Path(file).parent), shell=shell)
    done, _ = calls.show(*argv, held=[held], extra=_BUILD_VARIABLES)
    found = calls.look(wanted.tag) if done else None
    if found is None:
        raise ImageError(f"the image of {file} could not be built: {calls.kind} says above which line failed and why")
    finish(folder, {"image": found.id, "name": file, "pinned": None, "built": wanted.tag})
    say(f"{file} was built as {found.id}")


def take_base(calls: Calls, base: Mapping[str, Any], held: int) -> str:
    """The reference by which a FROM takes exactly the image of the lock, which is here afterwards."""
    found = again(calls, base, [held])
    argv, reference = base_reference(calls.kind, found.id, base["pinned"])
    if argv and not calls.quietly(*argv):
        raise ImageError(f"{calls.kind} could not give {base['image']} the name {reference}: look whether it works")
    return reference


def base_reference(kind: str, image: str, pinned_as: str) -> tuple[tuple[str, ...], str]:
    """How a FROM names an image of this machine, and the call that is needed before it.

    podman takes an ID. docker's builder takes it for a name of its registry, so there it is the digest, or a name
    of ours.
    """
    if kind == "podman":
        return (), image
    if "@" in pinned_as:
        return (), pinned_as
    alias = f"localhost/penstock/base:{image.removeprefix('sha256:')}"
    return ("tag", image, alias), alias


def build_argv(kind: str, file: str, tag: str, environment: str, context: str, *, shell: bool) -> tuple[str, ...]:
    """The arguments by which an image is built, from a Dockerfile that names images which are here.

    `shell` says that it has a SHELL: podman heeds that only in docker's format, and without docker's format the same
    build gives the same image.
    """
    usual = ("build", "--file", file, "--tag", tag, "--label", f"{LABEL}={environment}", "--network", "host")
    # What is ignored was left out before.
    form = ("--format", "docker" if shell else "oci")
    podman = ("--pull=never", "--layers", "--ignorefile", "/dev/null", *form)
    return (*usual, "--force-rm", *(podman if kind == "podman" else ()), context)


def hold(folder: Path) -> int:
    """The lock of an environment's folder, waited for.

    The engine inherits it: where this process is killed and the engine is not, nobody else begins.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder.parent / f"{folder.name}.flock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("another run is making this image: waiting for it")
        fcntl.flock(held, fcntl.LOCK_EX)
    folder.mkdir(exist_ok=True)  # whoever held the lock may have removed it
    return held


def manifest(folder: Path) -> Mapping[str, Any] | None:
    """What an environment that is an image says of itself; None where it is unfinished or none."""
    try:
        found = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("image"), str) else None


def standing(calls: Calls, folder: Path) -> Mapping[str, Any] | None:
    """The manifest, where the engine still has the image that it names."""
    found = manifest(folder)
    return found if found is not None and calls.look(found["image"]) is not None else None


def finish(folder: Path, value: Mapping[str, Any]) -> None:
    write(folder / MANIFEST, value)


def write(path: Path, value: Mapping[str, Any]) -> None:
    new = path.with_name(f"{path.name}.new")
    with new.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)


def unpacked(name: str) -> dict[str, Any]:
    """The lock that was split over the variables NAME_0, NAME_1, …"""
    parts, number = [], 0
    while (part := os.environ.pop(f"{name}_{number}", None)) is not None:
        parts.append(part)
        number += 1
    found: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode("".join(parts))))
    return found


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the log of a step is what it prints


_VERBS = {"pin-image": pin_image, "pin-dockerfile": pin_dockerfile, "take": take, "build": build}

if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as error:
        say(f"the image could not be made: {error.strerror}: {error.filename}")
        sys.exit(1)
