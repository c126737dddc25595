"""What a certificate authority will look at, looked at first: does the domain lead here, and does the port answer."""

from __future__ import annotations

import contextlib
import http.client
import secrets
import socket
from collections.abc import Iterator

from illumidesk.errors import IllumiDeskError
from illumidesk.host import units
from illumidesk.host.certificates import is_address
from illumidesk.paths import Paths
from illumidesk.settings import Settings, check_host

#: Seconds that an address has to answer.
_TIMEOUT = 10.0
#: Below a web root (RFC 8555, 8.3).
CHALLENGE_PATH = ".well-known/acme-challenge"


def check_domain(domain: str) -> str:
    """`domain`, where a certificate authority of the public may sign it.

    Raises:
        IllumiDeskError: where it may not.
    """
    try:
        name = check_host(domain)
    except ValueError as error:
        raise IllumiDeskError(f"{domain!r} is not a domain", hint=str(error)) from None
    if is_address(name) or "." not in name:
        raise IllumiDeskError(f"{domain!r} is not a domain", hint="give a whole name such as class.example.org")
    return name


def addresses_of(domain: str) -> list[str]:
    """The addresses to which DNS leads `domain`.

    Raises:
        IllumiDeskError: where it leads nowhere.
    """
    try:
        found = socket.getaddrinfo(domain, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise IllumiDeskError(
                f"the name server does not answer, so nothing is known of {domain}",
                hint="see /etc/resolv.conf, and try again",
            ) from None
        raise IllumiDeskError(
            f"DNS knows no address of {domain}",
            hint="make an A record (for IPv6 an AAAA record) of this machine's public address, and wait until it is "
            "known everywhere",
        ) from None
    return list(dict.fromkeys(str(address[4][0]) for address in found))


def check_challenge(domain: str, port: int, current: Settings, paths: Paths) -> None:
    """See that http://DOMAIN:PORT/ reaches our proxy, at each address that the domain has.

    Args:
        domain: the name.
        port: on which the certificate authority asks; 80 but for private ones.
        current: the settings: on which port the proxy answers.
        paths: the layout.

    Raises:
        IllumiDeskError: for the first address that does not, with what to do.
    """
    addresses = addresses_of(domain)
    with _probe(paths) as (name, content):
        for address in addresses:
            problem = _ask(domain, address, port, name, content)
            if problem:
                raise _explained(problem, domain, address, port, current)


@contextlib.contextmanager
def _probe(paths: Paths) -> Iterator[tuple[str, bytes]]:
    """A file where challenges are answered from: its name and content."""
    folder = paths.challenges / CHALLENGE_PATH
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    for part in (paths.challenges, folder.parent, folder):
        part.chmod(0o755)
    file = folder / f"illumidesk-{secrets.token_hex(8)}"
    content = secrets.token_hex(16).encode()
    file.write_bytes(content)
    file.chmod(0o644)
    try:
        yield file.name, content
    finally:
        file.unlink(missing_ok=True)


def _ask(domain: str, address: str, port: int, name: str, content: bytes) -> str:
    """What is wrong with the answer to a challenge, in a few words; nothing where it is ours."""
    connection = http.client.HTTPConnection(address, port, timeout=_TIMEOUT)
    try:
        connection.request("GET", f"/{CHALLENGE_PATH}/{name}", headers={"Host": domain})
        response = connection.getresponse()
        if response.status == 200 and response.read(len(content) + 1) == content:
            return ""
    except TimeoutError:
        return f"does not answer within {_TIMEOUT:.0f} seconds"
    except ConnectionRefusedError:
        return "refuses connections"
    except (OSError, http.client.HTTPException) as error:
        return f"does not answer ({getattr(error, 'strerror', None) or error or type(error).__name__})"
    finally:
        connection.close()
    server = response.getheader("Server") or f"status {response.status}"
    return f"is answered by something else ({server})"


def _explained(problem: str, domain: str, address: str, port: int, current: Settings) -> IllumiDeskError:
    where = f"{domain} leads to {address}, whose port {port} {problem}"
    if not _is_ours(address):
        return IllumiDeskError(
            where,
            hint=f"let DNS lead {domain} to this machine; where that is right, open or forward port {port} in the "
            "firewall or router",
        )
    own = current.proxy.http_port
    if own != port:
        return IllumiDeskError(
            where,
            hint=f"the certificate authority asks on port {port} and IllumiDesk listens on {own}: "
            f"illumidesk config set proxy.http_port {port}",
        )
    if "something else" in problem:
        return IllumiDeskError(f"{where}{units.listener(port)}", hint=f"ss -ltnp 'sport = :{port}' shows what it is")
    return IllumiDeskError(
        where, hint="see `illumidesk status`, and proxy.bind in the settings, which should be empty for this"
    )


def _is_ours(address: str) -> bool:
    """Whether this machine has that address: nothing else can be bound to."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
