"""The command line against an HTTP server on a unix socket that speaks the hub's management API."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from illumidesk import settings
from illumidesk.cli import app, run
from illumidesk.cli.room import PER_PERSON, Room, room
from illumidesk.errors import IllumiDeskError
from illumidesk.host.hub_client import HubClient
from illumidesk.host.steps import Progress
from illumidesk.paths import Paths, data
from tests.unit.fake_hub import TOKEN, FakeHub


@dataclass
class Result:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> Iterator[Paths]:
    root = Path(tempfile.mkdtemp(prefix="idsk-"))  # short: a socket's path has 107 bytes at most
    monkeypatch.setenv("ILLUMIDESK_ROOT", str(root))
    paths = Paths(root)
    paths.secrets.mkdir(parents=True)
    paths.hub_socket.parent.mkdir(parents=True)
    paths.cli_token.write_text(TOKEN + "\n")
    shutil.copy(data("config", "config.yaml"), paths.config_file)
    yield paths
    shutil.rmtree(root)


@pytest.fixture
def hub(paths: Paths) -> Iterator[FakeHub]:
    hub = FakeHub(paths.hub_socket)
    yield hub
    hub.close()


@pytest.fixture
def illumidesk(paths: Paths, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    def call(*arguments: str, typed: str = "") -> Result:
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        capfd.readouterr()
        code = run(arguments)
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return Result(code, out, err)

    return call


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            # `course env COURSE add`: a group may take arguments of its own.
            arguments = [str(one.metavar) for one in command.params if isinstance(one, click.Argument)]
            yield from commands(command, (*path, name, *arguments))


def command_at(path: tuple[str, ...]) -> click.Command:
    command: click.Command = app
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands.get(name, command)
    return command


ALL = list(commands(app))


# Help and usage


@pytest.mark.parametrize("command", [(), *ALL], ids=" ".join)
def test_every_command_has_help_that_fits(illumidesk: Run, command: tuple[str, ...]) -> None:
    for flag in ("--help", "-h"):
        result = illumidesk(*command, flag)
        assert result.code == 0
        assert result.out.startswith("Usage: illumidesk")
        assert max(map(len, result.out.splitlines())) <= 80
        assert "..." not in re.sub(r"Usage:.*(\n  +.*)?|\w+\.\.\.", "", result.out)


def test_whatever_lists_or_shows_takes_json() -> None:
    for path in ALL:
        command = command_at(path)
        if path[-1] in ("list", "show", "status", "get", "validate", "version", "logs"):
            assert any("--json" in parameter.opts for parameter in command.params), path


def test_the_reference_names_every_command_and_option() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference-cli.md").read_text("utf-8")
    for path in ALL:
        command = command_at(path)
        if not isinstance(command, click.Group):
            section = text.partition(f"`illumidesk {' '.join(path)}")[2].split("\n## ")[0].split("\n### ")[0]
            assert section, path
            for parameter in command.params:
                if isinstance(parameter, click.Option):
                    assert parameter.opts[0] in section, (path, parameter.opts)


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["cuorse"], "course"),
        (["course", "lst"], "list"),
        (["config", "get"], ""),
        (["enroll", "bio101", "alice", "--role", "boss"], ""),
        (["user", "add"], ""),
        (["user", "add", "alice", "--from-file", os.devnull], ""),
        (["user", "add", "--admin", "--from-file", os.devnull], ""),
        (["logs", "user"], ""),
        (["logs", "hub", "alice"], ""),
        (["version", "--jsn"], "--json"),
        (["config", "validate", "/nonexistent"], ""),
        (["logs", "-n", "-1"], ""),
    ],
)
def test_wrong_usage_ends_with_2(illumidesk: Run, words: list[str], near: str) -> None:
    result = illumidesk(*words)
    assert result.code == 2
    assert result.out == ""
    assert re.fullmatch(r"Error: .+\nHint: .*see `illumidesk.* --help`\n", result.err), result.err
    assert near in result.err


def test_a_group_alone_shows_its_help(illumidesk: Run) -> None:
    for words in ([], ["course"]):
        result = illumidesk(*words)
        assert result.code == 2
        assert "Commands:" in result.err


def test_version(illumidesk: Run) -> None:
    from illumidesk import __version__ as version

    assert illumidesk("version").out == f"IllumiDesk {version}\n"
    assert illumidesk("version", "--json").json() == {"version": version}


def test_help_is_quick() -> None:
    code = "import sys; from illumidesk.cli import run; run(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for heavy in ("pydantic", "ruamel", "rich", "psutil", "http.client", "subprocess", "illumidesk.settings"):
        assert heavy not in done.stderr.split()


# What goes wrong


def test_without_a_hub_the_hint_says_what_to_look_at(illumidesk: Run) -> None:
    result = illumidesk("user", "list")
    assert result.code == 1
    assert result.err == "Error: the hub does not answer\nHint: sudo systemctl status illumidesk-hub\n"


def test_not_installed(illumidesk: Run, paths: Paths) -> None:
    paths.cli_token.unlink()
    assert "not installed" in illumidesk("user", "list").err


def test_who_is_not_root_is_told_to_use_sudo(illumidesk: Run, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text

    def refuse(path: Path, *arguments: Any, **more: Any) -> str:
        if path == paths.cli_token:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *arguments, **more)

    monkeypatch.setattr(Path, "read_text", refuse)
    assert illumidesk("course", "list").err == "Error: only root may do this\nHint: run it with sudo\n"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for words in (["config", "reload"], ["uninstall", "--yes"]):
        result = illumidesk(*words)
        assert (result.code, result.err) == (1, "Error: only root may do this\nHint: run it with sudo\n")


def test_a_wrong_token(illumidesk: Run, hub: FakeHub, paths: Paths) -> None:
    paths.cli_token.write_text("another")
    result = illumidesk("user", "list")
    assert result.code == 1
    assert "Forbidden" in result.err
    assert "another" not in result.err


@pytest.mark.parametrize(
    ("status", "content", "message"),
    [
        (500, b"<html>oops</html>", "the hub answered 500 Internal Server Error"),
        (200, b"<html>", "the hub answered 200"),
        (409, b'{"message": "no\\u001b[31m room", "hint": "wait"}', "no�[31m room\nHint: wait"),
        (502, b"[]", "the hub answered 502"),
    ],
)
def test_odd_answers(illumidesk: Run, hub: FakeHub, status: int, content: bytes, message: str) -> None:
    hub.broken["/hub/api/illumidesk/users"] = (status, content)
    result = illumidesk("user", "list")
    assert result.code == 1
    assert message in result.err


def test_a_hub_that_says_nothing_is_given_up(paths: Paths) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(paths.hub_socket))
        listener.listen()
        client = HubClient.of_this_machine()
        assert not client.answers(timeout=0.1)
        with pytest.raises(IllumiDeskError, match="within 0 seconds"):
            client.status(timeout=0.1)


def test_a_bug_is_one_sentence_and_debug_shows_it(
    illumidesk: Run, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.broken["/hub/api/illumidesk/users"] = (200, b'{"wrong": 1}')
    result = illumidesk("user", "list")
    assert result.code == 1
    assert "bug in IllumiDesk: KeyError" in result.err
    assert "ILLUMIDESK_DEBUG=1" in result.err
    monkeypatch.setenv("ILLUMIDESK_DEBUG", "1")
    with pytest.raises(KeyError):
        run(["user", "list"])


def test_interrupted(illumidesk: Run, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: HubClient) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(HubClient, "users", interrupt)
    assert illumidesk("user", "list").code == 130


def test_names_are_checked_before_the_hub_is_asked(illumidesk: Run, hub: FakeHub) -> None:
    for words in (
        ["user", "add", "Alice"],
        ["user", "add", "fine", "root"],
        ["course", "create", "a b"],
        ["course", "show", "../x"],
        ["enroll", "bio101", "fine", "grader-x"],
        ["unenroll", "bio101", "fine", ""],
        ["user", "show", "../users/x?y#z"],
        ["user", "admin", ""],
        ["user", "forget-password", "a\nb"],
        ["user", "remove", "x" * 10_000],
        ["user", "stop", "fine", ""],
        ["logs", "user", "../x"],
        ["logs", "course", "-x"],
    ):
        assert illumidesk(*words[:2], "--", *words[2:]).code == 1, words
    assert hub.calls == []


def test_a_name_is_quoted_in_the_address(hub: FakeHub) -> None:
    with pytest.raises(IllumiDeskError):
        HubClient.of_this_machine().user("../users/x?y#z")
    assert hub.calls[-1][1] == "/hub/api/illumidesk/users/..%2Fusers%2Fx%3Fy%23z"


def test_an_error_does_not_fill_the_screen(illumidesk: Run) -> None:
    result = illumidesk("config", "get", "x" * 100_000)
    assert result.code == 1
    assert len(result.err) < 5000


# People


def test_user_add_list_show(illumidesk: Run, hub: FakeHub) -> None:
    assert illumidesk("user", "list").out == ""
    result = illumidesk("user", "add", "alice", "bob")
    assert (result.code, result.out) == (0, "alice is added\nbob is added\n")
    assert illumidesk("user", "add", "alice").out == "alice was there already\n"
    hub.add_course("bio101", alice="ta")
    assert [one["name"] for one in illumidesk("user", "list", "--json").json()] == ["alice", "bob"]
    assert illumidesk("user", "show", "alice", "--json").json()["courses"] == [{"course_id": "bio101", "role": "ta"}]
    assert "bio101 (ta)" in illumidesk("user", "list").out
    assert "bio101 (ta)" in illumidesk("user", "show", "alice").out


def test_user_add_admin_also_for_somebody_who_is_there(illumidesk: Run, hub: FakeHub) -> None:
    hub.add_person("alice")
    assert illumidesk("user", "add", "alice", "bob", "--admin").code == 0
    assert hub.people["alice"]["admin"]
    assert hub.people["bob"]["admin"]


def test_user_admin_and_password(illumidesk: Run, hub: FakeHub) -> None:
    hub.add_person("alice")
    hub.people["alice"]["has_password"] = True
    assert illumidesk("user", "admin", "alice").out == "alice is now an admin\n"
    assert hub.people["alice"]["admin"]
    assert illumidesk("user", "admin", "alice", "--revoke").code == 0
    assert not hub.people["alice"]["admin"]
    assert illumidesk("user", "forget-password", "alice").code == 0
    assert not hub.people["alice"]["has_password"]
    missing = illumidesk("user", "admin", "nobody-here")
    assert (missing.code, "illumidesk user add nobody-here" in missing.err) == (1, True)


def test_user_stop(illumidesk: Run, hub: FakeHub) -> None:
    hub.add_person("alice", active=True)
    assert illumidesk("user", "stop", "alice").code == 0
    assert not hub.people["alice"]["server"]["active"]


def test_user_remove_asks(illumidesk: Run, hub: FakeHub, paths: Paths) -> None:
    hub.add_person("alice", active=True)
    hub.add_course("bio101", alice="student")
    refused = illumidesk("user", "remove", "alice", typed="alicia\n")
    assert refused.code == 1
    assert "RUNNING" in refused.err
    assert "bio101" in refused.err
    assert str(paths.home / "alice") in refused.err
    assert "nobody is here" in illumidesk("user", "remove", "alice").err
    assert "alice" in hub.people
    assert illumidesk("user", "remove", "alice", typed="alice\n").code == 0
    assert hub.people == {}
    assert "user add --restore alice" in illumidesk("user", "add", "alice").err
    assert illumidesk("user", "add", "alice", "--restore").out == "alice is added\n"


def test_adding_an_admin_again_takes_nothing_away(illumidesk: Run, hub: FakeHub, tmp_path: Path) -> None:
    hub.add_person("alice", admin=True)
    illumidesk("user", "add", "alice")
    illumidesk("user", "add", "--from-file", write(tmp_path, "alice\n"))
    assert hub.people["alice"]["admin"]


def test_several_go_on_after_one_that_fails(illumidesk: Run, hub: FakeHub) -> None:
    hub.add_course("bio101")
    hub.add_person("alice")
    hub.add_person("carol")
    result = illumidesk("enroll", "bio101", "alice", "bob", "carol", "--role", "ta")
    assert result.code == 1
    assert hub.courses["bio101"]["members"] == {"alice": "ta", "carol": "ta"}
    assert "Error: bob: there is no bob\nHint: illumidesk user add bob\n" in result.err
    assert "Error: 1 of 3 failed: bob" in result.err


# Lists of people


def write(tmp_path: Path, text: str | bytes) -> str:
    file = tmp_path / "class.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(file)


@pytest.mark.parametrize(
    "text",
    [
        "alice,bio101,ta\nbob,bio101\ncarol\n",
        "\ufeffname,course,role\r\nalice,bio101,TA\r\nbob,bio101,\r\ncarol,,\r\n",
        "role;name;course\nta;alice;bio101\n\n# a comment\n;bob;bio101\n;carol;\n",
    ],
)
def test_user_add_from_file(illumidesk: Run, hub: FakeHub, tmp_path: Path, text: str) -> None:
    hub.add_course("bio101")
    result = illumidesk("user", "add", "--from-file", write(tmp_path, text))
    assert (result.code, result.out, result.err) == (0, "3 added, 0 there already, 2 enrolled\n", "")
    assert set(hub.people) == {"alice", "bob", "carol"}
    assert hub.courses["bio101"]["members"] == {"alice": "ta", "bob": "student"}
    again = illumidesk("user", "add", "--from-file", write(tmp_path, text))
    assert (again.code, again.out) == (0, "0 added, 3 there already, 2 enrolled\n")


def test_user_add_from_standard_input(illumidesk: Run, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from illumidesk.cli import main; main()", "user", "add", "--from-file", "-"],
        input="alice\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert set(hub.people) == {"alice"}


def test_a_wrong_line_stops_the_whole_file(illumidesk: Run, hub: FakeHub, tmp_path: Path) -> None:
    hub.add_course("bio101")
    text = "alice,bio101\nBob\nroot\ncarol,bio10\ndave,bio101,techer\neve,,ta\nalice,bio101,ta\nfay,bio101,ta,x\n"
    result = illumidesk("user", "add", "--from-file", write(tmp_path, text))
    assert result.code == 1
    assert hub.people == {}
    assert result.out == ""
    for line in (
        "line 2: 'Bob' is not a valid user name",
        "line 3: 'root' is reserved",
        "line 4: there is no course bio10\nHint: did you mean bio101?",
        "line 5: there is no role techer",
        "line 6: eve has the role ta in no course",
        "line 7: alice is in line 1 already",
        "line 8: it has 4 cells",
        "7 of its lines cannot be used; nothing was changed",
    ):
        assert line in result.err
    assert [int(number) for number in re.findall(r"line (\d+):", result.err)] == [2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("content", ["", "name,course,role\n", b"\xff\xfe\x00", b"a\x00b\n"])
def test_a_file_without_people(illumidesk: Run, hub: FakeHub, tmp_path: Path, content: str | bytes) -> None:
    result = illumidesk("user", "add", "--from-file", write(tmp_path, content))
    assert result.code == 1
    assert hub.people == {}


def test_a_line_that_the_hub_refuses_is_told(illumidesk: Run, hub: FakeHub, tmp_path: Path) -> None:
    hub.add_course("bio101")
    hub.broken["/hub/api/illumidesk/courses/bio101/members/bob"] = (409, b'{"message": "taken", "hint": "h"}')
    result = illumidesk("user", "add", "--from-file", write(tmp_path, "alice,bio101\nbob,bio101\ncarol,bio101\n"))
    assert result.code == 1
    assert "Error: line 2: taken\nHint: h\n" in result.err
    assert "1 of 3 lines were not done: 2" in result.err
    assert set(hub.courses["bio101"]["members"]) == {"alice", "carol"}


def test_a_hub_that_goes_away_says_which_lines_are_left(illumidesk: Run, hub: FakeHub, tmp_path: Path) -> None:
    hub.add_course("bio101")
    hub.broken["/hub/api/illumidesk/courses/bio101/members/bob"] = (503, b'{"message": "gone"}')
    result = illumidesk("user", "add", "--from-file", write(tmp_path, "alice\nbob,bio101\ncarol\ndave\n"))
    assert result.code == 1
    assert "3 of 4 lines were not done: 2, 3, 4" in result.err


# Courses


def test_course_create_list_show(illumidesk: Run, hub: FakeHub) -> None:
    assert illumidesk("course", "list").out == ""
    hub.add_person("ines")
    result = illumidesk("course", "create", "bio101", "--title", "Biology \x1b[2J 1", "--instructor", "ines")
    assert result.code == 0
    assert "bio101 (Biology �[2J 1) is ready" in result.out
    assert hub.courses["bio101"]["members"] == {"ines": "instructor"}
    assert "was there already" in illumidesk("course", "create", "bio101").out
    assert illumidesk("course", "list", "--json").json()[0]["counts"] == {"student": 0, "ta": 0, "instructor": 1}
    listing = illumidesk("course", "list").out
    assert "bio101" in listing
    assert "\x1b" not in listing
    shown = illumidesk("course", "show", "bio101")
    assert "/services/bio101/" in shown.out
    assert "ines" in shown.out
    assert illumidesk("course", "show", "bio101", "--json").json()["members"][0]["name"] == "ines"
    assert illumidesk("course", "show", "none").code == 1


def test_course_create_with_an_unknown_instructor_makes_nothing(illumidesk: Run, hub: FakeHub) -> None:
    result = illumidesk("course", "create", "bio101", "--instructor", "ines")
    assert (result.code, hub.courses) == (1, {})
    assert "illumidesk user add ines" in result.err


def test_course_remove_warns_and_asks(illumidesk: Run, hub: FakeHub, paths: Paths) -> None:
    hub.add_course("bio101", "Biology", grader=True, alice="student", ines="instructor")
    refused = illumidesk("course", "remove", "bio101", typed="yes\n")
    assert refused.code == 1
    assert "2 members" in refused.err
    assert "RUNNING" in refused.err
    assert str(paths.archive / "courses") in refused.err
    assert "bio101" in hub.courses
    done = illumidesk("course", "remove", "bio101", typed="bio101\n")
    assert done.code == 0
    assert "/var/backups/illumidesk/courses/bio101-" in done.out
    assert hub.courses == {}
    hub.add_course("bio101")
    assert "archive" in illumidesk("course", "remove", "bio101", "--yes", "--json").json()


def test_a_course_without_a_title_is_shown_by_its_id(illumidesk: Run, hub: FakeHub) -> None:
    assert "The course bio101 is ready" in illumidesk("course", "create", "bio101").out
    assert "removes the course bio101." in illumidesk("course", "remove", "bio101", typed="no\n").err


def test_enroll_and_unenroll(illumidesk: Run, hub: FakeHub) -> None:
    hub.add_course("bio101")
    missing = illumidesk("enroll", "bio101", "alice")
    assert (missing.code, "illumidesk user add alice" in missing.err) == (1, True)
    assert illumidesk("enroll", "bio101", "alice", "--create").out == "alice is now a student of bio101\n"
    changed = illumidesk("enroll", "bio101", "alice", "--role", "instructor")
    assert changed.out == "alice was in it already and is an instructor of bio101\n"
    assert illumidesk("unenroll", "bio101", "alice").out == "alice is no longer in bio101\n"
    assert illumidesk("unenroll", "bio101", "alice").code == 1


# Settings


def test_config_set_get_unset(illumidesk: Run, paths: Paths) -> None:
    result = illumidesk("config", "set", "limits.memory", "2G")
    assert (result.code, result.out) == (0, "limits.memory is now 2G. To apply it: illumidesk config reload\n")
    assert illumidesk("config", "get", "limits.memory").out == "2G\n"
    assert illumidesk("config", "get", "limits.memory", "--json").json() == 2 << 30
    assert illumidesk("config", "get", "roles.learner.limits.memory").out == "2G\n"
    assert "memory: 2G  # default: 1G" in illumidesk("config", "show").out
    assert "memory: 1G" in illumidesk("config", "show", "--defaults").out
    assert illumidesk("config", "show", "--json").json()["limits"]["memory"] == 2 << 30
    assert "and is now 1G" in illumidesk("config", "unset", "limits.memory").out
    assert "was not in the file" in illumidesk("config", "unset", "limits.memory").out
    assert illumidesk("config", "get", "idle").out == "kernels: 4h\nservers: 2h\ngraders: 30m\n"
    assert illumidesk("config", "get", "sign_in.local.open_signup").out == "false\n"


def test_config_show_is_valid_settings(illumidesk: Run) -> None:
    illumidesk("config", "set", "roles.grader.limits.memory", "3G")
    shown = illumidesk("config", "show").out
    assert settings.parse(shown).limits_of("grader").memory == 3 << 30


def test_config_refuses(illumidesk: Run, paths: Paths) -> None:
    before = paths.config_file.read_text()
    assert "did you mean limits.memory?" in illumidesk("config", "set", "limit.memory", "1G").err
    assert "did you mean limits.memory?" in illumidesk("config", "get", "limits.memry").err
    assert "less than or equal to 65535" in illumidesk("config", "set", "proxy.http_port", "70000").err
    assert illumidesk("config", "set", "limits.cpu", "-1").code == 1
    (paths.environments / "default").mkdir(parents=True)
    wrong = illumidesk("config", "set", "roles.learner.environment", "defualt")
    assert (wrong.code, "did you mean default?" in wrong.err) == (1, True)
    assert paths.config_file.read_text() == before


def test_config_validate(illumidesk: Run, paths: Paths, tmp_path: Path) -> None:
    assert illumidesk("config", "validate").code == 0
    assert illumidesk("config", "validate", "--json").json() == {"valid": True}
    file = tmp_path / "new.yaml"
    file.write_text("limits: {memry: 1}")
    result = illumidesk("config", "validate", str(file), "--json")
    assert result.code == 1
    assert result.json()["hint"] == "did you mean limits.memory?"
    assert str(file) in result.err


def test_config_reload_waits_and_counts(
    illumidesk: Run, hub: FakeHub, paths: Paths, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    applied: list[Paths] = []

    def apply(paths: Paths, progress: Progress) -> list[str]:
        progress.note("machine.ksm has no effect")
        applied.append(paths)
        hub.healthy = False
        threading.Timer(0.6, lambda: setattr(hub, "healthy", True)).start()
        systemd.show(server("alice"), server("bob", pid=99), server("new", pid=7))
        return ["illumidesk-hub.service"]

    monkeypatch.setattr("illumidesk.host.install.apply_settings", apply)
    systemd.show(server("alice"), server("bob", pid=98))
    started = time.monotonic()
    result = illumidesk("config", "reload")
    assert time.monotonic() - started > 0.5
    assert applied == [paths]
    assert result.code == 0
    assert "Restarted illumidesk-hub.service; the hub answers. The one running server went on." in result.out
    assert "bob" in result.err
    assert "Note: machine.ksm has no effect\n" in result.err

    monkeypatch.setattr("illumidesk.host.install.apply_settings", lambda paths, progress: [])
    assert illumidesk("config", "reload", "--json").json()["went_on"] == ["alice", "bob", "new"]


def test_config_reload_refuses_wrong_settings_first(
    illumidesk: Run, hub: FakeHub, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("illumidesk.host.install.apply_settings", lambda paths, progress: pytest.fail("applied"))
    paths.config_file.write_text("limits: {memry: 1}")
    assert "limits.memory" in illumidesk("config", "reload").err


def test_config_reload_gives_up(illumidesk: Run, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("illumidesk.host.install.apply_settings", lambda paths, progress: [])
    hub.healthy = False
    result = illumidesk("config", "reload", "--timeout", "0")
    assert (result.code, "journalctl -u illumidesk-hub" in result.err) == (1, True)


# Status


class Systemd:
    """A `systemctl` on the PATH that prints what it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program = folder / "systemctl"
        program.write_text(f'#!/bin/sh\nexec cat "{folder}/answer"\n')
        program.chmod(0o755)
        self.show()

    def show(self, *blocks: str) -> None:
        (self.folder / "answer").write_text("\n".join(blocks))


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Systemd(tmp_path)


