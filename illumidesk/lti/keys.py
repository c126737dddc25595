"""The tool's own keys: what it signs its messages to platforms with, and what it shows them of it.

Security framework 1.0, sections 5.1.4 and 6.3: RSA, RS256, published as a key set with a `kid` each.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

ALGORITHM = "RS256"
#: Seconds that a platform has to take a message.
LIFETIME = 300


class Key(Protocol):
    """A key pair of this tool."""

    @property
    def kid(self) -> str:
        """Its id."""

    @property
    def private(self) -> str:
        """PEM (PKCS #8), a secret."""


def new_key() -> tuple[str, str]:
    """A fresh key pair of 2048 bits as id and private PEM. It takes up to a second: not on an event loop."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = json.dumps(_public(private.public_key()), sort_keys=True)
    return hashlib.sha256(public.encode()).hexdigest()[:16], pem.decode()


def key_set(keys: Iterable[Key]) -> dict[str, Any]:
    """The public halves as a JWK set (RFC 7517)."""
    found = []
    for key in keys:
        private = serialization.load_pem_private_key(key.private.encode(), password=None)
        assert isinstance(private, rsa.RSAPrivateKey)  # noqa: S101 -- new_key makes no other
        found.append({**_public(private.public_key()), "kid": key.kid, "alg": ALGORITHM, "use": "sig"})
    return {"keys": found}


def sign(claims: Mapping[str, Any], key: Key, *, now: float | None = None) -> str:
    """A JWT of the claims, with `iat` and `exp`.

    Args:
        claims: what it says; `iss`, `aud` and `nonce` or `jti` are the caller's.
        key: the key to sign with.
        now: seconds since 1970; the clock's by default.
    """
    issued = int(time.time() if now is None else now)
    return jwt.encode(
        {"iat": issued, "exp": issued + LIFETIME, **claims}, key.private, algorithm=ALGORITHM, headers={"kid": key.kid}
    )


def _public(key: rsa.RSAPublicKey) -> dict[str, Any]:
    jwk: dict[str, Any] = RSAAlgorithm.to_jwk(key, as_dict=True)
    jwk.pop("key_ops", None)
    return jwk
