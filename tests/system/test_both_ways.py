"""What a person's server does, and what systemd and the hub see of it: the same however it was started."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websocket import WebSocketException

from tests.support.classroom import Classroom
from tests.support.person import Kernel, Person, Refused, receive
from tests.support.ways import Way, until

pytestmark = pytest.mark.smoke

NAME = "twin"
UNIT = f"jupyter-{NAME}.service"
PORTRAIT = Path(__file__).resolve().parent.parent / "support/self_portrait.py"


@pytest.fixture(scope="module")
def student(classroom: Classroom, way: Way) -> Iterator[Person]:
    """A student whose server has drawn a portrait of itself when it began."""
    classroom.cli("user", "add", NAME)
    script = "cd && rm -f self-portrait.json && mkdir -p .jupyter && cat > .jupyter/jupyter_server_config.py"
    classroom.machine.run(["sh", "-c", script], user=NAME, input=PORTRAIT.read_text())
    yield way.student(NAME)
    classroom.machine.run(["rm", "-r", f"/home/{NAME}/.jupyter"])


@pytest.fixture(scope="module")
def teacher(way: Way) -> Person:
    return way.start("instructor1")


def proc(classroom: Classroom, file: str) -> str:
    """A file in /proc of the student's server."""
    return classroom.machine.read_text(f"/proc/{classroom.main_pid(UNIT)}/{file}")


def answers(person: Person) -> bool:
    """Whether a person's server does, by now."""
    try:
        # A page first: what the browser knew of the server that is gone is worth nothing.
        return person.open_server().ok and bool(person.server("GET", "api/status"))
    except Refused:
        return False


def known(person: Person) -> bool:
    """Whether the hub takes a person's server for started."""
    return bool(person.hub_api("GET", f"users/{person.name}")["servers"])


def is_another(kernel: Kernel, before: str) -> bool:
    """Whether a kernel runs in another process by now. What is asked while it begins may stay unanswered."""
    try:
        return kernel.run("import os; print(os.getpid())", timeout=10).strip() not in ("", before)
    except (TimeoutError, ConnectionError, WebSocketException):
        return False


# What a person does


def test_kernels_and_terminals(classroom: Classroom, way: Way, student: Person) -> None:
    kernel = student.start_kernel()
    said = kernel.run("import os; print(os.getpid(), os.getcwd(), os.environ['USER'], __name__)")
    pid, *rest = said.split()
    assert rest == [f"/home/{NAME}", NAME, "__main__"]
    assert f"/{UNIT}" in classroom.machine.read_text(f"/proc/{pid}/cgroup")
    status = classroom.machine.read_text(f"/proc/{pid}/status")
    assert "NoNewPrivs:\t1\n" in status
    assert "Uid:\t0" not in status
    # Nothing of the debugger, which would open a port (config/ipython).
    assert kernel.run("import sys; print('debugpy' in sys.modules)").strip() == "False"
    # Nor, in a fork, a list of all modules for it, which would copy a page of each.
    assert kernel.run("print(get_ipython().kernel._kernel_modules == [])").strip() == str(way.forked)
    # Interrupted, restarted, ended from outside: as any kernel.
    page = kernel.connect()
    asked = kernel.send(page, "import time\nprint('begun', flush=True)\nfor _ in range(600): time.sleep(0.1)")
    # Not "busy": ipykernel says so before the cell's code runs, and what is interrupted then gets no reply at all.
    while "begun" not in json.loads(receive(page, time.monotonic() + 60))["content"].get("text", ""):
        pass
    student.server("POST", f"api/kernels/{kernel.id}/interrupt")
    assert "KeyboardInterrupt" in kernel.read(page, asked)
    page.close()
    student.server("POST", f"api/kernels/{kernel.id}/restart")
    again = kernel.run("import os; print(os.getpid())").strip()
    assert again != pid
    classroom.machine.run(["kill", "-9", again])
    until(lambda: is_another(kernel, again))
    last = kernel.run("import os; print(os.getpid())").strip()
    kernel.stop()
    until(lambda: classroom.machine.run(["test", "-e", f"/proc/{last}"], check=False).returncode != 0)
    assert f"{NAME}\r\ndone-0" in student.terminal("whoami")
    assert "/opt/illumidesk/" in student.terminal("type nbgrader")


def test_no_two_kernels_draw_the_same_numbers(student: Person) -> None:
    draw = "import random, uuid, tempfile; print(random.random(), uuid.uuid4(), next(tempfile._get_candidate_names()))"
    one, other = (student.run(draw).split() for _ in range(2))
    assert all(first != second for first, second in zip(one, other, strict=True))


