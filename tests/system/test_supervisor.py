"""The supervisor on a real machine: systemd, accounts, folders, and what a person's own program cannot do there.

A person's program is run where their server would be: a `sitecustomize` on PYTHONPATH takes the place of
jupyterhub-singleuser in the very unit that the supervisor starts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import units_contract

if TYPE_CHECKING:
    from tests.support.classroom import Classroom

pytestmark = pytest.mark.smoke

HUB = "illumidesk-hub"
# Accounts are never removed, and a machine may see the tests twice
RUN = format(int(time.time()) % 36**4, "x")
SUPPORT = Path(__file__).resolve().parent.parent / "support"

_SITECUSTOMIZE = """
import os, sys
if "PROBE" not in os.environ:
    os.environ["PROBE"] = "1"
    os.execv(sys.executable, [sys.executable, os.path.expanduser("~/probe/main.py"), *sys.orig_argv[2:]])
"""
# Runs in the person's unit; what `check()` of the probe returns goes to ~/probe/answer.json
_MAIN = """
import json, os, traceback
home = os.path.expanduser("~/probe")
def attempt(function, *args, **kwargs):
    try:
        return repr(function(*args, **kwargs))
    except BaseException as error:
        return "refused: " + type(error).__name__ + " " + str(getattr(error, "errno", error))
def run(*argv):
    import subprocess
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return [done.returncode, done.stdout, done.stderr]
try:
    scope = {"attempt": attempt, "run": run}
    exec(open(home + "/probe.py").read(), scope)
    answer = scope["check"]()
except BaseException:
    answer = {"error": traceback.format_exc()}
with open(home + "/answer.new", "w") as file:
    json.dump(answer, file)
os.rename(home + "/answer.new", home + "/answer.json")
if isinstance(answer, dict) and answer.get("stay"):
    import time
    time.sleep(600)
os._exit(0)
"""


class Person:
    """Somebody with an account, whose programs run in their own unit."""

    def __init__(self, classroom: Classroom, name: str) -> None:
        self.classroom = classroom
        self.name = name
        self.home = f"/home/{name}"
        self.unit = f"jupyter-{name}.service"
        classroom.supervisor("ensure_account", as_user=HUB, name=name)

    def begin(self, code: str, **fields: Any) -> dict[str, Any]:
        """Start a server that is `code`, which defines `check()`."""
        self.write("probe/sitecustomize.py", _SITECUSTOMIZE)
        self.write("probe/main.py", _MAIN)
        self.write("probe/probe.py", code)
        self.run("rm", "-f", f"{self.home}/probe/answer.json")
        variables = {"PYTHONPATH": f"{self.home}/probe", "SECRET": "s3cret-of-" + self.name}
        variables |= fields.pop("variables", {})
        return self.classroom.supervisor(
            "start_server", as_user=HUB, name=self.name, environment="default", variables=variables, **fields
        )

    def answer(self, seconds: float = 60) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            done = self.run("cat", f"{self.home}/probe/answer.json", check=False)
            if done.returncode == 0:
                found = json.loads(done.stdout)
                assert not (isinstance(found, dict) and "error" in found), found["error"]
                return found
            time.sleep(0.2)
        raise AssertionError(self.classroom.machine.run(["journalctl", "-u", self.unit, "-n", "50"]).stdout)

    def ask(self, code: str, **fields: Any) -> Any:
        """What `check()` in `code` returns when it runs as this person's server."""
        self.begin(code, **fields)
        return self.answer()

    def write(self, name: str, text: str) -> None:
        script = 'mkdir -p "$(dirname "$1")" && cat > "$1"'
        self.run("sh", "-c", script, "sh", f"{self.home}/{name}", input=text)

    def run(self, *argv: str, check: bool = True, input: str | None = None) -> Any:
        """Run a command as the person, outside of any unit of ours."""
        return self.classroom.machine.run(list(argv), user=self.name, check=check, input=input)


def root(classroom: Classroom, *argv: str, check: bool = True) -> str:
    done = classroom.machine.run(list(argv), check=check)
    return str(done.stdout)


def shell(classroom: Classroom, script: str) -> str:
    return root(classroom, "bash", "-euc", script)


def refused(classroom: Classroom, verb: str, **fields: Any) -> tuple[int, str]:
    from tests.support.classroom import SupervisorRefused

    with pytest.raises(SupervisorRefused) as error:
        classroom.supervisor(verb, as_user=HUB, **fields)
    return error.value.status, error.value.message


def states(classroom: Classroom) -> dict[str, dict[str, Any]]:
    return {unit["unit"]: unit for unit in classroom.supervisor("units", as_user=HUB)["units"]}


