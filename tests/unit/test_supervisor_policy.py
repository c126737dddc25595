"""The hub's account cannot make the supervisor run a command, use an account or set a property outside its policy."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from illumidesk import names
from illumidesk.errors import IllumiDeskError
from illumidesk.paths import Paths
from illumidesk.supervisor import policy, sandbox
from illumidesk.supervisor.units import Account, Launch, identify
from illumidesk.supervisor.verbs import Supervisor

hostile_text = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["root", "daemon", "illumidesk-hub", "grader-x", "nbgrader-x", "systemd-journald", "alice"]),
    st.sampled_from(["intro101", "default", "../x", "a/b", "a\n", "-rf", "--", "a.service", "ünï", "", "a" * 33]),
    st.sampled_from(["a b", "a;b", "$(id)", "%h"]),
)
json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | hostile_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(hostile_text, inner, max_size=4),
    max_leaves=12,
)
FIELDS = sorted({field for model in policy.VERBS.values() for field in model.model_fields})
request = st.one_of(
    st.dictionaries(st.sampled_from([*FIELDS, "uid", "command", "user", "unit"]), json_value, max_size=8),
    json_value,
)


@given(verb=st.sampled_from(sorted(policy.VERBS)) | hostile_text, raw=request)
@settings(max_examples=600, deadline=None)
def test_whatever_is_asked_is_allowed_or_refused(verb: str, raw: Any) -> None:
    try:
        allowed = policy.parse(verb, raw)
    except IllumiDeskError:
        return
    assert verb in policy.VERBS
    if hasattr(allowed, "name"):
        assert names.check_account(allowed.name) == allowed.name
        assert names.server_unit(allowed.name) == f"jupyter-{allowed.name}.service"
        assert "/" not in allowed.name
        assert not allowed.name.startswith("-")
    if hasattr(allowed, "course_id"):
        assert re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,22}", allowed.course_id)
    if hasattr(allowed, "environment"):
        assert ".." not in allowed.environment
        assert "/" not in allowed.environment


start = st.fixed_dictionaries(
    {"name": st.just("alice"), "environment": st.just("default")},
    optional={
        "arguments": st.lists(
            st.one_of(hostile_text, st.text(max_size=20).map(lambda text: f"--A.b={text}")), max_size=5
        ),
        "variables": st.dictionaries(
            st.one_of(
                hostile_text, st.sampled_from(["LD_PRELOAD", "HOME", "PATH", "A", "NOTIFY_SOCKET", "LISTEN_FDS"])
            ),
            st.text(max_size=20),
            max_size=4,
        ),
        "limits": st.dictionaries(
            st.sampled_from(["memory", "cpu", "tasks", "MemoryMax"]), st.integers() | st.floats(), max_size=4
        ),
        "properties": st.dictionaries(
            st.sampled_from([*policy.Properties.model_fields, "User", "ExecStart", "BindPaths", "NoNewPrivileges"])
            | hostile_text,
            json_value,
            max_size=4,
        ),
    },
)


@given(raw=start)
@settings(max_examples=600, deadline=None)
def test_a_start_changes_nothing_of_the_sandbox(raw: dict[str, Any]) -> None:
    try:
        allowed = policy.parse("start_server", raw)
    except IllumiDeskError:
        return
    assert isinstance(allowed, policy.StartServer)
    for argument in allowed.arguments:
        assert argument.startswith("--")
        assert argument.isprintable() or not any(c < " " for c in argument)
    for name, value in allowed.variables.items():
        assert not name.startswith(("LD_", "LISTEN_", "SYSTEMD_"))
        assert name not in ("HOME", "USER", "SHELL", "LOGNAME", "NOTIFY_SOCKET", "ILLUMIDESK_COMMAND")
        assert "\0" not in value
        value.encode("utf-8")
    plain, asked = as_dict(launch()), as_dict(launch(allowed))
    may_differ = {"MemoryMax", "CPUQuotaPerSecUSec", "TasksMax", "LimitNOFILESoft", *policy.Properties.model_fields}
    for name in plain.keys() | asked.keys():
        if name not in may_differ | {"ExecStart"}:
            assert plain[name] == asked[name]
    ((command, argv, ignore_failure),) = asked["ExecStart"]
    assert command == argv[0] == "/opt/illumidesk/envs/default/bin/jupyterhub-singleuser"
    # As systemd will see them, once it has expanded what it takes for variables
    assert [argument.replace("$$", "$") for argument in argv[1:]] == allowed.arguments
    assert "$" not in "".join(argument.replace("$$", "") for argument in argv[1:])
    assert ignore_failure is False


def test_swap_is_no_way_around_the_limit_of_memory() -> None:
    """The kernel counts it apart, and it is memory itself where it is zram."""
    limits = sandbox.limits(policy.Limits(memory=1 << 30))
    assert (limits["MemoryMax"], limits["MemorySwapMax"]) == (("t", 1 << 30), ("t", 1 << 29))
    assert sandbox.limits(policy.Limits())["MemorySwapMax"] == sandbox.limits(policy.Limits())["MemoryMax"]
    request = policy.StartServer(name="alice", environment="default", limits=policy.Limits(memory=1 << 30))
    own = request.model_copy(update={"properties": policy.Properties(MemorySwapMax=0)})
    assert [as_dict(launch(one))["MemorySwapMax"] for one in (request, own)] == [1 << 29, 0]


def launch(request: policy.StartServer | None = None) -> Launch:
    request = request or policy.StartServer(name="alice", environment="default")
    return Launch(
        unit="jupyter-alice.service",
        account=Account("alice", 1001, 1001, Path("/home/alice")),
        command=Path("/opt/illumidesk/envs/default/bin/jupyterhub-singleuser"),
        arguments=tuple(request.arguments),
        variables=request.variables,
        environment_file=Path("/run/illumidesk/environment/jupyter-alice.service.env"),
        socket_folder=Path("/run/illumidesk/servers/alice"),
        limits=request.limits,
        properties=request.properties,
    )


def as_dict(launch: Launch) -> dict[str, Any]:
    properties = sandbox.server_properties(launch, Paths())
    found = {name: variant.value for name, variant in properties}
    assert len(found) == len(properties)
    return found


def test_the_fork_server_is_asked_by_a_client_that_may_run_the_program_itself() -> None:
    request = policy.StartServer(name="alice", environment="default", arguments=["--x=$a"], fork_server=True)
    forked, plain = (as_dict(dataclasses.replace(launch(request), fork_server=name)) for name in ("default", ""))
    ((python, argv, _),) = forked.pop("ExecStart")
    ((program, arguments, _),) = plain.pop("ExecStart")
    assert argv[argv.index("/run/illumidesk/forkserver/default.sock") + 1 :] == arguments
    assert python == argv[0] == "/opt/illumidesk/hub/bin/python"
    assert program == arguments[0]
    # Everything else is the same, and so is the sandbox.
    assert forked == plain
    assert forked["NotifyAccess"] == "main"


def test_no_secret_is_in_a_units_properties() -> None:
    request = policy.StartServer(name="alice", environment="default", variables={"TOKEN": "s3cret"})
    assert "s3cret" not in repr(sandbox.server_properties(launch(request), Paths()))
    assert "s3cret" not in repr(launch(request))


@pytest.mark.parametrize(
    "raw",
    [
        {"variables": {"LD_PRELOAD": "s3cret"}},
        {"variables": {"A": "s3cret\0"}},
        {"variables": {"A": "s3cret\x1b"}},
        {"variables": {"A": "s3cret\r"}},
        {"variables": {"A": "s3cret\ud800"}},
        {"variables": {"A": "s3cret\uffff"}},
        {"variables": {"A": "s3cret" * 10000}},
        {"variables": {"s3cret-": "x"}},
        {"variables": {"A": ["s3cret"]}},
        {"variables": {f"A{n}": "s3cret" for n in range(257)}},
        {"arguments": ["s3cret"]},
        {"arguments": ["-c=s3cret"]},
        {"arguments": ["--"]},
        {"arguments": ["--a b=s3cret"]},
        {"arguments": ["--a=s3cret\n"]},
        {"arguments": ["--a=" + "s3cret" * 1000]},
        {"arguments": ["--a=s3cret"] * 65},
        {"limits": {"memory": -1}},
        {"limits": {"memory": "1G"}},
        {"limits": {"cpu": float("inf")}},
        {"limits": {"cpu": True}},
        {"properties": {"Nice": -5}},
        {"properties": {"User": "root"}},
        {"properties": {"PrivateNetwork": "s3cret"}},
        {"properties": {"IPAddressAllow": ["s3cret"]}},
        {"environment": "../../../home/alice"},
        {"environment": "a/b"},
        {"name": "root"},
        {"name": "alice\n"},
        {"uid": 0},
    ],
)
def test_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(IllumiDeskError) as error:
        policy.parse("start_server", {"name": "alice", "environment": "default"} | raw)
    assert error.value.status == 400
    assert "s3cret" not in error.value.message.replace("s3cret-", "")


def test_a_common_start_is_allowed() -> None:
    request = policy.parse(
        "start_server",
        {
            "name": "alice",
            "environment": "r-4.3",
            "arguments": ["--ServerApp.sock=/run/x", "--debug", "--ServerApp.default_url=/lab?a=b c"],
            "variables": {"PATH": "/opt/bin", "JUPYTERHUB_API_TOKEN": "abc", "TEXT": "a\n\tb", "NAME": "Zoë"},
            "limits": {"memory": 1 << 30, "cpu": 1, "tasks": 0},
            "properties": {"CPUWeight": 10, "IPAddressDeny": ["any"], "IPAddressAllow": ["localhost", "10.0.0.0/8"]},
        },
    )
    assert isinstance(request, policy.StartServer)
    assert request.properties.IPAddressAllow == ["127.0.0.0/8", "::1/128", "10.0.0.0/8"]
    assert as_dict(launch(request))["IPAddressAllow"][2] == [2, b"\x0a\0\0\0", 8]


def test_every_verb_is_a_method_and_nothing_else_is_called() -> None:
    assert all(
        issubclass(model, BaseModel) and callable(getattr(Supervisor, verb)) for verb, model in policy.VERBS.items()
    )
    for verb in ("call", "close", "_stop", "__init__", "start_server ", ""):
        with pytest.raises(IllumiDeskError) as error:
            policy.parse(verb, {})
        assert error.value.status == 404


@given(st.text(max_size=30).map(lambda text: f"jupyter-{text}.service") | hostile_text)
def test_only_our_units_are_ours(unit: str) -> None:
    found = identify(unit)
    if found is not None:
        kind, name = found
        assert unit == (names.server_unit(name) if kind == "server" else names.grader_unit(name))


# Environments


@pytest.fixture
def layout(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    build = paths.opt / "builds" / "default-1" / "bin"
    build.mkdir(parents=True)
    paths.environments.mkdir()
    (paths.environments / "default").symlink_to("../builds/default-1")
    (build / "jupyterhub-singleuser").write_text("#!/bin/sh\n")
    for path in (paths.opt, *paths.opt.rglob("*")):
        path.chmod(0o755)
    return paths


def check(paths: Paths, environment: str = "default") -> Path:
    return policy.check_environment_tree(paths, environment, owner=os.getuid())


def test_a_built_environment_runs(layout: Paths) -> None:
    assert check(layout) == layout.environments / "default/bin/jupyterhub-singleuser"


@pytest.mark.parametrize(
    "path",
    [".", "envs", "builds", "builds/default-1", "builds/default-1/bin", "builds/default-1/bin/jupyterhub-singleuser"],
)
@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_one_that_others_can_write_does_not(layout: Paths, path: str, mode: int) -> None:
    (layout.opt / path).chmod(mode)
    with pytest.raises(IllumiDeskError, match="root alone"):
        check(layout)


def test_one_of_another_owner_does_not(layout: Paths) -> None:
    with pytest.raises(IllumiDeskError, match="root alone"):
        policy.check_environment_tree(layout, "default", owner=os.getuid() + 1)


@pytest.fixture
def outside(layout: Paths) -> Path:
    """A prefix of root's own elsewhere, and the environment `mine` that leads to it."""
    other = layout.root / "srv/mine/bin"
    other.mkdir(parents=True)
    (other / "jupyterhub-singleuser").write_text("#!/bin/sh\n")
    for path in (layout.root, other.parent.parent, other.parent, other, other / "jupyterhub-singleuser"):
        path.chmod(0o755)
    (layout.environments / "mine").symlink_to(other.parent)
    return other


