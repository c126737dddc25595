"""The test LMS's services: tokens, line items and scores (AGS 2.0), memberships (NRPS 2.0), with what real LMSs do.

Addresses carry a query string, as Moodle's do; lists come in pages; media types are taken by the letter; a score may be
answered with nothing; memberships have short role names, and call a TA a Learner.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import jwt
from aiohttp import web

LINE_ITEM = "application/vnd.ims.lis.v2.lineitem+json"
LINE_ITEMS = "application/vnd.ims.lis.v2.lineitemcontainer+json"
SCORE = "application/vnd.ims.lis.v1.score+json"
MEMBERS = "application/vnd.ims.lti-nrps.v2.membershipcontainer+json"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
AGS = "https://purl.imsglobal.org/spec/lti-ags/scope/"
NRPS = "https://purl.imsglobal.org/spec/lti-nrps/scope/contextmembership.readonly"
#: Entries of a page.
PAGE = 2


@dataclass
class Services:
    """What a platform offers a tool besides launches.

    Attributes:
        client_id: the tool's.
        tool_keys: the tool's public keys, as its key set says now.
        members: of the one course.
        line_items: by number.
        scores: that were accepted, by number of the line item.
    """

    client_id: str
    tool_keys: Callable[[], dict[str, Any]]
    base: str = ""
    members: list[dict[str, Any]] = field(default_factory=list)
    line_items: dict[int, dict[str, Any]] = field(default_factory=dict)
    scores: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    _tokens: dict[str, set[str]] = field(default_factory=dict)
    _assertions: set[str] = field(default_factory=set)

    @property
    def token_url(self) -> str:
        return f"{self.base}/token"

    @property
    def line_items_url(self) -> str:
        return f"{self.base}/2/lineitems?type_id=1"

    @property
    def memberships_url(self) -> str:
        return f"{self.base}/2/memberships"

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/token", self._token)
        app.router.add_get("/2/lineitems", self._list)
        app.router.add_post("/2/lineitems", self._create)
        app.router.add_get("/2/lineitems/{number}/lineitem", self._show)
        app.router.add_post("/2/lineitems/{number}/lineitem/scores", self._score)
        app.router.add_get("/2/memberships", self._memberships)

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
                audience=self.token_url,
                issuer=self.client_id,
                options={"require": ["iss", "sub", "aud", "iat", "exp", "jti"]},
            )
        except (KeyError, jwt.PyJWTError) as error:
            return web.json_response({"error": "invalid_client", "error_description": str(error)}, status=401)
        if claims["sub"] != self.client_id or claims["jti"] in self._assertions:
            return web.json_response({"error": "invalid_client"}, status=401)
        self._assertions.add(claims["jti"])
        token, scopes = secrets.token_hex(16), form.get("scope", "").split()
        self._tokens[token] = set(scopes)
        return web.json_response(
            {"access_token": token, "token_type": "Bearer", "expires_in": 3600, "scope": " ".join(scopes)}
        )

    def _check(self, request: web.Request, *scopes: str) -> None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self._tokens:
            raise web.HTTPUnauthorized
        if not self._tokens[token] & set(scopes):
            raise web.HTTPForbidden

    # Line items and scores (AGS 2.0, section 3)

    def _shown(self, number: int) -> dict[str, Any]:
        return {"id": f"{self.base}/2/lineitems/{number}/lineitem?type_id=1", **self.line_items[number]}

    async def _list(self, request: web.Request) -> web.Response:
        self._check(request, f"{AGS}lineitem", f"{AGS}lineitem.readonly")
        wanted = [
            self._shown(number)
            for number, item in sorted(self.line_items.items())
            if request.query.get("resource_id", item.get("resourceId")) == item.get("resourceId")
        ]
        return self._page(request, wanted, LINE_ITEMS, lambda part: part)

    async def _create(self, request: web.Request) -> web.Response:
        self._check(request, f"{AGS}lineitem")
        if request.content_type != LINE_ITEM:
            raise web.HTTPUnsupportedMediaType
        item = await request.json()
        if not isinstance(item.get("label"), str) or not item.get("scoreMaximum", 0) > 0:
            raise web.HTTPBadRequest
        number = len(self.line_items) + 1
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
        if score["userId"] not in {member["user_id"] for member in self.members}:
            raise web.HTTPNotFound
        self.scores.setdefault(number, []).append(score)
        return web.Response()

    def _number(self, request: web.Request) -> int:
        number = int(request.match_info["number"])
        if number not in self.line_items:
            raise web.HTTPNotFound
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
        start = int(request.query.get("from", 0))
        answer = web.json_response(body(entries[start : start + PAGE]), content_type=kind)
        if start + PAGE < len(entries):
            following = request.url.update_query({"from": str(start + PAGE)})
            answer.headers["Link"] = f'<{self.base}{following.raw_path_qs}>; rel="next"'
        return answer
