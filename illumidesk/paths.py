"""Every path that IllumiDesk owns on a host."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.parse import quote


def socket_url(socket: Path) -> str:
    """The `http+unix://` URL by which JupyterHub and the proxy name a unix socket.

    The path must be lower case: `urllib.parse` lowers a URL's host name, and here the path is the host.
    """
    return f"http+unix://{quote(str(socket), safe='')}"


@dataclass(frozen=True)
class Paths:
    """The layout of a host.

    Args:
        root: where the layout starts; anything but `/` is for tests.
    """

    root: Path = Path("/")

    @classmethod
    def current(cls) -> Paths:
        """The layout of this process: `/`, or `$ILLUMIDESK_ROOT` where a test sets it.

        Root's own long-running process (the supervisor) does not use this, so that no environment variable moves it.
        """
        return cls(Path(os.environ.get("ILLUMIDESK_ROOT", "/")))

    # What an administrator may read and change
    @property
    def etc(self) -> Path:
        """Settings and secrets."""
        return self.root / "etc/illumidesk"

    @property
    def config_file(self) -> Path:
        """The settings (0640, root and the hub's group)."""
        return self.etc / "config.yaml"

    @property
    def secrets(self) -> Path:
        """Secrets made at install (0700, root alone). systemd hands them to the units that need them."""
        return self.etc / "secrets"

    @property
    def cli_token(self) -> Path:
        """The token with which root's command line speaks to the hub (0600)."""
        return self.secrets / "cli-token"

    @property
    def hub_env(self) -> Path:
        """EnvironmentFile of the hub: CONFIGPROXY_AUTH_TOKEN and ILLUMIDESK_CLI_TOKEN (0600)."""
        return self.secrets / "hub.env"

    @property
    def proxy_env(self) -> Path:
        """EnvironmentFile of the proxy: CONFIGPROXY_AUTH_TOKEN (0600)."""
        return self.secrets / "proxy.env"

    @property
    def tls(self) -> Path:
        """Certificates and their keys (0750, root and the proxy's group); `current` is a link to the pair in use."""
        return self.etc / "tls"

    @property
    def certbot(self) -> Path:
        """certbot's own folder: accounts, certificates, hooks."""
        return self.root / "etc/letsencrypt"

    @property
    def hub_config(self) -> Path:
        """JupyterHub's own configuration, thin; the escape hatch is `jupyterhub_config.d` beside it."""
        return self.root / "etc/jupyterhub/jupyterhub_config.py"

    @property
    def hub_config_d(self) -> Path:
        """An administrator's own JupyterHub configuration files, read last and in order of name."""
        return self.root / "etc/jupyterhub/jupyterhub_config.d"

    @property
    def nbgrader_global_config(self) -> Path:
        """nbgrader's configuration for everybody (the first of its three levels)."""
        return self.root / "etc/jupyter/nbgrader_config.py"

    # State
    @property
    def hub_state(self) -> Path:
        """The hub's databases and cookie secret (0700, the hub's account)."""
        return self.root / "srv/jupyterhub"

    @property
    def registry_db(self) -> Path:
        """People, courses and memberships."""
        return self.hub_state / "illumidesk.sqlite"

    @property
    def state(self) -> Path:
        """Root's own records (0755; what is secret in it is 0600)."""
        return self.root / "var/lib/illumidesk"

    @property
    def archive(self) -> Path:
        """Archives of removed courses (0700, root alone)."""
        return self.root / "var/backups/illumidesk"

    @property
    def log(self) -> Path:
        """Logs of installations (0700, root alone). Everything else logs to the journal."""
        return self.root / "var/log/illumidesk"

    @property
    def home(self) -> Path:
        """Where homes are made."""
        return self.root / "home"

    @property
    def exchange(self) -> Path:
        """nbgrader's exchange; a folder per course in it."""
        return self.root / "srv/nbgrader/exchange"

    @property
    def shared(self) -> Path:
        """Courses' shared folders, a folder per course: its members read it, its instructors write it (0755, root)."""
        return self.root / "srv/nbgrader/shared"

    # Programs
    @property
    def opt(self) -> Path:
        """Everything installed: the hub's environment, the proxy, users' environments."""
        return self.root / "opt/illumidesk"

    @property
    def hub_environment(self) -> Path:
        """The environment of the hub, the supervisor and the command line."""
        return self.opt / "hub"

    @property
    def proxy_program(self) -> Path:
        """Node and configurable-http-proxy."""
        return self.opt / "proxy"

    @property
    def environments(self) -> Path:
        """Users' environments; `NAME` is a link to the build in use."""
        return self.opt / "envs"

    @property
    def workspaces(self) -> Path:
        """Programs of workspaces; `NAME` is a link to the build in use."""
        return self.opt / "workspaces"

    @property
    def roles(self) -> Path:
        """A folder per role that goes on JUPYTER_CONFIG_PATH and switches nbgrader's pages."""
        return self.opt / "roles"

    @property
    def jupyter_data(self) -> Path:
        """On every server's JUPYTER_PATH: the kernels of all environments."""
        return self.opt / "share/jupyter"

    # Run time
    @property
    def run(self) -> Path:
        """Sockets."""
        return self.root / "run/illumidesk"

    @property
    def supervisor_socket(self) -> Path:
        """Where the supervisor listens (0660, root and the hub's group)."""
        return self.run / "supervisor.sock"

    @property
    def hub_socket(self) -> Path:
        """Where the hub listens: for the proxy and for everybody's servers, which bring their own tokens (0666)."""
        return self.run / "hub/hub.sock"

    @property
    def proxy_api_socket(self) -> Path:
        """The proxy's API (0660, the proxy and the hub)."""
        return self.run / "proxy/api.sock"

    @property
    def challenges(self) -> Path:
        """The web root of a certificate authority's challenges, which the proxy answers from (0755, root)."""
        return self.run / "acme"

    @property
    def unit_environments(self) -> Path:
        """Environment files of running units (0700, root alone)."""
        return self.run / "environment"

    def fork_server_socket(self, environment: str) -> Path:
        """The fork server's of an environment (0666; whom it serves, the kernel says)."""
        return self.run / "forkserver" / f"{environment}.sock"

    def server_socket(self, account: str) -> Path:
        """The socket of a person's server, in a folder of that person (2750) that only the proxy and hub can enter."""
        return self.run / "servers" / account / "server.sock"

    def grader_socket(self, course_id: str) -> Path:
        """The socket of a course's grader, guarded likewise."""
        return self.run / "graders" / course_id / "server.sock"


def data(*parts: str) -> Path:
    """A file or folder that ships with the package: `data("config", "config.yaml")`, `data("systemd")`.

    In a checkout these are the top-level folders `config` and `systemd`; in a wheel they lie in the package.
    """
    packaged = Path(str(resources.files("illumidesk"))) / "_data"
    base = packaged if packaged.is_dir() else Path(__file__).resolve().parent.parent
    return base.joinpath(*parts)
