"""A teacher chooses what a link opens, through a real proxy and hub: request, page, answer, and the link's launch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import jwt
import pytest
import requests
from oauthlib.oauth1 import Client
from oauthlib.oauth1.rfc5849 import signature

from illumidesk.paths import data
from tests.integration.conftest import Stack
from tests.integration.test_lti import add, made, roles_of
from tests.support.lms import LMS, lms
from tests.support.lms_thread import FRAME, WINDOW, Browser, form_of, served
from tests.support.person import Person

RETURN = "https://lms.example.edu/dl/return?course=7&x=a%20b"
DATA = 'csrf:ü "&<7>'
REQUEST_13 = "https://purl.imsglobal.org/spec/lti-dl/claim/deep_linking_settings"
DL = "https://purl.imsglobal.org/spec/lti-dl/claim/"
LTI = "https://purl.imsglobal.org/spec/lti/claim/"
VERSIONS = pytest.mark.parametrize("version", ["1.1", "1.3"])


@pytest.fixture(scope="module")
def stack_settings() -> dict[str, Any]:
    return {"sign_in": {"lti": {"loopback_platforms": True}}}


@pytest.fixture(scope="module")
def platform(stack: Stack) -> Iterator[LMS]:
    with served(lms("moodle", 1, tool=stack.url)) as found:
        add(stack, found, "1.1")
        add(stack, found, "1.3")
        yield found


@pytest.fixture
def browser(stack: Stack) -> Browser:
    return Browser(stack.url)


def ask(browser: Browser, platform: LMS, version: str, who: str = "teacher", **changes: Any) -> requests.Response:
    """Begin to choose, in a frame of the platform's page, without any cookie kept."""
    if version == "1.1":
        fields = {
            "lti_message_type": "ContentItemSelectionRequest",
            "content_item_return_url": RETURN,
            "accept_media_types": "application/vnd.ims.lti.v1.ltilink",
            "accept_presentation_document_targets": "frame,iframe,window",
            "data": DATA,
            "resource_link_id": None,
            "resource_link_title": None,
            "resource_link_description": None,
            **changes,
        }
        answer = browser.launch_11(platform, who, headers=FRAME, **fields)
    else:
        settings = {
            "deep_link_return_url": RETURN,
            "accept_types": ["link", "ltiResourceLink"],
            "accept_presentation_document_targets": ["iframe", "window"],
            "data": DATA,
        }
        claims = {"message_type": "LtiDeepLinkingRequest", REQUEST_13: settings, "resource_link": None, **changes}
        answer = browser.launch_13(platform, who, headers=FRAME, **claims)
    browser.session.cookies.clear()
    answer.encoding = "utf-8"  # which the page itself says, and its header does not
    return answer


def ticket_of(answer: requests.Response) -> str:
    assert answer.status_code == 200, answer.text
    action, fields = form_of(answer.text, "pick")
    assert action == "/hub/lti/pick"
    return fields["ticket"]


def pick(browser: Browser, ticket: str, origin: str | None = "", **typed: str) -> requests.Response:
    headers = {**FRAME, "Origin": browser.url if origin == "" else origin}
    sent = {name: value for name, value in headers.items() if value is not None}
    answer = browser.post("/hub/lti/pick", {"ticket": ticket, **typed}, sent)
    answer.encoding = "utf-8"
    return answer


def signed_11(platform: LMS, fields: Mapping[str, str]) -> str:
    """The signature that the platform finds right."""
    pairs = signature.collect_parameters(uri_query=urlsplit(RETURN).query, body=list(fields.items()))
    text = signature.signature_base_string(
        "POST",
        signature.base_string_uri(RETURN),
        signature.normalize_parameters(pairs),  # type: ignore[arg-type]  # the stub says dict
    )
    return str(signature.sign_hmac_sha1_with_client(text, Client(platform.key, client_secret=platform.secret)))


