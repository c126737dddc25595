"""The test LMS as a server beside a test that waits, and what a browser does between it and the hub."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from html import unescape
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qsl, urljoin, urlsplit

import requests

from tests.support.lms import LMS

#: What a browser says of a page in a window, and of one in a frame.
WINDOW = {"Sec-Fetch-Dest": "document"}
FRAME = {"Sec-Fetch-Dest": "iframe"}


class Server(Protocol):
    """Something that answers over HTTP while its context lasts."""

    def serving(self) -> AbstractAsyncContextManager[Any]: ...


S = TypeVar("S", bound=Server)


@contextmanager
def served(server: S) -> Iterator[S]:
    """Serve in a thread: an LMS's keys and pages, or a registrar."""
    loop = asyncio.new_event_loop()
    ready, done = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with server.serving():
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10)
        loop.close()


def form_of(page: str, form: str = "") -> tuple[str, dict[str, str]]:
    """The action and the fields of a page's form; the one with that id where it is given."""
    mark = f'id="{form}"' if form else ""
    for tag, inner in re.findall(r"<form([^>]*)>(.*?)</form>", page, re.S):
        if mark not in tag:
            continue
        action = re.search(r'action="([^"]*)"', tag)
        fields = {}
        for each in re.findall(r"<input[^>]*>", inner):
            name = re.search(r'name="([^"]*)"', each)
            value = re.search(r'value="([^"]*)"', each)
            if name:
                fields[unescape(name[1])] = unescape(value[1]) if value else ""
        return unescape(action[1]) if action else "", fields
    raise AssertionError(f"no form {form} in {page[:3000]}")


class Browser:
    """Cookies, and the way of a launch."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()

    def post(self, path: str, data: Mapping[str, str], headers: Mapping[str, str] = WINDOW) -> requests.Response:
        return self.session.post(
            urljoin(self.url, path), data=dict(data), headers=dict(headers), allow_redirects=False, timeout=120
        )

    def launch_11(
        self, lms: LMS, who: Any = "student", *, query: str = "", headers: Mapping[str, str] = WINDOW, **fields: Any
    ) -> requests.Response:
        """Post a launch by LTI 1.1."""
        url = f"{self.url}/hub/lti11/launch{query}"
        return self.post(url, lms.signed(lms.fields(who, **fields), url), headers)

    def login_13(self, lms: LMS, *, headers: Mapping[str, str] = WINDOW, **changes: str | None) -> dict[str, str]:
        """Begin a launch by LTI 1.3; what the platform's authorization page is asked."""
        changes = {"target_link_uri": f"{self.url}/hub/lti13/launch", **changes}
        answer = self.session.get(
            f"{self.url}/hub/lti13/login",
            params=lms.login_request(**changes),
            headers=dict(headers),
            allow_redirects=False,
            timeout=60,
        )
        assert answer.status_code == 302, answer.text
        assert answer.headers["Location"].startswith(lms.auth_url)
        return dict(parse_qsl(urlsplit(answer.headers["Location"]).query))

    def launch_13(
        self, lms: LMS, who: Any = "student", *, headers: Mapping[str, str] = WINDOW, **claims: Any
    ) -> requests.Response:
        """Launch by LTI 1.3, from the login to the posted token."""
        query = self.login_13(lms, headers=headers)
        lms.who = who
        claims.setdefault("target_link_uri", f"{self.url}/hub/lti13/launch")
        return self.post("/hub/lti13/launch", lms.answer(query, **claims), headers)

    def name(self) -> str:
        """Who is signed in; "" where nobody is."""
        answer = self.session.get(f"{self.url}/hub/home", timeout=60, allow_redirects=False)
        if answer.status_code != 200:
            return ""
        found = re.search(r'"user": "([^"]*)"|user: "([^"]*)"', answer.text)
        assert found, answer.text[:3000]
        return found[1] or found[2]
