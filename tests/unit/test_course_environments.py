"""A course's own environment: what is in it, and that it stays where a package cannot be had. Real uv, own wheels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from illumidesk import settings
from illumidesk.errors import IllumiDeskError
from illumidesk.host import course_environments, settings_file, users_environments
from illumidesk.host.course_environments import add, disuse, remove, use
from illumidesk.host.environments import keep_wheel, use_wheel
from illumidesk.host.steps import Progress
from illumidesk.paths import Paths, data
from tests.support.disks import nearly_full
from tests.support.packages import make_wheel

SHARED = "name: default\ndependencies:\n  - pip:\n      - idshared\n"


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    make_wheel(folder, "servething", scripts={"jupyterhub-singleuser": "#!python\n"})
    for name in ("idshared", "idleaf", "idmore"):
        make_wheel(folder, name)
    return folder


@pytest.fixture
def paths(tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A host with a shared environment, on which packages come from a folder alone."""
    paths = Paths(tmp_path / "host")
    for folder in (
        paths.environments,
        paths.opt / "bootstrap/bin",
        paths.root / "run/lock",
        paths.etc / "environments",
    ):
        folder.mkdir(parents=True)
    (paths.opt / "bootstrap/bin/uv").symlink_to(Path(sys.executable).with_name("uv"))
    use_wheel(keep_wheel(make_wheel(tmp_path, "illumidesk"), paths), paths)
    paths.config_file.write_text(data("config", "config.yaml").read_text())
    monkeypatch.setattr(users_environments, "server_requirements", lambda: ("servething>=1",))
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    monkeypatch.delenv("ILLUMIDESK_INSTALL_LOCKED", raising=False)
    users_environments.description_file("default", paths).write_text(SHARED)
    users_environments.create("default", paths, Progress())
    return paths


def imports(paths: Paths, *modules: str, name: str = "course-bio101") -> bool:
    python = paths.environments / name / "bin/python"
    return subprocess.run([python, "-c", f"import {', '.join(modules)}"], capture_output=True).returncode == 0


def test_the_shared_one_and_packages_of_its_own(paths: Paths) -> None:
    environment, new = add("bio101", ["idleaf"], paths, Progress())
    assert (environment.name, new) == ("course-bio101", True)
    assert imports(paths, "idshared", "idleaf", "servething")
    assert not imports(paths, "idleaf", name="default")
    assert add("bio101", ["idleaf"], paths, Progress())[1] is False, "again"
    found = users_environments.find("course-bio101", paths, settings.Settings())
    assert (found.state, found.based_on, found.serves) == ("ready", "default", True)
    assert add("bio101", ["IDmore>=1"], paths, Progress())[1]
    assert imports(paths, "idleaf", "idmore")
    assert remove("bio101", ["idleaf"], paths, Progress())[1]
    assert not imports(paths, "idleaf")
    assert imports(paths, "idmore", "idshared")
    with pytest.raises(IllumiDeskError, match="idleaf is no package that was added for bio101") as refused:
        remove("bio101", ["idleaf"], paths, Progress())
    assert refused.value.hint == "there is IDmore>=1"


def test_what_cannot_be_had_changes_nothing(paths: Paths) -> None:
    add("bio101", ["idleaf"], paths, Progress())
    file = users_environments.description_file("course-bio101", paths)
    before = (paths.environments / "course-bio101").resolve(), file.read_text()
    with pytest.raises(IllumiDeskError, match="idnone"):
        add("bio101", ["idnone"], paths, Progress())
    assert ((paths.environments / "course-bio101").resolve(), file.read_text()) == before
    with pytest.raises(IllumiDeskError, match="idnone"):
        add("chem1", ["idnone"], paths, Progress())
    assert not users_environments.description_file("course-chem1", paths).exists()
    assert not (paths.environments / "course-chem1").exists()


