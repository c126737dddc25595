"""LTI 1.1 and 1.3: the protocol, with no JupyterHub in it. What a platform sends becomes one `Launch`."""
