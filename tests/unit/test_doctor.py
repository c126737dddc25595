"""What `illumidesk doctor` finds. Its looks at a whole class are in the system tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from illumidesk.host import apt, doctor, programs, units
from illumidesk.host.doctor import examine
from illumidesk.host.environments import keep_wheel, use_wheel
from illumidesk.host.steps import Progress
from illumidesk.paths import Paths, data
from tests.support.packages import make_wheel


class Systemd(Progress):
    """What systemd says; a unit that is not named is active."""

    def __init__(self, states: dict[str, str], failed: str = "", clock: str = "yes") -> None:
        super().__init__()
        self.states, self.failed, self.clock = states, failed, clock

    def run(self, argv: Sequence[Any], **_: Any) -> str:
        match list(argv):
            case ["systemctl", "is-active", unit]:
                return self.states.get(unit, "active") + "\n"
            case ["systemctl", "list-units", *_]:
                return self.failed
            case ["timedatectl", *_]:
                return self.clock + "\n"
        raise AssertionError(argv)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    for folder in (
        paths.environments,
        paths.etc,
        tmp_path / "run/systemd/system",
        tmp_path / "home",
        tmp_path / "proc",
    ):
        folder.mkdir(parents=True)
    (tmp_path / "proc/swaps").write_text("Filename Type Size Used Priority\n")
    paths.config_file.write_text(data("config", "config.yaml").read_text())
    return paths


def found(paths: Paths, systemd: Systemd | None = None) -> dict[str, list[tuple[str, str, str]]]:
    by_subject: dict[str, list[tuple[str, str, str]]] = {}
    for one in examine(paths, systemd or Systemd({})):
        by_subject.setdefault(one.subject, []).append((one.state, one.said, one.hint))
    return by_subject


def test_services(paths: Paths) -> None:
    assert found(paths)["services"] == [("ok", "all services run", "")]
    said = found(paths, Systemd({units.PROXY: "failed"}, "illumidesk-forkserver@ml.service loaded failed failed x\n"))
    [proxy, forks] = said["services"]
    assert proxy[:2] == ("problem", "illumidesk-proxy.service is failed")
    assert forks[:2] == ("warning", "illumidesk-forkserver@ml.service failed")
    (paths.root / "run/systemd/system").rmdir()
    assert found(paths)["services"][0][1] == "systemd does not run on this machine"


def test_a_hub_that_is_down(paths: Paths) -> None:
    assert found(paths)["hub"] == [("problem", "the hub does not answer", "sudo journalctl -u illumidesk-hub -n 50")]


def test_wrong_settings_hide_nothing_else(paths: Paths) -> None:
    paths.config_file.write_text("limits: {memry: 1G}\n")
    said = found(paths)
    [(state, sentence, _)] = said["settings"]
    assert state == "problem"
    assert "memry" in sentence
    assert said["services"][0][0] == "ok"
    assert {"hub", "workspaces", "disk", "memory"} <= set(said)


def test_an_environment_that_is_used_and_not_there(paths: Paths, tmp_path: Path) -> None:
    use_wheel(keep_wheel(make_wheel(tmp_path, "illumidesk"), paths), paths)
    (paths.etc / "environments").mkdir()
    (paths.etc / "environments/default.yml").write_text("name: default\ndependencies:\n  - pip:\n      - numpy\n")
    (paths.etc / "environments/ml.yml").write_text("name: ml\ndependencies:\n  - pip: [\n")
    said = {sentence: (state, hint) for state, sentence, hint in found(paths)["environments"]}
    assert said["default is not built"] == ("problem", "sudo illumidesk env create default")
    assert said["ml is broken"][0] == "warning", "nobody uses it"


def test_a_workspace_that_cannot_be_had_offers_r_in_lab(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    for installed, hint in ((False, "for R in JupyterLab: sudo illumidesk kernel install r"), (True, "R works")):
        monkeypatch.setattr(apt, "is_installed", lambda _, there=installed: there)
        [rstudio, here] = found(paths)["workspaces"]
        assert rstudio[:2] == ("note", programs.NO_RSTUDIO)
        assert rstudio[2].startswith(hint)
        assert here == ("ok", "JupyterLab, Notebook", "")
    paths.config_file.write_text("workspaces: {offered: [lab, vscode]}\n")
    assert found(paths)["workspaces"][0] == (
        "note",
        "VS Code is offered by the settings, and is not installed",
        "sudo illumidesk workspace install vscode",
    )


@pytest.mark.parametrize(("free", "state"), [(3 << 30, "ok"), (1 << 30, "warning"), (1 << 20, "problem")])
def test_little_disk(paths: Paths, monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    monkeypatch.setattr(doctor.psutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert [one[0] for one in found(paths)["disk"]] == [state]


def test_what_may_not_be_read_is_said(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied", "/etc/illumidesk/tls")

    monkeypatch.setattr(doctor.https, "status", refused)
    assert found(paths)["https"] == [("unknown", "/etc/illumidesk/tls may not be read", "run it with sudo")]


def test_memory_and_clock(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.psutil, "swap_memory", lambda: SimpleNamespace(total=0))
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: SimpleNamespace(available=4 << 30))
    said = found(paths, Systemd({}, clock="no"))
    assert said["memory"][0][:2][0] == "note"
    assert said["clock"][0][2] == "sudo timedatectl set-ntp true"
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: SimpleNamespace(available=1 << 20))
    assert found(paths)["memory"] == [("warning", "1 MiB of memory are left", "illumidesk status shows who uses it")]
