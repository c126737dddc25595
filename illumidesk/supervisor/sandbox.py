"""The properties of a person's unit, as D-Bus wants them: what is fixed, what is limited, what an
administrator adds.

It shuts out what ordinary notebook work does not need. What that work does need stays: pip and conda in the
own home, terminals, git, multiprocessing, JIT compilers, nbgrader's exchange.
"""

from __future__ import annotations

import ipaddress
import socket
import sysconfig
from typing import Any

from dbus_fast import Variant

from illumidesk.paths import Paths
from illumidesk.supervisor.policy import IpNetwork, Limits, Properties
from illumidesk.supervisor.units import Launch

SLICE = "illumidesk-users.slice"
_INFINITY = (1 << 64) - 1
_MS_REC = 16384  # mount(2): bind mounts below it come along, as with BindPaths= in a file
_EPERM = 1

# Signatures are those of org.freedesktop.systemd1.Service
_FIXED: dict[str, tuple[str, Any]] = {
    "Type": ("s", "exec"),  # the start job fails where the program cannot be run
    "Slice": ("s", SLICE),
    "UMask": ("u", 0o027),
    "KillMode": ("s", "mixed"),  # the server ends its kernels by itself; what is left then is killed
    "TimeoutStopUSec": ("t", 10_000_000),
    "OOMPolicy": ("s", "continue"),  # a kernel that ate too much dies, the server lives
    "OOMScoreAdjust": ("i", 300),  # people's servers go before the hub does
    "MemoryAccounting": ("b", True),
    "CPUAccounting": ("b", True),
    "TasksAccounting": ("b", True),
    "NoNewPrivileges": ("b", True),
    "CapabilityBoundingSet": ("t", 0),
    "AmbientCapabilities": ("t", 0),
    "KeyringMode": ("s", "private"),
    "LockPersonality": ("b", True),
    "PrivateDevices": ("b", True),
    "PrivateIPC": ("b", True),
    "PrivateTmp": ("b", True),
    "ProtectClock": ("b", True),
    "ProtectControlGroups": ("b", True),
    "ProtectHome": ("s", "tmpfs"),
    "ProtectHostname": ("b", True),
    "ProtectKernelLogs": ("b", True),
    "ProtectKernelModules": ("b", True),
    "ProtectKernelTunables": ("b", True),
    "ProtectProc": ("s", "invisible"),
    "ProtectSystem": ("s", "strict"),
    "RestrictAddressFamilies": ("(bas)", [True, ["AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"]]),
    "RestrictNamespaces": ("t", 0),
    "RestrictRealtime": ("b", True),
    "RestrictSUIDSGID": ("b", True),
    "SystemCallArchitectures": ("as", ["native"]),
    "SystemCallErrorNumber": ("i", _EPERM),
    "SystemCallFilter": (
        "(bas)",
        [
            False,
            ["@clock", "@cpu-emulation", "@module", "@mount", "@obsolete", "@raw-io", "@reboot", "@swap"],
        ],
    ),
    # PrivateDevices binds the host's /dev/shm, where people would see each other's segments
    "TemporaryFileSystem": ("a(ss)", [["/dev/shm", "mode=1777,nosuid,nodev"]]),  # noqa: S108
}


