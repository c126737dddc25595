"""HTTPS at the proxy: by Let's Encrypt or with a certificate of one's own, on and off, and how it stands."""

from __future__ import annotations

import hashlib
import re
import shutil
import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from illumidesk.errors import IllumiDeskError
from illumidesk.host import apt, certificates, settings_file, units
from illumidesk.host.certificates import Certificate, Source
from illumidesk.host.conffiles import write_file
from illumidesk.host.environments import lock
from illumidesk.host.install import apply_settings
from illumidesk.host.preflight import check_challenge
from illumidesk.host.steps import Progress, StepError
from illumidesk.paths import Paths
from illumidesk.settings import Settings, load

#: certbot's name for our certificate, whatever domain it is for.
LINEAGE = "illumidesk"
LETSENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"
#: The package's own, and the snap's.
_TIMERS = ("certbot.timer", "snap.certbot.renew.timer")
#: Seconds within which the proxy must show a certificate that it was given.
_TAKEN_OVER = 20.0

_HOOK = """#!/bin/sh
# Written by `illumidesk https letsencrypt`. certbot runs it after each renewal; it gives the new certificate to
# IllumiDesk's proxy, which takes it over without dropping a connection.
exec /opt/illumidesk/hub/bin/illumidesk https renewed
"""


@dataclass(frozen=True)
class Request:
    """A certificate to ask for.

    Args:
        domain: the name, checked.
        email: where the certificate authority writes to.
        server: its ACME directory.
        port: on which it asks; 80 but for private ones.
        preflight: whether to see first that it will reach us.
    """

    domain: str
    email: str
    server: str = LETSENCRYPT
    port: int = 80
    preflight: bool = True


def letsencrypt(request: Request, paths: Paths, progress: Progress) -> Certificate:
    """Get a certificate by ACME, have certbot renew it, and switch HTTPS on. May be run again after any end.

    Args:
        request: what is asked for.
        paths: the layout.
        progress: shows the steps.

    Raises:
        IllumiDeskError: for what is in the way, before anything is changed where it can be seen before.
    """
    current = load(paths.config_file)
    units.check_port(_switched(current, request.domain), paths)
    if request.preflight:
        with progress.step(f"Looking whether {request.domain} leads here"):
            check_challenge(request.domain, request.port, current, paths)
    if not _certbot():
        with progress.step("Installing certbot"):
            apt.install(["certbot"], progress)
    with progress.step(f"Getting a certificate for {request.domain}"):
        _ask_certbot(request, paths, progress)
        write_file(_hook(paths), _HOOK.encode(), mode=0o755)
        for timer in _TIMERS:
            progress.run(["systemctl", "enable", "--now", timer], check=False)
    folder = paths.certbot / "live" / LINEAGE
    chain, key = (folder / "fullchain.pem").read_bytes(), (folder / "privkey.pem").read_bytes()
    return _switch_on(chain, key, request.domain, "letsencrypt", paths, progress)


def own_certificate(chain: bytes, key: bytes, domain: str, paths: Paths, progress: Progress) -> Certificate:
    """Switch HTTPS on with a certificate of one's own, or replace the one in use.

    Args:
        chain: certificates as PEM, the server's own first.
        key: the key as PEM.
        domain: the name that people type; empty for the one in the settings, else the certificate's first.
        paths: the layout.
        progress: shows the steps.

    Raises:
        IllumiDeskError: for what is wrong with it; nothing is changed then.
    """
    current = load(paths.config_file)
    found = certificates.check_pair(chain, key, domain, certificates.now())
    if not domain:
        kept = current.https.domain
        domain = kept if kept and found.covers(kept) else certificates.default_domain(found)
    units.check_port(_switched(current, domain), paths)
    return _switch_on(chain, key, domain, "own", paths, progress)


def _switch_on(chain: bytes, key: bytes, domain: str, source: Source, paths: Paths, progress: Progress) -> Certificate:
    found = certificates.check_pair(chain, key, domain, certificates.now())
    with progress.step("Handing the certificate to the proxy"):
        with lock(paths):
            certificates.store(chain, key, source, paths)
        if load(paths.config_file).https.domain != domain:
            settings_file.set_value(paths.config_file, "https.domain", domain)
        restarted = apply_settings(paths, progress)
        if units.PROXY not in restarted:
            _take_over(load(paths.config_file), found, progress)
    return found