def test_a_big_file_is_uploaded_and_downloaded(student: Person) -> None:
    """In pieces, as JupyterLab sends it; and whole, as the classic pages do."""
    pieces = [os.urandom(1 << 20) for _ in range(32)]
    whole = b"".join(pieces)
    for number, piece in enumerate(pieces, start=1):
        body = {"type": "file", "format": "base64", "content": base64.b64encode(piece).decode()}
        student.server(
            "PUT", "api/contents/big.bin", {**body, "chunk": number if number < len(pieces) else -1, "name": "big.bin"}
        )
    body = {"type": "file", "format": "base64", "content": base64.b64encode(whole).decode()}
    student.server("PUT", "api/contents/whole.bin", body)
    for name in ("big.bin", "whole.bin"):
        assert student.get(f"{student.base}files/{name}").content == whole
    assert hashlib.sha256(whole).hexdigest() in student.shell("sha256sum big.bin; rm big.bin whole.bin")


def test_settings_of_jupyterlab_are_the_persons(classroom: Classroom, student: Person) -> None:
    """JupyterLab works out where they are when it is imported: in the fork server, by root."""
    theme = "@jupyterlab/apputils-extension:themes"
    student.server("PUT", f"lab/api/settings/{theme}", {"raw": '{"theme": "JupyterLab Dark"}'})
    folder = f"/home/{NAME}/.jupyter/lab/user-settings/@jupyterlab/apputils-extension"
    assert "Dark" in classroom.machine.read_text(f"{folder}/themes.jupyterlab-settings")


def test_nbgrader_parts_follow_the_role(classroom: Classroom, student: Person, teacher: Person) -> None:
    """Routes of the server halves, and the page config that switches the JupyterLab halves."""
    base = classroom.open_grader(teacher, "intro101")

    def has(person: Person, path: str, at: str | None = None) -> bool:
        return person.get(f"{at or person.base}{path}").status_code == 200

    def disabled(person: Person, at: str | None = None) -> set[str]:
        page = person.get(f"{at or person.base}lab").text
        found = re.search(r'<script id="jupyter-config-data" type="application/json">(.*?)</script>', page, re.S)
        assert found is not None
        return {name.removeprefix("@jupyter/nbgrader:") for name in json.loads(found[1])["disabledExtensions"]}

    assert has(student, "assignments?course_id=intro101")
    assert not has(student, "formgraders")
    assert not has(student, "formgrader")
    assert {"course-list", "create-assignment", "formgrader"} <= disabled(student)
    assert not {"assignment-list", "validate-assignment"} & disabled(student)

    assert has(teacher, "assignments?course_id=intro101")
    assert not has(teacher, "formgrader")
    assert {"create-assignment", "formgrader"} <= disabled(teacher)
    assert not {"assignment-list", "course-list"} & disabled(teacher)
    courses = teacher.server("GET", "formgraders")
    assert courses["success"] is True
    assert [course["course_id"] for course in courses["value"]] == ["intro101"]
    assert courses["value"][0]["url"] == "/services/intro101/lab?formgrader=true"

    assert has(teacher, "formgrader", base)
    assert not has(teacher, "assignments?course_id=intro101", base)
    assert {"assignment-list", "course-list"} <= disabled(teacher, base)
    assert not {"create-assignment", "formgrader"} & disabled(teacher, base)


# Its unit


def test_it_is_the_units(classroom: Classroom, student: Person) -> None:
    """Names, control group, journal and status, where everybody looks for them."""
    pid = classroom.main_pid(UNIT)
    assert f"/illumidesk.slice/illumidesk-users.slice/{UNIT}" in proc(classroom, "cgroup")
    assert "PPid:\t1\n" in proc(classroom, "status")
    assert "/bin/illumidesk-singleuser\0" in proc(classroom, "cmdline")
    status = classroom.machine.run(["systemctl", "status", "--no-pager", UNIT]).stdout
    assert "Active: active (running)" in status
    assert f"Main PID: {pid} (illumidesk-sing)" in status
    assert 'Status: "Ready"' in status
    journal = ["journalctl", "--no-pager", "-o", "cat", f"_SYSTEMD_UNIT={UNIT}", f"_PID={pid}"]
    assert "is running at" in classroom.machine.run(journal).stdout
    person = {one["name"]: one for one in classroom.cli_json("status")["people"]}[NAME]
    assert person["main_pid"] == pid