def items_of(stack: Stack, platform: LMS, version: str, answer: requests.Response) -> list[dict[str, Any]]:
    """What the platform reads in the answer, which it verifies as it must."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    action, fields = form_of(answer.text, "picked")
    assert action == RETURN
    if version == "1.3":
        assert list(fields) == ["JWT"]
        keys = jwt.PyJWKSet.from_dict(requests.get(f"{stack.url}/hub/lti13/jwks", timeout=60).json())
        key = keys[jwt.get_unverified_header(fields["JWT"])["kid"]]
        claims = jwt.decode(
            fields["JWT"], key.key, algorithms=["RS256"], audience=platform.issuer, issuer=platform.client_id
        )
        assert claims[f"{LTI}message_type"] == "LtiDeepLinkingResponse"
        assert claims[f"{LTI}deployment_id"] == platform.deployments[0]
        assert claims[f"{DL}data"] == DATA
        found: list[dict[str, Any]] = claims[f"{DL}content_items"]
        return found
    assert fields["oauth_signature"] == signed_11(platform, fields)
    assert fields["lti_message_type"] == "ContentItemSelection"
    assert fields["data"] == DATA
    graph: list[dict[str, Any]] = json.loads(fields["content_items"])["@graph"]
    return graph


def open_link(stack: Stack, platform: LMS, version: str, who: str, item: Mapping[str, Any]) -> str:
    """Where a launch of the link that the platform stored ends."""
    browser = Browser(stack.url)
    if version == "1.1":
        address, _, query = item["url"].partition("?")
        assert address == f"{stack.url}/hub/lti11/launch"
        custom = {f"custom_{name}": text for name, text in item["custom"].items()}
        answer = browser.launch_11(platform, who, **custom)
        # Canvas keeps the address alone.
        by_address = Browser(stack.url).launch_11(platform, who, query=f"?{query}")
        assert by_address.headers["Location"] == answer.headers["Location"]
    else:
        assert item["url"] == f"{stack.url}/hub/lti13/launch"
        answer = browser.launch_13(platform, who, target_link_uri=item["url"], custom=item["custom"])
    assert answer.status_code == 302, answer.text
    assert browser.name()
    return answer.headers["Location"]


REPOSITORY = "https://git.example.edu/intro/week 1.git".replace(" ", "%20")


@VERSIONS
@pytest.mark.parametrize(
    ("typed", "title", "opens"),
    [
        ({"kind": "workspace", "workspace_type": "lab"}, "JupyterLab", "/hub/workspaces/lab?course=COURSE"),
        ({"kind": "workspace", "workspace_type": "notebook"}, "Notebook", "/hub/workspaces/notebook?course=COURSE"),
        (
            {"kind": "git", "repository": REPOSITORY, "branch": "main", "repository_file": "a b/ü.ipynb"},
            "ü.ipynb",
            f"/hub/user-redirect/git-pull?repo={quote(REPOSITORY, safe='')}&branch=main"
            "&subPath=a%20b%2F%C3%BC.ipynb&app=lab",
        ),
        (
            {"kind": "file", "file": " notes/week 1.ipynb ", "title": "Week «1» & more"},
            "Week «1» & more",
            "/hub/user-redirect/lab/tree/notes/week%201.ipynb",
        ),
    ],
    ids=["lab", "notebook", "git", "file"],
)
def test_a_link_opens_what_was_chosen(
    stack: Stack, platform: LMS, browser: Browser, version: str, typed: dict[str, str], title: str, opens: str
) -> None:
    ticket = ticket_of(ask(browser, platform, version))
    answer = pick(browser, ticket, **typed)
    (item,) = items_of(stack, platform, version, answer)
    assert item["title"] == title
    assert browser.name() == ""
    for who in ("teacher", "student"):
        leads_to = open_link(stack, platform, version, who, item)
        (course,) = parse_qs(urlsplit(leads_to).query).get("course", [""])
        assert leads_to == opens.replace("COURSE", course)
        assert course in made(stack)[1] or "COURSE" not in opens


@VERSIONS
def test_an_assignment_opens_where_each_works_on_it(
    stack: Stack, platform: LMS, browser: Browser, version: str
) -> None:
    browser.launch_11(platform, "teacher") if version == "1.1" else browser.launch_13(platform, "teacher")
    (course,) = roles_of(stack, browser.name())
    for name in ("ps1", "Übung <2>"):
        (stack.paths.exchange / course / "outbound" / name).mkdir(exist_ok=True)
    page = ask(browser, platform, version)
    offered = re.findall(r'<option value="([^"]*)"', page.text[page.text.index('id="released"') :])
    assert offered == ["", "ps1", "Übung &lt;2&gt;"]
    for typed, name in (({"released": "Übung <2>"}, "Übung <2>"), ({"released": "ps1", "assignment": "ps9"}, "ps9")):
        ticket = ticket_of(ask(browser, platform, version))
        (item,) = items_of(stack, platform, version, pick(browser, ticket, kind="assignment", **typed))
        assert item["title"] == name
        assert item["custom"] == {"assignment": name}
        if version == "1.3":
            assert item["lineItem"] == {"scoreMaximum": 100, "label": name, "resourceId": name}
        for who in ("teacher", "ta"):
            target = open_link(stack, platform, version, who, item)
            assert target == f"/services/{course}/lab?formgrader=true"
        target = open_link(stack, platform, version, "student", item)
        parts = urlsplit(target)
        assert parts.path == "/hub/user-redirect/illumidesk/assignment"
        assert parse_qs(parts.query, strict_parsing=True) == {"course": [course], "name": [name]}


def test_a_students_assignment_link_fetches_and_opens_it(stack: Stack, platform: LMS, browser: Browser) -> None:
    """Through the hub, the start of the student's server and its sign-in, to the notebook."""
    config = data("config", "nbgrader", "global_nbgrader_config.py").read_text("utf-8")
    config = config.replace("/srv/nbgrader/exchange", str(stack.paths.exchange))
    (stack.paths.roles / "learner/nbgrader_config.py").write_text(config)
    name = "Übung 1"
    answer = browser.launch_11(platform, "student", custom_assignment=name)
    person = Person(stack.url, browser.name(), session=browser.session)
    ((course, _),) = roles_of(stack, person.name).items()
    released = stack.paths.exchange / course / "outbound" / name
    released.mkdir()
    (released / "problem.ipynb").write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    (stack.paths.exchange / course / "duedates.json").write_text(
        json.dumps({"assignments": {name: "2026-12-01T22:00:00Z"}})
    )
    person.get(answer.headers["Location"])  # the page that waits for the server
    person.wait_ready()
    page = person.get(answer.headers["Location"])
    assert page.status_code == 200, page.text
    assert urlsplit(page.url).path == f"{person.base}lab/tree/{course}/{quote(name)}/problem.ipynb"
    assert (stack.paths.home / person.name / course / name / "problem.ipynb").is_file()
    told = person.server("GET", "illumidesk/duedates")
    assert told == {"courses": {course: {"assignments": {name: "2026-12-01T22:00:00Z"}, "own": []}}}
    # A picture or a script in another site's page counts as nobody's, a link is somebody's click.
    for mode, reaches in (("no-cors", False), ("navigate", True)):
        marks = {"Sec-Fetch-Mode": mode, "Sec-Fetch-Site": "cross-site"}
        link = f"{person.base}illumidesk/assignment?course={course}&name={quote(name)}"
        gone = person.get(link, headers=marks, allow_redirects=False)
        assert gone.headers["Location"].startswith(f"{person.base}lab/tree/") == reaches


