"""Progress of an installation: a line per step with its time on the terminal, everything else in the log.

Only Python's own library is used, because the first environment is built with nothing else in reach.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from illumidesk.errors import IllumiDeskError
from illumidesk.paths import Paths

#: Set by install.sh: the log that it began, and that it holds the lock.
LOG_VARIABLE = "ILLUMIDESK_INSTALL_LOG"
_TAIL = 8


class StepError(IllumiDeskError):
    """A command failed.

    Args:
        message: one sentence.
        tail: the last lines that the command said.
    """

    def __init__(self, message: str, *, tail: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint, status=500)
        self.tail = list(tail)


class Progress:
    """Shows steps on `out`, and writes what they do to a log.

    Args:
        log: the log file, opened for appending; nothing for none.
        out: where the lines go.
    """

    def __init__(self, log: IO[str] | None = None, out: IO[str] | None = None) -> None:
        self.log = log
        self.out = out or sys.stdout
        self.notes: list[str] = []
        self._title = ""

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One line for what is done inside, with the seconds it took."""
        began = time.monotonic()
        live = self.out.isatty()
        self._log(f"\n== {title}\n")
        if live:
            self._say(f"  {title} …")
        self._title = title
        try:
            yield
        except BaseException:
            self._say(f"{_clear(live)}  {title:<48}  FAILED\n")
            raise
        finally:
            self._title = ""
        self._say(f"{_clear(live)}  {title:<48} {time.monotonic() - began:7.1f} s\n")

    def tell(self, text: str) -> None:
        """How far the step in hand is: behind its title on a terminal, and a line of the log."""
        self.record(text)
        if self._title and self.out.isatty():
            self._say(f"{_clear(True)}  {self._title} … {text}")

    def record(self, text: str) -> None:
        """A line for the log."""
        self._log(f"{text}\n")

    def note(self, text: str) -> None:
        """Something to tell at the end."""
        self.record(f"note: {text}")
        self.notes.append(text)

    def run(
        self,
        command: Sequence[str | Path],
        *,
        what: str = "",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        check: bool = True,
    ) -> str:
        """Run a command, its output in the log as it comes.

        Args:
            command: the program and its arguments. No secret belongs here: they are logged.
            what: what failed, for the error: "resolving the packages".
            env: its whole environment; ours where absent.
            cwd: its folder; `/` where absent, so that no tool finds settings where somebody happens to stand.
            check: whether a failure is an error.

        Returns:
            What it printed, both streams.

        Raises:
            StepError: where it failed and `check` is set.
        """
        words = [str(word) for word in command]
        self._log(f"$ {shlex.join(words)}\n")
        try:
            process = subprocess.Popen(
                words,
                env=dict(env) if env is not None else None,
                cwd=cwd or "/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise StepError(f"{words[0]} cannot be run: {error.strerror}") from None
        lines: list[str] = []
        assert process.stdout is not None  # noqa: S101 - for the type checker
        with process.stdout:
            for line in process.stdout:
                lines.append(line)
                self._log(line)
        status = process.wait()
        if status and check:
            tail = [line.rstrip() for line in lines if line.strip()][-_TAIL:]
            raise StepError(f"{what or words[0]} failed (exit status {status})", tail=tail)
        return "".join(lines)

    def explain(self, error: IllumiDeskError) -> None:
        """An error as people see it: one sentence, the end of what the command said, where the log is."""
        print(f"\nillumidesk: {error.message}", file=sys.stderr)
        for line in getattr(error, "tail", ()):
            print(f"    {line}", file=sys.stderr)
        if error.hint:
            print(f"{error.hint[:1].upper()}{error.hint[1:]}.", file=sys.stderr)
        if self.log is not None:
            print(f"The whole log is in {self.log.name}.", file=sys.stderr)
            print("Run the same command again once this is mended; nothing is lost.", file=sys.stderr)
        self._log(f"\nillumidesk: {error.message}\n{error.hint}\n")

    def _say(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()

    def _log(self, text: str) -> None:
        if self.log is not None:
            self.log.write(text)
            self.log.flush()


def open_log(paths: Paths) -> IO[str]:
    """The log that install.sh began, or a new one: root alone can read it."""
    begun = os.environ.get(LOG_VARIABLE)
    if begun:
        log = Path(begun)
    else:
        paths.log.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = paths.log / f"install-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.log"
    return open(log, "a", encoding="utf-8", errors="replace", opener=_open_private)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _clear(live: bool) -> str:
    return "\r\033[K" if live else ""
