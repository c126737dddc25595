"""Platforms' public keys: fetched off the path of launches where that can be, and kept."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from illumidesk.lti.errors import LTIError, shown
from illumidesk.lti.fetch import FetchError, get_json

#: Seconds that keys are believed, and that they are still used where the platform does not answer.
FRESH = 3600.0
STALE = 86400.0
#: Least seconds between two fetches of one address: for a `kid` that is not known, and after a failure.
AGAIN = 30.0
AFTER_FAILURE = 5.0
MAX_KEYS = 100

#: What launches may be signed with. Never `none`, never HMAC with a public key for its secret.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")

#: The one algorithm of each curve (RFC 7518, section 3.4).
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}

log = logging.getLogger("illumidesk.lti")


@dataclass(frozen=True)
class PublicKey:
    """A platform's key, and the one algorithm that it is for, where the platform says so."""

    key: Any
    algorithm: str | None


@dataclass
class _Entry:
    keys: dict[str, list[PublicKey]] = field(default_factory=dict)
    fetched: float = float("-inf")
    tried: float = float("-inf")
    problem: str = ""
    fetching: asyncio.Task[None] | None = None


class JwksCache:
    """The keys at any number of addresses.

    Args:
        loopback: whether platforms on this machine are all right.
        get: how an address is fetched; tests give their own.
        clock: seconds that only rise.
    """

    def __init__(
        self,
        *,
        loopback: bool = False,
        get: Callable[[str], Awaitable[Any]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._get = get or (lambda url: get_json(url, loopback=loopback))
        self._clock = clock
        self._entries: dict[str, _Entry] = {}

    async def key(self, url: str, kid: str, algorithm: str) -> PublicKey:
        """The key of that id for that algorithm.

        A set is fetched once for everybody who waits for it, at most every `FRESH` seconds, and for an id that is not
        in it at most every `AGAIN` seconds.

        Args:
            url: where the platform publishes its keys.
            kid: the key's id.
            algorithm: one of `ALGORITHMS`.

        Raises:
            LTIError: where the keys cannot be had, or that one is not among them.
        """
        entry = self._entries.setdefault(url, _Entry())
        found = _fitting(entry, kid, algorithm)
        age = self._clock() - entry.fetched
        if found is not None and age < FRESH:
            return found
        wait = AFTER_FAILURE if entry.problem or found is not None else AGAIN
        if entry.fetching is not None or self._clock() - entry.tried >= wait:
            await self._fetched(url, entry)
            found = _fitting(entry, kid, algorithm)
        if found is not None and self._clock() - entry.fetched < STALE:
            return found
        if entry.problem:
            raise LTIError(
                "the keys of the learning management system cannot be had now",
                code="jwks",
                hint="try again in a minute; the LMS's administrator finds its key set address in its settings",
                detail=f"{shown(url, 200)}: {entry.problem}",
                status=502,
            )
        raise LTIError(
            "the launch is signed with a key that the learning management system does not publish",
            code="kid",
            hint="try again in a minute",
            detail=f"kid {shown(kid)}, {algorithm}, {shown(url, 200)}",
        )

    async def _fetched(self, url: str, entry: _Entry) -> None:
        if entry.fetching is None:
            entry.fetching = asyncio.create_task(self._fetch(url, entry))
        # Whoever goes away must not end the fetch of the others.
        await asyncio.shield(entry.fetching)

    async def _fetch(self, url: str, entry: _Entry) -> None:
        try:
            entry.keys = _keys(await self._get(url))
            entry.fetched = self._clock()
            entry.problem = ""
        except FetchError as error:
            entry.problem = str(error)
            log.warning("keys at %s cannot be had: %s", shown(url, 200), error)
        finally:
            entry.tried = self._clock()
            entry.fetching = None


def usable_keys(answer: Any) -> int:
    """How many keys of a set could verify launches.

    Raises:
        FetchError: where it is no set.
    """
    return sum(map(len, _keys(answer).values()))


def _fitting(entry: _Entry, kid: str, algorithm: str) -> PublicKey | None:
    for key in entry.keys.get(kid, ()):
        if isinstance(key.key, ec.EllipticCurvePublicKey):
            fits = _CURVES.get(key.key.curve.name) == algorithm
        else:
            fits = algorithm[0] in "RP"
        if fits and key.algorithm in (None, algorithm):
            return key
    return None


def _keys(answer: Any) -> dict[str, list[PublicKey]]:
    """The keys of a set that can be used, by id.

    Raises:
        FetchError: where it is no set.
    """
    listed = answer.get("keys") if isinstance(answer, dict) else None
    if not isinstance(listed, list):
        raise FetchError("the answer is no key set")
    keys: dict[str, list[PublicKey]] = {}
    for one in listed[:MAX_KEYS]:
        if not isinstance(one, dict) or one.get("use", "sig") != "sig" or one.get("kty") not in ("RSA", "EC"):
            continue
        kid = one.get("kid")
        try:
            key = jwt.PyJWK(one).key
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, NotImplementedError, UnsupportedAlgorithm):
            continue  # one odd key, `alg` none among them, must not hide the others
        # No private key, and none that is too short to be believed or takes too long to use.
        usable = (isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 16384) or isinstance(
            key, ec.EllipticCurvePublicKey
        )
        if isinstance(kid, str) and usable:
            keys.setdefault(kid, []).append(PublicKey(key, one.get("alg")))
    return keys
