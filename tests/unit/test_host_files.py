"""What the installer writes: secrets, conffiles, role folders, drop-ins, the record of what runs with what."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path

import pytest

from illumidesk import settings
from illumidesk.errors import IllumiDeskError
from illumidesk.host import units
from illumidesk.host.conffiles import ensure_conffile, remove_conffile, write_file
from illumidesk.host.install import InstallOptions, Outcome, address, ensure_http_port, farewell
from illumidesk.host.roles import ensure_roles, role_files
from illumidesk.host.secrets import ensure_secrets
from illumidesk.host.ssh import ensure_ssh_rule, remove_ssh_rule
from illumidesk.host.steps import Progress
from illumidesk.paths import Paths, data
from illumidesk.settings import NBGRADER_PARTS, Settings


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path)


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


# Secrets


def env(file: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


def test_secrets_agree_and_are_roots_alone(paths: Paths) -> None:
    ensure_secrets(paths)
    hub, proxy = env(paths.hub_env), env(paths.proxy_env)
    assert hub["CONFIGPROXY_AUTH_TOKEN"] == proxy["CONFIGPROXY_AUTH_TOKEN"]
    assert hub["ILLUMIDESK_CLI_TOKEN"] == paths.cli_token.read_text().strip()
    assert hub["ILLUMIDESK_CLI_TOKEN"] != hub["CONFIGPROXY_AUTH_TOKEN"]
    assert all(len(value) == 64 for value in hub.values())
    assert mode(paths.secrets) == 0o700
    assert {mode(file) for file in paths.secrets.iterdir()} == {0o600}
    assert "ILLUMIDESK_CLI_TOKEN" not in proxy


def test_secrets_stay(paths: Paths) -> None:
    ensure_secrets(paths)
    before = {file.name: file.read_bytes() for file in paths.secrets.iterdir()}
    paths.hub_env.chmod(0o644)
    ensure_secrets(paths)
    assert {file.name: file.read_bytes() for file in paths.secrets.iterdir()} == before
    assert mode(paths.hub_env) == 0o600


@pytest.mark.parametrize("lost", ["hub.env", "proxy.env", "cli-token"])
def test_a_lost_secret_is_written_from_the_others(paths: Paths, lost: str) -> None:
    ensure_secrets(paths)
    before = {file.name: file.read_bytes() for file in paths.secrets.iterdir()}
    (paths.secrets / lost).unlink()
    ensure_secrets(paths)
    assert {file.name: file.read_bytes() for file in paths.secrets.iterdir()} == before


def test_an_administrators_own_variable_stays(paths: Paths) -> None:
    paths.secrets.mkdir(parents=True)
    paths.hub_env.write_text("# mine\nHTTPS_PROXY=http://proxy.example.org\n")
    ensure_secrets(paths)
    assert env(paths.hub_env)["HTTPS_PROXY"] == "http://proxy.example.org"
    assert len(env(paths.hub_env)) == 3


# Files that people may change


class Conffile:
    def __init__(self, paths: Paths, *, replace: bool = True) -> None:
        self.paths = paths
        self.source = paths.root / "shipped.py"
        self.target = paths.root / "etc/app.py"
        self.beside = paths.root / "etc/app.py.new"
        self.replace = replace

    def ship(self, text: str) -> str:
        self.source.write_text(text)
        return ensure_conffile(self.source, self.target, paths=self.paths, replace=self.replace)


def test_a_file_nobody_changed_follows_the_release(paths: Paths) -> None:
    file = Conffile(paths)
    assert file.ship("one") == "written"
    assert file.ship("one") == "same"
    assert file.ship("two") == "written"
    assert file.target.read_text() == "two"
    assert not file.beside.exists()


def test_a_changed_file_stays(paths: Paths) -> None:
    file = Conffile(paths)
    file.ship("one")
    file.target.write_text("mine")
    assert file.ship("one") == "kept"
    assert not file.beside.exists(), "the release has nothing new to show"
    assert file.ship("two") == "beside"
    assert file.target.read_text() == "mine"
    assert file.beside.read_text() == "two"
    assert file.ship("two") == "kept", "said once"
    assert file.ship("three") == "beside"
    assert file.beside.read_text() == "three"
    # the administrator took the new one over
    file.target.write_text("three")
    assert file.ship("three") == "same"
    assert not file.beside.exists()
    assert file.ship("four") == "written"


def test_a_file_that_was_there_before_stays(paths: Paths) -> None:
    file = Conffile(paths)
    file.target.parent.mkdir()
    file.target.write_text("from another program")
    assert file.ship("one") == "beside"
    assert file.target.read_text() == "from another program"


def test_settings_never_follow_the_release(paths: Paths) -> None:
    file = Conffile(paths, replace=False)
    assert file.ship("one") == "written"
    assert file.ship("two") == "beside"
    assert file.target.read_text() == "one"


def test_write_file_is_never_open_to_others_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    seen: list[int] = []
    real = os.fchmod

    def fchmod(descriptor: int, wanted: int) -> None:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        real(descriptor, wanted)

    monkeypatch.setattr(os, "fchmod", fchmod)
    assert write_file(tmp_path / "x", b"1", mode=0o640)
    assert seen == [0o600]
    assert mode(tmp_path / "x") == 0o640
    assert not write_file(tmp_path / "x", b"1", mode=0o640)
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


def test_the_port_is_set_and_everything_else_stays(paths: Paths) -> None:
    paths.etc.mkdir(parents=True)
    text = data("config", "config.yaml").read_text()
    paths.config_file.write_text(text)
    ensure_http_port(80, paths)
    assert paths.config_file.read_text() == text, "it is the port already"
    ensure_http_port(8101, paths)
    assert paths.config_file.read_text() == text.replace("http_port: 80", "http_port: 8101")


# Roles


def test_roles(paths: Paths) -> None:
    assert ensure_roles(Settings(), paths)
    assert not ensure_roles(Settings(), paths)
    learner = paths.roles / "learner"
    pages = json.loads((learner / "labconfig/page_config.json").read_text())["disabledExtensions"]
    assert {part: off for part, off in pages.items() if part.startswith("@jupyter/nbgrader:")} == {
        "@jupyter/nbgrader:assignment-list": False,
        "@jupyter/nbgrader:validate-assignment": False,
        "@jupyter/nbgrader:course-list": True,
        "@jupyter/nbgrader:create-assignment": True,
        "@jupyter/nbgrader:formgrader": True,
    }
    config = json.loads((learner / "jupyter_server_config.d/zz-nbgrader-role.json").read_text())
    assert config["ServerApp"]["jpserver_extensions"] == {
        "nbgrader.server_extensions.assignment_list": True,
        "nbgrader.server_extensions.validate_assignment": True,
        "nbgrader.server_extensions.formgrader": False,
        "nbgrader.server_extensions.course_list": False,
        "illumidesk.grader.course_list": False,
        "illumidesk.grader.gradebook": False,
        "illumidesk.grader.duedates": True,
        "illumidesk.grader.formgrader": False,
        "illumidesk.grader.open_assignment": True,
        "illumidesk.grader.compression": True,
        "illumidesk.grader.ready": True,
        "illumidesk.grader.shared": True,
        "illumidesk.grader.git_pull": True,
        "nbgitpuller": False,
        "illumidesk.workspaces.server": True,
        "jupyter_server_proxy": False,
    }
    config = json.loads((paths.roles / "grader/jupyter_server_config.d/zz-nbgrader-role.json").read_text())
    assert config["ServerApp"]["jpserver_extensions"]["illumidesk.grader.gradebook"] is True
    assert pages["illumidesk:duedates"] is False
    assert mode(learner / "labconfig/page_config.json") == 0o644
    assert {folder.name for folder in paths.roles.iterdir()} == {"standard", "learner", "instructor", "grader"}


def test_roles_follow_the_settings(paths: Paths) -> None:
    ensure_roles(Settings(), paths)
    changed = settings.parse("roles: {standard: {nbgrader: [formgrader]}}")
    assert ensure_roles(changed, paths)
    text = (paths.roles / "standard/labconfig/page_config.json").read_text()
    assert json.loads(text)["disabledExtensions"]["@jupyter/nbgrader:formgrader"] is False


def test_every_part_of_nbgrader_is_said_on_or_off() -> None:
    for shown in ((), NBGRADER_PARTS):
        pages = role_files(shown)["labconfig/page_config.json"]
        assert {f"@jupyter/nbgrader:{part}" for part in NBGRADER_PARTS} <= set(pages["disabledExtensions"])  # type: ignore[index]


def test_only_the_formgrader_may_be_framed() -> None:
    for part in NBGRADER_PARTS:
        server = json.dumps(role_files((part,))["jupyter_server_config.json"])
        assert ("frame-ancestors 'self'" in server) == (part == "formgrader")


# SSH


def test_people_are_kept_out_of_ssh(paths: Paths) -> None:
    rule = paths.root / "etc/ssh/sshd_config.d/50-illumidesk.conf"
    ensure_ssh_rule(paths, Progress())
    assert "\nDenyGroups illumidesk-people illumidesk-graders\n" in rule.read_text()
    ensure_ssh_rule(paths, Progress())
    remove_ssh_rule(paths, Progress())
    assert not rule.exists()


def test_a_file_that_was_there_before_survives_a_purge(paths: Paths, tmp_path: Path) -> None:
    source, target = tmp_path / "shipped", paths.root / "etc/jupyter/nbgrader_config.py"
    source.write_text("ours")
    target.parent.mkdir(parents=True)
    target.write_text("theirs")
    assert ensure_conffile(source, target, paths=paths) == "beside"
    remove_conffile(target, paths=paths)
    assert target.read_text() == "theirs"
    assert [entry.name for entry in target.parent.iterdir()] == [target.name]


# Units


def test_drop_ins() -> None:
    text = "proxy: {http_port: 8080, bind: 192.0.2.1}\nclass_limits: {memory_percent: 70}"
    written = units.drop_ins(settings.parse(text))
    assert "ILLUMIDESK_PROXY_ADDRESS=192.0.2.1 ILLUMIDESK_PROXY_PORT=8080\n" in written[units.PROXY]
    assert "\nMemoryMax=70%\n" in written["illumidesk-users.slice"]


@pytest.mark.parametrize("bind", ["", "0.0.0.0", "::", "2001:db8::1", "lms.example.org", "localhost"])
def test_addresses(bind: str) -> None:
    assert f"ADDRESS={bind} " in units.drop_ins(settings.validate({"proxy": {"bind": bind}}))[units.PROXY]


@pytest.mark.parametrize("bind", ["a b", "x\nUser=root", "%h", "fe80::1%eth0", "-x", "a$b", '"', "http://x"])
def test_what_is_no_address_does_not_reach_a_unit(bind: str) -> None:
    with pytest.raises(IllumiDeskError, match=r"proxy\.bind"):
        units.drop_ins(settings.validate({"proxy": {"bind": bind}}))


def test_a_port_that_is_taken_is_found_before_the_proxy_is_restarted(paths: Paths) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        wanted = settings.validate({"proxy": {"http_port": port, "bind": "127.0.0.1"}})
        with pytest.raises(IllumiDeskError, match=f"port {port} is taken"):
            units.check_port(wanted, paths)
        units.ensure_drop_ins(wanted, paths)
        units.check_port(wanted, paths)
        # only the address changes, and the proxy is the one that has the port
        units.check_port(settings.validate({"proxy": {"http_port": port, "bind": ""}}), paths)
    with pytest.raises(IllumiDeskError, match="cannot listen on"):
        units.check_port(settings.validate({"proxy": {"bind": "192.0.2.250"}}), paths)


def test_what_makes_a_service_stale(paths: Paths) -> None:
    folder = units.unit_folder(paths)
    folder.mkdir(parents=True)
    for unit in units.SERVICES:
        (folder / unit).write_text("[Service]\n")
    for link, build in ((paths.hub_environment, "hub-1"), (paths.proxy_program, "proxy-1")):
        (paths.opt / "builds" / build).mkdir(parents=True)
        link.symlink_to(f"builds/{build}")
    ensure_secrets(paths)
    units.ensure_drop_ins(settings.parse(""), paths)
    started = units.Started(paths)

    def stale() -> set[str]:
        found = {unit for unit in units.SERVICES if started.is_stale(unit)}
        for unit in units.SERVICES:
            started.note(unit)
        return found

    assert stale() == set(units.SERVICES)
    assert stale() == set()
    units.ensure_drop_ins(settings.parse("proxy: {http_port: 81}"), paths)
    assert stale() == {units.PROXY}
    units.ensure_drop_ins(settings.parse("{proxy: {http_port: 81}, fork_server: {at_boot: []}}"), paths)
    assert stale() == {units.SUPERVISOR}
    paths.config_file.write_text("idle: {servers: 1h}\n")
    assert stale() == {units.HUB}
    paths.hub_config_d.mkdir(parents=True)
    (paths.hub_config_d / "mine.py").write_text("")
    assert stale() == {units.HUB}
    (folder / f"{units.SUPERVISOR}.d/override.conf").write_text("[Service]\n")
    assert stale() == {units.SUPERVISOR}
    (paths.opt / "builds/hub-2").mkdir()
    paths.hub_environment.unlink()
    paths.hub_environment.symlink_to("builds/hub-2")
    assert stale() == {units.HUB, units.SUPERVISOR}


# What is asked for and what is said


@pytest.mark.parametrize(
    "options",
    [
        InstallOptions(admin="root"),
        InstallOptions(admin="daemon"),
        InstallOptions(courses=("a b",)),
        InstallOptions(http_port=0),
    ],
)
def test_what_cannot_be_installed(options: InstallOptions) -> None:
    with pytest.raises(IllumiDeskError):
        options.check()


def test_address() -> None:
    assert address(settings.parse("proxy: {bind: 192.0.2.7}")) == "http://192.0.2.7"
    assert address(settings.parse("proxy: {bind: '2001:db8::7', http_port: 81}")) == "http://[2001:db8::7]:81"
    assert address(Settings()).startswith("http://")


def test_farewell_of_the_first_installation() -> None:
    outcome = Outcome("http://192.0.2.7", True, "admin", ("bio",), True, ("default: by pip",), (), ("look here",))
    text = farewell(outcome, 61.2)
    assert "ready after 61 s:  http://192.0.2.7" in text
    assert "admin          administrator, and instructor of bio" in text
    assert "student1" in text
    assert "Environments:\n  default: by pip\n" in text
    assert "Note: look here" in text
    assert "sign in as admin" in text


def test_farewell_names_an_administrator_who_teaches_once() -> None:
    text = farewell(Outcome("http://192.0.2.7", True, "instructor1", (), True, (), (), ()), 61.2)
    assert "instructor1    administrator, and instructor of the demo course intro101" in text
    assert text.count("\n  instructor1 ") == 1


def test_farewell_of_an_upgrade() -> None:
    outcome = Outcome("http://192.0.2.7", False, None, (), False, (), ("illumidesk-hub.service",), ())
    text = farewell(outcome, 1.4)
    assert "Restarted: illumidesk-hub. Running notebooks went on." in text
    assert "sign in as" not in text
