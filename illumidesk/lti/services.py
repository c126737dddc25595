"""Asking a platform's services, and what is told of it when that fails.

Access tokens: Security Framework 1.0, section 4.1 (RFC 6749, section 4.4; RFC 7523). What the services are is in `ags`,
`nrps` and `outcomes`.
"""

from __future__ import annotations

import asyncio
import http
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import Any, Protocol
from urllib.parse import urlencode, urljoin, urlsplit
from weakref import WeakValueDictionary

import aiohttp
from yarl import URL

from illumidesk.lti.errors import LMS_ADMIN, TOOL_ADMIN, LTIError, shown
from illumidesk.lti.fetch import FetchError, check_url, connector, limited
from illumidesk.lti.keys import Key, sign
from illumidesk.lti.launch import one_line

#: Seconds for one request, and of them for a connection.
TIMEOUT = 30.0
CONNECT = 10.0
#: Requests to one host at a time.
PER_HOST = 4
#: Seconds that a connection is kept for the next request. Less than common servers keep theirs: a request on a
#: connection that the server is just closing may or may not have been taken.
KEEP = 3.0
#: The most bytes of an answer (a page of a list of people), and of one that says little.
MAX_BYTES = 8 << 20
SMALL = 256 << 10
#: Pages of a list, and entries in all of them.
MAX_PAGES = 1000
MAX_ENTRIES = 100_000
#: The most seconds that `Retry-After` is heeded.
MAX_AFTER = 86400.0
#: Seconds before its end at which a token is not used any more, and a token's life where it says nothing.
TOKEN_MARGIN = 60.0
TOKEN_LIFETIME = 300.0

_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class ServiceError(LTIError):
    """A platform that does not do what it was asked, or cannot be asked.

    Args:
        message: one sentence for the teacher.
        code: a stable word.
        hint: what to do.
        who: who can mend it.
        detail: for the log.
        retry: whether the same may succeed later without anybody's doing.
        unsure: whether the platform may have taken what was sent all the same.
        after: seconds that the platform asks to be left alone; None where it does not say.
        answered: the HTTP status that the platform answered; 0 where it did not.
        said: why, in the platform's own words; "" where it does not say.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        hint: str = "",
        who: str = LMS_ADMIN,
        detail: str = "",
        retry: bool = False,
        unsure: bool = False,
        after: float | None = None,
        answered: int = 0,
        said: str = "",
    ) -> None:
        super().__init__(message, code=code, hint=hint, who=who, detail=detail, status=502)
        self.retry = retry
        self.unsure = unsure
        self.after = after
        self.answered = answered
        self.said = said


class Platform(Protocol):
    """A platform that has services by LTI 1.3."""

    @property
    def id(self) -> int:
        """The registry's number."""

    @property
    def client_id(self) -> str:
        """What it calls this tool."""

    @property
    def token_url(self) -> str:
        """Where access tokens are had; "" where nobody said."""

    @property
    def token_audience(self) -> str:
        """Whom a request for a token is meant for, where that is not `token_url`; otherwise ""."""


@dataclass(frozen=True)
class Purpose:
    """What a request is for, in words that errors are made of.

    Attributes:
        does: completes "the LMS does not let this tool …".
        refused: a sentence for what the platform does not take as it is.
        gone: a sentence for an address that is nothing (any more), and `gone_code` its code.
    """

    does: str
    refused: str
    gone: str
    gone_code: str


