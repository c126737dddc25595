"""What a forked process does once it is the person's: take over what the program was started with, and run it."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import site
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from illumidesk.forkserver import linux
from illumidesk.forkserver.caller import Refused
from illumidesk.forkserver.personal import Environment, Place

#: Variables that Python and its loader read when they begin, before anybody could set them anew.
_EARLY = ("LANG", "LC_ALL", "LC_CTYPE", "GLIBC_TUNABLES")
_EARLY_PREFIXES = ("PYTHON", "LD_", "MALLOC_", "SSL_", "OPENSSL_", "OMP_", "OPENBLAS_", "MKL_", "BLIS_", "GOTO_")
#: Of kernels, by its name in pyproject.toml: see illumidesk/grader/provisioner.py.
PROVISIONER = "illumidesk-provisioner"


@dataclass(frozen=True)
class Program:
    """What the person's unit was to run.

    Args:
        arguments: the command line, its program first.
        variables: its environment.
        folder: where it starts.
        streams: standard input, output and error.
    """

    arguments: list[bytes]
    variables: dict[bytes, bytes]
    folder: bytes
    streams: list[int]


def check(program: Program, own_program: str, loaded: Environment) -> None:
    """See that forking gives what starting would.

    Args:
        program: what the person's unit was to run.
        own_program: the one that is loaded.
        loaded: with what its modules were.

    Raises:
        Refused: where it would not.
    """
    if os.path.realpath(os.fsdecode(program.arguments[0])) != own_program:
        raise Refused("it starts another program")
    check_variables({os.fsdecode(name): os.fsdecode(value) for name, value in program.variables.items()}, loaded)


def check_variables(variables: Mapping[str, str], loaded: Environment) -> None:
    """As `check`, of a program's variables, and of what is in the home that they name."""
    for name in {*variables, *_EARLY}:
        early = name in _EARLY or name.startswith(_EARLY_PREFIXES)
        if early and variables.get(name) != loaded.values.get(name):
            raise Refused(f"the variable {name} is set")
    differing = loaded.differing(variables)
    if differing:
        raise Refused(f"modules were loaded with another {', '.join(differing)}")
    packages = Path(_user_site(variables.get("HOME", "")))
    if packages.is_dir() and any(packages.iterdir()):
        raise Refused(f"there are packages in {packages}")


def _user_site(home: str) -> str:
    version = ".".join(map(str, sys.version_info[:2]))
    return f"{home}/.local/lib/python{version}/site-packages"


def take_over(program: Program, places: list[Place]) -> None:
    """Be that program, as far as Python can see, and share no randomness with other forks."""
    for number, stream in enumerate(program.streams):
        os.dup2(stream, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    for number in signal.valid_signals():
        if signal.getsignal(number) not in (signal.SIG_DFL, signal.SIG_IGN, None, signal.default_int_handler):
            signal.signal(number, signal.SIG_DFL)
    os.chdir(program.folder)
    # In place: modules hold on to it.
    os.environ.clear()
    os.environb.update(program.variables)
    os.environ.setdefault("JUPYTER_DEFAULT_PROVISIONER_NAME", PROVISIONER)
    time.tzset()
    sys.argv[:] = [os.fsdecode(word) for word in program.arguments]
    sys.orig_argv[:] = [sys.executable, *sys.argv]
    sys.modules["__main__"].__file__ = sys.argv[0]
    with contextlib.suppress(OSError):  # only for `ps` to show
        linux.set_name(Path(sys.argv[0]).name)
        linux.set_beginning([os.fsencode(sys.executable), *program.arguments], program.variables)
    variables = dict(os.environ)
    for place in places:
        place.put_right(variables)
    # Computed anew, from the person's home.
    site.USER_BASE = site.USER_SITE = None
    site.getusersitepackages()
    _renew_randomness()
    gc.enable()


def _renew_randomness() -> None:
    random.seed()
    if "multiprocessing.process" in sys.modules:
        sys.modules["multiprocessing.process"].current_process().authkey = os.urandom(32)
    if "jupyter_client.session" in sys.modules:
        # The key that `--Session.secure` means.
        session = sys.modules["jupyter_client.session"]
        session.session_flags["secure"][0]["Session"]["key"] = session.new_id_bytes()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