def until(condition: Any, seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found or time.monotonic() > deadline:
            assert found
            return found
        time.sleep(0.2)


@pytest.fixture(scope="module")
def ann(classroom: Classroom) -> Person:
    return Person(classroom, "sup-ann")


@pytest.fixture(scope="module")
def bob(classroom: Classroom) -> Iterator[Person]:
    person = Person(classroom, "sup-bob")
    stay = """
def check():
    for name in ("/dev/shm/of-bob", "/tmp/of-bob"): open(name, "w").close()
    return {"stay": 1}
"""
    person.begin(stay)
    person.answer()
    yield person
    classroom.supervisor("stop_server", as_user=HUB, name=person.name)


@pytest.fixture(scope="module")
def course(classroom: Classroom) -> Iterator[str]:
    course_id = "sup-course"
    classroom.supervisor("ensure_course", as_user=HUB, course_id=course_id)
    yield course_id
    if classroom.machine.run(["id", f"grader-{course_id}"], check=False).returncode == 0:
        classroom.supervisor("remove_course", as_user=HUB, course_id=course_id)


# Units


@pytest.fixture(scope="module")
def contract(classroom: Classroom) -> dict[str, str]:
    classroom.machine.copy_in(SUPPORT / "units_contract.py", "/root/units_contract.py")
    done = classroom.machine.run(["/opt/illumidesk/hub/bin/python", "/root/units_contract.py"], check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("check", [check.__name__ for check in units_contract.CHECKS])
def test_systemd_keeps_the_contract(contract: dict[str, str], check: str) -> None:
    assert contract[check] == "", contract[check]


def test_forty_servers_start_at_once(classroom: Classroom) -> None:
    people = [Person(classroom, f"sup-many{number}") for number in range(40)]
    with ThreadPoolExecutor(40) as pool:
        list(pool.map(lambda person: person.begin("def check(): return {'stay': 1}\n"), people))
    found = states(classroom)
    assert {found[person.unit]["active_state"] for person in people} == {"active"}
    assert all(person.answer() for person in people)
    with ThreadPoolExecutor(40) as pool:
        stop = lambda person: classroom.supervisor("stop_server", as_user=HUB, name=person.name)  # noqa: E731
        list(pool.map(stop, people))
    assert not {person.unit for person in people} & states(classroom).keys()


def test_two_starts_of_one_server_leave_one(classroom: Classroom, ann: Person) -> None:
    code = "def check(): return {'stay': 1}\n"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: ann.begin(code), range(4)))
    assert states(classroom)[ann.unit]["active_state"] == "active"
    assert len(shell(classroom, f"pgrep -u {ann.name}").split()) == 1
    classroom.supervisor("stop_server", as_user=HUB, name=ann.name)


def test_a_crash_is_told_and_its_environment_is_removed(classroom: Classroom, ann: Person) -> None:
    ann.begin("def check():\n    import os; os._exit(7)\n")
    unit = until(lambda: (found := states(classroom).get(ann.unit)) and found["active_state"] == "failed" and found)
    assert (unit["result"], unit["exit_status"]) == ("exit-code", 7)
    until(lambda: ann.unit not in root(classroom, "ls", "/run/illumidesk/environment"))
    classroom.supervisor("stop_server", as_user=HUB, name=ann.name)
    assert ann.unit not in states(classroom)


def test_units_outlive_a_killed_supervisor(classroom: Classroom, ann: Person) -> None:
    ann.begin("def check(): return {'stay': 1}\n")
    ann.answer()
    pid = states(classroom)[ann.unit]["main_pid"]
    shell(classroom, "systemctl stop sup-events 2>/dev/null || true; rm -f /root/events")
    root(classroom, "systemd-run", "--unit=sup-events", "--collect", "sh", "-c", _EVENTS)
    ready = '"event": "ready"'
    until(lambda: ready in root(classroom, "cat", "/root/events", check=False))
    root(classroom, "systemctl", "kill", "--signal=KILL", "illumidesk-supervisor")
    until(lambda: root(classroom, "cat", "/root/events").count(ready) == 2)
    unit = states(classroom)[ann.unit]
    assert (unit["active_state"], unit["main_pid"]) == ("active", pid)
    root(classroom, "kill", "-9", str(pid))
    # Other people's servers may come and go meanwhile.
    until(
        lambda: '"active_state": "failed"' in root(classroom, "sh", "-c", f"grep {ann.unit} /root/events | tail -n 1")
    )
    root(classroom, "systemctl", "stop", "sup-events")
    root(classroom, "systemctl", "restart", "illumidesk-supervisor")
    assert states(classroom)[ann.unit]["exit_status"] == 137
    classroom.supervisor("stop_server", as_user=HUB, name=ann.name)


_EVENTS = """
exec > /root/events 2>&1
exec /opt/illumidesk/hub/bin/python -c '
import asyncio, json
from pathlib import Path
from illumidesk.supervisor.client import SupervisorClient
async def main():
    async for event in SupervisorClient(Path("/run/illumidesk/supervisor.sock")).events():
        print(json.dumps(event), flush=True)
asyncio.run(main())'
"""


