"""Launches by LTI 1.1 and 1.3 through a real proxy into a real hub."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from urllib.parse import quote

import pytest
import requests

from tests.integration.conftest import Stack
from tests.support.lms import LMS, lms
from tests.support.lms_thread import FRAME, WINDOW, Browser, form_of, served
from tests.support.person import Person, Refused


@pytest.fixture(scope="module")
def stack_settings() -> dict[str, Any]:
    return {"sign_in": {"lti": {"loopback_platforms": True}}}


def add(stack: Stack, platform: LMS, version: str) -> int:
    body: dict[str, Any] = {"name": f"{platform.brand} {platform.id} {version}", "version": version}
    if version == "1.1":
        body |= {"key": platform.key, "secret": platform.secret}
    else:
        body |= {
            "issuer": platform.issuer,
            "client_id": platform.client_id,
            "auth_url": platform.auth_url,
            "jwks_url": platform.jwks_url,
            "token_url": platform.services.token_url if platform.services else "",
            "deployments": platform.deployments,
        }
    return int(stack.expect(201, "POST", "platforms", body)["id"])


@pytest.fixture(scope="module")
def moodle(stack: Stack) -> Iterator[LMS]:
    with served(lms("moodle", 1, tool=stack.url)) as platform:
        add(stack, platform, "1.1")
        add(stack, platform, "1.3")
        yield platform


@pytest.fixture(scope="module")
def canvas(stack: Stack) -> Iterator[LMS]:
    with served(lms("canvas", 2, tool=stack.url)) as platform:
        add(stack, platform, "1.1")
        add(stack, platform, "1.3")
        yield platform


@pytest.fixture
def browser(stack: Stack) -> Browser:
    return Browser(stack.url)


def made(stack: Stack) -> tuple[set[str], set[str]]:
    """Names and course ids."""
    return (
        {one["name"] for one in stack.manage("GET", "users")[1]["users"]},
        {one["course_id"] for one in stack.manage("GET", "courses")[1]["courses"]},
    )


def roles_of(stack: Stack, name: str) -> dict[str, str]:
    person = stack.expect(200, "GET", f"users/{name}")
    return {one["course_id"]: one["role"] for one in person["courses"]}


@pytest.mark.parametrize("version", ["1.1", "1.3"])
def test_a_class_of_two_platforms(stack: Stack, moodle: LMS, canvas: LMS, version: str) -> None:
    """The same course label and the same e-mail names on two platforms are different courses and people."""
    seen = {}
    for platform in (moodle, canvas):
        for who in ("teacher", "ta", "student"):
            browser = Browser(stack.url)
            launch = browser.launch_11 if version == "1.1" else browser.launch_13
            answer = launch(platform, who)
            assert answer.status_code == 302, answer.text
            assert answer.headers["Location"] == "/hub/spawn"
            seen[platform.brand, who] = browser.name()
            again = Browser(stack.url)
            launch = again.launch_11 if version == "1.1" else again.launch_13
            launch(platform, who)
            assert again.name() == seen[platform.brand, who]
    assert len(set(seen.values())) == 6
    courses = {brand: roles_of(stack, seen[brand, "teacher"]) for brand in ("moodle", "canvas")}
    (of_moodle,), (of_canvas,) = courses["moodle"], courses["canvas"]
    assert of_moodle != of_canvas
    for brand, course in (("moodle", of_moodle), ("canvas", of_canvas)):
        for who, role in (("teacher", "instructor"), ("ta", "ta"), ("student", "student")):
            assert roles_of(stack, seen[brand, who]) == {course: role}


def test_a_role_that_is_taken_away_is_gone_at_the_next_launch(stack: Stack, canvas: LMS, browser: Browser) -> None:
    browser.launch_11(canvas, "teacher", user_id="demoted", context_id="demotion")
    name = browser.name()
    (course,) = roles_of(stack, name)
    person = Person(stack.url, name, session=browser.session)
    assert person.get(f"/hub/services/{course}/", allow_redirects=False).status_code == 200
    browser.launch_11(canvas, "student", user_id="demoted", context_id="demotion")
    assert roles_of(stack, name) == {course: "student"}
    assert person.get(f"/hub/services/{course}/", allow_redirects=False).status_code == 403


def test_without_a_context_there_is_no_course(stack: Stack, canvas: LMS, browser: Browser) -> None:
    before = made(stack)[1]
    changes = dict.fromkeys(("context_id", "context_label", "context_title"))
    assert browser.launch_11(canvas, "teacher", user_id="alone", **changes).status_code == 302
    assert roles_of(stack, browser.name()) == {}
    assert made(stack)[1] == before


def test_a_course_made_here_is_not_taken_over(stack: Stack, canvas: LMS, browser: Browser) -> None:
    stack.expect(201, "POST", "courses", {"course_id": "precious"})
    browser.launch_11(canvas, "teacher", user_id="t9", context_id="c9", context_label="Precious")
    assert roles_of(stack, browser.name()) == {"precious-2": "instructor"}


def test_an_account_of_the_machine_is_not_taken_over(stack: Stack, canvas: LMS) -> None:
    for login in ("root", "daemon", "grader-moodle", "jupyter-x", "illumidesk-hub"):
        browser = Browser(stack.url)
        fields = {"custom_canvas_user_login_id": login, "lis_person_contact_email_primary": f"{login}@example.edu"}
        assert browser.launch_11(canvas, user_id=f"as-{login}", **fields).status_code == 302
        assert browser.name() not in ("", login)


def test_nobody_from_a_platform_gets_a_password(stack: Stack, canvas: LMS, browser: Browser) -> None:
    browser.launch_11(canvas, user_id="nopass")
    with pytest.raises(Refused) as refused:
        Person(stack.url, browser.name()).sign_in()
    assert "Invalid username or password" in str(refused.value)


def test_somebody_removed_stays_out_until_brought_back(stack: Stack, canvas: LMS, browser: Browser) -> None:
    browser.launch_11(canvas, user_id="removed")
    name = browser.name()
    stack.expect(200, "DELETE", f"users/{name}")
    answer = browser.launch_11(canvas, user_id="removed")
    assert answer.status_code == 403
    assert f"account {name} was removed" in answer.text
    stack.expect(201, "POST", "users", {"name": name, "restore": True})
    assert browser.launch_11(canvas, user_id="removed").status_code == 302
    assert browser.name() == name


# Where next


@pytest.mark.parametrize(
    "target",
    [
        "/hub/user-redirect/git-pull?repo=https%3A%2F%2Fgit.example%2Fa%20b.git&branch=main&subPath=x%2Fy.ipynb&app=lab",
        "/hub/user-redirect/lab/tree/%C3%BCbung.ipynb?a=1&a=2#cell",
    ],
)
def test_where_next_survives_exactly(stack: Stack, moodle: LMS, target: str) -> None:
    for where in ({"query": f"?next={quote(target, safe='')}"}, {"next": target}, {"custom_next": stack.url + target}):
        answer = Browser(stack.url).launch_11(moodle, **where)
        assert answer.headers["Location"] == target
    for claims in (
        {"target_link_uri": stack.url + target},
        {"target_link_uri": f"{stack.url}/hub/lti13/launch?next={quote(target, safe='')}"},
        {"custom": {"next": target}},
    ):
        answer = Browser(stack.url).launch_13(moodle, **claims)
        assert answer.headers["Location"] == target


@pytest.mark.parametrize(
    "target", ["//evil.example/", "https://evil.example", "/\\evil.example", "javascript:alert(1)"]
)
def test_nobody_is_led_to_another_host(stack: Stack, moodle: LMS, target: str) -> None:
    before = made(stack)
    for answer in (
        Browser(stack.url).launch_11(moodle, user_id="off", next=target),
        Browser(stack.url).launch_11(moodle, user_id="off", query=f"?next={quote(target, safe='')}"),
        Browser(stack.url).launch_13(moodle, sub="off", custom={"next": target}),
        Browser(stack.url).launch_13(moodle, sub="off", target_link_uri=target),
    ):
        assert answer.status_code == 400
        assert "Location" not in answer.headers
        assert "no page of this classroom" in answer.text
    assert made(stack) == before


# In a frame


def test_in_a_frame_a_page_offers_a_window(stack: Stack, canvas: LMS, browser: Browser) -> None:
    return_url = "https://school.canvas.example/courses/1"
    answer = browser.launch_11(
        canvas, headers={**FRAME, "Origin": "https://frames.canvas.example"}, launch_presentation_return_url=return_url
    )
    assert answer.status_code == 200
    assert "session" not in str(answer.headers.get("Set-Cookie"))
    policy = answer.headers["Content-Security-Policy"]
    for origin in ("'self'", "https://school.canvas.example", "https://frames.canvas.example"):
        assert f" {origin}" in policy
    assert "*" not in policy
    action, fields = form_of(answer.text, "window")
    assert browser.name() == ""
    stranger = Browser(stack.url)
    for origin in ({}, {"Origin": "null"}, {"Origin": "https://evil.example"}):
        assert stranger.post(action, fields, {**WINDOW, **origin}).status_code == 403
    answer = browser.post(action, fields, {**WINDOW, "Origin": stack.url})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/hub/spawn")
    assert browser.name()
    again = stranger.post(action, fields, {**WINDOW, "Origin": stack.url})
    assert again.status_code == 403
    assert "opened already" in again.text
    # People's pages stay where they are.
    assert "frame-ancestors 'none'" in browser.session.get(f"{stack.url}/hub/home").headers["Content-Security-Policy"]


def test_where_cookies_are_withheld_the_login_goes_on_in_a_window(stack: Stack, moodle: LMS, browser: Browser) -> None:
    query = browser.login_13(moodle, headers=FRAME)
    browser.session.cookies.clear()
    answer = browser.post("/hub/lti13/launch", moodle.answer(query), FRAME)
    assert answer.status_code == 200
    action, fields = form_of(answer.text)
    assert action == "/hub/lti13/login"
    assert fields == moodle.login_request(target_link_uri=f"{stack.url}/hub/lti13/launch")
    assert browser.launch_13(moodle).status_code == 302
    assert browser.name()


def test_where_cookies_are_withheld_the_platform_keeps_the_proof(stack: Stack, moodle: LMS, browser: Browser) -> None:
    parameters = moodle.login_request(target_link_uri=f"{stack.url}/hub/lti13/launch", lti_storage_target="_parent")
    page = browser.session.get(f"{stack.url}/hub/lti13/login", params=parameters, headers=FRAME)
    kept = dict(_js_values(page.text))
    browser.session.cookies.clear()
    asked = _query(kept["url"])
    form = moodle.answer(asked)
    answer = browser.post("/hub/lti13/launch", form, FRAME)
    assert answer.status_code == 200
    _, fields = form_of(answer.text, "stored")
    fields["proof"] = kept["proof"]
    for origin in ({}, {"Origin": "https://evil.example"}):
        assert browser.post("/hub/lti13/launch", fields, {**FRAME, **origin}).status_code == 403
    forged = {**fields, "proof": kept["proof"][:-4] + "AAAA"}
    assert "stored" not in browser.post("/hub/lti13/launch", forged, {**FRAME, "Origin": stack.url}).text
    answer = browser.post("/hub/lti13/launch", fields, {**FRAME, "Origin": stack.url})
    assert answer.status_code == 200
    assert form_of(answer.text, "window")


def _js_values(page: str) -> Iterator[tuple[str, str]]:
    import json
    import re

    found = re.search(r"location\.replace\((\"[^\"]*\")\)", page)
    assert found, page
    yield "url", json.loads(found[1])
    found = re.search(r"value: (\"[^\"]*\")", page)
    assert found, page
    yield "proof", json.loads(found[1])


def _query(url: str) -> dict[str, str]:
    from urllib.parse import parse_qsl, urlsplit

    return dict(parse_qsl(urlsplit(url).query))


# What is not to be believed


def test_what_is_refused_leaves_nothing(stack: Stack, moodle: LMS, canvas: LMS) -> None:
    before = made(stack)
    browser = Browser(stack.url)
    url = f"{stack.url}/hub/lti11/launch"
    fields = moodle.fields(user_id="evil", context_id="evil")
    forms = [
        {},
        fields,
        moodle.signed(fields, url, secret="wrong secret here"),
        moodle.signed(fields, url, now=1000),
        moodle.signed(fields, "https://elsewhere.example/hub/lti11/launch"),
        {**moodle.signed(fields, url), "roles": "Instructor"},
        {**moodle.signed(fields, url), "oauth_consumer_key": canvas.key},
    ]
    for form in forms:
        answer = browser.post(url, form)
        assert answer.status_code in (400, 403), answer.text
        assert "Sign-in did not work" in answer.text
    others_state = Browser(stack.url).login_13(moodle)
    assert browser.post("/hub/lti13/launch", moodle.answer(others_state, sub="evil")).status_code == 403
    # A launch that canvas signed does not answer a login for moodle.
    query = browser.login_13(moodle)
    assert browser.post("/hub/lti13/launch", canvas.answer(query, sub="evil")).status_code == 403
    for form in ({}, {"state": "x"}, {"state": "x", "id_token": "y"}, {"error": "login_required", "state": "x"}):
        assert browser.post("/hub/lti13/launch", form).status_code in (400, 403)
    assert browser.name() == ""
    assert made(stack) == before


@pytest.mark.parametrize("version", ["1.1", "1.3"])
def test_a_launch_is_good_once(stack: Stack, moodle: LMS, browser: Browser, version: str) -> None:
    if version == "1.1":
        url = f"{stack.url}/hub/lti11/launch"
        form = moodle.signed(moodle.fields(), url)
    else:
        url = "/hub/lti13/launch"
        form = moodle.answer(browser.login_13(moodle))
    cookies = browser.session.cookies.copy()
    assert browser.post(url, form).status_code == 302
    thief = Browser(stack.url)
    thief.session.cookies.update(cookies)
    answer = thief.post(url, form)
    assert answer.status_code == 403
    assert "used already" in answer.text
    assert thief.name() == ""


def test_what_strangers_say_of_the_address_is_not_believed(stack: Stack, moodle: LMS, browser: Browser) -> None:
    """A form that was signed for another host is refused, whatever the request says of forwarding."""
    elsewhere = "https://elsewhere.example/hub/lti11/launch"
    form = moodle.signed(moodle.fields(user_id="spoof"), elsewhere)
    for headers in (
        {"X-Forwarded-Host": "elsewhere.example", "X-Forwarded-Proto": "https"},
        {"Forwarded": "host=elsewhere.example;proto=https"},
        {"X-Original-Host": "elsewhere.example", "X-Scheme": "https"},
    ):
        assert browser.post("/hub/lti11/launch", form, {**WINDOW, **headers}).status_code == 403


def test_forms_that_are_too_large_or_odd(stack: Stack, browser: Browser) -> None:
    for body, kind in (
        (b"a=" + b"x" * (1 << 20), "application/x-www-form-urlencoded"),
        (b"a=" + b"x" * (50 << 20), "application/x-www-form-urlencoded"),
        (b"a=1&a=2", "application/x-www-form-urlencoded"),
        (b"user_id=%ff%fe", "application/x-www-form-urlencoded"),
        (b"{}", "application/json"),
        (b"--x\r\n", "multipart/form-data; boundary=x"),
    ):
        answer = browser.session.post(
            f"{stack.url}/hub/lti11/launch", data=body, headers={"Content-Type": kind}, timeout=60
        )
        assert answer.status_code in (400, 413), answer.text
        assert "Traceback" not in answer.text
    assert "Traceback" not in stack.log("hub")


def test_a_login_keeps_no_more_than_it_needs(stack: Stack, moodle: LMS, browser: Browser) -> None:
    parameters = moodle.login_request(lti_message_hint="x" * 10_000)
    answer = browser.post("/hub/lti13/login", parameters)
    assert answer.status_code == 413
    query = browser.login_13(moodle, headers=FRAME, other="x" * 2000)
    browser.session.cookies.clear()
    answer = browser.post("/hub/lti13/launch", moodle.answer(query), FRAME)
    assert "other" not in form_of(answer.text)[1]


def test_the_page_names_the_log_line(stack: Stack, moodle: LMS, browser: Browser) -> None:
    url = f"{stack.url}/hub/lti11/launch"
    answer = browser.post(url, moodle.signed(moodle.fields(), url, now=1_000_000_000))
    assert "old" in answer.text
    assert "Who can mend it" in answer.text
    incident = answer.text.split("<code>")[1].split("</code>")[0]
    assert f"LTI {incident} refused: stale" in stack.log("hub")


def test_a_platform_that_was_removed_is_not_believed(stack: Stack) -> None:
    gone = lms("sakai", 7, tool=stack.url)
    number = add(stack, gone, "1.1")
    browser = Browser(stack.url)
    assert browser.launch_11(gone).status_code == 302
    stack.expect(200, "DELETE", f"platforms/{number}")
    answer = browser.launch_11(gone)
    assert answer.status_code == 403
    assert "does not know the consumer key" in answer.text


def test_a_platform_without_answer_holds_nobody_up(stack: Stack) -> None:
    with served(lms("blackboard", 8, tool=stack.url)) as slow:
        add(stack, slow, "1.3")
        slow.misbehaviour = "hang"
        answers: list[requests.Response] = []
        waiting = threading.Thread(target=lambda: answers.append(Browser(stack.url).launch_13(slow)))
        waiting.start()
        while slow.asked == 0:
            assert requests.get(f"{stack.url}/hub/health", timeout=60).ok
        served_meanwhile = 0
        while not answers:
            assert requests.get(f"{stack.url}/hub/health", timeout=60).ok
            served_meanwhile += 1
        waiting.join()
    assert served_meanwhile > 20
    assert answers[0].status_code == 502
    assert "keys of the learning management system cannot be had" in answers[0].text


# What a launch does not wait for


def on_host(stack: Stack, course: str) -> set[str]:
    """Who is in the course's group on the host."""
    return set(json.loads((stack.paths.state / "test-accounts" / f"nbgrader-{course}").read_text()))


