"""What a student's shell cannot reach. Everything here runs in real servers of real accounts, started in both ways."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.classroom import Classroom
from tests.support.person import Person
from tests.support.ways import Way


@pytest.fixture(scope="module")
def eve(classroom: Classroom, way: Way) -> Iterator[Person]:
    yield way.student("eve")
    # Packages of one's own are for the ordinary way alone.
    classroom.machine.run(["rm", "-rf", "/home/eve/.local"])


@pytest.fixture(scope="module")
def victim(classroom: Classroom, way: Way) -> Person:
    """Somebody whose server runs, with a kernel, and a grader beside."""
    teacher = classroom.sign_in("instructor1")
    classroom.open_grader(teacher, "intro101")
    person = way.start("student1")
    person.shell("echo secret-of-student1 > secret.txt; mkdir -p public; chmod 777 public; chmod 644 secret.txt")
    person.start_kernel().run("x = 1")
    return person


def test_no_home_of_anybody_else(eve: Person, victim: Person) -> None:
    seen = eve.shell("ls -a /home; cat /home/student1/secret.txt; ls /home/student1/public /home/grader-intro101")
    assert "secret-of-student1" not in seen
    assert "student1\n" not in seen.split("cat:")[0]
    assert "exit 0" not in seen


def test_no_socket_of_anybody_else(eve: Person, victim: Person) -> None:
    script = """
import os, socket, glob
targets = [
    "/run/illumidesk/supervisor.sock",
    "/run/illumidesk/proxy/api.sock",
    "/run/illumidesk/servers/student1/server.sock",
    "/run/illumidesk/graders/intro101/server.sock",
]
for path in targets:
    s = socket.socket(socket.AF_UNIX)
    try:
        s.connect(path)
        s.sendall(b"POST /v1/units HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 2\\r\\n\\r\\n{}")
        answer = s.recv(100)
        print("REACHED" if answer else "closed", path, answer)
    except OSError as e:
        print("refused", path, type(e).__name__)
# abstract sockets and whatever else /proc tells
for line in open("/proc/net/unix").read().splitlines()[1:]:
    name = line.split()[-1]
    if name.startswith("@") and "illumidesk" in name:
        print("REACHED", name)
"""
    seen = eve.run(script)
    assert "REACHED" not in seen, seen
    assert seen.count("refused") == 4, seen


def test_no_port_but_the_public_one(classroom: Classroom, eve: Person, victim: Person) -> None:
    """Ports that listen while servers, kernels, the grader, hub and proxy run: only the class's own is new."""
    listening = classroom.machine.run(["ss", "-Hltnp"]).stdout
    ours = [line for line in listening.splitlines() if "users:" in line]
    ports = {line.split()[3].rsplit(":", 1)[-1] for line in ours}
    assert ports == {str(classroom.port)}, listening


def test_no_process_environment_or_journal_of_anybody_else(classroom: Classroom, eve: Person, victim: Person) -> None:
    pids = [
        classroom.main_pid(unit)
        for unit in (
            "jupyter-student1.service",
            "illumidesk-grader@intro101.service",
            "illumidesk-hub.service",
            "illumidesk-proxy.service",
            "illumidesk-supervisor.service",
        )
    ]
    seen = eve.shell(
        "; ".join(f"cat /proc/{pid}/environ /proc/{pid}/cmdline | head -c 100; ls /proc/{pid}/root" for pid in pids)
        + "; ls -l /run/illumidesk/environment; cat /run/illumidesk/environment/*; ls /etc/illumidesk/secrets;"
        " cat /etc/illumidesk/config.yaml; ls /srv/jupyterhub /var/lib/illumidesk /var/backups/illumidesk"
    )
    assert "TOKEN" not in seen
    assert "JUPYTERHUB" not in seen
    assert "http_port" not in seen
    assert "sqlite" not in seen
    journal = eve.shell("journalctl --no-pager -n 50 2>&1")
    assert "illumidesk-hub" not in journal
    assert "student1" not in journal
    for unit in ("jupyter-student1.service", "illumidesk-grader@intro101.service", "illumidesk-hub.service"):
        shown = eve.shell(f"systemctl show {unit} 2>&1")
        assert "TOKEN" not in shown


def test_nothing_in_shared_temporary_folders(eve: Person, victim: Person) -> None:
    places = ("/tmp/here", "/var/tmp/here", "/dev/shm/here")
    victim.shell("; ".join(f"echo secret-of-student1 > {place}; chmod 644 {place}" for place in places))
    seen = eve.shell(f"cat {' '.join(places)}")
    assert "secret-of-student1" not in seen


def test_no_way_up(eve: Person) -> None:
    seen = eve.shell(
        "id; sudo -n id; su -c id root </dev/null; grep NoNewPrivs /proc/self/status; cat /proc/self/status"
    )
    assert "uid=0" not in seen
    assert "NoNewPrivs:\t1" in seen
    assert "CapBnd:\t0000000000000000" in seen
    written = eve.shell("touch /opt/illumidesk/envs/x /etc/x /usr/local/bin/x /srv/jupyterhub/x /run/illumidesk/x")
    assert written.count("touch:") == 5, written
    asked = eve.shell("systemctl stop jupyter-student1.service --no-ask-password; systemctl --no-ask-password reboot;"
                      " systemd-run --no-ask-password id")  # fmt: skip
    assert "uid=" not in asked


