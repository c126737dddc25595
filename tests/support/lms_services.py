"""The test LMS's services, with what real LMSs do, and with everything that may go wrong on the way to them.

Tokens (Security Framework 1.0), line items, scores and results (AGS 2.0), memberships (NRPS 2.0), and outcomes of
LTI 1.1. Addresses carry a query string, as Moodle's do; lists come in pages; media types are taken by the letter; a
score may be answered with nothing, and must be later than the last; results are in the column's own scale; memberships
have short role names, and call a TA a Learner; a failed outcome is 200.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.etree import ElementTree

import jwt
from aiohttp import web
from oauthlib.oauth1.rfc5849 import signature

LINE_ITEM = "application/vnd.ims.lis.v2.lineitem+json"
LINE_ITEMS = "application/vnd.ims.lis.v2.lineitemcontainer+json"
SCORE = "application/vnd.ims.lis.v1.score+json"
RESULTS = "application/vnd.ims.lis.v2.resultcontainer+json"
MEMBERS = "application/vnd.ims.lti-nrps.v2.membershipcontainer+json"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
AGS = "https://purl.imsglobal.org/spec/lti-ags/scope/"
NRPS = "https://purl.imsglobal.org/spec/lti-nrps/scope/contextmembership.readonly"
POX = "http://www.imsglobal.org/services/ltiv1p1/xsd/imsoms_v1p0"
#: Entries of a page.
PAGE = 2

Kind = Literal["token", "line_items", "line_item", "create", "score", "result", "members", "outcome"]
Trouble = Literal[
    "refuse", "rate-limit", "stall", "drop", "drop-after", "html", "empty", "oversized", "redirect",
    "failure", "processing", "unsupported", "xml", "bomb",
]  # fmt: skip


@dataclass
class Fault:
    """What goes wrong with the next request that fits.

    Attributes:
        kind: of request; "" is any.
        trouble: `refuse` answers `status` and `words`; `drop` breaks the connection before the request is looked at,
            `drop-after` when it has been done and before it is answered; `html`, `empty` and `oversized` do nothing and
            answer 200 that way. Of outcomes: `failure`, `processing` and `unsupported` are the codes of an envelope,
            `xml` is another document, and `bomb` one of entities.
        status: of a refusal; of an envelope where it is not 400.
        words: the reason that it gives, as JSON.
        user: only requests about that person (`user_id`, or the sourcedid of an outcome); "" is all.
        after: `Retry-After`, a number of seconds or `date:SECONDS` for a date that is so far away.
        times: how many requests.
    """

    kind: Kind | Literal[""]
    trouble: Trouble
    status: int = 400
    words: str = ""
    user: str = ""
    after: str = ""
    times: int = 1


@dataclass(frozen=True)
class Asked:
    """A request that came, from the port `peer`. `detail` of `on_request`, too, with `when` it is."""

    kind: Kind
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    user: str
    peer: int = 0
    when: Literal["before", "after"] = "before"


@dataclass(frozen=True)
class Accepted:
    """A grade that was taken.

    Attributes:
        item: number of the line item, or 0 for an outcome.
        user: `user_id`, or the sourcedid of an outcome.
        score: as it came; of an outcome what its text says; None for one that was taken away.
    """

    item: int
    user: str
    score: Any


@dataclass
class Services:
    """What a platform offers a tool besides launches.

    Attributes:
        client_id: the tool's.
        tool_keys: the tool's public keys, as its key set says now.
        key: of LTI 1.1, and `secret` what both sign with.
        members: of the one course.
        line_items: by number.
        scores: that were accepted, by number of the line item.
        outcomes: LTI 1.1's, by sourcedid; None for one that is known and has no result.
        accepted: every grade that was taken, in their order.
        faults: see `Fault`.
        on_request: awaited with each request's kind before it is looked at, and when it has been done and is about to
            be answered.
        asked: all requests, in their order.
        brand: whose oddities scores have. `moodle` says why in the status line, counts whole seconds, and takes a user
            whom it does not know for an incorrect score; `canvas` says with 400 that a score is old, takes one of the
            same time, and has 422 for users.
        same_again: whether a score that is exactly the last one is answered 200, as Canvas does, and not 409.
        any_sourcedid: whether outcomes of sourcedids that are not in `outcomes` are taken.
        style: how outcomes are answered, see `_outcome_answer`.
        offered: the scopes for which tokens are given out; None is all.
        lifetime: of tokens, in seconds.
        audience: whom an assertion must be for; the token's address by default.
        heeds_filters: whether lists are shortened to what was asked for.
        links: how the next page is said: with a full address, a relative one, the same page for ever, or new pages
            for ever.
        words: whether refusals say why.
    """

    client_id: str
    tool_keys: Callable[[], dict[str, Any]]
    base: str = ""
    key: str = ""
    secret: str = ""
    members: list[dict[str, Any]] = field(default_factory=list)
    line_items: dict[int, dict[str, Any]] = field(default_factory=dict)
    scores: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    outcomes: dict[str, str | None] = field(default_factory=dict)
    accepted: list[Accepted] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    on_request: Callable[[Kind, Asked], Awaitable[None]] | None = None
    asked: list[Asked] = field(default_factory=list)
    brand: Literal["", "moodle", "canvas"] = ""
    same_again: bool = False
    any_sourcedid: bool = True
    style: Literal["plain", "openedx", "no-namespace", "other-namespace", "no-description"] = "plain"
    offered: set[str] | None = None
    lifetime: float = 3600
    audience: str = ""
    heeds_filters: bool = True
    links: Literal["full", "relative", "loop", "endless"] = "full"
    words: bool = True
    _tokens: dict[str, tuple[set[str], float]] = field(default_factory=dict)
    _assertions: set[str] = field(default_factory=set)
    _nonces: set[str] = field(default_factory=set)

    @property
    def token_url(self) -> str:
        return f"{self.base}/token"

    @property
    def line_items_url(self) -> str:
        return f"{self.base}/2/lineitems?type_id=1"

    def line_item_url(self, number: int) -> str:
        return f"{self.base}/2/lineitems/{number}/lineitem?type_id=1"

    @property
    def memberships_url(self) -> str:
        return f"{self.base}/2/memberships"

    @property
    def outcomes_url(self) -> str:
        return f"{self.base}/outcomes?x=1&y=a%2Fb"

    @property
    def book(self) -> dict[int, dict[str, dict[str, Any]]]:
        """The last score that was accepted, by line item and user."""
        return {number: {score["userId"]: score for score in scores} for number, scores in self.scores.items()}

    @property
    def outcome_book(self) -> dict[str, str | None]:
        """The last outcome by user, of sourcedids of `lms.sourcedid`, which differ from launch to launch."""
        return {
            json.loads(one.user)["data"]["userid"]: one.score
            for one in self.accepted
            if one.item == 0 and one.user.startswith("{")
        }

    @property
    def token_requests(self) -> int:
        return sum(one.kind == "token" for one in self.asked)

    def forget_tokens(self) -> None:
        """Tokens that were given out are worth nothing any more."""
        self._tokens.clear()

    def fault(self, kind: Kind | Literal[""], trouble: Trouble, **more: Any) -> None:
        self.faults.append(Fault(kind, trouble, **more))

    def add_routes(self, app: web.Application) -> None:
        def add(method: str, path: str, kind: Kind, handler: Callable[[web.Request], Awaitable[web.Response]]) -> None:
            async def answer(request: web.Request) -> web.StreamResponse:
                return await self._guarded(kind, handler, request)

            app.router.add_route(method, path, answer)

        item = "/2/lineitems/{number}/lineitem"
        add("POST", "/token", "token", self._token)
        add("GET", "/2/lineitems", "line_items", self._list)
        add("POST", "/2/lineitems", "create", self._create)
        add("GET", item, "line_item", self._show)
        add("POST", f"{item}/scores", "score", self._score)
        add("GET", f"{item}/results", "result", self._results)
        add("GET", "/2/memberships", "members", self._memberships)
        add("POST", "/outcomes", "outcome", self._outcome)

    # What goes wrong

    async def _guarded(
        self, kind: Kind, handler: Callable[[web.Request], Awaitable[web.Response]], request: web.Request
    ) -> web.StreamResponse:
        body = await request.read()
        asked = Asked(
            kind,
            request.method,
            request.raw_path,
            dict(request.headers),
            body,
            _whom(kind, request, body),
            _peer(request),
        )
        self.asked.append(asked)
        if self.on_request is not None:
            await self.on_request(kind, asked)
        fault = self._next_fault(kind, asked.user)
        if fault is not None and fault.trouble != "drop-after":
            if fault.trouble in ("failure", "processing", "unsupported"):
                answer = self._outcome_answer("", fault.trouble, fault.words, "replaceResult")
                answer.set_status(200 if fault.status == 400 else fault.status)
                answer.headers.update(_after(fault))
                return answer
            return await _trouble(fault, request)
        try:
            answer = await handler(request)
        except web.HTTPException as error:
            answer = self._refused(error)
        if self.on_request is not None:
            await self.on_request(kind, Asked(**{**vars(asked), "when": "after"}))
        if fault is not None:
            _break_off(request)
        return answer

    def _next_fault(self, kind: Kind, user: str) -> Fault | None:
        for fault in self.faults:
            if fault.kind in ("", kind) and fault.user in ("", user):
                fault.times -= 1
                if fault.times <= 0:
                    self.faults.remove(fault)
                return fault
        return None

    def _refused(self, error: web.HTTPException) -> web.Response:
        if self.brand == "moodle":
            return web.Response(status=error.status, reason=error.reason, content_type="application/json")
        said = {"errors": {"type": "unprocessable_entity", "message": error.reason}} if self.words else {}
        return web.json_response(said, status=error.status)

    # Tokens (Security Framework 1.0, section 4.1)

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        if form.get("grant_type") != "client_credentials" or form.get("client_assertion_type") != ASSERTION:
            return web.json_response({"error": "unsupported_grant_type"}, status=400)
        try:
            assertion = form["client_assertion"]
            keys = jwt.PyJWKSet.from_dict(self.tool_keys())
            claims = jwt.decode(
                assertion,
                keys[jwt.get_unverified_header(assertion)["kid"]].key,
                algorithms=["RS256"],
                audience=self.audience or self.token_url,
                issuer=self.client_id,
                options={"require": ["iss", "sub", "aud", "iat", "exp", "jti"]},
            )
        except (KeyError, jwt.PyJWTError) as error:
            return web.json_response({"error": "invalid_client", "error_description": str(error)}, status=401)
        if claims["sub"] != self.client_id or claims["jti"] in self._assertions:
            return web.json_response({"error": "invalid_client"}, status=401)
        self._assertions.add(claims["jti"])
        token, scopes = secrets.token_hex(16), form.get("scope", "").split()
        if self.offered is not None and not set(scopes) <= self.offered:
            return web.json_response({"error": "invalid_scope"}, status=400)
        self._tokens[token] = set(scopes), time.monotonic() + self.lifetime
        return web.json_response(
            {"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime, "scope": " ".join(scopes)}
        )

    def _check(self, request: web.Request, *scopes: str) -> None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        known, ends = self._tokens.get(token, (set(), 0.0))
        if time.monotonic() >= ends:
            raise web.HTTPUnauthorized
        if not known & set(scopes):
            raise web.HTTPForbidden

    # Line items and scores (AGS 2.0, section 3)

    def _shown(self, number: int) -> dict[str, Any]:
        return {"id": self.line_item_url(number), **self.line_items[number]}

    async def _list(self, request: web.Request) -> web.Response:
        self._check(request, f"{AGS}lineitem", f"{AGS}lineitem.readonly")
        filters = (("resource_link_id", "resourceLinkId"), ("resource_id", "resourceId"), ("tag", "tag"))
        wanted = [
            self._shown(number)
            for number, item in sorted(self.line_items.items())
            if not self.heeds_filters
            or all(request.query.get(name, item.get(of, "")) == item.get(of, "") for name, of in filters)
        ]
        return self._page(request, wanted, LINE_ITEMS, lambda part: part)

    async def _create(self, request: web.Request) -> web.Response:
        self._check(request, f"{AGS}lineitem")
        if request.content_type != LINE_ITEM:
            raise web.HTTPUnsupportedMediaType
        item = await request.json()
        if not isinstance(item.get("label"), str) or not item.get("scoreMaximum", 0) > 0:
            raise web.HTTPBadRequest
        number = max(self.line_items, default=0) + 1
        self.line_items[number] = item
        return web.json_response(self._shown(number), status=201, content_type=LINE_ITEM)

    async def _show(self, request: web.Request) -> web.Response:
        self._check(request, f"{AGS}lineitem", f"{AGS}lineitem.readonly")
        return web.json_response(self._shown(self._number(request)), content_type=LINE_ITEM)

    async def _score(self, request: web.Request) -> web.Response:
        self._check(request, f"{AGS}score")
        if request.content_type != SCORE:
            raise web.HTTPUnsupportedMediaType
        number, score = self._number(request), await request.json()
        if not {"userId", "activityProgress", "gradingProgress", "timestamp"} <= set(score):
            raise web.HTTPBadRequest
        if datetime.fromisoformat(score["timestamp"]).tzinfo is None:
            raise web.HTTPBadRequest
        if "scoreGiven" in score and not (score["scoreGiven"] >= 0 and score.get("scoreMaximum", 0) > 0):
            raise web.HTTPBadRequest
        if score["userId"] not in {member["user_id"] for member in self.members}:
            raise {
                "": web.HTTPNotFound(),
                "moodle": web.HTTPBadRequest(reason=f"Incorrect score received{json.dumps(score)}"),
                "canvas": web.HTTPUnprocessableEntity(reason="User not found in course or is not a student"),
            }[self.brand]
        last = self.book.get(number, {}).get(score["userId"])
        if last == score and (self.same_again or self.brand == "canvas"):
            return web.Response()
        if last and self._is_old(score["timestamp"], last["timestamp"]):
            if self.brand == "canvas":
                raise web.HTTPBadRequest(reason="Provided timestamp of A before last updated timestamp of B")
            raise web.HTTPConflict(reason=f"Refusing score with an earlier timestamp for item {number} and user 1")
        self.scores.setdefault(number, []).append(score)
        self.accepted.append(Accepted(number, score["userId"], score))
        return web.Response()

    def _is_old(self, sent: str, last: str) -> bool:
        new, old = datetime.fromisoformat(sent), datetime.fromisoformat(last)
        if self.brand == "moodle":
            return int(new.timestamp()) <= int(old.timestamp())
        return new < old if self.brand == "canvas" else new <= old

    async def _results(self, request: web.Request) -> web.Response:
        self._check(request, f"{AGS}result.readonly")
        number = self._number(request)
        wanted = []
        for user, score in self.book.get(number, {}).items():
            if self.heeds_filters and request.query.get("user_id", user) != user:
                continue
            result: dict[str, Any] = {
                "id": f"{self.base}/results/{user}",
                "userId": user,
                "scoreOf": self.line_item_url(number),
            }
            if score["gradingProgress"] == "FullyGraded" and "scoreGiven" in score:
                maximum = self.line_items[number]["scoreMaximum"]
                result |= {"resultScore": score["scoreGiven"] / score["scoreMaximum"] * maximum}
                result |= {"resultMaximum": maximum, "comment": score.get("comment")}
            wanted.append(result)
        return self._page(request, wanted, RESULTS, lambda part: part)

    def _number(self, request: web.Request) -> int:
        number = int(request.match_info["number"])
        if number not in self.line_items:
            raise web.HTTPNotFound(
                reason=f"Not Found: Grade item {number} doesn't exist." if self.brand == "moodle" else None
            )
        return number

    # Memberships (NRPS 2.0, section 2)

    async def _memberships(self, request: web.Request) -> web.Response:
        self._check(request, NRPS)
        return self._page(
            request,
            self.members,
            MEMBERS,
            lambda part: {"id": self.memberships_url, "context": {"id": "2"}, "members": part},
        )

    def _page(
        self, request: web.Request, entries: list[Any], kind: str, body: Callable[[list[Any]], Any]
    ) -> web.Response:
        if request.headers.get("Accept", "*/*") not in ("*/*", kind):
            raise web.HTTPNotAcceptable
        start = int(request.query.get("from", 0))
        answer = web.json_response(body(entries[start : start + PAGE]), content_type=kind)
        if start + PAGE < len(entries) or self.links in ("loop", "endless"):
            following = request.url.update_query({"from": str(start + PAGE if self.links != "loop" else 0)})
            base = "" if self.links == "relative" else self.base
            answer.headers.add("Link", f'<{self.base}/first>; rel="first", <{base}{following.raw_path_qs}>; rel="next"')
        return answer

    # Outcomes (LTI 1.1.1, section 6; OAuth Request Body Hash, draft 4)

    async def _outcome(self, request: web.Request) -> web.Response:
        body = await request.read()
        if not self._signed(request, body):
            return self._outcome_answer("", "failure", "Signature verification failed", status=401)
        if request.content_type != "application/xml":
            raise web.HTTPUnsupportedMediaType
        root = ElementTree.fromstring(body)
        name = f"{{{POX}}}"
        message = root.findtext(f"{name}imsx_POXHeader/*/{name}imsx_messageIdentifier", "")
        asked = root.find(f"{name}imsx_POXBody/*")
        if asked is None or root.tag != f"{name}imsx_POXEnvelopeRequest" or not message:
            return self._outcome_answer(message, "failure", "No request")
        what = asked.tag.removeprefix(name).removesuffix("Request")
        sourcedid = asked.findtext(f"{name}resultRecord/{name}sourcedGUID/{name}sourcedId", "")
        if sourcedid not in self.outcomes and not self.any_sourcedid:
            return self._outcome_answer(message, "failure", "User not found for sourcedid", what)
        if what == "readResult":
            return self._outcome_answer(message, "success", "Read", what, self.outcomes.get(sourcedid) or "")
        if what == "deleteResult":
            self.outcomes[sourcedid] = None
            self.accepted.append(Accepted(0, sourcedid, None))
            return self._outcome_answer(message, "success", "Deleted", what)
        if what != "replaceResult":
            return self._outcome_answer(message, "unsupported", f"{what} is not supported", what)
        place = f"{name}resultRecord/{name}result/{name}resultScore"
        text = asked.findtext(f"{place}/{name}textString", "")
        if (
            not re.fullmatch(r"[01](\.\d+)?", text)
            or float(text) > 1
            or asked.findtext(f"{place}/{name}language") != "en"
        ):
            return self._outcome_answer(message, "failure", "Invalid score", what)
        self.outcomes[sourcedid] = text
        self.accepted.append(Accepted(0, sourcedid, text))
        return self._outcome_answer(message, "success", f"Score for {sourcedid} is now {text}", what)

    def _signed(self, request: web.Request, body: bytes) -> bool:
        header = request.headers.get("Authorization", "")
        pairs = dict(re.findall(r'(\w+)="([^"]*)"', header))
        oauth = {name: unquote(value) for name, value in pairs.items()}
        digest = base64.b64encode(hashlib.sha1(body).digest()).decode()
        fresh = abs(time.time() - int(oauth.get("oauth_timestamp", "0"))) < 300
        once = oauth.get("oauth_nonce", "") not in self._nonces
        self._nonces.add(oauth.get("oauth_nonce", ""))
        if (
            oauth.get("oauth_body_hash") != digest
            or oauth.get("oauth_consumer_key") != self.key
            or not fresh
            or not once
        ):
            return False
        url = f"{self.base}{request.raw_path}"
        signed = [
            (name, value) for name, value in oauth.items() if name.startswith("oauth_") and name != "oauth_signature"
        ]
        signed += parse_qsl(urlsplit(url).query, keep_blank_values=True)
        base = signature.signature_base_string(
            "POST",
            signature.base_string_uri(url),
            signature.normalize_parameters(signed),  # type: ignore[arg-type]
        )
        good = signature.sign_hmac_sha1_with_client(base, _Secret(self.secret))
        return hmac.compare_digest(good, oauth.get("oauth_signature", ""))

    def _outcome_answer(
        self, message: str, major: str, words: str, what: str = "", score: str | None = None, status: int = 200
    ) -> web.Response:
        """An answer, as `style` has it.

        `openedx` says text/html and 200 whatever it is; `no-namespace` and `other-namespace` are of LMSs that write the
        envelope by hand; `no-description` has codes alone.
        """
        space = {"no-namespace": "", "other-namespace": ' xmlns="http://www.imsglobal.org/lis/oms1p0/pox"'}.get(
            self.style, f' xmlns="{POX}"'
        )
        root = ElementTree.Element("words")
        root.text = words
        said = ElementTree.tostring(root, encoding="unicode").removeprefix("<words>").removesuffix("</words>")
        described = "" if self.style == "no-description" else f"<imsx_description>{said}</imsx_description>"
        result = (
            ""
            if score is None
            else (
                f"<result><resultScore><language>en</language><textString>{score}</textString></resultScore></result>"
            )
        )
        inside = f"<{what}Response>{result}</{what}Response>" if what else ""
        text = (
            f'<?xml version="1.0" encoding="UTF-8"?><imsx_POXEnvelopeResponse{space}><imsx_POXHeader>'
            "<imsx_POXResponseHeaderInfo><imsx_version>V1.0</imsx_version>"
            f"<imsx_messageIdentifier>{secrets.token_hex(8)}</imsx_messageIdentifier><imsx_statusInfo>"
            f"<imsx_codeMajor>{major}</imsx_codeMajor><imsx_severity>status</imsx_severity>{described}"
            f"<imsx_messageRefIdentifier>{message}</imsx_messageRefIdentifier>"
            f"<imsx_operationRefIdentifier>{what}</imsx_operationRefIdentifier>"
            "</imsx_statusInfo></imsx_POXResponseHeaderInfo></imsx_POXHeader>"
            f"<imsx_POXBody>{inside}</imsx_POXBody></imsx_POXEnvelopeResponse>"
        )
        if self.style == "openedx":
            return web.Response(text=text, content_type="text/html")
        return web.Response(text=text, content_type="application/xml", status=status)


@dataclass(frozen=True)
class _Secret:
    client_secret: str
    resource_owner_secret: str | None = None


def _whom(kind: Kind, request: web.Request, body: bytes) -> str:
    try:
        if kind == "score":
            return str(json.loads(body).get("userId", ""))
        if kind == "outcome":
            root = ElementTree.fromstring(body)
            return next((one.text or "" for one in root.iter(f"{{{POX}}}sourcedId")), "")
    except (ValueError, AttributeError, ElementTree.ParseError):
        return ""
    return request.query.get("user_id", "")


def _peer(request: web.Request) -> int:
    name = request.transport.get_extra_info("peername") if request.transport is not None else None
    return int(name[1]) if name else 0


def _break_off(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


def _after(fault: Fault) -> dict[str, str]:
    if fault.after.startswith("date:"):
        moment = time.time() + float(fault.after.removeprefix("date:"))
        return {"Retry-After": format_datetime(datetime.fromtimestamp(moment, UTC), usegmt=True)}
    return {"Retry-After": fault.after} if fault.after else {}


async def _trouble(fault: Fault, request: web.Request) -> web.StreamResponse:
    headers = _after(fault)
    if fault.trouble in ("refuse", "rate-limit"):
        said = {"errors": {"message": fault.words}} if fault.words else {}
        status = 429 if fault.trouble == "rate-limit" else fault.status
        return web.json_response(said, status=status, headers=headers)
    if fault.trouble == "redirect":
        return web.Response(status=302, headers={"Location": "/elsewhere"})
    if fault.trouble == "html":
        page = "<!doctype html><html><head><title>Sign in</title></head><body><h1>Sign in & go on</h1></body></html>"
        return web.Response(text=page, content_type="text/html", headers=headers)
    if fault.trouble == "xml":
        return web.Response(text="<?xml version='1.0'?><oops/>", content_type="application/xml")
    if fault.trouble == "bomb":
        lines = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 9))
        bomb = f'<!DOCTYPE x [<!ENTITY e0 "x">{lines}]><x><imsx_codeMajor>&e8;</imsx_codeMajor></x>'
        return web.Response(text=bomb, content_type="application/xml")
    if fault.trouble == "oversized":
        return web.Response(body=b'["' + b"x" * (9 << 20) + b'"]', content_type="application/json")
    if fault.trouble == "stall":
        while request.transport is not None and not request.transport.is_closing():
            await asyncio.sleep(0.02)
    if fault.trouble == "drop":
        _break_off(request)
    return web.Response()
