"""A disk that is nearly full."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def nearly_full(folder: Path, left: int) -> Iterator[None]:
    """Have `folder`, with what is in it, on a disk of its own that has `left` bytes free. It takes root to mount.

    Afterwards it is as it was before.
    """
    kept = folder.with_name(f"{folder.name}.kept")
    folder.rename(kept)
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "none", folder], check=True)
    try:
        subprocess.run(["cp", "-a", f"{kept}/.", folder], check=True)
        used = int(subprocess.run(["df", "-B1", "--output=used", folder], capture_output=True).stdout.split()[-1])
        subprocess.run(["mount", "-o", f"remount,size={used + left}", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)
        folder.rmdir()
        kept.rename(folder)
