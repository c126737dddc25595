"""conda packages without conda: py-rattler resolves, downloads and installs them.

Its interface is younger than 1.0, so all that we use of it is here. Scripts that packages want to run as they are
installed (`post-link`) are not run: root installs.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from illumidesk.errors import IllumiDeskError
from illumidesk.host.environments import Environment, Pins
from illumidesk.host.steps import Progress, StepError

if TYPE_CHECKING:
    from rattler import Channel, Client, InstallerReporter, MatchSpec, RepoDataRecord

#: What conda's own tools mean by the channel `defaults`.
_DEFAULTS = ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")
_LONGEST = 600


def build_prefix(environment: Environment, prefix: Path, *, progress: Progress, pins: Pins | None = None) -> None:
    """Install an environment's conda packages into the empty folder `prefix`, which is where they stay.

    Args:
        environment: what is asked for, and of which channels.
        prefix: the final place: packages have it written into their files.
        progress: how far it is.
        pins: the packages to install exactly; nothing is resolved then.

    Raises:
        StepError: where they cannot be resolved, downloaded or installed.
    """
    with _in_one_sentence(environment):
        asyncio.run(_build_prefix(environment, prefix, progress, pins))
    _put_own_packages_first(prefix)


def is_newest(environment: Environment, pins: Pins, *, progress: Progress) -> bool:
    """Whether a new build of an environment would have the conda packages in `pins`.

    Raises:
        StepError: where its packages cannot be resolved.
    """
    with _in_one_sentence(environment):
        progress.tell("resolving")
        records = asyncio.run(_solved(environment, _match_specs(environment), _client()))
        return {record.url for record in records} == {record.url for record in _locked(pins)}


async def _build_prefix(environment: Environment, prefix: Path, progress: Progress, pins: Pins | None) -> None:
    from rattler import install

    client = _client()
    if pins is None:
        progress.tell("resolving")
        records = await _solved(environment, _match_specs(environment), client)
    else:
        records = _locked(pins)
    for record in records:
        progress.record(f"  {record.url}")
    await install(
        records,
        prefix,
        cache_dir=_cache() / "pkgs",
        client=client,
        reporter=_reporter(progress),
        execute_link_scripts=False,
    )


async def _solved(environment: Environment, specs: Sequence[MatchSpec], client: Client) -> list[RepoDataRecord]:
    from rattler import Gateway, VirtualPackage, solve

    return await solve(
        _channels(environment),
        specs,
        gateway=Gateway(cache_dir=_cache() / "repodata", client=client),
        virtual_packages=VirtualPackage.detect(),
    )


def _client() -> Client:
    """As an administrator wrote it for every tool of this kind, in /etc/rattler/config.toml: mirrors, proxies."""
    from rattler import Client, Config

    # The machine's own certificates count.
    config = Config.from_toml('tls-root-certs = "system"')
    return Client.from_config(config.merge(Config.load_from_default_locations("rattler")))


def _match_specs(environment: Environment) -> list[MatchSpec]:
    return [_match_spec(text, environment) for text in environment.conda]


def _match_spec(text: str, environment: Environment) -> MatchSpec:
    from rattler import MatchSpec

    try:
        return MatchSpec(text, strict=False)
    except Exception as error:
        raise StepError(
            f"the environment {environment.name} cannot be built: {text} is not a conda package: {_one_line(error)}",
            hint="write name, name=version or name>=version",
        ) from None


def _channels(environment: Environment) -> list[Channel]:
    from rattler import Channel, ChannelConfig

    config = ChannelConfig(channel_alias=environment.channel_alias.rstrip("/") + "/", root_dir="/")
    wanted: list[str] = []
    for name in environment.channels:
        wanted += _DEFAULTS if name == "defaults" else [] if name == "nodefaults" else [name]
    return [Channel(name, config) for name in dict.fromkeys(wanted)]


def _locked(pins: Pins) -> list[RepoDataRecord]:
    from rattler import LockFile, Subdir

    with tempfile.NamedTemporaryFile("w", suffix=".lock") as file:
        file.write(pins.conda)
        file.flush()
        environment = LockFile.from_path(Path(file.name)).default_environment()
    found = environment.conda_repodata_records() if environment is not None else {}
    records = found.get(str(Subdir.current()), [])
    if not records:
        raise StepError("the lock file has no conda packages for this machine", hint="update the environment")
    return records


def lock_text(prefix: Path) -> str:
    """The conda packages in a prefix as a lock file of rattler's."""
    from rattler import Channel, LockFile, LockPlatform, PrefixRecord, Subdir

    platform = LockPlatform(str(Subdir.current()))
    lock = LockFile([platform])
    records = [PrefixRecord.from_path(file) for file in sorted((prefix / "conda-meta").glob("*.json"))]
    channels = sorted({record.channel for record in records if record.channel})
    lock.set_channels("default", [Channel(url).to_lock_channel() for url in channels])
    for record in records:
        lock.add_conda_package("default", platform, record)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "conda.lock"
        lock.to_path(file)
        return file.read_text("utf-8")