def test_one_that_was_registered_runs(layout: Paths, outside: Path) -> None:
    assert check(layout, "mine") == layout.environments / "mine/bin/jupyterhub-singleuser"


@pytest.mark.parametrize("path", [".", "srv", "srv/mine", "srv/mine/bin", "srv/mine/bin/jupyterhub-singleuser"])
def test_one_outside_that_others_can_write_does_not(layout: Paths, outside: Path, path: str) -> None:
    (layout.root / path).chmod(0o775)
    with pytest.raises(IllumiDeskError, match="root alone"):
        check(layout, "mine")


def test_one_outside_behind_further_links_does_not(layout: Paths, outside: Path) -> None:
    """What is checked and what is started then could be two things."""
    (layout.root / "srv/linked").symlink_to(outside.parent)
    (layout.environments / "mine").unlink()
    (layout.environments / "mine").symlink_to(layout.root / "srv/linked")
    with pytest.raises(IllumiDeskError, match="root alone"):
        check(layout, "mine")
    elsewhere = layout.root / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    (outside / "jupyterhub-singleuser").rename(elsewhere / "jupyterhub-singleuser")
    (outside / "jupyterhub-singleuser").symlink_to(elsewhere / "jupyterhub-singleuser")
    (layout.environments / "mine").unlink()
    (layout.environments / "mine").symlink_to(outside.parent)
    with pytest.raises(IllumiDeskError, match="root alone"):
        check(layout, "mine")


def test_one_built_here_stays_here(layout: Paths, outside: Path) -> None:
    other = outside
    (layout.opt / "builds/default-1/bin/jupyterhub-singleuser").unlink()
    (layout.opt / "builds/default-1/bin/jupyterhub-singleuser").symlink_to(other / "jupyterhub-singleuser")
    with pytest.raises(IllumiDeskError, match="root alone"):
        check(layout)


def test_one_that_is_not_there(layout: Paths) -> None:
    with pytest.raises(IllumiDeskError, match="no environment") as error:
        check(layout, "none")
    assert error.value.status == 404
    assert error.value.hint == "there is default"


def test_errors_are_json() -> None:
    with pytest.raises(IllumiDeskError) as error:
        policy.parse("ensure_account", {"name": "Ünï"})
    json.dumps(error.value.as_dict())
