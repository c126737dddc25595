"""Debian packages that something needs which not every machine has."""

from __future__ import annotations

import os
from collections.abc import Sequence

from illumidesk.host.steps import Progress


def ensure_packages(packages: Sequence[str], progress: Progress, *, what: str = "") -> None:
    """Have Debian packages installed, without what they only recommend.

    Args:
        packages: their names.
        progress: keeps what apt says.
        what: the thing that is installed, for the error; the packages' names where absent.

    Raises:
        StepError: where apt cannot.
    """
    if all(is_installed(package, progress) for package in packages):
        return
    _apt(progress, ["update"], what="apt-get update")
    _apt(
        progress,
        ["-y", "--no-install-recommends", "install", *packages],
        what=f"installing {what or ', '.join(packages)}",
    )


def purge_package(package: str, progress: Progress) -> None:
    """Take away a package that `ensure_packages` brought, with its configuration.

    Raises:
        StepError: where apt cannot.
    """
    if is_installed(package, progress):
        _apt(progress, ["-y", "purge", package], what=f"removing {package}")


def is_installed(package: str, progress: Progress) -> bool:
    """Whether dpkg has a package, configured."""
    said = progress.run(["dpkg-query", "-W", "-f=${db:Status-Status}", package], check=False)
    return said.strip() == "installed"


def _apt(progress: Progress, arguments: Sequence[str], *, what: str) -> None:
    # NEEDRESTART_SUSPEND: Ubuntu's needrestart would restart services, and ask.
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1"}
    # Waits for somebody else's apt, such as unattended-upgrades
    progress.run(["apt-get", "-o", "DPkg::Lock::Timeout=300", *arguments], what=what, env=env)
