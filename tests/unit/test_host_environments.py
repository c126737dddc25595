"""Environments: what goes into a build, that a link moves at once, and what an interruption leaves."""

from __future__ import annotations

import gzip
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from illumidesk.errors import IllumiDeskError
from illumidesk.host import environments
from illumidesk.host.environments import (
    MARKER,
    Environment,
    building,
    ensure_environment,
    is_current,
    keep_wheel,
    pip_settings,
    read_requirements,
    remove_old_builds,
    swap,
    use_wheel,
    wheel_in_use,
)
from illumidesk.host.steps import Progress, StepError
from illumidesk.paths import Paths

# Takes uv's place: makes the folder, and notes how it was called.
FAKE_UV = """#!/bin/sh
echo "$@" >> "{calls}"
if [ -n "$UV_FAILS" ] && [ "$1" = pip ]; then echo "error: no such package"; exit 2; fi
if [ "$1" = venv ]; then
    for build; do :; done
    mkdir -p "$build/bin"
    ln -s {python} "$build/bin/python"
    echo x > "$build/bin/tool"; chmod 0700 "$build/bin/tool"
    echo x > "$build/data"; chmod 0606 "$build/data"
fi
"""


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path)
    uv = paths.opt / "bootstrap/bin/uv"
    uv.parent.mkdir(parents=True)
    uv.write_text(FAKE_UV.format(calls=tmp_path / "calls", python=sys.executable))
    uv.chmod(0o755)
    return paths


def calls(paths: Paths) -> list[str]:
    file = paths.root / "calls"
    return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    file = tmp_path / "illumidesk-1.0-py3-none-any.whl"
    file.write_bytes(b"wheel")
    return file


def users(wheel: Path, *requirements: str) -> Environment:
    return Environment("default", requirements or ("jupyterlab>=4",), wheel, "", Path(sys.executable))


def ensure(environment: Environment, paths: Paths, *, refresh: bool = False) -> bool:
    link = paths.environments / environment.name
    return ensure_environment(environment, link, paths=paths, progress=Progress(), refresh=refresh)


def test_built_once(paths: Paths, wheel: Path) -> None:
    assert ensure(users(wheel), paths)
    link = paths.environments / "default"
    assert link.is_symlink()
    assert link.resolve().parent == paths.opt / "builds"
    assert (link / MARKER).exists()
    made = calls(paths)
    assert "--no-deps" in made[-1]
    assert "jupyterlab>=4" in made[1]
    assert not ensure(users(wheel), paths)
    assert calls(paths) == made


def test_readable_for_all_and_writable_for_root_alone(paths: Paths, wheel: Path) -> None:
    ensure(users(wheel), paths)
    build = (paths.environments / "default").resolve()
    assert stat.S_IMODE((build / "bin/tool").stat().st_mode) == 0o755
    assert stat.S_IMODE((build / "data").stat().st_mode) == 0o644


def test_what_makes_a_new_build(paths: Paths, wheel: Path, tmp_path: Path) -> None:
    ensure(users(wheel), paths)
    first = (paths.environments / "default").resolve()
    assert ensure(users(wheel, "jupyterlab>=4", "numpy"), paths)
    assert (paths.environments / "default").resolve() != first
    assert first.exists()
    newer = tmp_path / "newer.whl"
    newer.write_bytes(b"newer wheel")
    assert ensure(users(newer, "jupyterlab>=4", "numpy"), paths)
    assert not ensure(users(newer, "numpy", "jupyterlab>=4"), paths), "the order says nothing"
    # back to what was built before: only the link moves
    made = calls(paths)
    assert ensure(users(wheel), paths)
    assert (paths.environments / "default").resolve() == first
    assert calls(paths) == made


def test_refresh_builds_beside(paths: Paths, wheel: Path) -> None:
    ensure(users(wheel), paths)
    first = (paths.environments / "default").resolve()
    assert ensure(users(wheel), paths, refresh=True)
    second = (paths.environments / "default").resolve()
    assert second != first
    assert (first / MARKER).exists(), "servers may run from it"
    assert not ensure(users(wheel), paths), "a refreshed build is current"


def test_a_build_whose_python_is_gone_is_made_anew(paths: Paths, wheel: Path) -> None:
    """As after an upgrade of the distribution."""
    ensure(users(wheel), paths)
    build = (paths.environments / "default").resolve()
    (build / "bin/python").unlink()
    (build / "bin/python").symlink_to("/usr/bin/python3.0")
    assert ensure(users(wheel), paths)
    assert (paths.environments / "default/bin/python").exists()