def test_a_stopped_supervisor_leaves_units_alone(classroom: Classroom, ann: Person) -> None:
    ann.begin("def check(): return {'stay': 1}\n")
    ann.answer()
    root(classroom, "systemctl", "stop", "illumidesk-supervisor")
    try:
        assert root(classroom, "systemctl", "is-active", ann.unit).strip() == "active"
        root(classroom, "systemctl", "stop", ann.unit)
    finally:
        root(classroom, "systemctl", "start", "illumidesk-supervisor")
    # It ended while nobody looked; its environment goes all the same
    assert ann.unit not in states(classroom)
    assert ann.unit not in root(classroom, "ls", "/run/illumidesk/environment")


def test_a_reload_of_systemd_loses_nothing(classroom: Classroom, bob: Person) -> None:
    before = states(classroom)[bob.unit]
    root(classroom, "systemctl", "daemon-reload")
    root(classroom, "systemctl", "daemon-reexec")
    after = states(classroom)[bob.unit]
    assert (after["active_state"], after["main_pid"]) == (before["active_state"], before["main_pid"])


def test_a_unit_of_the_machine_is_left_alone(classroom: Classroom) -> None:
    person = Person(classroom, "sup-lab")
    text = "[Service]\nExecStart=/bin/sleep 600\n"
    classroom.machine.write_text(f"/etc/systemd/system/{person.unit}", text)
    try:
        root(classroom, "systemctl", "daemon-reload")
        assert refused(classroom, "start_server", name=person.name, environment="default")[0] == 409
        root(classroom, "systemctl", "start", person.unit)
        assert refused(classroom, "stop_server", name=person.name)[0] == 409
        assert refused(classroom, "start_server", name=person.name, environment="default")[0] == 409
        assert root(classroom, "systemctl", "is-active", person.unit).strip() == "active"
    finally:
        shell(
            classroom,
            f"systemctl stop {person.unit}; rm /etc/systemd/system/{person.unit}; systemctl daemon-reload",
        )


# Who may ask, and for what


_CONNECT = """
import socket
s = socket.socket(socket.AF_UNIX)
try:
    s.connect("/run/illumidesk/supervisor.sock")
    s.sendall(b"POST /v1/units HTTP/1.0\\r\\nContent-Length: 2\\r\\n\\r\\n{}")
    print("answered:", s.recv(20))
except OSError as error:
    print("refused:", type(error).__name__)
"""


def test_nobody_else_may_ask(classroom: Classroom, ann: Person) -> None:
    def ask(user: str) -> str:
        done = classroom.machine.run(["/usr/bin/python3", "-c", _CONNECT], user=user, cwd="/")
        return str(done.stdout).strip()

    assert ask(HUB) == "answered: b'HTTP/1.1 200 OK\\r\\nSer'"
    for user in (ann.name, "illumidesk-proxy", "nobody"):
        assert ask(user) == "refused: PermissionError"
    # and where the file's mode lets somebody through, the supervisor itself does not
    root(classroom, "chmod", "666", "/run/illumidesk/supervisor.sock")
    try:
        assert ask(ann.name) in ("answered: b''", "refused: ConnectionResetError", "refused: BrokenPipeError")
    finally:
        root(classroom, "chmod", "660", "/run/illumidesk/supervisor.sock")
    mode = shell(classroom, "stat -c '%a %U %G' /run/illumidesk/supervisor.sock").split()
    assert mode == ["660", "root", "illumidesk-hub"]


def test_accounts_of_the_machine_are_refused(classroom: Classroom) -> None:
    shell(classroom, "id sup-mine || useradd -m sup-mine; getent group sup-group || groupadd sup-group")
    for name in ("daemon", "sup-mine", "sup-group"):
        assert refused(classroom, "ensure_account", name=name)[0] == 409
        assert refused(classroom, "start_server", name=name, environment="default")[0] in (403, 404)
        assert refused(classroom, "retire_account", name=name)[0] in (403, 404)
    for name in ("root", "illumidesk-hub", "grader-x"):
        assert refused(classroom, "ensure_account", name=name)[0] == 400
    assert "illumidesk-people" not in root(classroom, "id", "sup-mine")


def test_only_built_environments_run(classroom: Classroom, ann: Person) -> None:
    ann.write("env/bin/jupyterhub-singleuser", "#!/bin/sh\nid\n")
    ann.run("chmod", "755", f"{ann.home}/env/bin/jupyterhub-singleuser")
    shell(classroom, f"ln -sfn {ann.home}/env /opt/illumidesk/envs/sup-linked")
    try:
        assert refused(classroom, "start_server", name=ann.name, environment="sup-linked")[0] == 403
        assert refused(classroom, "start_server", name=ann.name, environment="sup-none")[0] == 404
    finally:
        root(classroom, "rm", "/opt/illumidesk/envs/sup-linked")


# Accounts


