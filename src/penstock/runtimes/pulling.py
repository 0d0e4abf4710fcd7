"""Images through the person's container engine: looked at, pulled, and in which words that fails.

Standard library only: the script that pulls and builds uses it too.
"""

import json
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.images import ImageName, parse_image

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
ABSENT = re.compile(r"image not known|no such (?:image|object)|does not exist|failed to find image", re.IGNORECASE)
"""In which words an engine says that it has no such image."""
_LOOK_SECONDS = 60
_STATUS = r"(?:status|code)\D{0,9}"  # before a number, which may be a part of a port or a digest as well
_WHY = (
    ("no image found in|no matching manifest for", "is not made for {platform}: name an image that is"),
    ("no space left", "does not fit on this machine's disk: make room, then run again"),
    (
        rf"unauthorized|authentication required|access.*denied|denied:|forbidden|{_STATUS}403",
        "may not be pulled: correct its name, or log in with `{kind} login {host}`",
    ),
    (
        rf"manifest unknown|name unknown|not found|{_STATUS}404|invalid tag",
        "does not exist at its registry: correct its name",
    ),
    (
        "no such host|connection refused|timeout|timed out|unreachable|dial tcp|tls|x509|certificate|EOF",
        "could not be pulled, as its registry cannot be reached: look at the network, then run again",
    ),
)


class ImageError(Exception):
    """An image that cannot be had: one sentence, whole."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image that this machine has: its ID (`sha256:…`), its platform, by which digests registries know it.

    `triggers` are its ONBUILD instructions.
    """

    id: str
    platform: str
    digests: tuple[str, ...]
    triggers: tuple[str, ...] = ()


def architecture() -> str:
    """The architecture of this machine, as images name it."""
    return _ARCHITECTURES.get(platform.machine(), platform.machine())


