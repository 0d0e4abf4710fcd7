"""Commits, changes, triggers, addresses and versions: what a run is made from."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from urllib.parse import unquote, urlsplit

from penstock.errors import SourceError


class Trigger(StrEnum):
    """Why a run was asked for."""

    PUSH = "push"
    PULL_REQUEST = "pull_request"
    SCHEDULE = "schedule"
    MANUAL = "manual"
    DRIFT = "drift"


@dataclass(frozen=True, slots=True)
class Change:
    """The paths that a commit touches against its first parent (all its paths for a root commit), sorted."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit as a run sees it.

    `sha` is the full object name; `branch` the branch it was asked for by (None for a bare commit), `branches` all
    branches it is reachable from; `committed_at` is ISO 8601. A `dirty` commit is a snapshot of a working tree that
    nobody committed: it may be built and tested, never deployed.
    """

    sha: str
    branch: str | None
    branches: tuple[str, ...]
    default_branch: str | None
    author: str
    title: str
    committed_at: str
    dirty: bool = False

    @property
    def short(self) -> str:
        return self.sha[:7]


# --- addresses -----------------------------------------------------------------------------------------------------


class Reach(StrEnum):
    """How git reaches a repository."""

    FOLDER = "folder"
    HTTPS = "https"
    HTTP = "http"
    SSH = "ssh"


@dataclass(frozen=True, slots=True)
class Address:
    """A place that a repository may be read from.

    `url` is what git is given (never a password in it); `identity` is equal for all spellings of one repository:
    `host/path`, or the absolute path of a folder; `name` is its last part. `secret` is the same URL with the
    password that was written in it, or None.
    """

    reach: Reach
    url: str
    identity: str
    name: str
    secret: str | None = None


_DEFAULT_PORTS = {Reach.HTTPS: 443, Reach.HTTP: 80, Reach.SSH: 22}
_REACHES = {
    "https": Reach.HTTPS,
    "http": Reach.HTTP,
    "ssh": Reach.SSH,
    "git+ssh": Reach.SSH,
    "ssh+git": Reach.SSH,
    "file": Reach.FOLDER,
}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_TRANSPORT = re.compile(r"[A-Za-z0-9+.-]*::")
_SCP_LIKE = re.compile(r"(?:(?P<user>[^@/:]+)@)?(?P<host>\[[^\]/]+\]|[^@/:\[\]]+):(?P<path>.*)", re.DOTALL)
_HOST = re.compile(r"[^\W_][\w.-]*|\[[0-9A-Fa-f:.]+\]")
_USER = re.compile(r"\w[\w.+-]*")
_LONGEST = 4096


def parse_address(text: str) -> Address:
    """A clone URL (https, ssh, `user@host:path`, http of this machine, file) or a path as an Address.

    A folder's `url` and `identity` are the path as written: making it absolute takes a disk. Raises SourceError,
    before git sees anything, for what git would take for an option or run as a command.
    """
    if not text.strip() or len(text) > _LONGEST:
        raise SourceError("the address of the repository is empty or too long: give a folder or a clone URL")
    shown = printable(text)
    if shown != text:
        raise SourceError(f"the address {shown!r} holds control characters: write it again without them")
    if text.startswith("-"):
        raise SourceError(f"the address {text!r} begins with a dash: write ./{text} for a folder of that name")
    if _TRANSPORT.match(text):
        raise SourceError(f"the address {text!r} would make git run a command: give a folder, https or ssh address")
    if _SCHEME.match(text):
        return _parse_url(text)
    scp = _SCP_LIKE.fullmatch(text)
    if scp is None:
        return folder_address(text)
    path = scp["path"]
    return _network(Reach.SSH, text, Place(scp["user"], scp["host"], None, path))


def folder_address(path: str) -> Address:
    """The address of a repository in a folder of this machine."""
    plain = path.rstrip("/").removesuffix("/.git").rstrip("/") or "/"
    return Address(Reach.FOLDER, path, plain, _last_part(plain))


@dataclass(frozen=True, slots=True)
class Place:
    """The parts of a network address; `port` is None where none is written."""

    user: str | None
    host: str
    port: int | None
    path: str


def _parse_url(text: str) -> Address:
    scheme = text.partition("://")[0].lower()
    reach = _REACHES.get(scheme)
    if reach is None:
        raise SourceError(f"the address {hidden(text)!r} uses {scheme}: give a folder, https or ssh address")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise SourceError(f"the address {hidden(text)!r} is no valid URL: check its host and port") from None
    if parts.query or parts.fragment:
        raise SourceError(f"the address {hidden(text)!r} has a part after ? or #: a clone URL ends with its path")
    if reach is Reach.FOLDER:
        return _file_url(text, parts.netloc, unquote(parts.path))
    user, _, host = parts.netloc.rpartition("@")
    host = host if port is None else host.rpartition(":")[0]
    name, colon, password = user.partition(":")
    place = Place(name or None, host.removesuffix(":"), port, parts.path)
    if not colon or reach is Reach.SSH:
        return _network(reach, text, place)
    if not password:
        raise SourceError(f"the address {hidden(text)!r} has an empty password: leave the colon out")
    clean = f"{scheme}://{name + '@' if name else ''}{parts.netloc.rpartition('@')[2]}{parts.path}"
    return replace(_network(reach, clean, place), secret=text)


def _file_url(text: str, host: str, path: str) -> Address:
    if host.lower() not in {"", "localhost"} or not path.startswith("/"):
        raise SourceError(f"the address {text!r} names another machine: file:///absolute/path is read here")
    if printable(path) != path:
        raise SourceError(f"the address {text!r} holds control characters: write it again without them")
    return folder_address(path)


def _network(reach: Reach, text: str, place: Place) -> Address:
    host = place.host.lower()
    path = re.sub(r"/+", "/", unquote(place.path)).strip("/")
    if not _HOST.fullmatch(place.host) or (place.port is not None and not 0 < place.port < 65536):
        raise SourceError(f"the address {hidden(text)!r} has no valid host: check it")
    if reach is Reach.SSH and place.user is not None and not _USER.fullmatch(place.user):
        raise SourceError(f"the address {hidden(text)!r} has no valid user name: check what stands before the @")
    if reach is Reach.HTTP and host not in {"localhost", "127.0.0.1", "[::1]"}:
        raise SourceError(f"the address {hidden(text)!r} is not encrypted: use https")
    name = path.removesuffix(".git").rstrip("/")
    if not name or path.startswith("-") or printable(path) != path:
        raise SourceError(f"the address {hidden(text)!r} names no repository: check its path")
    port = "" if place.port in {None, _DEFAULT_PORTS[reach]} else f":{place.port}"
    return Address(reach, text, f"{host}{port}/{name}", _last_part(name))


def _last_part(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".git") or path


def rewritten(url: str, rules: Iterable[tuple[str, str]]) -> str:
    """A URL after the person's `url.BASE.insteadOf = PREFIX` settings; `rules` are (BASE, PREFIX), longest wins."""
    fitting = [(prefix, base) for base, prefix in rules if prefix and url.startswith(prefix)]
    if not fitting:
        return url
    prefix, base = max(fitting, key=lambda rule: len(rule[0]))
    return base + url[len(prefix) :]