def test_an_account_that_was_half_made_is_finished(classroom: Classroom) -> None:
    name = f"sup-half-{RUN}"
    made = classroom.supervisor("ensure_account", as_user=HUB, name=name)
    assert made["created"]
    shell(
        classroom,
        f"""
        rm -rf /home/{name}; gpasswd -d {name} illumidesk-people
        sed -i '/^{name}:/d' /etc/group /etc/gshadow
        """,
    )
    again = classroom.supervisor("ensure_account", as_user=HUB, name=name)
    assert (again["uid"], again["created"]) == (made["uid"], False)
    assert shell(classroom, f"stat -c '%a %U %G' /home/{name}").split() == ["700", name, name]
    assert "illumidesk-people" in root(classroom, "id", name)
    assert shell(classroom, f"stat -c %U /home/{name}/.bashrc").strip() == name
    assert shell(classroom, f"getent shadow {name}").split(":")[1].startswith("!")


def test_a_foreign_home_is_not_taken(classroom: Classroom, ann: Person) -> None:
    link, left = f"sup-link-{RUN}", f"sup-left-{RUN}"
    shell(classroom, f"ln -s {ann.home} /home/{link}; mkdir /home/{left}; chown nobody /home/{left}")
    assert refused(classroom, "ensure_account", name=link)[0] == 409
    assert refused(classroom, "ensure_account", name=left)[0] == 409
    assert shell(classroom, f"stat -c %U {ann.home}").strip() == ann.name
    root(classroom, "rm", f"/home/{link}")
    classroom.supervisor("ensure_account", as_user=HUB, name=link)
    assert shell(classroom, f"stat -c %U /home/{link}").strip() == link


def test_a_retired_name_stays_retired(classroom: Classroom) -> None:
    person = Person(classroom, "sup-gone")
    person.begin("def check(): return {'stay': 1}\n")
    person.answer()
    classroom.supervisor("retire_account", as_user=HUB, name=person.name)
    assert person.unit not in states(classroom)
    assert refused(classroom, "ensure_account", name=person.name)[0] == 409
    assert refused(classroom, "start_server", name=person.name, environment="default")[0] == 403
    assert root(classroom, "ls", person.home)
    classroom.supervisor("ensure_account", as_user=HUB, name=person.name, restore=True)
    assert person.ask("def check(): return 5\n") == 5


# What a person's own program cannot do

_SANDBOX = """
import os, socket, ctypes
def connect(path):
    s = socket.socket(socket.AF_UNIX); s.connect(path); s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n"); return s.recv(10)
def read_all(top):
    return [open(os.path.join(folder, file), "rb") for folder, _, files in os.walk(top) for file in files]
def check():
    others = [p for p in os.listdir("/proc") if p.isdigit() and os.stat("/proc/" + p).st_uid != os.getuid()]
    return {
        "homes": os.listdir("/home"),
        "other_home": attempt(os.listdir, "/home/sup-bob"),
        "root_home": attempt(os.listdir, "/root"),
        "others_in_proc": others,
        "environment": attempt(os.listdir, "/run/illumidesk/environment"),
        "own_environment_file": attempt(open, "/run/illumidesk/environment/jupyter-sup-ann.service.env"),
        "secrets": attempt(os.listdir, "/etc/illumidesk"),
        "hub_state": attempt(os.listdir, "/srv/jupyterhub"),
        "archives": attempt(os.listdir, "/var/backups/illumidesk"),
        "shadow": attempt(open, "/etc/shadow"),
        "supervisor": attempt(connect, "/run/illumidesk/supervisor.sock"),
        "bus": attempt(connect, "/run/dbus/system_bus_socket"),
        "proxy": attempt(os.listdir, "/run/illumidesk/proxy"),
        "servers": attempt(os.listdir, "/run/illumidesk/servers"),
        "other_server": attempt(os.listdir, "/run/illumidesk/servers/sup-bob"),
        "journal": run("sh", "-c", "journalctl -n 5 --no-pager 2>/dev/null | grep -v '^Hint\\\\|^--'")[1],
        "journal_files": attempt(read_all, "/var/log/journal"),
        "tmp": os.listdir("/tmp"),
        "shm": os.listdir("/dev/shm"),
        "shm_write": attempt(open, "/dev/shm/mine", "w"),
        "systemctl": run("systemctl", "status", "jupyter-sup-bob.service")[1],
        "su": run("su", "-c", "id", "sup-bob")[0],
        "sudo": run("sh", "-c", "command -v sudo >/dev/null && sudo -n id || exit 1")[0],
        "passwd": run("sh", "-c", "printf 'x\\nx\\n' | passwd")[0],
        "no_new_privileges": ctypes.CDLL(None).prctl(39, 0, 0, 0, 0),
        "capabilities": [line for line in open("/proc/self/status") if line.startswith("Cap")],
        "unshare": attempt(os.unshare, 0x10000000) if hasattr(os, "unshare") else ctypes.CDLL(None).unshare(0x10000000),
        "packet_socket": attempt(socket.socket, 17, socket.SOCK_RAW),
        "setuid_file": attempt(lambda: (open("s", "w").close(), os.chmod("s", 0o4755))),
        "write_etc": attempt(open, "/etc/x", "w"),
        "write_opt": attempt(open, "/opt/illumidesk/x", "w"),
        "mount": run("mount", "-t", "tmpfs", "none", "/mnt")[0],
        "kill_other": attempt(os.kill, PID_OF_BOB, 0),
    }
"""


