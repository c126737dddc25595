"""The public port by itself: configurable-http-proxy with what config/proxy loads before it, and a server behind."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import http.server
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from illumidesk import settings
from illumidesk.host import units
from illumidesk.host.environments import compress_static, swap
from tests.integration.conftest import free_port, listening
from tests.support.certificates import make_certificate, make_key, pem, pem_of_key

DOMAIN = "class.example.org"


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with the headers that it was sent, and switches protocols when asked to."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.headers.get("Upgrade"):
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.end_headers()
            self.wfile.write(json.dumps(dict(self.headers.items())).encode() + b"\n")
            for line in self.rfile:
                self.wfile.write(line)
            return
        content = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@dataclass
class Proxy:
    """A running proxy: `plain` and `port` are its ports (the same where there is no HTTPS), `log` what it says."""

    process: subprocess.Popen[bytes]
    plain: int
    port: int
    folder: Path
    log: Path

    def ask(
        self, path: str = "/", *, plain: bool = False, method: str = "GET", **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection: http.client.HTTPConnection
        if plain or self.plain == self.port:
            connection = http.client.HTTPConnection("127.0.0.1", self.plain)
        else:
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=unverified())
        with contextlib.closing(connection):
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return response, response.read()

    def seen(self, **headers: str) -> dict[str, str]:
        """The headers that reach the server behind."""
        found: dict[str, str] = json.loads(self.ask(**headers)[1])
        return found

    def connect(self) -> ssl.SSLSocket:
        return unverified().wrap_socket(socket.create_connection(("127.0.0.1", self.port)), server_hostname=DOMAIN)

    def serial(self) -> int:
        with self.connect() as connection:
            found = connection.getpeercert(binary_form=True)
        assert found
        return x509.load_der_x509_certificate(found).serial_number

    def reload(self, word: str) -> None:
        """As `systemctl reload` does, and wait until it says `word`."""
        self.process.send_signal(signal.SIGHUP)
        self.wait_for(word)

    def wait_for(self, word: str) -> None:
        deadline = time.monotonic() + 30
        while word not in self.log.read_text():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)


def unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def write_pair(folder: Path) -> int:
    """A fresh certificate with its key; its serial number."""
    key = make_key()
    certificate = make_certificate(key, DOMAIN)
    (folder / "key.pem").write_bytes(pem_of_key(key))
    (folder / "fullchain.pem").write_bytes(pem(certificate))
    return certificate.serial_number


def variables(wanted: dict[str, Any], folder: Path) -> tuple[dict[str, str], list[str]]:
    """What the drop-in for these settings says: variables, and the words of ILLUMIDESK_PROXY_TLS."""
    found: dict[str, str] = {}
    for line in units.drop_ins(settings.validate(wanted))[units.PROXY].splitlines():
        if line.startswith('Environment="'):
            name, _, value = line.removeprefix('Environment="').removesuffix('"').partition("=")
            found[name] = value
        elif line.startswith("Environment="):
            found |= dict(word.split("=", 1) for word in line.removeprefix("Environment=").split(" "))
    words = found.pop("ILLUMIDESK_PROXY_TLS", "").replace("/etc/illumidesk/tls/current", str(folder)).split()
    return found, words


@pytest.fixture(scope="module")
def behind() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def proxy(request: pytest.FixtureRequest, proxy_program: Path, behind: int, tmp_path: Path) -> Iterator[Proxy]:
    plain, port = free_port(), free_port()
    wanted = dict(request.param)
    wanted["proxy"] = {"http_port": plain, "bind": "127.0.0.1", **wanted.get("proxy", {})}
    if "https" in wanted:
        wanted["https"] = {"port": port, **wanted["https"]}
    else:
        port = plain
    write_pair(tmp_path)
    (tmp_path / "acme").mkdir()
    environment, tls = variables(wanted, tmp_path)
    api = Path("/tmp") / f"proxy-{secrets.token_hex(4)}.sock"
    log = tmp_path / "log"
    with log.open("wb") as opened:
        process = subprocess.Popen(
            [
                proxy_program / "node/bin/node",
                f"--import={proxy_program / 'keep-alive.mjs'}",
                f"--import={proxy_program / 'public-port.mjs'}",
                proxy_program / "node_modules/configurable-http-proxy/bin/configurable-http-proxy",
                "--ip=127.0.0.1",
                f"--port={environment['ILLUMIDESK_PROXY_PORT']}",
                *tls,
                f"--api-socket={api}",
                f"--default-target=http://127.0.0.1:{behind}",
                "--log-level=warn",
            ],
            env={
                "PATH": os.environ["PATH"],
                "ILLUMIDESK_PROXY_CHALLENGES": str(tmp_path / "acme"),
                "ILLUMIDESK_PROXY_ENVIRONMENTS": str(tmp_path / "envs"),
                "ILLUMIDESK_PROXY_HUB": str(tmp_path / "hub"),
                **environment,
            },
            stdout=opened,
            stderr=opened,
        )
    running = Proxy(process, plain, port, tmp_path, log)
    try:
        deadline = time.monotonic() + 60
        while not (listening(api) and all(is_open(number) for number in (plain, port))):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield running
    finally:
        process.kill()
        process.wait()
        api.unlink(missing_ok=True)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


HTTP = pytest.mark.parametrize("proxy", [{}], indirect=True)
HTTPS = pytest.mark.parametrize("proxy", [{"https": {"domain": DOMAIN}}], indirect=True)
BEHIND = pytest.mark.parametrize(
    "proxy", [{"public_url": f"https://{DOMAIN}", "proxy": {"trusted": ["127.0.0.1"]}}], indirect=True
)
FORGED = {
    "X_Forwarded_For": "198.51.100.1",
    "X_Forwarded_Proto": "https",
    "X_Forwarded_Host": "evil.example.org",
    "X_Forwarded_Port": "1",
    "X_Forwarded_Prefix": "/evil",
    "X_Real_IP": "198.51.100.1",
    "X_Scheme": "https",
    "Forwarded": "for=198.51.100.1;proto=https;host=evil.example.org",
}


@HTTP
def test_a_strangers_word_about_itself_is_not_passed_on(proxy: Proxy) -> None:
    seen = proxy.seen(**FORGED)
    assert seen["x-real-ip"] == "127.0.0.1"
    assert seen["x-scheme"] == "http"
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert seen["x-forwarded-proto"] == "http"
    assert seen["x-forwarded-host"] == f"127.0.0.1:{proxy.plain}"
    assert not {"198.51.100.1", "evil", "https"} & {word for value in seen.values() for word in value.split()}
    assert "forwarded" not in seen
    assert "x-forwarded-prefix" not in seen


@HTTP
def test_nor_at_a_websocket(proxy: Proxy) -> None:
    forged = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in FORGED.items())
    with socket.create_connection(("127.0.0.1", proxy.plain)) as connection:
        connection.sendall(
            f"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{forged}\r\n".encode()
        )
        reader = connection.makefile("rb")
        assert b" 101 " in reader.readline()
        while reader.readline().strip():
            pass
        seen = json.loads(reader.readline())
    assert "198.51.100.1" not in str(seen)
    assert {name.lower(): value for name, value in seen.items()}["x-scheme"] == "http"


@BEHIND
def test_a_reverse_proxy_in_the_settings_is_believed(proxy: Proxy) -> None:
    seen = proxy.seen(X_Forwarded_For="203.0.113.9, 198.51.100.1", X_Forwarded_Proto="https")
    assert seen["x-scheme"] == "https"
    # What the visitor itself put in front is not.
    assert seen["x-real-ip"] == "198.51.100.1"
    response, _ = proxy.ask(X_Forwarded_Proto="https")
    assert response.getheader("Strict-Transport-Security") == "max-age=15552000"
    # Of what it does not say nothing is made up.
    seen = proxy.seen(X_Forwarded_For="nonsense", X_Forwarded_Proto="nonsense")
    assert (seen["x-scheme"], seen["x-real-ip"]) == ("http", "127.0.0.1")


@pytest.mark.parametrize("proxy", [{}, {"https": {"domain": DOMAIN}}], indirect=True)
def test_challenges_are_answered_on_the_plain_port(proxy: Proxy) -> None:
    (proxy.folder / "acme/to-ken_1").write_text("to-ken_1.thumbprint")
    (proxy.folder / "secret").write_text("secret")
    where = "/.well-known/acme-challenge/"
    response, content = proxy.ask(f"{where}to-ken_1", plain=True)
    assert (response.status, content) == (200, b"to-ken_1.thumbprint")
    assert proxy.ask(f"{where}other", plain=True)[0].status == 404
    for path in ("../secret", "..%2fsecret", "%2e%2e/secret", "to-ken_1/", "to-ken_1?x", "to-ken_1%00", "", "."):
        response, content = proxy.ask(where + path, plain=True)
        assert content != b"secret"
        assert b"thumbprint" not in content


@HTTPS
def test_the_plain_port_redirects(proxy: Proxy) -> None:
    for path in ("/", "/hub/login?next=%2Fhub%2F&x=1", "//evil.example.org/x"):
        response, _ = proxy.ask(path, plain=True, Host="evil.example.org")
        assert response.status == 308
        assert response.getheader("Location") == f"https://{DOMAIN}:{proxy.port}{path}"
        assert response.getheader("Strict-Transport-Security") is None
        assert response.getheader("Cache-Control") == "no-store"
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", proxy.plain)) as connection:
        connection.putrequest("GET", "http://evil.example.org/x", skip_host=True)
        connection.putheader("Host", "evil.example.org")
        connection.endheaders()
        assert connection.getresponse().getheader("Location") == f"https://{DOMAIN}:{proxy.port}/"


@HTTPS
def test_https(proxy: Proxy) -> None:
    response, content = proxy.ask(**FORGED)
    assert response.getheader("Strict-Transport-Security") == "max-age=15552000"
    seen = json.loads(content)
    assert (seen["x-scheme"], seen["x-forwarded-proto"], seen["x-real-ip"]) == ("https", "https", "127.0.0.1")
    with proxy.connect() as connection:
        assert connection.version() == "TLSv1.3"
    context = unverified()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with context.wrap_socket(socket.create_connection(("127.0.0.1", proxy.port))) as connection:
        assert "GCM" in str(connection.cipher())
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        pytest.raises(OSError),
        context.wrap_socket(socket.create_connection(("127.0.0.1", proxy.port))) as connection,
    ):
        connection.version()


@HTTPS
def test_a_renewed_certificate_is_taken_over_and_connections_stay(proxy: Proxy) -> None:
    with proxy.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        reader = connection.makefile("rb")
        assert b" 101 " in reader.readline()
        while reader.readline().strip():
            pass
        reader.readline()

        before = proxy.serial()
        wanted = write_pair(proxy.folder)
        assert proxy.serial() == before
        proxy.reload("read anew")
        assert proxy.serial() == wanted

        # Half of a pair, and no certificate at all.
        key = (proxy.folder / "key.pem").read_bytes()
        (proxy.folder / "key.pem").write_bytes(pem_of_key(make_key()))
        proxy.reload("the old one stays: ")
        assert proxy.serial() == wanted
        (proxy.folder / "key.pem").write_bytes(key)
        (proxy.folder / "fullchain.pem").write_text("rubbish")
        proxy.log.write_text("")
        proxy.reload("the old one stays: ")
        assert proxy.serial() == wanted
        # TLS 1.3 is still spoken with it.
        with proxy.connect() as another:
            assert another.version() == "TLSv1.3"

        connection.sendall(b"still here\n")
        assert reader.readline() == b"still here\n"


@HTTP
def test_a_reload_without_https_changes_nothing(proxy: Proxy) -> None:
    proxy.process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert proxy.seen()["x-scheme"] == "http"
    assert proxy.process.poll() is None


# JupyterLab's own files

LAB = "1014.073326ef5d98db5e.js"
LAB_CONTENT = b"const answer = 42; " * 500
STYLE = b"a { color: red }" * 500


def add_build(folder: Path, name: str, files: dict[str, bytes], *, link: str = "envs/default") -> None:
    """A build of the environment `default` or of the hub's, in use from now on."""
    build = folder / "builds" / name
    for path, content in files.items():
        (build / path).parent.mkdir(parents=True, exist_ok=True)
        (build / path).write_bytes(content)
    compress_static(build)
    swap(folder / link, build)