@dataclass(frozen=True, slots=True)
class Calls:
    """The container engine: its kind, the path of its program, the whole environment that it is called with."""

    kind: str
    program: str
    variables: Mapping[str, str]

    def look(self, reference: str) -> Image | None:
        """What the engine knows of an image; None where it has none of that name. Raises ImageError where it fails."""
        try:
            done = self._run("image", "inspect", reference)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ImageError(f"{self.program} does not answer ({error}): repair {self.kind}, then run again") from error
        if done.returncode == 0:
            return _image(json.loads(done.stdout)[0])
        said = last_error(done.stderr)
        if ABSENT.search(said):
            return None
        raise ImageError(f"{self.kind} could not look at the image {reference}: {said}")

    def _run(self, *argv: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [self.program, *argv],
            env=dict(self.variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_LOOK_SECONDS,
            check=False,
        )

    def quietly(self, *argv: str) -> bool:
        """Whether a call that nobody needs the words of succeeded."""
        try:
            return self._run(*argv).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False

    def show(self, *argv: str, held: Sequence[int] = (), extra: Mapping[str, str] | None = None) -> tuple[bool, str]:
        """Execute, its words on our standard output; whether it succeeded, and the last of its words.

        It inherits the descriptors `held`, and so what is locked by them.
        """
        lines = [""]
        with subprocess.Popen(
            [self.program, *argv],
            env={**self.variables, **(extra or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            pass_fds=held,
        ) as process:
            for line in process.stdout or ():
                print(line, end="", flush=True)  # noqa: T201 - the log of a step is what it prints
                lines = [*lines[-20:], line]
        return process.returncode == 0, last_error("".join(lines))

    def pull(self, name: ImageName, asked: str | None = None, held: Sequence[int] = ()) -> str:
        """Pull an image; the reference under which it is here now. Raises ImageError with why it cannot be had.

        A name without a host is what the person's engine takes it for; where it takes it for nothing, Docker Hub's.
        """
        if name.is_local:
            raise ImageError(
                f"the image {name.reference} is not on this machine, and localhost is no registry: "
                "build or load it first"
            )
        flags = ["--platform", asked] if asked else []
        done, said = self.show("pull", *flags, name.reference, held=held)
        if not done and "short-name" in said:
            name = parse_image(f"{name.full}{name.reference[len(name.repository) :]}")
            done, said = self.show("pull", *flags, name.reference, held=held)
        if not done:
            raise ImageError(why_not(name, said, self.kind, asked))
        return name.reference


def _image(found: Mapping[str, Any]) -> Image:
    config = found.get("Config") or {}
    return Image(
        id=f"sha256:{str(found['Id']).removeprefix('sha256:')}",
        platform=f"{found.get('Os') or 'linux'}/{found.get('Architecture') or architecture()}",
        digests=tuple(sorted(map(str, found.get("RepoDigests") or ()))),
        triggers=tuple(map(str, config["OnBuild"] or ())) if "OnBuild" in config else tuple(_told(found)),
    )


def _told(found: Mapping[str, Any]) -> Iterator[str]:
    """The ONBUILD instructions of an image's history, for podman, which tells of no others."""
    for entry in found.get("History") or ():
        if isinstance(entry, dict) and (told := re.search(r"\bONBUILD (.+)", str(entry.get("created_by")))):
            yield told[1]


def last_error(said: str) -> str:
    """The last of a program's words, or the last that calls itself an error, without its full stop."""
    lines = [line.strip() for line in said.strip().splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"error\b", line, re.IGNORECASE)] or lines
    text = re.sub(r"^Error(?: response from daemon)?:\s*", "", errors[-1]) if errors else "it does not say why"
    return text.rstrip(".")


def why_not(name: ImageName, said: str, kind: str, asked: str | None = None) -> str:
    """Why an image could not be pulled, in one sentence, from the engine's words."""
    host = name.full.partition("/")[0]
    what = next((what for sign, what in _WHY if re.search(sign, said, re.IGNORECASE)), "could not be pulled")
    text = what.format(platform=asked or f"linux/{architecture()}", kind=kind, host=host)
    return f"the image {name.reference} {text} ({kind}: {said})"


def have(calls: Calls, image: str, asked: str | None = None, held: Sequence[int] = ()) -> tuple[Image, str]:
    """The image of a name, pulled where it is not here, and how it is pinned. Raises ImageError.

    It is pinned by the digest by which it can be pulled again, else by its ID.
    """
    try:
        name = parse_image(image)
    except ValueError as error:
        raise ImageError(str(error)) from error
    found = calls.look(name.reference)
    if found is None or (asked and not fits(found, asked)):
        found = calls.look(calls.pull(name, asked, held))
    if found is None:
        raise ImageError(f"{calls.kind} pulled {image} and does not have it: run again")
    wanted = asked or f"linux/{architecture()}"
    if not fits(found, wanted):
        raise ImageError(
            f"the image {image} is made for {found.platform}, and {wanted} is needed: name an image that is made for it"
        )
    return found, pin(name, found)


def fits(image: Image, asked: str) -> bool:
    """Whether an image is of a platform: `linux/arm64`, with or without a variant."""
    return "/".join(asked.split("/")[:2]) == image.platform


def pin(name: ImageName, image: Image) -> str:
    """By which reference exactly this image is had again: a registry's digest where one knows it, else its ID."""
    if name.pinned:
        return name.reference
    known = [digest for digest in image.digests if not digest.startswith("localhost/")]
    own = [digest for digest in known if digest.partition("@")[0] in {name.full, name.repository}]
    return (own or known or [image.id])[0]


def again(calls: Calls, image: Mapping[str, Any], held: Sequence[int] = ()) -> Image:
    """The image that a lock pins (`image`, `pinned`, `id`, perhaps `asked`), pulled where it is gone from here."""
    for reference in (image["id"], image["pinned"]):
        if (found := calls.look(reference)) is not None:
            return found
    if "@" not in image["pinned"]:
        raise ImageError(
            f"the image {image['image']} ({image['id'][:19]}…) is gone from this machine, and no registry has it: "
            "build or load it again, then start a new run"
        )
    found = calls.look(calls.pull(parse_image(image["pinned"]), image.get("asked"), held))
    if found is None:
        raise ImageError(f"{calls.kind} pulled {image['pinned']} and does not have it: run again")
    return found
