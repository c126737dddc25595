"""install.sh on a real machine: what it refuses without a trace, and what it leaves alone when it is run again."""

from __future__ import annotations

import json
import shlex
import subprocess

import pytest

from tests.support.classroom import SOURCE, Classroom

SERVICES = ("illumidesk-proxy.service", "illumidesk-hub.service", "illumidesk-supervisor.service")

#: Every path with kind, size, times, mode, owner and target. Left out is what a machine at work writes by itself (the
#: kernel's file systems, temporary folders, the journal, the hub's databases, what runs in homes), and the caches of
#: downloads, which throwaway machines share.
_LISTING = r"""
listing() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/tmp \
        -o -path /var/log/journal -o -path '/srv/jupyterhub/*' -o -path '/home/*/*' -o -path /root/.cache \
        -o -path /root/.npm \) -prune \
        -o -printf '%p %y %s %T@ %C@ %m %U:%G %l\n' | LC_ALL=C sort
}
listing >/run/before-install
status=0
"""
_COMPARE = """
listing >/run/after-install
echo "status $status"
diff /run/before-install /run/after-install
"""


def refused(classroom: Classroom, script: str) -> str:
    """What install.sh says on standard error when `script` runs it, and refuses without having changed anything."""
    script = f"{_LISTING}( {script}\n) </dev/null || status=$?\n{_COMPARE}"
    done = classroom.machine.run(["bash", "-c", script], cwd=SOURCE, check=False)
    said, _, after = done.stdout.partition("status ")
    status, _, changed = after.partition("\n")
    assert status == "1", f"{status}\n{done.stdout}\n{done.stderr}"
    assert changed == "", f"it changed something:\n{changed}"
    assert said == "", "it said that it goes on"
    return done.stderr


def elsewhere(preparation: str, flags: str = "") -> str:
    """install.sh on the machine as it would look after `preparation`, which nobody else sees."""
    return f"unshare --mount bash -c {shlex.quote(f'set -e; {preparation}; exec ./install.sh --yes {flags}')}"


def bind(text: str, target: str) -> str:
    """A preparation: the file `target` says `text`."""
    return f"printf %s {shlex.quote(text)} >/run/pretended && mount --bind /run/pretended {target}"


def one_sentence(said: str) -> str:
    """The sentence that is all of an error, but for one line of advice below it."""
    first, *advice = said.splitlines()
    assert first.startswith("install.sh: "), said
    assert len(advice) <= 1, said
    assert all(line.startswith(" " * 12) for line in advice), said
    return first.removeprefix("install.sh: ")


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        pytest.param(
            "setpriv --reuid=65534 --regid=65534 --clear-groups bash -s -- --yes <./install.sh",
            "this needs root",
            id="not-root",
        ),
        pytest.param(
            elsewhere("mount -t tmpfs none /run/systemd"), "this machine is not running systemd", id="not-systemd"
        ),
        pytest.param(
            elsewhere(
                bind('PRETTY_NAME="Debian GNU/Linux 11 (bullseye)"\nVERSION_ID="11"\nID=debian\n', "/etc/os-release")
            ),
            "Debian GNU/Linux 11 (bullseye) is not supported",
            id="old-release",
        ),
        pytest.param(
            elsewhere(bind('PRETTY_NAME="Fedora Linux 43"\nVERSION_ID=43\nID=fedora\n', "/etc/os-release")),
            "Fedora Linux 43 is not supported",
            id="other-system",
        ),
        pytest.param(
            elsewhere("mount -t tmpfs -o size=64m none /opt"),
            "too little disk space: 64 MB are free for /opt/illumidesk, 3072 MB are needed",
            id="disk-for-programs",
        ),
        pytest.param(
            elsewhere("mount -t tmpfs -o size=64m none /home"),
            "too little disk space: 64 MB are free for /home, 3072 MB are needed",
            id="disk-for-homes",
        ),
        pytest.param(
            elsewhere(bind("MemTotal:         524288 kB\nSwapTotal:       8388608 kB\n", "/proc/meminfo")),
            "too little memory: this machine has 512 MB, 1 GB is needed (4 GB for a class)",
            id="memory",
        ),
        pytest.param(
            "exec unshare --net ./install.sh --yes",
            "no network: none of apt's package sources can be reached",
            id="no-network",
        ),
        pytest.param(
            "exec ./install.sh --yes --admin games",
            "there is already an account games on this machine that IllumiDesk did not make",
            id="somebody-elses-account",
        ),
        pytest.param(
            "exec ./install.sh --yes --from /nowhere", "there is no folder or wheel /nowhere", id="from-nowhere"
        ),
    ],
)
def test_refuses_in_one_sentence_and_changes_nothing(classroom: Classroom, script: str, sentence: str) -> None:
    assert one_sentence(refused(classroom, script)) == sentence


@pytest.mark.smoke
def test_refuses_a_port_that_somebody_else_has(classroom: Classroom) -> None:
    script = """exec /usr/bin/python3 -c '
import socket, subprocess, sys
with socket.create_server(("127.0.0.1", 0)) as listener:
    port = listener.getsockname()[1]
    done = subprocess.run(["./install.sh", "--yes", "--http-port", str(port)], stderr=subprocess.PIPE, text=True)
print(done.stderr.replace(str(port), "N"), file=sys.stderr, end="")
sys.exit(done.returncode)'"""
    assert one_sentence(refused(classroom, script)) == "port N is taken by another program (of root)"


