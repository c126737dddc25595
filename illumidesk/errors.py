"""The one exception that carries a message meant for people."""

from __future__ import annotations


class IllumiDeskError(Exception):
    """Something a person can mend.

    The command line prints it as one sentence and a hint; the hub and the supervisor answer it as JSON
    (`as_dict`). Anything else that escapes is a bug and is logged with its traceback.

    Args:
        message: one sentence that says what is wrong, without a trailing full stop.
        hint: one sentence that says what to do about it; may be empty.
        status: the HTTP status with which a server of ours answers it.
    """

    def __init__(self, message: str, *, hint: str = "", status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = status

    def as_dict(self) -> dict[str, str]:
        """The error as it travels in a JSON answer."""
        return {"message": self.message, "hint": self.hint}