def test_a_full_disk_changes_nothing(paths: Paths, wheels: Path) -> None:
    add("bio101", ["idleaf"], paths, Progress())
    make_wheel(wheels, "idbulky", data=os.urandom(6_000_000))
    file = users_environments.description_file("course-bio101", paths)
    builds = paths.opt / "builds"
    before = (paths.environments / "course-bio101").resolve(), file.read_text(), sorted(builds.iterdir())
    with nearly_full(builds, 3 << 20):
        with pytest.raises(IllumiDeskError) as caught:
            add("bio101", ["idbulky"], paths, Progress())
        after = (paths.environments / "course-bio101").resolve(), file.read_text(), sorted(builds.iterdir())
    assert caught.value.message == "the disk is full: the environment course-bio101 could not be built"
    assert after == before


@pytest.mark.parametrize(
    ("package", "sentence"),
    [("git+https://x/y", "is an address or a path"), ("ServeThing<1", "servething serves people"), ("", "no package")],
)
def test_refused_before_anything_is_built(paths: Paths, package: str, sentence: str) -> None:
    with pytest.raises(IllumiDeskError, match=sentence):
        add("bio101", [package] if package else [], paths, Progress())
    assert not (paths.environments / "course-bio101").exists()


def test_an_update_of_the_shared_one_is_carried_over(paths: Paths) -> None:
    add("bio101", ["idleaf"], paths, Progress())
    users_environments.description_file("default", paths).write_text(f"{SHARED}      - idmore\n")
    users_environments.update("default", paths, Progress())
    assert users_environments.find("course-bio101", paths, settings.Settings()).state == "changed"
    users_environments.update("course-bio101", paths, Progress())
    assert imports(paths, "idmore", "idleaf")
    # as the installer does it, when a new version's own description asks for other packages
    users_environments.description_file("default", paths).write_text(SHARED)
    users_environments.ensure_users_environment("course-bio101", paths, Progress())
    assert imports(paths, "idshared", "idleaf")
    assert not imports(paths, "idmore")


def test_the_settings_name_it_and_no_longer(paths: Paths) -> None:
    settings_file.set_value(paths.config_file, "courses.bio101.workspace", "lab")
    add("bio101", ["idleaf"], paths, Progress())
    assert use("bio101", paths) is True
    assert use("bio101", paths) is False
    now = settings.load(paths.config_file)
    assert (now.environment_of("learner", "bio101"), now.environment_of("grader", "bio101")) == ("course-bio101",) * 2
    assert now.course("bio101").workspace == "lab"
    assert users_environments.find("course-bio101", paths, now).courses == ("bio101",)
    with pytest.raises(IllumiDeskError, match=r"in use: courses\.bio101\.environment"):
        users_environments.check_removable("course-bio101", paths)
    assert disuse("bio101", paths) is True
    assert disuse("bio101", paths) is False
    assert settings.load(paths.config_file).environment_of("learner", "bio101") == "default"
    users_environments.remove("course-bio101", paths)
    assert course_environments.description_of("bio101", paths) is None


def test_it_follows_what_the_members_have(paths: Paths) -> None:
    text = SHARED.replace("default", "ml")
    users_environments.description_file("ml", paths).write_text(text)
    users_environments.create("ml", paths, Progress())
    settings_file.set_value(paths.config_file, "courses.bio101.environment", "ml")
    add("bio101", ["idleaf"], paths, Progress())
    use("bio101", paths)
    found = users_environments.find("course-bio101", paths, settings.Settings())
    assert found.based_on == "ml"
    with pytest.raises(IllumiDeskError, match="course-bio101 is based on ml"):
        add("bio101", ["idmore"], paths, Progress(), base="default")
    disuse("bio101", paths)
    assert settings.load(paths.config_file).course("bio101").environment == "ml"
    settings_file.unset_value(paths.config_file, "courses.bio101.environment")
    with pytest.raises(IllumiDeskError, match="ml is in use: course-bio101 is based on it"):
        users_environments.check_removable("ml", paths)


def test_a_registered_one_cannot_be_built_upon(paths: Paths) -> None:
    (paths.environments / "mine").symlink_to(paths.root / "srv/mine")
    with pytest.raises(IllumiDeskError, match="mine is registered, not built here"):
        add("bio101", ["idleaf"], paths, Progress(), base="mine")
