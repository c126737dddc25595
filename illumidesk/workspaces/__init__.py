"""What people work in: notebooks, JupyterLab, and programs that run behind their server."""
