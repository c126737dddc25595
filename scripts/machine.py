#!/usr/bin/env python3
"""A throwaway Debian machine with its own systemd, for trying and testing IllumiDesk.

Installing IllumiDesk changes a whole machine: accounts, units, folders under /etc, /srv and /opt. This script
gives it one that nobody needs: a minimal Debian, as bare as a fresh cloud VM, booted by systemd-nspawn over
an overlay that `down` deletes. It needs Debian or Ubuntu and root on the host, and no systemd there.

    scripts/machine.py try                     # the whole system, at http://localhost:8000
    scripts/machine.py up NAME                 # a bare machine
    scripts/machine.py run NAME -- CMD ...     # a command in it
    scripts/machine.py down NAME               # gone without a trace

Tests use the class:

    with Machine("mine", release="trixie") as machine:
        machine.run(["systemctl", "is-active", "dbus.service"])

Two things differ from a real VM. The machine shares the host's network, so a port can be taken by one machine
only; and some limits (IPAddressDeny=, on cgroup v1 maybe MemoryMax=) may be accepted and not enforced.
"""

from __future__ import annotations

import argparse
import configparser
import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, TYPE_CHECKING, Any, NoReturn, cast

if TYPE_CHECKING:
    from typing import Self

STATE_DIR = Path(os.environ.get("ILLUMIDESK_MACHINE_STATE", "/var/lib/illumidesk-machine"))
CACHE_DIR = Path(os.environ.get("ILLUMIDESK_MACHINE_CACHE", "/var/cache/illumidesk-machine"))

RELEASES = ("bookworm", "trixie")
DEFAULT_RELEASE = "bookworm"

# What a bare cloud VM has. python3-venv, pip and node are left out on purpose: the installer brings them.
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "libpam-systemd",
    "kmod",
    "ca-certificates",
    "curl",
    "iproute2",
    "procps",
    "sudo",
    "python3",
)
RECIPE = 1  # raise it when build_root_fs() changes, so that cached root file systems are built anew

# Command on the host -> the Debian package that brings it.
HOST_TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "systemd-nspawn": "systemd-container",
    "nsenter": "util-linux",
    "mount": "mount",
    "gpgv": "gpgv",
}
DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

GUEST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
GUEST_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
CA_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE")
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
# Controllers of cgroup v1 that systemd's limits need: TasksMax=, CPUQuota= and CPUWeight=, MemoryMax=.
LEGACY_CONTROLLERS = ("pids", "cpu", "cpuacct", "memory")
CACHE_BINDS = {"pip": "/root/.cache/pip", "uv": "/root/.cache/uv", "npm": "/root/.npm"}

CHECKOUT = Path(__file__).resolve().parent.parent
# Left out of a copy of the checkout when git cannot say what belongs to it.
NOT_SOURCE = {
    ".git",
    ".venv",
    "venv",
    "node_modules",
    "__pycache__",
    "build",
    "dist",
    "htmlcov",
    ".tox",
    ".nox",
}

SYSTEMD_HOST = Path("/run/systemd/system")  # a folder if systemd runs the host
SLOW_STEP = 2.0  # seconds; a step that took longer says how long
BOOT_TIMEOUT = 90.0
RESTART_STATUS = 133  # systemd-nspawn's exit status when the guest asked for a reboot


class MachineError(Exception):
    """Something a person can act on: one sentence, and a hint at what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = str(self.args[0])
        return f"{message}\n  {self.hint}" if self.hint else message


class CommandError(MachineError, subprocess.CalledProcessError):
    """A command in the machine ended with a status other than 0. Also a `subprocess.CalledProcessError`."""

    def __init__(self, returncode: int, cmd: Sequence[str], output: str, stderr: str) -> None:
        subprocess.CalledProcessError.__init__(self, returncode, list(cmd), output, stderr)
        self.args = (f"`{shlex.join(cmd)}` ended with status {returncode}.",)
        self.hint = "\n  ".join((stderr.strip() or output.strip()).splitlines()[-30:])

    def __str__(self) -> str:
        return MachineError.__str__(self)


# ----------------------------------------------------------------------------------------------------------
# Telling people what happens


def say(message: str) -> None:
    """Print a line of progress. Standard output stays free for the output of commands."""
    print(message, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(message: str, quiet: bool = False) -> Iterator[None]:
    """Announce a step, and say how long it took if that was long enough to wonder."""
    if not quiet:
        say(f"{message} …")
    started = time.monotonic()
    yield
    took = time.monotonic() - started
    if took >= SLOW_STEP and not quiet:
        say(f"  done in {took:.0f} s")


def call(argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> str:
    """Run a command on the host and return its output; a failure becomes a MachineError."""
    done = subprocess.run(
        list(argv),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env=env,
        check=False,
    )
    if done.returncode != 0:
        tail = "\n  ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-10:])
        raise MachineError(f"`{shlex.join(argv)}` failed on this host.", tail)
    return done.stdout


# ----------------------------------------------------------------------------------------------------------
# What the host knows and the machine needs: package mirrors, proxies, certificates

DEBIAN_SUITES = re.compile(
    r"(?:buster|bullseye|bookworm|trixie|forky|sid|oldoldstable|oldstable|stable|testing|unstable)"
    r"(?P<part>|-updates|-security|/updates)"
)
APT_OPTIONS = re.compile(
    r"Acquire::(?:https?::(?:[^:\s]+::)?(?:Proxy(?:::[^:\s]+)?|CaInfo|Verify-Peer|Verify-Host)"
    r"|Check-Valid-Until|Check-Date|Retries) \"(?P<value>[^\"]+)\";",
    re.IGNORECASE,
)
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True)
class AptSource:
    """One place that apt takes packages from."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""
    trusted: bool = False


def parse_deb822(text: str) -> list[AptSource]:
    """Read the stanzas of a `.sources` file (see sources.list(5)) that are switched on and offer binaries."""
    sources = []
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line[0] in " \t":
                fields[name] = f"{fields.get(name, '')} {line.strip()}"
            else:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in (
            "no",
            "false",
        ):
            continue
        sources.append(
            AptSource(
                uris=tuple(fields.get("uris", "").split()),
                suites=tuple(fields.get("suites", "").split()),
                components=tuple(fields.get("components", "").split()),
                signed_by=fields.get("signed-by", ""),
                trusted=fields.get("trusted", "").lower() == "yes",
            )
        )
    return sources