def test_a_teachers_assignment_link_reaches_the_grader(stack: Stack, platform: LMS, browser: Browser) -> None:
    answer = browser.launch_11(platform, "teacher", custom_assignment="ps1")
    page = browser.session.get(f"{stack.url}{answer.headers['Location']}", timeout=120, allow_redirects=False)
    assert page.headers["Location"].startswith("/hub/services/")
    shown = browser.session.get(f"{stack.url}{page.headers['Location']}", timeout=120, allow_redirects=False)
    assert shown.status_code in (200, 302), shown.text


def test_an_assignment_without_a_course_opens_the_persons_own_server(platform: LMS, browser: Browser) -> None:
    changes: dict[str, Any] = dict.fromkeys(("context_id", "context_label", "context_title"))
    answer = browser.launch_11(platform, "teacher", custom_assignment="ps1", **changes)
    assert answer.headers["Location"] == "/hub/user-redirect/lab"


def test_an_assignments_name_that_is_none_leaves_nothing(stack: Stack, platform: LMS, browser: Browser) -> None:
    before = made(stack)
    answer = browser.launch_11(platform, user_id="bad-name", custom_assignment="../ps1")
    assert answer.status_code == 400
    assert "not a valid assignment name" in answer.text
    assert made(stack) == before


@VERSIONS
def test_cancelling_gives_nothing(stack: Stack, platform: LMS, browser: Browser, version: str) -> None:
    ticket = ticket_of(ask(browser, platform, version))
    answer = pick(browser, ticket, kind="git", repository="half typ", cancel="1")
    assert items_of(stack, platform, version, answer) == []
    assert pick(browser, ticket, kind="workspace", workspace_type="lab").status_code == 403


# Who may


@VERSIONS
@pytest.mark.parametrize("who", ["student", "ta"])
def test_only_instructors_choose(stack: Stack, platform: LMS, browser: Browser, version: str, who: str) -> None:
    before = made(stack)
    user = {"user_id": f"curious-{who}"} if version == "1.1" else {"sub": f"curious-{who}"}
    answer = ask(browser, platform, version, who, **user)
    assert answer.status_code == 403
    assert "only the instructors of a course" in answer.text.replace("Only", "only")
    assert 'id="pick"' not in answer.text
    assert made(stack) == before


def test_outside_of_a_course_nothing_is_chosen(platform: LMS, browser: Browser) -> None:
    changes: dict[str, Any] = dict.fromkeys(("context_id", "context_label", "context_title"))
    assert ask(browser, platform, "1.1", **changes).status_code == 403
    assert ask(browser, platform, "1.3", context=None).status_code == 403


def test_a_platform_that_wants_no_link_is_told(platform: LMS, browser: Browser) -> None:
    answer = ask(browser, platform, "1.1", accept_media_types="image/*,text/html")
    assert answer.status_code == 400
    assert "something else than a link" in answer.text


# The page


