"""A person with a browser's cookies, as HTTP: signs in, starts a server, runs code in a kernel over a websocket."""

from __future__ import annotations

import json
import re
import ssl
import time
import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import websocket

PASSWORD = "correct horse battery"


class Refused(AssertionError):
    """The hub or a server said no; `response` is what it said."""

    def __init__(self, response: requests.Response) -> None:
        said = re.search(r'class="login_error">(.*?)<', response.text, re.S)
        text = said[1].strip() if said else response.text[:2000]
        super().__init__(f"{response.request.method} {response.url}: {response.status_code} {text}")
        self.response = response


def receive(socket: websocket.WebSocket, deadline: float) -> str:
    """The next message, before `deadline` (of time.monotonic()). `recv` starts its own limit anew at each ping."""
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("nothing came over the websocket in time")
        socket.settimeout(left)
        kind, data = socket.recv_data(control_frame=True)
        if kind == websocket.ABNF.OPCODE_CLOSE:
            raise ConnectionError("the server closed the websocket")
        if kind in {websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY}:
            return str(data, "utf-8")


@dataclass
class Person:
    """Somebody who uses the class through the public port.

    Args:
        url: the hub's public address, without a trailing slash.
        name: the user name.
        password: typed at each sign-in.
    """

    url: str
    name: str
    password: str = PASSWORD
    session: requests.Session = field(default_factory=requests.Session)

    @property
    def base(self) -> str:
        """The path of the person's server."""
        return f"/user/{self.name}/"

    def get(self, path: str, **kwargs: Any) -> requests.Response:
        return self.session.get(urljoin(self.url, path), timeout=120, **kwargs)

    def sign_in(self) -> requests.Response:
        """Sign in; returns the page it ended at."""
        page = self.get("/hub/login")
        page.raise_for_status()
        response = self.session.post(
            f"{self.url}/hub/login",
            data={"username": self.name, "password": self.password, "_xsrf": self.xsrf("/hub/")},
            timeout=120,
            allow_redirects=False,
        )
        if response.status_code != 302:
            raise Refused(response)
        return response

    def xsrf(self, path: str) -> str:
        """The XSRF token of the server at `path`."""
        tokens = [c for c in self.session.cookies if c.name == "_xsrf" and path.startswith(c.path)]
        return max(tokens, key=lambda c: len(c.path)).value or ""

    def hub_api(self, method: str, path: str, body: object = None) -> Any:
        response = self.session.request(
            method,
            f"{self.url}/hub/api/{path}",
            json=body,
            headers={"X-XSRFToken": self.xsrf("/hub/"), "Referer": f"{self.url}/hub/home"},
            timeout=120,
        )
        if not response.ok:
            raise Refused(response)
        return response.json() if response.text else None

    def start_server(self, timeout: float = 180) -> None:
        """Start the server as the Start button does, wait until it is ready, and sign in to it."""
        self.get("/hub/spawn")
        self.wait_ready(timeout)
        self.open_server()

    def wait_ready(self, timeout: float = 180) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            server = self.hub_api("GET", f"users/{self.name}")["servers"].get("")
            if server and server["ready"]:
                return
            page = self.get(f"/hub/spawn-pending/{self.name}")
            if page.status_code >= 500:
                raise Refused(page)
            time.sleep(0.3)
        raise TimeoutError(f"the server of {self.name} is not ready after {timeout} s")

    def open_server(self, page: str = "lab") -> requests.Response:
        response = self.get(self.base + page)
        if not response.ok:
            raise Refused(response)
        return response

    def server(self, method: str, path: str, body: object = None, *, base: str | None = None) -> Any:
        """Ask the person's server (or the one at `base`)."""
        base = base or self.base
        response = self.session.request(
            method,
            f"{self.url}{base}{path}",
            json=body,
            headers={"X-XSRFToken": self.xsrf(base)},
            timeout=300,
        )
        if not response.ok:
            raise Refused(response)
        return response.json() if response.text else None

    def websocket(self, path: str) -> websocket.WebSocket:
        parts = urlsplit(self.url)
        request = requests.Request("GET", self.url + path).prepare()
        cookies = requests.cookies.get_cookie_header(self.session.cookies, request)
        scheme = "wss" if parts.scheme == "https" else "ws"
        # A certificate of a test is trusted as far as the session trusts it.
        trust = None if self.session.verify is True else {"cert_reqs": ssl.CERT_NONE, "check_hostname": False}
        return websocket.create_connection(
            f"{scheme}://{parts.netloc}{path}", cookie=cookies, origin=self.url, timeout=120, sslopt=trust
        )

    def start_kernel(self, *, base: str | None = None) -> Kernel:
        base = base or self.base
        model = self.server("POST", "api/kernels", {"name": "python3"}, base=base)
        return Kernel(self, base, model["id"])

    def run(self, code: str, *, base: str | None = None) -> str:
        """What `code` prints or gives in a new kernel."""
        kernel = self.start_kernel(base=base)
        try:
            return kernel.run(code)
        finally:
            kernel.stop()

    def shell(self, command: str, *, base: str | None = None) -> str:
        """What a shell command in the person's server prints, standard error included, and its exit status last."""
        code = (
            "import subprocess as _s\n"
            f"_r = _s.run(['bash', '-c', {command!r}], stdout=_s.PIPE, stderr=_s.STDOUT, text=True)\n"
            "print(_r.stdout, end='')\nprint('exit', _r.returncode)"
        )
        return self.run(code, base=base)

    def terminal(self, command: str, *, base: str | None = None) -> str:
        """What `command` prints in a terminal of the server, as its page opens one."""
        base = base or self.base
        name = self.server("POST", "api/terminals", base=base)["name"]
        socket = self.websocket(f"{base}terminals/websocket/{name}")
        try:
            # The mark is put together by the shell, so that the echo of what was typed does not hold it.
            socket.send(json.dumps(["stdin", f"{command}; echo do''ne-$?\r"]))
            output = ""
            deadline = time.monotonic() + 60
            while not re.search(r"done-\d", output):
                kind, *content = json.loads(receive(socket, deadline))
                output += content[0] if kind == "stdout" else ""
            return output
        finally:
            socket.close()
            self.server("DELETE", f"api/terminals/{name}", base=base)


