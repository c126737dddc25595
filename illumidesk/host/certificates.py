"""Certificates and their keys: what makes a pair good, and the folder from which the proxy takes it."""

from __future__ import annotations

import contextlib
import grp
import hashlib
import ipaddress
import itertools
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.host.conffiles import write_file
from illumidesk.host.environments import swap
from illumidesk.paths import Paths

Source = Literal["own", "letsencrypt"]

CHAIN, KEY = "fullchain.pem", "key.pem"
_SOURCE = "source"
_MIN_RSA_BITS = 2048


@dataclass(frozen=True)
class Certificate:
    """A certificate, as far as people ask for it.

    Args:
        names: the names and addresses that it is for.
        issuer: who signed it.
        serial: its serial number, in hexadecimal digits.
        not_before: from when on it is good.
        not_after: until when.
        fingerprint: SHA-256 of it, in hexadecimal digits.
        chain: how many certificates came with it, itself included.
        self_signed: whether nobody else signed it.
    """

    names: tuple[str, ...]
    issuer: str
    serial: str
    not_before: datetime
    not_after: datetime
    fingerprint: str
    chain: int
    self_signed: bool

    def days_left(self, now: datetime) -> int:
        """Whole days until it ends; negative when it has ended."""
        return (self.not_after - now).days

    def covers(self, host: str) -> bool:
        """Whether it is for `host`. `*` stands for one label (RFC 6125)."""
        wildcard = f"*.{host.partition('.')[2]}"
        return any(name == host or (name == wildcard and "." in host) for name in self.names)


def check_pair(chain: bytes, key: bytes, domain: str, now: datetime) -> Certificate:
    """The certificate in `chain`, where it can be used with `key` for `domain`.

    Args:
        chain: certificates as PEM, the server's own first.
        key: the private key as PEM.
        domain: the name or address that people type; empty where any will do.
        now: the time at which it must be good.

    Raises:
        IllumiDeskError: for the first thing that is wrong.
    """
    certificates = _certificates(chain)
    own = certificates[0]
    public = _public(_private_key(key))
    if _public(own) != public:
        if any(_public(other) == public for other in certificates[1:]):
            raise IllumiDeskError(
                "the certificates are in the wrong order", hint="the one of this server must be the first in the file"
            )
        raise IllumiDeskError(
            "the key does not belong to the certificate",
            hint="take the key with which this certificate was asked for",
        )
    for certificate, above in itertools.pairwise(certificates):
        _check_signed(certificate, above)
    found = describe(certificates)
    if found.not_after <= now:
        raise IllumiDeskError(
            f"the certificate has ended on {_day(found.not_after)}", hint="ask its issuer for a new one"
        )
    if found.not_before > now:
        raise IllumiDeskError(
            f"the certificate is good from {_day(found.not_before)} on only", hint="is this machine's clock right?"
        )
    if not found.names:
        raise IllumiDeskError(
            "the certificate names no domain (it has no subject alternative names)",
            hint="browsers take only one that does; ask its issuer for a new one",
        )
    if domain and not found.covers(domain):
        raise IllumiDeskError(
            f"the certificate is not for {domain}", hint=f"it is for {', '.join(found.names)}: choose with --domain"
        )
    return found


def describe(certificates: list[x509.Certificate]) -> Certificate:
    """What people ask about the first of `certificates`."""
    own = certificates[0]
    return Certificate(
        names=_names(own),
        issuer=_common_name(own.issuer),
        serial=f"{own.serial_number:x}",
        not_before=own.not_valid_before_utc,
        not_after=own.not_valid_after_utc,
        fingerprint=own.fingerprint(hashes.SHA256()).hex(),
        chain=len(certificates),
        self_signed=own.issuer == own.subject,
    )


def _certificates(chain: bytes) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(chain)
    except ValueError:
        found = []
    if found:
        return found
    if b"PRIVATE KEY-----" in chain:
        raise IllumiDeskError("the file given as the certificate holds a key", hint="swap --cert and --key")
    raise IllumiDeskError(
        "the file given as the certificate holds none in PEM form",
        hint="make one of a .der or .p7b file with: openssl x509 -inform der -in FILE -out FILE.pem",
    )