def off(paths: Paths, progress: Progress) -> bool:
    """Back to plain HTTP. The certificate stays, so that it can be switched on again.

    Returns:
        Whether it was on.

    Raises:
        IllumiDeskError: where a service does not come up.
    """
    if not load(paths.config_file).https.domain:
        apply_settings(paths, progress)  # what an interrupted run may have left to do
        return False
    with progress.step("Switching HTTPS off"):
        settings_file.unset_value(paths.config_file, "https.domain")
        apply_settings(paths, progress)
    return True


def renewed(lineage: Path, paths: Paths, progress: Progress) -> str:
    """What certbot's hook does: give a renewed certificate to the proxy.

    Args:
        lineage: the folder of the certificate that was renewed.
        paths: the layout.
        progress: for the log.

    Returns:
        What was done, as a sentence.

    Raises:
        IllumiDeskError: where the certificate cannot be used, or the proxy does not take it over.
    """
    if lineage.name != LINEAGE:
        return f"{lineage.name} is not IllumiDesk's"
    before = certificates.stored(paths)
    if before is None or before[1] != "letsencrypt":
        return "IllumiDesk uses another certificate"
    current = load(paths.config_file)
    chain, key = (lineage / "fullchain.pem").read_bytes(), (lineage / "privkey.pem").read_bytes()
    found = certificates.check_pair(chain, key, current.https.domain, certificates.now())
    with lock(paths, wait=True):
        certificates.store(chain, key, "letsencrypt", paths)
    if not current.https.domain:
        return "the certificate is kept for when HTTPS is switched on"
    _take_over(current, found, progress)
    return f"the proxy uses the certificate until {found.not_after:%Y-%m-%d}"


def _take_over(current: Settings, found: Certificate, progress: Progress) -> None:
    """Have the running proxy use the certificate in its folder, and see that it does."""
    if served(current) == found.fingerprint:
        return
    progress.run(["systemctl", "reload", units.PROXY], what="reloading the proxy")
    deadline = time.monotonic() + _TAKEN_OVER
    while served(current) != found.fingerprint:
        if time.monotonic() > deadline:
            raise IllumiDeskError(
                "the proxy does not use the new certificate",
                hint="`illumidesk logs proxy` says why; `systemctl restart illumidesk-proxy` reads it anew",
            )
        time.sleep(0.1)