def from_behind(answer: tuple[http.client.HTTPResponse, bytes]) -> bool:
    """Whether a request was answered by the server behind, to which the proxy says who visits."""
    return answer[0].status == 200 and b"x-real-ip" in answer[1]


@pytest.fixture
def with_files(proxy: Proxy) -> Proxy:
    share = "share/jupyter"
    add_build(
        proxy.folder,
        "first",
        {
            f"{share}/lab/static/{LAB}": LAB_CONTENT,
            f"{share}/lab/static/0031b1860ea4ad75.woff": b"a font",
            f"{share}/lab/static/style.js": LAB_CONTENT,
            f"{share}/lab/static/1014.073326ef5d98db5e.php": LAB_CONTENT,
            f"{share}/labextensions/@a/b/static/remoteEntry.5cbb9d2323598fbda535.js": LAB_CONTENT,
            "lib/python3.11/site-packages/notebook/static/8.ffe51b5e70a6c1f4d5a2.js": LAB_CONTENT,
            "secret.073326ef5d98db5e.js": b"secret",
        },
    )
    hub = {"share/jupyterhub/static/css/style.min.css": STYLE, "share/jupyterhub/static/favicon.ico": b"an icon"}
    add_build(proxy.folder, "of-hub", hub, link="hub")
    return proxy


