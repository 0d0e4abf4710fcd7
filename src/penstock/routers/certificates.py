"""Certificates as people give them: read, looked through, and kept under the name of their content.

The router serves from copies of its own. So a file that is renewed, or half renewed, or gone changes nothing by itself,
and an Envoy that comes back after its death finds what it had.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.engine.contracts import Tls
from penstock.errors import EngineError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate

PREFIX = "tls-"


@dataclass(frozen=True, slots=True)
class Pair:
    """The PEM bytes of a certificate (with its chain) and of its private key, the name of both, whence they came."""

    name: str
    origin: Tls
    certificate: bytes
    key: bytes

    def keep(self, folder: Path) -> None:
        """Write all beside each other, for the owner alone, where it is not there yet."""
        origin = json.dumps(asdict(self.origin)).encode()
        for suffix, content in ((".crt", self.certificate), (".key", self.key), (".json", origin)):
            path = folder / f"{self.name}{suffix}"
            if not path.exists():
                fresh = path.with_name(f".{path.name}.new")
                fresh.unlink(missing_ok=True)
                fresh.touch(0o600, exist_ok=False)
                with fresh.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                fresh.rename(path)


def read(tls: Tls) -> Pair:
    """The pair that lies at these paths. Raises EngineError where it is not to be served with."""
    certificate = _bytes(tls.certificate, "certificate")
    key = _bytes(tls.key, "key")
    given = _certificate(tls, certificate)
    if given.public_key() != _key(tls, key).public_key():
        raise EngineError(
            f"the key {tls.key} does not belong to the certificate {tls.certificate}: give both of the same pair"
        )
    content = len(certificate).to_bytes(8, "big") + certificate + key + json.dumps(asdict(tls)).encode()
    return Pair(f"{PREFIX}{hashlib.sha256(content).hexdigest()[:20]}", tls, certificate, key)


def kept(folder: Path, tls: Tls) -> Pair | None:
    """The copy in a folder of what lay at these paths before; None where there is none."""
    for path in sorted(folder.glob(f"{PREFIX}*.json")):
        parts = path.with_suffix(".crt"), path.with_suffix(".key")
        if json.loads(path.read_bytes()) == asdict(tls) and all(part.exists() for part in parts):
            return Pair(path.stem, tls, *(part.read_bytes() for part in parts))
    return None


def _bytes(path: str, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        words = error.strerror or "it cannot be read"
        raise EngineError(f"the {what} {path} cannot be read: {words}") from error


def _certificate(tls: Tls, content: bytes) -> "Certificate":
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415 - start-up time is a promise

    try:
        return load_pem_x509_certificates(content)[0]
    except ValueError as error:
        sentence = f"the certificate {tls.certificate} is no certificate in PEM format: give another file"
        raise EngineError(sentence) from error


def _key(tls: Tls, content: bytes) -> "PrivateKeyTypes":
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - start-up time is a promise
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - the same

    try:
        return load_pem_private_key(content, None)
    except TypeError as error:
        raise EngineError(f"the key {tls.key} has a passphrase: give one without") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        sentence = f"the key {tls.key} is no private key in PEM format: give another file"
        raise EngineError(sentence) from error
