"""Tiny packages made on the spot: a conda channel in a folder, and wheels. Everything in them is real but its size."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import platform
import sys
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

#: Of this machine, as conda calls it.
SUBDIR = {"x86_64": "linux-64", "aarch64": "linux-aarch64"}[platform.machine()]
#: Stands in packages where the prefix will be.
PLACEHOLDER = "/opt/" + "placeholder_" * 16
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"


class CondaChannel:
    """A channel in a folder, `file://` and all.

    Args:
        folder: where it is made; what is in it already stays.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for subdir in ("noarch", SUBDIR):
            if not (folder / subdir).exists():
                (folder / subdir).mkdir(parents=True)
                self._write(subdir, {"info": {"subdir": subdir}, "packages": {}, "packages.conda": {}})

    @property
    def url(self) -> str:
        return self.folder.as_uri()

    def add(
        self,
        name: str,
        version: str = "1.0",
        files: Mapping[str, str | bytes] | None = None,
        *,
        depends: Sequence[str] = (),
        links: Mapping[str, str] | None = None,
        noarch: str | None = "generic",
    ) -> Path:
        """Build a package as a plain tarball and list it; files in `bin` are programs.

        Args:
            name: of it.
            version: of it.
            files: content by path. A text that holds PLACEHOLDER has the prefix there once installed.
            depends: match specifications.
            links: targets of symbolic links by path.
            noarch: `python`, `generic`, or None for one of this machine.
        """
        files = {
            path: content.encode() if isinstance(content, str) else content for path, content in (files or {}).items()
        }
        links = links or {}
        subdir = "noarch" if noarch else SUBDIR
        index = {
            "name": name,
            "version": version,
            "build": "0",
            "build_number": 0,
            "depends": list(depends),
            "subdir": subdir,
            **({"noarch": noarch} if noarch else {}),
        }
        paths = [_path_entry(path, content) for path, content in files.items()]
        paths += [
            {"_path": path, "path_type": "softlink", "sha256": hashlib.sha256(b"").hexdigest(), "size_in_bytes": 0}
            for path in links
        ]
        info = {
            "info/index.json": json.dumps(index),
            "info/paths.json": json.dumps({"paths": paths, "paths_version": 1}),
            "info/files": "\n".join([*files, *links]),
        }
        if noarch == "python":
            link = {"noarch": {"type": "python", "entry_points": []}, "package_metadata_version": 1}
            info["info/link.json"] = json.dumps(link)
        target = self.folder / subdir / f"{name}-{version}-0.tar.bz2"
        with tarfile.open(target, "w:bz2") as tar:
            for path, content in {**{key: text.encode() for key, text in info.items()}, **files}.items():
                entry = tarfile.TarInfo(path)
                entry.size = len(content)
                entry.mode = 0o755 if path.startswith("bin/") else 0o644
                tar.addfile(entry, io.BytesIO(content))
            for path, to in links.items():
                entry = tarfile.TarInfo(path)
                entry.type, entry.linkname = tarfile.SYMTYPE, to
                tar.addfile(entry)
        listed = json.loads((target.parent / "repodata.json").read_text())
        packed = target.read_bytes()
        listed["packages"][target.name] = {
            **index,
            "sha256": hashlib.sha256(packed).hexdigest(),
            "md5": hashlib.md5(packed).hexdigest(),
            "size": len(packed),
        }
        self._write(subdir, listed)
        return target

    def add_python(self) -> None:
        """A package `python` of this test's own version, which runs the interpreter that the test runs on."""
        real = Path(sys.executable).resolve()
        version = platform.python_version()
        self.add(
            "python",
            version,
            {"pyvenv.cfg": f"home = {real.parent}\ninclude-system-site-packages = true\nversion = {version}\n"},
            links={f"bin/python{MINOR}": str(real), "bin/python3": f"python{MINOR}", "bin/python": f"python{MINOR}"},
            noarch=None,
        )

    def add_module(self, name: str, version: str = "1.0", *, depends: Sequence[str] = ("python",)) -> None:
        """A Python package with one module, whose `VERSION` is its version."""
        info = f"site-packages/{name}-{version}.dist-info"
        self.add(
            name,
            version,
            {
                f"site-packages/{name}.py": f"VERSION = {version!r}\n",
                f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
                f"{info}/INSTALLER": "conda\n",
                f"{info}/RECORD": "",
            },
            depends=depends,
            noarch="python",
        )

    def _write(self, subdir: str, listed: object) -> None:
        (self.folder / subdir / "repodata.json").write_text(json.dumps(listed))


def _path_entry(path: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {
        "_path": path,
        "path_type": "hardlink",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_in_bytes": len(content),
    }
    if PLACEHOLDER.encode() in content:
        entry |= {"prefix_placeholder": PLACEHOLDER, "file_mode": "text"}
    return entry


def make_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    requires: Sequence[str] = (),
    scripts: Mapping[str, str] | None = None,
    data: bytes = b"",
) -> Path:
    """A wheel with one module, whose `VERSION` is its version.

    Args:
        folder: where it is written.
        name: of the package and its module.
        version: of it.
        requires: requirement specifiers.
        scripts: programs by name.
        data: something to take up space.
    """
    info, extra = f"{name}-{version}.dist-info", f"{name}-{version}.data"
    metadata = [
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}",
        *(f"Requires-Dist: {one}" for one in requires),
    ]
    files = {
        f"{name}.py": f"VERSION = {version!r}\n".encode(),
        f"{info}/METADATA": ("\n".join(metadata) + "\n").encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **{f"{extra}/scripts/{script}": text.encode() for script, text in (scripts or {}).items()},
        **({f"{name}.bin": data} if data else {}),
    }
    record = f"{info}/RECORD"
    lines = [f"{path},sha256={_digest(content)},{len(content)}" for path, content in files.items()]
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, content in {**files, record: "\n".join([*lines, f"{record},,"]).encode()}.items():
            archive.writestr(path, content)
    return wheel


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