def parse_one_line(text: str) -> list[AptSource]:
    """Read the lines of a `sources.list` file (see sources.list(5))."""
    sources = []
    for line in text.splitlines():
        found = re.match(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<rest>[^#]+)", line.strip())
        if not found:
            continue
        options = dict(option.partition("=")[::2] for option in (found["options"] or "").split())
        words = found["rest"].split()
        if len(words) < 2:
            continue
        sources.append(
            AptSource(
                uris=(words[0],),
                suites=(words[1],),
                components=tuple(words[2:]),
                signed_by=options.get("signed-by", ""),
                trusted=options.get("trusted", "") == "yes",
            )
        )
    return sources


def translate_sources(sources: Iterable[AptSource], release: str) -> list[AptSource]:
    """Turn the host's sources into the release's: Debian's own archive only, with the suites renamed.

    Third-party archives are left out (a bare VM has none), and so are backports and anything not over HTTP.
    """
    translated = []
    for source in sources:
        parts = [DEBIAN_SUITES.fullmatch(suite) for suite in source.suites]
        suites = [release + found["part"].replace("/updates", "-security") for found in parts if found]
        uris = tuple(uri for uri in source.uris if uri.startswith(("http://", "https://")))
        foreign = source.signed_by and "debian-archive" not in source.signed_by
        if not suites or not uris or foreign or "main" not in source.components:
            continue
        new = AptSource(uris, tuple(dict.fromkeys(suites)), source.components, str(DEBIAN_KEYRING), source.trusted)
        if new not in translated:
            translated.append(new)
    return translated


def render_sources(sources: Iterable[AptSource]) -> str:
    """Write sources as a deb822 file."""
    stanzas = []
    for source in sources:
        lines = [
            "Types: deb",
            f"URIs: {' '.join(source.uris)}",
            f"Suites: {' '.join(source.suites)}",
            f"Components: {' '.join(source.components)}",
            f"Signed-By: {source.signed_by}" if source.signed_by else "",
            "Trusted: yes" if source.trusted else "",
        ]
        stanzas.append("\n".join(line for line in lines if line) + "\n")
    return "\n".join(stanzas)


def filter_apt_options(dump: str) -> tuple[str, ...]:
    """Pick from `apt-config dump` what a machine on the same network needs too: proxies, CAs, validity."""
    return tuple(line.strip() for line in dump.splitlines() if APT_OPTIONS.fullmatch(line.strip()))


def for_guest(option: str) -> str:
    """An apt option as the machine needs it: the host's CA files are part of the machine's own bundle."""
    return re.sub(r'(CaInfo) "[^"]*"', rf'\1 "{GUEST_BUNDLE}"', option, flags=re.IGNORECASE)


def split_certificates(text: str) -> list[str]:
    """The PEM certificates in a bundle, without the comments between them."""
    return [match.replace("\r", "") for match in CERTIFICATE.findall(text)]


def web_urls(value: str) -> str:
    """The http(s) addresses in a setting; a folder of the host means nothing in the machine."""
    return " ".join(word for word in value.split() if word.startswith(("http://", "https://")))


def pip_settings(config_texts: Iterable[str], env: Mapping[str, str]) -> dict[str, str]:
    """pip's index settings, as pip itself ranks them: later files win, the environment wins over files."""
    found: dict[str, str] = {}
    for text in config_texts:
        parser = configparser.RawConfigParser()
        with contextlib.suppress(configparser.Error):
            parser.read_string(text)
        for section in ("global", "install"):
            for key in ("index-url", "extra-index-url", "trusted-host"):
                if parser.has_option(section, key):
                    found[key] = parser.get(section, key)
    for key in ("index-url", "extra-index-url", "trusted-host"):
        variable = "PIP_" + key.upper().replace("-", "_")
        found[key] = env.get(variable) or found.get(key, "")
    indexes = {key: web_urls(found[key]) for key in ("index-url", "extra-index-url")}
    settings = {key: value for key, value in indexes.items() if value}
    if settings and found["trusted-host"]:
        settings["trusted-host"] = " ".join(found["trusted-host"].split())
    return settings


def npm_registry(npmrc_texts: Iterable[str], env: Mapping[str, str]) -> str:
    """The host's npm registry, "" for npm's own default. Nothing else is taken from .npmrc: it holds keys."""
    registry = ""
    for text in npmrc_texts:
        for line in text.splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "registry":
                registry = value.strip()
    return web_urls(env.get("NPM_CONFIG_REGISTRY") or env.get("npm_config_registry") or registry)


def read_texts(paths: Iterable[Path]) -> list[str]:
    """The contents of those files that can be read, in order."""
    texts = []
    for path in paths:
        with contextlib.suppress(OSError):
            texts.append(path.read_text(encoding="utf-8", errors="replace"))
    return texts


@dataclass(frozen=True)
class HostSettings:
    """What the machine takes over from the host, so that packages install in it as they do on the host."""

    sources: str = ""  # a deb822 file; "" leaves the choice of mirror to mmdebstrap
    apt_options: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()  # PEM, beyond the ones that Debian trusts
    pip: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, release: str, env: Mapping[str, str] = os.environ) -> HostSettings:
        """Look at the host's files and at the environment."""
        home = Path.home()
        etc_apt = Path("/etc/apt")
        sources = parse_one_line("\n".join(read_texts([etc_apt / "sources.list"])))
        for path in sorted((etc_apt / "sources.list.d").glob("*")):
            if path.suffix in (".list", ".sources"):
                parse = parse_one_line if path.suffix == ".list" else parse_deb822
                sources += parse("\n".join(read_texts([path])))
        pip_files: list[str | Path] = [
            "/etc/xdg/pip/pip.conf",
            "/etc/pip.conf",
            home / ".pip/pip.conf",
            home / ".config/pip/pip.conf",
        ]
        if env.get("PIP_CONFIG_FILE"):
            pip_files.append(env["PIP_CONFIG_FILE"])
        pip = pip_settings(read_texts(Path(path) for path in pip_files), env)
        registry = npm_registry(read_texts([Path("/etc/npmrc"), home / ".npmrc"]), env)

        guest_env = {name: env[name] for name in PROXY_VARIABLES if env.get(name)}
        if any(env.get(name) for name in CA_VARIABLES):
            guest_env.update((name, GUEST_BUNDLE) for name in CA_VARIABLES)
        if registry:
            guest_env["NPM_CONFIG_REGISTRY"] = registry
        if "index-url" in pip:
            guest_env["UV_DEFAULT_INDEX"] = pip["index-url"]
        options = filter_apt_options(call(["apt-config", "dump"]))
        if "PIP_CERT" in guest_env:
            pip["cert"] = GUEST_BUNDLE  # for a pip that is started without our variables
        return cls(
            sources=render_sources(translate_sources(sources, release)),
            apt_options=options,
            certificates=tuple(host_certificates(env)),
            pip=pip,
            env=guest_env,
        )


def host_certificates(env: Mapping[str, str]) -> list[str]:
    """The certificates that this host trusts on top of Debian's own, sorted."""
    bundles = {Path(env[name]) for name in CA_VARIABLES if env.get(name)}
    local = sorted(Path("/usr/local/share/ca-certificates").rglob("*.crt"))
    trusted = split_certificates("\n".join(read_texts([*sorted(bundles), *local])))
    stock = split_certificates("\n".join(read_texts(Path("/usr/share/ca-certificates").rglob("*.crt"))))
    return sorted(set(trusted) - set(stock))


def recipe_digest(release: str, settings: HostSettings) -> str:
    """A short digest of all that shapes a root file system, so that a change of it builds a new one."""
    recipe = [RECIPE, release, PACKAGES, asdict(settings)]
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]


