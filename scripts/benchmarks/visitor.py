"""Somebody who comes to class: a browser's cookies and way through the pages, without the pictures."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp

PASSWORD = "correct horse battery"  # noqa: S105 -- of people who live for one measurement
#: Seconds after which nobody waits any longer.
PATIENCE = 1800


class VisitError(RuntimeError):
    """What the visitor saw instead of a notebook."""


@dataclass
class Visit:
    """What one person saw, in seconds since they came.

    Attributes:
        usable: when Lab's page and its server's API answered; None where they never did.
        problem: what they saw instead.
        told: what the page said while they waited.
    """

    name: str
    usable: float | None = None
    problem: str = ""
    told: list[str] = field(default_factory=list)


class Visitor:
    """One person and their browser.

    Args:
        url: of the hub, without a trailing slash.
        name: of the person.
    """

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.name = name
        self.told: list[str] = []

    async def __aenter__(self) -> Self:
        self.session = aiohttp.ClientSession(
            # Addresses that are numbers have cookies, too; and tornado's have characters that nobody must quote.
            cookie_jar=aiohttp.CookieJar(unsafe=True, quote_cookie=False),
            timeout=aiohttp.ClientTimeout(total=PATIENCE),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()

    @property
    def base(self) -> str:
        """The path of the person's server."""
        return f"/user/{self.name}/"

    def xsrf(self, path: str) -> str:
        """The XSRF token of what is at `path`."""
        cookies = [cookie for cookie in self.session.cookie_jar if cookie.key == "_xsrf"]
        fitting = [cookie for cookie in cookies if path.startswith(cookie["path"])]
        return max(fitting, key=lambda cookie: len(cookie["path"])).value if fitting else ""

    async def get(self, path: str) -> tuple[int, str, str]:
        """Status, path where redirects ended, and text."""
        async with self.session.get(f"{self.url}{path}") as answer:
            return answer.status, answer.url.path, await answer.text()

    async def sign_in(self) -> None:
        """By the form.

        Raises:
            VisitError: where the name or the password is refused.
        """
        await self.get("/hub/login")
        form = {"username": self.name, "password": PASSWORD, "_xsrf": self.xsrf("/hub/")}
        async with self.session.post(f"{self.url}/hub/login", data=form, allow_redirects=False) as answer:
            if answer.status != 302:
                raise VisitError(f"sign-in: {answer.status}")

    async def start(self) -> None:
        """Press Start, and follow what the page says until the server is there.

        Raises:
            VisitError: with what the page said.
        """
        status, path, _ = await self.get("/hub/spawn")
        if path.startswith(self.base):
            return
        if status != 200:
            raise VisitError(f"start: {status}")
        progress = f"{self.url}/hub/api/users/{self.name}/server/progress?_xsrf={self.xsrf('/hub/')}"
        async with self.session.get(progress, headers={"Accept": "text/event-stream"}) as stream:
            async for line in stream.content:
                if not line.startswith(b"data:"):
                    continue
                event = json.loads(line[5:])
                self.told.append(event.get("message", ""))
                if event.get("failed"):
                    raise VisitError(event.get("message", "failed"))
                if event.get("ready"):
                    return
        raise VisitError("the page of progress ended without a word")

    async def open(self) -> None:
        """Open Lab, and ask the server's API as Lab does.

        Raises:
            VisitError: where either does not answer.
        """
        for page in ("lab", "api/status"):
            status, path, _ = await self.get(f"{self.base}{page}")
            if status != 200 or path != f"{self.base}{page}":
                raise VisitError(f"{path}: {status}")

    async def come(self) -> Visit:
        """From the door to a notebook."""
        began = time.monotonic()
        visit = Visit(self.name, told=self.told)
        try:
            await self.sign_in()
            await self.start()
            await self.open()
            visit.usable = time.monotonic() - began
        except (VisitError, aiohttp.ClientError, TimeoutError) as error:
            visit.problem = f"{error}" or type(error).__name__
        return visit

    async def api(self, method: str, path: str, body: object = None) -> Any:
        """Ask the hub or the person's server, as their pages do."""
        headers = {"X-XSRFToken": self.xsrf(path), "Referer": f"{self.url}/hub/home"}
        async with self.session.request(method, f"{self.url}{path}", json=body, headers=headers) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise VisitError(f"{method} {path}: {answer.status} {text[:200]}")
            return json.loads(text) if text else None

    async def start_kernel(self) -> str:
        """A kernel's id."""
        model: Mapping[str, Any] = await self.api("POST", f"{self.base}api/kernels", {"name": "python3"})
        return str(model["id"])

    async def run(self, kernel: str, code: str) -> None:
        """Run `code`, and wait until it has run.

        Raises:
            VisitError: where it raises.
        """
        address = f"{self.url}{self.base}api/kernels/{kernel}/channels?session_id={uuid.uuid4().hex}"
        async with self.session.ws_connect(address, origin=self.url, max_msg_size=0) as socket:
            message = uuid.uuid4().hex
            header = {
                "msg_id": message, "msg_type": "execute_request", "username": self.name, "session": uuid.uuid4().hex,
                "version": "5.3",
            }  # fmt: skip
            content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
            await socket.send_json(
                {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
            )
            async for frame in socket:
                if frame.type is aiohttp.WSMsgType.ERROR:
                    raise VisitError(f"the kernel's page: {frame.data!r}")
                said = json.loads(frame.data)
                if said["parent_header"].get("msg_id") == message and said["msg_type"] == "execute_reply":
                    if said["content"]["status"] != "ok":
                        raise VisitError(f"{said['content'].get('ename')}: {said['content'].get('evalue')}")
                    return
        raise VisitError("the kernel went away")

    async def stop(self) -> None:
        """Stop the server, and wait until it has stopped."""
        await self.api("DELETE", f"/hub/api/users/{self.name}/server")
