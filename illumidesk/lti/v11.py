"""LTI 1.1: launches signed with a consumer's secret (LTI 1.1.1, section 4; OAuth 1.0a, RFC 5849 section 3.4)."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

from oauthlib.oauth1 import Client
from oauthlib.oauth1.rfc5849 import signature

from illumidesk.lti.errors import LMS_ADMIN, TOOL_ADMIN, LTIError, clock_problem, shown
from illumidesk.lti.launch import (
    DeepLinking,
    Launch,
    LinkServices,
    first_text,
    is_web_address,
    next_of,
    one_line,
    role_of,
    service_address,
)
from illumidesk.registry import MemberRole

#: Seconds that a launch's time may differ from ours (the LTI guide's 90 minutes would keep more nonces than needed).
WINDOW = 300

#: Longest sourcedid that is kept, in characters.
MAX_SOURCEDID = 4096

LAUNCH = "basic-lti-launch-request"
SELECTION = "ContentItemSelectionRequest"


class Consumer(Protocol):
    """A platform that speaks LTI 1.1."""

    @property
    def id(self) -> int:
        """The registry's number."""

    @property
    def key(self) -> str:
        """The consumer key."""

    @property
    def secret(self) -> str:
        """What it signs with."""


class NonceStore(Protocol):
    """Where used nonces are kept."""

    def use_nonce(self, platform_id: int, value: str, expires: float) -> bool:
        """Take a nonce; whether it had not been used. `expires` is in seconds since 1970."""


def verify(
    form: Mapping[str, str],
    url: str,
    *,
    consumers: Callable[[str], Consumer | None],
    nonces: NonceStore,
    roles: Mapping[str, MemberRole],
    own: str,
    now: float | None = None,
) -> Launch:
    """The launch that a form holds.

    Args:
        form: the fields of the body, each once.
        url: the address that it was sent to as the platform knows it, with its query.
        consumers: the platform of a consumer key.
        nonces: kept only once the signature holds, so that strangers cannot fill it.
        roles: see `role_of`.
        own: this host's address.
        now: seconds since 1970; the clock's by default.

    Raises:
        LTIError: where it is not to be believed, or is no launch.
    """
    now = time.time() if now is None else now
    consumer, expires = _verified_consumer(form, url, consumers, now)
    launch = _launch(form, url, consumer.id, roles, own)
    if not nonces.use_nonce(consumer.id, f"{form['oauth_timestamp']} {form['oauth_nonce']}", expires):
        raise LTIError(
            "this launch has been used already",
            code="replayed",
            hint="go back to the course and click the link again",
            who="you",
        )
    return launch


# Who signed it


def _verified_consumer(
    form: Mapping[str, str], url: str, consumers: Callable[[str], Consumer | None], now: float
) -> tuple[Consumer, float]:
    for name in ("consumer_key", "signature_method", "timestamp", "nonce", "version", "callback", "signature"):
        if not form.get(f"oauth_{name}"):
            raise LTIError(
                f"this is no signed launch: oauth_{name} is missing",
                code="unsigned",
                hint="open this page by its link in the course",
                who=f"you; where the course's link leads here, {LMS_ADMIN}",
                status=400,
            )
    for name, wanted in (("signature_method", "HMAC-SHA1"), ("version", "1.0"), ("callback", "about:blank")):
        if form[f"oauth_{name}"] != wanted:
            raise LTIError(
                f"the launch says oauth_{name}={shown(form[f'oauth_{name}'])}; LTI 1.1 has {wanted}",
                code=f"oauth-{name.replace('_', '-')}",
                status=400,
            )
    stamp, nonce = form["oauth_timestamp"], form["oauth_nonce"]
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12) or len(nonce) > 255:
        raise LTIError("the launch's oauth_timestamp or oauth_nonce is none", code="timestamp", status=400)
    key = form["oauth_consumer_key"]
    consumer = consumers(key)
    if consumer is None:
        raise LTIError(
            f"this classroom does not know the consumer key {shown(key)!r}",
            code="unknown-key",
            hint="the key in the LMS must be one that `illumidesk lti platform list` shows",
            who=f"{LMS_ADMIN} and {TOOL_ADMIN}",
        )
    if not any(hmac.compare_digest(one, form["oauth_signature"].encode()) for one in _signatures(form, url, consumer)):
        raise LTIError(
            "the launch's signature is wrong",
            code="signature",
            hint="the shared secret in the LMS must be the one given here for that key, and the launch address in the "
            "LMS the one that `illumidesk lti platform show` prints",
            who=f"{LMS_ADMIN} and {TOOL_ADMIN}",
            detail=f"key {shown(key)}, signed for {shown(url.partition('?')[0], 200)}",
        )
    age = now - int(stamp)
    if abs(age) > WINDOW:
        raise clock_problem(age, "launch")
    return consumer, int(stamp) + WINDOW


