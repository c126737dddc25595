"""The supervisor's door, its verbs over plain processes, and the client, through a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from illumidesk.errors import IllumiDeskError
from illumidesk.paths import Paths
from illumidesk.supervisor import acl, files, policy, server
from illumidesk.supervisor.client import SupervisorClient
from illumidesk.supervisor.verbs import Supervisor
from tests.support.process_units import PrivateAccounts, ProcessUnits

PROGRAM = '#!/bin/sh\necho "$@" > ~/arguments\n[ -n "$EXIT" ] && exit "$EXIT"\nexec sleep 60\n'


@dataclass
class Room:
    paths: Paths
    client: SupervisorClient
    units: ProcessUnits
    accounts: PrivateAccounts
    supervisor: Supervisor


@pytest.fixture
def root() -> Iterator[Path]:
    # short, for the sake of socket paths
    with tempfile.TemporaryDirectory(prefix="s") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
async def room(root: Path) -> AsyncIterator[Room]:
    paths = Paths(root)
    for folder in (paths.home, paths.exchange, paths.run):
        folder.mkdir(parents=True)
    program = paths.environments / "default/bin/jupyterhub-singleuser"
    program.parent.mkdir(parents=True)
    program.write_text(PROGRAM)
    for path in (paths.opt, *paths.opt.rglob("*")):
        path.chmod(0o755)
    units, accounts = ProcessUnits(paths, stop_timeout=2), PrivateAccounts(paths)
    supervisor = Supervisor(paths, units, accounts, owner=os.getuid())
    http = server.make_server(supervisor, units, {os.getuid()})
    http.add_socket(server.bind(paths.supervisor_socket, os.getgid()))
    async with SupervisorClient(paths.supervisor_socket, patience=0) as client:
        yield Room(paths, client, units, accounts, supervisor)
        for state in units.snapshot():
            await units.stop(state.unit)
        http.stop()
        await http.close_all_connections()
        supervisor.close()


async def until(condition: Any, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


# The door


def test_the_socket_is_the_groups(root: Path) -> None:
    path = root / "a.sock"
    for _ in range(2):  # an old one is replaced
        with server.bind(path, os.getgid()):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
    path.unlink()
    path.write_text("precious")
    with pytest.raises(IllumiDeskError, match="in the way"):
        server.bind(path, os.getgid())


def test_who_called_is_known() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert server.peer_uid(one) == os.getuid()


_ASK = """
import os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
try:
    s.sendall(b"POST /v1/units HTTP/1.0\\r\\nContent-Length: 2\\r\\n\\r\\n{}")
    print(s.recv(12))
except OSError:
    print(b"")
