"""Programs of workspaces on a throwaway machine."""

from __future__ import annotations

from pathlib import Path

from tests.support.classroom import Classroom

RSERVER = Path(__file__).with_name("rserver.py")
RSTUDIO_ROOT = "/usr/lib/rstudio-server"


def ensure_program(classroom: Classroom, name: str, *options: str) -> str:
    """Have a program built and installed; what was said."""
    argv = ["nice", "-n", "10", "illumidesk", "workspace", "install", name, *options]
    return classroom.machine.run(argv, timeout=1800).stdout


def ensure_rstudio(classroom: Classroom) -> str:
    """Have the stand-in of RStudio Server installed from a package as the vendor's is; what was said."""
    package = rstudio_package(classroom)
    checksum = classroom.machine.run(["sha256sum", package]).stdout.split()[0]
    return ensure_program(classroom, "rstudio", "--package", package, "--sha256", checksum)


def rstudio_package(classroom: Classroom) -> str:
    """Make a Debian package of the stand-in on the machine, which starts a service of its own; its path."""
    build = "/root/rstudio-package"
    machine = classroom.machine
    machine.write_text(
        f"{build}/DEBIAN/control",
        "Package: rstudio-server\nVersion: 2099.1.0+1\nArchitecture: all\nMaintainer: nobody\nDepends: python3\n"
        "Description: stand-in of RStudio Server\n",
    )
    # As the vendor's does: brings its unit, switches it on and starts it.
    machine.write_text(
        f"{build}/DEBIAN/postinst",
        "#!/bin/sh\nset -e\ncp /usr/lib/rstudio-server/extras/rstudio-server.service /lib/systemd/system/\n"
        "systemctl daemon-reload\nsystemctl enable rstudio-server.service\nsystemctl start rstudio-server.service\n",
        0o755,
    )
    machine.write_text(f"{build}/DEBIAN/postrm", "#!/bin/sh\nrm -f /lib/systemd/system/rstudio-server.service\n", 0o755)
    machine.write_text(
        f"{build}{RSTUDIO_ROOT}/extras/rstudio-server.service",
        f"[Service]\nExecStart={RSTUDIO_ROOT}/bin/rserver --www-port=8787\n[Install]\nWantedBy=multi-user.target\n",
    )
    machine.write_text(f"{build}{RSTUDIO_ROOT}/bin/rserver", RSERVER.read_text(), 0o755)
    machine.run(["chmod", "-R", "a+rX", build])
    machine.run(["dpkg-deb", "--root-owner-group", "--build", build, "/root/rstudio-server.deb"])
    return "/root/rstudio-server.deb"