def test_a_launch_does_not_wait_for_the_host(stack: Stack, moodle: LMS) -> None:
    """The account follows, at the latest before the person's server starts; also for a hub that was killed between."""
    fields = {"context_id": "nowait", "context_label": "No wait"}
    Browser(stack.url).launch_11(moodle, "teacher", user_id="nowait-0", **fields)
    stack.terminate("supervisor")
    names = []
    for number in (1, 2):
        browser = Browser(stack.url)
        assert browser.launch_11(moodle, user_id=f"nowait-{number}", **fields).status_code == 302
        names.append(browser.name())
        assert roles_of(stack, names[-1]) == {"no-wait": "student"}
    assert not on_host(stack, "no-wait") & set(names)
    stack.kill("hub")
    stack.start("supervisor")
    stack.start("hub")
    person = Person(stack.url, names[0], session=browser.session)
    browser.launch_11(moodle, user_id="nowait-1", **fields)
    person.start_server()
    assert names[0] in on_host(stack, "no-wait")
    # Whoever never came to the host leaves like anybody else.
    assert names[1] not in on_host(stack, "no-wait")
    stack.expect(200, "DELETE", f"courses/no-wait/members/{names[1]}")
    stack.expect(200, "DELETE", f"users/{names[1]}")
    # A server that runs finds its person in a course that came later.
    browser.launch_11(moodle, user_id="nowait-1", context_id="nowait-b", context_label="No wait b")
    assert names[0] in on_host(stack, "no-wait-b")
    stack.manage("POST", f"users/{names[0]}/stop")