def _signatures(form: Mapping[str, str], url: str, consumer: Consumer) -> Iterator[bytes]:
    """The signatures that the form may bear."""
    client = Client(consumer.key, client_secret=consumer.secret)
    try:
        base = signature.base_string_uri(url)
    except ValueError:
        return
    query = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    body = [(name, value) for name, value in form.items() if name != "oauth_signature"]
    readings = [query + body]
    if any(form.get(name) == value for name, value in query):
        # Moodle signs the address's query once and sends it twice, in the address and in the form.
        readings.append([pair for pair in query if form.get(pair[0]) != pair[1]] + body)
    if any("\r\n" in value for _, value in body):
        # Browsers make CR LF of the LF that the platform signed.
        readings += [[(name, value.replace("\r\n", "\n")) for name, value in reading] for reading in readings]
    for reading in readings:
        # The stub says dict; the function says pairs.
        normalized = signature.normalize_parameters(reading)  # type: ignore[arg-type]
        text = signature.signature_base_string("POST", base, normalized)
        # Not oauthlib's verify_…: it writes what does not match, secrets of people among it, into the log.
        signed: str = signature.sign_hmac_sha1_with_client(text, client)
        yield signed.encode()


# What it says


def _launch(form: Mapping[str, str], url: str, platform_id: int, roles: Mapping[str, MemberRole], own: str) -> Launch:
    kind = form.get("lti_message_type", "")
    if kind not in (LAUNCH, SELECTION):
        raise LTIError(
            f"the message is a {shown(kind)!r}, and neither a launch nor a content-item selection",
            code="message-type",
            status=400,
        )
    if form.get("lti_version") != "LTI-1p0":
        raise LTIError(
            f"the launch is of LTI version {shown(form.get('lti_version', ''))!r} and not LTI-1p0",
            code="version",
            status=400,
        )
    sub = form.get("user_id", "")
    if not sub.strip():
        raise LTIError(
            "the learning management system does not say who you are (user_id)",
            code="user",
            hint="its settings for this tool must send the user's id",
        )
    selection = _selection(form) if kind == SELECTION else None
    link = form.get("resource_link_id", "")
    if selection is None and not link.strip():
        raise LTIError("the launch names no link (resource_link_id)", code="resource-link", status=400)
    query = dict(parse_qsl(urlsplit(url).query))
    # A link that was chosen here says what it opens in its address, too: not every platform keeps custom parameters.
    custom = {name: text for name, text in query.items() if name in {"assignment", "workspace_type"}}
    custom |= {name.removeprefix("custom_"): value for name, value in form.items() if name.startswith("custom_")}
    context_id = form.get("context_id", "").strip() or None
    workspace_type = (
        form.get("workspace_type") or custom.get("workspace_type", "") or query.get("custom_workspace_type", "")
    )
    return Launch(
        platform_id=platform_id,
        version="1.1",
        sub=sub,
        name=first_text([form.get("lis_person_name_full")]),
        given_name=first_text([form.get("lis_person_name_given")]),
        family_name=first_text([form.get("lis_person_name_family")]),
        email=first_text([form.get("lis_person_contact_email_primary")]),
        login=first_text(form.get(name) for name in _LOGINS),
        context_id=context_id,
        context_label=first_text([form.get("context_label")]),
        context_title=first_text([form.get("context_title")]),
        role=None if context_id is None else role_of([form.get("roles", "")], roles),
        resource_link_id=link or None,
        resource_link_title=one_line(form.get("resource_link_title")),
        next_url=next_of(
            given=[form.get("next", ""), form.get("custom_next", "")],
            target=url if url.startswith(own) else "",
            workspace_type=workspace_type,
            own=own,
        ),
        workspace_type=one_line(workspace_type, 64),
        custom=custom,
        return_url=form.get("launch_presentation_return_url", ""),
        deep_linking=selection,
        services=LinkServices(
            outcome_url=service_address(form.get("lis_outcome_service_url")),
            sourcedid=_sourcedid(form),
        ),
    )


#: Where platforms put the name that somebody signs in with.
_LOGINS = (
    "custom_canvas_user_login_id",
    "ext_user_username",
    "ext_sakai_eid",
    "ext_d2l_username",
    "custom_username",
    "lis_person_sourcedid",
)


def _sourcedid(form: Mapping[str, str]) -> str:
    """Letter by letter, since the platform compares it so; a part of one would be none."""
    sourcedid = form.get("lis_result_sourcedid", "")
    return sourcedid if len(sourcedid) <= MAX_SOURCEDID else ""


def _selection(form: Mapping[str, str]) -> DeepLinking:
    """What a content-item selection asks for (LTI Content-Item Message 1.0, section 3.1)."""
    return_url = form.get("content_item_return_url", "")
    if not is_web_address(return_url):
        raise LTIError(
            "the platform does not say where the link goes to (content_item_return_url)", code="return-url", status=400
        )
    return DeepLinking(
        return_url=return_url,
        data=form.get("data"),
        accepts=tuple(part.strip() for part in form.get("accept_media_types", "").split(",") if part.strip()),
        multiple=form.get("accept_multiple", "").lower() == "true",
    )
