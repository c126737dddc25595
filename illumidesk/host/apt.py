"""Packages of the distribution, for what is installed on demand."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from illumidesk.host.steps import Progress

_APT = ("apt-get", "-o", "DPkg::Lock::Timeout=300", "-y", "--no-install-recommends")


def install(packages: Sequence[str], progress: Progress) -> None:
    """Install packages, and what they depend on; nothing where they are there.

    Raises:
        StepError: where they cannot be had.
    """
    if all(is_installed(package) for package in packages):
        return
    progress.run([*_APT, "update"], what="apt-get update", env=_environment())
    progress.run([*_APT, "install", *packages], what=f"installing {', '.join(packages)}", env=_environment())


def remove(packages: Sequence[str], progress: Progress) -> None:
    """Remove packages; what they depended on stays, until `apt-get autoremove`.

    Raises:
        StepError: where apt refuses.
    """
    progress.run([*_APT, "remove", *packages], what=f"removing {', '.join(packages)}", env=_environment())


def purge(packages: Sequence[str], progress: Progress) -> None:
    """Remove packages with their configuration; nothing where they are not there.

    Raises:
        StepError: where apt refuses.
    """
    present = [package for package in packages if is_installed(package)]
    if present:
        progress.run([*_APT, "purge", *present], what=f"removing {', '.join(present)}", env=_environment())


def is_installed(package: str) -> bool:
    """Whether the package is there, whole."""
    # ${db:Status-Status} is `installed`, or `config-files` for one that was removed: dpkg-query(1).
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status}", package]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout == "installed"


def _environment() -> dict[str, str]:
    # NEEDRESTART_SUSPEND: Ubuntu's needrestart would restart services, and ask.
    return {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1"}