def block(unit: str, *, state: str = "active", sub: str = "running", pid: int = 0, **more: str) -> str:
    properties = {
        "Id": unit, "LoadState": "loaded", "ActiveState": state, "SubState": sub, "Result": "success",
        "MainPID": str(pid), "NRestarts": "0", "MemoryCurrent": str(300 << 20), "MemoryMax": str(1 << 30),
        "StateChangeTimestampMonotonic": str(int((time.monotonic() - 300) * 1e6)),
        "CPUUsageNSec": "5000000000", "TasksCurrent": "12",
    }  # fmt: skip
    return "".join(f"{key}={value}\n" for key, value in (properties | more).items())


def server(name: str, *, pid: int = 4242, **more: str) -> str:
    return block(f"jupyter-{name}.service", pid=pid, **more)


SERVICES = [block(f"illumidesk-{name}.service", pid=1) for name in ("proxy", "hub", "supervisor")]


def test_status(illumidesk: Run, hub: FakeHub, systemd: Systemd) -> None:
    hub.add_person("alice", active=True)
    hub.add_person("bob")
    hub.add_course("bio101", "Biology", grader=True, alice="student", bob="student")
    systemd.show(
        *SERVICES,
        block("illumidesk-users.slice", MemoryCurrent=str(2 << 30), MemoryMax="infinity"),
        server("alice"),
        server("bob", state="failed", sub="failed", Result="oom-kill"),
        block("illumidesk-grader@bio101.service", pid=5),
    )
    result = illumidesk("status")
    assert (result.code, result.err) == (0, "")
    assert "0.1.0: the hub answers" in result.out
    assert "1 person online" in result.out
    assert "failed (oom-kill)" in result.out
    assert re.search(r"alice +active +5 min +300 MiB +1.0 GiB +0% +bio101", result.out)
    assert re.search(r"bio101 +active +300 MiB +0% +2 +900 MiB", result.out)
    assert max(map(len, result.out.splitlines())) <= 80
    assert "\x1b" not in result.out

    report = illumidesk("status", "--json").json()
    assert report["ok"]
    assert report["people_online"] == 1
    assert report["people"][0]["memory"] == 300 << 20
    assert 290 < report["people"][0]["since"] < 330
    assert report["courses"][0] | {"grader": None} == {
        "course_id": "bio101", "title": "Biology", "grader": None, "members_online": 2,
        "memory": 900 << 20, "cpu_percent": 0.0,
    }  # fmt: skip
    assert report["class"] == {"memory": 2 << 30, "memory_limit": None, "cpu_percent": 0.0}
    assert report["host"]["cores"] >= 1
    # bob's server has failed, so it says nothing of what the next one will need.
    assert report["room"] | {"people": 0} == {"people": 0, "per_person": 300 << 20, "measured": 1, "bound": "machine"}
    assert report["room"]["people"] == report["host"]["memory_available"] // (300 << 20)
    assert re.search(r"Room for: +\d+ more (person|people) at 300 MiB each \(an estimate: 1 at work\)", result.out)