"""


async def test_another_account_is_turned_away(room: Room) -> None:
    room.paths.supervisor_socket.chmod(0o666)

    async def ask(uid: int) -> str:
        child = await asyncio.create_subprocess_exec(
            "/usr/bin/python3", "-c", _ASK, str(room.paths.supervisor_socket), str(uid), stdout=subprocess.PIPE
        )
        output, _ = await child.communicate()
        return output.decode().strip()

    assert await ask(0) == "b'HTTP/1.1 200'"
    assert await ask(12345) == "b''"
    assert await ask(65534) == "b''"


async def raw(room: Room, request: bytes) -> tuple[int, Any]:
    reader, writer = await asyncio.open_unix_connection(str(room.paths.supervisor_socket))
    with contextlib.suppress(ConnectionError):
        writer.write(request)
        await writer.drain()
    head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), json.loads(body) if body else None


def post(target: str, body: bytes) -> bytes:
    return b"POST %s HTTP/1.0\r\nContent-Length: %d\r\n\r\n%s" % (target.encode(), len(body), body)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post("/v1/nothing", b"{}"), 404),
        (post("/v1/call", b"{}"), 404),
        (post("/v1/_stop", b"{}"), 404),
        (post("/v2/units", b"{}"), 404),
        (post("/", b"{}"), 404),
        (b"GET /v1/units HTTP/1.0\r\n\r\n", 405),
        (b"GET /none HTTP/1.0\r\n\r\n", 404),
        (post("/v1/units", b""), 400),
        (post("/v1/units", b"[]"), 400),
        (post("/v1/units", b"{"), 400),
        (post("/v1/units", b"\xff"), 400),
        (post("/v1/units", b'{"x": 1}'), 400),
        (post("/v1/units", b"[" * 100_000), 400),
        (post("/v1/ensure_account", b'{"name": "root"}'), 400),
        (post("/v1/ensure_account", b'{"name": null}'), 400),
    ],
)
async def test_what_is_not_a_request_is_refused(room: Room, request_: bytes, status: int) -> None:
    found, answer = await raw(room, request_)
    assert found == status
    assert set(answer) == {"message", "hint"}
    assert answer["message"]


async def test_a_large_request_is_refused(room: Room) -> None:
    # cut off, or told so first
    with contextlib.suppress(OSError, IndexError):
        found, _ = await raw(room, post("/v1/units", b" " * (policy.MAX_BODY + 1)))
        assert found >= 400
    assert await room.client.units() == []


async def test_a_bug_tells_nothing(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("s3cret")

    monkeypatch.setattr(room.units, "measured", broken)
    with pytest.raises(IllumiDeskError, match="the supervisor failed") as error:
        await room.client.units()
    assert error.value.status == 500
    assert "s3cret" not in error.value.message + error.value.hint


# The verbs


async def test_an_account_and_its_server(room: Room) -> None:
    made = await room.client.ensure_account("alice")
    assert made["created"]
    assert not (await room.client.ensure_account("alice"))["created"]
    started = await room.client.start_server(
        "alice", environment="default", arguments=["--A.b=c d"], variables={"TOKEN": "s3cret"}, memory=1 << 30
    )
    assert started == {
        "unit": "jupyter-alice.service",
        "socket": str(room.paths.server_socket("alice")),
        "uid": os.getuid(),
    }
    folder = room.paths.server_socket("alice").parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o2750
    file = room.paths.unit_environments / "jupyter-alice.service.env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert file.read_text() == 'TOKEN="s3cret"\n'
    (unit,) = await room.client.units()
    assert (unit["unit"], unit["kind"], unit["name"], unit["active_state"]) == (
        "jupyter-alice.service",
        "server",
        "alice",
        "active",
    )
    await until((Path(made["home"]) / "arguments").is_file)
    assert (Path(made["home"]) / "arguments").read_text() == "--A.b=c d\n"
    await room.client.stop_server("alice")
    await room.client.stop_server("alice")
    assert await room.client.units() == []
    assert not file.exists()


async def test_a_start_replaces_what_runs(room: Room) -> None:
    await room.client.ensure_account("alice")
    (room.paths.server_socket("alice").parent / "deep").mkdir(parents=True)
    await asyncio.gather(*(room.client.start_server("alice", environment="default") for _ in range(5)))
    (unit,) = await room.client.units()
    assert unit["active_state"] == "active"
    assert list(room.paths.server_socket("alice").parent.iterdir()) == []


async def test_forty_start_at_once(room: Room) -> None:
    names = [f"student{number}" for number in range(40)]
    await asyncio.gather(*(room.client.ensure_account(name) for name in names))
    await asyncio.gather(*(room.client.start_server(name, environment="default") for name in names))
    assert {unit["active_state"] for unit in await room.client.units()} == {"active"}


async def test_a_crash_is_seen(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("illumidesk.supervisor.verbs._GRACE", 0.1)
    await room.client.ensure_account("alice")
    await room.client.start_server("alice", environment="default", variables={"EXIT": "7"})
    await until(lambda: room.units.snapshot()[0].active_state == "failed")
    (unit,) = await room.client.units()
    assert (unit["result"], unit["exit_status"], unit["main_pid"]) == ("exit-code", 7, 0)
    await until(lambda: not any(room.paths.unit_environments.iterdir()))


async def test_a_program_that_cannot_run_leaves_no_environment(room: Room) -> None:
    await room.client.ensure_account("alice")
    (room.paths.environments / "default/bin/jupyterhub-singleuser").write_text("#!/none\n")
    with pytest.raises(IllumiDeskError) as error:
        await room.client.start_server("alice", environment="default", variables={"TOKEN": "s3cret"})
    assert error.value.status == 500
    assert list(room.paths.unit_environments.iterdir()) == []


async def test_who_has_no_account_gets_no_server(room: Room) -> None:
    for name in ("alice", "daemon"):
        with pytest.raises(IllumiDeskError) as error:
            await room.client.start_server(name, environment="default")
        assert error.value.status == 404
    await room.client.ensure_account("alice")
    with pytest.raises(IllumiDeskError) as error:
        await room.client.start_server("alice", environment="none")
    assert error.value.status == 404
    assert not room.paths.unit_environments.exists()


async def test_a_retired_account(room: Room) -> None:
    await room.client.ensure_account("alice")
    await room.client.start_server("alice", environment="default")
    await room.client.retire_account("alice")
    assert await room.client.units() == []
    with pytest.raises(IllumiDeskError) as error:
        await room.client.start_server("alice", environment="default")
    assert error.value.status == 403
    with pytest.raises(IllumiDeskError) as error:
        await room.client.ensure_account("alice")
    assert error.value.status == 409
    await room.client.ensure_account("alice", restore=True)


async def test_a_course(room: Room) -> None:
    made = await room.client.ensure_course("intro101")
    assert made == {
        "course_id": "intro101",
        "account": "grader-intro101",
        "home": str(room.paths.home / "grader-intro101"),
        "created": True,
    }
    home, exchange = Path(made["home"]), room.paths.exchange / "intro101"
    modes = {path: stat.S_IMODE((exchange / path).stat().st_mode) for path in (".", "outbound", "inbound", "feedback")}
    assert modes == {".": 0o2750, "outbound": 0o750, "inbound": 0o1730, "feedback": 0o710}
    grader = (home / ".jupyter/nbgrader_config.py").read_text()
    assert f'c.CourseDirectory.root = "{home}/intro101"' in grader
    assert "$" not in grader
    course = home / "intro101/nbgrader_config.py"
    assert 'c.CourseDirectory.course_id = "intro101"' in course.read_text()
    course.write_text("# mine")
    (home / ".jupyter/nbgrader_config.py").write_text("# broken")
    assert not (await room.client.ensure_course("intro101"))["created"]
    assert course.read_text() == "# mine"
    assert (home / ".jupyter/nbgrader_config.py").read_text() == grader


async def test_a_link_in_place_of_a_courses_folder(room: Room, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    (room.paths.exchange / "intro101").symlink_to(target)
    await room.client.ensure_course("intro101")
    assert not (room.paths.exchange / "intro101").is_symlink()
    assert list(target.iterdir()) == []
    (aside,) = room.paths.exchange.glob("intro101.squatted-*")
    assert aside.is_symlink()


async def test_a_link_inside_a_courses_folder_is_refused(room: Room, tmp_path: Path) -> None:
    await room.client.ensure_course("intro101")
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    inbound = room.paths.exchange / "intro101/inbound"
    inbound.rmdir()
    inbound.symlink_to(target)
    with pytest.raises(IllumiDeskError, match="in the way"):
        await room.client.ensure_course("intro101")
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert (room.paths.exchange / "intro101").is_dir()


async def test_released_assignments(room: Room, tmp_path: Path) -> None:
    with pytest.raises(IllumiDeskError) as error:
        await room.client.assignments("intro101")
    assert error.value.status == 404
    await room.client.ensure_course("intro101")
    assert await room.client.assignments("intro101") == []
    outbound = room.paths.exchange / "intro101/outbound"
    (tmp_path / "elsewhere").mkdir()
    for name in ("ps2", "ps1", "Übung 1", ".hidden", "a+b", " blank", "x" * 101, "line\nfeed", "back\\slash"):
        (outbound / name).mkdir()
    (outbound / os.fsdecode(b"not-\xff-utf8")).mkdir()
    (outbound / "file").write_text("")
    (outbound / "link").symlink_to(tmp_path / "elsewhere")
    (outbound / "dangling").symlink_to(tmp_path / "none")
    assert await room.client.assignments("intro101") == ["ps1", "ps2", "Übung 1"]


async def test_released_assignments_are_those_of_the_courses_own_folder(room: Room, tmp_path: Path) -> None:
    await room.client.ensure_course("intro101")
    (tmp_path / "secret").mkdir()
    outbound = room.paths.exchange / "intro101/outbound"
    outbound.rmdir()
    outbound.symlink_to(tmp_path)
    assert await room.client.assignments("intro101") == []
    outbound.unlink()
    outbound.write_text("")
    assert await room.client.assignments("intro101") == []
    (room.paths.exchange / "intro101").rename(room.paths.exchange / "aside")
    (room.paths.exchange / "intro101").symlink_to(tmp_path)
    assert await room.client.assignments("intro101") == []
    for course_id in ("../intro101", "intro101/..", "", "INTRO101"):
        with pytest.raises(IllumiDeskError) as error:
            await room.client.assignments(course_id)
        assert error.value.status == 400


async def test_membership(room: Room) -> None:
    await room.client.ensure_account("alice")
    with pytest.raises(IllumiDeskError):
        await room.client.set_membership("intro101", "alice", member=True)
    await room.client.ensure_course("intro101")
    with pytest.raises(IllumiDeskError):
        await room.client.set_membership("intro101", "bob", member=True)
    for member, wanted in ((True, ["alice"]), (True, ["alice"]), (False, []), (False, [])):
        await room.client.set_membership("intro101", "alice", member=member)
        assert room.accounts.members("intro101") == wanted


async def test_a_running_server_is_let_in_and_out_at_once(room: Room) -> None:
    """The account is the folder's owner here, so only the entries are looked at; the system tests try the doors."""
    await room.client.ensure_account("alice")
    await room.client.ensure_course("intro101")
    folders = {name: room.paths.exchange / "intro101" / name for name in (".", "outbound", "inbound", "feedback")}

    def entries() -> dict[str, dict[int, int]]:
        found = {}
        for name, path in folders.items():
            with files.open_folder(path) as fd:
                found[name] = acl.entries(fd)
        return found

    def all_have(*permissions: int) -> dict[str, dict[int, int]]:
        return {name: {os.getuid(): each} for name, each in zip(folders, permissions, strict=True)}

    nobody: dict[str, dict[int, int]] = {name: {} for name in folders}
    await room.client.set_membership("intro101", "alice", member=True)
    assert entries() == nobody
    await room.client.start_server("alice", environment="default")
    await room.client.set_membership("intro101", "alice", member=False)
    assert entries() == all_have(0, 0, 0, 0)
    await room.client.set_membership("intro101", "alice", member=True)
    assert entries() == all_have(5, 5, 3, 1)
    await room.client.start_server("alice", environment="default")
    assert entries() == nobody


