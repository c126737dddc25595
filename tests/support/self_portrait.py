"""All that the kernel and Python keep of the process that runs this, as JSON in ~/self-portrait.json.

A person's ~/.jupyter/jupyter_server_config.py runs it within their server, so that a forked one can be compared with an
ordinary one, line by line. It stands alone.
"""

import ctypes
import gc
import json
import locale
import logging
import mimetypes
import multiprocessing
import os
import platform
import re
import resource
import signal
import site
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
libc.syscall.argtypes = [ctypes.c_long, *[ctypes.c_ulong] * 5]
libc.syscall.restype = ctypes.c_long

SYSTEM_CALLS = {
    "x86_64": {"get_mempolicy": 239, "keyctl": 250, "ioprio_get": 252, "capget": 125, "sigaltstack": 131},
    "aarch64": {"get_mempolicy": 236, "keyctl": 219, "ioprio_get": 31, "capget": 90, "sigaltstack": 132},
}[platform.machine()]
#: Those that answer with their result.
PRCTL = {
    "dumpable": 3, "keepcaps": 7, "timing": 13, "seccomp": 21, "securebits": 27, "timerslack": 30, "mce_kill": 34,
    "no_new_privs": 39, "thp_disable": 42, "io_flusher": 58, "mdwe": 66, "memory_merge": 68,
}  # fmt: skip
#: Those that write it.
PRCTL_WRITING = {"pdeathsig": 2, "tsc": 25, "child_subreaper": 37}
#: What differs between any two processes, or says how much one has done and holds.
OWN_STATUS = re.compile(
    r"State|(NS)?(Tgid|Ngid|Pid|PPid|pid|tgid|pgid|sid)|FDSize|Vm.*|Rss.*|HugetlbPages|Threads|SigQ|.*ctxt_switches"
)


def attempt(function, *arguments):
    try:
        return function(*arguments)
    except Exception as error:
        return f"{type(error).__name__} {getattr(error, 'errno', error)}"


def prctl(option, *arguments):
    ctypes.set_errno(0)
    result = libc.prctl(option, *arguments, *[0] * (4 - len(arguments)))
    return result if result != -1 else f"errno {ctypes.get_errno()}"


def written(option):
    answer = ctypes.c_int(-1)
    return prctl(option, ctypes.addressof(answer)), answer.value