def test_status_with_nobody_online_and_a_class_that_is_full(illumidesk: Run, hub: FakeHub, systemd: Systemd) -> None:
    systemd.show(*SERVICES, block("illumidesk-users.slice", MemoryCurrent="0", MemoryMax=str(600 << 20)))
    assert "Room for:    2 more people at 256 MiB each (an estimate: nobody at work)" in illumidesk("status").out
    systemd.show(*SERVICES, block("illumidesk-users.slice", MemoryCurrent=str(700 << 20), MemoryMax=str(600 << 20)))
    report = illumidesk("status", "--json").json()
    assert report["room"] == {"people": 0, "per_person": 256 << 20, "measured": 0, "bound": "class"}


@pytest.mark.parametrize(
    ("used", "limit", "memory", "found"),
    [
        # What ends first counts: the machine's memory, here of 10 GiB, or the limit of all servers.
        ((500, 300), None, None, Room(25, 400 << 20, 2, "machine")),
        ((500, 300), 20 << 10, 800, Room(25, 400 << 20, 2, "machine")),
        ((500, 300), 8 << 10, 800, Room(18, 400 << 20, 2, "class")),
        # A few idle servers say little; five say enough.
        ((140,) * 4, None, None, Room(40, PER_PERSON, 4, "machine")),
        ((140,) * 5, None, None, Room(73, 140 << 20, 5, "machine")),
        # A server that has just been started is left out.
        ((500, 300, 3), 8 << 10, 803, Room(18, 400 << 20, 2, "class")),
        ((3,), 8 << 10, None, Room(32, PER_PERSON, 0, "class")),
    ],
)
def test_how_many_more_fit(used: tuple[int, ...], limit: int | None, memory: int | None, found: Room) -> None:
    mib = 1 << 20
    left = room(
        [one * mib for one in used],
        available=10 << 30,
        class_limit=limit and limit * mib,
        class_memory=memory and memory * mib,
    )
    assert left == found