# ----------------------------------------------------------------------------------------------------------
# The host's side: tools and root file systems


def ensure_host() -> None:
    """Refuse a host on which none of this can work."""
    if os.geteuid() != 0:
        raise MachineError("Booting a machine needs root.", f"Run it again as: sudo {invocation()} …")
    if not sys.platform.startswith("linux") or shutil.which("apt-get") is None:
        raise MachineError("This works on Debian and Ubuntu only: apt-get is missing.", "Use a Debian or Ubuntu VM.")


def missing_packages() -> list[str]:
    """Debian packages to install before a machine can be built and booted here."""
    packages = {package for command, package in HOST_TOOLS.items() if shutil.which(command) is None}
    if not DEBIAN_KEYRING.exists():
        packages.add("debian-archive-keyring")
    return sorted(packages)


def ensure_tools() -> None:
    """Install what is missing on the host."""
    ensure_host()
    packages = missing_packages()
    if not packages:
        return
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with step(f"Installing {', '.join(packages)} on this host"):
        try:
            call(install, env=env)
        except MachineError:  # most often: package lists that are missing or old
            call(["apt-get", "update", "-q"], env=env)
            call(install, env=env)


@contextlib.contextmanager
def locked(path: Path, waiting_for: str) -> Iterator[None]:
    """Hold a lock that the kernel gives back when this process dies, however it dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Waiting for {waiting_for} …")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def remove_tree(path: Path) -> None:
    """Delete a folder, but nothing that is still mounted below it."""
    for mount in mounts_below(path):
        raise MachineError(f"{mount} is still mounted.", f"Unmount it with: umount {shlex.quote(str(mount))}")
    if os.path.lexists(path):
        call(["rm", "-rf", "--one-file-system", "--", str(path)])


def mounts_below(*folders: Path) -> list[Path]:
    """What is mounted at or below some folders, innermost first."""
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    targets = [Path(re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), line.split()[4])) for line in text.splitlines()]
    return [target for target in reversed(targets) if any(f == target or f in target.parents for f in folders)]


def ensure_root_fs(release: str) -> Path:
    """Return the cached root file system of a release; build it if there is none for this recipe."""
    settings = HostSettings.read(release)
    final = CACHE_DIR / f"{release}-{recipe_digest(release, settings)}"
    with locked(CACHE_DIR / "locks" / f"build-{release}", f"another build of {release}"):
        for stale in CACHE_DIR.glob(f"{release}-*.building"):
            remove_tree(stale)
        if not final.is_dir():
            building = final.with_name(f"{final.name}.building")
            try:
                with step(f"Building a {release} root file system (once; kept in {CACHE_DIR})"):
                    build_root_fs(release, settings, building)
                building.rename(final)
            except BaseException:
                remove_tree(building)
                raise
            for old in CACHE_DIR.glob(f"{release}-*"):
                if old != final and not in_use(old):
                    remove_tree(old)
    return final


def in_use(root_fs: Path) -> bool:
    """Whether a machine stands on a root file system."""
    return any(f'"{root_fs}"' in text for text in read_texts(STATE_DIR.glob("*/state.json")))


def build_root_fs(release: str, settings: HostSettings, target: Path) -> None:
    """Make a minimal Debian in a folder and hand the host's settings into it."""
    argv = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    argv += [f"--aptopt={option}" for option in settings.apt_options]
    argv += [release, str(target)]
    sources = target.with_name(f"{target.name}.sources")
    try:
        if settings.sources:
            sources.write_text(settings.sources, encoding="utf-8")
            argv.append(str(sources))
        call(argv, env={**settings.env, "PATH": GUEST_PATH, "LC_ALL": "C.UTF-8"})
    finally:
        sources.unlink(missing_ok=True)
    for path, text in guest_files(settings).items():
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        if file.parent.name == "sudoers.d":
            file.chmod(0o440)
    if settings.sources:
        for leftover in (target / "etc/apt/sources.list.d").glob("0000*"):
            leftover.unlink()
        (target / "etc/apt/sources.list").unlink(missing_ok=True)
    for path in ("etc/apt/apt.conf.d/99mmdebstrap", "etc/resolv.conf"):
        (target / path).unlink(missing_ok=True)
    (target / "var/log/journal").mkdir(exist_ok=True)  # makes the journal persistent
    for timer in (
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
    ):  # they would hold apt's locks at random times
        (target / "etc/systemd/system" / timer).symlink_to("/dev/null")
    ensure_certificates(target, settings.certificates)


def guest_files(settings: HostSettings) -> dict[str, str]:
    """Files of the root file system that hold the host's settings, and a few that every Debian VM has."""
    files = {
        # Empty, not "uninitialized": a new id at boot, without the questions of systemd-firstboot.
        "etc/machine-id": "",
        "etc/default/locale": "LANG=C.UTF-8\n",
    }
    if settings.sources:
        files["etc/apt/sources.list.d/debian.sources"] = settings.sources
    if settings.apt_options:
        files["etc/apt/apt.conf.d/90illumidesk-machine"] = "".join(f"{for_guest(o)}\n" for o in settings.apt_options)
    if settings.pip:
        files["etc/pip.conf"] = "[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.pip.items())
    if settings.env:
        files["etc/sudoers.d/illumidesk-machine"] = f'Defaults env_keep += "{" ".join(settings.env)}"\n'
        files["etc/environment"] = "".join(f"{name}={value}\n" for name, value in settings.env.items())
        files["etc/systemd/system.conf.d/90-illumidesk-machine.conf"] = render_default_environment(settings.env)
    return files


