"""Kernels of every environment, for every server: a folder of Jupyter kernelspecs that all servers look into.

`/opt/illumidesk/share/jupyter` is on their JUPYTER_PATH. A kernelspec in it names the programs of an environment's
build, so a kernel that starts takes the build in use at that moment and stays in it.
https://jupyter-client.readthedocs.io/en/stable/kernels.html#kernel-specs
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from illumidesk import names
from illumidesk.host.conffiles import write_file
from illumidesk.host.environments import make_readable
from illumidesk.paths import Paths, data

#: Keeps Python's kernels off TCP ports; builds of ours have it (see `environments.add_own_package`).
_IPYTHON = "ipython_kernel_config.py"
#: The pictures of a kernelspec, as JupyterLab shows them.
_LOGO = re.compile(r"logo-[a-z0-9]+\.(?:png|svg)")


@dataclass(frozen=True)
class Kernel:
    """A kernel that servers offer beside their own ones.

    Args:
        name: of the kernelspec, as notebooks name it.
        shown: what people choose it by.
        environment: whose it is.
        folder: the kernelspec in the environment.
        spec: the content of its `kernel.json`.
    """

    name: str
    shown: str
    environment: str
    folder: Path
    spec: dict[str, Any]


def offered(paths: Paths) -> list[Kernel]:
    """The kernels of all environments. None where there is but one environment: its servers have its kernels anyway."""
    links = sorted(paths.environments.iterdir()) if paths.environments.is_dir() else []
    links = [link for link in links if not link.name.startswith(".") and link.exists()]
    if len(links) < 2:
        return []
    return [kernel for link in links for kernel in _kernels_of(link)]


def ensure_kernels(paths: Paths) -> None:
    """Bring the folder that servers look into up to date. To be called when an environment was built or removed."""
    folder = paths.jupyter_data / "kernels"
    kernels = {kernel.name: kernel for kernel in offered(paths)}
    if folder.is_dir():
        for there in folder.iterdir():
            if there.name not in kernels:
                shutil.rmtree(there)
    for kernel in kernels.values():
        here = folder / kernel.name
        for source in kernel.folder.iterdir():
            if _LOGO.fullmatch(source.name) and source.is_file():
                write_file(here / source.name, source.read_bytes())
        if "{resource_dir}" in " ".join(kernel.spec["argv"]):
            write_file(here / _IPYTHON, data("config", "ipython", _IPYTHON).read_bytes())
        write_file(here / "kernel.json", (json.dumps(kernel.spec, indent=1) + "\n").encode())
    if folder.is_dir():
        make_readable(paths.jupyter_data.parent)


def _kernels_of(link: Path) -> list[Kernel]:
    prefix = link.resolve()
    # A course's environment is known to people by the course.
    label = names.course_of_environment(link.name) or link.name
    found = []
    for file in sorted(prefix.glob("share/jupyter/kernels/*/kernel.json")):
        try:
            own = json.loads(file.read_text("utf-8"))
            argv = [str(word) for word in own["argv"]]
            language = str(own.get("display_name") or own["language"])
            program = _program(argv[0], prefix)
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            continue  # no kernelspec; a server of that environment would not show it either
        shown = f"{re.sub(r' *[(].*[)]$', '', language)} ({label})"
        argv = [program, *argv[1:]]
        if "ipykernel_launcher" in argv and not (prefix / "etc/ipython" / _IPYTHON).exists():
            argv.append(f"--IPKernelApp.extra_config_file={{resource_dir}}/{_IPYTHON}")
        # jupyter_client fills ${PATH} in with that of the server.
        variables = {**own.get("env", {}), "PATH": f"{prefix}/bin:${{PATH}}"}
        spec = {**own, "argv": argv, "display_name": shown, "env": variables}
        found.append(Kernel(f"{link.name}-{file.parent.name.lower()}", shown, link.name, file.parent, spec))
    return found


def _program(word: str, prefix: Path) -> str:
    """The program that a kernelspec begins with, in the environment where it is there."""
    if os.sep in word:
        return word
    return str(prefix / "bin" / word) if (prefix / "bin" / word).exists() else word
