"""The addresses that learning management systems send browsers to.

A launch may come in a frame of the LMS's page. People's servers may not be framed, and the hub's cookies are not for
other sites' pages, so a launch in a frame is verified there and goes on in a window of its own: a page offers it, with
a ticket that only a page of ours can hand in.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from cachetools import TTLCache
from jupyterhub.handlers import BaseHandler
from jupyterhub.metrics import prometheus_log_method
from jupyterhub.utils import url_path_join
from sqlalchemy.exc import OperationalError
from tornado import httputil, web

from illumidesk.authenticators import LTI11Authenticator, LTI13Authenticator
from illumidesk.authenticators.lti import LTIAuthenticator
from illumidesk.errors import IllumiDeskError
from illumidesk.hub import deep_linking
from illumidesk.hub.classroom import Classroom
from illumidesk.hub.pages import grader_url, workspace_url
from illumidesk.lti import v13
from illumidesk.lti.deep_linking import assignment_of
from illumidesk.lti.errors import TOOL_ADMIN, LTIError
from illumidesk.lti.keys import key_set
from illumidesk.lti.launch import WORKSPACES, Launch
from illumidesk.registry import Platform
from illumidesk.registry.store import database_problem

#: Seconds between the platform's login request and its launch, and from a launch in a frame to its window.
STATE_LIFETIME = 600
TICKET_LIFETIME = 300
#: Largest form, in bytes: real launches have less than 20 KiB.
MAX_FORM = 256 << 10
#: Most characters of a login request, which is kept for a while before anything of it is proved.
MAX_LOGIN = 8 << 10
#: What a login request may say (Security Framework 1.0, section 5.1.1.1; LTI Client Side postMessages 0.1).
_OF_LOGIN = frozenset(
    {
        "iss", "login_hint", "target_link_uri", "lti_message_hint", "client_id", "lti_deployment_id",
        "lti_storage_target",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Ticket:
    """A verified launch that waits for its window."""

    person: str
    target: str


class Pending:
    """What is under way between two requests. It is small, forgotten in minutes, and a restart may lose it.

    Attributes:
        tickets: verified launches that came in a frame, by an unguessable name.
        logins: login requests by state, to begin again in another window.
        pickings: requests for a link, by an unguessable name, while a teacher chooses.
        authenticators: one of each version for all launches; they keep nothing, and take long to make.
    """

    def __init__(self) -> None:
        self.tickets: TTLCache[str, Ticket] = TTLCache(5_000, TICKET_LIFETIME)
        self.logins: TTLCache[str, dict[str, str]] = TTLCache(2_000, STATE_LIFETIME)
        self.pickings: TTLCache[str, deep_linking.Picking] = TTLCache(5_000, deep_linking.PICK_LIFETIME)
        self.authenticators: dict[type[LTIAuthenticator], LTIAuthenticator] = {}


@web.stream_request_body
class LTIHandler(BaseHandler):  # type: ignore[misc]
    """Base of what a platform's page or form comes to."""

    launch: Launch | None = None
    course_id: str | None = None
    authenticator_class: type[LTIAuthenticator] | None = None

    def initialize(self, pending: Pending) -> None:
        """What all launches of this hub share."""
        self.classroom: Classroom = self.settings["classroom"]
        self.pending = pending
        #: Whose pages may frame the answer, besides those of registered platforms.
        self.framed_by: set[str] = set()
        self._body = bytearray()

    # The request

    def check_xsrf_cookie(self) -> None:
        """A launch comes from another site by nature; its signature is what guards it."""

    async def prepare(self) -> None:
        """Refuse what no launch is before it is read."""
        await super().prepare()
        if not self.classroom.settings.sign_in.lti.enabled:
            raise web.HTTPError(404, "Sign-in from a learning management system is switched off here.")

    def data_received(self, chunk: bytes) -> None:
        """Keep as much as a launch can have. The rest is read, so that the proxy hears the answer, and dropped."""
        if len(self._body) <= MAX_FORM:
            self._body += chunk

    def form(self) -> dict[str, str]:
        """The fields of the body, or of the query where there is no body.

        Raises:
            LTIError: where one comes twice: which of the two was meant is nobody's guess.
        """
        arguments: dict[str, list[bytes]] = {}
        if self.request.method == "POST":
            kind = self.request.headers.get("Content-Type", "")
            if not kind.startswith("application/x-www-form-urlencoded"):
                raise LTIError("this is no form", code="no-form", status=400)
            if len(self._body) > MAX_FORM:
                raise LTIError("the form is too large for a launch", code="too-large", status=413)
            httputil.parse_body_arguments(kind, bytes(self._body), arguments, {})
        else:
            arguments = self.request.query_arguments
        fields = {}
        for name, values in arguments.items():
            if len(values) > 1:
                raise LTIError("the form has a field twice", code="duplicate-field", status=400)
            try:
                fields[name] = values[0].decode()
            except UnicodeDecodeError:
                raise LTIError("the form is not in UTF-8", code="encoding", status=400) from None
        return fields

    def own(self) -> str:
        """This host's address as people see it: by the settings, else as the request says."""
        return self.classroom.settings.public_address() or f"{self.request.protocol}://{self.request.host}"

    def in_a_window(self) -> bool:
        """Whether the browser says that the page is no frame (Fetch Metadata, section 2.1)."""
        return bool(self.request.headers.get("Sec-Fetch-Dest") == "document")

    def check_own_page(self) -> None:
        """Refuse a form that no page of ours sent.

        Raises:
            LTIError: where the browser does not say that one did.
        """
        if self.request.headers.get("Origin", "").lower() != self.own():
            raise LTIError(
                "this form did not come from a page of this classroom",
                code="origin",
                hint="go back to the course and click the link again",
                who=f"you; where it happens again, {TOOL_ADMIN}: public_url must be what the browser shows",
            )

    # Signing in

    async def authenticate(self, data: Any = None) -> Any:
        """JupyterHub's `login_user` asks here: this version's authenticator and not the sign-in page's."""
        if isinstance(data, Ticket):
            self.classroom.check_present(data.person)
            return {"name": data.person}
        assert self.authenticator_class is not None  # noqa: S101 -- who has none takes tickets only
        authenticator = self.pending.authenticators.get(self.authenticator_class)
        if authenticator is None:
            authenticator = self.authenticator_class(parent=self.classroom.app)
            self.pending.authenticators[self.authenticator_class] = authenticator
        return await authenticator.get_authenticated_user(self, data)

    def find_user(self, name: str) -> Any:
        """By the classroom, which is quicker."""
        return self.classroom.hub_user(name)

    async def auth_to_user(self, authenticated: Any, user: Any = None) -> Any:
        """JupyterHub keeps here what an authenticator says besides the name. A launch says no more, and of a class that
        clicks at once the same would be written again for everybody.
        """
        found = self.find_user(authenticated["name"])
        return found if found is not None else await super().auth_to_user(authenticated, user)

    async def take_launch(self, data: Mapping[str, Any]) -> None:
        """Verify a launch and go where it leads: at once in a window, by a page with a button in a frame."""
        authenticated = await self.authenticate(data)
        launch = self.launch
        if authenticated is None or launch is None:
            raise LTIError("you may not sign in here", code="refused")
        self.log.info(
            "LTI %s: %s from platform %d, link %s",
            launch.version,
            authenticated["name"],
            launch.platform_id,
            "for deep linking" if launch.deep_linking else urlsplit(launch.next_url).path or "to the start page",
        )
        origins = {origin_of(launch.return_url)}
        if launch.version == "1.1":
            origins.add(origin_of(self.request.headers.get("Origin", "")))
        self.classroom.registry.learn_origins(launch.platform_id, origins - {""})
        if launch.deep_linking is not None and self.course_id is not None:
            name = authenticated["name"]
            await deep_linking.ask(
                self, deep_linking.Picking(launch.platform_id, self.course_id, name, launch.deep_linking)
            )
            return
        ticket = Ticket(authenticated["name"], self._target(launch))
        if self.in_a_window():
            await self.go(ticket)
            return
        name = secrets.token_urlsafe(32)
        self.pending.tickets[name] = ticket
        await self.show("lti_window.html", ticket=name, title=launch.resource_link_title)

    def _target(self, launch: Launch) -> str:
        """Where the launch leads, now that its course is known; "" for the person's start page.

        An assignment is graded in the course's grader. Students work on it in their own server, which fetches it first
        where it is not there yet (illumidesk.grader.open_assignment).
        """
        assignment = assignment_of(launch)
        if not assignment:
            return self._for_course(launch.next_url)
        if self.course_id is None:
            return "/hub/user-redirect/lab"
        if launch.role in ("instructor", "ta"):
            return grader_url(self.course_id)
        query = urlencode({"course": self.course_id, "name": assignment}, quote_via=quote)
        return self._for_course(f"/hub/user-redirect/illumidesk/assignment?{query}")

    def _for_course(self, target: str) -> str:
        """`target`, by way of the page that starts servers for a course where that matters."""
        parts = urlsplit(target)
        if self.course_id is None:
            return target
        if parts.path.startswith(WORKSPACES) and not parts.query:
            return f"{target}?{urlencode({'course': self.course_id})}"
        own = self.course_id in self.classroom.settings.courses
        if own and re.match(r"(/hub)?/user(-redirect)?/|$", parts.path):
            return workspace_url(self.course_id, target)
        return target

    async def go(self, ticket: Ticket) -> None:
        """Sign the person in, in this window."""
        user = await self.login_user(ticket)
        self.redirect(ticket.target or self.get_next_url(user))

    # Answers

    def get_content_type(self) -> str:
        """With the charset, which JupyterHub leaves to its pages: forms of ours hold what was signed."""
        return "text/html; charset=utf-8"

    async def show(self, template: str, **values: Any) -> None:
        """Finish with a page that registered platforms may frame, and nobody keeps."""
        origins = {origin for one in self.classroom.registry.platforms() for origin in frame_origins(one)}
        policy = ["frame-ancestors", "'self'", *sorted((origins | self.framed_by) - {""})]
        self.set_header("Content-Security-Policy", f"{' '.join(policy)}; report-uri {self.csp_report_uri}")
        self.set_header("Cache-Control", "no-store")
        # Not less: without it browsers name no origin with forms to ourselves (check_own_page) or to the platform.
        self.set_header("Referrer-Policy", "strict-origin-when-cross-origin")
        self.finish(await self.render_template(template, **values))

    async def explain(self, error: IllumiDeskError) -> None:
        """A page that says what is wrong and who can mend it; the log has the same id."""
        incident = secrets.token_hex(4)
        code = error.code if isinstance(error, LTIError) else "refused"
        detail = f" ({error.detail})" if isinstance(error, LTIError) and error.detail else ""
        self.log.warning("LTI %s refused: %s: %s%s", incident, code, error.message, detail)
        self.set_status(error.status)
        await self.show("lti_error.html", problem=error, incident=incident)

    def _log(self) -> None:
        """One line without the query: JupyterHub's has all of it, and where a redirect leads, with hints and nonces."""
        request, level = self.request, logging.INFO if self.get_status() < 400 else logging.WARNING
        spent = 1000 * request.request_time()
        self.log.log(level, "%d %s %s (%.0f ms)", self.get_status(), request.method, request.path, spent)
        prometheus_log_method(self)

    async def answering(self, answer: Any) -> None:
        """Await the answer; explain where it cannot be had."""
        try:
            await answer
        except IllumiDeskError as error:
            await self.explain(error)
        except OperationalError as error:
            self.db.rollback()
            await self.explain(database_problem(error, self.classroom.paths.hub_state))


