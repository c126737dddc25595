"""The hub: JupyterHub with our sign-in, spawners, pages and management API. It runs without root."""