@HTTPS
def test_labs_files_are_compressed_and_kept(with_files: Proxy) -> None:
    for path in (
        f"/user/ana/static/lab/{LAB}?v=073326ef5d98db5e",
        f"/services/cs101/static/lab/{LAB}",
        "/user/ana/lab/extensions/@a/b/static/remoteEntry.5cbb9d2323598fbda535.js",
        "/user/ana/static/notebook/8.ffe51b5e70a6c1f4d5a2.js",
    ):
        response, content = with_files.ask(path, Accept_Encoding="gzip, deflate, br")
        assert response.status == 200
        assert gzip.decompress(content) == LAB_CONTENT
        assert len(content) == int(response.getheader("Content-Length", "")) < len(LAB_CONTENT) / 10
        assert response.getheader("Content-Encoding") == "gzip"
        assert response.getheader("Content-Type") == "text/javascript"
        assert response.getheader("Cache-Control") == "public, max-age=31536000, immutable"
        assert response.getheader("Vary") == "Accept-Encoding"
        assert response.getheader("Set-Cookie") is None
        assert response.getheader("X-Content-Type-Options") == "nosniff"
        assert response.getheader("Strict-Transport-Security")


@HTTP
def test_each_form_of_a_file_has_a_tag_of_its_own(with_files: Proxy) -> None:
    path = f"/user/ana/static/lab/{LAB}"
    tags = set()
    for accepted, packed in (("gzip", True), ("br;q=1, GZIP;q=0.5", True), ("gzip;q=0", False), ("br", False)):
        response, content = with_files.ask(path, Accept_Encoding=accepted)
        assert (response.getheader("Content-Encoding") == "gzip") is packed
        assert (gzip.decompress(content) if packed else content) == LAB_CONTENT
        assert response.getheader("Vary") == "Accept-Encoding"
        tag = response.getheader("ETag") or ""
        tags.add(tag)
        for known in (tag, f'"other", W/{tag}', "*"):
            response, content = with_files.ask(path, Accept_Encoding=accepted, If_None_Match=known)
            assert (response.status, content, response.getheader("ETag")) == (304, b"", tag)
            assert response.getheader("Vary") == "Accept-Encoding"
        assert with_files.ask(path, Accept_Encoding=accepted, If_None_Match='"other"')[0].status == 200
    assert len(tags) == 2
    # HEAD says the same as GET; a part that is asked for is answered with the whole.
    whole = with_files.ask(path)[0]
    head, content = with_files.ask(path, method="HEAD")
    assert content == b""
    assert head.getheader("Content-Length") == str(len(LAB_CONTENT))
    assert head.getheader("ETag") == whole.getheader("ETag")
    response, content = with_files.ask(path, Range="bytes=0-9", If_Range=whole.getheader("ETag") or "")
    assert (response.status, content) == (200, LAB_CONTENT)
    assert response.getheader("Accept-Ranges") == "none"
    # Fonts are compressed already.
    response, content = with_files.ask("/user/ana/static/lab/0031b1860ea4ad75.woff", Accept_Encoding="gzip")
    assert (content, response.getheader("Content-Encoding"), response.getheader("Vary")) == (b"a font", None, None)