def frame_origins(platform: Platform) -> set[str]:
    """Where a platform's pages are, as far as it is known."""
    return {*(origin_of(url) for url in (platform.issuer, platform.auth_url)), *platform.origins} - {""}


#: Where http is as good as https, since nothing leaves the machine.
_LOOPBACK = frozenset({"127.0.0.1", "localhost"})


def origin_of(url: str) -> str:
    """The origin of an https address, or of one on the browser's own machine; "" of anything else."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return ""
    host = parts.hostname or ""
    good = parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)
    if not good or not host.isascii() or not host.replace(".", "").replace("-", "").isalnum():
        return ""
    return f"{parts.scheme}://{host}" if port in (None, 443) else f"{parts.scheme}://{host}:{port}"


# LTI 1.1


class LTI11LaunchHandler(LTIHandler):
    """`POST /hub/lti11/launch`."""

    authenticator_class = LTI11Authenticator

    async def post(self) -> None:
        """A launch."""
        await self.answering(self._post())

    async def _post(self) -> None:
        own = self.own()
        await self.take_launch({"form": self.form(), "url": f"{own}{self.request.uri}", "own": own})


# LTI 1.3


class LTI13Handler(LTIHandler):
    """What the login and the launch share: the state that binds both to one browser."""

    authenticator_class = LTI13Authenticator

    def new_state(self, platform: Platform, parameters: Mapping[str, str]) -> tuple[str, str, str]:
        """Begin a login.

        Returns:
            the state, the nonce, and what the browser must bring back with the state, signed.
        """
        state, nonce = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        remembered = json.dumps({"state": state, "nonce": nonce, "platform": platform.id, "time": int(time.time())})
        proof = self.create_signed_value("illumidesk-lti13", remembered).decode()
        self.pending.logins[state] = dict(parameters)
        self._set_state_cookie(state, proof, STATE_LIFETIME)
        return state, nonce, proof

    def take_state(self, state: str, proof: str) -> Mapping[str, Any] | None:
        """What was remembered of the login; None where this browser brings nothing that proves it."""
        proof = proof or self.get_cookie(_cookie_name(state), "")
        self._set_state_cookie(state, "", 0)
        text = self.get_signed_cookie("illumidesk-lti13", proof, max_age_days=1)
        remembered: dict[str, Any] = json.loads(text) if text else {}
        if remembered.get("state") != state or time.time() - remembered["time"] > STATE_LIFETIME:
            return None
        return remembered

    def _set_state_cookie(self, state: str, value: str, lifetime: int) -> None:
        attributes = [f"Path={url_path_join(self.hub.base_url, 'lti13')}", f"Max-Age={lifetime}", "HttpOnly"]
        if self.own().startswith("https:"):
            # The launch is posted by the platform's page, perhaps in a frame: a cookie for that must be allowed across
            # sites, and is kept apart for each of them (CHIPS). http.cookies knows Partitioned from Python 3.14 on.
            attributes += ["Secure", "SameSite=None", "Partitioned"]
        self.add_header("Set-Cookie", "; ".join([f"{_cookie_name(state)}={value}", *attributes]))


def _cookie_name(state: str) -> str:
    return f"illumidesk-lti13-{state}"


class LTI13LoginHandler(LTI13Handler):
    """`/hub/lti13/login`: the platform says that somebody wants to come (OIDC third-party initiated login)."""

    async def get(self) -> None:
        """Send the browser to the platform's authorization page, with a state and nonce bound to it."""
        await self.answering(self._login())

    post = get

    async def _login(self) -> None:
        parameters = {name: text for name, text in self.form().items() if name in _OF_LOGIN}
        if sum(map(len, parameters.values())) > MAX_LOGIN:
            raise LTIError("the sign-in is too large for one", code="too-large", status=413)
        platform = v13.platform_of_login(parameters, self.classroom.registry.platforms_by_issuer)
        state, nonce, proof = self.new_state(platform, parameters)
        redirect_uri = f"{self.own()}{url_path_join(self.hub.base_url, 'lti13/launch')}"
        url = v13.login_url(parameters, platform, redirect_uri=redirect_uri, state=state, nonce=nonce)
        storage = parameters.get("lti_storage_target", "")
        if storage and not self.in_a_window():
            # Where the browser keeps our cookie from the launch, the platform's own page keeps the proof for us.
            await self.show("lti_login.html", url=url, storage=_storage(storage, platform, state), proof=proof)
        else:
            self.redirect(url)