def test_failure_leaves_what_is_in_use(paths: Paths, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure(users(wheel), paths)
    first = (paths.environments / "default").resolve()
    monkeypatch.setenv("UV_FAILS", "1")
    with pytest.raises(StepError) as caught:
        ensure(users(wheel, "nosuch"), paths)
    assert caught.value.tail == ["error: no such package"]
    assert "default" in caught.value.message
    assert (paths.environments / "default").resolve() == first
    monkeypatch.delenv("UV_FAILS")
    assert ensure(users(wheel, "nosuch"), paths)


def test_an_interrupted_build_is_cleared(paths: Paths, wheel: Path) -> None:
    wanted = users(wheel)
    half = environments.build_folder(paths, "default", wanted.digest)
    half.mkdir(parents=True)
    (half / "leftover").write_text("x")
    assert ensure(wanted, paths)
    assert not (half / "leftover").exists()


def test_what_an_interrupted_build_left_running_is_ended(paths: Paths, wheel: Path) -> None:
    """uv goes on where the installation was killed, and would write into the next build."""
    wanted = users(wheel)
    half = environments.build_folder(paths, "default", wanted.digest)
    other = environments.build_folder(paths, "other", "digest")
    left = []
    for build in (half, other):
        build.mkdir(parents=True)
        code = "import time, sys; time.sleep(300)"
        left.append(subprocess.Popen([sys.executable, "-I", "-S", "-c", code, f"{build}/bin/python"]))
    assert ensure(wanted, paths)
    assert left[0].wait(timeout=30) == -signal.SIGKILL
    assert left[1].poll() is None
    assert remove_old_builds(paths) == [other.name]
    assert left[1].wait(timeout=30) == -signal.SIGKILL


def test_marker_comes_last(tmp_path: Path) -> None:
    build = tmp_path / "build"
    with pytest.raises(RuntimeError), building(build, "abc"):
        raise RuntimeError
    assert not (build / MARKER).exists()
    with building(build, "abc") as wanted:
        assert wanted
        assert not list(build.iterdir())
    assert is_current(build, "abc")
    assert not is_current(build, "other")
    with building(build, "abc") as wanted:
        assert not wanted


def test_swap(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "builds" / name).mkdir(parents=True)
        swap(tmp_path / "envs/default", tmp_path / "builds" / name)
        assert (tmp_path / "envs/default").resolve() == tmp_path / "builds" / name
    assert (tmp_path / "envs/default").readlink() == Path("../builds/two")
    assert [entry.name for entry in (tmp_path / "envs").iterdir()] == ["default"]
    # a link that an interrupted swap left does not stop the next one
    (tmp_path / "envs/.default.new").symlink_to("nowhere")
    swap(tmp_path / "envs/default", tmp_path / "builds/one")
    assert (tmp_path / "envs/default").resolve().name == "one"


def test_old_builds_go_once_nothing_runs_from_them(paths: Paths, wheel: Path) -> None:
    ensure(users(wheel), paths)
    old = (paths.environments / "default").resolve()
    (old / "bin/python").unlink()
    (old / "bin/python").symlink_to(Path(sys.executable).resolve())
    ensure(users(wheel, "numpy"), paths)
    half = paths.opt / "builds/default-interrupted"
    half.mkdir()
    server = subprocess.Popen(
        [old / "bin/python", "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        assert remove_old_builds(paths) == ["default-interrupted"]
        assert (old / MARKER).exists()
    finally:
        server.communicate(b"\n", timeout=30)
    assert remove_old_builds(paths) == [old.name]
    assert (paths.environments / "default/bin/python").exists()


def test_requirements(tmp_path: Path) -> None:
    file = tmp_path / "default.txt"
    file.write_text("# packages\n\njupyterlab>=4,<5\n  numpy  # for everybody\npkg @ https://example.org/x#egg=x\n")
    assert read_requirements(file) == ("jupyterlab>=4,<5", "numpy", "pkg @ https://example.org/x#egg=x")


@pytest.mark.parametrize("line", ["--index-url https://example.org", "-e .", "-r other.txt"])
def test_requirements_are_no_options(tmp_path: Path, line: str) -> None:
    """An option would slip into uv's command line."""
    file = tmp_path / "default.txt"
    file.write_text(f"numpy\n{line}\n")
    with pytest.raises(IllumiDeskError, match="line 2"):
        read_requirements(file)


def test_pip_settings() -> None:
    listed = """:env:.index-url='https://env.example.org/simple'
global.index-url='https://global.example.org/simple'
install.index-url='https://install.example.org/simple'
global.extra-index-url='https://a.example.org/simple\\nhttps://b.example.org/simple file:///no/such/folder'
install.trusted-host='a.example.org'
global.find-links='/no/such/folder'
global.timeout='60'
not a setting
wheel.cert='/x'
"""
    assert pip_settings(listed) == {
        "index-url": "https://env.example.org/simple",
        "extra-index-url": "https://a.example.org/simple https://b.example.org/simple",
        "trusted-host": "a.example.org",
        "find-links": "",
        "timeout": "60",
    }


def test_pip_settings_reach_uv(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    python = paths.opt / "bootstrap/bin/python"
    python.write_text(
        "#!/bin/sh\necho \"global.index-url='https://pip.example.org/simple'\"\n"
        "echo \"global.extra-index-url='https://more.example.org/simple'\"\n"
    )
    python.chmod(0o755)
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_STRATEGY"):
        monkeypatch.delenv(variable, raising=False)
    env = environments.tool_environment(paths)
    assert env["UV_DEFAULT_INDEX"] == "https://pip.example.org/simple"
    assert env["UV_INDEX"] == "https://more.example.org/simple"
    assert env["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv.example.org/simple")
    assert environments.tool_environment(paths)["UV_DEFAULT_INDEX"] == "https://uv.example.org/simple"


def test_wheels(paths: Paths, wheel: Path) -> None:
    with pytest.raises(IllumiDeskError, match="missing"):
        wheel_in_use(paths)
    kept = keep_wheel(wheel, paths)
    use_wheel(kept, paths)
    assert wheel_in_use(paths).read_bytes() == b"wheel"
    wheel.write_bytes(b"newer")
    newer = keep_wheel(wheel, paths)
    assert wheel_in_use(paths).read_bytes() == b"wheel", "not in use yet"
    use_wheel(newer, paths)
    assert wheel_in_use(paths).read_bytes() == b"newer"
    assert not kept.exists()


def test_one_installation_at_a_time(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ILLUMIDESK_INSTALL_LOCKED", raising=False)
    (paths.root / "run/lock").mkdir(parents=True)
    with environments.lock(paths):
        with pytest.raises(IllumiDeskError, match="another installation"), environments.lock(paths):
            pass
        monkeypatch.setenv("ILLUMIDESK_INSTALL_LOCKED", "1")
        with environments.lock(paths):
            pass


def test_nothing_but_pythons_own_library() -> None:
    """install.sh runs this module out of a wheel, before anything is installed."""
    code = (
        "import sys, illumidesk.host.environments\n"
        "roots = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(roots - set(sys.stdlib_module_names) - {'illumidesk', '__main__'}))"
    )
    source = Path(environments.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_labs_files_get_compressed_copies(tmp_path: Path) -> None:
    folder = tmp_path / "share/jupyter/lab/static"
    folder.mkdir(parents=True)
    text = b"const answer = 42; " * 500
    for name in ("a.073326ef5d98db5e.js", "b.css", "c.woff2", "d.js.map"):
        (folder / name).write_bytes(text)
    (folder / "tiny.js").write_bytes(b"1")
    elsewhere = tmp_path / "lib/python3.11/site-packages/other/static"
    elsewhere.mkdir(parents=True)
    (elsewhere / "a.js").write_bytes(text)
    assert environments.compress_static(tmp_path) == 2
    packed = folder / "a.073326ef5d98db5e.js.gz"
    assert {file.name for file in tmp_path.rglob("*.gz")} == {packed.name, "b.css.gz"}
    first = packed.read_bytes()
    assert gzip.decompress(first) == text
    # The same again: no copies of copies, and the same bytes.
    assert environments.compress_static(tmp_path) == 2
    assert packed.read_bytes() == first


@pytest.mark.parametrize(
    ("said", "written"), [("echo a warning; echo 0", True), ("echo 2", False), ("echo No module; exit 1", False)]
)
def test_language_servers_are_settled_where_there_are_none(tmp_path: Path, said: str, written: bool) -> None:
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.write_text(f"#!/bin/sh\n{said}\n")
    python.chmod(0o755)
    environments._settle_language_servers(tmp_path, Progress())
    folder = tmp_path / "etc/jupyter/jupyter_server_config.d"
    files = list(folder.iterdir()) if folder.exists() else []
    assert bool(files) is written
    for file in files:
        # Servers read a folder's files by name.
        assert file.name > "jupyter-lsp-jupyter-server.json"
        assert json.loads(file.read_text()) == {"ServerApp": {"jpserver_extensions": {"jupyter_lsp": False}}}