#: Of `systemctl show`: what differs from start to start, says how much was used, or names the program.
OF_A_START = re.compile(
    r"Exec(Start|StartEx)|.*(PID|Id|Timestamp|TimestampMonotonic|NSec|Current|Peak|Available|Bytes|Operations|Packets)"
    r"|InvocationID|Environment.*|Effective.*"
)
#: In the portraits: of the one start alone, or known to differ.
OF_A_PROCESS = re.compile(
    r"(server|kernel)/(environ/(INVOCATION_ID|JOURNAL_STREAM|JUPYTERHUB_API_TOKEN|SYSTEMD_EXEC_PID|JPY_PARENT_PID)"
    r"|files/environ|namespaces/(ipc|mnt|uts)"
    # By which a forked server's kernels are forked, too, and what these show of how they started.
    r"|environ/JUPYTER_DEFAULT_PROVISIONER_NAME)"
    r"|kernel/(files/(cmdline|comm)|python/(argv|orig_argv)|status/Name|stat/parent|descriptors|python/threads)"
)
PORTRAITS: dict[str, dict[str, Any]] = {}


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each value in nested dictionaries, by the keys that lead to it."""
    if isinstance(value, dict):
        for key, inside in value.items():
            yield from flat(inside, f"{path}/{key}" if path else key)
    else:
        yield path, value


def test_nothing_tells_them_apart(classroom: Classroom, way: Way, student: Person) -> None:
    """All that the kernel, Python and systemd keep of a server and of a kernel, line by line, in both ways."""
    shown = classroom.machine.run(["systemctl", "show", UNIT]).stdout.splitlines()
    file = f"/home/{NAME}/self-portrait.json"
    portrait = {"server": json.loads(classroom.machine.read_text(file))}
    config = f"/home/{NAME}/.jupyter/jupyter_server_config.py"
    assert student.run(f"exec(open({config!r}).read()); print('drawn')") == "drawn\n"
    portrait["kernel"] = json.loads(classroom.machine.read_text(file))
    pairs = dict(line.split("=", 1) for line in shown)
    portrait["unit"] = {name: sorted(value.split()) for name, value in pairs.items() if not OF_A_START.fullmatch(name)}

    server = portrait["server"]
    assert {"NoNewPrivs": "1", "Seccomp": "2", "CapBnd": "0" * 16, "Umask": "0027"}.items() <= server["status"].items()
    assert int(server["status"]["Seccomp_filters"]) > 10
    groups = classroom.machine.run(["id", "-G", NAME]).stdout.split()
    assert {str(group) for group in server["ids"][2]} == set(groups)
    # What /proc says of its variables are its own.
    assert f"JUPYTERHUB_API_TOKEN={server['environ']['JUPYTERHUB_API_TOKEN']}\0" in server["files"]["environ"]
    assert "LISTEN_" not in server["files"]["environ"]

    if way.forked:
        # nbgrader's import of setuptools adds it, here or later.
        server["python"]["path"] = [folder for folder in server["python"]["path"] if "/setuptools/" not in folder]
        # Where it asks for kernels.
        server["descriptors"].remove("further: socket:[N] 02000002")
    PORTRAITS[way.name] = dict(flat(portrait))
    if len(PORTRAITS) == 2:
        one, other = PORTRAITS.values()
        differing = {
            key: (one.get(key), other.get(key))
            for key in one | other
            if one.get(key) != other.get(key) and not OF_A_PROCESS.fullmatch(key)
        }
        print(json.dumps(differing, indent=1))
        assert differing == {}


def test_limits_reach_the_unit_and_hold(classroom: Classroom, student: Person, teacher: Person) -> None:
    assert classroom.show(UNIT, "MemoryMax") == str(1 << 30)
    assert classroom.show(UNIT, "MemorySwapMax") == str(1 << 29)
    assert classroom.show(UNIT, "CPUQuotaPerSecUSec") == "1s"
    assert classroom.show(UNIT, "TasksMax") == "512"
    assert classroom.show(UNIT, "Slice") == "illumidesk-users.slice"
    assert classroom.show("illumidesk-users.slice", "MemoryMax") != "infinity"
    many = """
import os, time
children = []
try:
    while len(children) < 600:
        children.append(os.posix_spawn("/bin/sleep", ["sleep", "600"], {}))
except OSError as error:
    print(len(children), error)
time.sleep(5)
for child in children:
    os.kill(child, 9)
    os.waitpid(child, 0)
"""
    kernel = student.start_kernel()
    page = kernel.connect()
    asked = kernel.send(page, many)
    # Whoever is greedy harms nobody else.
    assert teacher.run("5*4") == "20"
    said = kernel.read(page, asked)
    page.close()
    assert "Resource temporarily unavailable" in said
    assert 300 < int(said.split()[0]) < 512
    kernel.stop()


CROWD = """
import os, time
for _ in range(100):
    if os.fork() == 0:
        x = b'x' * (20 << 20)
        time.sleep(4)
        os._exit(0)
