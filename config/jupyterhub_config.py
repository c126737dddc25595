# JupyterHub's configuration. What it does is set in /etc/illumidesk/config.yaml; for anything that has no key
# there, put files into jupyterhub_config.d beside this one. They are read last, in order of name, and win.

from pathlib import Path

from illumidesk.hub.config import configure

c = get_config()
configure(c)

for _file in sorted((Path(__file__).resolve().parent / "jupyterhub_config.d").glob("*.py")):
    load_subconfig(str(_file))