def call(name, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(SYSTEM_CALLS[name], *arguments, *[0] * (5 - len(arguments)))
    return result if result != -1 else f"errno {ctypes.get_errno()}"


def capabilities():
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    return call("capget", ctypes.addressof(header), ctypes.addressof(data)), list(data)


def memory_policy():
    mode, nodes = ctypes.c_int(-1), (ctypes.c_ulong * 32)()
    return call("get_mempolicy", ctypes.addressof(mode), ctypes.addressof(nodes), 2048, 0, 0), mode.value, list(nodes)


def names_in(folder):
    return sorted(one.name for one in Path(folder).iterdir())


def read(name):
    return Path("/proc/self", name).read_bytes().decode("utf-8", "backslashreplace")


def status():
    pairs = (line.split(":", 1) for line in read("status").splitlines())
    return {name: value.strip() for name, value in pairs if not OWN_STATUS.fullmatch(name)}


def stat():
    fields = dict(enumerate(read("stat").rpartition(")")[2].split(), start=3))
    pid = str(os.getpid())
    return {
        "parent": fields[4],
        "leads its group": fields[5] == pid,
        "leads its session": fields[6] == pid,
        "terminal": fields[7],
        "terminal's group": fields[8],
        # PF_SUPERPRIV 0x100: it used a right of root's; systemd did before it ran the program, too.
        "flags": int(fields[9]) & ~(0x40 | 0x100),  # PF_FORKNOEXEC: a fork is what a fork is
        "priority": fields[18],
        "nice": fields[19],
        "exit signal": fields[38],
        "realtime priority": fields[40],
        "policy": fields[41],
    }


def mounts():
    found = []
    for line in read("mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        _, _, _, root, point, options, *tags = before.split()
        kinds = sorted(tag.partition(":")[0] for tag in tags)
        line = " ".join([root, point, options, *kinds, after])
        # Each start has folders of its own for /tmp, and devices of its own.
        found.append(re.sub(r"systemd-private-\w+-([\w.@-]+)-\w+", r"systemd-private-\1", line))
    return found


def descriptors():
    found = []
    for number in names_in("/proc/self/fd"):
        try:
            target, flags = str(Path("/proc/self/fd", number).readlink()), read(f"fdinfo/{number}").split()[3]
        except OSError:
            continue  # of the folder that was listed
        kept = number if int(number) < 3 else "further"
        found.append(f"{kept}: {re.sub(r'[0-9]+', 'N', target)} {flags}")
    return sorted(found)


def limits():
    names = {value: name for name, value in vars(resource).items() if name.startswith("RLIMIT_")}
    return {name: resource.getrlimit(value) for value, name in names.items()}


def python():
    main = sys.modules["__main__"]
    return {
        "argv": sys.argv, "orig_argv": sys.orig_argv, "executable": sys.executable, "path": sys.path,
        "prefixes": [sys.prefix, sys.base_prefix, sys.exec_prefix], "flags": str(sys.flags),
        "warnoptions": sys.warnoptions, "xoptions": sys._xoptions, "dont_write_bytecode": sys.dont_write_bytecode,
        "main": [getattr(main, "__file__", ""), main.__name__, str(getattr(main, "__spec__", ""))],
        "hooks": [
            getattr(hook, "__qualname__", type(hook).__name__)
            for hook in (sys.excepthook, sys.displayhook, sys.breakpointhook, sys.unraisablehook, threading.excepthook)
        ],
        "tracing": [sys.gettrace() is None, sys.getprofile() is None],
        "recursion": sys.getrecursionlimit(), "switch": sys.getswitchinterval(),
        "gc": [gc.isenabled(), gc.get_threshold(), gc.get_debug()],
        "encodings": [sys.getfilesystemencoding(), sys.getfilesystemencodeerrors(), locale.getpreferredencoding()],
        "locale": attempt(locale.setlocale, locale.LC_ALL), "zone": [time.tzname, time.timezone],
        "streams": [
            [getattr(stream, name, "") for name in ("name", "encoding", "errors", "line_buffering", "mode")]
            for stream in (sys.stdin, sys.stdout, sys.stderr)
        ],
        "signals": {str(number): str(signal.getsignal(number)).split(" at ")[0] for number in signal.valid_signals()},
        "timers": [signal.getitimer(which) for which in (0, 1, 2)],
        "threads": [thread.name for thread in threading.enumerate()],
        "site": [site.ENABLE_USER_SITE, site.USER_BASE, site.USER_SITE],
        "temporary": tempfile.gettempdir(), "home": str(Path.home()), "node": [platform.node(), socket.gethostname()],
        "root logger": [logging.root.level, [type(one).__name__ for one in logging.root.handlers]],
        "start method": multiprocessing.get_start_method(), "processors": [os.cpu_count(), socket.getdefaulttimeout()],
        "types": mimetypes.guess_type("x.ipynb"), "streams of C": [os.isatty(number) for number in (0, 1, 2)],
    }  # fmt: skip


def portrait():
    keyring = lambda number: call("keyctl", 0, number & (2**64 - 1), 0)  # noqa: E731 -- KEYCTL_GET_KEYRING_ID
    files = (
        "cgroup", "limits", "oom_score_adj", "oom_adj", "personality", "timerslack_ns", "coredump_filter", "loginuid",
        "sessionid", "attr/current", "attr/exec", "uid_map", "gid_map", "setgroups", "cpuset", "comm", "cmdline",
        "environ",
    )  # fmt: skip
    return {
        "status": status(), "stat": stat(), "mounts": mounts(), "descriptors": descriptors(), "rlimits": limits(),
        "files": {name: attempt(read, name) for name in files},
        "links": {name: attempt(os.readlink, f"/proc/self/{name}") for name in ("cwd", "root", "exe")},
        "namespaces": {name: str(Path("/proc/self/ns", name).readlink()) for name in names_in("/proc/self/ns")},
        "prctl": {name: prctl(option) for name, option in PRCTL.items()},
        "prctl writing": {name: written(option) for name, option in PRCTL_WRITING.items()},
        "speculation": [prctl(52, which) for which in range(3)],
        "bounding": [prctl(23, number) for number in range(64)],
        "ambient": [prctl(47, 1, number) for number in range(64)],
        "capabilities": capabilities(), "memory policy": memory_policy(),
        "io priority": call("ioprio_get", 1, 0),
        "keyrings": {str(number): str(keyring(number)).partition(" ")[0] == "errno" for number in (-1, -2, -3)},
        "signal stack": call("sigaltstack", 0, 0),
        "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
        "umask": [old := os.umask(0o77), os.umask(old)][0], "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "scheduler": [os.sched_getscheduler(0), sorted(os.sched_getaffinity(0))],
        "session": [os.getsid(0) == os.getpid(), attempt(os.ttyname, 0), attempt(os.open, "/dev/tty", os.O_RDWR)],
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        "pending": sorted(signal.sigpending()),
        "environ": dict(os.environ),
        "folders": {place: attempt(names_in, place) for place in ("/home", "/dev", "/dev/shm", "/tmp", "/run/user")},
        "owner": Path("/proc/self").stat().st_uid,
        "python": python(),
    }  # fmt: skip


Path("~/self-portrait.json").expanduser().write_text(json.dumps(portrait(), default=str, sort_keys=True))