def hidden(text: str) -> str:
    """A text in which no URL shows what stands before its @."""
    return re.sub(r"://[^/\s@]*(?:@[^/\s@]*)*@", "://", text)


_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    """A text without control characters, line separators and invisible marks."""
    return "".join(c for c in text if c.isprintable() or unicodedata.category(c) not in _INVISIBLE)


def title_of(message: str) -> str:
    """The first line of a commit message that is not empty, fit to be shown: at most 200 characters."""
    lines = (printable(line).strip() for line in message.splitlines())
    return next((line[:200] for line in lines if line), "")


# --- references ----------------------------------------------------------------------------------------------------

_REVISION = re.compile(r"(?P<name>[^~^]+)(?P<steps>(?:[~^]\d{0,9})*)", re.DOTALL)
_OBJECT_NAME = re.compile(r"[0-9a-fA-F]{4,64}")


@dataclass(frozen=True, slots=True)
class Revision:
    """What a person calls a commit: a name and the steps back from it (`HEAD~1` is `HEAD` and `~1`)."""

    name: str
    steps: str = ""

    @property
    def may_be_object(self) -> bool:
        """Whether the name may be a full or abbreviated object name."""
        return _OBJECT_NAME.fullmatch(self.name) is not None


def parse_revision(text: str) -> Revision:
    """A branch, tag or object name with optional steps; `@` is HEAD.

    The name obeys git's own rules for references. Raises SourceError for anything else, options and control
    characters included.
    """
    match = _REVISION.fullmatch(text)
    if match is None or not _is_reference(match["name"]) or len(text) > 1024:
        shown = printable(text[:80])
        raise SourceError(f"{shown!r} is no name of a branch, tag or commit: give one as `git log` shows it")
    return Revision("HEAD" if match["name"] == "@" else match["name"], match["steps"])


