"""A small learning management system of our own: it signs launches as real ones do, and serves its keys over HTTP.

Claims and fields are those of Canvas, Moodle, Open edX, Blackboard, Brightspace and Sakai, with what is odd about each.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html import escape
from typing import Any, Literal, cast
from urllib.parse import parse_qsl

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from oauthlib.oauth1 import SIGNATURE_TYPE_BODY, Client

from tests.support.lms_services import AGS, NRPS, Services

CLAIM = "https://purl.imsglobal.org/spec/lti/claim/"
AGS_CLAIM = "https://purl.imsglobal.org/spec/lti-ags/claim/"
NRPS_CLAIM = "https://purl.imsglobal.org/spec/lti-nrps/claim/"
SCOPES = (f"{AGS}lineitem", f"{AGS}result.readonly", f"{AGS}score", NRPS)
MEMBERSHIP = "http://purl.imsglobal.org/vocab/lis/v2/membership"
INSTITUTION = "http://purl.imsglobal.org/vocab/lis/v2/institution/person"
SYSTEM = "http://purl.imsglobal.org/vocab/lis/v2/system/person"

Brand = Literal["canvas", "moodle", "openedx", "blackboard", "brightspace", "sakai"]
BRANDS: tuple[Brand, ...] = ("canvas", "moodle", "openedx", "blackboard", "brightspace", "sakai")
Who = Literal["teacher", "ta", "student"]

#: What the address of the keys may do instead of answering them.
Misbehaviour = Literal["hang", "drip", "redirect", "html", "large", "gzip-bomb", "error", "list", "deep", "close"]

_ROLES_13: Mapping[Brand, Mapping[Who, list[str]]] = {
    "canvas": {
        "teacher": [f"{INSTITUTION}#Instructor", f"{MEMBERSHIP}#Instructor", f"{SYSTEM}#User"],
        "ta": [f"{INSTITUTION}#Student", f"{MEMBERSHIP}#Instructor", f"{MEMBERSHIP}/Instructor#TeachingAssistant"],
        "student": [f"{INSTITUTION}#Student", f"{MEMBERSHIP}#Learner", f"{SYSTEM}#User"],
    },
    "moodle": {
        "teacher": [f"{INSTITUTION}#Administrator", f"{MEMBERSHIP}#Instructor", f"{SYSTEM}#Administrator"],
        "ta": [f"{MEMBERSHIP}/Instructor#TeachingAssistant"],
        "student": [f"{MEMBERSHIP}#Learner"],
    },
    "openedx": {
        "teacher": [f"{INSTITUTION}#Instructor", f"{MEMBERSHIP}#Instructor"],
        "ta": [f"{SYSTEM}#User", f"{MEMBERSHIP}/Instructor#TeachingAssistant"],
        "student": [f"{INSTITUTION}#Student", f"{MEMBERSHIP}#Learner"],
    },
    "blackboard": {
        "teacher": [f"{INSTITUTION}#Faculty", f"{MEMBERSHIP}#Instructor"],
        "ta": [f"{INSTITUTION}#Student", f"{MEMBERSHIP}/Instructor#TeachingAssistant", f"{MEMBERSHIP}#Instructor"],
        "student": [f"{INSTITUTION}#Faculty", f"{INSTITUTION}#Instructor", f"{MEMBERSHIP}#Learner"],
    },
    "brightspace": {
        "teacher": ["Instructor", f"{MEMBERSHIP}#Instructor", f"{INSTITUTION}#Instructor"],
        "ta": [f"{MEMBERSHIP}/Instructor#TeachingAssistant", "urn:lti:instrole:ims/lis/Staff"],
        "student": [f"{INSTITUTION}#Student", f"{MEMBERSHIP}#Learner", "Learner"],
    },
    "sakai": {
        "teacher": [f"{MEMBERSHIP}#Instructor"],
        "ta": [f"{MEMBERSHIP}/Instructor#TeachingAssistant", f"{MEMBERSHIP}#Instructor"],
        "student": [f"{MEMBERSHIP}#Learner"],
    },
}
_ROLES_11: Mapping[Brand, Mapping[Who, str]] = {
    "canvas": {
        "teacher": "Instructor",
        "ta": "urn:lti:role:ims/lis/TeachingAssistant",
        "student": "Learner",
    },
    "moodle": {
        "teacher": "Instructor,urn:lti:sysrole:ims/lis/Administrator,urn:lti:instrole:ims/lis/Administrator",
        "ta": "urn:lti:role:ims/lis/TeachingAssistant",
        "student": "Learner",
    },
    "openedx": {"teacher": "Instructor", "ta": "TeachingAssistant", "student": "Student,Learner"},
    "blackboard": {
        "teacher": "urn:lti:role:ims/lis/Instructor",
        "ta": "urn:lti:role:ims/lis/TeachingAssistant",
        "student": "urn:lti:role:ims/lis/Learner",
    },
    "brightspace": {
        "teacher": "urn:lti:instrole:ims/lis/Instructor, Instructor",
        "ta": "urn:lti:role:ims/lis/TeachingAssistant/TeachingAssistantSection",
        "student": "urn:lti:instrole:ims/lis/Student,Student,urn:lti:instrole:ims/lis/Learner,Learner",
    },
    "sakai": {"teacher": "Instructor,Administrator", "ta": "TeachingAssistant", "student": "Learner"},
}
_CONTEXTS: Mapping[Brand, tuple[str, str, str]] = {
    "canvas": ("4dde05e8ca1973bcca9bffc13e1548820eee93a3", "CS 101: Intro (Fall)", "Introduction to Programming"),
    "moodle": ("2", "cs-101 intro  fall", "Введение в программирование"),
    "openedx": ("course-v1:DemoX+CS101+2026", "DemoX", "CS 101 - DemoX"),
    "blackboard": ("e4ba7f3a1e4c4a7ab3a1f6bb00c9c1b3", "cs101_2026_fall", "CS 101\r\nFall"),
    "brightspace": ("6607", "程序设计", "程序设计"),
    "sakai": ("f8b3a1f0-4f0e-4f0c-8a4e-0c2e5e9d6b11", "CS 101 & more + a/b", "CS 101 & more + a/b"),
}


@dataclass(frozen=True)
class SigningKey:
    """A private key with its id."""

    kid: str
    private: Any
    algorithm: str = "RS256"

    @classmethod
    def new(cls, kid: str = "", algorithm: str = "RS256", bits: int = 2048) -> SigningKey:
        private: Any
        if algorithm == "ES256":
            private = ec.generate_private_key(ec.SECP256R1())
        else:
            private = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        return cls(kid or secrets.token_hex(4), private, algorithm)

    def jwk(self) -> dict[str, Any]:
        to_jwk = ECAlgorithm.to_jwk if self.algorithm == "ES256" else RSAAlgorithm.to_jwk
        public = to_jwk(self.private.public_key(), as_dict=True)
        public.pop("key_ops", None)
        return {**public, "kid": self.kid, "use": "sig", "alg": self.algorithm}

    def public_pem(self) -> bytes:
        pem: bytes = self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return pem


@dataclass
class LMS:
    """A platform. As LTI 1.1 consumer it has `key` and `secret`, as LTI 1.3 platform the rest.

    It looks like the registry's platforms, so that `lti` takes it as one.
    """

    brand: Brand = "canvas"
    id: int = 1
    key: str = "key-of-canvas"
    secret: str = "correct horse battery"
    issuer: str = "https://canvas.example.edu"
    client_id: str = "10000000000001"
    auth_url: str = "https://canvas.example.edu/api/lti/authorize_redirect"
    jwks_url: str = "https://canvas.example.edu/api/lti/security/jwks"
    deployments: list[str] = field(default_factory=lambda: ["1:4dde05e8ca"])
    tool: str = "https://hub.example.edu"
    keys: list[SigningKey] = field(default_factory=lambda: [SigningKey.new("first")])
    #: What its key set does wrong, if anything, and how often it was asked.
    misbehaviour: Misbehaviour | None = None
    asked: int = 0
    #: What the authorization page was asked, last first.
    logins: list[dict[str, str]] = field(default_factory=list)
    #: Whom the authorization page lets in next, and as which user, if not the brand's.
    who: Who = "student"
    sub: str = ""
    #: What its launches say besides, and the answers to deep linking that came.
    next_claims: dict[str, Any] = field(default_factory=dict)
    returned: list[dict[str, str]] = field(default_factory=list)
    #: Grades and rosters, where it has them: launches say where, and a student's result is asked for by its sourcedid.
    services: Services | None = None
    #: Where it gives out access tokens, and whom requests for them are for.
    token_url: str = ""
    token_audience: str = ""

    def allows_deployment(self, deployment: str) -> bool:
        return deployment in self.deployments or "*" in self.deployments

    # LTI 1.1

    def fields(self, who: Who = "student", **changes: str | None) -> dict[str, str]:
        """What it says of a launch by LTI 1.1, before it is signed; None takes a field away."""
        context_id, label, title = _CONTEXTS[self.brand]
        values: dict[str, str | None] = {
            "lti_message_type": "basic-lti-launch-request",
            "lti_version": "LTI-1p0",
            "resource_link_id": "88391-e1919-bb3456",
            "resource_link_title": "Notebook: «Übung 1» & more",
            "resource_link_description": "Line 1\r\nLine 2 + 50%",
            "user_id": f"{who}-29123" if self.brand != "moodle" else {"teacher": "2", "ta": "3", "student": "4"}[who],
            "roles": _ROLES_11[self.brand][who],
            "context_id": context_id,
            "context_label": label,
            "context_title": title,
            "lis_person_name_full": f"Zoë {who.title()}",
            "lis_person_name_given": "Zoë",
            "lis_person_name_family": who.title(),
            "lis_person_contact_email_primary": f"zoe+{who}@example.edu",
            "lis_result_sourcedid": '{"data":{"instanceid":"1","userid":"4"},"hash":"5a\\"b"}',
            "lis_outcome_service_url": "https://lms.example.edu/outcomes?x=1&y=2",
            "launch_presentation_return_url": "https://lms.example.edu/return?a=b c",
            "tool_consumer_info_product_family_code": self.brand,
        }
        values.update(_ODD_FIELDS[self.brand])
        if self.services is not None:
            user = changes.get("user_id") or values["user_id"]
            values["lis_outcome_service_url"] = self.services.outcomes_url
            values["lis_result_sourcedid"] = sourcedid(user or "", values["resource_link_id"] or "")
        values.update(changes)
        return {name: value for name, value in values.items() if value is not None}

    def signed(
        self,
        fields: Mapping[str, str] | None = None,
        url: str = "",
        *,
        now: float | None = None,
        secret: str = "",
        nonce: str = "",
        **changes: str,
    ) -> dict[str, str]:
        """A form as a browser posts it to `url`. `changes` are of the OAuth parameters, made after signing."""
        client = Client(
            self.key,
            client_secret=secret or self.secret,
            callback_uri="about:blank",
            signature_type=SIGNATURE_TYPE_BODY,
            timestamp=str(int(time.time() if now is None else now)),
            nonce=nonce or secrets.token_hex(16),
        )
        _, _, body = client.sign(
            url or self.launch_url("1.1"),
            "POST",
            body=dict(fields if fields is not None else self.fields()),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        form = dict(parse_qsl(body, keep_blank_values=True))
        form.update(changes)
        return form

    def launch_url(self, version: str) -> str:
        return f"{self.tool}/hub/lti{version.replace('.', '')}/launch"

    # LTI 1.3

    def claims(self, who: Who = "student", *, nonce: str, now: float | None = None, **changes: Any) -> dict[str, Any]:
        """What it says of a launch by LTI 1.3. Changes are by the claims' short names; None takes one away."""
        now = int(time.time() if now is None else now)
        context_id, label, title = _CONTEXTS[self.brand]
        values: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.client_id,
            "sub": {"teacher": "2", "ta": "3", "student": "4"}[who],
            "exp": now + 60,
            "iat": now,
            "nonce": nonce,
            "given_name": "Zoë",
            "family_name": who.title(),
            "name": f"Zoë {who.title()}",
            "email": f"zoe+{who}@example.edu",
            "message_type": "LtiResourceLinkRequest",
            "version": "1.3.0",
            "deployment_id": self.deployments[0],
            "target_link_uri": self.launch_url("1.3"),
            "resource_link": {"id": "7a1c0a5c-2f0e", "title": "Übung 1", "description": None},
            "roles": _ROLES_13[self.brand][who],
            "context": {"id": context_id, "label": label, "title": title, "type": [f"{MEMBERSHIP}#CourseOffering"]},
            "launch_presentation": {"document_target": "iframe", "return_url": "https://lms.example.edu/return"},
            "tool_platform": {"guid": "e1", "product_family_code": self.brand, "version": "cloud"},
        }
        values.update(_odd_claims(self.brand, self.client_id))
        if self.services is not None:
            link = changes.get("resource_link", values["resource_link"]) or {}
            values.update(self._services_claims(link.get("id", "")))
        values.update(changes)
        return {_long(name): value for name, value in values.items() if value is not None}

    def _services_claims(self, link: str) -> dict[str, Any]:
        """Where the services are (AGS 2.0, section 3.1; NRPS 2.0, section 2.2), and the column of the link."""
        assert self.services is not None
        offered = self.services.offered
        endpoint: dict[str, Any] = {
            "scope": [scope for scope in SCOPES if offered is None or scope in offered],
            "lineitems": self.services.line_items_url,
        }
        for number, item in self.services.line_items.items():
            if link and item.get("resourceLinkId") == link:
                endpoint["lineitem"] = self.services.line_item_url(number)
        return {
            f"{AGS_CLAIM}endpoint": endpoint,
            f"{NRPS_CLAIM}namesroleservice": {
                "context_memberships_url": self.services.memberships_url,
                "service_versions": ["2.0"],
            },
        }

    def token(
        self, claims: Mapping[str, Any], *, key: SigningKey | None = None, headers: Mapping[str, Any] | None = None
    ) -> str:
        """An id_token. A header of None takes it away."""
        key = key or self.keys[0]
        header: dict[str, Any] = {"kid": key.kid, **(headers or {})}
        header = {name: value for name, value in header.items() if value is not None}
        # Not jwt.encode, which refuses some of what is wrong.
        payload = json.dumps(dict(claims)).encode()
        return jwt.api_jws.encode(payload, key.private, algorithm=key.algorithm, headers=header)

    def login_request(self, **changes: str | None) -> dict[str, str]:
        """The login that it begins."""
        values: dict[str, str | None] = {
            "iss": self.issuer,
            "login_hint": "535fa085f22b4655f48cd5a36a9215f64c062838",
            "target_link_uri": self.launch_url("1.3"),
            "client_id": self.client_id,
            "lti_deployment_id": self.deployments[0],
            "lti_message_hint": "eyJ0eXAi.a+b/c=&d",
            **changes,
        }
        return {name: value for name, value in values.items() if value is not None}

    def answer(self, query: Mapping[str, str], **changes: Any) -> dict[str, str]:
        """The form that its authorization page posts back."""
        changes = {**self.next_claims, **changes}
        if self.sub:
            changes.setdefault("sub", self.sub)
        claims = self.claims(self.who, nonce=query["nonce"], **changes)
        return {"id_token": self.token(claims), "state": query["state"]}

    # Over HTTP

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[LMS]:
        """Serve keys and authorization page on 127.0.0.1; `jwks_url` and `auth_url` are those, meanwhile."""
        app = web.Application()
        app.router.add_get("/jwks", self._answer_keys)
        app.router.add_get("/elsewhere", self._answer_good_keys)
        app.router.add_get("/auth", self._answer_login)
        app.router.add_get("/course", self._answer_course)
        app.router.add_post("/return", self._answer_return)
        if self.services is not None:
            self.services.add_routes(app)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        before = self.jwks_url, self.auth_url, self.token_url
        self.jwks_url, self.auth_url = f"http://{host}:{port}/jwks", f"http://{host}:{port}/auth"
        if self.services is not None:
            self.services.base = f"http://{host}:{port}"
            self.services.key, self.services.secret = self.key, self.secret
            self.token_url = self.services.token_url
        try:
            yield self
        finally:
            self.jwks_url, self.auth_url, self.token_url = before
            await runner.cleanup()

    def key_set(self) -> dict[str, Any]:
        return {"keys": [key.jwk() for key in self.keys]}

    async def _answer_good_keys(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self.key_set())

    async def _answer_keys(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        match self.misbehaviour:
            case "hang":
                await asyncio.sleep(3600)
            case "drip":
                return await _drip(request)
            case "redirect":
                raise web.HTTPFound("/elsewhere")
            case "html":
                return web.Response(text="<html>Sign in</html>", content_type="text/html")
            case "large":
                return web.Response(body=json.dumps({**self.key_set(), "x": "x" * 10_000_000}).encode())
            case "gzip-bomb":
                response = web.Response(body=b'{"keys":[]}' + b" " * 50_000_000)
                response.enable_compression(web.ContentCoding.gzip)
                return response
            case "error":
                raise web.HTTPInternalServerError
            case "list":
                return web.json_response([1, 2])
            case "deep":
                return web.Response(text='{"keys":' + "[" * 100_000)
            case "close":
                assert request.transport is not None
                request.transport.abort()
        return web.json_response(self.key_set())

    async def _answer_login(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        self.logins.insert(0, query)
        form = self.answer(query)
        inputs = "".join(f'<input type="hidden" name="{name}" value="{value}">' for name, value in form.items())
        page = (
            f'<form method="post" action="{query["redirect_uri"]}">{inputs}</form>'
            "<script>document.forms[0].submit()</script>"
        )
        return web.Response(text=page, content_type="text/html")

    async def _answer_return(self, request: web.Request) -> web.Response:
        """What a deep linking answer comes to."""
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.returned.append(form)
        return web.Response(text="<!doctype html><h1>The link is in the course</h1>", content_type="text/html")

    async def _answer_course(self, request: web.Request) -> web.Response:
        """A course's page with one link. `?version=1.1&who=student&sub=…&target=frame`, or `_blank` or `_self`."""
        query = request.query
        self.who = cast(Who, query.get("who", "student"))
        target, self.sub = query.get("target", "_self"), query.get("sub", "")
        if query.get("version", "1.3") == "1.1":
            action = self.launch_url("1.1")
            changes = {"user_id": self.sub} if self.sub else {}
            method, fields = "post", self.signed(self.fields(self.who, **changes))
        else:
            hints = {"lti_storage_target": query["storage"]} if "storage" in query else {}
            method, action, fields = "get", f"{self.tool}/hub/lti13/login", self.login_request(**hints)
        inputs = "".join(
            f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in fields.items()
        )
        frame = '<iframe name="frame" title="Tool" width="100%" height="420"></iframe>' if target == "frame" else ""
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{self.brand.title()}: a course</title>"
            '<body style="font-family: sans-serif; margin: 2em"><h1>Introduction to Programming</h1>'
            f'<form method="{method}" action="{escape(action)}" target="{escape(target)}">{inputs}'
            f"<button>Open notebook</button></form>{frame}<script>{_PLATFORM_STORAGE}</script></body></html>"
        )
        return web.Response(text=page, content_type="text/html")


def sourcedid(user: str, link: str) -> str:
    """A student's `lis_result_sourcedid`, as Moodle's: JSON, with a hash that is another at every launch."""
    data = {"instanceid": link, "userid": user, "typeid": None, "launchid": secrets.randbelow(1 << 30)}
    return json.dumps({"data": data, "hash": secrets.token_hex(16)}, separators=(",", ":"))


def lms(brand: Brand, number: int = 1, **changes: Any) -> LMS:
    """A platform of that brand; those of different numbers differ in everything."""
    host = f"{brand}{number}.example.edu"
    values: dict[str, Any] = {
        "brand": brand,
        "id": number,
        "key": f"key-of-{brand}-{number}",
        "secret": f"secret of {brand} & {number} +ü",
        "issuer": "https://canvas.instructure.com" if brand == "canvas" else f"https://{host}",
        "client_id": f"client-{brand}-{number}",
        "auth_url": f"https://{host}/auth" + ("?mode=lti" if brand == "brightspace" else ""),
        "jwks_url": f"https://{host}/jwks",
        "deployments": [f"{number}:dep"],
        **changes,
    }
    return LMS(**values)


async def _drip(request: web.Request) -> web.StreamResponse:
    """A byte now and then: no single read times out."""
    response = web.StreamResponse()
    await response.prepare(request)
    for byte in _forever(b'{"keys": []} '):
        await response.write(byte)
        await asyncio.sleep(0.05)
    return response


def _forever(data: bytes) -> Iterator[bytes]:
    while True:
        for index in range(len(data)):
            yield data[index : index + 1]


_PLAIN = frozenset(
    ("iss", "aud", "azp", "sub", "exp", "iat", "nbf", "nonce", "name", "given_name", "family_name", "email", "jti")
) | {"locale", "preferred_username", "errors", "middle_name", "picture", "https://www.example.com/extension"}


def _long(name: str) -> str:
    return name if name in _PLAIN or name.startswith("http") else CLAIM + name


_ODD_FIELDS: Mapping[Brand, Mapping[str, str]] = {
    "canvas": {
        "custom_canvas_user_login_id": "zoe.login",
        "custom_canvas_enrollment_state": "active",
        "custom_due": "$Canvas.assignment.dueAt.iso8601",
        "ext_roles": "urn:lti:instrole:ims/lis/Administrator,urn:lti:role:ims/lis/Instructor",
    },
    "moodle": {
        "ext_user_username": "zoe.login",
        "ext_lms": "moodle-2",
        "lis_person_sourcedid": "",
        "lis_course_section_sourcedid": "",
    },
    "openedx": {"lis_person_sourcedid": "zoe.login", "custom_component_display_name": "Übung"},
    "blackboard": {"lis_person_sourcedid": "zoe.login", "custom_tc_profile_url": ""},
    "brightspace": {"ext_d2l_username": "zoe", "lis_person_sourcedid": "zoe.login", "ext_tc_profile_url": ""},
    "sakai": {"ext_sakai_eid": "zoe.login", "ext_sakai_role": "maintain", "lis_person_sourcedid": "ignored"},
}


def _odd_claims(brand: Brand, client_id: str) -> dict[str, Any]:
    lis = {"person_sourcedid": "zoe.login", "course_offering_sourcedid": ""}
    empty_lis = {"person_sourcedid": "", "course_section_sourcedid": ""}
    ags = {"scope": [], "lineitems": "https://lms.example.edu/2/lineitems?type_id=1"}
    return {
        "canvas": {
            "lis": {"person_sourcedid": "$Person.sourcedId"},
            "custom": {"canvas_user_login_id": "zoe.login", "due": "$ResourceLink.submission.endDateTime"},
            "locale": "de",
            "errors": {"errors": {}},
            "azp": client_id,
        },
        "moodle": {"ext": {"user_username": "zoe.login", "lms": "moodle-2"}, "lis": empty_lis, "custom": []},
        "openedx": {
            "preferred_username": "zoe.login",
            "https://purl.imsglobal.org/spec/lti-ags/claim/endpoint": ags,
            "locale": "en",
        },
        "blackboard": {"aud": [client_id], "lis": lis, "custom": {"user_id": 7}, "picture": None},
        "brightspace": {"lis": lis, "aud": [client_id, "https://api.brightspace.com/auth/token"], "azp": client_id},
        "sakai": {"lis": lis, "ext": {"sakai_role": "maintain"}, "custom": ""},
    }[brand]


#: What a platform's page does for tools that may keep no cookies (LTI Client Side postMessages, LTI Platform Storage).
_PLATFORM_STORAGE = """
const kept = {};
window.addEventListener("message", (event) => {
  const { subject, message_id, key, value } = event.data;
  if (subject === "lti.put_data") kept[event.origin + key] = value;
  if (subject === "lti.put_data" || subject === "lti.get_data")
    event.source.postMessage(
      { subject: subject + ".response", message_id, key, value: kept[event.origin + key] }, event.origin,
    );
});
"""
