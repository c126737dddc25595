"""Grades by LTI 1.1: Basic Outcomes (LTI 1.1.1, section 6; OAuth Request Body Hash, draft 4)."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Literal
from xml.etree import ElementTree

from defusedxml import ElementTree as SafeElementTree
from oauthlib.oauth1 import Client

from illumidesk.lti.errors import LMS_ADMIN, TOOL_ADMIN, YOU, shown
from illumidesk.lti.launch import one_line
from illumidesk.lti.services import SMALL, Answer, Purpose, ServiceError, Services, bad_address, refusal, unusable
from illumidesk.lti.v11 import Consumer

NAMESPACE = "http://www.imsglobal.org/services/ltiv1p1/xsd/imsoms_v1p0"
#: Digits behind the point of a score; more are of no use to anybody, and some platforms cut them.
DIGITS = 12
#: Seconds after which a platform that is still at it is asked again.
PROCESSING = 60.0

Operation = Literal["replaceResult", "readResult", "deleteResult"]

_GONE = "the LMS does not take grades for this link any more"
_PURPOSES = {
    "replaceResult": Purpose("write grades", "the LMS does not take this grade", _GONE, "column-gone"),
    "readResult": Purpose("read grades", "the LMS does not show this grade", _GONE, "column-gone"),
    "deleteResult": Purpose("take grades away", "the LMS does not take this grade away", _GONE, "column-gone"),
}
#: XML 1.0, section 2.2: what a document can hold.
_CHARACTERS = re.compile("[\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")


async def replace_result(services: Services, consumer: Consumer, url: str, sourcedid: str, score: float) -> None:
    """Send a score (LTI 1.1.1, section 6.1.1).

    Args:
        services: to ask with.
        consumer: whose key signs.
        url: `lis_outcome_service_url`, as the launch brought it.
        sourcedid: `lis_result_sourcedid`, letter by letter.
        score: from 0 to 1.

    Raises:
        ServiceError: where it is not taken.
    """
    if not 0 <= score <= 1:
        raise ServiceError(
            f"LTI 1.1 takes grades from 0 to 1, and this one is {score:g}",
            code="score",
            hint="a grade of more than all points cannot be sent by LTI 1.1",
            who=YOU,
        )
    await _asked(services, consumer, url, "replaceResult", sourcedid, score_text(score))


async def read_result(services: Services, consumer: Consumer, url: str, sourcedid: str) -> float | None:
    """The score that the platform has, from 0 to 1; None where it has none. Otherwise as `replace_result`."""
    answer, root = await _asked(services, consumer, url, "readResult", sourcedid)
    text = _text(root, "textString")
    if not text:
        return None
    if not re.fullmatch(r"\d{1,9}(\.\d{1,99})?|\.\d{1,99}", text, re.ASCII):
        raise unusable(answer, f"its score is {shown(text)!r}")
    return float(text)


async def delete_result(services: Services, consumer: Consumer, url: str, sourcedid: str) -> None:
    """Take the score away. Otherwise as `replace_result`."""
    await _asked(services, consumer, url, "deleteResult", sourcedid)


def score_text(score: float) -> str:
    """A score as plain decimal digits, never with an exponent."""
    # Not -0.
    return f"{Decimal(repr(round(float(score), DIGITS) + 0.0)):f}"


def request_xml(operation: Operation, sourcedid: str, score: str | None = None, *, message: str) -> bytes:
    """What is sent (LTI 1.1.1, section 6.1).

    Args:
        operation: what is asked for.
        sourcedid: letter by letter.
        score: decimal digits, for `replaceResult`.
        message: its id.

    Raises:
        ServiceError: where XML cannot hold the sourcedid.
    """
    if not _CHARACTERS.fullmatch(sourcedid):
        raise ServiceError(
            "the LMS's name for this student's grade (lis_result_sourcedid) holds characters that it cannot be sent "
            "back with"
            if sourcedid
            else "the LMS has not said where this student's grade belongs (lis_result_sourcedid)",
            code="sourcedid",
            hint="the link must be graded in the LMS, and the student must open it there",
        )

    def add(parent: ElementTree.Element, *tags: str) -> ElementTree.Element:
        for tag in tags:
            parent = ElementTree.SubElement(parent, f"{{{NAMESPACE}}}{tag}")
        return parent

    root = ElementTree.Element(f"{{{NAMESPACE}}}imsx_POXEnvelopeRequest")
    header = add(root, "imsx_POXHeader", "imsx_POXRequestHeaderInfo")
    add(header, "imsx_version").text = "V1.0"
    add(header, "imsx_messageIdentifier").text = message
    record = add(root, "imsx_POXBody", f"{operation}Request", "resultRecord")
    add(record, "sourcedGUID", "sourcedId").text = sourcedid
    if score is not None:
        result = add(record, "result", "resultScore")
        add(result, "language").text = "en"
        add(result, "textString").text = score
    document: bytes = ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True, default_namespace=NAMESPACE)
    # Whoever reads a bare CR reads an LF (XML 1.0, section 2.11), and ElementTree writes it bare.
    return document.replace(b"\r", b"&#13;")


async def _asked(
    services: Services,
    consumer: Consumer,
    url: str,
    operation: Operation,
    sourcedid: str,
    score: str | None = None,
) -> tuple[Answer, ElementTree.Element]:
    """The answer to a request that succeeded."""
    document = request_xml(operation, sourcedid, score, message=uuid.uuid4().hex)

    def signed() -> dict[str, str]:
        client = Client(consumer.key, client_secret=consumer.secret)
        kind = {"Content-Type": "application/xml"}
        try:
            # oauthlib adds oauth_body_hash to whatever is no form.
            _, headers, _ = client.sign(url, "POST", body=document.decode(), headers=kind)
        except ValueError as error:
            raise bad_address(url, shown(error, 100)) from None
        return dict(headers)

    writing = operation != "readResult"
    answer = await services.exchange("POST", url, headers=signed, data=document, most=SMALL, writing=writing)
    root = _parsed(answer.body)
    major = "" if root is None else _text(root, "imsx_codeMajor").casefold()
    if root is None or not major:
        raise _no_outcome(answer, _PURPOSES[operation], writing, root is not None)
    if major == "success":
        return answer, root
    raise _failure(answer, major, _said(root, sourcedid), _PURPOSES[operation], writing)


def _parsed(body: bytes) -> ElementTree.Element | None:
    """The document, whatever media type it says; None where it is none."""
    try:
        root: ElementTree.Element = SafeElementTree.fromstring(body.strip(), forbid_dtd=True)
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError):
        return None
    return root


def _named(root: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """The elements of that name in whatever namespace: not every platform has the right one, or any."""
    for element in root.iter():
        if isinstance(element.tag, str) and element.tag.rpartition("}")[2].casefold() == name.casefold():
            yield element


def _text(root: ElementTree.Element, name: str) -> str:
    return next((element.text.strip() for element in _named(root, name) if element.text), "")


def _said(root: ElementTree.Element, sourcedid: str) -> str:
    text = re.sub(r"<[^<>]*>", " ", _text(root, "imsx_description"))
    # Some say in it what they were sent, and a sourcedid holds words.
    text = text.replace(sourcedid, "")
    return " ".join(one_line(" ".join(text.split()), 200).split()).rstrip(". ")


def _no_outcome(answer: Answer, purpose: Purpose, writing: bool, xml: bool) -> ServiceError:
    if 200 <= answer.status < 300:
        why = "it is XML without an outcome" if xml else "it is no XML" if answer.body.strip() else "it is empty"
        return unusable(answer, why, unsure=writing)
    error = refusal(answer, purpose, writing=writing)
    return _distrusted(error) if answer.status == 401 else error


def _failure(answer: Answer, major: str, said: str, purpose: Purpose, writing: bool) -> ServiceError:
    """The error for an outcome that is none: what LMSs say of it has no codes, only words."""
    if purpose is not _PURPOSES["replaceResult"] and "textString" in said:
        # Open edX takes scores and does nothing else: it looks for one in whatever comes, and says what came.
        major, said = "unsupported", ""
    because = f": {said}" if said else ""
    error = ServiceError(f"{purpose.refused}{because}", code="refused")
    if major == "processing":
        error = ServiceError(
            f"the LMS is still at it{because}", code="processing", retry=True, unsure=writing, after=PROCESSING
        )
    elif major == "unsupported":
        error = ServiceError(f"the LMS cannot {purpose.does} by LTI 1.1{because}", code="unsupported")
    elif answer.status == 429 or answer.status >= 500:
        error = refusal(answer, purpose, writing=writing)
    elif answer.status == 401 or re.search(r"signature|oauth|consumer|nonce|body ?hash", said, re.I):
        error = _distrusted(error, because)
    elif re.search(r"\b(user|student|learner|person|enrol)", said, re.I):
        error = ServiceError(
            f"the LMS does not know this student any more, or as nobody who is graded{because}",
            code="user-gone",
            hint="whoever has left the course there gets no grade; who has not opens the link there again",
            who=f"{YOU}, where the student is still in the course, and {LMS_ADMIN}",
        )
    elif re.search(r"source.?d?.?id", said, re.I):
        error = ServiceError(
            f"the LMS does not know this student, or this link, any more{because}",
            code="gone",
            hint="the student must open the link in the LMS again",
            who=f"{YOU}, and {LMS_ADMIN}",
        )
    elif re.search(r"no longer|not found|deleted|available|does not exist|is invalid", said, re.I):
        error = ServiceError(f"{_GONE}{because}", code="column-gone", hint="open the link in the course again")
    error.answered = answer.status
    error.said = said
    error.detail = f"{answer.status}, {shown(major)}, of {shown(answer.url, 200)}{because}"
    return error


def _distrusted(error: ServiceError, because: str = "") -> ServiceError:
    return ServiceError(
        f"the LMS does not believe that this tool sent the grade{because}",
        code="signature",
        hint="the shared secret must be the same in the LMS and here, and the clocks of both must agree",
        who=f"{LMS_ADMIN} and {TOOL_ADMIN}",
        detail=error.detail,
        answered=error.answered,
        said=error.said,
    )
