"""What stands at addresses of outside data now: `python addresses.py ADDRESS ...` prints a line for each.

Nothing is downloaded: a file or folder of this machine is told by its files' sizes and times of change, what lies
behind HTTP by the validators that its server gives. Executed by itself, with the standard library alone.
"""

import hashlib
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

PATIENCE = 30.0
"""Seconds that a server may take to answer."""
_VALIDATORS = ("ETag", "Last-Modified", "Content-Length")


class LookError(Exception):
    """An address that cannot be looked at, in one sentence."""


def fingerprint(address: str) -> str:
    """One line that stays the same while what stands at the address does. Raises LookError."""
    scheme = urlsplit(address).scheme
    if scheme == "file":
        return f"{address} {_of_path(Path(unquote(urlsplit(address).path)))}"
    return f"{address} {_of_server(address)}"


def _of_path(path: Path) -> str:
    digest = hashlib.sha256()
    for line in _entries(path):
        digest.update(line.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def _entries(path: Path) -> Iterator[str]:
    """Each file at or below a path, with size and time of its last change in nanoseconds."""
    try:
        status = path.stat()
        inner = sorted(path.iterdir()) if path.is_dir() else None
    except OSError as error:
        raise LookError(f"{path} cannot be looked at: {(error.strerror or str(error)).lower()}") from None
    if inner is None:
        yield f"{path} {status.st_size} {status.st_mtime_ns}"
    for entry in inner or ():
        yield from _entries(entry)


def _of_server(address: str) -> str:
    request = urllib.request.Request(address, method="HEAD")  # noqa: S310 - the scheme was looked at
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
            found = {name: answer.headers.get(name) for name in _VALIDATORS}
    except (OSError, urllib.error.URLError) as error:
        raise LookError(f"{address} cannot be looked at: {error}") from None
    if not found["ETag"] and not found["Last-Modified"]:
        raise LookError(
            f"{address} gives neither ETag nor Last-Modified: add fingerprint: COMMAND that tells its state"
        )
    return " ".join(f"{name}={value}" for name, value in found.items() if value)


def main(addresses: list[str]) -> int:
    """Print a line for each address; the first that cannot be looked at ends it with its sentence."""
    try:
        for address in addresses:
            print(fingerprint(address))  # noqa: T201 - what this program is for
    except LookError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
