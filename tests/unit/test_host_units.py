"""The unit files as files: that systemd reads them, and that a grader is confined as people's servers are."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from illumidesk.host import units
from illumidesk.paths import Paths, data
from illumidesk.supervisor import sandbox


def service(name: str) -> dict[str, list[str]]:
    """The settings of a unit file's [Service] section; a setting may be there several times."""
    found: dict[str, list[str]] = defaultdict(list)
    section = ""
    text = data("systemd", name).read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


def written(name: str, value: Any) -> tuple[str, str]:
    """A property of D-Bus as a unit file says it."""
    match name, value:
        case "CapabilityBoundingSet" | "AmbientCapabilities", 0:
            return name, ""
        case "RestrictNamespaces", 0:
            return name, "yes"
        case "TimeoutStopUSec", _:
            return "TimeoutStopSec", str(value // 1_000_000)
        case "SystemCallErrorNumber", 1:
            return name, "EPERM"
        case "TemporaryFileSystem", _:
            return name, ":".join(value[0])
        case "RestrictAddressFamilies" | "SystemCallFilter", [allow, words]:
            return name, ("" if allow else "~") + " ".join(words)
        case _, bool():
            return name, "yes" if value else "no"
        case _, list():
            return name, " ".join(value)
    return name, str(value)


def test_grader_is_confined_as_peoples_servers_are() -> None:
    grader = service("illumidesk-grader@.service")
    for name, (_, value) in sandbox._FIXED.items():
        if name == "UMask":  # nbgrader sets the modes of what it hands out
            continue
        key, text = written(name, value)
        assert grader[key] == [text], key
    hidden = {path.lstrip("-") for line in grader["InaccessiblePaths"] for path in line.split()}
    assert hidden >= set(sandbox._hidden(Paths()))


@pytest.mark.parametrize("name", units.SERVICES)
def test_services_come_back_and_leave_peoples_units_alone(name: str) -> None:
    text = data("systemd", name).read_text()
    settings = service(name)
    assert settings["Restart"] == ["always"]
    assert "StartLimitIntervalSec=0" in text
    assert "WantedBy=multi-user.target" in text
    assert settings["Slice"] == ["illumidesk.slice"]
    for word in ("BindsTo", "PartOf", "Requires="):
        assert word not in text


def test_weights() -> None:
    """The hub above the class, and people's servers first when memory runs out."""
    users = data("systemd", "illumidesk-users.slice").read_text()
    assert "CPUWeight=100\n" in users
    for name in units.SERVICES:
        assert service(name)["CPUWeight"] == ["1000"]
        assert int(service(name)["OOMScoreAdjust"][0]) < 0
    assert int(service("illumidesk-grader@.service")["OOMScoreAdjust"][0]) > 0


def test_secrets_reach_only_who_needs_them() -> None:
    assert service(units.HUB)["EnvironmentFile"] == ["/etc/illumidesk/secrets/hub.env"]
    assert service(units.PROXY)["EnvironmentFile"] == ["/etc/illumidesk/secrets/proxy.env"]
    assert "EnvironmentFile" not in service(units.SUPERVISOR)


def test_systemd_reads_them(tmp_path: Path) -> None:
    """No unknown setting, no value that systemd would drop. Programs that are not here are not looked at."""
    for name in units.FILES:
        text = data("systemd", name).read_text()
        text = text.replace("/opt/illumidesk/proxy/node/bin/node", "/bin/true")
        for program in ("illumidesk-hub", "illumidesk-supervisor"):
            text = text.replace(f"/opt/illumidesk/hub/bin/{program}", "/bin/true")
        text = text.replace("/opt/illumidesk/envs/%i/bin/illumidesk-forkserver", "/bin/true")
        (tmp_path / name.replace("@.", "@c1.")).write_text(text)
    files = sorted(str(file) for file in tmp_path.iterdir())
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *files],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "illumidesk" in line]
    assert not ours, done.stderr