async def test_a_shared_folder(room: Room, tmp_path: Path) -> None:
    await room.client.ensure_course("intro101")
    folder = room.paths.shared / "intro101"
    assert stat.S_IMODE(room.paths.shared.stat().st_mode) == 0o755
    assert stat.S_IMODE(folder.stat().st_mode) == 0o2770
    old = os.umask(0o077)
    try:
        (folder / "week1").mkdir()
        (folder / "week1/data.csv").write_text("1,2")
    finally:
        os.umask(old)
    # Whoever comes that far may read, whatever the umask of the one who wrote
    assert stat.S_IMODE((folder / "week1").stat().st_mode) == 0o2775
    assert stat.S_IMODE((folder / "week1/data.csv").stat().st_mode) == 0o664
    folder.chmod(0o777)
    await room.client.ensure_course("intro101")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o2770
    # Nobody can put a link there but root; should one be there, it is not followed
    folder.rename(room.paths.shared / "aside")
    (tmp_path / "target").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "target")
    with pytest.raises(IllumiDeskError, match="in the way"):
        await room.client.ensure_course("intro101")
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o700


async def test_who_writes_a_shared_folder(room: Room) -> None:
    await room.client.ensure_account("alice")
    await room.client.ensure_course("intro101")
    await room.client.ensure_course("cs-102")
    alice = room.accounts.person("alice")
    courses = room.supervisor._courses
    await room.client.set_membership("intro101", "alice", member=True, staff=True)
    await room.client.set_membership("cs-102", "alice", member=True)
    assert courses.writable(alice) == (room.paths.shared / "intro101",)
    await room.client.set_membership("intro101", "alice", member=False, staff=True)
    assert room.accounts.staff("intro101") == []
    assert courses.writable(alice) == ()


