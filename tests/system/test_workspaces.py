"""Programs of workspaces on a real machine: installed, removed, interrupted, and closed to every other account."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.support.classroom import Classroom
from tests.support.person import Person
from tests.support.workspaces import ensure_program, ensure_rstudio, rstudio_package

NAME = "student1"
UNIT = f"jupyter-{NAME}.service"


@pytest.fixture(scope="module")
def installed(classroom: Classroom) -> Classroom:
    ensure_program(classroom, "vscode")
    return classroom


def restarted(classroom: Classroom) -> Person:
    classroom.cli("user", "stop", NAME, check=False)
    person = classroom.sign_in(NAME)
    person.start_server()
    return person


@pytest.fixture(scope="module")
def person(installed: Classroom) -> Iterator[Person]:
    """Somebody with VS Code open."""
    person = restarted(installed)
    response = person.get(f"{person.base}vscode/")
    assert response.ok, response.text[:2000]
    assert "code-server" in response.text
    yield person
    installed.cli("user", "stop", NAME, check=False)


def listed(classroom: Classroom) -> dict[str, dict[str, object]]:
    return {one["name"]: one for one in classroom.cli_json("workspace", "list")}


def test_installed_for_everybody(installed: Classroom) -> None:
    one = listed(installed)["vscode"]
    assert (one["state"], str(one["folder"]).startswith("/opt/illumidesk/builds/vscode-")) == ("ready", True)
    assert isinstance(one["disk"], int)
    assert one["disk"] < 400 * 2**20, "what nobody needs was left out"
    wrong = "! -type l ( -perm /022 -o ! -perm -444 -o ! -uid 0 )"
    assert installed.machine.run(["find", str(one["folder"]), *wrong.split()]).stdout == ""
    theirs = installed.machine.run(["illumidesk", "workspace", "list", "--json"], user=NAME).stdout
    assert {each["name"]: each["state"] for each in json.loads(theirs)}["vscode"] == "ready"


def test_again_does_nothing(installed: Classroom) -> None:
    before = installed.machine.run(["stat", "-Lc", "%i %Y", "/opt/illumidesk/workspaces/vscode"]).stdout
    assert "was there already" in installed.cli("workspace", "install", "vscode").stdout
    assert installed.machine.run(["stat", "-Lc", "%i %Y", "/opt/illumidesk/workspaces/vscode"]).stdout == before


def test_only_root_installs(installed: Classroom) -> None:
    for words in (["install", "vscode"], ["remove", "vscode", "--yes"]):
        done = installed.machine.run(["illumidesk", "workspace", *words], user=NAME, check=False)
        assert (done.returncode, "only root" in done.stderr) == (1, True)


def test_it_runs_as_the_person_in_the_persons_unit(installed: Classroom, person: Person) -> None:
    processes = installed.machine.run(["ps", "-eo", "user:32,unit:64,args"]).stdout
    ours = [line.split(None, 2) for line in processes.splitlines() if "code-server/out/node/entry" in line]
    assert {user for user, unit, _ in ours if unit == UNIT} == {NAME}
    assert {unit for user, unit, _ in ours if user == NAME} == {UNIT}
    # In a terminal of it, this is all there is.
    assert person.shell("id -un").startswith(NAME)


def sockets(classroom: Classroom) -> list[str]:
    """Those of the person's programs, as the machine sees them from inside the person's unit."""
    pid = classroom.main_pid(UNIT)
    argv = ["find", f"/proc/{pid}/root/tmp/.jupyter-runtime/workspaces", "-type", "s", "-printf", "%m %u %p\\n"]
    return classroom.machine.run(argv).stdout.splitlines()


def test_another_account_is_refused(installed: Classroom, person: Person) -> None:
    found = sockets(installed)
    assert any(line.endswith("/vscode.sock") for line in found), found
    assert {line.split()[1] for line in found} == {NAME}
    assert {line.split()[0] for line in found if line.endswith("/vscode.sock")} == {"600"}
    connect = "import socket, sys\nfor path in sys.argv[1:]:\n    s = socket.socket(socket.AF_UNIX)\n    try:\n"
    connect += (
        "        s.connect(path)\n        print('REACHED')\n    except OSError as e:\n        print(type(e).__name__)"
    )
    paths = [line.split(None, 2)[2] for line in found]
    # By the way through /proc, and by a copy of the folder's path that skips the private /tmp.
    other = installed.machine.run(["python3", "-c", connect, *paths], user="instructor1").stdout.split()
    assert len(other) == len(paths)
    assert set(other) == {"PermissionError"}
    inside = " ".join(path.partition("/root")[2] for path in paths)
    teacher = installed.sign_in("instructor1")
    teacher.start_server()
    assert f" {NAME} " not in teacher.shell(f"ls -la {inside}"), "another private /tmp"
    # Even where the folder were open, the socket itself is its owner's.
    folder = next(path for path in paths if path.endswith("/vscode.sock")).rpartition("/")[0]
    installed.machine.run(["chmod", "0755", folder])
    try:
        pid = str(installed.main_pid(UNIT))
        argv = [
            "nsenter",
            "-t",
            pid,
            "-m",
            "setpriv",
            "--reuid=instructor1",
            "--clear-groups",
            "python3",
            "-c",
            connect,
        ]
        seen = installed.machine.run([*argv, "/tmp/.jupyter-runtime/workspaces/vscode.sock"], check=False)
        assert seen.stdout.split() == ["PermissionError"], seen
    finally:
        installed.machine.run(["chmod", "0700", folder])


def test_no_port_is_opened(installed: Classroom, person: Person) -> None:
    listening = installed.machine.run(["ss", "-Hltnp"]).stdout
    ours = [line for line in listening.splitlines() if "users:" in line]
    assert {line.split()[3].rsplit(":", 1)[-1] for line in ours} == {str(installed.port)}, listening


def test_another_person_is_refused_through_the_proxy(installed: Classroom, person: Person) -> None:
    teacher = installed.sign_in("instructor1")
    response = teacher.get(f"/user/{NAME}/vscode/")
    assert "code-server" not in response.text
    assert response.status_code in (403, 404)


def test_killed_in_the_middle(installed: Classroom) -> None:
    """Another build, because of an extension for everybody, is killed; the one in use goes on, and nothing is left."""
    machine = installed.machine
    before = machine.run(["realpath", "/opt/illumidesk/workspaces/vscode"]).stdout
    make = "import json, zipfile\nmanifest = dict(publisher='class', name='sums', version='1.0.0')\n"
    make += "with zipfile.ZipFile('/srv/vsix/sums.vsix', 'w') as archive:\n"
    make += "    archive.writestr('extension/package.json', json.dumps(manifest))"
    machine.run(["mkdir", "-p", "/srv/vsix"])
    machine.run(["python3", "-c", make])
    # With what says which program the one in use is, its files would be taken, and nothing compiled.
    script = """
    mv /opt/illumidesk/workspaces/vscode/.program /root/
    illumidesk workspace install vscode --extensions /srv/vsix >/dev/null 2>&1 & pid=$!
    until compgen -G '/opt/illumidesk/builds/vscode-*/.tools' >/dev/null; do sleep 0.05; done
    sleep 2; kill -9 $pid; wait $pid; echo "status $?"
    mv /root/.program /opt/illumidesk/workspaces/vscode/
    """
    assert "status 137" in machine.run(["bash", "-c", script]).stdout
    assert machine.run(["realpath", "/opt/illumidesk/workspaces/vscode"]).stdout == before
    assert listed(installed)["vscode"]["state"] == "ready"
    assert restarted(installed).get(f"/user/{NAME}/vscode/").ok
    # What anybody runs next clears it away, with the npm that outlived its parent.
    assert "was there already" in installed.cli("workspace", "install", "vscode").stdout
    left = machine.run(["bash", "-c", "ls -d /opt/illumidesk/builds/vscode-*"]).stdout.splitlines()
    assert left == [before.strip()]
    assert "npm-cli.js ci" not in machine.run(["ps", "-eo", "args"]).stdout


def test_rstudio(installed: Classroom) -> None:
    """With a stand-in of its package, which starts a service of its own as the vendor's does."""
    machine = installed.machine
    assert listed(installed)["rstudio"]["state"] == "absent"
    refused = installed.cli("workspace", "install", "rstudio", check=False)
    assert (refused.returncode, "--package FILE.deb --sha256" in refused.stderr) == (1, True)
    package = rstudio_package(installed)
    wrong = installed.cli("workspace", "install", "rstudio", "--package", package, "--sha256", "0" * 64, check=False)
    assert (wrong.returncode, "is not what its checksum says" in wrong.stderr) == (1, True)
    state = machine.run(["dpkg-query", "-W", "-f", "${db:Status-Status}", "rstudio-server"], check=False).stdout
    assert state != "installed"
    ensure_rstudio(installed)
    try:
        one = listed(installed)["rstudio"]
        assert (one["state"], one["version"]) == ("ready", "2099.1.0+1")
        assert machine.run(["systemctl", "is-active", "rstudio-server"], check=False).stdout.strip() == "inactive"
        assert machine.run(["systemctl", "is-enabled", "rstudio-server"], check=False).stdout.strip() == "disabled"
        # Nor does an upgrade of the package, which starts it again, get it to run.
        machine.run(["apt-get", "install", "-y", "--reinstall", package])
        assert machine.run(["systemctl", "is-active", "rstudio-server"], check=False).stdout.strip() == "inactive"
        assert ":8787" not in machine.run(["ss", "-Hltn"]).stdout
        person = restarted(installed)
        page = person.get(f"{person.base}rstudio/")
        assert page.url.endswith(f"/user/{NAME}/rstudio/signed-in"), page.url
        assert f"as {NAME}" in page.text
        found = sockets(installed)
        assert [line.split()[1] for line in found if line.endswith("/rstudio.sock")] == [NAME]
        assert not [line for line in found if not line.split()[0].endswith("0")], "nobody but group and owner"
        kernels = person.get(f"{person.base}api/kernelspecs").json()["kernelspecs"]
        assert "ir" in kernels, "R in JupyterLab"
    finally:
        installed.cli("user", "stop", NAME, check=False)
        installed.cli("workspace", "remove", "rstudio", "--yes")
    assert machine.run(["test", "-e", "/usr/lib/rstudio-server/bin/rserver"], check=False).returncode == 1
    folder = "/etc/systemd/system/rstudio-server.service.d"
    assert machine.run(["test", "-e", folder], check=False).returncode == 1
    person = restarted(installed)
    absent = person.get(f"{person.base}rstudio/")
    assert absent.status_code == 404
    assert "illumidesk workspace install rstudio" in absent.text


