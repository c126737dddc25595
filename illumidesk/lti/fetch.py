"""Fetching what a platform publishes, without letting it lead us anywhere else.

An address comes from whoever registered the platform, so it may point at this machine's own services or at a cloud's
metadata. It is looked up here, and only then connected to.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

#: Seconds for everything, and the most bytes of an answer.
TIMEOUT = 5.0
MAX_BYTES = 256 << 10


#: How networks that have IPv6 alone name addresses of IPv4 (RFC 6052, section 2.1).
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class FetchError(Exception):
    """What went wrong, in words that complete "the keys cannot be had: …"."""


async def get_json(url: str, *, loopback: bool = False) -> Any:
    """The JSON at `url`.

    No redirect is followed, no compressed answer taken, and no address of this machine or its link connected to.

    Args:
        url: an https address.
        loopback: whether a platform on this machine is all right, by http too.

    Raises:
        FetchError: where it cannot be had.
    """
    return await _request("GET", url, loopback=loopback)


async def post_json(url: str, body: Any, *, token: str = "", loopback: bool = False) -> Any:
    """The JSON with which `url` answers a JSON body; otherwise as `get_json`.

    Args:
        url: an https address.
        body: what is sent.
        token: a bearer token, where one is needed.
        loopback: as in `get_json`.

    Raises:
        FetchError: where it is not answered, or with an error.
    """
    return await _request("POST", url, loopback=loopback, body=body, token=token)


async def _request(method: str, url: str, *, loopback: bool, body: Any = None, token: str = "") -> Any:
    check_url(url, loopback=loopback)
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector(loopback, force_close=True), timeout=timeout, auto_decompress=False
            ) as session,
            session.request(method, url, allow_redirects=False, headers=headers, json=body) as answer,
        ):
            text = await limited(answer)
            if answer.status not in (200, 201):
                raise FetchError(f"the answer is {answer.status}{_reason(text)}")
    except FetchError:
        raise
    except TimeoutError:
        raise FetchError(f"no answer within {TIMEOUT:g} seconds") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise FetchError(str(error)[:200] or type(error).__name__) from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise FetchError("the answer is no JSON") from None


def _reason(body: bytes) -> str:
    """What an error answer says of itself (RFC 7591, section 3.2.2), if anything."""
    try:
        said = json.loads(body)
        text = str(said.get("error_description") or said.get("error") or "")
    except (ValueError, RecursionError, AttributeError):
        return ""
    return f": {text[:200]}" if text else ""


def check_url(url: str, *, loopback: bool) -> None:
    """Nothing, where `url` may be fetched as far as it shows.

    Raises:
        FetchError: where it may not.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        raise FetchError("it is no address") from None
    numbers = _numbers(host)
    here = host == "localhost" or any(ipaddress.ip_address(number).is_loopback for number in numbers)
    secure = parts.scheme == "https" or (parts.scheme == "http" and loopback and here)
    if not host or not secure or parts.username is not None:
        raise FetchError("it is no https address")
    # aiohttp does not ask its resolver for numbers.
    for number in numbers:
        _check_address(number, loopback=loopback)


def _numbers(host: str) -> list[str]:
    """`host` where it is a number, in any spelling that the system's resolver takes (127.1, 0x7f000001)."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []
    return [str(entry[4][0]).partition("%")[0] for entry in found]


def _check_address(address: str, *, loopback: bool) -> None:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        behind_nat64 = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None
        ip = ip.ipv4_mapped or ip.sixtofour or behind_nat64 or ip
    if ip.is_loopback and loopback:
        return
    if ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip.is_reserved:
        raise FetchError("it leads to this machine itself or to no host of a network")


def connector(loopback: bool, **options: Any) -> aiohttp.TCPConnector:
    """What connects to no address that `check_url` would refuse, whatever a name leads to.

    Args:
        loopback: as in `get_json`.
        options: aiohttp's.
    """
    return aiohttp.TCPConnector(resolver=_Resolver(loopback), **options)


class _Resolver(AbstractResolver):
    def __init__(self, loopback: bool) -> None:
        self._loopback = loopback
        self._system = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._system.resolve(host, port, family)
        for one in found:
            _check_address(one["host"], loopback=self._loopback)
        return found

    async def close(self) -> None:
        await self._system.close()


async def limited(answer: aiohttp.ClientResponse, most: int = MAX_BYTES) -> bytes:
    """The body of an answer.

    Args:
        answer: whose body has not been read.
        most: bytes.

    Raises:
        FetchError: where it has more.
    """
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > most:
            raise FetchError(f"the answer is larger than {most >> 10} KiB")
        await asyncio.sleep(0)
    return bytes(body)