def _private_key(key: bytes) -> Any:
    try:
        found = serialization.load_pem_private_key(key, password=None)
    except TypeError:
        raise IllumiDeskError(
            "the key is locked with a password, which nobody could type when the proxy starts",
            hint="unlock it with: openssl pkey -in FILE -out UNLOCKED",
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        hint = "swap --cert and --key" if b"BEGIN CERTIFICATE" in key else "it begins with -----BEGIN PRIVATE KEY-----"
        raise IllumiDeskError("the file given as the key holds none in PEM form", hint=hint) from None
    if isinstance(found, rsa.RSAPrivateKey) and found.key_size < _MIN_RSA_BITS:
        raise IllumiDeskError(
            f"the key has {found.key_size} bits, which browsers refuse", hint=f"RSA needs {_MIN_RSA_BITS} at least"
        )
    return found


def _public(of: Any) -> bytes:
    content: bytes = of.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return content


def _check_signed(certificate: x509.Certificate, above: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(above)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise IllumiDeskError(
            f"the certificate of {_common_name(above.subject)} did not sign the one before it in the file",
            hint="the server's own comes first, then the one that signed it, then the one that signed that",
        ) from None


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    domains = [name.lower() for name in extension.value.get_values_for_type(x509.DNSName)]
    addresses = [str(address) for address in extension.value.get_values_for_type(x509.IPAddress)]
    return (*domains, *addresses)


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string()


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"


# The folder


def ensure_tls_folder(paths: Paths) -> None:
    """Make the folder, for root and the proxy alone; what is in it is given to the proxy's group of today."""
    gid = _proxy_gid()
    paths.tls.mkdir(mode=0o750, parents=True, exist_ok=True)
    paths.tls.chmod(0o750)
    for path in (paths.tls, *paths.tls.rglob("*")):
        _own(path, gid)


def store(chain: bytes, key: bytes, source: Source, paths: Paths) -> bool:
    """Have the proxy's folder hold this pair, which has been checked.

    Certificate and key change together: each pair has a folder of its own, and a link to it is swapped.

    Args:
        chain: certificates as PEM.
        key: the key as PEM.
        source: where the pair comes from, and so who renews it.
        paths: the layout.

    Returns:
        Whether another pair was there before.
    """
    ensure_tls_folder(paths)
    gid = _proxy_gid()
    folder = paths.tls / hashlib.sha256(chain + key + source.encode()).hexdigest()[:16]
    link = paths.tls / "current"
    changed = link.resolve() != folder.resolve()
    folder.mkdir(mode=0o750, exist_ok=True)
    folder.chmod(0o750)
    _own(folder, gid)
    for name, content in ((CHAIN, chain), (KEY, key), (_SOURCE, f"{source}\n".encode())):
        write_file(folder / name, content, mode=0o640, gid=gid)
    swap(link, folder)
    for other in paths.tls.iterdir():
        if other.is_dir() and not other.is_symlink() and other != folder:
            shutil.rmtree(other)
    return changed


def stored(paths: Paths) -> tuple[Certificate, Source] | None:
    """The certificate in the proxy's folder, and where it comes from; nothing where there is none."""
    current = paths.tls / "current"
    try:
        chain = (current / CHAIN).read_bytes()
        source = (current / _SOURCE).read_text("ascii").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return describe(_certificates(chain)), "letsencrypt" if source == "letsencrypt" else "own"


def check_stored(domain: str, paths: Paths) -> None:
    """Make sure that there is a certificate where the settings ask for HTTPS.

    Raises:
        IllumiDeskError: where there is none.
    """
    if domain and not (paths.tls / "current" / CHAIN).exists():
        raise IllumiDeskError(
            f"https.domain is {domain}, and there is no certificate in {paths.tls}",
            hint="get one with `illumidesk https letsencrypt` or `illumidesk https certificate`, "
            "or switch HTTPS off with `illumidesk https off`",
        )


def default_domain(found: Certificate) -> str:
    """The first name that a certificate is for and that people can type.

    Raises:
        IllumiDeskError: where it has wildcards only.
    """
    for name in found.names:
        if "*" not in name:
            return name
    raise IllumiDeskError(
        f"the certificate is for {', '.join(found.names)}", hint="say which name people type, with --domain"
    )


def now() -> datetime:
    """The time, for everything here."""
    return datetime.now(UTC)


def is_address(host: str) -> bool:
    """Whether `host` is an address and not a name."""
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return False


def _proxy_gid() -> int:
    # Tests run on layouts without our accounts.
    try:
        return grp.getgrnam(names.PROXY_ACCOUNT).gr_gid
    except KeyError:
        return 0


def _own(path: Path, gid: int) -> None:
    if os.geteuid() == 0:
        os.chown(path, 0, gid, follow_symlinks=False)
