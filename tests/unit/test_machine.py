"""The parts of scripts/machine.py that need neither root nor a network."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import machine
import pytest
from machine import AptSource, CommandError, HostSettings, MachineError

DEB822 = """\
Types: deb
# a comment between fields
URIs: http://mirror.example.org/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://mirror.example.org/debian-security
Suites: bookworm-security
Components: main contrib

Types: deb
URIs: https://packages.example.com/tool
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Types: deb
Enabled: no
URIs: http://off.example.org/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://mirror.example.org/debian
Suites: bookworm
Components: main
"""


def test_deb822_sources_become_those_of_the_release() -> None:
    text = machine.render_sources(machine.translate_sources(machine.parse_deb822(DEB822), "trixie"))
    assert text == (
        "Types: deb\n"
        "URIs: http://mirror.example.org/debian\n"
        "Suites: trixie trixie-updates\n"
        "Components: main\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        "\n"
        "Types: deb\n"
        "URIs: http://mirror.example.org/debian-security\n"
        "Suites: trixie-security\n"
        "Components: main contrib\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    )


@pytest.mark.parametrize(
    ("line", "suites"),
    [
        ("deb http://mirror.example.org/debian bookworm main", ("trixie",)),
        ("deb [arch=amd64 trusted=yes] https://m.example.org/debian stable main contrib", ("trixie",)),
        ("deb http://mirror.example.org/security buster/updates main", ("trixie-security",)),
        ("deb http://mirror.example.org/debian bookworm-backports main", None),
        ("deb https://download.example.com/linux/debian bookworm stable", None),
        ("deb [signed-by=/etc/apt/keyrings/x.gpg] https://x.example.com/ bookworm main", None),
        ("deb https://deb.example.com/node_20.x nodistro main", None),
        ("deb file:/srv/mirror bookworm main", None),
        ("deb cdrom:[Debian]/ bookworm main", None),
        ("deb-src http://mirror.example.org/debian bookworm main", None),
        ("# deb http://mirror.example.org/debian bookworm main", None),
        ("deb http://archive.example.org/ubuntu jammy main universe", None),
    ],
)
def test_one_line_sources(line: str, suites: tuple[str, ...] | None) -> None:
    translated = machine.translate_sources(machine.parse_one_line(line), "trixie")
    assert [source.suites for source in translated] == ([suites] if suites else [])
    assert all(source.trusted == ("trusted=yes" in line) for source in translated)


def test_the_same_source_twice_is_one() -> None:
    source = AptSource(("http://mirror.example.org/debian",), ("bookworm",), ("main",))
    assert len(machine.translate_sources([source, source], "bookworm")) == 1


def test_apt_options_are_only_those_of_the_network() -> None:
    dump = (
        'APT::Architecture "amd64";\n'
        'Acquire::http "";\n'
        'Acquire::http::Proxy "http://proxy.example.org:3128";\n'
        'Acquire::http::Proxy::mirror.example.org "DIRECT";\n'
        'Acquire::https::mirror.example.org::CaInfo "/opt/ca.pem";\n'
        'Acquire::https::SslKey "/root/secret.key";\n'
        'Acquire::http::Proxy-Auto-Detect "/usr/local/bin/proxy";\n'
        'Acquire::Check-Valid-Until "false";\n'
        'Acquire::Languages "none";\n'
        'DPkg::Post-Invoke:: "rm -rf /var/cache/apt";\n'
    )
    options = machine.filter_apt_options(dump)
    assert options == (
        'Acquire::http::Proxy "http://proxy.example.org:3128";',
        'Acquire::http::Proxy::mirror.example.org "DIRECT";',
        'Acquire::https::mirror.example.org::CaInfo "/opt/ca.pem";',
        'Acquire::Check-Valid-Until "false";',
    )
    assert machine.for_guest(options[2]) == (
        'Acquire::https::mirror.example.org::CaInfo "/etc/ssl/certs/ca-certificates.crt";'
    )
    assert machine.for_guest(options[0]) == options[0]


def test_pip_settings_leave_folders_of_the_host_out() -> None:
    files = [
        "[global]\nindex-url = https://old.example.org/simple\nfind-links = /opt/wheels\n",
        "[global]\nindex-url = https://pypi.example.org/simple\nextra-index-url = file:///opt/x https://y.example.org/\n",
    ]
    assert machine.pip_settings(files, {}) == {
        "index-url": "https://pypi.example.org/simple",
        "extra-index-url": "https://y.example.org/",
    }
    env = {"PIP_INDEX_URL": "http://env.example.org/simple", "PIP_TRUSTED_HOST": "env.example.org"}
    assert machine.pip_settings(files[:1], env) == {
        "index-url": "http://env.example.org/simple",
        "trusted-host": "env.example.org",
    }
    assert machine.pip_settings(["[global]\nextra-index-url = file:///opt/x\n", "not [ ini"], {}) == {}


def test_only_the_registry_is_taken_from_npmrc() -> None:
    npmrc = "//npm.example.org/:_authToken=secret\nregistry=https://npm.example.org/\nfund=false\n"
    assert machine.npm_registry([npmrc], {}) == "https://npm.example.org/"
    assert machine.npm_registry([npmrc], {"NPM_CONFIG_REGISTRY": "https://e.example.org/"}) == "https://e.example.org/"
    assert machine.npm_registry(["fund=false\n"], {}) == ""


def test_certificates_are_split_without_their_comments() -> None:
    one, two = (f"-----BEGIN CERTIFICATE-----\n{x}\n-----END CERTIFICATE-----" for x in ("AAAA", "BBBB"))
    assert machine.split_certificates(f"# Root\n{one}\n\n# Other\n{two}\n".replace("\n", "\r\n")) == [
        one,
        two,
    ]


def test_guest_files_hold_nothing_of_a_host_without_settings() -> None:
    assert set(machine.guest_files(HostSettings())) == {"etc/machine-id", "etc/default/locale"}


def test_guest_files_hold_the_settings_of_the_host() -> None:
    env = {"https_proxy": "http://u:p%40x@proxy.example.org", "PIP_CERT": machine.GUEST_BUNDLE}
    files = machine.guest_files(HostSettings(sources="S", apt_options=('Acquire::Retries "3";',), env=env))
    assert files["etc/apt/sources.list.d/debian.sources"] == "S"
    assert files["etc/apt/apt.conf.d/90illumidesk-machine"] == 'Acquire::Retries "3";\n'
    assert "https_proxy=http://u:p%40x@proxy.example.org\n" in files["etc/environment"]
    drop_in = files["etc/systemd/system.conf.d/90-illumidesk-machine.conf"]
    assert '"https_proxy=http://u:p%%40x@proxy.example.org"' in drop_in


def test_digest_changes_with_the_recipe_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = HostSettings(sources="a", env={"A": "1", "B": "2"})
    digest = machine.recipe_digest("trixie", settings)
    assert digest == machine.recipe_digest("trixie", HostSettings(sources="a", env={"B": "2", "A": "1"}))
    assert digest != machine.recipe_digest("bookworm", settings)
    assert digest != machine.recipe_digest("trixie", dataclasses.replace(settings, certificates=("x",)))
    monkeypatch.setattr(machine, "PACKAGES", (*machine.PACKAGES, "git"))
    assert digest != machine.recipe_digest("trixie", settings)


MOUNTINFO = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 29 0:25 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
31 29 0:26 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
32 29 0:27 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
33 29 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""
OWN_CGROUP = "9:name=systemd:/\n8:pids:/\n4:memory:/somebody/else\n0::/\n"


def test_control_groups_of_others_are_left_alone() -> None:
    found = machine.cgroup_parents(MOUNTINFO, OWN_CGROUP, nest=False)
    assert found == {
        "pids": Path("/sys/fs/cgroup/pids"),
        "systemd:cgroup": Path("/sys/fs/cgroup/systemd"),
        "systemd:cgroup2": Path("/sys/fs/cgroup/unified"),
    }
    nested = machine.cgroup_parents(MOUNTINFO, OWN_CGROUP, nest=True)
    assert nested["memory"] == Path("/sys/fs/cgroup/memory/somebody/else")


@pytest.mark.parametrize("name", ["", "A", "1a", "a-", "a b", "../x", "a/b", "a.b", "a" * 50, "a\n"])
def test_names_that_cannot_be_a_machine(name: str) -> None:
    with pytest.raises(MachineError):
        machine.check_name(name)


def test_dollars_reach_the_command() -> None:
    assert machine.escape_argv(["sh", "-c", "echo $HOME ${x} $$"]) == ["sh", "-c", "echo $$HOME $${x} $$$$"]


def test_a_failed_command_says_why() -> None:
    error = CommandError(3, ["apt-get", "install", "a b"], "out", "E: no such package\n")
    assert isinstance(error, subprocess.CalledProcessError)
    assert (error.returncode, error.stdout, error.stderr) == (3, "out", "E: no such package\n")
    assert str(error) == "`apt-get install 'a b'` ended with status 3.\n  E: no such package"


def test_checkout_without_git_leaves_tools_leftovers_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "no-git-here"))
    for name in (
        "install.sh",
        "pkg/a.py",
        "pkg/__pycache__/a.pyc",
        ".venv/bin/python",
        ".mypy_cache/x",
        ".github/ci",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert machine.checkout_files(tmp_path) == [".github/ci", "install.sh", "pkg/a.py"]


def test_files_are_shared_but_links_are_not(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "a.deb").write_text("a", encoding="ascii")
    (source / "b.deb").symlink_to("/etc/passwd")
    (target / "c.deb").write_text("old", encoding="ascii")
    (source / "c.deb").write_text("new", encoding="ascii")
    machine.share_files(sorted(source.iterdir()), target)
    assert sorted(path.name for path in target.iterdir()) == ["a.deb", "c.deb"]
    assert (target / "c.deb").read_text(encoding="ascii") == "old"


def test_option_values() -> None:
    assert machine.option_value(["--x", "1", "--admin=ada"], "--admin") == "ada"
    assert machine.option_value(["--admin", "ada"], "--admin") == "ada"
    assert machine.option_value(["--admin"], "--admin") is None


def test_errors_are_a_sentence_and_a_hint(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert machine.main(["list"]) == 1
    assert capsys.readouterr().err.startswith("machine.py: Booting a machine needs root.\n  Run it again as: sudo ")


def test_unknown_options_are_for_the_installer_only(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        machine.main(["down", "box", "--frobnicate"])
    assert "unrecognized arguments: --frobnicate" in capsys.readouterr().err