def test_who_comes_again_changes_nothing_but_the_nonces(stack: Stack, moodle: LMS) -> None:
    def contents() -> dict[str, Any]:
        tables: dict[str, Any] = {}
        for name in ("illumidesk.sqlite", "jupyterhub.sqlite"):
            with closing(sqlite3.connect(stack.paths.hub_state / name)) as database:
                listed = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
                for (table,) in listed:
                    tables[table] = database.execute(f"SELECT * FROM {table}").fetchall()
        return tables

    launches = (lambda b: b.launch_11(moodle, user_id="again"), lambda b: b.launch_13(moodle, sub="again"))
    for launch in launches:
        launch(Browser(stack.url))
        before = contents()
        for _ in range(3):
            assert launch(Browser(stack.url)).status_code == 302
        after = contents()
        assert len(after.pop("nonces")) == len(before.pop("nonces")) + 3
        assert after == before


# A crowd


def test_fifty_first_launches_of_one_course_together(stack: Stack, moodle: LMS) -> None:
    people, courses = made(stack)

    def launch(number: int) -> str:
        browser = Browser(stack.url)
        # One e-mail name for all: names must still be different.
        fields = {"context_id": "crowd", "context_label": "Crowd", "lis_person_contact_email_primary": "jo@example.edu"}
        answer = browser.launch_11(moodle, user_id=f"crowd-{number}", ext_user_username=None, **fields)
        assert answer.status_code == 302, answer.text
        return browser.name()

    with ThreadPoolExecutor(25) as pool:
        names = list(pool.map(launch, range(50)))
    assert len(set(names)) == 50
    now = made(stack)
    assert now[0] - people == set(names)
    assert now[1] - courses == {"crowd"}
    members = stack.expect(200, "GET", "courses/crowd")["members"]
    assert {one["name"] for one in members} == set(names)