def test_a_person_sees_and_reaches_nobody_else(classroom: Classroom, ann: Person, bob: Person) -> None:
    classroom.machine.run(["sh", "-c", "echo secret-line | systemd-cat -t other"])
    pid = str(states(classroom)[bob.unit]["main_pid"])
    found = ann.ask(_SANDBOX.replace("PID_OF_BOB", pid))
    assert found["homes"] == [ann.name]
    for what in (
        "other_home",
        "environment",
        "own_environment_file",
        "secrets",
        "hub_state",
        "archives",
        "shadow",
        "supervisor",
        "bus",
        "proxy",
        "servers",
        "other_server",
        "packet_socket",
        "setuid_file",
        "write_etc",
        "write_opt",
        "kill_other",
    ):
        assert found[what].startswith("refused: "), (what, found[what])
    # an empty one in its place, or one with the same mode, as the release likes
    assert found["root_home"] == "[]" or found["root_home"].startswith("refused: ")
    assert found["others_in_proc"] == []
    assert "secret-line" not in found["journal"]
    assert found["journal_files"] == "[]" or found["journal_files"].startswith("refused: ")
    assert "of-bob" not in found["tmp"]
    assert found["shm"] == []
    assert not found["shm_write"].startswith("refused")
    assert found["systemctl"] == ""
    assert found["su"] != 0
    assert found["sudo"] != 0
    assert found["passwd"] != 0
    assert found["no_new_privileges"] == 1
    assert {int(line.split()[1], 16) for line in found["capabilities"]} == {0}
    assert found["unshare"] == -1 or str(found["unshare"]).startswith("refused")
    assert found["mount"] != 0


_ORDINARY = """
import os, sys, multiprocessing, subprocess, tempfile, threading, pty
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import shared_memory
def check():
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(2, mp_context=context) as pool: parallel = list(pool.map(abs, range(-3, 1)))
    block = shared_memory.SharedMemory(create=True, size=1 << 20); block.buf[0] = 7; block.close(); block.unlink()
    queue = context.Queue(); queue.put(1); queue.get()
    master, slave = pty.openpty()
    with open(os.path.expanduser("~/new"), "w") as file: file.write("x")
    return {
        "parallel": parallel,
        "terminal": run("bash", "-lc", "cd ~ && whoami && tty || true")[1].split(),
        "temporary": bool(tempfile.mkdtemp()),
        "loopback": attempt(__import__("socket").create_server, ("127.0.0.1", 0)),
        "processors": os.cpu_count(),
        "memory": "MemTotal" in open("/proc/meminfo").read(),
        "exchange": attempt(lambda: os.rmdir(tempfile.mkdtemp(dir="/srv/nbgrader/exchange"))),
        "own_socket": attempt(lambda: open("/run/illumidesk/servers/sup-ann/x", "w").close()),
        "mask": oct(os.umask(0)),
        "venv": run(sys.executable, "-m", "venv", "--without-pip", os.path.expanduser("~/venv"))[0],
        "groups": sorted(os.getgroups()) != [],
        "jit": attempt(__import__("mmap").mmap, -1, 4096, prot=7),
    }
"""


def test_ordinary_work_works(ann: Person) -> None:
    found = ann.ask(_ORDINARY)
    assert found["parallel"] == [3, 2, 1, 0]
    assert found["terminal"][0] == ann.name
    assert found["temporary"]
    assert found["processors"] > 0
    assert found["memory"]
    assert found["venv"] == 0
    assert found["mask"] == "0o27"
    for what in ("loopback", "exchange", "own_socket", "jit"):
        assert not found[what].startswith("refused"), (what, found[what])


def test_the_environment_is_nobody_elses(classroom: Classroom, ann: Person) -> None:
    ann.begin("def check(): return {'stay': 1}\n", arguments=["--ServerApp.port=0"])
    ann.answer()
    shown = root(classroom, "systemctl", "show", ann.unit)
    assert "s3cret-of" not in shown
    file = f"/run/illumidesk/environment/{ann.unit}.env"
    assert shell(classroom, f"stat -c '%a %U' {file}").split() == ["600", "root"]
    assert "s3cret-of" in root(classroom, "cat", file)
    assert "s3cret-of" not in shell(classroom, "ps axww -o args")
    assert "s3cret-of" not in root(classroom, "journalctl", "--no-pager", "-u", "illumidesk-supervisor")
    classroom.supervisor("stop_server", as_user=HUB, name=ann.name)
    assert ann.unit not in root(classroom, "ls", "/run/illumidesk/environment")