@dataclass
class Kernel:
    """A running kernel."""

    person: Person
    base: str
    id: str

    def connect(self) -> websocket.WebSocket:
        return self.person.websocket(f"{self.base}api/kernels/{self.id}/channels?session_id={uuid.uuid4().hex}")

    def run(self, code: str, timeout: float = 180) -> str:
        """Run `code` over a new websocket; what it prints, gives or raises."""
        socket = self.connect()
        try:
            message_id = self.send(socket, code)
            return self.read(socket, message_id, timeout)
        finally:
            socket.close()

    def send(self, socket: websocket.WebSocket, code: str) -> str:
        message_id = uuid.uuid4().hex
        header = {
            "msg_id": message_id,
            "msg_type": "execute_request",
            "username": self.person.name,
            "session": uuid.uuid4().hex,
            "version": "5.3",
        }
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "allow_stdin": False,
            "stop_on_error": True,
        }
        message = {
            "header": header,
            "parent_header": {},
            "metadata": {},
            "content": content,
            "channel": "shell",
        }
        socket.send(json.dumps(message))
        return message_id

    def read(self, socket: websocket.WebSocket, message_id: str, timeout: float = 180) -> str:
        output = ""
        deadline = time.monotonic() + timeout
        idle = replied = False
        while not (idle and replied):
            message = json.loads(receive(socket, deadline))
            if message["parent_header"].get("msg_id") != message_id:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                output += content["text"]
            elif kind in {"execute_result", "display_data"}:
                output += content["data"].get("text/plain", "")
            elif kind == "error":
                output += "\n".join(content["traceback"])
            elif kind == "execute_reply":
                replied = True
            elif kind == "status" and content["execution_state"] == "idle":
                idle = True
        return output

    def stop(self) -> None:
        self.person.server("DELETE", f"api/kernels/{self.id}", base=self.base)