@HTTP
def test_the_hubs_files_by_their_digest(with_files: Proxy) -> None:
    path = "/hub/static/css/style.min.css"
    right, wrong = hashlib.sha512(STYLE).hexdigest(), hashlib.sha512(b"other").hexdigest()
    response, content = with_files.ask(f"{path}?v={right}", Accept_Encoding="gzip")
    assert gzip.decompress(content) == STYLE
    assert (response.getheader("Content-Type"), response.getheader("Vary")) == ("text/css", "Accept-Encoding")
    assert "immutable" in (response.getheader("Cache-Control") or "")
    # Another version, no version, more than a version, and what nobody compressed: the hub knows.
    icon = hashlib.sha512(b"an icon").hexdigest()
    for other in (f"{path}?v={wrong}", path, f"{path}?v={right}&x=1", f"/hub/static/favicon.ico?v={icon}"):
        assert from_behind(with_files.ask(other, Accept_Encoding="gzip"))
    assert from_behind(with_files.ask(f"/user/ana{path}?v={right}"))


@HTTP
def test_everything_else_goes_to_the_server_as_it_is(with_files: Proxy) -> None:
    for path in (
        "/user/ana/lab",
        "/user/ana/lab/api/settings",
        "/user/ana/static/lab/style.js?v=073326ef5d98db5e",  # no digest in its name
        "/user/ana/static/lab/1014.073326ef5d98db5e.php",
        f"/user/ana/static/lab/{LAB}.gz",
        f"/user/ana/files/static/lab/{LAB}",  # a person's own file
        f"/user/ana/static/lab/../lab/{LAB}",
        f"/user/ana/static/lab/%2e%2e/static/{LAB}",
        "/user/ana/static/lab/../../../../secret.073326ef5d98db5e.js",
        f"/hub/static/lab/{LAB}",
        f"/static/lab/{LAB}",
    ):
        answer = with_files.ask(path, Accept_Encoding="gzip")
        assert from_behind(answer), path
        for name in ("Content-Encoding", "Cache-Control", "Vary", "ETag"):
            assert answer[0].getheader(name) is None
    # Not even then a file, where something is sent.
    assert with_files.ask(f"/user/ana/static/lab/{LAB}", method="POST")[0].status == 501


