"""What stretches a machine's memory: compressed swap in it (zram), and equal pages joined (KSM).

Compressed swap is for machines that have no swap: idle servers then need less than half of their memory. systemd's
zram-generator does the work at each boot: https://github.com/systemd/zram-generator

KSM is for forked servers alone, and only where the settings ask for it: docs/security.md names its price.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from illumidesk.host import apt
from illumidesk.host.conffiles import write_file
from illumidesk.host.steps import Progress, StepError
from illumidesk.paths import Paths

_PACKAGE = "systemd-zram-generator"
_DEVICE = "zram0"
_SWAP = f"dev-{_DEVICE}.swap"
_HEAD = "# Written by IllumiDesk as `machine` in /etc/illumidesk/config.yaml has it; change it there.\n"
_CONFIG = f"""\
{_HEAD}[{_DEVICE}]
zram-size = min(ram / 2, 8192)
compression-algorithm = zstd
swap-priority = 100
"""
_KSM = "/sys/kernel/mm/ksm"
#: The first systemd with MemoryKSM=; see systemd.exec(5).
_KSM_SYSTEMD = 254
_KSM_DROP_IN = f"{_HEAD}[Service]\nMemoryKSM=yes\n"


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


def ensure_ksm(wanted: bool, paths: Paths, progress: Progress) -> bool:
    """Have the kernel join equal pages of forked servers, or no longer. Servers that run stay as they began.

    Returns:
        Whether it does from now on.
    """
    rule, drop_in = _ksm_files(paths)
    if not wanted:
        remove_ksm(paths, progress)
        return False
    reason = why_no_ksm(paths, progress)
    if reason:
        progress.note(f"machine.ksm has no effect: {reason}")
        return False
    changed = write_file(drop_in, _KSM_DROP_IN.encode())
    changed |= write_file(rule, f"{_HEAD}w {_KSM}/run - - - - 1\n".encode())
    if changed:
        progress.run(["systemd-tmpfiles", "--create", rule], check=False)
        _restart_fork_servers(progress)
    return True


def remove_ksm(paths: Paths, progress: Progress) -> None:
    """Undo `ensure_ksm`; what was joined is taken apart."""
    rule, drop_in = _ksm_files(paths)
    if not rule.exists() and not drop_in.exists():
        return
    rule.unlink(missing_ok=True)
    drop_in.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        drop_in.parent.rmdir()
    # 2: stop, and give each page back to whom it is.
    with contextlib.suppress(OSError):
        (paths.root / _KSM.lstrip("/") / "run").write_text("2")
    _restart_fork_servers(progress)


def why_no_ksm(paths: Paths, progress: Progress) -> str:
    """Why this machine cannot join pages; empty where it can."""
    switch = paths.root / _KSM.lstrip("/") / "run"
    if not switch.exists():
        return "this kernel has no KSM"
    if not os.access(switch, os.W_OK):
        return "this machine is a container, whose host has the say"
    said = progress.run(["systemctl", "--version"], check=False).split()
    version = said[1] if len(said) > 1 else ""
    if not version.isdigit() or int(version) < _KSM_SYSTEMD:
        return f"it needs systemd {_KSM_SYSTEMD}, and here is {version or 'none'}"
    return ""


def _ksm_files(paths: Paths) -> tuple[Path, Path]:
    units = paths.root / "etc/systemd/system"
    return paths.root / "etc/tmpfiles.d/illumidesk-ksm.conf", units / "illumidesk-forkserver@.service.d/50-ksm.conf"


def _restart_fork_servers(progress: Progress) -> None:
    progress.run(["systemctl", "daemon-reload"], check=False)
    # Their forks are in units of their own and go on.
    progress.run(["systemctl", "try-restart", "illumidesk-forkserver@*.service"], check=False)


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