def test_properties_and_limits_reach_systemd(classroom: Classroom, ann: Person) -> None:
    ann.begin(
        "def check(): return {'stay': 1}\n",
        limits={"memory": 1 << 29, "cpu": 0.5, "tasks": 99},
        properties={"CPUWeight": 50, "Nice": 5, "LimitNOFILE": 2048, "IPAddressDeny": ["any"]}
        | {"IPAddressAllow": ["localhost", "10.0.0.0/8"], "MemoryHigh": 1 << 28},
    )
    names = "MemoryMax,MemorySwapMax,MemoryHigh,CPUQuotaPerSecUSec,TasksMax,CPUWeight,Nice,LimitNOFILE"
    names += ",IPAddressDeny,IPAddressAllow"
    shown = dict(
        line.split("=", 1) for line in root(classroom, "systemctl", "show", "-p", names, ann.unit).splitlines()
    )
    assert shown["MemoryMax"] == str(1 << 29)
    assert shown["MemorySwapMax"] == str(1 << 28)
    assert shown["MemoryHigh"] == str(1 << 28)
    assert shown["CPUQuotaPerSecUSec"] == "500ms"
    assert (shown["TasksMax"], shown["CPUWeight"], shown["Nice"]) == ("99", "50", "5")
    assert shown["LimitNOFILE"] == "2048"
    assert set(shown["IPAddressDeny"].split()) == {"0.0.0.0/0", "::/0"}
    assert set(shown["IPAddressAllow"].split()) == {"127.0.0.0/8", "::1/128", "10.0.0.0/8"}
    classroom.supervisor("stop_server", as_user=HUB, name=ann.name)


def test_links_in_a_socket_folder_are_not_followed(classroom: Classroom, ann: Person) -> None:
    code = """
import os
def check():
    folder = "/run/illumidesk/servers/sup-ann"
    os.symlink("/etc/shadow", folder + "/server.sock"); os.makedirs(folder + "/deep/" + "/".join("d" * 100))
    return 1
"""
    ann.ask(code)
    before = shell(classroom, "stat -c '%a %U %Y' /etc/shadow")
    ann.ask("def check(): return 1\n")
    assert shell(classroom, "stat -c '%a %U %Y' /etc/shadow") == before
    assert root(classroom, "ls", "-A", f"/run/illumidesk/servers/{ann.name}") == ""
    folder = shell(classroom, f"stat -c '%a %U %G' /run/illumidesk/servers/{ann.name}").split()
    assert folder == ["2750", ann.name, "illumidesk-sockets"]


# Courses


def test_a_course_has_its_folders(classroom: Classroom, course: str) -> None:
    grader = f"grader-{course}"
    again = classroom.supervisor("ensure_course", as_user=HUB, course_id=course)
    assert (again["account"], again["home"], again["created"]) == (grader, f"/home/{grader}", False)
    exchange = f"/srv/nbgrader/exchange/{course}"
    wanted = {
        f"/home/{grader}": f"700 {grader} {grader}",
        exchange: f"2750 {grader} nbgrader-{course}",
        f"{exchange}/outbound": f"750 {grader} nbgrader-{course}",
        f"{exchange}/inbound": f"1730 {grader} nbgrader-{course}",
        f"{exchange}/feedback": f"710 {grader} nbgrader-{course}",
        f"/home/{grader}/.jupyter/nbgrader_config.py": f"644 {grader} {grader}",
        f"/home/{grader}/{course}/nbgrader_config.py": f"644 {grader} {grader}",
    }
    # what is set on a subfolder of a setgid folder by default does not count
    found = {path: shell(classroom, f"stat -c '%a %U %G' {path}").strip() for path in wanted}
    assert found == wanted
    groups = root(classroom, "id", "-nG", grader).split()
    assert {"illumidesk-graders", f"nbgrader-{course}"} <= set(groups)


def test_a_course_file_that_a_teacher_edited_stays(classroom: Classroom, course: str) -> None:
    shell(
        classroom,
        f"""
        echo '# mine' >> /home/grader-{course}/{course}/nbgrader_config.py
        echo '# not mine' >> /home/grader-{course}/.jupyter/nbgrader_config.py
        """,
    )
    classroom.supervisor("ensure_course", as_user=HUB, course_id=course)
    assert "# mine" in root(classroom, "cat", f"/home/grader-{course}/{course}/nbgrader_config.py")
    assert "# not mine" not in root(classroom, "cat", f"/home/grader-{course}/.jupyter/nbgrader_config.py")


def test_a_squatted_exchange_folder_is_moved_aside(classroom: Classroom, ann: Person) -> None:
    ann.run("sh", "-c", "mkdir -m 777 /srv/nbgrader/exchange/sup-squat; ln -s /etc /srv/nbgrader/exchange/sup-link")
    before = shell(classroom, "stat -c '%a %U %G' /etc")
    try:
        for course_id in ("sup-squat", "sup-link"):
            classroom.supervisor("ensure_course", as_user=HUB, course_id=course_id)
            owner = shell(classroom, f"stat -c '%F %U' /srv/nbgrader/exchange/{course_id}").strip()
            assert owner == f"directory grader-{course_id}"
            assert f"{course_id}.squatted-" in root(classroom, "ls", "/srv/nbgrader/exchange")
        assert shell(classroom, "stat -c '%a %U %G' /etc") == before
    finally:
        for course_id in ("sup-squat", "sup-link"):
            classroom.supervisor("remove_course", as_user=HUB, course_id=course_id)
        shell(classroom, "rm -rf /srv/nbgrader/exchange/*.squatted-*")


