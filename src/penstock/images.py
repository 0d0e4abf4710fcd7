"""The names of container images: what one may look like, and its parts."""

import re
from dataclasses import dataclass

_HOST = r"(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:)|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_NAME = re.compile(
    rf"(?P<repository>(?:(?P<host>{_HOST})/)?(?P<path>{_PART}(?:/{_PART})*))"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_LONGEST = 255
_ID = re.compile(r"(?:sha256:)?[0-9a-f]{12,64}")


@dataclass(frozen=True, slots=True)
class ImageName:
    """The name of an image, in its parts: `ghcr.io/team/base:1` has the host `ghcr.io` and the tag `1`.

    `repository` is all before tag and digest, as written. Without a tag or digest the tag is `latest`.
    """

    repository: str
    host: str | None
    tag: str
    digest: str | None

    @property
    def pinned(self) -> bool:
        """Whether the name holds the image fast, by its digest."""
        return self.digest is not None

    @property
    def reference(self) -> str:
        """The name as an engine takes it, with its digest or its tag; engines refuse names with both."""
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"

    @property
    def is_local(self) -> bool:
        """Whether no registry can have it: that is what the host `localhost` says."""
        return self.host == "localhost"

    @property
    def full(self) -> str:
        """The repository with its host: a name without one is a name of Docker Hub."""
        if self.host is not None:
            return self.repository
        return f"docker.io/{self.repository}" if "/" in self.repository else f"docker.io/library/{self.repository}"


def parse_image(text: str) -> ImageName:
    """The parts of an image's name. Raises ValueError with half a sentence that says what is wrong and what to do."""
    if flaw := _flaw(text):
        raise ValueError(flaw)
    found = _NAME.fullmatch(text)
    if found is None or len(found["repository"]) > _LONGEST:
        raise ValueError(f"{_shown(text)} is no name of an image: write one such as python:3.11-slim")
    return ImageName(found["repository"], found["host"], found["tag"] or "latest", found["digest"])


def check_image(text: str) -> str:
    """The name itself, where it is one. Raises ValueError as `parse_image` does."""
    parse_image(text)
    return text


def _flaw(text: str) -> str | None:
    """What people write instead of a name, each with what to do."""
    shown = _shown(text)
    if "://" in text:
        return f"{shown} is an address: write the image's name without {text.partition('://')[0]}://"
    if "$" in text:
        return f"{shown} holds a variable, and an image is named before any is known: write the name itself"
    if _ID.fullmatch(text):
        return f"{shown} is an image's ID, which only this machine knows: write its name, such as python:3.11-slim"
    name, at, digest = text.partition("@")
    if at and not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        return f"{shown} has no whole digest: write @sha256: and 64 hexadecimal digits, or leave it out"
    repository = name[: name.rindex(":")] if ":" in name.rpartition("/")[2] else name
    path = repository.partition("/")[2] if re.match(rf"{_HOST}/", repository) else repository
    if path != path.lower():
        return f"{shown} has capital letters: an image's name is in lower case"
    return None


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return f'"{line if len(line) <= 80 else line[:79] + "…"}"'