def _is_reference(name: str) -> bool:
    if printable(name) != name or name.startswith("-") or name.endswith((".", "/")):
        return False
    if any(c in name for c in " :?*[\\\x7f") or ".." in name or "@{" in name or any(c.isspace() for c in name):
        return False
    return all(part and not part.startswith(".") and not part.endswith(".lock") for part in name.split("/"))


def nearest(wanted: str, names: Iterable[str]) -> str | None:
    """The name that a person most likely meant, or None where none is alike."""
    from difflib import get_close_matches  # noqa: PLC0415 (loaded for a mistake only)

    found = get_close_matches(wanted, sorted(names), n=1, cutoff=0.5)
    return found[0] if found else None


def choose_default_branch(remote: str | None, branches: Iterable[str]) -> str | None:
    """The remote's own choice; without one `main`, else `master`, else the only branch, else None."""
    known = sorted(set(branches))
    if remote is not None:
        return remote
    usual = [name for name in ("main", "master") if name in known]
    return usual[0] if usual else (known[0] if len(known) == 1 else None)


# --- versions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VersionTag:
    """A tag that is a version: `version` in PEP 440's spelling, `sha` the commit it names."""

    version: str
    sha: str


def version_tags(tags: Iterable[tuple[str, str]]) -> tuple[VersionTag, ...]:
    """The tags (name, commit) that are versions, lowest first: `v1.2.3`, `1.2.3`, `v1.4.0-rc1`, `1.0.post2`.

    Other tags are passed over, and so are `dev` and local versions: Penstock gives those itself. A version that
    two tags give to two commits names neither.
    """
    commits: dict[str, set[str]] = {}
    for name, sha in tags:
        version = _tag_version(name)
        if version is not None:
            commits.setdefault(version, set()).add(sha)
    return tuple(VersionTag(v, *commits[v]) for v in _ordered(commits) if len(commits[v]) == 1)


def next_version(tag: str | None, distance: int, short: str, *, dirty: bool = False) -> str:
    """The version of a commit that bears no version tag itself.

    `tag` is the highest version that it descends from, `distance` how many commits it has that the tag has not
    (all of its commits without a tag), `short` its abbreviated name. `1.3.0` and 12 give `1.3.1.dev12+g1a2b3c4`;
    `1.4.0rc1` gives `1.4.0rc2.dev…`; without a tag it is `0.0.0.dev…`, below any release. A descendant's version
    is always higher than its ancestor's.
    """
    from dunamai import Style, Version  # noqa: PLC0415 (a tenth of a second, and only new commits need it)

    mark = f"+g{short}" + (".dirty" if dirty else "")
    if tag is None:
        return f"0.0.0.dev{distance}{mark}"
    parsed = Version.parse(tag)
    parsed.distance = distance
    return f"{parsed.serialize(metadata=False, bump=True, style=Style.Pep440)}{mark}"


def _tag_version(name: str) -> str | None:
    from dunamai import Style, Version  # noqa: PLC0415 (see above)

    parsed = Version.parse(name)
    if parsed.distance or parsed.commit or parsed.dirty is not None or parsed.tagged_metadata:
        return None
    try:
        parsed.base = ".".join(str(int(part)) for part in parsed.base.split("."))
        return parsed.serialize(style=Style.Pep440)
    except ValueError:
        return None


def _ordered(versions: Iterable[str]) -> list[str]:
    from dunamai import Version  # noqa: PLC0415 (see above)

    return sorted(sorted(versions), key=Version.parse)
