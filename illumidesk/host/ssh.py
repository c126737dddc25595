"""Keeping people's accounts out of SSH, where neither sandbox nor limits would hold."""

from __future__ import annotations

from pathlib import Path

from illumidesk.host.conffiles import ensure_conffile, remove_conffile
from illumidesk.host.steps import Progress
from illumidesk.paths import Paths, data


def rule_file(paths: Paths) -> Path:
    """Debian's sshd reads this folder first, and the first word counts (sshd_config(5))."""
    return paths.root / "etc/ssh/sshd_config.d/50-illumidesk.conf"


def ensure_ssh_rule(paths: Paths, progress: Progress) -> None:
    """Refuse people and graders in sshd; also where it is not installed yet."""
    outcome = ensure_conffile(data("config", "ssh", "50-illumidesk.conf"), rule_file(paths), paths=paths)
    if outcome == "written":
        _reload(paths, progress)
    elif outcome in ("kept", "beside"):
        progress.note(f"{rule_file(paths)} was changed on this machine and stays; see that it keeps people out of SSH")


def remove_ssh_rule(paths: Paths, progress: Progress) -> None:
    """Take the rule away."""
    if rule_file(paths).exists():
        remove_conffile(rule_file(paths), paths=paths)
        _reload(paths, progress)


def _reload(paths: Paths, progress: Progress) -> None:
    if (paths.root / "run/systemd/system").is_dir():
        progress.run(["systemctl", "try-reload-or-restart", "ssh.service"], check=False)
