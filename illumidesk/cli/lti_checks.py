"""What `illumidesk lti platform test` looks at."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from illumidesk.host.hub_client import Platform
    from illumidesk.settings import Settings

#: Seconds to wait, largest key set in bytes, and clocks' difference in seconds: as launches have it.
TIMEOUT = 5.0
MAX_KEYS = 256 << 10
MAX_SKEW = 300


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def checks(platform: Platform, settings: Settings) -> list[tuple[str, str]]:
    """Pairs of what was looked at and what is wrong with it (empty: nothing)."""
    results = [
        ("sign-in from LMSs is on", "" if settings.sign_in.lti.enabled else "sign_in.lti.enabled is false"),
        ("the address for people is known", _problem_of_address(settings.public_address())),
    ]
    if platform["version"] == "1.1":
        return results
    problem, skew = _look_at_keys(platform["jwks_url"])
    results.append((f"public keys at {platform['jwks_url']}", problem))
    if skew is not None:
        far = abs(skew) > MAX_SKEW
        ahead = "ahead of" if skew > 0 else "behind"
        wrong = f"this machine is {abs(skew) / 60:.0f} minutes {ahead} the LMS: sudo timedatectl set-ntp true"
        results.append(("clocks agree", wrong if far else ""))
    return results


def _problem_of_address(url: str) -> str:
    if not url:
        return "set it: illumidesk config set public_url https://…"
    return "" if url.startswith("https:") else "LMSs launch only to https"


def _look_at_keys(url: str) -> tuple[str, float | None]:
    """What is wrong with the key set, and by how many seconds this machine is ahead, where the answer says."""
    if not url.startswith("https:"):
        return "it is no https address", None
    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310 -- https, see above
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=TIMEOUT) as answer:
            return _problem_of_keys(answer), _skew(answer.headers.get("Date"))
    except urllib.error.HTTPError as error:
        return f"the LMS answers {error.code}", _skew(error.headers.get("Date"))
    except (OSError, ValueError) as error:
        return f"it cannot be had: {getattr(error, 'reason', error)}", None


def _problem_of_keys(answer: IO[bytes]) -> str:
    body = answer.read(MAX_KEYS + 1)
    if len(body) > MAX_KEYS:
        return "it is larger than 256 KiB"
    try:
        keys = json.loads(body)["keys"]
        usable = [key for key in keys if key.get("kty") in ("RSA", "EC")]
    except (ValueError, KeyError, TypeError, AttributeError):
        return "it is no key set (JSON with keys)"
    return "" if usable else "it holds no RSA or EC key"


def _skew(date: str | None) -> float | None:
    try:
        return time.time() - parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError):
        return None
