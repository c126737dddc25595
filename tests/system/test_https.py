"""HTTPS for real: Debian's ACME server Pebble, certbot, certificates of one's own, nginx in front."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.classroom import Classroom
from tests.support.person import Person

pytestmark = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")

DOMAIN = "class.test.example"
ACME = "https://127.0.0.1:14000/dir"
DOCS = Path(__file__).resolve().parents[2] / "docs/how-to/https.md"

_PEBBLE = """
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -q update >/dev/null
apt-get -qy --no-install-recommends install pebble openssl curl >/dev/null
grep -q {domain} /etc/hosts || echo '127.0.0.1 {domain}' >>/etc/hosts
mkdir -p /root/pebble && cd /root/pebble
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost \\
  -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout key.pem -out cert.pem 2>/dev/null
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=own \\
  -addext subjectAltName=DNS:{domain} -keyout own-key.pem -out own.pem 2>/dev/null
cat >config.json <<JSON
{{"pebble": {{"listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000",
  "certificate": "/root/pebble/cert.pem", "privateKey": "/root/pebble/key.pem",
  "httpPort": {http}, "tlsPort": {https}, "ocspResponderURL": "", "externalAccountBindingRequired": false}}}}
JSON
systemctl stop pebble-test 2>/dev/null || true
# Pebble forgets its accounts when it ends.
rm -rf /etc/letsencrypt
systemd-run -q --unit=pebble-test -E PEBBLE_VA_NOSLEEP=1 -E PEBBLE_WFE_NONCEREJECT=0 \\
  /usr/bin/pebble -config /root/pebble/config.json