def test_removed_while_somebody_works(installed: Classroom) -> None:
    """The build stays on disk until nothing runs from it."""
    person = restarted(installed)
    assert person.get(f"{person.base}vscode/").ok
    build = installed.machine.run(["realpath", "/opt/illumidesk/workspaces/vscode"]).stdout.strip()
    kept = "/root/vscode-kept"
    installed.machine.run(["cp", "-al", build, kept])
    try:
        installed.cli("workspace", "remove", "vscode", "--yes")
        assert listed(installed)["vscode"]["state"] == "absent"
        assert installed.machine.run(["test", "-d", build], check=False).returncode == 0
        assert person.get(f"{person.base}vscode/").ok
        assert "is not installed" in restarted(installed).get(f"/user/{NAME}/vscode/").text
        # As every command that builds does at its end.
        clear = "from illumidesk.host.environments import remove_old_builds; from illumidesk.paths import Paths; "
        clear += "remove_old_builds(Paths())"
        deadline = time.monotonic() + 60
        while installed.machine.run(["test", "-d", build], check=False).returncode == 0:
            assert time.monotonic() < deadline
            installed.machine.run(["/opt/illumidesk/hub/bin/python", "-I", "-c", clear])
            time.sleep(0.5)
    finally:
        # Back, without compiling it once more.
        installed.machine.run(["rm", "-rf", build])
        installed.machine.run(["mv", kept, build])
        assert "is ready" in ensure_program(installed, "vscode")