def render_default_environment(env: Mapping[str, str]) -> str:
    """A drop-in that gives every system unit some variables."""
    words = []
    for name, value in env.items():
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
        words.append(f'"{name}={escaped}"')
    return f"[Manager]\nDefaultEnvironment={' '.join(words)}\n"


def ensure_certificates(target: Path, certificates: Iterable[str]) -> None:
    """Make the machine trust the host's own certificate authorities."""
    stock = set(split_certificates("\n".join(read_texts([target / GUEST_BUNDLE.lstrip("/")]))))
    folder = target / "usr/local/share/ca-certificates"
    folder.mkdir(parents=True, exist_ok=True)
    extra = [pem for pem in certificates if pem not in stock]
    for number, pem in enumerate(extra, 1):
        (folder / f"illumidesk-machine-{number}.crt").write_text(pem + "\n", encoding="ascii")
    if extra:
        call(["chroot", str(target), "update-ca-certificates"], env={"PATH": GUEST_PATH})


# ----------------------------------------------------------------------------------------------------------
# Processes and control groups


def holders(root: Path) -> list[int]:
    """Processes of ours on the host that keep a machine going (systemd-nspawn and what starts it again).

    They are recognised by their command line rather than by a recorded pid, so that they are found after a
    crash of this script and no stranger is mistaken for them.
    """
    wanted = f"--directory={root}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if wanted in words and b"--register=no" in words:
                found.append(int(process.name))
    return found


def first_process(pids: Iterable[int]) -> int | None:
    """The one of some processes that is number 1 in a pid namespace below ours."""
    for pid in pids:
        status = "".join(read_texts([Path(f"/proc/{pid}/status")]))
        if re.search(r"^NSpid:\t(?:\d+\t)+1$", status, re.MULTILINE):
            return pid
    return None


def pids_in(files: Iterable[Path]) -> list[int]:
    """The process numbers listed in files of /proc or of a control group."""
    return [int(word) for text in read_texts(files) for word in text.split() if word != "0"]


def kill_and_wait(pids: Iterable[int], timeout: float = 10.0) -> None:
    """Kill processes and wait until the kernel has let go of them."""
    pids = list(pids)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + timeout
    while any(is_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet waited for does not."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    stat = "".join(read_texts([Path(f"/proc/{pid}/stat")]))
    return bool(stat) and stat.rpartition(")")[2].split()[0] != "Z"


def cgroup_parents(mountinfo: str, own_cgroup: str, nest: bool) -> dict[str, Path]:
    """Where a machine gets control groups of its own: what for -> folder.

    `mountinfo` and `own_cgroup` are those of /proc/self. Of the v1 controllers only those that a machine's
    limits need are used, and, unless `nest` is set, only those in which this process is in nobody's group.
    """
    own: dict[str, str] = {}
    for line in own_cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    found = {}
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(maxsplit=2)
        mount = Path(before.split()[4])
        names = options.split(",")
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in names):
            found[f"systemd:{kind}"] = mount
        for name in LEGACY_CONTROLLERS:
            if kind == "cgroup" and name in names and (nest or own.get(name) == "/"):
                found[name] = mount / own.get(name, "/").lstrip("/")
    return found


def remove_cgroup(path: Path) -> None:
    """Kill what is left in a control group, and remove it with all below it."""
    folders = sorted(path.rglob("*/"), key=lambda p: len(p.parts), reverse=True) if path.is_dir() else []
    for folder in [*(f for f in folders if f.is_dir()), path]:
        for attempt in range(50):
            kill_and_wait(pids_in([folder / "cgroup.procs"]))
            try:
                folder.rmdir()
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.02 * (attempt > 0))
            else:
                break


# ----------------------------------------------------------------------------------------------------------
# The machine


def check_name(name: str) -> str:
    """A name that can be a host name, a folder and a control group."""
    if not re.fullmatch(r"[a-z](?:[a-z0-9-]{0,40}[a-z0-9])?", name):
        raise MachineError(
            f"{name!r} cannot be the name of a machine.",
            "Use small letters, digits and dashes, a letter first.",
        )
    return name


def escape_argv(argv: Iterable[str]) -> list[str]:
    """Keep systemd from expanding `$NAME` in the arguments of a transient unit."""
    return [word.replace("$", "$$") for word in argv]