def test_the_exchange_gives_nothing_away(classroom: Classroom, eve: Person, victim: Person) -> None:
    root = "/srv/nbgrader/exchange"
    seen = eve.shell(
        f"ls {root}/intro101/inbound; ls {root}/intro101/feedback; mv {root}/intro101 {root}/stolen;"
        f" rm -rf {root}/intro101; touch {root}/intro101/outbound/x; ln -s /etc {root}/intro101/inbound/link"
    )
    assert "Permission denied" in seen
    assert classroom.machine.run(["stat", "-c", "%U", f"{root}/intro101"]).stdout.strip() == "grader-intro101"
    assert classroom.machine.run(["ls", "-A", f"{root}/intro101/outbound"]).stdout.strip() in {"", "ps1"}


def test_another_persons_server_is_refused_through_the_proxy(eve: Person, victim: Person) -> None:
    assert eve.get(f"{victim.base}api/contents").status_code in {403, 404}
    assert eve.get("/hub/admin").status_code in {403, 404}
    assert eve.get("/hub/api/illumidesk/users").status_code == 403
    mine = eve.run("import os; print(os.environ['JUPYTERHUB_API_TOKEN'])").strip()
    headers = {"Authorization": f"token {mine}"}
    for path in ("/hub/api/users", "/hub/api/users/student1", "/hub/api/illumidesk/users", "/hub/api/groups"):
        response = Person(eve.url, "nobody").session.get(eve.url + path, headers=headers, timeout=30)
        assert response.status_code in {403, 404}, f"{path}: {response.status_code} {response.text}"


def test_work_of_every_day_is_possible(eve: Person) -> None:
    """What the sandbox must not break."""
    done = eve.shell(
        "python -m venv --without-pip ~/venv && ~/venv/bin/python -c 'print(6*7)';"
        " python -c 'import multiprocessing as m; print(sum(m.Pool(2).map(abs, [-1, -2])))';"
        " mktemp; df -h ~ >/dev/null && whoami"
    )
    assert "42" in done
    assert "\n3\n" in done
    assert "\neve\n" in done
    assert "exit 0" in done
    assert "eve\r\ndone-0" in eve.terminal("whoami")
    assert "/opt/illumidesk/" in eve.terminal("type nbgrader")


def test_forked_children_print_into_the_notebook(eve: Person) -> None:
    """ipykernel's way for this is moved from a TCP port to a unix socket."""
    printed = eve.run(
        "import multiprocessing as m\n"
        "def child(): print('from a child', flush=True)\n"
        "p = m.get_context('fork').Process(target=child); p.start(); p.join()\n"
        "import time; time.sleep(1)"
    )
    assert "from a child" in printed


def test_people_may_install_packages_for_themselves(classroom: Classroom, eve: Person) -> None:
    """`pip install` as everybody types it; here from a file, so that no index is asked."""
    make = """
import zipfile
with zipfile.ZipFile("mine-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("mine.py", "VALUE = 'installed by myself'")
    wheel.writestr("mine-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: mine\\nVersion: 1.0\\n")
    wheel.writestr("mine-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr("mine-1.0.dist-info/RECORD", "")
"""
    eve.run(make)
    done = eve.shell("pip install --no-index ./mine-1.0-py3-none-any.whl")
    assert "exit 0" in done, done
    assert "installed by myself" in eve.run("import mine; print(mine.VALUE)")
    assert classroom.machine.run(["find", "/opt/illumidesk", "-name", "mine.py"]).stdout == ""


def test_no_way_in_by_ssh(classroom: Classroom, eve: Person) -> None:
    """A key in one's own home would be enough elsewhere, and outside of the unit there is no sandbox."""
    machine = classroom.machine
    # Its own service would listen on port 22 of the host, and in the tests that follow.
    machine.run(["systemctl", "mask", "ssh.service", "ssh.socket"])
    machine.run(["apt-get", "-qy", "install", "--no-install-recommends", "openssh-server", "openssh-client"])
    machine.run(["rm", "-f", "/root/test-key"])
    machine.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/test-key"])
    machine.run(["useradd", "--create-home", "--shell", "/bin/bash", "guest"])
    key = machine.read_text("/root/test-key.pub").strip()
    eve.shell(f"mkdir -pm 700 ~/.ssh && echo '{key}' > ~/.ssh/authorized_keys && chmod 600 ~/.ssh/authorized_keys")
    machine.run(["sh", "-c", f"mkdir -m 700 ~/.ssh && echo '{key}' > ~/.ssh/authorized_keys"], user="guest")
    port = str(classroom.port + 1)
    machine.run(
        ["systemd-run", "--unit=test-sshd", "-p", "RuntimeDirectory=sshd", "/usr/sbin/sshd", "-D", "-e", "-p", port]
    )
    try:

        def login(name: str) -> bool:
            options = ["-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes", "-p", port, "-i", "/root/test-key"]
            return machine.run(["ssh", *options, f"{name}@127.0.0.1", "true"], check=False).returncode == 0

        deadline = time.monotonic() + 20
        while not login("guest"):
            assert time.monotonic() < deadline, classroom.journal("test-sshd")
            time.sleep(0.5)
        assert not login("eve")
    finally:
        machine.run(["systemctl", "stop", "test-sshd"])
        machine.run(["userdel", "--force", "--remove", "guest"], check=False)