time.sleep(2)
"""


def test_a_kernel_that_takes_too_much_memory_ends_alone(classroom: Classroom, student: Person) -> None:
    server, enforced = classroom.main_pid(UNIT), classroom.has_memory_limits()
    kernel, other = student.start_kernel(), student.start_kernel()
    other.run("kept = 41")
    began = kernel.run("import os; print(os.getpid())").strip()
    first, last = (int(classroom.machine.read_text(f"/proc/{pid}/oom_score_adj")) for pid in (began, server))
    assert first > last, "Linux would choose the server"
    page = kernel.connect()
    if enforced:
        kernel.send(page, "x = [b'x' * (1 << 20) for _ in range(3000)]")
    else:  # a host that lends the machine no control of memory ends nobody: what Linux would do, by hand
        classroom.machine.run(["kill", "-KILL", began])
    said, deadline = "", time.monotonic() + 180
    while said != "restarting":  # what a notebook's page tells
        message = json.loads(receive(page, deadline))
        said = message["content"].get("execution_state", "") if message["msg_type"] == "status" else ""
    page.close()
    # The other one and the server go on.
    until(lambda: is_another(kernel, began))
    assert other.run("kept + 1") == "42"
    assert classroom.main_pid(UNIT) == server
    if enforced:  # nor do many processes end the server of which each is smaller than it
        page = kernel.connect()
        kernel.send(page, CROWD)
        said, deadline = "", time.monotonic() + 180
        while said not in ("restarting", "idle"):
            message = json.loads(receive(page, deadline))
            said = message["content"].get("execution_state", "") if message["msg_type"] == "status" else ""
        page.close()
    kernel.stop()
    until(lambda: int(classroom.show(UNIT, "TasksCurrent")) < 40)
    assert classroom.main_pid(UNIT) == server
    assert student.run("5*4") == "20"
    other.stop()


def test_a_crash_is_noticed(classroom: Classroom, student: Person) -> None:
    """systemd is the server's parent, so it hears how it ends; the hub hears it of systemd."""
    kernel = student.start_kernel()
    kernel.run("x = 1")
    student.shell("setsid sleep 300 >/dev/null 2>&1 </dev/null &")
    invocation, pid = classroom.show(UNIT, "InvocationID"), classroom.main_pid(UNIT)
    others = classroom.machine.run(["pgrep", "-u", NAME]).stdout.split()
    assert len(others) >= 3
    classroom.machine.run(["kill", "-9", str(pid)])
    until(lambda: not known(student), 15)
    until(lambda: not classroom.is_active(UNIT))
    said = classroom.machine.run(["journalctl", "--no-pager", "-o", "cat", f"INVOCATION_ID={invocation}"]).stdout
    assert f"{UNIT}: Main process exited, code=killed, status=9/KILL" in said
    assert f"{UNIT}: Failed with result 'signal'." in said
    # Nothing of it is left.
    assert classroom.machine.run(["pgrep", "-u", NAME], check=False).stdout == ""
    until(lambda: f"{UNIT}.env" not in classroom.machine.run(["ls", "/run/illumidesk/environment"]).stdout)


def test_it_starts_again_after_a_crash(way: Way, student: Person) -> None:
    student.start_server()
    way.check(NAME)
    assert student.run("5*4") == "20"


def test_systemctl_restarts_and_stops_it(classroom: Classroom, way: Way, student: Person) -> None:
    before = classroom.main_pid(UNIT)
    classroom.machine.run(["systemctl", "restart", UNIT])
    assert classroom.main_pid(UNIT) not in (0, before)
    until(lambda: answers(student))
    way.check(NAME)
    assert student.run("5*4") == "20"
    invocation = classroom.show(UNIT, "InvocationID")
    classroom.machine.run(["systemctl", "stop", UNIT])
    assert not classroom.is_active(UNIT)
    assert classroom.show(UNIT, "Result") == "success"
    said = classroom.machine.run(["journalctl", "--no-pager", "-o", "cat", f"INVOCATION_ID={invocation}"]).stdout
    assert f"{UNIT}: Deactivated successfully." in said
    until(lambda: not known(student), 15)
    student.start_server()
    way.check(NAME)


def test_it_starts_while_the_hub_is_away(classroom: Classroom, way: Way, student: Person) -> None:
    before = classroom.main_pid(UNIT)
    classroom.machine.run(["systemctl", "stop", "illumidesk-hub"])
    try:
        # Ends when the server has said that it is ready.
        classroom.machine.run(["systemctl", "restart", UNIT])
        assert classroom.main_pid(UNIT) not in (0, before)
        way.check(NAME)
    finally:
        classroom.machine.run(["systemctl", "start", "illumidesk-hub"])
        classroom.wait_for_hub()
    until(lambda: answers(student))
    assert student.run("5*4") == "20"
