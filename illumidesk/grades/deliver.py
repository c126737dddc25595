"""One attempt to bring a grade to its platform, by either version of LTI."""

from __future__ import annotations

from datetime import UTC

from illumidesk.grades.sender import WaitError
from illumidesk.lti import ags, outcomes
from illumidesk.lti.services import ServiceError, Services
from illumidesk.registry.grades import NOT_OPENED, Job

#: Two grades that differ by less than this part of the full mark are one: platforms round.
_SAME = 5e-4


async def deliver(services: Services, job: Job) -> None:
    """Send the grade. Where an earlier attempt may have arrived, the platform is asked first.

    Args:
        services: to ask with.
        job: what is to be where.

    Raises:
        ServiceError: where the platform does not take it.
        WaitError: where something else must happen first.
    """
    if job.platform.version == "1.1":
        await _by_outcome(services, job)
    else:
        await _by_score(services, job)


def share_of(score: float, maximum: float) -> float:
    """A score as a part of the full mark, 0 to 1, which is all that LTI 1.1 takes; extra credit is lost in it."""
    return min(1.0, max(0.0, score / maximum))


async def _by_score(services: Services, job: Job) -> None:
    """LTI 1.3: Assignment and Grade Services 2.0."""
    delivery, column, scopes = job.delivery, job.column, job.context.ags_scopes
    if not job.sub:
        raise ServiceError(
            "this student did not come from the LMS, which so knows nobody to give the grade to",
            code="no-identity",
            hint="the student must open a link of the course in the LMS once, or the roster must be fetched from there",
            who="the student",
        )
    if delivery.unsure and _telling(job) and (not scopes or ags.RESULT_SCOPE in scopes):
        result = await ags.result_of(services, job.platform, column.line_item, job.sub, offered=scopes)
        if result is not None and result.score is not None and result.maximum > 0:
            there = abs(result.score / result.maximum - delivery.score / delivery.maximum) < _SAME
            if there and result.comment in ("", delivery.comment):
                return
    score = ags.Score(
        user_id=job.sub,
        score_given=delivery.score,
        score_maximum=delivery.maximum,
        timestamp=delivery.changed.replace(tzinfo=UTC),
        activity_progress="Submitted" if delivery.partial else "Completed",
        grading_progress="PendingManual" if delivery.partial else "FullyGraded",
        comment=delivery.comment,
        # To Canvas a score would otherwise be another attempt of the student, handed in now.
        extra=ags.CANVAS_NO_SUBMISSION,
    )
    try:
        await ags.post_score(services, job.platform, column.line_item, score, offered=scopes)
    except ServiceError as error:
        if error.code == "older" and delivery.unsure:
            # It has the time of the attempt that was cut off: that one arrived.
            return
        raise


async def _by_outcome(services: Services, job: Job) -> None:
    """LTI 1.1: Basic Outcomes."""
    delivery = job.delivery
    if not job.outcome_url:
        raise ServiceError(
            "the link in the LMS takes no grades",
            code="no-outcome",
            hint="allow grades in the link's settings in the LMS, and open it once",
            who="you",
        )
    if not job.sourcedid:
        raise WaitError(
            "the LMS takes a grade only from whoever has opened the link: this student has not yet",
            code=NOT_OPENED,
            hint="the grade goes by itself as soon as the student opens the link",
        )
    share = share_of(delivery.score, delivery.maximum)
    if delivery.unsure and _telling(job):
        try:
            there = await outcomes.read_result(services, job.platform, job.outcome_url, job.sourcedid)
        except ServiceError as error:
            if error.retry:
                raise
            # Not every platform reads; to write the same twice does no harm.
            there = None
        if there is not None and abs(there - share) < _SAME:
            return
    await outcomes.replace_result(services, job.platform, job.outcome_url, job.sourcedid, share)


def _telling(job: Job) -> bool:
    """Whether the grade that the platform has can tell if this one has arrived."""
    before = job.delivery
    if before.sent_score is None or not before.sent_maximum:
        return True
    return abs(before.sent_score / before.sent_maximum - before.score / before.maximum) >= _SAME
