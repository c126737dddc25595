"""Secrets: made on the host, once, for root alone. systemd hands them to the units that need them."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from illumidesk.paths import Paths

_PROXY_TOKEN = "CONFIGPROXY_AUTH_TOKEN"  # noqa: S105 - the name of a variable
_CLI_TOKEN = "ILLUMIDESK_CLI_TOKEN"  # noqa: S105


def ensure_secrets(paths: Paths) -> None:
    """Make what is missing; what is there stays, so that nobody is signed out by an upgrade.

    The hub and the proxy must agree on one token, and the hub and the command line on another: a file that is
    missing is written from what the others say.
    """
    paths.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths.secrets.chmod(0o700)
    hub, proxy = _read_env(paths.hub_env), _read_env(paths.proxy_env)
    cli = paths.cli_token.read_text("ascii").strip() if paths.cli_token.exists() else ""
    proxy_token = hub.get(_PROXY_TOKEN) or proxy.get(_PROXY_TOKEN) or secrets.token_hex(32)
    cli_token = hub.get(_CLI_TOKEN) or cli or secrets.token_hex(32)

    if not {_PROXY_TOKEN, _CLI_TOKEN} <= hub.keys():
        _write(paths.hub_env, _as_env({**hub, _PROXY_TOKEN: proxy_token, _CLI_TOKEN: cli_token}))
    if _PROXY_TOKEN not in proxy:
        _write(paths.proxy_env, _as_env({**proxy, _PROXY_TOKEN: proxy_token}))
    if not cli:
        _write(paths.cli_token, f"{cli_token}\n")
    for file in (paths.hub_env, paths.proxy_env, paths.cli_token):
        file.chmod(0o600)


def _read_env(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    lines = (line.strip() for line in file.read_text("utf-8").splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}


def _as_env(values: dict[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in values.items())


def _write(file: Path, text: str) -> None:
    part = file.with_name(f".{file.name}.new")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    part.replace(file)