def server_properties(launch: Launch, paths: Paths) -> list[list[Any]]:
    """Everything about a person's transient unit, for `StartTransientUnit`."""
    account = launch.account
    home = str(account.home)
    command = _command(launch, paths)
    own: dict[str, tuple[str, Any]] = {
        # The main process alone tells systemd things; its children have the address as well.
        "NotifyAccess": ("s", "main"),
        "Description": ("s", f"Jupyter server of {account.name}"),
        "User": ("s", account.name),
        "WorkingDirectory": ("s", home),
        "SyslogIdentifier": ("s", launch.command.name),
        "EnvironmentFiles": ("a(sb)", [[str(launch.environment_file), False]]),
        # Not ExecStartEx with no-env-expand: systemd 252 writes that into the unit's file by a name that it does not
        # read, and at the next daemon-reload the running unit has no command.
        "ExecStart": ("a(sasb)", [[command[0], [literal(word) for word in command], False]]),
        "BindPaths": ("a(ssbt)", [[home, home, False, _MS_REC]]),
        "ReadWritePaths": (
            "as",
            [home, str(launch.socket_folder), f"-{paths.exchange}", *(f"-{path}" for path in launch.writable)],
        ),
        "InaccessiblePaths": ("as", [f"-{path}" for path in _hidden(paths)]),
    }
    wanted = _FIXED | own | limits(launch.limits) | extra(launch.properties)
    return [[name, Variant(signature, value)] for name, (signature, value) in wanted.items()]


def _command(launch: Launch, paths: Paths) -> list[str]:
    command = [str(launch.command), *launch.arguments]
    if not launch.fork_server:
        return command
    # By the link, so that `systemctl restart` finds it after an upgrade, too.
    python = paths.hub_environment / "bin/python"
    packages = sysconfig.get_path("purelib", "venv", {"base": str(paths.hub_environment)})
    client = f"{packages}/illumidesk/forkserver/client.py"
    return [str(python), "-I", "-S", client, str(paths.fork_server_socket(launch.fork_server)), *command]


def literal(word: str) -> str:
    """A word of a command line that systemd takes as it is: it expands `$NAME` and `${NAME}` otherwise."""
    return word.replace("$", "$$")


def limit_properties(wanted: Limits) -> list[list[Any]]:
    """Just the limits, for `SetUnitProperties`; what is not limited is set to that, too."""
    return [[name, Variant(signature, value)] for name, (signature, value) in limits(wanted).items()]


def limits(wanted: Limits) -> dict[str, tuple[str, Any]]:
    """Limits as properties; 0 is systemd's infinity."""
    return {
        "MemoryMax": ("t", wanted.memory or _INFINITY),
        # The kernel counts swap apart from memory (cgroup v2), and a machine's swap may be in its memory (zram):
        # without a limit, nobody who takes too much is ended until that is full. Half leaves room for what rests.
        "MemorySwapMax": ("t", wanted.memory // 2 if wanted.memory else _INFINITY),
        # microseconds of processor time in each second
        "CPUQuotaPerSecUSec": ("t", max(1, round(wanted.cpu * 1_000_000)) if wanted.cpu else _INFINITY),
        "TasksMax": ("t", wanted.tasks or _INFINITY),
    }


def extra(properties: Properties) -> dict[str, tuple[str, Any]]:
    """What an administrator set besides, as properties."""
    given: dict[str, Any] = properties.model_dump(exclude_none=True)
    typed: dict[str, tuple[str, Any]] = {}
    for name, value in given.items():
        match name:
            case "CPUWeight" | "IOWeight" | "MemoryHigh" | "MemorySwapMax":
                typed[name] = ("t", value)
            case "LimitNOFILE":
                typed["LimitNOFILE"] = typed["LimitNOFILESoft"] = ("t", value)
            case "PrivateNetwork":
                typed[name] = ("b", value)
            case "Nice":
                typed[name] = ("i", value)
            case "IPAddressDeny" | "IPAddressAllow":
                typed[name] = ("a(iayu)", [_network(ipaddress.ip_network(network)) for network in value])
            case _:
                raise AssertionError(name)
    return typed


def _network(network: IpNetwork) -> list[Any]:
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    return [int(family), network.network_address.packed, network.prefixlen]


def _hidden(paths: Paths) -> list[str]:
    """What a person's server has no business in. Modes guard these as well; this is the second door.

    The system bus is among it: systemd tells anybody there the command lines of everybody's processes.
    """
    ours = [paths.unit_environments, paths.etc, paths.state, paths.archive, paths.log, paths.hub_state]
    return [str(path) for path in ours] + ["/run/dbus", "/run/systemd/private"]
