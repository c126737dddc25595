"""Environments that are there already: what may be registered, and what is refused for which reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from illumidesk import settings
from illumidesk.errors import IllumiDeskError
from illumidesk.host import users_environments
from illumidesk.host.environments import remove_old_builds
from illumidesk.host.steps import Progress
from illumidesk.host.users_environments import check_removable, find, prefix_of, register, remove
from illumidesk.paths import Paths
from illumidesk.settings import Settings
from illumidesk.supervisor import policy


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path / "host")
    for folder in ("opt/illumidesk/envs", "run/lock", "etc/illumidesk/environments", "srv"):
        (paths.root / folder).mkdir(parents=True)
    for folder in (paths.root, *paths.root.rglob("*")):
        folder.chmod(0o755)
    return paths


@pytest.fixture
def venv(paths: Paths) -> Path:
    """A venv whose Python is inside the host, as it is on a real one."""
    prefix = paths.root / "srv/venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--copies", prefix], check=True)
    singleuser = prefix / "bin/jupyterhub-singleuser"
    singleuser.write_text("#!/bin/sh\n")
    singleuser.chmod(0o755)
    for path in (prefix, *prefix.rglob("*")):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o022)
    return prefix


def do(name: str, prefix: Path, paths: Paths) -> Path:
    return register(name, prefix, paths, Progress(), owner=os.getuid())


def test_registered(paths: Paths, venv: Path) -> None:
    (paths.root / "srv/link").symlink_to(venv)
    assert do("mine", paths.root / "srv/link", paths) == venv
    assert do("mine", venv, paths) == venv, "again"
    found = find("mine", paths, Settings())
    assert (found.kind, found.state, found.serves, found.prefix) == ("registered", "ready", True, venv)
    assert prefix_of("mine", paths) == venv
    # and people's servers may run from it
    command = policy.check_environment_tree(paths, "mine", owner=os.getuid())
    assert command.resolve() == venv / "bin/jupyterhub-singleuser"
    assert remove_old_builds(paths) == []


def test_it_is_not_built_and_only_forgotten(paths: Paths, venv: Path) -> None:
    do("mine", venv, paths)
    for refused in (
        lambda: users_environments.update("mine", paths, Progress()),
        lambda: users_environments.export("mine", paths, as_lock=True),
        lambda: users_environments.clone("mine", "other", paths, Progress()),
    ):
        with pytest.raises(IllumiDeskError):
            refused()
    assert users_environments.environment_names(paths) == [], "the installer has nothing to build"
    remove("mine", paths)
    assert (venv / "bin/python").exists()
    with pytest.raises(IllumiDeskError, match="there is no environment mine"):
        remove("mine", paths)


@pytest.mark.parametrize("where", ["srv", "srv/venv", "srv/venv/bin", "srv/venv/bin/python", "srv/venv/pyvenv.cfg"])
@pytest.mark.parametrize(
    ("mode", "reason"), [(0o777, "can be changed by others than root"), (0o700, "cannot be read by everybody")]
)
def test_refused_where_others_could_change_it_or_not_read_it(
    paths: Paths, venv: Path, where: str, mode: int, reason: str
) -> None:
    path = paths.root / where
    path.chmod(mode)
    with pytest.raises(IllumiDeskError) as caught:
        do("mine", venv, paths)
    assert caught.value.message == f"{venv} cannot be registered: {path} {reason}"
    assert not (paths.environments / "mine").is_symlink()


def test_refused_where_it_belongs_to_somebody_else(paths: Paths, venv: Path) -> None:
    with pytest.raises(IllumiDeskError, match="does not belong to root"):
        register("mine", venv, paths, Progress(), owner=os.getuid() + 1)


def test_refused_where_a_link_leads_to_what_others_could_change(paths: Paths, venv: Path) -> None:
    shared = paths.root / "shared"
    shared.mkdir()
    (shared / "tool").write_text("#!/bin/sh\n")
    (venv / "bin/tool").symlink_to(shared / "tool")
    shared.chmod(0o777)
    with pytest.raises(IllumiDeskError, match="shared can be changed by others"):
        do("mine", venv, paths)
    shared.chmod(0o755)
    assert do("mine", venv, paths) == venv


def test_refused_where_it_is_none(paths: Paths, venv: Path) -> None:
    (paths.root / "srv/empty").mkdir()
    (paths.opt / "builds/x/bin").mkdir(parents=True)
    (paths.home / "shared/venv/bin").mkdir(parents=True)
    for prefix, reason in (
        (paths.root / "srv/nothing", "there is no folder"),
        (paths.root / "srv/empty", "is not an environment"),
        (paths.opt / "builds/x", "IllumiDesk's own"),
        (paths.home / "shared/venv", "servers see nothing of"),
        (Path("srv/venv"), "not a whole path"),
    ):
        with pytest.raises(IllumiDeskError, match=reason):
            do("mine", prefix, paths)
    (paths.etc / "environments/ml.yml").write_text("dependencies: []\n")
    with pytest.raises(IllumiDeskError, match="already an environment ml"):
        do("ml", venv, paths)


def test_one_in_use_is_not_removed(paths: Paths, venv: Path) -> None:
    do("mine", venv, paths)
    paths.config_file.write_text("roles: {grader: {environment: mine}}\n")
    with pytest.raises(IllumiDeskError, match=r"mine is in use: roles\.grader\.environment"):
        remove("mine", paths)
    assert find("mine", paths, settings.load(paths.config_file)).roles == ("grader",)
    assert (paths.environments / "mine").exists()
    paths.config_file.write_text("roles: {learner: {environment: mine}}\n")
    (paths.etc / "environments/default.yml").write_text("dependencies: []\n")
    paths.config_file.write_text("")
    with pytest.raises(IllumiDeskError, match="default is in use"):
        check_removable("default", paths)