def test_two_thousand_launches_make_what_they_say(stack: Stack, moodle: LMS, canvas: LMS) -> None:
    """100 people of 2 platforms in 5 courses each, each of them twice, in any order."""
    people, courses = made(stack)
    platforms = (moodle, canvas)

    def launch(number: int) -> None:
        person, course, platform = number % 100, number // 100 % 5, platforms[number // 500 % 2]
        fields = {"user_id": f"many-{person}", "context_id": f"many-{course}", "context_label": f"Many {course}"}
        answer = requests.post(
            f"{stack.url}/hub/lti11/launch",
            data=platform.signed(platform.fields(**fields), f"{stack.url}/hub/lti11/launch"),
            headers=WINDOW,
            allow_redirects=False,
            timeout=120,
        )
        assert answer.status_code == 302, answer.text

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(launch, range(2000)))
    now = made(stack)
    assert len(now[0] - people) == 200
    assert now[1] - courses == {f"many-{n}{tail}" for n in range(5) for tail in ("", "-2")}
    for course in now[1] - courses:
        assert len(stack.expect(200, "GET", f"courses/{course}")["members"]) == 100


def test_no_secret_is_in_a_log(stack: Stack, moodle: LMS, canvas: LMS) -> None:
    for name in ("hub", "proxy", "supervisor"):
        text = (stack.logs / f"{name}.log").read_text()
        for platform in (moodle, canvas):
            assert platform.secret not in text
        for mark in ("eyJ", "id_token", "oauth_signature", "zoe+"):
            assert mark not in text