def test_links_in_a_graders_home_are_not_followed(classroom: Classroom, course: str) -> None:
    grader = f"grader-{course}"
    script = f"""
    cd /home/{grader}; mv .jupyter .kept; ln -s /etc .jupyter
    """
    classroom.machine.run(["sh", "-c", script], user=grader)
    assert refused(classroom, "ensure_course", course_id=course)[0] == 409
    script = f"""
    cd /home/{grader}; rm .jupyter; mv .kept .jupyter
    rm .jupyter/nbgrader_config.py; ln -s /etc/passwd .jupyter/nbgrader_config.py
    rm {course}/nbgrader_config.py; ln -s /etc/shadow {course}/nbgrader_config.py
    """
    classroom.machine.run(["sh", "-c", script], user=grader)
    classroom.supervisor("ensure_course", as_user=HUB, course_id=course)
    assert "root:x:0" in root(classroom, "cat", "/etc/passwd")
    assert shell(classroom, "stat -c '%U %a' /etc/passwd").split() == ["root", "644"]
    assert not shell(classroom, "ls /etc/nbgrader_config.py 2>/dev/null || true")
    file = f"/home/{grader}/.jupyter/nbgrader_config.py"
    assert shell(classroom, f"stat -c '%F %U' {file}").strip() == f"regular file {grader}"
    shell(classroom, f"rm /home/{grader}/{course}/nbgrader_config.py")
    classroom.supervisor("ensure_course", as_user=HUB, course_id=course)


_EXCHANGE = """
import os, time
def attempts():
    path = "/srv/nbgrader/exchange/sup-course"
    def drop():
        folder = path + "/inbound/ann-" + str(time.time_ns()); os.mkdir(folder); open(folder + "/x", "w").close()
    return {
        "outbound": attempt(os.listdir, path + "/outbound"), "inbound": attempt(os.listdir, path + "/inbound"),
        "drop": attempt(drop), "feedback": attempt(os.listdir, path + "/feedback"),
        "guess": attempt(os.stat, path + "/feedback/."), "write": attempt(os.mkdir, path + "/outbound/y"),
    }
def check():
    found = [attempts()]
    while len(found) < 3:
        open("next", "w").close()
        while os.path.exists("next"): time.sleep(0.05)
        found.append(attempts())
    return found
"""


def test_membership_holds_for_a_running_server_at_once(classroom: Classroom, ann: Person, course: str) -> None:
    def member(is_member: bool) -> None:
        classroom.supervisor("set_membership", as_user=HUB, course_id=course, name=ann.name, member=is_member)

    def may(found: dict[str, str]) -> set[str]:
        return {what for what, outcome in found.items() if not outcome.startswith("refused")}

    def step() -> None:
        until(lambda: classroom.machine.run(["test", "-e", f"{ann.home}/next"], check=False).returncode == 0)

    allowed = {"outbound", "drop", "guess"}
    member(False)
    ann.begin(_EXCHANGE)
    step()
    member(True)
    ann.run("rm", f"{ann.home}/next")
    step()
    member(False)
    ann.run("rm", f"{ann.home}/next")
    before, joined, left = ann.answer()
    assert (may(before), may(joined), may(left)) == (set(), allowed, set())
    # The next server has the right groups by itself; no entry is left
    member(True)
    ann.begin(_EXCHANGE)
    step()
    listing = shell(classroom, f"cd /srv/nbgrader/exchange/{course}; ls -ld . *")
    assert "+" not in {line.split()[0][-1] for line in listing.splitlines()}
    member(False)
    ann.run("rm", f"{ann.home}/next")
    step()
    member(True)
    ann.run("rm", f"{ann.home}/next")
    joined, left, again = ann.answer()
    assert (may(joined), may(left), may(again)) == (allowed, set(), allowed)
    member(False)


