"""What root does to a host: install, apply settings, uninstall."""
