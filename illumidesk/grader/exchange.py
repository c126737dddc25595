"""What a person's own extensions need to know of nbgrader: its configuration, and the exchange that it names.

nbgrader takes as long to import as a whole server without it, so these functions import it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from illumidesk.errors import IllumiDeskError


def nbgrader_config() -> Any:
    """nbgrader's configuration as the Assignment List reads it: everybody's, then the person's own.

    Raises:
        IllumiDeskError: where a file of it is wrong; traitlets would end the server for that.
    """
    from nbgrader.apps import NbGrader

    application = NbGrader()
    try:
        application.load_config_file()
    except (Exception, SystemExit) as error:
        raise IllumiDeskError(
            "nbgrader's configuration cannot be read",
            hint="look at nbgrader_config.py in your home and in ~/.jupyter",
            status=500,
        ) from error
    return application.config


def exchange_root(config: Any) -> Path | None:
    """The folder of the exchange; None where an exchange of another kind is configured."""
    from nbgrader.coursedir import CourseDirectory
    from nbgrader.exchange import ExchangeFactory

    lister = ExchangeFactory(config=config).List(coursedir=CourseDirectory(config=config), config=config)
    root = getattr(lister, "root", "")
    return Path(root) if root else None
