"""`illumidesk https`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from illumidesk.cli.base import Group, clean, json_option, require_root


@click.group(cls=Group)
def https() -> None:
    """HTTPS: by Let's Encrypt, with a certificate of your own, off.

    Behind a reverse proxy that speaks HTTPS itself, set proxy.trusted and public_url instead.
    """


@https.command("letsencrypt")
@click.argument("domain")
@click.option("--email", required=True, metavar="ADDRESS", help="Where the certificate authority writes to.")
@click.option("--agree-tos", is_flag=True, help="Agree to the certificate authority's terms without being asked.")
@click.option("--staging", is_flag=True, help="Let's Encrypt's staging server, to try: browsers do not trust it.")
@click.option("--server", default="", metavar="URL", help="Another certificate authority's ACME directory.")
@click.option(
    "--challenge-port",
    type=click.IntRange(1, 65535),
    default=80,
    show_default=True,
    metavar="PORT",
    help="The port on which it asks; other than 80 with a private one only.",
)
@click.option("--no-preflight", is_flag=True, help="Do not look first whether DOMAIN leads here.")
def letsencrypt(
    domain: str, email: str, agree_tos: bool, staging: bool, server: str, challenge_port: int, no_preflight: bool
) -> None:
    """Get a certificate for DOMAIN, have it renewed, and switch HTTPS on.

    certbot gets and renews it; it is installed where it is missing. DOMAIN must lead to this machine, and port
    80 must be open to the world. May be run again.
    """
    from illumidesk.errors import IllumiDeskError
    from illumidesk.host import https as host
    from illumidesk.host.preflight import check_domain
    from illumidesk.host.steps import Progress
    from illumidesk.paths import Paths

    require_root()
    if staging and server:
        raise click.UsageError("--staging and --server exclude each other")
    domain = check_domain(domain)
    if not agree_tos:
        _ask_for_agreement(server)
    request = host.Request(
        domain=domain,
        email=email,
        server=server or (host.STAGING if staging else host.LETSENCRYPT),
        port=challenge_port,
        preflight=not no_preflight,
    )
    if "@" not in email.strip("@") or any(char.isspace() for char in email):
        raise IllumiDeskError(f"{email!r} is not an e-mail address", hint="it is where warnings about the domain go")
    found = host.letsencrypt(request, Paths.current(), Progress())
    _say_done(found, "certbot renews it")


@https.command("certificate")
@click.option(
    "--cert",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Certificates in PEM form, this server's first.",
)
@click.option(
    "--key", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Its key in PEM form."
)
@click.option("--domain", default="", metavar="NAME", help="The name that people type; the certificate's first else.")
def certificate(cert: Path, key: Path, domain: str) -> None:
    """Use a certificate of your own, and switch HTTPS on.

    Both files are copied. Run it again with the next certificate: the proxy takes it over without dropping a
    connection.
    """
    from illumidesk.errors import IllumiDeskError
    from illumidesk.host import https as host
    from illumidesk.host.steps import Progress
    from illumidesk.paths import Paths
    from illumidesk.settings import check_host

    require_root()
    try:
        domain = check_host(domain)
    except ValueError as error:
        raise IllumiDeskError(f"{domain!r} is not a name", hint=str(error)) from None
    found = host.own_certificate(cert.read_bytes(), key.read_bytes(), domain, Paths.current(), Progress())
    _say_done(found, "renew it yourself in time")
    if found.chain == 1 and not found.self_signed:
        click.echo(
            f"Note: {cert} holds no intermediate certificate. Most browsers and every LMS want the one of "
            f"{clean(found.issuer)} behind it."
        )


@https.command("off")
def off() -> None:
    """Go back to plain HTTP. The certificate stays."""
    from illumidesk.host import https as host
    from illumidesk.host.steps import Progress
    from illumidesk.paths import Paths

    require_root()
    if not host.off(Paths.current(), Progress()):
        click.echo("HTTPS was off")
        return
    click.echo("HTTPS is off. Browsers that were here insist on it until https.hsts has passed.")


@https.command("status")
@json_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show the address, the certificate, who renews it, and what is wrong.

    Exit status 3 says that something is wrong.
    """
    from illumidesk.cli.output import print_json, print_pairs
    from illumidesk.host import https as host
    from illumidesk.host.steps import Progress
    from illumidesk.paths import Paths

    require_root()
    report = host.status(Paths.current(), Progress())
    if as_json:
        print_json(report)
    else:
        print_pairs(_pairs(report))
        for problem in report["problems"]:
            click.echo(f"Problem: {clean(problem)}")
    if report["problems"]:
        ctx.exit(3)


@https.command("renewed", hidden=True)  # certbot's, not a person's
def renewed() -> None:
    """Take over a certificate that certbot has renewed: its hook calls this, with RENEWED_LINEAGE."""
    from illumidesk.host import https as host
    from illumidesk.host.steps import Progress
    from illumidesk.paths import Paths

    require_root()
    paths = Paths.current()
    lineage = Path(os.environ.get("RENEWED_LINEAGE") or paths.certbot / "live" / host.LINEAGE)
    click.echo(f"IllumiDesk: {host.renewed(lineage, paths, Progress())}")


def _ask_for_agreement(server: str) -> None:
    import sys

    from illumidesk.cli.base import confirm_by_typing
    from illumidesk.errors import IllumiDeskError

    whose = f"of {server}" if server else "at https://letsencrypt.org/repository"
    if not sys.stdin.isatty():
        raise IllumiDeskError(f"somebody has to agree to the terms {whose}", hint="read them, and add --agree-tos")
    confirm_by_typing("agree", what=f"agree to the terms {whose}")


def _say_done(found: Any, renewal: str) -> None:
    from illumidesk.paths import Paths
    from illumidesk.settings import load

    address = load(Paths.current().config_file).public_address()
    click.echo(f"HTTPS is on: {address}")
    click.echo(clean(f"The certificate of {found.issuer} is good until {found.not_after:%Y-%m-%d}; {renewal}."))


def _pairs(report: dict[str, Any]) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = [
        ("HTTPS", "on" if report["enabled"] else "off"),
        ("Address", report["address"] or "not said in the settings"),
    ]
    if report["enabled"]:
        pairs.append(("Ports", f"{report['port']}; {report['redirects_from']} redirects"))
    if report["trusted_proxies"]:
        pairs.append(("Reverse proxies", ", ".join(report["trusted_proxies"])))
    certificate, renewal = report["certificate"], report["renewal"]
    if certificate:
        pairs += [
            ("Certificate for", ", ".join(certificate["names"])),
            ("Issuer", certificate["issuer"]),
            ("Good until", f"{certificate['not_after'][:10]} ({certificate['days_left']} days left)"),
        ]
        by = renewal["by"]
        pairs.append(("Renewed by", by if by == "you" else f"certbot, next looks {renewal['next'] or 'never'}"))
    return pairs