def test_status_shows_fork_servers_beside_the_services(illumidesk: Run, hub: FakeHub, systemd: Systemd) -> None:
    systemd.show(*SERVICES, block("illumidesk-forkserver@default.service", state="failed", sub="failed", pid=7))
    result = illumidesk("status")
    # Without it servers start, slower.
    assert result.code == 0
    assert "illumidesk-forkserver@default" in result.out
    report = illumidesk("status", "--json").json()
    assert [one["name"] for one in report["fork_servers"]] == ["default"]
    assert len(report["services"]) == 3


def test_status_while_the_hub_is_down(illumidesk: Run, systemd: Systemd) -> None:
    services = [
        SERVICES[0],
        block("illumidesk-hub.service", state="failed", sub="failed", Result="exit-code"),
        SERVICES[2],
    ]
    systemd.show(*services, server("alice"))
    result = illumidesk("status")
    assert (result.code, result.err) == (3, "")
    assert "does NOT answer" in result.out
    assert "sudo systemctl status illumidesk-hub" in result.out
    assert "failed (exit-code)" in result.out
    assert "alice" in result.out
    report = illumidesk("status", "--json")
    assert report.code == 3
    assert report.json()["hub"]["answers"] is False
    assert report.json()["people"][0]["name"] == "alice"