def test_refuses_while_another_installation_runs(classroom: Classroom) -> None:
    done = classroom.machine.run(
        ["flock", "/run/lock/illumidesk-install.lock", "./install.sh", "--yes"], cwd=SOURCE, check=False
    )
    assert done.returncode == 1
    assert one_sentence(done.stderr) == "another installation is running"


# Run again


def piped(classroom: Classroom, *flags: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """What `curl … | sudo bash -s -- FLAGS` does."""
    return classroom.machine.run(
        ["bash", "-c", f"cat {SOURCE}/install.sh | bash -s -- {shlex.join(flags)}"], check=check, cwd="/"
    )


def pids(classroom: Classroom) -> list[int]:
    return [classroom.main_pid(unit) for unit in SERVICES]


def modes(classroom: Classroom, *patterns: str) -> dict[str, str]:
    """Mode and owner by path."""
    listed = classroom.machine.run(["bash", "-c", f"stat -c '%n %a %U:%G' {' '.join(patterns)}"]).stdout
    return dict(line.split(" ", 1) for line in listed.splitlines())


@pytest.mark.smoke
def test_what_root_alone_may_read(classroom: Classroom) -> None:
    found = modes(classroom, "/var/log/illumidesk{,/*}", "/etc/illumidesk/secrets{,/*}")
    for folder in ("/var/log/illumidesk", "/etc/illumidesk/secrets"):
        assert found.pop(folder) == "700 root:root"
        files = {path: mode for path, mode in found.items() if path.startswith(f"{folder}/")}
        assert files
        assert set(files.values()) == {"600 root:root"}, files


def test_piped_it_upgrades_and_leaves_changed_files_alone(classroom: Classroom) -> None:
    file, record = "/etc/jupyter/nbgrader_config.py", "/var/lib/illumidesk/shipped.json"
    shipped = classroom.machine.read_text(file)
    changed = f"{shipped}\n# ours\n"
    classroom.machine.write_text(file, changed)
    # As if the release before this one had brought another file.
    known = json.loads(classroom.machine.read_text(record))
    classroom.machine.write_text(record, json.dumps({**known, file: "0" * 64}))
    try:
        done = piped(classroom, "--from", SOURCE, "--yes")

        assert "is up to date" in done.stdout
        assert f"{file} was changed on this machine and stays; this version's own is {file}.new" in done.stdout
        assert classroom.machine.read_text(file) == changed
        assert classroom.machine.read_text(f"{file}.new") == shipped
        assert modes(classroom, f"{file}.new") == {f"{file}.new": "644 root:root"}
        # There is nothing new from then on, so nothing is put beside it again.
        classroom.machine.run(["rm", f"{file}.new"])
        assert f"{file}.new" not in piped(classroom, "--from", SOURCE, "--yes").stdout
        assert classroom.machine.read_text(file) == changed
    finally:
        classroom.machine.write_text(file, shipped)


def test_run_again_it_restarts_nothing(classroom: Classroom) -> None:
    classroom.install()  # brings into force what other tests left in the settings
    before = pids(classroom)
    assert 0 not in before
    wheel = classroom.machine.run(["bash", "-c", "ls /opt/illumidesk/wheels/current/*.whl"]).stdout.strip()
    for said in (classroom.install(), piped(classroom, "--from", wheel, "--yes").stdout):
        assert "Restarted: nothing." in said
    assert pids(classroom) == before


def test_without_demo_and_with_a_course(classroom: Classroom) -> None:
    """As at the first installation, of which the machine has one record."""
    record = "/var/lib/illumidesk/install.json"
    kept = classroom.machine.read_text(record)
    classroom.machine.run(["rm", record])
    try:
        said = classroom.install("--no-demo", "--course", "made1", "--course=made2")
        assert " is ready after " in said
        assert "administrator, and instructor of made1, made2" in said
        assert "instructor1" not in said
        assert "student1" not in said
        for course in ("made1", "made2"):
            members = classroom.cli_json("course", "show", course)["members"]
            assert [(member["name"], member["role"]) for member in members] == [("admin", "instructor")]
        # From now on it is an upgrade again, which makes no course and no demo by itself.
        assert "Who signs in as what" not in piped(classroom, "--from", SOURCE, "--yes").stdout
    finally:
        classroom.machine.write_text(record, kept)
        for course in ("made1", "made2"):
            classroom.cli("course", "remove", course, "--yes", check=False)


def test_a_release_that_does_not_exist(classroom: Classroom) -> None:
    before = pids(classroom)
    builds = classroom.machine.run(["ls", "-l", "/opt/illumidesk", "/opt/illumidesk/builds"]).stdout

    done = piped(classroom, "--version", "99.99.99", "--yes", check=False)

    assert done.returncode == 1
    assert "the package index has no release illumidesk 99.99.99 for this machine, or cannot be reached" in done.stderr
    assert "--from https://github.com/IllumiDesk/illumidesk.git" in done.stderr
    assert "No matching distribution" not in done.stderr
    assert pids(classroom) == before
    assert classroom.machine.run(["ls", "-l", "/opt/illumidesk", "/opt/illumidesk/builds"]).stdout == builds