def test_a_grader_runs_and_stops(classroom: Classroom, course: str) -> None:
    home, unit = f"/home/grader-{course}", f"illumidesk-grader@{course}.service"
    code = "import os, sys\ndef check(): return {'stay': 1, 'argv': sys.argv, 'env': dict(os.environ)}\n"
    for name, text in (("sitecustomize.py", _SITECUSTOMIZE), ("main.py", _MAIN), ("probe.py", code)):
        script = f"mkdir -p {home}/probe; cat > {home}/probe/{name}"
        classroom.machine.run(["sh", "-c", script], user=f"grader-{course}", input=text)
    arguments = ["--A.b=two words", "--C.d='$HOME' \"%h\" \\", "--E"]
    started = classroom.supervisor(
        "start_grader",
        as_user=HUB,
        course_id=course,
        environment="default",
        arguments=arguments,
        variables={"PYTHONPATH": f"{home}/probe", "TEXT": "a\nb '$HOME'"},
        limits={"memory": 1 << 30, "cpu": 1, "tasks": 200},
    )
    assert started["unit"] == unit
    until(lambda: classroom.machine.run(["test", "-e", f"{home}/probe/answer.json"], check=False).returncode == 0)
    found = json.loads(root(classroom, "cat", f"{home}/probe/answer.json"))
    assert found["env"]["TEXT"] == "a\nb '$HOME'"
    assert found["env"]["HOME"] == home
    pid = states(classroom)[unit]["main_pid"]
    command = Path(f"/proc/{pid}/cmdline")
    assert tuple(root(classroom, "cat", str(command)).split("\0")[-4:-1]) == tuple(arguments)
    assert f"MemoryMax={1 << 30}" in root(classroom, "systemctl", "show", "-p", "MemoryMax", unit)
    # Restart=on-failure of the unit finds its environment still there
    root(classroom, "kill", "-9", str(pid))
    until(lambda: (now := states(classroom).get(unit)) and now["active_state"] == "active" and now["main_pid"] != pid)
    classroom.supervisor("stop_grader", as_user=HUB, course_id=course)
    assert unit not in states(classroom)
    assert unit not in root(classroom, "ls", "/run/illumidesk/environment")


def test_a_removed_course_is_archived(classroom: Classroom, ann: Person) -> None:
    course_id, grader = "sup-removed", "grader-sup-removed"
    classroom.supervisor("ensure_course", as_user=HUB, course_id=course_id)
    classroom.supervisor("set_membership", as_user=HUB, course_id=course_id, name=ann.name, member=True)
    script = f"""
    cd; echo grades > {course_id}/gradebook.db; ln -s /etc/shadow link
    echo given > /srv/nbgrader/exchange/{course_id}/outbound/ps1
    python3 - <<'X'
import os
for _ in range(1500): os.mkdir("d"); os.chdir("d")
X
    """
    classroom.machine.run(["sh", "-c", script], user=grader)
    archive = classroom.supervisor("remove_course", as_user=HUB, course_id=course_id)["archive"]
    assert archive.startswith(f"/var/backups/illumidesk/courses/{course_id}-")
    assert shell(classroom, f"stat -c '%a %U' {archive}").split() == ["600", "root"]
    listing = root(classroom, "tar", "--list", "--verbose", "--file", archive)
    assert f"home/{grader}/{course_id}/gradebook.db" in listing
    assert f"srv/nbgrader/exchange/{course_id}/outbound/ps1" in listing
    assert f"home/{grader}/link -> /etc/shadow" in listing
    for gone in (f"/home/{grader}", f"/srv/nbgrader/exchange/{course_id}", f"/run/illumidesk/graders/{course_id}"):
        assert classroom.machine.run(["test", "-e", gone], check=False).returncode == 1
    for database, name in (("passwd", grader), ("group", grader), ("group", f"nbgrader-{course_id}")):
        assert classroom.machine.run(["getent", database, name], check=False).returncode == 2
    assert classroom.supervisor("remove_course", as_user=HUB, course_id=course_id)["archive"] == archive
    assert refused(classroom, "remove_course", course_id="sup-never")[0] == 404
    # and may be made again
    assert classroom.supervisor("ensure_course", as_user=HUB, course_id=course_id)["created"]
    classroom.supervisor("remove_course", as_user=HUB, course_id=course_id)


def test_a_removal_that_was_cut_off_is_finished(classroom: Classroom) -> None:
    course_id = "sup-cut"
    classroom.supervisor("ensure_course", as_user=HUB, course_id=course_id)
    first = classroom.supervisor("remove_course", as_user=HUB, course_id=course_id)["archive"]
    # As if it had been killed before the account went
    classroom.supervisor("ensure_course", as_user=HUB, course_id=course_id)
    marker = f"/var/backups/illumidesk/courses/.{course_id}.removing"
    classroom.machine.write_text(marker, json.dumps({"archive": first}))
    root(classroom, "rm", "-rf", f"/home/grader-{course_id}")
    assert refused(classroom, "ensure_course", course_id=course_id)[0] == 409
    assert classroom.supervisor("remove_course", as_user=HUB, course_id=course_id)["archive"] == first
    assert classroom.machine.run(["getent", "passwd", f"grader-{course_id}"], check=False).returncode == 2
    assert classroom.machine.run(["test", "-e", marker], check=False).returncode == 1


def test_the_machines_figures(classroom: Classroom) -> None:
    found = classroom.supervisor("host", as_user=HUB)
    assert found["memory_total"] >= found["memory_available"] > 0
    assert found["disk_total"] >= found["disk_free"] > 0
    assert len(found["load"]) == 3
