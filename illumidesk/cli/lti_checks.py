"""What `illumidesk lti platform test` looks at: as the hub does, from the same machine."""

from __future__ import annotations

import asyncio
import time
import urllib.error
import urllib.request
from collections.abc import Collection
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from illumidesk.host.hub_client import Platform
    from illumidesk.settings import Settings

#: Seconds to wait, and by how many seconds clocks may differ: less than launches may, since they are under way, too.
TIMEOUT = 5.0
MAX_SKEW = 60


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def checks(platform: Platform, settings: Settings, kids: Collection[str]) -> list[tuple[str, str]]:
    """Pairs of what was looked at and what is wrong with it (empty: nothing).

    Args:
        platform: whose launches shall work.
        settings: those in force.
        kids: ids of the keys that the hub has: who shows these at the public address is this hub.
    """
    own = settings.public_address()
    results = [
        ("sign-in from LMSs is on", "" if settings.sign_in.lti.enabled else "sign_in.lti.enabled is false"),
        ("the address for people is known, and https", _problem_of_address(own)),
    ]
    if own:
        results.append((f"this hub answers at {own}", _problem_of_own(own, kids)))
    if platform["version"] == "1.1":
        return results
    loopback = settings.sign_in.lti.loopback_platforms
    results.append(
        (f"authentication at {platform['auth_url']} is https", _problem_of_url(platform["auth_url"], loopback))
    )
    results.append((f"public keys at {platform['jwks_url']}", _problem_of_keys(platform["jwks_url"], loopback)))
    skew = _skew(platform["jwks_url"], loopback)
    if skew is not None:
        ahead = "ahead of" if skew > 0 else "behind"
        wrong = f"this machine is {abs(skew) / 60:.0f} minutes {ahead} the LMS: sudo timedatectl set-ntp true"
        results.append(("clocks agree", wrong if abs(skew) > MAX_SKEW else ""))
    if platform["token_url"]:
        results.append((f"tokens at {platform['token_url']}", _problem_of_tokens(platform["token_url"], loopback)))
    return results


def _problem_of_address(url: str) -> str:
    if not url:
        return "set it: illumidesk config set public_url https://…"
    return "" if url.startswith("https:") else "LMSs launch only to https"


def _problem_of_own(own: str, kids: Collection[str]) -> str:
    from illumidesk.lti.fetch import FetchError, get_json

    # A host's own name may well be a loopback address on itself.
    try:
        answer = asyncio.run(get_json(f"{own}/hub/lti13/jwks", loopback=True))
        found = {key["kid"] for key in answer["keys"]}
    except FetchError as error:
        return f"{error} (asked from this machine; where only that fails, people may still reach it)"
    except (KeyError, TypeError):
        found = set()
    return "" if found & set(kids) else "something else answers there, and not this hub"


def _problem_of_url(url: str, loopback: bool) -> str:
    from illumidesk.lti.fetch import FetchError, check_url

    try:
        check_url(url, loopback=loopback)
    except FetchError as error:
        return str(error)
    return ""


def _problem_of_keys(url: str, loopback: bool) -> str:
    from illumidesk.lti.fetch import FetchError, get_json
    from illumidesk.lti.jwks import usable_keys

    try:
        usable = usable_keys(asyncio.run(get_json(url, loopback=loopback)))
    except FetchError as error:
        return str(error)
    return "" if usable else "none of them can be used: RSA keys of 2048 bits or EC keys, each with a kid"


def _skew(url: str, loopback: bool) -> float | None:
    """By how many seconds this machine is ahead, where the answer says."""
    date = None if _problem_of_url(url, loopback) else _ask(url)
    try:
        return time.time() - parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError):
        return None


def _problem_of_tokens(url: str, loopback: bool) -> str:
    problem = _problem_of_url(url, loopback)
    if not problem:
        try:
            # Nobody gets a token for nothing: that there is an answer is what counts.
            _ask(url, quiet=False)
        except (OSError, ValueError) as error:
            problem = f"it cannot be reached: {getattr(error, 'reason', error)}"
    return problem


def _ask(url: str, *, quiet: bool = True) -> str | None:
    """The Date of whatever `url` answers."""
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310 -- checked before
    # No proxy of root's environment: the hub has none.
    opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=TIMEOUT) as answer:
            date: str | None = answer.headers.get("Date")
            return date
    except urllib.error.HTTPError as error:
        return error.headers.get("Date")
    except (OSError, ValueError):
        if not quiet:
            raise
        return None