for _ in $(seq 100); do curl -sk https://127.0.0.1:14000/dir >/dev/null && exit 0; sleep 0.2; done
exit 1
"""


@pytest.fixture(scope="module")
def https_port(classroom: Classroom) -> Iterator[int]:
    """The class with an ACME server beside it; afterwards it is on plain HTTP again."""
    port = classroom.port + 300
    script = _PEBBLE.format(domain=DOMAIN, http=classroom.port, https=port)
    classroom.machine.run(["bash", "-c", script], timeout=600)
    classroom.cli("config", "set", "https.port", str(port))
    yield port
    classroom.cli("https", "off")
    # A server that was started under HTTPS asks browsers for secure cookies until it is started anew.
    classroom.cli("user", "stop", "student1", check=False)
    classroom.cli("config", "unset", "https.port")
    classroom.machine.run(["systemctl", "stop", "pebble-test"])
    classroom.wait_for_hub()


def letsencrypt(classroom: Classroom, domain: str, check: bool = True, port: int = 0) -> str:
    argv = ["illumidesk", "https", "letsencrypt", domain, "--email", "admin@example.org", "--agree-tos"]
    argv += ["--server", ACME, "--challenge-port", str(port or classroom.port)]
    environment = {"REQUESTS_CA_BUNDLE": "/root/pebble/cert.pem"}
    done = classroom.machine.run(argv, check=check, timeout=600, env=environment)
    return done.stdout + done.stderr


def shown(port: int) -> str:
    """The certificate that the proxy shows."""
    return ssl.get_server_certificate(("127.0.0.1", port))


@pytest.fixture(scope="module", autouse=True)
def resolver() -> Iterator[None]:
    """The name leads to this machine, for this process too."""
    ask = socket.getaddrinfo

    def answer(host: Any, *args: Any, **kwargs: Any) -> Any:
        return ask("127.0.0.1" if host == DOMAIN else host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", answer)
        yield


def person_at(port: int, name: str) -> Person:
    person = Person(f"https://{DOMAIN}:{port}", name)
    # Not the certificates of the environment: what a test's authority signs is in none.
    person.session.trust_env = False
    person.session.verify = False
    return person


def test_what_is_in_the_way_is_said_first(classroom: Classroom, https_port: int) -> None:
    said = letsencrypt(classroom, "nowhere.invalid", check=False)
    assert "DNS knows no address of nowhere.invalid" in said or "nothing is known of nowhere.invalid" in said
    closed = letsencrypt(classroom, DOMAIN, check=False, port=https_port + 5)
    assert "refuses connections" in closed
    assert str(https_port + 5) in closed
    # Somebody else answers there: the ACME server's own port.
    foreign = letsencrypt(classroom, DOMAIN, check=False, port=14000)
    assert "14000" in foreign
    assert "Traceback" not in said + closed + foreign
    assert not classroom.cli_json("https", "status")["enabled"]
    assert requests.get(f"{classroom.url}/hub/health", timeout=30).ok


def test_one_command_and_the_class_has_https(classroom: Classroom, https_port: int) -> None:
    said = letsencrypt(classroom, DOMAIN)
    assert f"HTTPS is on: https://{DOMAIN}:{https_port}" in said
    classroom.machine.run(["systemctl", "is-enabled", "certbot.timer"])
    answer = requests.get(f"{classroom.url}/hub/x?a=1&b=%20", allow_redirects=False, timeout=30)
    assert answer.status_code == 308
    assert answer.headers["Location"] == f"https://{DOMAIN}:{https_port}/hub/x?a=1&b=%20"
    session = person_at(https_port, "").session
    login = session.get(f"https://{DOMAIN}:{https_port}/hub/login", timeout=60)
    assert login.headers["Strict-Transport-Security"].startswith("max-age=15552000")
    assert "Secure" in login.headers["Set-Cookie"]
    status = classroom.cli_json("https", "status")
    assert (status["enabled"], status["certificate"]["names"], status["problems"]) == (True, [DOMAIN], [])
    before = shown(https_port)
    assert "HTTPS is on" in letsencrypt(classroom, DOMAIN)
    assert shown(https_port) == before


def test_a_renewal_drops_no_websocket(classroom: Classroom, https_port: int) -> None:
    student = person_at(https_port, "student1")
    student.sign_in()
    student.start_server()
    kernel = student.start_kernel()
    channel = kernel.connect()
    assert kernel.read(channel, kernel.send(channel, "6*7")) == "42"
    before, proxy = shown(https_port), classroom.main_pid("illumidesk-proxy")
    classroom.machine.run(
        ["certbot", "renew", "--force-renewal", "--no-random-sleep-on-renew"],
        env={"REQUESTS_CA_BUNDLE": "/root/pebble/cert.pem"},
        timeout=300,
    )
    deadline = time.monotonic() + 60
    while shown(https_port) == before:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert classroom.main_pid("illumidesk-proxy") == proxy
    assert kernel.read(channel, kernel.send(channel, "5*5")) == "25"
    channel.close()
    kernel.stop()


def test_a_certificate_of_ones_own(classroom: Classroom, https_port: int) -> None:
    before = shown(https_port)
    wrong = classroom.cli(
        *("https", "certificate", "--cert", "/root/pebble/own.pem", "--key", "/root/pebble/key.pem"), check=False
    )
    assert wrong.returncode == 1
    assert "Traceback" not in wrong.stderr
    assert shown(https_port) == before
    classroom.cli("https", "certificate", "--cert", "/root/pebble/own.pem", "--key", "/root/pebble/own-key.pem")
    assert shown(https_port).strip() == classroom.machine.read_text("/root/pebble/own.pem").strip()
    key = classroom.machine.run(["sh", "-c", "stat -Lc '%a %U %G' /etc/illumidesk/tls/*/*key* | sort -u"]).stdout
    assert key.split("\n")[0] == "640 root illumidesk-proxy"


def test_off_is_plain_http_again(classroom: Classroom, https_port: int) -> None:
    classroom.cli("https", "off")
    assert "HTTPS was off" in classroom.cli("https", "off").stdout
    classroom.wait_for_hub()
    assert classroom.sign_in("student1").get("/hub/home").ok


def test_behind_nginx_as_the_page_says(classroom: Classroom, https_port: int) -> None:
    page = DOCS.read_text("utf-8")
    example = re.search(r"```nginx\n(.*?)```", page, re.S)
    assert example
    public = classroom.port + 301
    text = (
        example[1]
        .replace("listen 443", f"listen 127.0.0.1:{public}")
        .replace("127.0.0.1:8000", f"127.0.0.1:{classroom.port}")
    )
    text = text.replace("/etc/ssl/class/fullchain.pem", "/root/pebble/own.pem")
    text = text.replace("/etc/ssl/class/key.pem", "/root/pebble/own-key.pem").replace("class.example.org", DOMAIN)
    classroom.machine.run(
        ["sh", "-c", "DEBIAN_FRONTEND=noninteractive apt-get -qy --no-install-recommends install nginx-light; "
         "rm -f /etc/nginx/sites-enabled/default"], check=False, timeout=300,
    )  # fmt: skip
    classroom.machine.write_text("/etc/nginx/conf.d/class.conf", text)
    classroom.machine.run(["systemctl", "restart", "nginx"])
    address = f"https://{DOMAIN}:{public}"
    classroom.cli("config", "set", "proxy.trusted", "[127.0.0.1]")
    classroom.cli("config", "set", "public_url", address)
    classroom.cli("config", "reload")
    classroom.wait_for_hub()
    try:
        student = person_at(public, "student1")
        login = student.get("/hub/login")
        assert "Secure" in login.headers["Set-Cookie"]
        student.sign_in()
        student.start_server()
        assert student.run("6*7") == "42"
    finally:
        classroom.machine.run(["systemctl", "disable", "--now", "nginx"])
        classroom.cli("config", "unset", "proxy.trusted")
        classroom.cli("config", "unset", "public_url")
        classroom.cli("config", "reload")
        classroom.wait_for_hub()
