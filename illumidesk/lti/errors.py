"""Why a launch is refused, in words for the person in front of it."""

from __future__ import annotations

from illumidesk.errors import IllumiDeskError

#: Who can mend what is wrong.
LMS_ADMIN = "the administrator of the learning management system"
TOOL_ADMIN = "the administrator of this classroom"
TEACHER = "your teacher"
YOU = "you"


class LTIError(IllumiDeskError):
    """A message of a platform that is not believed, or cannot be answered.

    Args:
        message: one sentence for the person, without a full stop; never a secret, and nothing of the message that
            has not been verified but short, printable words.
        code: a stable word for logs and tests.
        hint: what to do.
        who: who can mend it, one of the above.
        detail: what the log says besides; no secret either.
        status: the HTTP status of the page.
    """

    def __init__(
        self, message: str, *, code: str, hint: str = "", who: str = LMS_ADMIN, detail: str = "", status: int = 403
    ) -> None:
        super().__init__(message, hint=hint, status=status)
        self.code = code
        self.who = who
        self.detail = detail


def shown(value: object, longest: int = 60) -> str:
    """A stranger's text as it may stand in a message: one printable line, cut."""
    text = "".join(char if char.isprintable() else "?" for char in str(value)[: longest + 1])
    return text if len(text) <= longest else text[:longest] + "…"


def clock_problem(seconds: float, what: str) -> LTIError:
    """The error for a message whose time is too far from this machine's.

    Args:
        seconds: this machine's time minus the message's.
        what: what was sent: `launch`.
    """
    span = _span(abs(seconds))
    if seconds > 0:
        return LTIError(
            f"the {what} is {span} old: it was kept too long, or the clock of this classroom is ahead of "
            "the one of the learning management system",
            code="stale",
            hint="go back to the course and click the link again; where that does not help, the clocks differ",
            who=f"{TOOL_ADMIN}, who can compare the clocks",
        )
    return LTIError(
        f"the {what} comes from {span} in the future: the clock of this classroom is behind the one of the "
        "learning management system, or that one is ahead",
        code="future",
        hint="the clocks of both machines must agree",
        who=f"{TOOL_ADMIN}, who can compare the clocks",
    )


def _span(seconds: float) -> str:
    for unit, length in (("day", 86400), ("hour", 3600)):
        if seconds >= 2 * length:
            return f"{round(seconds / length)} {unit}s"
    minutes = max(1, round(seconds / 60))
    return f"{minutes} minute{'' if minutes == 1 else 's'}"