async def test_a_running_server_and_a_shared_folder(room: Room) -> None:
    await room.client.ensure_account("alice")
    await room.client.ensure_course("intro101")

    def entry() -> int | None:
        with files.open_folder(room.paths.shared / "intro101") as fd:
            return acl.entries(fd).get(os.getuid())

    async def becomes(*, member: bool = True, staff: bool = False) -> int | None:
        await room.client.set_membership("intro101", "alice", member=member, staff=staff)
        return entry()

    assert await becomes() is None
    await room.client.start_server("alice", environment="default")
    assert await becomes() == 5
    assert await becomes(staff=True) == 7
    # It may still have the group that writes below the folder, so it is shut out until its next start
    assert await becomes() == 0
    assert await becomes() == 0
    assert await becomes(member=False) == 0
    assert await becomes() == 0
    await room.client.start_server("alice", environment="default")
    assert entry() is None
    assert await becomes() == 5


async def test_a_grader(room: Room) -> None:
    await room.client.ensure_course("intro101")
    started = await room.client.start_grader(
        "intro101", environment="default", arguments=["--A.b=two words"], variables={"TOKEN": "x"}
    )
    assert started["unit"] == "illumidesk-grader@intro101.service"
    text = (room.paths.unit_environments / "illumidesk-grader@intro101.service.env").read_text()
    assert f'ILLUMIDESK_COMMAND="{room.paths.environments}/default/bin/jupyterhub-singleuser"\n' in text
    assert 'ILLUMIDESK_ARGUMENTS="--A.b=two\\\\ words"\n' in text
    await room.client.stop_grader("intro101")
    assert await room.client.units() == []


