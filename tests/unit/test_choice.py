"""The choice by role, and what a server is started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from illumidesk.settings import Limits, parse
from illumidesk.spawners.choice import RoleChoice, server_arguments, server_role, server_variables


@pytest.mark.parametrize(
    ("member_role", "role"),
    [(None, "standard"), ("student", "learner"), ("ta", "instructor"), ("instructor", "instructor")],
)
def test_role(member_role: str | None, role: str) -> None:
    assert server_role(member_role) == role


def test_limits_of_a_role_fall_back_to_everybodys() -> None:
    settings = parse("limits: {memory: 1G, cpu: 2}\nroles:\n  instructor:\n    limits: {memory: 3G}\n")

    class Choice(RoleChoice):
        settings_now = settings  # type: ignore[assignment]
        member_role = "instructor"  # type: ignore[assignment]

    assert Choice().chosen_limits() == Limits(memory="3G", cpu=2.0)
    assert settings.limits_of("learner") == settings.limits


def test_nothing_listens_on_a_port() -> None:
    settings = parse("")
    arguments = server_arguments(Path("/run/x/server.sock"), settings.role("learner"), idle_server=60, idle_kernel=0)
    assert "--ServerApp.sock=/run/x/server.sock" in arguments
    assert "--ServerApp.sock_mode=0660" in arguments
    assert "--KernelManager.transport=ipc" in arguments
    assert not [argument for argument in arguments if "port" in argument.split("=")[0].split(".")[-1].split("_")]


def test_kernel_sockets_fit_a_socket_address() -> None:
    """sun_path holds 107 bytes; a kernel's is RUNTIME/kernel-UUID-ipc-N."""
    runtime = server_variables(Path("/opt/illumidesk/roles/learner"), Path("/opt/illumidesk/envs/default"))
    assert len(runtime["JUPYTER_RUNTIME_DIR"] + "/kernel-" + "x" * 36 + "-ipc-5") < 107