def test_status_where_nothing_is_installed(illumidesk: Run, systemd: Systemd) -> None:
    systemd.show(block("illumidesk-hub.service", state="inactive", sub="dead", LoadState="not-found"))
    result = illumidesk("status")
    assert result.code == 3
    assert "not-found" in result.out


def test_status_without_systemd(illumidesk: Run, hub: FakeHub, systemd: Systemd) -> None:
    (systemd.folder / "systemctl").write_text("#!/bin/sh\nexit 1\n")
    result = illumidesk("status")
    assert result.code == 3
    assert "systemd does not answer" in result.out


def test_figures_come_from_the_processes_where_systemd_has_none(illumidesk: Run, systemd: Systemd) -> None:
    unknown = {"MemoryCurrent": "[not set]", "CPUUsageNSec": "18446744073709551615", "TasksCurrent": "[not set]"}
    systemd.show(*SERVICES, server("alice", pid=os.getpid(), **unknown), server("bob", pid=2**22 + 1, **unknown))
    alice, bob = illumidesk("status", "--json").json()["people"]
    assert alice["memory"] > 1 << 20
    assert alice["cpu"] > 0
    assert alice["cpu_percent"] is not None
    assert alice["tasks"] is None
    assert bob["memory"] == 0


# Logs and removal


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    commands: list[list[str]] = []
    monkeypatch.setattr(os, "execvp", lambda program, command: commands.append(command))
    return commands


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "--unit illumidesk-hub.service --unit illumidesk-proxy.service --unit illumidesk-supervisor.service"
             " --lines 100"),
        ("hub -f", "--unit illumidesk-hub.service --lines 100 --follow"),
        ("proxy -n 5 --since -1h", "--unit illumidesk-proxy.service --lines 5 --since=-1h"),
        ("supervisor --since today", "--unit illumidesk-supervisor.service --since=today"),
        ("user alice --json", "--unit jupyter-alice.service --lines 100 --output json"),
        ("course bio101", "--unit illumidesk-grader@bio101.service --lines 100"),
    ],
)  # fmt: skip
def test_logs(illumidesk: Run, executed: list[list[str]], words: str, expected: str) -> None:
    assert illumidesk("logs", *words.split()).code == 0
    assert executed == [["journalctl", "--no-pager", *expected.split()]]


def test_logs_without_journalctl(illumidesk: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "journalctl is not on this machine" in illumidesk("logs").err


def test_uninstall_asks(illumidesk: Run, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    done: list[bool] = []
    monkeypatch.setattr("illumidesk.host.uninstall.uninstall", lambda paths, *, purge: done.append(purge))
    assert illumidesk("uninstall", typed="y\n").code == 1
    purge = illumidesk("uninstall", "--purge", typed="uninstall\n")
    assert "DELETED" in purge.err
    assert done == []
    illumidesk("uninstall", typed="uninstall\n")
    illumidesk("uninstall", "--purge", "--yes")
    assert done == [False, True]
