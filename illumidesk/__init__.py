"""IllumiDesk turns one Ubuntu or Debian machine into a classroom: JupyterHub, nbgrader and people's workspaces."""

__version__ = "0.1.0"