async def test_a_removed_course(room: Room) -> None:
    made = await room.client.ensure_course("intro101")
    await room.client.start_grader("intro101", environment="default")
    (Path(made["home"]) / "link").symlink_to("/etc/passwd")
    (room.paths.shared / "intro101/slides.md").write_text("# Day 1")
    archive = Path(await room.client.remove_course("intro101"))
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    assert stat.S_IMODE(archive.parent.stat().st_mode) == 0o700
    assert archive.parent == room.paths.archive / "courses"
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
        assert tar.getmember("home/grader-intro101/link").issym()
    assert {"home/grader-intro101/intro101/nbgrader_config.py", "srv/nbgrader/exchange/intro101/inbound"} <= names
    assert "srv/nbgrader/shared/intro101/slides.md" in names
    assert not (room.paths.shared / "intro101").exists()
    assert not Path(made["home"]).exists()
    assert not (room.paths.exchange / "intro101").exists()
    assert await room.client.units() == []
    # whoever was killed before the answer asks again
    assert await room.client.remove_course("intro101") == str(archive)
    with pytest.raises(IllumiDeskError) as error:
        await room.client.remove_course("intro")
    assert error.value.status == 404


async def test_a_removal_that_fails_is_finished_by_the_next(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    await room.client.ensure_course("intro101")

    def broken(course_id: str) -> None:
        raise IllumiDeskError("killed", status=500)

    with monkeypatch.context() as patch:
        patch.setattr(room.accounts, "remove_grader", broken)
        with pytest.raises(IllumiDeskError, match="killed"):
            await room.client.remove_course("intro101")
    with pytest.raises(IllumiDeskError, match="being removed"):
        await room.client.ensure_course("intro101")
    (archive,) = (room.paths.archive / "courses").glob("intro101-*")
    assert await room.client.remove_course("intro101") == str(archive)
    assert list((room.paths.archive / "courses").iterdir()) == [archive]
    assert (await room.client.ensure_course("intro101"))["created"]


async def test_an_archive_that_fails_removes_nothing(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await room.client.ensure_course("intro101")

    def full(*args: Any, **kwargs: Any) -> str:
        raise IllumiDeskError("tar failed: no space left on device", status=500)

    with monkeypatch.context() as patch:
        patch.setattr("illumidesk.supervisor.files.run", full)
        with pytest.raises(IllumiDeskError, match="no space"):
            await room.client.remove_course("intro101")
    assert Path(made["home"]).is_dir()
    assert list((room.paths.archive / "courses").iterdir()) == []
    await room.client.remove_course("intro101")


async def test_the_folder_of_sockets_is_made_again(room: Room) -> None:
    await room.client.ensure_account("ann")
    folder = room.paths.server_socket("ann").parent.parent
    before = os.umask(0o077)  # as the supervisor's
    try:
        await room.client.start_server("ann", environment="default")
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o711


async def test_a_full_disk_is_one_sentence(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/run/illumidesk")

    monkeypatch.setattr("illumidesk.supervisor.files.write_file", full)
    await room.client.ensure_account("ann")
    with pytest.raises(IllumiDeskError, match="/run/illumidesk: No space left on device"):
        await room.client.start_server("ann", environment="default")


async def test_the_machines_figures(room: Room) -> None:
    found = await room.client.host()
    assert found["memory_total"] > found["memory_available"] > 0
    assert len(found["load"]) == 3
    assert found["uptime"] > 0


# Events


async def test_events(room: Room) -> None:
    for name in ("alice", "bob"):
        await room.client.ensure_account(name)
    await room.client.start_server("alice", environment="default")
    events: list[dict[str, Any]] = []

    async def read() -> None:
        async for event in room.client.events():
            events.append(event)

    reader = asyncio.create_task(read())
    await until(lambda: {"event": "ready"} in events)
    assert [event["event"] for event in events] == ["unit", "ready"]
    assert (events[0]["name"], events[0]["active_state"]) == ("alice", "active")
    await room.client.start_server("bob", environment="default")
    await room.client.stop_server("alice")
    told = lambda name: [event["active_state"] for event in events[2:] if event.get("name") == name]  # noqa: E731
    await until(lambda: told("alice") and told("alice")[-1] == "inactive" and told("bob"))
    assert told("bob") == ["activating", "active"]
    assert told("alice") == ["deactivating", "inactive"]
    reader.cancel()


async def test_a_ping_comes_now_and_then(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PING_INTERVAL", 0.05)
    reader, writer = await asyncio.open_unix_connection(str(room.paths.supervisor_socket))
    writer.write(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(5):
        await reader.readuntil(b'{"event": "ping"}\n')
        await reader.readuntil(b'{"event": "ping"}\n')
    writer.close()


async def test_nobody_there(root: Path) -> None:
    async with SupervisorClient(root / "none.sock", patience=0.3) as client:
        started = time.monotonic()
        with pytest.raises(IllumiDeskError, match="does not answer") as error:
            await client.units()
        assert error.value.status == 503
        assert "systemctl status illumidesk-supervisor" in error.value.hint
        assert 0.3 <= time.monotonic() - started < 3


async def test_a_restart_is_survived(root: Path) -> None:
    """The process that tests run, killed and started again: calls wait, events go on, servers live."""
    paths = Paths(root)
    program = paths.environments / "default/bin/jupyterhub-singleuser"
    program.parent.mkdir(parents=True)
    program.write_text(PROGRAM)
    for path in (paths.opt, *paths.opt.rglob("*")):
        path.chmod(0o755)
    script = Path(__file__).resolve().parents[1] / "support/run_supervisor.py"

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, str(script), str(root)], stderr=subprocess.DEVNULL)

    process = start()
    events: list[str] = []

    async def read(client: SupervisorClient) -> None:
        async for event in client.events():
            events.append(event["event"])

    try:
        async with SupervisorClient(paths.supervisor_socket, patience=15) as client:
            await client.ensure_account("alice")
            await client.start_server("alice", environment="default")
            (before,) = await client.units()
            reader = asyncio.create_task(read(client))
            await until(lambda: "ready" in events)
            process.kill()
            process.wait()
            process = start()
            (after,) = await client.units()
            assert (after["active_state"], after["main_pid"]) == ("active", before["main_pid"])
            await until(lambda: events.count("ready") == 2)
            assert "lost" in events
            await client.stop_server("alice")
            reader.cancel()
    finally:
        process.terminate()
        assert process.wait(10) == 0
