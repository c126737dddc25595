"""Compressed swap in memory (zram), where a machine has no swap: idle servers then need less than half of it.

systemd's zram-generator does the work at each boot: https://github.com/systemd/zram-generator
"""

from __future__ import annotations

import os
from pathlib import Path

from illumidesk.host import apt
from illumidesk.host.conffiles import write_file
from illumidesk.host.steps import Progress, StepError
from illumidesk.paths import Paths

_PACKAGE = "systemd-zram-generator"
_DEVICE = "zram0"
_SWAP = f"dev-{_DEVICE}.swap"
_CONFIG = f"""\
# Written by IllumiDesk where `machine.zram` asks for it (/etc/illumidesk/config.yaml); change it there.
[{_DEVICE}]
zram-size = min(ram / 2, 8192)
compression-algorithm = zstd
swap-priority = 100
"""


def ensure_zram(wanted: bool, paths: Paths, progress: Progress) -> bool:
    """Set zram up or, where it is not wanted, take ours away.

    A machine that has swap already, or cannot have any, is left alone; the log says why. Where it cannot be set up for
    another reason, that is a note: a class works without it.

    Returns:
        Whether the machine has our zram now.
    """
    if not wanted:
        remove_zram(paths, progress)
        return False
    config = config_file(paths)
    if not config.exists():
        reason = why_not(paths)
        if reason:
            progress.record(f"no zram: {reason}")
            return False
    try:
        # First, since it says that the package is ours to take away.
        changed = write_file(config, _CONFIG.encode())
        apt.install([_PACKAGE], progress)
        if changed or not _active(paths):
            progress.run(["systemctl", "daemon-reload"])
            progress.run(["systemctl", "restart", _SWAP], what="starting the compressed swap")
    except StepError as error:
        progress.note(f"no compressed swap (machine.zram): {error.message}")
        remove_zram(paths, progress)
        return False
    return True


def remove_zram(paths: Paths, progress: Progress) -> None:
    """Take away what `ensure_zram` set up, the package too: alone it would set up the same at the next boot."""
    config = config_file(paths)
    if not config.exists():
        return
    progress.run(["systemctl", "stop", _SWAP, f"systemd-zram-setup@{_DEVICE}.service"], check=False)
    try:
        apt.purge([_PACKAGE], progress)
    except StepError as error:
        progress.note(f"{_PACKAGE} stays: {error.message}")
    config.unlink()
    progress.run(["systemctl", "daemon-reload"], check=False)


def config_file(paths: Paths) -> Path:
    """What we tell the generator."""
    return paths.root / "etc/systemd/zram-generator.conf.d/50-illumidesk.conf"


def why_not(paths: Paths) -> str:
    """Why a machine that has none of ours gets no zram; empty where nothing speaks against it."""
    swaps = (paths.root / "proc/swaps").read_text().splitlines()[1:]
    if swaps:
        return f"this machine has swap already ({swaps[0].split()[0]})"
    if (paths.root / "run/systemd/container").exists():
        return "this machine is a container, whose host has the say"
    if (paths.root / "etc/systemd/zram-generator.conf").exists():
        return "its zram-generator is configured already"
    if not _has_module(paths):
        return "this kernel has no zram"
    return ""


def _active(paths: Paths) -> bool:
    return any(line.startswith(f"/dev/{_DEVICE} ") for line in (paths.root / "proc/swaps").read_text().splitlines())


def _has_module(paths: Paths) -> bool:
    if (paths.root / "sys/class/zram-control").exists():
        return True
    modules = paths.root / "lib/modules" / os.uname().release
    return any(
        "/zram.ko" in (modules / name).read_text()
        for name in ("modules.dep", "modules.builtin")
        if (modules / name).exists()
    )