@HTTP
def test_an_update_never_mixes_old_and_new(with_files: Proxy) -> None:
    path, new = f"/user/ana/static/lab/{LAB}", "1014.aaaaaaaaaaaaaaaa.js"
    assert with_files.ask(path)[1] == LAB_CONTENT
    assert from_behind(with_files.ask(f"/user/ana/static/lab/{new}"))
    add_build(with_files.folder, "second", {f"share/jupyter/lab/static/{new}": b"new"})
    deadline = time.monotonic() + 30
    while from_behind(with_files.ask(f"/user/ana/static/lab/{new}")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert with_files.ask(f"/user/ana/static/lab/{new}")[1] == b"new"
    # A page of the old build gets its files from its own server, which runs from that build.
    assert from_behind(with_files.ask(path))
    # A build that goes while its files are in the list.
    shutil.rmtree(with_files.folder / "builds/second")
    assert from_behind(with_files.ask(f"/user/ana/static/lab/{new}"))


def is_open_in(pid: int, suffix: str) -> bool:
    """Whether the process has a file with this suffix open."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            if str(link.readlink()).endswith(suffix):
                return True
    return False


@HTTP
def test_a_visitor_who_leaves_takes_nothing_along(with_files: Proxy) -> None:
    big = secrets.token_bytes(8 << 20)
    add_build(with_files.folder, "big", {"share/jupyter/lab/static/big.bbbbbbbbbbbbbbbb.wasm": big})
    path = "/user/ana/static/lab/big.bbbbbbbbbbbbbbbb.wasm"
    deadline = time.monotonic() + 30
    while from_behind(with_files.ask(path)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", with_files.plain)) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            assert connection.recv(100)
    assert with_files.ask(path)[1] == big
    while is_open_in(with_files.process.pid, ".wasm"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
