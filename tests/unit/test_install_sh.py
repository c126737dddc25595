"""install.sh: what it detects and refuses, by sourcing it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

INSTALL_SH = Path(__file__).resolve().parents[2] / "install.sh"


def bash(script: str, *, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script after sourcing install.sh."""
    env = {
        "PATH": os.environ["PATH"],
        "ILLUMIDESK_INSTALL_SH_TEST": "1",
        "LC_ALL": "C.UTF-8",
        **variables,
    }
    return subprocess.run(
        ["bash", "-c", f'source "{INSTALL_SH}"\n{script}'],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


OS_RELEASE = """PRETTY_NAME="{pretty}"
NAME="{name}"
VERSION_ID="{version}"
ID={id}
ID_LIKE=debian
HOME_URL="https://example.org/"
"""


@pytest.mark.parametrize(
    ("id_", "version", "pretty", "good"),
    [
        ("debian", "12", "Debian GNU/Linux 12 (bookworm)", True),
        ("debian", "13", "Debian GNU/Linux 13 (trixie)", True),
        ("ubuntu", "22.04", "Ubuntu 22.04.5 LTS", True),
        ("ubuntu", "24.04", "Ubuntu 24.04.3 LTS", True),
        ("ubuntu", "26.04", "Ubuntu 26.04 LTS", True),
        ("debian", "11", "Debian GNU/Linux 11 (bullseye)", False),
        ("ubuntu", "20.04", "Ubuntu 20.04.6 LTS", False),
        ("ubuntu", "25.10", "Ubuntu 25.10", False),
        ("linuxmint", "22", "Linux Mint 22", False),
        ("debian", "", "Debian GNU/Linux forky/sid", False),
        ("fedora", "43", "Fedora Linux 43", False),
    ],
)
def test_release(tmp_path: Path, id_: str, version: str, pretty: str, good: bool) -> None:
    file = tmp_path / "os-release"
    file.write_text(OS_RELEASE.format(id=id_, version=version, pretty=pretty, name=id_))
    done = bash(f"detect_release {file}")
    assert done.stdout.strip() == pretty
    assert (done.returncode == 0) is good


def test_release_without_quotes_and_with_single_ones(tmp_path: Path) -> None:
    file = tmp_path / "os-release"
    file.write_text("ID='debian'\nVERSION_ID=13\nPRETTY_NAME='$(touch pwned)'\n")
    done = bash(f"detect_release {file}", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.strip() == "$(touch pwned)"
    assert not (tmp_path / "pwned").exists()


def test_no_os_release(tmp_path: Path) -> None:
    assert bash(f"detect_release {tmp_path}/none").returncode == 1


@pytest.mark.parametrize(
    ("uname", "shown", "good"),
    [
        ("x86_64", "x86-64", True),
        ("aarch64", "arm64", True),
        ("armv7l", "armv7l", False),
        ("riscv64", "riscv64", False),
    ],
)
def test_machine(uname: str, shown: str, good: bool) -> None:
    done = bash(f"detect_machine {uname}")
    assert (done.stdout.strip(), done.returncode == 0) == (shown, good)


PROC_TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000   996        0 1 1 0 100 0 0 10 0
   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 0100007F:01BB 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 3 1 0 100 0 0 10 0
"""
PROC_TCP6 = """  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: 00000000000000000000000000000000:22B8 00000000000000000000000000000000:0000 0A 0:0 0:0 00000000  33 0 4
"""


@pytest.mark.parametrize(("port", "holder"), [(80, "996"), (8080, "0"), (443, ""), (8888, "33"), (81, ""), (8000, "")])
def test_port_holder(tmp_path: Path, port: int, holder: str) -> None:
    """443 is only a connection's end here, and nobody listens."""
    (tmp_path / "tcp").write_text(PROC_TCP)
    (tmp_path / "tcp6").write_text(PROC_TCP6)
    # a kernel without IPv6 has no such table
    done = bash(f"port_holder {port} {tmp_path}/tcp {tmp_path}/tcp6; port_holder {port} {tmp_path}/none")
    assert done.stdout.split() == ([holder] if holder else [])


@pytest.mark.parametrize(
    ("flag", "config", "port"),
    [
        ("", None, "80"),
        ("", "proxy:\n  # The public port\n  http_port: 8081 # mine\n", "8081"),
        ("8443", "proxy:\n  http_port: 8081\n", "8443"),
        ("", "proxy:\n  bind: ''\n", "80"),
    ],
)
def test_wanted_port(tmp_path: Path, flag: str, config: str | None, port: str) -> None:
    file = tmp_path / "config.yaml"
    if config is not None:
        file.write_text(config)
    assert bash(f"HTTP_PORT={flag}; wanted_port {file}").stdout.strip() == port


def test_memory(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:        1992652 kB\nMemFree:   1 kB\nSwapTotal: 9999999 kB\n")
    assert bash(f"memory_mb {tmp_path}/meminfo").stdout.strip() == "1945"


def test_free_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    done = bash(f"free_mb {tmp_path}/a/b/c")
    assert done.returncode == 0
    assert abs(int(done.stdout) - shutil.disk_usage(tmp_path).free // 2**20) < 1024


def test_flags() -> None:
    done = bash(
        "parse_options --admin prof --course bio-1 --course=chem --no-demo --http-port 8080 --from=/x --refresh -y\n"
        'echo "$ADMIN|${COURSES[*]}|$NO_DEMO|$HTTP_PORT|$FROM|$VERSION|$REFRESH|$YES|$FORCE"'
    )
    assert done.stdout.strip() == "prof|bio-1 chem|1|8080|/x||1|1|", done.stderr


def test_variables_are_flags() -> None:
    done = bash(
        'parse_options --http-port 81\necho "$ADMIN|${COURSES[*]}|$NO_DEMO|$HTTP_PORT|$VERSION|$YES"',
        ILLUMIDESK_ADMIN="prof",
        ILLUMIDESK_COURSE="bio chem",
        ILLUMIDESK_NO_DEMO="1",
        ILLUMIDESK_HTTP_PORT="8080",
        ILLUMIDESK_VERSION="1.2",
        ILLUMIDESK_YES="1",
    )
    assert done.stdout.strip() == "prof|bio chem|1|81|1.2|1"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--admin", "--admin needs a value"),
        ("--admin Prof", "'Prof' cannot be an administrator's name"),
        ("--admin root", "'root' cannot be an administrator's name"),
        ("--admin grader-x", "cannot be an administrator's name"),
        (f"--admin {'a' * 33}", "cannot be an administrator's name"),
        ("--course 'a b'", "'a b' is not a valid course id"),
        ("--course -a", "'-a' is not a valid course id"),
        (f"--course {'a' * 24}", "is not a valid course id"),
        ("--http-port 0", "'0' is not a port"),
        ("--http-port 65536", "'65536' is not a port"),
        ("--http-port 80x", "'80x' is not a port"),
        ("--version 1 --from /x", "--version and --from exclude each other"),
        ("--nosuch", "there is no flag --nosuch"),
        ("stray", "there is no flag stray"),
    ],
)
def test_wrong_flags(arguments: str, says: str) -> None:
    done = bash(f"parse_options {arguments}; echo went on")
    assert done.returncode == 1
    assert says in done.stderr
    assert "went on" not in done.stdout


def test_names_as_in_python() -> None:
    """The two copies of the rules agree."""
    from illumidesk import names
    from illumidesk.errors import IllumiDeskError

    candidates = ["a", "a1", "1a", "a-", "-a", "a_b", "A", "ab c", "", "root", "grader", "nobody", "shared"]
    candidates += ["illumidesk", "illumidesk-x", "jupyter-x", "systemd-x", "nbgrader-x", "formgrade-x", "ä"]
    candidates += ["instructors", "nogroup", "a" * 23, "a" * 24, "a" * 32, "a" * 33, "a.b", "a\nb", "7", "x-"]

    def python(check: object, name: str) -> bool:
        try:
            check(name)  # type: ignore[operator]
        except IllumiDeskError:
            return False
        return True

    for function, check in (
        ("valid_account", names.check_account),
        ("valid_course", names.check_course_id),
    ):
        for name in candidates:
            done = bash(f'{function} "$NAME"', NAME=name)
            assert (done.returncode == 0) is python(check, name), (function, name)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What looks like a checkout."""
    folder = tmp_path / "illumidesk src"
    (folder / "illumidesk").mkdir(parents=True)
    (folder / "illumidesk/__init__.py").write_text("")
    (folder / "pyproject.toml").write_text('[project]\nname = "illumidesk"\n')
    return folder


def test_source_is_the_clone_that_the_file_lies_in() -> None:
    done = bash('parse_options; find_source; echo "$SOURCE"')
    assert done.stdout.strip() == str(INSTALL_SH.parent)


def test_source_when_piped(tmp_path: Path) -> None:
    """Under `curl | bash` no folder counts, not even one that looks right."""
    for arguments, source in (("", "illumidesk"), ("--version 1.2", "illumidesk==1.2")):
        script = INSTALL_SH.read_text() + f'\nparse_options {arguments}; find_source; echo "$SOURCE"'
        done = subprocess.run(
            ["bash"],
            input=script,
            env={"PATH": os.environ["PATH"], "ILLUMIDESK_INSTALL_SH_TEST": "1"},
            cwd=INSTALL_SH.parent,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.stdout.strip() == source, done.stderr


def test_version_outranks_the_clone() -> None:
    assert bash('parse_options --version 1.2; find_source; echo "$SOURCE"').stdout.strip() == "illumidesk==1.2"


def test_source_from(checkout: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "illumidesk-1-py3-none-any.whl"
    wheel.write_bytes(b"")
    for given, source in (
        (str(checkout), str(checkout)),
        (wheel.name, str(wheel)),
        ("git+https://example.org/x@main", "git+https://example.org/x@main"),
        ("https://example.org/x.git", "git+https://example.org/x.git"),
    ):
        done = bash('parse_options --from "$GIVEN"; find_source; echo "$SOURCE"', cwd=tmp_path, GIVEN=given)
        assert done.stdout.strip() == source, done.stderr


def test_source_from_nowhere(tmp_path: Path) -> None:
    assert "there is no folder or wheel" in bash("parse_options --from /nowhere; find_source").stderr
    assert "is not a checkout" in bash(f"parse_options --from {tmp_path}; find_source").stderr


def test_checkout_digest_follows_what_goes_into_the_wheel(checkout: Path) -> None:
    def digest() -> str:
        return bash('checkout_digest "$DIR"', DIR=str(checkout)).stdout.strip()

    first = digest()
    assert len(first) == hashlib.sha256().digest_size * 2
    (checkout / "notes.txt").write_text("not in the wheel")
    (checkout / "illumidesk/__pycache__").mkdir()
    (checkout / "illumidesk/__pycache__/x.pyc").write_bytes(b"x")
    assert digest() == first
    (checkout / "illumidesk/__init__.py").write_text("# changed")
    assert digest() != first


def test_a_failed_step_says_why(tmp_path: Path) -> None:
    done = bash(
        f"""LOG={tmp_path}/log; : >$LOG
        fine() {{ echo fine; }}
        broken() {{ echo 'E: Unable to locate package nosuch'; seq 1 20; false; echo never; }}
        step First fine
        step "The second" broken
        echo went on"""
    )
    assert done.returncode == 1
    assert "First" in done.stdout
    assert "FAILED" in done.stdout
    assert "went on" not in done.stdout
    assert '"The second" failed' in done.stderr
    assert "E: Unable to locate package nosuch" in done.stderr
    assert "    20\n" in done.stderr
    assert "    1\n" not in done.stderr
    assert "never" not in (tmp_path / "log").read_text()
    assert "fine" not in done.stderr


def test_a_step_that_knows_why_it_failed_says_that_alone(tmp_path: Path) -> None:
    done = bash(
        f"""LOG={tmp_path}/log; : >$LOG
        broken() {{ echo 'ERROR: No matching distribution found'; fail 'there is none' 'make one'; }}
        step Only broken"""
    )
    assert done.returncode == 1
    sentence, hint, where = done.stderr.strip().splitlines()
    assert sentence == "install.sh: there is none"
    assert hint.strip() == "make one"
    assert f"{tmp_path}/log" in where
    assert "No matching distribution found" in (tmp_path / "log").read_text()


def test_half_a_download_does_nothing() -> None:
    text = INSTALL_SH.read_text()
    last = text.rstrip().splitlines()[-1]
    assert last == 'if [ -z "${ILLUMIDESK_INSTALL_SH_TEST:-}" ]; then main "$@"; fi'
    half = text[: text.rindex("\nif [ -z")]
    done = subprocess.run(["bash"], input=half, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_refuses_without_root() -> None:
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-s", "--", "--yes"],
        input=INSTALL_SH.read_text(),
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert "this needs root" in done.stderr
    assert done.stdout == ""


def test_refuses_without_systemd() -> None:
    # Out of sight, where this machine runs it.
    hidden = (
        '[ ! -d /run/systemd ] || mount -t tmpfs tmpfs /run/systemd; [ ! -e /run/systemd/system ]; exec bash "$0" --yes'
    )
    argv = ["unshare", "--mount", "bash", "-ec", hidden, str(INSTALL_SH)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "not running systemd" in done.stderr


def test_shellcheck() -> None:
    done = subprocess.run(["shellcheck", str(INSTALL_SH)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