class Machine:
    """One throwaway machine. All of its state is on disk, so any process can go on with a machine that runs.

    `name` is also its host name; `release` a Debian release out of RELEASES. With `cache`, downloads of pip,
    uv and npm are shared with other machines through the host; packages that apt fetched are kept for the
    next machine of the release in any case.

    `memory_limits` matters on a host with cgroup v1 and no systemd: with it, MemoryMax= is enforced even if
    the caller is in a memory control group already, by one below that group.
    """

    _units = itertools.count(1)

    def __init__(
        self,
        name: str,
        release: str = DEFAULT_RELEASE,
        *,
        cache: bool = True,
        memory_limits: bool = False,
        quiet: bool = False,
    ) -> None:
        if release not in RELEASES:
            raise MachineError(f"There is no recipe for {release!r}.", f"Choose one of: {', '.join(RELEASES)}.")
        self.name = check_name(name)
        self.release = release
        self.cache = cache
        self.quiet = quiet
        self.memory_limits = memory_limits
        self.directory = STATE_DIR / name
        self._unit = f"illumidesk-machine-{name}"
        self.root = self.directory / "root"
        """The machine's root folder from the host's side. Its /run, /dev and /proc are not to be seen there,
        and its absolute links point into the host: prefer `run`, `copy_in` and `read_text`."""
        self.console_log = self.directory / "console.log"
        self._env: dict[str, str] = {}
        self._root_fs: Path | None = None

    # -- life ------------------------------------------------------------------------------------------------

    @classmethod
    def attach(cls, name: str) -> Self:
        """The machine of that name that was booted earlier, maybe by another process."""
        state = cls(name)._state
        if not state:
            raise MachineError(f"There is no machine called {name}.", f"Boot one with: {invocation()} up {name}")
        machine = cls(name, state["release"], cache=state["cache"])
        machine._env = dict(state["env"])
        machine._root_fs = Path(state["root_fs"])
        return machine

    def up(self) -> Machine:
        """Boot a fresh machine. One of the same name, running or left behind by a crash, is removed first."""
        ensure_tools()
        root_fs = ensure_root_fs(self.release)
        with self._locked():
            self._destroy()
            try:
                self._prepare(root_fs)
                with step(f"Booting {self.name} ({self.release})", self.quiet):
                    self._boot()
            except BaseException:
                self._destroy()
                raise
        return self

    def reboot(self) -> None:
        """Shut the machine down and boot it again with the same files, as a real machine would."""
        with self._locked(), step(f"Rebooting {self.name}", self.quiet):
            before = self._init()
            if before is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._enter(["systemctl", "reboot"], timeout=30)
                deadline = time.monotonic() + BOOT_TIMEOUT
                while time.monotonic() < deadline and is_alive(before):
                    time.sleep(0.02)
            if before is None or is_alive(before) or not holders(self.root):
                self._stop()
                self._mount()
                self._boot()
            else:
                self._wait_until_booted()

    def down(self) -> None:
        """Stop the machine and delete it. Does nothing if there is none."""
        ensure_host()
        with self._locked():
            self._destroy()

    def __enter__(self) -> Machine:
        return self.up()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.down()

    @property
    def is_up(self) -> bool:
        """Whether the machine runs (it may still be booting)."""
        return self._init() is not None

    @property
    def pid(self) -> int:
        """The machine's init process, in the host's numbers."""
        pid = self._init()
        if pid is None:
            raise MachineError(f"The machine {self.name} is not running.", f"Boot it: {invocation()} up {self.name}")
        return pid

    # -- work ------------------------------------------------------------------------------------------------

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        input: str | bytes | None = None,
        check: bool = True,
        timeout: float | None = 600.0,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        capture: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine and wait for it.

        The command runs as `user` (root if not said) in a transient unit of its own, so it is in a control
        group of the machine's, and its environment holds nothing of the caller's: HOME, USER, SHELL, PATH,
        LANG, what the machine took over from the host (proxies, CA bundle), and `env`. It starts in `cwd`,
        else in the user's home. When it ends, processes that it left behind are killed.

        Without `capture`, input and output are the caller's. With `check`, a status other than 0 raises
        CommandError; after `timeout` seconds the unit is killed and subprocess.TimeoutExpired raised.
        """
        unit = f"machine-run-{os.getpid()}-{next(self._units)}.service"
        words = self._unit_argv(argv, unit=unit, user=user, env=env, cwd=cwd, mode="--pipe")
        try:
            done = self._enter(words, input=input, timeout=timeout, capture=capture)
        except BaseException as error:
            with contextlib.suppress(MachineError, subprocess.TimeoutExpired):
                self._enter(["systemctl", "kill", "--signal=KILL", unit], timeout=10)
            if isinstance(error, subprocess.TimeoutExpired):
                error.cmd = list(argv)
            raise
        done.args = list(argv)
        if check and done.returncode != 0:
            raise CommandError(done.returncode, list(argv), done.stdout or "", done.stderr or "")
        return done

    def interact(self, argv: Sequence[str] = ("bash", "-l"), *, user: str | None = None) -> int:
        """Run a command in the machine on the caller's terminal, and return its exit status."""
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            return self.run(argv, user=user, check=False, timeout=None, capture=False).returncode
        env = {"TERM": os.environ.get("TERM", "linux")}
        words = self._unit_argv(argv, unit="", user=user, env=env, cwd=None, mode="--pty")
        return subprocess.run(self._nsenter(words), env=self._base_env(), check=False).returncode

    def copy_in(self, src: Path, dest: str) -> None:
        """Copy a file to the path `dest`, or what a folder holds into the folder `dest`, owned by root."""
        src = Path(src)
        if src.is_dir():
            self._copy([(path, str(path.relative_to(src))) for path in sorted(src.rglob("*"))], dest)
        else:
            parent, _, name = dest.rpartition("/")
            self._copy([(src, name)], parent or "/")

    def copy_checkout(self, dest: str, checkout: Path = CHECKOUT) -> None:
        """Copy the project as git sees it, uncommitted changes and new files included."""
        self._copy([(checkout / name, name) for name in checkout_files(checkout)], dest)

    def read_text(self, path: str) -> str:
        """What is in a file of the machine."""
        done = self._enter(["cat", "--", path], timeout=60)
        if done.returncode != 0:
            raise CommandError(done.returncode, ["cat", path], done.stdout, done.stderr)
        return done.stdout

    def write_text(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file in the machine, as root."""
        script = 'umask 077; mkdir -p -m 755 "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1"'
        done = self._enter(["sh", "-c", script, "sh", path, f"{mode:o}"], input=text, timeout=60)
        if done.returncode != 0:
            raise CommandError(done.returncode, ["write", path], done.stdout, done.stderr)

    # -- inside ----------------------------------------------------------------------------------------------

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        return locked(CACHE_DIR / "locks" / self.name, f"another command on {self.name}")

    def _init(self) -> int | None:
        """The machine's init: a child of systemd-nspawn, or alone in the control group if that was killed."""
        children = pids_in(f for pid in holders(self.root) for f in Path(f"/proc/{pid}/task").glob("*/children"))
        found = first_process(children)
        if found is None:
            found = first_process(pids_in(f for cgroup in self._cgroups.values() for f in cgroup.rglob("cgroup.procs")))
        return found

    def _base_env(self) -> dict[str, str]:
        return {**self._env, "PATH": GUEST_PATH, "HOME": "/root", "LANG": "C.UTF-8"}

    def _nsenter(self, argv: Sequence[str]) -> list[str]:
        return [shutil.which("nsenter") or "nsenter", f"--target={self.pid}", "--all", "--wd=/", "--", *argv]

    def _enter(
        self,
        argv: Sequence[str],
        *,
        input: str | bytes | None = None,
        timeout: float | None,
        capture: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine's namespaces but in the caller's control group, for our own needs."""
        data = input.encode() if isinstance(input, str) else input
        pipe = subprocess.PIPE if capture else None
        stdin: int | None = subprocess.PIPE if data is not None else subprocess.DEVNULL
        if not capture and data is None:
            stdin = None
        argv = self._nsenter(argv)
        with subprocess.Popen(argv, stdin=stdin, stdout=pipe, stderr=pipe, env=self._base_env()) as process:
            try:
                out, err = process.communicate(data, timeout=timeout)
            except BaseException:
                # nsenter forks to enter the pid namespace: what it started is its child, and goes with it.
                children = pids_in(Path(f"/proc/{process.pid}/task").glob("*/children"))
                kill_and_wait([*children, process.pid], timeout=2)
                raise
        text = [None if stream is None else stream.decode("utf-8", "replace") for stream in (out, err)]
        return cast(
            "subprocess.CompletedProcess[str]",
            subprocess.CompletedProcess(argv, process.returncode, text[0], text[1]),
        )

    def _unit_argv(
        self,
        argv: Sequence[str],
        *,
        unit: str,
        user: str | None,
        env: Mapping[str, str] | None,
        cwd: str | None,
        mode: str,
    ) -> list[str]:
        """The systemd-run command line for a command in the machine."""
        words = ["systemd-run", mode, "--wait", "--collect", "--quiet", "--service-type=exec"]
        words += [f"--unit={unit}"] if unit else []
        words += [f"--uid={user or 'root'}", f"--property=WorkingDirectory={cwd or '~'}"]
        words += [f"--setenv={name}={value}" for name, value in {**self._unit_env(), **(env or {})}.items()]
        # systemd-run looks for a command from where it stands itself; env does from the working directory.
        relative = ["/usr/bin/env"] if "/" in argv[0] and not argv[0].startswith("/") else []
        return [*words, "--", *relative, *escape_argv(argv)]

    def _unit_env(self) -> dict[str, str]:
        # The cache folders are mounts, where uv cannot make its hard links and would warn of it.
        return {**self._env, "LANG": "C.UTF-8", **({"UV_LINK_MODE": "copy"} if self.cache else {})}

    def _copy(self, files: Iterable[tuple[Path, str]], dest: str) -> None:
        """Send files through tar into the machine, so that links in `dest` mean what they mean there."""

        def owned_by_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
            info.uid = info.gid = 0
            info.uname = info.gname = "root"
            return info

        script = 'mkdir -p "$1" && exec tar -x --no-same-owner -p -C "$1" -f -'
        argv = self._nsenter(["sh", "-c", script, "sh", dest])
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=self._base_env()) as process:
            stdin, stderr = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stderr)
            with contextlib.suppress(BrokenPipeError), tarfile.open(fileobj=stdin, mode="w|") as archive:
                for path, name in files:
                    archive.add(path, arcname=name, recursive=False, filter=owned_by_root)
            with contextlib.suppress(BrokenPipeError):
                stdin.close()
            message = stderr.read().decode("utf-8", "replace")
        if process.returncode != 0:
            raise CommandError(process.returncode, ["copy_in", dest], "", message)

    @property
    def _state(self) -> dict[str, Any]:
        text = "".join(read_texts([self.directory / "state.json"]))
        return cast("dict[str, Any]", json.loads(text)) if text else {}

    @property
    def _cgroups(self) -> dict[str, Path]:
        return {kind: Path(path) for kind, path in self._state.get("cgroups", {}).items()}

    def _new_cgroups(self) -> dict[str, str]:
        # Without a systemd on the host nobody gives the machine a control group of its own, and two machines
        # would both think that /system.slice is theirs.
        if SYSTEMD_HOST.is_dir():
            return {}
        mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8")
        parents = cgroup_parents(mountinfo, own, nest=self.memory_limits)
        return {kind: str(parent / self._unit) for kind, parent in parents.items()}

    def _prepare(self, root_fs: Path) -> None:
        """Lay out a fresh machine on disk and mount its root."""
        self._env = dict(HostSettings.read(self.release).env)
        self._root_fs = root_fs
        upper = self.directory / "upper"
        etc = upper / "etc"
        archives = upper / "var/cache/apt/archives"
        for folder in (self.root, self.directory / "work", etc, archives):
            folder.mkdir(parents=True, mode=0o755)
        self.directory.chmod(0o700)
        state = {
            "release": self.release,
            "cache": self.cache,
            "env": self._env,
            "root_fs": str(root_fs),
            "cgroups": self._new_cgroups(),
        }
        write_whole(self.directory / "state.json", json.dumps(state, indent=2) + "\n")
        (etc / "hostname").write_text(f"{self.name}\n", encoding="ascii")
        (etc / "hosts").write_text(
            f"127.0.0.1\tlocalhost\n127.0.1.1\t{self.name}\n\n::1\tlocalhost ip6-localhost ip6-loopback\n",
            encoding="ascii",
        )
        share_files((CACHE_DIR / "apt" / self.release).glob("*.deb"), archives)
        self._mount()

    def _mount(self) -> None:
        """Mount the overlay, if it is not mounted."""
        if self.root in mounts_below(self.root):
            return
        if self._root_fs is None or not self._root_fs.is_dir():
            raise MachineError(
                f"The root file system of {self.name} is gone.", f"Start anew: {invocation()} up {self.name}"
            )
        # "volatile" leaves out syncing, which nobody needs here. The kernel refuses a second mount while the
        # mark of the first is there.
        remove_tree(self.directory / "work" / "work" / "incompat")
        options = f"lowerdir={self._root_fs},upperdir={self.directory}/upper,workdir={self.directory}/work"
        try:
            call(["mount", "-t", "overlay", "overlay", "-o", f"{options},volatile", str(self.root)])
        except MachineError:
            try:
                call(["mount", "-t", "overlay", "overlay", "-o", options, str(self.root)])
            except MachineError as error:
                raise MachineError(
                    f"The kernel refused an overlay in {self.directory}.",
                    "If that is an overlay itself (as in a Docker container), set ILLUMIDESK_MACHINE_STATE "
                    f"to a folder on a real disk.\n  {error.hint}",
                ) from None

    def _boot(self) -> None:
        """Start systemd-nspawn in the background and wait until the machine's systemd has settled."""
        nspawn = [
            "systemd-nspawn",
            f"--machine={self.name}",
            f"--directory={self.root}",
            "--register=no",
            "--keep-unit",
            f"--hostname={self.name}",
            "--resolv-conf=copy-host",
            "--capability=all",
            # There is one clock: a machine that sets it sets that of its host.
            "--drop-capability=CAP_SYS_TIME",
            "--console=read-only",
            *self._binds(),
            *self._init_argv(),
        ]
        if SYSTEMD_HOST.is_dir():
            scope = f"--unit={self._unit}"
            inner = [
                "systemd-run",
                "--scope",
                "--quiet",
                "--collect",
                "--property=Delegate=yes",
                scope,
                *nspawn,
            ]
        else:
            for cgroup in self._cgroups.values():
                cgroup.mkdir(exist_ok=True)
            joins = "".join(f"echo $$ >{shlex.quote(str(c))}/cgroup.procs; " for c in self._cgroups.values())
            inner = ["sh", "-c", f'{joins}exec "$@"', "sh", *nspawn]
        loop = f'while :; do "$@"; [ $? -eq {RESTART_STATUS} ] || exit; done'
        # SYSTEMD_NSPAWN_TMPFS_TMP: whether /tmp is on disk is up to the release, as in a VM.
        # SYSTEMD_SECCOMP: no system call filter of the container's own around everything, as in a VM. Within one, the
        # kernel shows nobody a unit's filters, and servers are not forked (illumidesk/forkserver).
        env = {"PATH": GUEST_PATH, "LC_ALL": "C.UTF-8", "SYSTEMD_NSPAWN_TMPFS_TMP": "0", "SYSTEMD_SECCOMP": "0"}
        with self.console_log.open("ab") as log:
            subprocess.Popen(
                ["sh", "-c", loop, "sh", *inner],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                cwd="/",
                start_new_session=True,
            )
        self._wait_until_booted()

    def _init_argv(self) -> list[str]:
        """What to start as the machine's first process."""
        legacy = [name for name in LEGACY_CONTROLLERS if name in self._cgroups]
        if not legacy:
            return ["--boot"]
        # systemd-nspawn mounts cgroup v1's controllers read-only, but these groups are the machine's own.
        remount = " ".join(f"mount -o remount,bind,rw /sys/fs/cgroup/{name};" for name in legacy)
        script = f"{remount} exec /sbin/init"
        return ["--kill-signal=SIGRTMIN+3", "--", "/bin/sh", "-c", script]

    def _binds(self) -> list[str]:
        if not self.cache:
            return []
        binds = []
        for kind, inside in CACHE_BINDS.items():
            folder = CACHE_DIR / "downloads" / kind
            folder.mkdir(parents=True, exist_ok=True)
            binds.append(f"--bind={folder}:{inside}")
        return binds

    def _wait_until_booted(self) -> None:
        deadline = time.monotonic() + BOOT_TIMEOUT
        state = "not started"
        while time.monotonic() < deadline:
            time.sleep(0.05)
            pids = holders(self.root)
            if not pids:
                break
            if self._init() is None:
                continue
            with contextlib.suppress(MachineError, subprocess.TimeoutExpired):
                state = self._enter(["systemctl", "is-system-running"], timeout=10).stdout.strip() or state
            if state in ("running", "degraded"):
                return
        tail = "\n  ".join("".join(read_texts([self.console_log])).splitlines()[-15:])
        raise MachineError(f"The machine {self.name} did not boot (its systemd is {state}).", tail)

    def _stop(self) -> None:
        """End every process of the machine."""
        # Oldest first: the loop that would boot it again, then systemd-nspawn. The machine survives that, but
        # not the end of its init, which the kernel makes the end of all.
        pids = sorted(holders(self.root))
        init = self._init()
        kill_and_wait([*pids, *([init] if init else [])])
        if SYSTEMD_HOST.is_dir():
            kill = ["systemctl", "kill", "--signal=KILL", f"{self._unit}.scope"]
            subprocess.run(kill, capture_output=True, check=False)
        for cgroup in self._cgroups.values():
            remove_cgroup(cgroup)

    def _destroy(self) -> None:
        """Stop the machine and delete all of it, from whatever state a crash has left it in."""
        self._stop()
        if self.root.is_dir():
            info = self.root.stat()
            nspawn_lock = Path(f"/run/systemd/nspawn/locks/inode-{info.st_dev}:{info.st_ino}")
            nspawn_lock.unlink(missing_ok=True)
        traces = [Path("/run/systemd/nspawn", kind, self.name) for kind in ("propagate", "unix-export")]
        for target in mounts_below(self.directory, *traces):
            unmount(target)
        for trace in traces:
            with contextlib.suppress(OSError):
                trace.rmdir()
        if self.directory.is_dir():
            self._keep_archives()
            remove_tree(self.directory)
        self.root.with_name(".#root.lck").unlink(missing_ok=True)

    def _keep_archives(self) -> None:
        """Keep the packages that apt fetched in this machine for the next one."""
        archives = self.directory / "upper/var/cache/apt/archives"
        if archives.is_dir() and archives.resolve() == archives:
            store = CACHE_DIR / "apt" / self.release
            store.mkdir(parents=True, exist_ok=True)
            share_files(archives.glob("*.deb"), store)


def share_files(files: Iterable[Path], folder: Path) -> None:
    """Hard-link files into a folder that lacks them, or copy them where links cannot reach."""
    for file in files:
        target = folder / file.name
        if file.is_symlink() or not file.is_file() or os.path.lexists(target):
            continue
        try:
            os.link(file, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            part = target.with_name(f"{target.name}.part")
            shutil.copyfile(file, part)
            part.rename(target)


def unmount(target: Path) -> None:
    """Unmount something, out of sight at least if a process still holds it."""
    for attempt in range(20):
        done = subprocess.run(["umount", str(target)], capture_output=True, check=False)
        if done.returncode == 0 or target not in mounts_below(target):
            return
        time.sleep(0.05 * (attempt > 0))
    call(["umount", "--lazy", str(target)])


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is never seen half-written."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def checkout_files(checkout: Path) -> list[str]:
    """The files of a checkout, relative to it: by git where it works, else all but what tools leave there."""
    if shutil.which("git"):
        git = ["git", "-c", "safe.directory=*", "-C", str(checkout)]
        listing = [*git, "ls-files", "-coz", "--exclude-standard"]
        done = subprocess.run(listing, capture_output=True, check=False)
        if done.returncode == 0:
            names = {os.fsdecode(name) for name in done.stdout.split(b"\0") if name}
            return sorted(name for name in names if os.path.lexists(checkout / name))
    found = []
    for folder, folders, files in os.walk(checkout):
        folders[:] = sorted(f for f in folders if f not in NOT_SOURCE and not f.endswith(("_cache", ".egg-info")))
        found += [str((Path(folder) / name).relative_to(checkout)) for name in files]
    return sorted(found)


def machine_names() -> list[str]:
    """Names of all machines on this host, running or left behind."""
    return sorted(path.name for path in STATE_DIR.glob("*") if path.is_dir())


# ----------------------------------------------------------------------------------------------------------
# The command


def invocation() -> str:
    """How this script was called, for hints that can be pasted."""
    called = sys.argv[0] or "machine.py"
    return called if Path(called).name == Path(__file__).name else "scripts/machine.py"


def refuse_running(name: str) -> None:
    """Keep people from losing a machine that they still use."""
    if (STATE_DIR / check_name(name) / "state.json").exists() and Machine(name).is_up:
        raise MachineError(
            f"A machine called {name} is already running.", f"Remove it first: {invocation()} down {name}"
        )


def command_up(args: argparse.Namespace) -> int:
    """Boot a bare machine."""
    ensure_host()
    refuse_running(args.name)
    Machine(args.name, args.release, cache=args.cache).up()
    say(f"{args.name} is up. A shell in it: {invocation()} shell {args.name}")
    return 0


def command_run(args: argparse.Namespace) -> int:
    """Run a command in a machine, with the caller's input and output."""
    ensure_host()
    words = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not words:
        raise MachineError("There is no command to run.", f"Say it after --: {invocation()} run {args.name} -- uptime")
    return Machine.attach(args.name).interact(words, user=args.user)


def command_shell(args: argparse.Namespace) -> int:
    """Open a login shell in a machine."""
    ensure_host()
    return Machine.attach(args.name).interact(user=args.user)


def command_reboot(args: argparse.Namespace) -> int:
    """Reboot a machine."""
    ensure_host()
    Machine.attach(args.name).reboot()
    return 0


def command_down(args: argparse.Namespace) -> int:
    """Remove machines."""
    for name in args.names:
        there = (STATE_DIR / check_name(name)).exists()
        Machine(name).down()
        say(f"{name} is gone." if there else f"There was no machine called {name}.")
    return 0


def command_list(args: argparse.Namespace) -> int:
    """Print one line per machine: name, release, whether it runs, its init's pid."""
    ensure_host()
    for name in machine_names():
        try:
            machine = Machine.attach(name)
            print(f"{name}\t{machine.release}\t" + (f"up\t{machine.pid}" if machine.is_up else "stopped\t-"))
        except MachineError:
            print(f"{name}\t-\tbroken\t-")
    return 0


def command_try(args: argparse.Namespace) -> int:
    """Boot a machine and install this checkout in it, as its user would."""
    ensure_host()
    refuse_running(args.name)
    if not (CHECKOUT / "install.sh").is_file():
        raise MachineError(f"There is no install.sh in {CHECKOUT}.", "Run this from a complete checkout.")
    if port_is_taken(args.port):
        raise MachineError(
            f"Something already listens on port {args.port}.", f"Choose another: try --port {args.port + 1}"
        )
    flags = [flag for flag in args.flags if flag != "--"]
    admin = option_value(flags, "--admin")
    if admin is None:
        admin = "instructor1"
        flags = ["--admin", admin, *flags]
    machine = Machine(args.name, args.release, cache=args.cache)
    machine.up()
    try:
        with step("Copying this checkout to /root/illumidesk in it"):
            machine.copy_checkout("/root/illumidesk")
        install = ["./install.sh", "--yes", "--http-port", str(args.port), *flags]
        with step(f"Running {shlex.join(install)} there"):
            done = machine.run(install, cwd="/root/illumidesk", capture=False, check=False, timeout=None)
    except BaseException:
        say(f"Removing {args.name} …")
        machine.down()
        raise
    if done.returncode != 0:
        raise MachineError(
            f"install.sh ended with status {done.returncode}; what it said is above.",
            f"Look around: {invocation()} shell {args.name}    Remove it: {invocation()} down {args.name}",
        )
    say("")
    say(f"The class is at http://localhost:{args.port}")
    say(f"  sign in as   {admin} (an admin; the password that you type first is yours from then on)")
    say(f"  look inside  {invocation()} shell {args.name}")
    say(f"  stop it      {invocation()} down {args.name}")
    return 0


def option_value(flags: Sequence[str], name: str) -> str | None:
    """The value of a long option in a command line (`--x V` or `--x=V`), or None."""
    for index, flag in enumerate(flags):
        if flag == name and index + 1 < len(flags):
            return flags[index + 1]
        if flag.startswith(f"{name}="):
            return flag.partition("=")[2]
    return None


def port_is_taken(port: int) -> bool:
    """Whether something on this host answers on a port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="A throwaway Debian machine with its own systemd, for trying and testing IllumiDesk.",
        epilog="Machines live in /var/lib/illumidesk-machine, downloads and root file systems in "
        "/var/cache/illumidesk-machine; ILLUMIDESK_MACHINE_STATE and ILLUMIDESK_MACHINE_CACHE move them.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, help: str, description: str = "") -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=description or help, allow_abbrev=False)
        sub.set_defaults(function=globals()[f"command_{name}"])
        return sub

    def add_boot_options(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--release", choices=RELEASES, default=DEFAULT_RELEASE, help="Debian release (%(default)s)")
        sub.add_argument(
            "--no-cache",
            dest="cache",
            action="store_false",
            help="do not share downloads of pip, uv and npm with the host",
        )

    sub = add(
        "try",
        "boot a machine and install this checkout in it",
        "Boot a fresh machine, copy this checkout into it and run ./install.sh there, as on your own VM. "
        "Options that are not listed here go to install.sh (see ./install.sh --help).",
    )
    add_boot_options(sub)
    sub.add_argument("--port", type=int, default=8000, help="port of the class on this host (%(default)s)")
    sub.add_argument("--name", default="illumidesk", help="name of the machine (%(default)s)")

    sub = add("up", "boot a bare machine")
    sub.add_argument("name", metavar="NAME")
    add_boot_options(sub)

    sub = add("run", "run a command in a machine", "Run a command in a machine and exit with its status.")
    sub.add_argument("--user", help="run it as this user (root)")
    sub.add_argument("name", metavar="NAME")
    sub.add_argument("command", metavar="-- CMD ...", nargs=argparse.REMAINDER)

    sub = add("shell", "open a shell in a machine")
    sub.add_argument("--user", help="as this user (root)")
    sub.add_argument("name", metavar="NAME")

    sub = add("reboot", "reboot a machine; its files stay")
    sub.add_argument("name", metavar="NAME")

    sub = add(
        "down",
        "stop machines and delete them",
        "Stop machines and delete them. Also clears up after a crash.",
    )
    sub.add_argument("names", metavar="NAME", nargs="+")

    add("list", "list the machines on this host")
    return parser


def interrupted(number: int, frame: FrameType | None) -> NoReturn:
    """Treat being told to end like Ctrl-C, so that what is half-built is cleaned up."""
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; every error that a person can cause or cure is a sentence and a hint."""
    parser = make_parser()
    args, rest = parser.parse_known_args(argv)
    if rest and args.function is not command_try:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    args.flags = rest
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    try:
        return cast(int, args.function(args))
    except KeyboardInterrupt:
        say("Interrupted.")
        return 130
    except MachineError as error:
        say(f"machine.py: {error}")
    except OSError as error:
        say(f"machine.py: {error.strerror or error}{f': {error.filename}' if error.filename else ''}.")
    return 1


if __name__ == "__main__":
    sys.exit(main())
