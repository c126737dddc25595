"""Settings → JupyterHub's configuration. `/etc/jupyterhub/jupyterhub_config.py` calls `configure` and little else."""

from __future__ import annotations

import os
from typing import Any

from illumidesk.authenticators import LocalAuthenticator
from illumidesk.errors import IllumiDeskError
from illumidesk.hub.api import MANAGE_SCOPE, api_handlers
from illumidesk.hub.environment_pages import environment_api_handlers, environment_page_handlers
from illumidesk.hub.extension_pages import extension_page_handlers
from illumidesk.hub.grade_api import grade_api_handlers
from illumidesk.hub.grade_pages import grade_page_handlers
from illumidesk.hub.launches import Pending, launch_handlers
from illumidesk.hub.pages import page_handlers
from illumidesk.hub.registration import registration_handlers
from illumidesk.hub.roster_pages import roster_api_handlers, roster_page_handlers
from illumidesk.hub.workspace_pages import user_redirect, workspace_page_handlers
from illumidesk.paths import Paths, data, socket_url
from illumidesk.settings import Settings, in_url, load
from illumidesk.spawners import IllumiDeskWorkspaceSystemdSpawner


def configure(c: Any, paths: Paths | None = None, settings: Settings | None = None) -> None:
    """Fill JupyterHub's configuration.

    Args:
        c: the configuration object of `jupyterhub_config.py`.
        paths: the host's layout; this process's by default.
        settings: what config.yaml says; read by default.

    Raises:
        IllumiDeskError: where config.yaml is wrong, or a secret is missing from the environment.
    """
    paths = paths or Paths.current()
    settings = settings or load(paths.config_file)
    hub_url = socket_url(paths.hub_socket)

    address = settings.proxy.bind or "0.0.0.0"  # noqa: S104 -- the proxy's, for JupyterHub to know
    scheme, port = ("https", settings.https.port) if settings.https.domain else ("http", settings.proxy.http_port)
    c.JupyterHub.bind_url = f"{scheme}://{in_url(address)}:{port}"
    # Not JupyterHub's public_url: running servers would go on with an address that has changed.
    if settings.public_address().startswith("https:"):
        # Every cookie, those of people's servers too. Not the prefix __Host-: it would send the hub's own cookie to
        # everybody's server, since all are on one address.
        c.JupyterHub.tornado_settings = {"cookie_options": {"secure": True}}
    c.JupyterHub.hub_bind_url = hub_url
    c.JupyterHub.hub_connect_url = hub_url
    # Everybody's server talks to the hub, each with its own token: the same surface that the public port has.
    c.JupyterHub.hub_socket_mode = 0o666
    c.JupyterHub.oauth_require_pkce = True
    c.JupyterHub.db_url = f"sqlite:///{paths.hub_state / 'jupyterhub.sqlite'}"
    c.JupyterHub.upgrade_db = True
    c.JupyterHub.cookie_secret_file = str(paths.hub_state / "jupyterhub_cookie_secret")
    c.JupyterHub.pid_file = ""
    # Units outlive the hub.
    c.JupyterHub.cleanup_servers = False
    c.JupyterHub.cleanup_proxy = False
    c.JupyterHub.allow_named_servers = False

    # Twenty times a second by default, which is most of what an idle hub does.
    c.PeriodicMetricsCollector.event_loop_interval_resolution = 0.5

    c.ConfigurableHTTPProxy.should_start = False
    c.ConfigurableHTTPProxy.api_url = socket_url(paths.proxy_api_socket)
    c.ConfigurableHTTPProxy.auth_token = _secret("CONFIGPROXY_AUTH_TOKEN")

    c.JupyterHub.authenticator_class = LocalAuthenticator
    c.LocalAuthenticator.open_signup = settings.sign_in.local.open_signup
    c.LocalAuthenticator.min_password_length = settings.sign_in.local.min_password_length

    c.JupyterHub.spawner_class = IllumiDeskWorkspaceSystemdSpawner
    c.Spawner.env_keep = []
    # With the time in the queue: a class of 300 on two cores.
    c.Spawner.start_timeout = 900
    c.JupyterHub.concurrent_spawn_limit = 0
    c.Spawner.http_timeout = 120
    # Its own server may ask who its owner is and in which groups (nbgrader's Course List does).
    c.Spawner.server_token_scopes = [
        "users:activity!user",
        "access:servers!server",
        "read:users:name!user",
        "read:users:groups!user",
    ]

    c.JupyterHub.custom_scopes = {
        MANAGE_SCOPE: {"description": "Manage people and courses, as root's command line does."}
    }
    c.JupyterHub.services = [{"name": "illumidesk-cli", "api_token": _secret("ILLUMIDESK_CLI_TOKEN"), "display": False}]
    c.JupyterHub.load_roles = [
        {
            "name": "illumidesk-cli",
            "description": "Root's command line",
            "scopes": [MANAGE_SCOPE],
            "services": ["illumidesk-cli"],
        }
    ]
    c.JupyterHub.template_paths = [str(data("config", "templates"))]
    c.JupyterHub.user_redirect_hook = user_redirect
    shared = {"pending": Pending()}
    c.JupyterHub.extra_handlers = [
        *page_handlers,
        *grade_page_handlers,
        *extension_page_handlers,
        *roster_page_handlers,
        *environment_page_handlers,
        *workspace_page_handlers,
        *api_handlers,
        *grade_api_handlers,
        *roster_api_handlers,
        *environment_api_handlers,
        *launch_handlers(shared),
        *registration_handlers(shared),
    ]


def _secret(name: str) -> str:
    value = os.environ.get(name, "")
    if len(value) < 32:
        raise IllumiDeskError(
            f"{name} is missing from the hub's environment",
            hint="run install.sh again: it makes the secrets in /etc/illumidesk/secrets",
        )
    return value
