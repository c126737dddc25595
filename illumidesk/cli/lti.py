"""`illumidesk lti`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TextIO

import click

from illumidesk.cli.base import Group, clean, confirm_by_typing, json_option, yes_option
from illumidesk.cli.lms import KINDS
from illumidesk.errors import IllumiDeskError

if TYPE_CHECKING:
    from illumidesk.host.hub_client import HubClient, Platform
    from illumidesk.settings import Settings

#: Stands for this machine's address where no setting says it.
_UNKNOWN_HOST = "https://HOST"
_KIND = click.Choice(list(KINDS))
_VERSION = click.Choice(["1.1", "1.3"])


@click.group(cls=Group)
def lti() -> None:
    """Learning management systems that people come from.

    \b
    illumidesk lti urls moodle
    illumidesk lti platform add Moodle --lti 1.3 --lms moodle \\
      --url https://moodle.example.edu --client-id ID --deployment 1
    """


@lti.command("urls")
@click.argument("kind", metavar="[LMS]", required=False, type=_KIND)
@click.option("--lti", "version", type=_VERSION, help="Only this version of LTI.")
@json_option
def urls(kind: str | None, version: str | None, as_json: bool) -> None:
    """Print what to paste into an LMS.

    LMS: canvas, moodle, open-edx, blackboard, brightspace, sakai; all of them where it is absent.
    """
    from illumidesk.cli.lms import to_paste
    from illumidesk.cli.output import print_json

    base = _settings().public_address()
    kinds = [kind] if kind else list(KINDS)
    versions = [version] if version else ["1.1", "1.3"]
    if as_json:
        print_json(
            {one: {each: dict(to_paste(one, each, base or _UNKNOWN_HOST)) for each in versions} for one in kinds}
        )
        return
    for number, one in enumerate(kinds):
        for each in versions:
            if number or each != versions[0]:
                click.echo()
            click.echo(f"{KINDS[one].title}, LTI {each}")
            _print_pasting(one, each, base or _UNKNOWN_HOST)
    _warn_about_address(base)


@lti.command("invite")
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--days", type=click.IntRange(1, 90), default=7, show_default=True, help="How long it is good.")
@click.option("--revoke", type=int, metavar="NUMBER", help="Take an invitation back instead.")
@json_option
def invite(name: str | None, days: int, revoke: int | None, as_json: bool) -> None:
    """Let an LMS register itself: print an address to paste into it.

    NAME is what you call the LMS. The address is good once. Moodle, Canvas, Brightspace and Sakai take it (LTI
    Dynamic Registration).
    """
    from illumidesk.cli.output import print_json
    from illumidesk.host.hub_client import HubClient

    hub = HubClient.of_this_machine()
    if revoke is not None:
        hub.revoke_invite(revoke)
        click.echo(f"Invitation {revoke} is good no more")
        return
    if not name:
        raise click.UsageError("Missing argument 'NAME'.")
    base = _settings().public_address()
    if not base:
        raise IllumiDeskError(
            "the address that people type is not known yet", hint="illumidesk config set public_url https://…"
        )
    made, token = hub.invite(name, days)
    url = f"{base}/hub/lti13/register?invite={token}"
    if as_json:
        print_json({**made, "url": url})
        return
    click.echo(
        f"Paste this into the LMS as the tool's registration URL. It is good once, until {made['expires'][:10]}:"
    )
    click.echo(url)


@lti.command("invites")
@json_option
def invites(as_json: bool) -> None:
    """List the invitations that are still good."""
    from illumidesk.cli.output import print_json, print_table
    from illumidesk.host.hub_client import HubClient

    listed = HubClient.of_this_machine().invites()
    if as_json:
        print_json(listed)
    elif not listed:
        click.echo("There are no invitations. Next: illumidesk lti invite NAME", err=True)
    else:
        print_table(
            ["Number", "Name", "Made", "Good until"],
            [(one["id"], one["name"], one["created"], one["expires"]) for one in listed],
            right=["Number"],
        )


@lti.command("keys")
@click.option("--rotate", is_flag=True, help="Make a new key, which signs from now on.")
@json_option
def keys(rotate: bool, as_json: bool) -> None:
    """List this tool's own keys, which LMSs fetch by themselves.

    A key that has been rotated away is still shown to LMSs for a week.
    """
    from illumidesk.cli.output import print_json, print_table
    from illumidesk.host.hub_client import HubClient

    hub = HubClient.of_this_machine()
    if rotate:
        hub.rotate_tool_key()
    listed = hub.tool_keys()
    if as_json:
        print_json(listed)
    else:
        rows = [(one["kid"], one["created"], "signs" if not number else "") for number, one in enumerate(listed)]
        print_table(["Key", "Made", ""], rows)


@lti.group("platform", cls=Group)
def platform() -> None:
    """Platforms: add, list, show, remove, test.

    A platform is one LMS with one version of LTI. Any number may be there.
    """


@platform.command("add")
@click.argument("name")
@click.option("--lti", "version", type=_VERSION, required=True, help="The version of LTI.")
@click.option("--lms", "kind", type=_KIND, help="Its kind: fills in addresses that are known.")
@click.option("--url", default="", help="Its own address, for --lms to fill in the rest.")
@click.option("--key", default="", help="1.1: the consumer key; made where absent.")
@click.option(
    "--secret-file",
    type=click.File("r", encoding="utf-8"),
    metavar="FILE",
    help="1.1: the shared secret is in FILE (- is standard input).",
)
@click.option("--ask-secret", is_flag=True, help="1.1: ask for the shared secret.")
@click.option("--client-id", default="", help="1.3: what the LMS calls this tool.")
@click.option("--deployment", "deployments", multiple=True, metavar="ID", help="1.3: may be repeated; '*' is any.")
@click.option("--issuer", default="", metavar="URL", help="1.3: issuer, letter by letter.")
@click.option("--auth-url", default="", metavar="URL", help="1.3: authentication request URL.")
@click.option("--jwks-url", default="", metavar="URL", help="1.3: public key set URL.")
@click.option("--token-url", default="", metavar="URL", help="1.3: access token URL.")
@click.option("--token-audience", default="", metavar="URI", help="1.3: audience of tokens, if not their URL.")
@click.option("--replace", is_flag=True, help="Change a platform, or bring one back with its people.")
@json_option
def add(
    name: str,
    version: str,
    kind: str | None,
    url: str,
    secret_file: TextIO | None,
    ask_secret: bool,
    deployments: tuple[str, ...],
    replace: bool,
    as_json: bool,
    **given: str,
) -> None:
    """Add a platform, and print what to paste into the LMS.

    NAME is yours to choose. For 1.1, key and secret are made where you give none; a secret is shown once. It is
    never an option, since every account of this machine can read the commands that run.
    """
    from illumidesk.cli.lms import own_addresses
    from illumidesk.cli.output import print_json
    from illumidesk.host.hub_client import HubClient

    if url and not kind:
        raise click.UsageError("--url goes with --lms")
    of_11 = {"--key": given["key"], "--secret-file": secret_file, "--ask-secret": ask_secret}
    of_13 = {f"--{option.replace('_', '-')}": value for option, value in given.items() if option != "key"}
    of_13["--deployment"] = "".join(deployments)
    wrong = [option for option, value in (of_13 if version == "1.1" else of_11).items() if value]
    if wrong:
        raise click.UsageError(f"LTI {version} has no {wrong[0]}")
    if secret_file is not None and ask_secret:
        raise click.UsageError("Give --secret-file or --ask-secret, and not both")
    fields = {option: value for option, value in given.items() if value}
    if version == "1.3":
        filled = own_addresses(kind, url, given["client_id"]) if kind else {}
        fields = filled | fields
        _check_13(fields, deployments, kind, url)
    body: dict[str, Any] = {"name": name, "version": version, **fields}
    if deployments:
        body["deployments"] = list(deployments)
    if replace:
        if version == "1.1" and not given["key"]:
            raise click.UsageError("--replace needs the --key of the platform")
        body["replace"] = True
    hub = HubClient.of_this_machine()
    if secret_file is not None or ask_secret:
        body["secret"] = _secret(secret_file)
    one, new = hub.add_platform(body)
    if as_json:
        print_json(one)
        return
    click.echo(clean(f"The platform {one['name']} {'is added' if new else 'is changed'}, with number {one['id']}"))
    _print_what_to_paste(one, kind)


@platform.command("list")
@json_option
def list_platforms(as_json: bool) -> None:
    """List the platforms."""
    from illumidesk.cli.output import print_json, print_table
    from illumidesk.host.hub_client import HubClient

    platforms = HubClient.of_this_machine().platforms()
    if as_json:
        print_json(platforms)
    elif not platforms:
        click.echo("There are no platforms yet. Next: illumidesk lti urls", err=True)
    else:
        print_table(
            ["Number", "Name", "LTI", "Key or issuer", "People", "Courses"],
            [
                (one["id"], one["name"], one["version"], one["key"] or one["issuer"], one["people"], one["courses"])
                for one in platforms
            ],
            right=["Number", "People", "Courses"],
        )


@platform.command("show")
@click.argument("which", metavar="PLATFORM")
@click.option("--lms", "kind", type=_KIND, help="What to paste, in the words of this LMS.")
@json_option
def show(which: str, kind: str | None, as_json: bool) -> None:
    """Show a platform and what to paste into the LMS.

    PLATFORM is its name or number. A secret is never shown again.
    """
    from illumidesk.cli.output import print_json, print_pairs
    from illumidesk.host.hub_client import HubClient

    one = _find(HubClient.of_this_machine(), which)
    if as_json:
        print_json(one)
        return
    own = (
        [("Consumer key", one["key"])]
        if one["version"] == "1.1"
        else [
            ("Issuer", one["issuer"]),
            ("Client id", one["client_id"]),
            ("Deployments", ", ".join(one["deployments"])),
            ("Authentication", one["auth_url"]),
            ("Key set", one["jwks_url"]),
            ("Token", one["token_url"] or None),
            *([("Token audience", one["token_audience"])] if one.get("token_audience") else []),
        ]
    )
    print_pairs(
        [
            ("Platform", one["name"]),
            ("Number", one["id"]),
            ("LTI", one["version"]),
            *own,
            ("Added", one["created"]),
            ("People", one["people"]),
            ("Courses", one["courses"]),
        ]
    )
    _print_what_to_paste(one, kind)


@platform.command("remove")
@click.argument("which", metavar="PLATFORM")
@yes_option
def remove(which: str, yes: bool) -> None:
    """Let nobody come in from a platform any more.

    PLATFORM is its name or number. Its people and courses stay, and are there again where the same platform is
    added with --replace.
    """
    from illumidesk.host.hub_client import HubClient

    hub = HubClient.of_this_machine()
    one = _find(hub, which)
    if not yes:
        click.echo(
            clean(f"{one['people']} people of {one['courses']} courses come in from {one['name']}, and can no more."),
            err=True,
        )
        confirm_by_typing(one["name"], what="remove it")
    hub.remove_platform(one["id"])
    click.echo(clean(f"The platform {one['name']} is removed; its people and courses stay"))


@platform.command("test")
@click.argument("which", metavar="PLATFORM")
@json_option
def test(which: str, as_json: bool) -> None:
    """Check what can be checked from here before somebody launches.

    PLATFORM is its name or number. It fetches the public keys of an LTI 1.3 platform, and compares clocks.
    """
    from illumidesk.cli.lti_checks import checks
    from illumidesk.cli.output import print_json
    from illumidesk.host.hub_client import HubClient

    hub = HubClient.of_this_machine()
    one = _find(hub, which)
    results = checks(one, _settings(), [key["kid"] for key in hub.tool_keys()])
    if as_json:
        print_json([{"check": name, "ok": not problem, "problem": problem} for name, problem in results])
    else:
        for name, problem in results:
            click.echo(clean(f"{'FAILED' if problem else 'ok':<8}{name}{': ' if problem else ''}{problem}"))
    failed = sum(bool(problem) for _, problem in results)
    if failed:
        raise IllumiDeskError(f"{failed} of {len(results)} checks failed")


def _check_13(fields: dict[str, str], deployments: tuple[str, ...], kind: str | None, url: str) -> None:
    missing = [
        f"--{field.replace('_', '-')}"
        for field in ("client_id", "issuer", "auth_url", "jwks_url")
        if not fields.get(field)
    ]
    missing += [] if deployments else ["--deployment"]
    if missing:
        hint = "" if kind and url else " (--lms and --url fill in addresses)"
        raise click.UsageError(f"LTI 1.3 needs {', '.join(missing)}{hint}")


def _secret(file: TextIO | None) -> str:
    if file is not None:
        secret = file.read(4096).strip()
    else:
        secret = str(click.prompt("Shared secret", hide_input=True, err=True)).strip()
    if not secret:
        raise IllumiDeskError("no secret was given", hint="without the option one is made")
    return secret


def _find(hub: HubClient, which: str) -> Platform:
    if which.isascii() and which.isdigit():
        return hub.platform(int(which))
    import difflib

    platforms = hub.platforms()
    for one in platforms:
        if one["name"].lower() == which.lower():
            return one
    near = difflib.get_close_matches(which, [one["name"] for one in platforms], n=1)
    hint = f"did you mean {near[0]}?" if near else "`illumidesk lti platform list` shows the platforms"
    raise IllumiDeskError(f"there is no platform {which}", hint=hint, status=404)


def _settings() -> Settings:
    from illumidesk.host import settings_file
    from illumidesk.paths import Paths

    return settings_file.load(Paths.current().config_file)


def _print_what_to_paste(one: Platform, kind: str | None) -> None:
    from illumidesk.cli.output import print_pairs

    base = _settings().public_address()
    click.echo("\nPaste into the LMS:")
    if one["version"] == "1.1":
        secret = one.get("secret")
        print_pairs(
            [
                ("  Consumer key", one["key"]),
                ("  Shared secret", f"{secret} (is not shown again)" if secret else "as it was given"),
            ]
        )
    kinds = [kind] if kind else list(KINDS)
    for number, each in enumerate(kinds):
        if len(kinds) > 1:
            click.echo(f"{chr(10) if number else ''}{KINDS[each].title}")
        _print_pasting(each, one["version"], base or _UNKNOWN_HOST)
    _warn_about_address(base)


def _print_pasting(kind: str, version: str, base: str) -> None:
    from illumidesk.cli.lms import to_paste
    from illumidesk.cli.output import print_pairs

    print_pairs([(f"  {word}", value) for word, value in to_paste(kind, version, base)])


def _warn_about_address(base: str) -> None:
    if not base:
        click.echo(
            f"\n{_UNKNOWN_HOST} stands for the address that people type. Set it:\n"
            "  illumidesk config set public_url https://…",
            err=True,
        )
    elif not base.startswith("https:"):
        click.echo("\nLMSs launch only to https; see docs/lti for a web server in front", err=True)