class LTI13LaunchHandler(LTI13Handler):
    """`POST /hub/lti13/launch`."""

    async def post(self) -> None:
        """The platform's answer: a launch, or why there is none."""
        await self.answering(self._post())

    async def _post(self) -> None:
        form = self.form()
        state, proof = form.get("state", ""), form.get("proof", "")
        if form.get("error"):
            raise LTIError(
                "the learning management system refused the sign-in",
                code="platform-error",
                hint="sign in to it again and click the link once more",
                who="you; where that does not help, the LMS's administrator",
            )
        if not state or not state.isascii() or not state.replace("-", "").replace("_", "").isalnum() or len(state) > 64:
            raise LTIError("this is no launch: state is missing", code="no-state", status=400)
        if proof:
            # It came out of the platform's storage by a page of ours, and by no other site's.
            self.check_own_page()
        remembered = self.take_state(state, proof)
        if remembered is None:
            await self._without_proof(form, state, asked=bool(proof))
            return
        platform = self.classroom.registry.platform(remembered["platform"])
        if platform is None:
            raise LTIError("this classroom does not know that learning management system any more", code="removed")
        await self.take_launch(
            {
                "id_token": form.get("id_token", ""),
                "platform": platform,
                "nonce": remembered["nonce"],
                "own": self.own(),
            }
        )

    async def _without_proof(self, form: Mapping[str, str], state: str, *, asked: bool) -> None:
        """Ask the platform's storage; where it has none, offer to begin again in a window."""
        login = self.pending.logins.get(state)
        if login is None or self.in_a_window():
            raise LTIError(
                "this browser did not begin this sign-in, or too long ago",
                code="state",
                hint="go back to the course and click the link again; cookies must not be blocked for this site",
                who="you",
            )
        again = {name: value for name, value in login.items() if name != "lti_storage_target"}
        storage = None
        if login.get("lti_storage_target") and not asked:
            platform = v13.platform_of_login(login, self.classroom.registry.platforms_by_issuer)
            storage = _storage(login["lti_storage_target"], platform, state)
        self.log.info("LTI 1.3: a launch in a frame came without its cookie")
        await self.show(
            "lti_blocked.html", login=again, storage=storage, id_token=form.get("id_token", ""), state=state
        )