def _reporter(progress: Progress) -> InstallerReporter:
    """Counts packages on the terminal."""
    from rattler import InstallerReporter

    class Reporter(InstallerReporter):
        total = done = 0

        def on_transaction_start(self, total_operations: int) -> None:
            self.total = total_operations

        def on_transaction_operation_complete(self, operation: int) -> None:
            self.done += 1
            progress.tell(f"{self.done} of {self.total} conda packages")

    return Reporter()  # type: ignore[abstract] # its methods do nothing by themselves


def _cache() -> Path:
    return Path(os.environ.get("RATTLER_CACHE_DIR") or Path("~/.cache/rattler/cache").expanduser())


def _put_own_packages_first(prefix: Path) -> None:
    """Let the environment's packages outrank those in ~/.local, as in a venv that has `--system-site-packages`.

    In a plain installation of Python people's own packages come first, and a server could be broken by one of them.
    With this file `site` looks into the prefix before ~/.local; prefix and base prefix stay the same.
    """
    python = prefix / "bin/python"
    file = prefix / "pyvenv.cfg"
    if python.exists() and not file.exists():
        file.write_text(f"home = {prefix}/bin\ninclude-system-site-packages = true\n", "utf-8")


# Errors


@contextmanager
def _in_one_sentence(environment: Environment) -> Iterator[None]:
    try:
        yield
    except IllumiDeskError:
        raise
    except BaseException as error:
        # A bug in rattler comes as a PanicException, which is no Exception.
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise _explained(error, environment) from None
        raise


def _explained(error: BaseException, environment: Environment) -> IllumiDeskError:
    """An error of rattler's as one sentence."""
    from rattler.exceptions import GatewayError, SolverError

    said = str(error)
    tail = [line for line in said.splitlines() if line.strip()][-12:]
    name = environment.name
    if isinstance(error, SolverError):
        reason = _one_line(said.removeprefix("Cannot solve the request because of:"))
        culprits = [text for text in environment.conda if _package(text) in _words(reason)]
        together = " together" if len(culprits) > 1 else ""
        first = f"{', '.join(culprits) or 'its packages'} cannot be had{together}"
        return StepError(
            f"the environment {name} cannot be resolved: {first} from {', '.join(environment.channels)}: {reason}",
            tail=tail if len(tail) > 1 else (),
            hint="change that requirement in the description, or add a channel that has it",
        )
    if isinstance(error, GatewayError):
        cause = tail[-1].removeprefix("Caused by: ")
        return StepError(
            f"the environment {name} cannot be built: the channel {_channel_in(said)} cannot be read: {cause}",
            hint="check the channel, or take a mirror (environments.channel_alias) or a folder (file://…); "
            "a description with nothing but a pip list needs no channel",
            tail=tail,
        )
    return StepError(f"the environment {name} could not be built: {_one_line(said)}", tail=tail)


def _channel_in(said: str) -> str:
    found = re.search(r"channel '([^']+)'|\((\w+://[^)\s]+)\)", said)
    if found is None:
        return "in its description"
    return re.sub(r"/(?:noarch|linux-\w+)/[^/]*$", "", found[1] or found[2]).rstrip("/")


def _package(spec: str) -> str:
    """The name in a match specification: `conda-forge::numpy>=2` is of numpy."""
    found = re.match(r"[\w.-]+", spec.rpartition("::")[2].strip())
    return found[0].lower() if found else spec


def _words(text: str) -> set[str]:
    return {word.rstrip(".") for word in re.findall(r"[\w.-]+", text.lower())}


def _one_line(said: Any) -> str:
    text = " ".join(re.sub(r"[│├└─]+", " ", str(said)).split()).rstrip(".")
    text = text[:1].lower() + text[1:]
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
