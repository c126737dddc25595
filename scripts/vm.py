#!/usr/bin/env python3
"""A machine of machine.py, booted once more as a whole virtual machine: with a kernel and cgroup v2 of its own.

A container lends the control groups, the kernel and its modules from its host. Limits, compressed swap (zram) and
joined pages (KSM) are as people have them only in a machine that has its own. qemu emulates the processor where there
is no KVM, ten times slower, so install in the container first:

    scripts/machine.py try --name box --port 8090
    scripts/vm.py boot box --port 8090         # stops the container and boots what it holds
    scripts/vm.py run box -- illumidesk doctor
    pytest tests/system/test_both_ways.py --vm box --port 8090
    scripts/vm.py down box                     # the container's files, too

`reboot` is what it says. Commands go in by ssh, at a port of this host's loopback.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine import (
    BOOT_TIMEOUT,
    CommandError,
    Machine,
    MachineError,
    call,
    ensure_host,
    is_alive,
    kill_and_wait,
    port_is_taken,
    read_texts,
    say,
    step,
    write_whole,
)

# Command on the host -> the Debian package that brings it.
TOOLS = {"qemu-system-x86_64": "qemu-system-x86", "mke2fs": "e2fsprogs", "ssh": "openssh-client"}
# What a container does without.
PACKAGES = ("linux-image-cloud-amd64", "initramfs-tools", "zstd", "openssh-server")
SPACE = 3 << 30  # bytes that are free in the guest
SLOWER = 10  # than a container, without KVM

# Addresses from qemu's DHCP; a console for whoever reads the log.
PREPARE = """\
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -qy --no-install-recommends install "$@"
apt-get clean
printf '[Match]\\nName=e*\\n[Network]\\nDHCP=yes\\n' >/etc/systemd/network/80-vm.network
systemctl enable --quiet systemd-networkd ssh
mkdir -p -m 700 /root/.ssh
cat >/root/.ssh/authorized_keys
"""


class VirtualMachine(Machine):
    """A machine that was booted by `boot`. Its `run`, `copy_in` and all the rest work as a container's do."""

    @property
    def _vm(self) -> dict[str, Any]:
        text = "".join(read_texts([self.directory / "vm.json"]))
        if not text:
            raise MachineError(
                f"{self.name} is no virtual machine.", f"Boot it as one: scripts/vm.py boot {self.name} --port PORT"
            )
        return dict(json.loads(text))

    def boot(
        self, ports: Sequence[int], ssh_port: int, memory: int, processors: int, accel: str, disk: Path | None = None
    ) -> None:
        """Stop the container and boot a copy of what it holds.

        Args:
            ports: of the guest, that this host's loopback has, too.
            ssh_port: of this host, to the guest's ssh.
            memory: of the guest, in MiB.
            processors: how many it has.
            accel: qemu's accelerator, `kvm` or `tcg`.
            disk: where its disk is kept, if not with the machine.

        Raises:
            MachineError: where the host lacks a program, or the guest does not come up.
        """
        missing = sorted(package for command, package in TOOLS.items() if shutil.which(command) is None)
        if missing:
            raise MachineError("This host cannot boot it.", f"Install: apt-get install {' '.join(missing)}")
        key = self.directory / "ssh-key"
        key.unlink(missing_ok=True)
        call(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(key)])
        container = Machine.attach(self.name)
        with step("Installing a kernel in the container"):
            public = key.with_suffix(".pub").read_text()
            container.run(["sh", "-c", PREPARE, "sh", *PACKAGES], input=public, timeout=None)
        disk = disk or self.directory / "disk.img"
        with step("Stopping the container and copying what it holds"), self._locked():
            with contextlib.suppress(subprocess.TimeoutExpired, MachineError):
                container._enter(["systemctl", "poweroff"], timeout=30)
            deadline = time.monotonic() + BOOT_TIMEOUT
            while container.is_up and time.monotonic() < deadline:
                time.sleep(0.2)
            container._stop()
            used = int(call(["du", "-sx", "--block-size=1", str(self.root)]).split()[0])
            disk.unlink(missing_ok=True)
            disk.parent.mkdir(parents=True, exist_ok=True)
            call(["mke2fs", "-q", "-t", "ext4", "-d", str(self.root), str(disk), f"{(used * 11 // 10 + SPACE) >> 20}M"])
        # Those of the container's root; its links there point into the host.
        kernel, initrd = (sorted((self.root / "boot").glob(f"{kind}-*"))[-1] for kind in ("vmlinuz", "initrd.img"))
        forward = [f"hostfwd=tcp:127.0.0.1:{port}-:{port}" for port in ports]
        forward.append(f"hostfwd=tcp:127.0.0.1:{ssh_port}-:22")
        qemu = ["nice", "qemu-system-x86_64", "-display", "none", "-daemonize", "-no-user-config"]
        qemu += ["-accel", accel, "-cpu", "max", "-smp", f"{processors}", "-m", f"{memory}"]
        qemu += ["-drive", f"file={disk},format=raw,if=virtio,cache=unsafe"]
        qemu += ["-nic", ",".join(["user", "model=virtio-net-pci", *forward])]
        qemu += ["-kernel", str(kernel), "-initrd", str(initrd), "-append", "root=/dev/vda rw console=ttyS0"]
        qemu += ["-serial", f"file:{self.console_log}", "-pidfile", str(self.directory / "qemu.pid")]
        write_whole(
            self.directory / "vm.json", json.dumps({"qemu": qemu, "ssh_port": ssh_port, "disk": str(disk)}) + "\n"
        )
        self.start()

    def start(self) -> None:
        """Boot it from its disk."""
        self.console_log.unlink(missing_ok=True)
        with step(f"Booting {self.name} as a virtual machine"):
            call(self._vm["qemu"])
            self._wait_until_booted()

    def reboot(self) -> None:
        """Shut it down in order and boot it again."""
        with self._locked():
            self._power_off()
            self.start()

    def _power_off(self) -> None:
        pid = self._init()
        if pid is None:
            return
        with contextlib.suppress(MachineError, subprocess.TimeoutExpired):
            self._enter(["systemctl", "poweroff"], timeout=BOOT_TIMEOUT)
        deadline = time.monotonic() + BOOT_TIMEOUT * SLOWER
        while is_alive(pid) and time.monotonic() < deadline:
            time.sleep(0.5)
        self._stop()

    def _stop(self) -> None:
        """End qemu, if it runs still."""
        pid = self._init()
        if pid is not None:
            kill_and_wait([pid])
        super()._stop()

    def _destroy(self) -> None:
        disk = self._vm["disk"] if (self.directory / "vm.json").exists() else None
        super()._destroy()
        if disk:
            Path(disk).unlink(missing_ok=True)

    def _init(self) -> int | None:
        """The qemu that runs it."""
        text = "".join(read_texts([self.directory / "qemu.pid"])).strip()
        # The number may be another's by now.
        if not text or str(self.directory) not in "".join(read_texts([Path(f"/proc/{text}/cmdline")])):
            return None
        return int(text)

    def _nsenter(self, argv: Sequence[str]) -> list[str]:
        """The command line on this host for one in the guest."""
        env = [f"{name}={value}" for name, value in self._base_env().items()]
        return [*self._ssh(), "--", shlex.join(["env", "-i", "-C", "/", *env, *argv])]

    def _ssh(self) -> list[str]:
        # The key is new with each machine, and one connection serves all commands: to begin one takes seconds here.
        options = [
            "BatchMode=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
            f"IdentityFile={self.directory / 'ssh-key'}",
            f"ControlPath={self.directory / 'ssh-control'}",
            "ConnectTimeout=60",
        ]
        words = [word for option in options for word in ("-o", option)]
        return ["ssh", "-F", "none", *words, "-p", str(self._vm["ssh_port"]), "root@127.0.0.1"]

    def _wait_until_booted(self) -> None:
        deadline = time.monotonic() + BOOT_TIMEOUT * SLOWER
        state = "not started"
        connect = [*self._ssh()[:-1], "-M", "-N", "-f", "root@127.0.0.1"]
        while time.monotonic() < deadline and self._init() is not None:
            time.sleep(1)
            (self.directory / "ssh-control").unlink(missing_ok=True)
            # Not captured: what goes on in the background would hold the pipe.
            null = subprocess.DEVNULL
            if subprocess.run(connect, stdin=null, stdout=null, stderr=null, check=False).returncode == 0:
                state = self._enter(["systemctl", "is-system-running", "--wait"], timeout=None).stdout.strip()
                if state in ("running", "degraded"):
                    return
        tail = "\n  ".join("".join(read_texts([self.console_log])).splitlines()[-15:])
        raise MachineError(f"The virtual machine {self.name} did not boot (its systemd is {state}).", tail)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="A machine of machine.py as a whole virtual machine, by qemu.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="verb")
    sub = commands.add_parser("boot", help="stop a container and boot what it holds as a virtual machine")
    sub.add_argument("--port", type=int, action="append", default=[], help="of the class (again for others)")
    sub.add_argument("--ssh-port", type=int, default=8022, help="of this host, for commands (%(default)s)")
    sub.add_argument("--memory", type=int, default=3072, metavar="MIB", help="of the guest (%(default)s)")
    sub.add_argument("--processors", type=int, default=2, metavar="N", help="of the guest (%(default)s)")
    accel = "kvm" if Path("/dev/kvm").exists() else "tcg"
    sub.add_argument("--accel", choices=("kvm", "tcg"), default=accel, help="kvm, or tcg: emulated (%(default)s)")
    sub.add_argument("--disk", type=Path, help="where its disk is kept")
    commands.add_parser("reboot", help="shut it down and boot it again")
    commands.add_parser("down", help="end it and delete it")
    commands.add_parser("run", help="run a command in it")
    for verb, one in commands.choices.items():
        one.add_argument("name", metavar="NAME")
        if verb == "run":
            one.add_argument("command", metavar="-- CMD ...", nargs=argparse.REMAINDER)
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        ensure_host()
        machine = VirtualMachine.attach(args.name)
        if args.verb == "boot":
            if port_is_taken(args.ssh_port):
                raise MachineError(
                    f"Something already listens on port {args.ssh_port}.", "Choose another: --ssh-port N"
                )
            machine.boot(args.port, args.ssh_port, args.memory, args.processors, args.accel, args.disk)
            say(f"{args.name} is up. A command in it: scripts/vm.py run {args.name} -- uptime")
        elif args.verb == "reboot":
            machine.reboot()
        elif args.verb == "down":
            machine.down()
        else:
            words = args.command[1:] if args.command[:1] == ["--"] else args.command
            return machine.run(words, check=False, capture=False, timeout=None).returncode
    except CommandError as error:
        say(f"vm.py: {error}")
        return error.returncode
    except MachineError as error:
        say(f"vm.py: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