def _storage(target: str, platform: Platform, state: str) -> dict[str, str]:
    """Where the platform's page keeps the proof (LTI Platform Storage 0.1 and LTI Client Side postMessages 0.1)."""
    return {"target": target[:255], "origin": origin_of(platform.auth_url), "key": f"illumidesk_{state}"}


class JwksHandler(BaseHandler):  # type: ignore[misc]
    """`GET /hub/lti13/jwks`: the tool's public keys."""

    async def get(self) -> None:
        """All that platforms may still meet."""
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "public, max-age=3600")
        self.finish(json.dumps(key_set(await self.settings["classroom"].tool_keys())))


# Both


class WindowHandler(LTIHandler):
    """`POST /hub/lti/window`: the window of a launch that came in a frame."""

    async def post(self) -> None:
        """Take the ticket, sign in and go where the launch leads."""
        await self.answering(self._post())

    async def _post(self) -> None:
        self.check_own_page()
        ticket = self.pending.tickets.pop(self.form().get("ticket", ""), None)
        if ticket is None:
            raise LTIError(
                "this page was opened already, or too long ago",
                code="ticket",
                hint="go back to the course and click the link again",
                who="you",
            )
        await self.go(ticket)


class PickHandler(LTIHandler):
    """`POST /hub/lti/pick`: what a teacher chose for a link."""

    async def post(self) -> None:
        """Go back to the platform with it."""
        await self.answering(self._post())

    async def _post(self) -> None:
        self.check_own_page()
        await deep_linking.answer(self, self.form())


def launch_handlers(shared: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The addresses of launches; `shared` is what all LTI handlers of a hub share."""
    return [
        (r"/lti11/launch", LTI11LaunchHandler, shared),
        (r"/lti13/login", LTI13LoginHandler, shared),
        (r"/lti13/launch", LTI13LaunchHandler, shared),
        (r"/lti13/jwks", JwksHandler),
        (r"/lti/window", WindowHandler, shared),
        (r"/lti/pick", PickHandler, shared),
    ]
