"""Kernels of every environment for every server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.kernelspec import KernelSpecManager

from illumidesk.host import kernels
from illumidesk.host.environments import swap
from illumidesk.paths import Paths

PYTHON = {
    "argv": ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
    "display_name": "Python 3 (ipykernel)",
    "language": "python",
}


def build(paths: Paths, name: str, digest: str = "1", **specs: dict[str, Any]) -> Path:
    """A build with kernelspecs, as an environment."""
    folder = paths.opt / "builds" / f"{name}-{digest}"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").touch()
    (folder / "etc/ipython").mkdir(parents=True)
    (folder / "etc/ipython/ipython_kernel_config.py").touch()
    for kernel, spec in specs.items():
        here = folder / "share/jupyter/kernels" / kernel
        here.mkdir(parents=True)
        (here / "kernel.json").write_text(json.dumps(spec))
        (here / "logo-64x64.png").write_bytes(b"picture")
    swap(paths.environments / name, folder)
    return folder


def shown(paths: Paths) -> dict[str, str]:
    """What Jupyter itself finds there."""
    manager = KernelSpecManager(kernel_dirs=[str(paths.jupyter_data / "kernels")], ensure_native_kernel=False)
    return {name: found["spec"]["display_name"] for name, found in manager.get_all_specs().items()}


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    build(paths, "default", python3=PYTHON)
    return paths


def test_one_environment_alone_has_its_kernels_anyway(paths: Paths) -> None:
    kernels.ensure_kernels(paths)
    assert shown(paths) == {}


def test_each_is_offered_by_its_environment(paths: Paths) -> None:
    build(paths, "ml", python3=PYTHON, ir={"argv": ["R", "{connection_file}"], "display_name": "R", "language": "R"})
    build(paths, "course-bio101", python3=PYTHON)
    build(paths, "tools")
    kernels.ensure_kernels(paths)
    assert shown(paths) == {
        "default-python3": "Python 3 (default)",
        "ml-python3": "Python 3 (ml)",
        "ml-ir": "R (ml)",
        "course-bio101-python3": "Python 3 (bio101)",
    }
    assert (paths.jupyter_data / "kernels/ml-python3/logo-64x64.png").read_bytes() == b"picture"


def test_it_names_the_build_and_its_programs_first(paths: Paths) -> None:
    first = build(paths, "ml", python3=PYTHON)
    kernels.ensure_kernels(paths)
    file = paths.jupyter_data / "kernels/ml-python3/kernel.json"
    spec = json.loads(file.read_text())
    assert spec["argv"] == [f"{first}/bin/python", *PYTHON["argv"][1:]]
    assert spec["env"] == {"PATH": f"{first}/bin:${{PATH}}"}
    second = build(paths, "ml", "2", python3=PYTHON)
    kernels.ensure_kernels(paths)
    assert json.loads(file.read_text())["argv"][0] == f"{second}/bin/python"


def test_what_is_removed_disappears(paths: Paths) -> None:
    build(paths, "ml", python3=PYTHON)
    build(paths, "other", python3=PYTHON)
    kernels.ensure_kernels(paths)
    (paths.environments / "ml").unlink()
    kernels.ensure_kernels(paths)
    assert sorted(shown(paths)) == ["default-python3", "other-python3"]
    (paths.environments / "other").unlink()
    kernels.ensure_kernels(paths)
    assert shown(paths) == {}


def test_everybody_may_read_them_whatever_the_umask(paths: Paths) -> None:
    build(paths, "ml", python3=PYTHON)
    before = os.umask(0o077)
    try:
        kernels.ensure_kernels(paths)
    finally:
        os.umask(before)
    for path in (paths.opt / "share").rglob("*"):
        assert path.stat().st_mode & 0o005 == (0o005 if path.is_dir() else 0o004), path


def test_one_that_was_not_built_here_stays_off_tcp(paths: Paths) -> None:
    folder = build(paths, "bio", python3=PYTHON)
    (folder / "etc/ipython/ipython_kernel_config.py").unlink()
    kernels.ensure_kernels(paths)
    here = paths.jupyter_data / "kernels/bio-python3"
    argv = json.loads((here / "kernel.json").read_text())["argv"]
    assert argv[-1] == "--IPKernelApp.extra_config_file={resource_dir}/ipython_kernel_config.py"
    assert "_setup_pipe_in" in (here / "ipython_kernel_config.py").read_text()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"argv": [], "language": "x"}', "\xff"])
def test_what_is_no_kernelspec_is_left_out(paths: Paths, content: str) -> None:
    folder = build(paths, "ml", python3=PYTHON, broken=PYTHON)
    (folder / "share/jupyter/kernels/broken/kernel.json").write_text(content, "latin-1")
    kernels.ensure_kernels(paths)
    assert sorted(shown(paths)) == ["default-python3", "ml-python3"]