@dataclass(frozen=True)
class Answer:
    """What a platform answered.

    Attributes:
        url: that was asked.
        reason: the phrase beside the status.
        body: b"" too where nobody needs it and it did not come well.
    """

    url: str
    status: int
    reason: str
    headers: Mapping[str, str]
    links: tuple[str, ...]
    body: bytes

    @property
    def is_page(self) -> bool:
        """Whether it is for people: a page to sign in, or one of a proxy that says that the LMS is being mended."""
        head = self.body[:1000].strip()
        if re.match(rb"<(!doctype\s+html|html|head|body)\b", head, re.I):
            return True
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip().casefold()
        return kind == "text/html" and bool(head) and not head.startswith((b"<?xml", b"{", b"["))

    def json(self, *, unsure: bool = False) -> Any:
        """The body's value, whatever media type it says.

        Raises:
            ServiceError: where it is none.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise unusable(self, "it is no JSON", unsure=unsure) from None


@dataclass(frozen=True)
class _Token:
    value: str
    #: On the clock of `Services`.
    ends: float


_TokenKey = tuple[int, str, str, str, tuple[str, ...]]


class Services:
    """Platforms' services, asked over connections that are kept for a while.

    Args:
        keys: this tool's keys, the one that signs first.
        loopback: whether a platform on this machine is all right, by http too.
        timeout: seconds for one request.
        clock: seconds that only rise.
    """

    def __init__(
        self,
        keys: Callable[[], Awaitable[Sequence[Key]]],
        *,
        loopback: bool = False,
        timeout: float = TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._loopback = loopback
        self._timeout = timeout
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._tokens: dict[_TokenKey, _Token] = {}
        self._fetching: dict[_TokenKey, asyncio.Task[_Token]] = {}
        self._gates: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def close(self) -> None:
        """End all connections. Who waits for an answer gets an error."""
        self._closed = True
        if self._session is not None:
            await self._session.close()
        await asyncio.gather(*self._fetching.values(), return_exceptions=True)

    async def request(
        self,
        platform: Platform,
        method: str,
        url: str,
        *,
        scopes: Collection[str],
        purpose: Purpose,
        accept: str = "",
        kind: str = "",
        body: Any = None,
        wanted: bool = True,
    ) -> Answer:
        """Ask a service with a token of that platform.

        Args:
            platform: whose service it is.
            method: GET or POST.
            url: of the service, letter by letter. It may be of any host that `fetch.check_url` lets pass: a verified
                launch brought it.
            scopes: what the token is for.
            purpose: in words.
            accept: the media type that is taken.
            kind: the media type of what is sent.
            body: what is sent, as JSON; None sends nothing.
            wanted: whether the answer's body is of use.

        Returns:
            an answer of success (2xx).

        Raises:
            ServiceError: otherwise.
        """
        key = _token_key(platform, scopes)
        data = None if body is None else json.dumps(body, allow_nan=False).encode()
        for last in (False, True):
            token = await self._token(platform, key)
            headers = {"Authorization": f"Bearer {token}"}
            headers |= {"Accept": accept} if accept else {}
            headers |= {"Content-Type": kind} if kind else {}
            most = MAX_BYTES if wanted else SMALL
            answer = await self.exchange(method, url, headers=headers, data=data, wanted=wanted, most=most)
            if last or not _token_refused(answer):
                break
            # The platform has forgotten it; somebody else may have noticed already and have a new one.
            if key in self._tokens and self._tokens[key].value == token:
                del self._tokens[key]
        if 200 <= answer.status < 300:
            if answer.is_page:
                raise unusable(answer, "it is a page for people", unsure=method != "GET")
            return answer
        # Some say in their answer what they were sent.
        answer = replace(answer, body=answer.body.replace(token.encode(), b"..."))
        raise refusal(answer, purpose, writing=method != "GET")

    async def pages(
        self, platform: Platform, url: str, *, scopes: Collection[str], purpose: Purpose, accept: str
    ) -> AsyncIterator[Any]:
        """The pages of a list, by `Link: <…>; rel="next"` (AGS 2.0, section 3.2.4; NRPS 2.0, section 2.4).

        Raises:
            ServiceError: where one cannot be had, or they have no end.
        """
        seen: set[str] = set()
        following = url
        while following:
            seen.add(following)
            answer = await self.request(platform, "GET", following, scopes=scopes, purpose=purpose, accept=accept)
            yield answer.json()
            following = next(iter(answer.links), "")
            if following in seen or (following and len(seen) >= MAX_PAGES):
                raise unusable(answer, "its pages have no end")

    # HTTP

    async def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | Callable[[], Mapping[str, str]],
        data: bytes | None = None,
        wanted: bool = True,
        most: int = MAX_BYTES,
        writing: bool | None = None,
    ) -> Answer:
        """One request and its answer, whatever the answer's status is. No redirect is followed.

        Args:
            method: GET or POST.
            url: letter by letter.
            headers: besides the usual ones; a function gives them when it is this request's turn, for signatures do
                not last.
            data: the body.
            wanted: whether the body of a success is of use.
            most: bytes of the answer's body.
            writing: whether the platform keeps something of what is sent; by default, whether it is no GET.

        Raises:
            ServiceError: where nobody answers.
        """
        if not re.fullmatch(r"[!-~]+", url):
            raise bad_address(url, "it is no address")
        try:
            check_url(url, loopback=self._loopback)
        except FetchError as error:
            raise bad_address(url, str(error)) from None
        state = SimpleNamespace(sent=False)
        writing = method != "GET" if writing is None else writing
        parts = urlsplit(url)
        gate = self._gates.setdefault(f"{parts.scheme}://{parts.netloc}", asyncio.Semaphore(PER_HOST))
        try:
            async with gate:
                fields = headers() if callable(headers) else headers
                return await self._exchange(method, url, fields, data, wanted, most, writing, state)
        except FetchError as error:
            raise bad_address(url, str(error)) from None
        except TimeoutError:
            raise _unreached(url, "the LMS does not answer", "timeout", state.sent and writing) from None
        except aiohttp.ClientSSLError as error:
            why = f"the LMS's certificate is not to be trusted: {shown(error, 200)}"
            raise _unreached(url, "no safe connection to the LMS can be had", "certificate", False, why) from None
        except aiohttp.InvalidURL:
            raise bad_address(url, "it is no address") from None
        except (aiohttp.ClientError, OSError) as error:
            why = shown(error or type(error).__name__, 200)
            if state.sent:
                sentence = "the connection to the LMS broke before it had answered"
                raise _unreached(url, sentence, "broken", writing, why) from None
            raise _unreached(url, "the LMS cannot be reached", "unreachable", False, why) from None

    async def _exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        data: bytes | None,
        wanted: bool,
        most: int,
        writing: bool,
        state: SimpleNamespace,
    ) -> Answer:
        session = self._opened()
        asked = {"Accept-Encoding": "identity", **headers}
        async with session.request(
            method,
            URL(url, encoded=True),
            data=data,
            headers=asked,
            allow_redirects=False,
            trace_request_ctx=state,
        ) as answer:
            needed = wanted and answer.status < 300
            try:
                body = await limited(answer, most)
            except FetchError as error:
                answer.close()
                if needed:
                    raise ServiceError(
                        "the LMS answers more than can be taken in",
                        code="too-large",
                        detail=f"{shown(url, 200)}: {error}",
                        unsure=writing,
                    ) from None
                body = b""
            except (TimeoutError, aiohttp.ClientError, OSError):
                if needed:
                    raise
                # The status says enough.
                body = b""
            return Answer(
                url=url,
                status=answer.status,
                reason=answer.reason or "",
                headers=answer.headers,
                links=tuple(_next_links(url, answer.headers.getall("Link", []))),
                body=body,
            )

    def _opened(self) -> aiohttp.ClientSession:
        if self._closed:
            raise ServiceError("this classroom is just being stopped", code="closed", who=TOOL_ADMIN, retry=True)
        if self._session is None:
            trace = aiohttp.TraceConfig()
            trace.on_request_headers_sent.append(_note_sent)
            self._session = aiohttp.ClientSession(
                connector=connector(self._loopback, limit=0, keepalive_timeout=KEEP),
                timeout=aiohttp.ClientTimeout(total=self._timeout, sock_connect=CONNECT),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=[trace],
            )
        return self._session

    # Access tokens

    async def _token(self, platform: Platform, key: _TokenKey) -> str:
        """A token that lasts a while: the one at hand, or a new one, fetched once for all who wait for it."""
        kept = self._tokens.get(key)
        if kept is not None and self._clock() < kept.ends:
            return kept.value
        task = self._fetching.get(key)
        if task is None:
            task = asyncio.create_task(self._fetch_token(platform, key))
            self._fetching[key] = task
            task.add_done_callback(lambda done: self._fetched(key, done))
        # Whoever goes away must not end the fetch of the others.
        return (await asyncio.shield(task)).value

    def _fetched(self, key: _TokenKey, task: asyncio.Task[_Token]) -> None:
        del self._fetching[key]
        if not task.cancelled() and task.exception() is None:
            self._tokens[key] = task.result()

    async def _fetch_token(self, platform: Platform, key: _TokenKey) -> _Token:
        if not platform.token_url:
            raise ServiceError(
                "this classroom does not know where the LMS gives out access tokens",
                code="token-url",
                hint="`illumidesk lti platform add … --replace --token-url URL` adds it",
                who=TOOL_ADMIN,
            )
        claims = {
            "iss": platform.client_id,
            "sub": platform.client_id,
            "aud": platform.token_audience or platform.token_url,
            "jti": secrets.token_urlsafe(24),
        }
        signing = (await self._keys())[0]
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": _ASSERTION,
            # To load a key takes long.
            "client_assertion": await asyncio.to_thread(sign, claims, signing),
            "scope": " ".join(key[-1]),
        }
        asked = self._clock()
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        try:
            answer = await self.exchange(
                "POST", platform.token_url, headers=headers, data=urlencode(form).encode(), most=SMALL
            )
        except ServiceError as error:
            # Nothing of what the token was for has been sent.
            error.unsure = False
            raise
        if not 200 <= answer.status < 300:
            # Some say in their answer what they were sent.
            sent = form["client_assertion"].encode()
            raise _token_refusal(replace(answer, body=answer.body.replace(sent, b"...")))
        value = answer.json()
        token = value.get("access_token") if isinstance(value, dict) else None
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]{1,16384}", token):
            raise unusable(answer, "it holds no access token")
        lifetime = _seconds(value.get("expires_in"))
        lifetime = TOKEN_LIFETIME if lifetime is None else lifetime
        return _Token(token, asked + lifetime - min(TOKEN_MARGIN, lifetime / 4))


def scopes_for(offered: Collection[str], *fitting: str, does: str) -> tuple[str, ...]:
    """The scope to ask for, of those that will do.

    Args:
        offered: what the platform lets this tool do in the course, as a launch says; nothing where it does not say.
        fitting: any of them will do, the best first.
        does: completes "the LMS does not let this tool …".

    Raises:
        ServiceError: where none of them is offered.
    """
    for scope in fitting:
        if not offered or scope in offered:
            return (scope,)
    raise ServiceError(
        f"the LMS does not let this tool {does}",
        code="scope",
        hint=f"allow it in the LMS's settings of this tool, and open the link in the course again ({fitting[0]})",
    )


def with_query(url: str, parameters: Mapping[str, str]) -> str:
    """An address with more in its query; what is there stays letter by letter. Parameters that are "" are left out."""
    added = urlencode({name: value for name, value in parameters.items() if value})
    head, mark, fragment = url.partition("#")
    if not added:
        return url
    _, asks, query = head.partition("?")
    joint = "?" if not asks else "&" if query and not query.endswith("&") else ""
    return f"{head}{joint}{added}{mark}{fragment}"


# What went wrong


def refusal(answer: Answer, purpose: Purpose, *, writing: bool) -> ServiceError:
    """The error that an answer of no success is.

    Args:
        answer: of another status than 2xx.
        purpose: what it was to do.
        writing: whether something was sent that the platform may have kept.
    """
    said = reason_of(answer)
    error = _passing(answer, said, writing) or _lasting(answer.status, said, purpose)
    return _noted(error, answer, said)


def _lasting(status: int, said: str, purpose: Purpose) -> ServiceError:
    """The error where somebody must do something first."""
    because = f": {said}" if said else ""
    if 300 <= status < 400:
        return ServiceError(
            "the LMS sends this tool elsewhere instead of answering",
            code="redirect",
            hint="its addresses have moved, or it wants somebody to sign in: open the link in the course again",
        )
    if status == 401:
        return ServiceError(
            f"the LMS does not take the access token that it gave this tool{because}",
            code="unauthorized",
            hint="this tool must be switched on for the course in the LMS",
        )
    if status == 403:
        return ServiceError(
            f"the LMS does not let this tool {purpose.does}{because}",
            code="forbidden",
            hint="allow it in the LMS's settings of this tool",
        )
    if status in (404, 410):
        return ServiceError(
            f"{purpose.gone}{because}",
            code=purpose.gone_code,
            hint="open the link in the course again: it brings the addresses of now",
        )
    return ServiceError(f"{purpose.refused}{because or f' (answer {status})'}", code="refused")


def _token_refused(answer: Answer) -> bool:
    """Whether it is the token that the platform does not take. Open edX says so with 403 (Invalid token signature)."""
    return answer.status == 401 or (answer.status == 403 and bool(re.search(r"\btoken\b", reason_of(answer), re.I)))


def _passing(answer: Answer, said: str, writing: bool) -> ServiceError | None:
    """The error where the same may succeed later."""
    status = answer.status
    after = retry_after(answer.headers.get("Retry-After", ""))
    # Canvas says so with 403.
    if status == 429 or (status == 403 and re.search(r"rate limit", said, re.I)):
        return ServiceError("the LMS wants to be asked less often", code="rate-limit", retry=True, after=after)
    if status in (408, 425) or (status >= 500 and status not in (501, 505)):
        return ServiceError(
            f"the LMS has trouble of its own (answer {status})",
            code="platform",
            retry=True,
            unsure=writing and status >= 500,
            after=after,
        )
    return None


def _noted(error: ServiceError, answer: Answer, said: str) -> ServiceError:
    error.answered = answer.status
    error.said = said
    error.detail = f"{answer.status} of {shown(answer.url, 200)}{f': {said}' if said else ''}"
    return error


def unusable(answer: Answer, why: str, *, unsure: bool = False) -> ServiceError:
    """The error for an answer of success that says nothing that can be used.

    Args:
        answer: as it came.
        why: what is wrong with it.
        unsure: see `ServiceError`.

    A page for people may be gone later.
    """
    return ServiceError(
        f"the LMS's answer cannot be used: {why}",
        code="answer",
        hint="where that lasts, the addresses of the LMS here are wrong, or something before the LMS answers for it",
        detail=f"{answer.status} of {shown(answer.url, 200)}",
        retry=answer.is_page,
        unsure=unsure,
    )


def _token_refusal(answer: Answer) -> ServiceError:
    said = reason_of(answer)
    try:
        value = json.loads(answer.body)
        invalid_scope = isinstance(value, dict) and value.get("error") == "invalid_scope"
    except (ValueError, RecursionError):
        invalid_scope = False
    error = _passing(answer, said, False)
    if error is None and invalid_scope:
        error = ServiceError(
            "the LMS does not let this tool use its grades or lists of people as it needs to",
            code="scope",
            hint="allow it in the LMS's settings of this tool",
        )
    if error is None:
        error = ServiceError(
            f"the LMS gives this tool no access token{f': {said}' if said else f' (answer {answer.status})'}",
            code="token",
            hint="client id and access token URL must be those that the LMS shows for this tool, and the LMS must know "
            "the key set address that `illumidesk lti platform show` prints",
            who=f"{LMS_ADMIN} and {TOOL_ADMIN}",
        )
    return _noted(error, answer, said)


def _unreached(url: str, message: str, code: str, unsure: bool, why: str = "") -> ServiceError:
    host = shown(urlsplit(url).netloc, 200)
    return ServiceError(message, code=code, detail=f"{host}{f': {why}' if why else ''}", retry=True, unsure=unsure)


def bad_address(url: str, why: str) -> ServiceError:
    """The error for an address where nothing is sent."""
    return ServiceError(
        f"the address of the LMS's service cannot be used: {why}",
        code="address",
        hint=f"the LMS gave {shown(url, 200)}",
        who=f"{LMS_ADMIN} and {TOOL_ADMIN}",
    )


def reason_of(answer: Answer) -> str:
    """Why the platform refuses, as it says itself: one short line, "" where it does not say. Never a page of HTML."""
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().casefold()
    try:
        text = _said(json.loads(answer.body))
    except (ValueError, RecursionError):
        head = answer.body[:2000].decode(errors="replace")
        text = head if kind == "text/plain" and not re.search(r"<[a-z!/?]", head, re.I) else ""
    text = " ".join(re.sub(r"<[^<>]*>", " ", text or answer.reason).split())
    if text.rpartition(":")[2].strip().casefold() == _phrase(answer.status).casefold():
        return ""
    # What cannot be printed has become spaces.
    return " ".join(one_line(text, 200).split()).rstrip(". ")


def _said(value: Any, depth: int = 4) -> str:
    """The text of an error in JSON (RFC 6749, section 5.2; RFC 9457; Canvas; Django REST framework)."""
    if isinstance(value, str):
        return value
    if depth and isinstance(value, list):
        return next(filter(None, (_said(one, depth - 1) for one in value[:10])), "")
    if depth and isinstance(value, dict):
        named = ("error_description", "detail", "message", "reason", "title", "errors", "error")
        # Django REST framework has the name of a field and what is wrong with it.
        inside = [value[name] for name in named if name in value] or [
            one for one in list(value.values())[:10] if isinstance(one, list)
        ]
        return next(filter(None, (_said(one, depth - 1) for one in inside)), "")
    return ""


def retry_after(text: str, *, now: float | None = None) -> float | None:
    """The seconds that `Retry-After` asks for (RFC 9110, section 10.2.3), at most a day; None where it says nothing.

    Args:
        text: a number of seconds or a date.
        now: seconds since 1970; the clock's by default.
    """
    seconds = _seconds(text.strip())
    if seconds is None:
        try:
            until = parsedate_to_datetime(text)
        except (ValueError, IndexError, OverflowError):
            return None
        # A date without a zone is of UTC.
        until = until.replace(tzinfo=UTC) if until.tzinfo is None else until
        moment = datetime.now(UTC) if now is None else datetime.fromtimestamp(now, UTC)
        seconds = max(0.0, (until - moment).total_seconds())
    return min(seconds, MAX_AFTER)


def _seconds(value: object) -> float | None:
    """A number of seconds, of at most a day; also one that is written as text."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,12}(\.\d{1,9})?", value, re.ASCII):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        return None
    return float(min(value, MAX_AFTER))


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""


def _next_links(url: str, headers: Sequence[str]) -> Iterator[str]:
    """Where the next page is (RFC 8288, section 3), letter by letter; aiohttp would write it anew."""
    for header in headers:
        for match in re.finditer(r"<([^<>]*)>([^<]*)", header):
            relation = re.search(r";\s*rel\s*=\s*(?:\"([^\"]*)\"|([^\s;,]+))", match[2], re.I)
            if relation and "next" in (relation[1] or relation[2] or "").casefold().split():
                target = match[1].strip()
                yield target if re.match(r"https?://", target, re.I) else urljoin(url, target)


def _token_key(platform: Platform, scopes: Collection[str]) -> _TokenKey:
    return (
        platform.id,
        platform.client_id,
        platform.token_url,
        platform.token_audience,
        tuple(sorted(set(scopes))),
    )


async def _note_sent(session: aiohttp.ClientSession, context: SimpleNamespace, parameters: Any) -> None:
    context.trace_request_ctx.sent = True
