"""Certificates that sign themselves, made in a moment."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from penstock.engine.contracts import Tls

OPEN = NoEncryption()


def issue(folder: Path, *, lock: KeySerializationEncryption = OPEN, weak: bool = False) -> Tls:
    """A new certificate for localhost that signs itself, in the same two files every time."""
    folder.mkdir(exist_ok=True)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    key = rsa.generate_private_key(65_537, 1024) if weak else ec.generate_private_key(ec.SECP256R1())  # noqa: S505 - meant
    now = datetime.now(UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
    built = built.not_valid_after(now + timedelta(days=1))
    built = built.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    paths = Tls(str(folder / "own.crt"), str(folder / "own.key"))
    Path(paths.certificate).write_bytes(built.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    Path(paths.key).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))
    return paths