@VERSIONS
def test_the_page_may_be_framed_and_signs_nobody_in(
    stack: Stack, platform: LMS, browser: Browser, version: str
) -> None:
    for headers in (FRAME, WINDOW):
        answer = ask(browser, platform, version) if headers == FRAME else ask(Browser(stack.url), platform, version)
        assert platform.issuer in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"
        assert "session" not in str(answer.headers.get("Set-Cookie"))
    # Every field has a label.
    fields = re.findall(r'<(?:input|select)(?! type="hidden")[^>]*\bid="([^"]+)"', answer.text)
    assert {"kind-workspace", "workspace_type", "kind-git", "repository", "branch", "file", "title"} <= set(fields)
    assert set(fields) <= set(re.findall(r'<label[^>]*for="([^"]+)"', answer.text))
    assert answer.text.count("<fieldset") == answer.text.count("<legend") == 4


def test_what_is_wrong_is_said_and_what_was_typed_stays(stack: Stack, platform: LMS, browser: Browser) -> None:
    ticket = ticket_of(ask(browser, platform, "1.3"))
    wrong: list[tuple[dict[str, str], str]] = [
        ({}, "Nothing is chosen yet"),
        ({"kind": "else"}, "Nothing is chosen yet"),
        ({"kind": "workspace", "workspace_type": "rstudio"}, "no workspace type"),
        ({"kind": "assignment"}, "name is missing"),
        ({"kind": "assignment", "assignment": "../ps1"}, "not a valid assignment name"),
        ({"kind": "git", "repository": 'file:///"><script>'}, "no address of a git repository"),
        ({"kind": "file", "file": "../other/secret.txt"}, "within the folder"),
        ({"kind": "file", "file": "/etc/passwd"}, "without a slash"),
    ]
    for typed, says in wrong:
        answer = pick(browser, ticket, title='"Mine" <1>', **typed)
        assert answer.status_code == 400
        problem = re.search(r'id="problem">(.*?)</p>', answer.text, re.S)
        assert problem is not None
        assert says in problem[1], problem[1]
        _, fields = form_of(answer.text, "pick")
        assert fields["ticket"] == ticket
        assert fields["title"] == '"Mine" <1>'
        for name, value in typed.items():
            if name not in ("kind", "workspace_type"):
                assert fields[name] == value
        if typed.get("kind") in ("assignment", "git", "file"):
            assert re.search(rf'id="kind-{typed["kind"]}"[^>]*checked', answer.text)
    (item,) = items_of(stack, platform, "1.3", pick(browser, ticket, kind="workspace", workspace_type="lab"))
    assert item["title"] == "JupyterLab"


def test_a_ticket_is_good_once_and_for_our_own_page_only(stack: Stack, platform: LMS, browser: Browser) -> None:
    ticket = ticket_of(ask(browser, platform, "1.3"))
    choice = {"kind": "workspace", "workspace_type": "lab"}
    for origin in (None, "null", "https://evil.example", platform.issuer):
        answer = pick(browser, ticket, origin, **choice)
        assert answer.status_code == 403
        assert "did not come from a page of this classroom" in answer.text
    for guess in ("", "x", ticket[:-1], ticket + "x"):
        answer = pick(browser, guess, **choice)
        assert answer.status_code == 403
        assert "opened too long ago" in answer.text
    assert len(items_of(stack, platform, "1.3", pick(browser, ticket, **choice))) == 1
    assert pick(browser, ticket, **choice).status_code == 403
    assert browser.session.get(f"{stack.url}/hub/lti/pick", timeout=60).status_code == 405


def test_without_the_supervisor_a_name_can_still_be_typed(stack: Stack, platform: LMS, browser: Browser) -> None:
    ask(browser, platform, "1.3")
    stack.kill("supervisor")
    try:
        ticket = ticket_of(ask(browser, platform, "1.3"))
        (item,) = items_of(stack, platform, "1.3", pick(browser, ticket, kind="assignment", assignment="ps1"))
        assert item["custom"] == {"assignment": "ps1"}
    finally:
        stack.start("supervisor")


def test_a_platform_that_is_removed_meanwhile_gets_no_answer(stack: Stack, browser: Browser) -> None:
    gone = lms("sakai", 7, tool=stack.url)
    number = add(stack, gone, "1.1")
    ticket = ticket_of(ask(browser, gone, "1.1"))
    stack.expect(200, "DELETE", f"platforms/{number}")
    answer = pick(browser, ticket, kind="workspace", workspace_type="lab")
    assert answer.status_code == 403
    assert "any more" in answer.text


def test_nothing_of_it_is_in_a_log(stack: Stack) -> None:
    text = (stack.logs / "hub.log").read_text()
    assert "Traceback" not in text
    for mark in ("eyJ", "oauth_signature", "csrf:", "zoe+"):
        assert mark not in text