def served(current: Settings) -> str | None:
    """The fingerprint of the certificate that the proxy shows; nothing where it does not answer."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # which certificate it is, is the question
    try:
        with (
            socket.create_connection((current.proxy.bind or "127.0.0.1", current.https.port), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname=current.https.domain) as connection,
        ):
            shown = connection.getpeercert(binary_form=True)
    except OSError:
        return None
    return hashlib.sha256(shown).hexdigest() if shown else None


def _switched(current: Settings, domain: str) -> Settings:
    return current.model_copy(update={"https": current.https.model_copy(update={"domain": domain})})


# certbot


def _certbot() -> str | None:
    return shutil.which("certbot")


def _hook(paths: Paths) -> Path:
    return paths.certbot / "renewal-hooks/deploy/illumidesk"


def _renewal(paths: Paths) -> Path:
    """What certbot remembers about our certificate."""
    return paths.certbot / "renewal" / f"{LINEAGE}.conf"


def _ask_certbot(request: Request, paths: Paths, progress: Progress) -> None:
    command = ["certbot", "certonly", "--non-interactive", "--agree-tos", "--email", request.email]
    command += ["--webroot", "--webroot-path", str(paths.challenges), "--preferred-challenges", "http"]
    command += ["--cert-name", LINEAGE, "--domain", request.domain, "--renew-with-new-domains"]
    command += ["--server", request.server]
    # By itself certbot keeps a good certificate, and so also one of another authority.
    command.append("--keep-until-expiring" if _last_server(paths) in (None, request.server) else "--force-renewal")
    try:
        progress.run(command, what="certbot")
    except StepError as error:
        raise IllumiDeskError(
            f"there is no certificate: {refusal(error.tail)}",
            hint="the whole log is /var/log/letsencrypt/letsencrypt.log",
        ) from None


def refusal(lines: list[str]) -> str:
    """The line that says why, of the last ones that certbot printed."""
    texts = [line.strip() for line in lines if line.strip()]
    for pattern in (r"Detail: (.+)", r"(.*(?:[Ee]rror|rateLimited|too many|refused).*)"):
        for text in texts:
            match = re.fullmatch(pattern, text)
            if match:
                return match[1].rstrip(". ")
    useful = [text for text in texts if not text.startswith(("Ask for help", "See the logfile", "Hint:"))]
    return useful[-1].rstrip(". ") if useful else "certbot does not say why"


def _last_server(paths: Paths) -> str | None:
    """The certificate authority of the certificate that is there."""
    try:
        found = re.search(r"^server = (\S+)$", _renewal(paths).read_text("utf-8"), re.MULTILINE)
    except FileNotFoundError:
        return None
    return found[1] if found else None


def forget_certbot(paths: Paths, progress: Progress) -> None:
    """Remove our certificate and hook from certbot, whose account, and other certificates, stay."""
    _hook(paths).unlink(missing_ok=True)
    if _renewal(paths).exists() and _certbot():
        progress.run(["certbot", "delete", "--non-interactive", "--cert-name", LINEAGE], check=False)


# How it stands


def status(paths: Paths, progress: Progress) -> dict[str, Any]:
    """Everything that `illumidesk https status` shows, as it is printed with `--json`."""
    current = load(paths.config_file)
    pair = certificates.stored(paths)
    report: dict[str, Any] = {
        "enabled": bool(current.https.domain),
        "address": current.public_address(),
        "domain": current.https.domain,
        "port": current.https.port,
        "redirects_from": current.proxy.http_port if current.https.domain else None,
        "hsts": current.https.hsts,
        "trusted_proxies": list(current.proxy.trusted),
        "certificate": None,
        "renewal": None,
        "problems": [],
    }
    if pair is not None:
        report["certificate"] = _as_dict(*pair)
        report["renewal"] = _renewal_status(pair[1], paths, progress)
    report["problems"] = _problems(current, pair, report["renewal"], paths)
    return report


def _as_dict(found: Certificate, source: Source) -> dict[str, Any]:
    return {
        "source": source,
        "names": list(found.names),
        "issuer": found.issuer,
        "serial": found.serial,
        "not_before": found.not_before.isoformat(),
        "not_after": found.not_after.isoformat(),
        "days_left": found.days_left(certificates.now()),
        "fingerprint": found.fingerprint,
    }


def _renewal_status(source: Source, paths: Paths, progress: Progress) -> dict[str, Any]:
    if source == "own":
        return {"by": "you", "timer": None, "next": None, "server": None}
    for timer in _TIMERS:
        if progress.run(["systemctl", "is-active", timer], check=False).strip() == "active":
            shown = progress.run(["systemctl", "show", "-P", "NextElapseUSecRealtime", timer], check=False).strip()
            return {"by": "certbot", "timer": timer, "next": shown or None, "server": _last_server(paths)}
    return {"by": "certbot", "timer": None, "next": None, "server": _last_server(paths)}


def _problems(
    current: Settings, pair: tuple[Certificate, Source] | None, renewal: dict[str, Any] | None, paths: Paths
) -> list[str]:
    if not current.https.domain:
        return []
    if pair is None:
        return ["there is no certificate"]
    found, source = pair
    left = found.days_left(certificates.now())
    problems = []
    if left < 0:
        problems.append("the certificate has ended")
    elif left < 14:
        problems.append(f"the certificate ends in {left} days")
    if not found.covers(current.https.domain):
        problems.append(f"the certificate is not for {current.https.domain}")
    shown = served(current)
    if shown is None:
        problems.append(f"nobody answers on port {current.https.port}")
    elif shown != found.fingerprint:
        problems.append("the proxy still uses another certificate: sudo systemctl reload illumidesk-proxy")
    if source == "letsencrypt" and not (_renewal(paths).exists() and _hook(paths).exists()):
        problems.append("nobody renews the certificate: run `illumidesk https letsencrypt` again")
    elif renewal and renewal["by"] == "certbot" and renewal["timer"] is None:
        problems.append("certbot's timer does not run: sudo systemctl enable --now certbot.timer")
    return problems
