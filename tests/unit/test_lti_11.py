"""LTI 1.1: what is believed, what is refused and leaves nothing, and what a launch says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oauthlib.oauth1 import SIGNATURE_TYPE_BODY, Client

from illumidesk.lti import v11
from illumidesk.lti.errors import LTIError
from illumidesk.lti.launch import Launch, role_of
from illumidesk.registry import Registry
from illumidesk.settings import LTI_ROLES
from tests.support.lms import BRANDS, INSTITUTION, LMS, MEMBERSHIP, SYSTEM, Brand, Who, lms

OWN = "https://hub.example.edu"
URL = f"{OWN}/hub/lti11/launch"
NOW = 1_790_000_000.0
SECRET = "correct+horse&battery%"
ROLE = {"teacher": "instructor", "ta": "ta", "student": "student"}
OAUTH = ("consumer_key", "signature_method", "timestamp", "nonce", "version", "callback", "signature")

Verify = Callable[..., Launch]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry.sqlite")


@pytest.fixture
def platform(registry: Registry) -> LMS:
    number = registry.add_platform("LMS", "1.1", key="key-of-canvas", secret=SECRET)[0].id
    return LMS(id=number, secret=SECRET)


@pytest.fixture
def verify(registry: Registry) -> Verify:
    """Verify a form by the real registry, at `NOW`."""

    def run(form: dict[str, str], url: str = URL, *, now: float = NOW, own: str = OWN) -> Launch:
        return v11.verify(
            form, url, consumers=registry.platform_by_key, nonces=registry, roles=LTI_ROLES, own=own, now=now
        )

    return run


@pytest.fixture
def refused(registry: Registry, verify: Verify, platform: LMS, caplog: pytest.LogCaptureFixture) -> Any:
    """The code with which a form is refused, where that leaves nothing and tells no secret."""

    def run(form: dict[str, str], url: str = URL, **options: Any) -> str:
        caplog.set_level(logging.DEBUG)
        caplog.clear()  # of what signing said
        before = kept(registry)
        with pytest.raises(LTIError) as caught:
            verify(form, url, **options)
        error = caught.value
        assert kept(registry) == before
        assert error.message
        assert error.who
        told = f"{error.message} {error.hint} {error.detail} {error.who} {caplog.text}"
        assert platform.secret not in told
        assert "POST&" not in told
        assert "zoe" not in told
        return error.code

    return run


def kept(registry: Registry) -> int:
    with registry.engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM nonces").scalar_one())


def rfc5849(fields: list[tuple[str, str]], url: str, secret: str) -> str:
    """Section 3.4 once more, without oauthlib. `url` is as section 3.4.1.2 wants it, `fields` hold its query."""
    pairs = sorted((quote(name, "~"), quote(value, "~")) for name, value in fields)
    text = "&".join(quote(part, "~") for part in ("POST", url, "&".join(f"{name}={value}" for name, value in pairs)))
    return base64.b64encode(hmac.new(f"{quote(secret, '~')}&".encode(), text.encode(), hashlib.sha1).digest()).decode()


def without_signature(form: dict[str, str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in form.items() if name != "oauth_signature"]


# OAuth


def test_a_good_launch_is_believed_once(registry: Registry, platform: LMS, verify: Verify, refused: Any) -> None:
    form = platform.signed(now=NOW)
    launch = verify(form)
    assert (launch.platform_id, launch.version, launch.sub) == (platform.id, "1.1", "student-29123")
    assert kept(registry) == 1
    assert refused(form) == "replayed"
    assert refused(form, now=NOW + v11.WINDOW) == "replayed"
    assert refused(form, now=NOW + v11.WINDOW + 1) == "stale"


def test_a_nonce_of_another_time_or_platform_is_another(registry: Registry, platform: LMS, verify: Verify) -> None:
    verify(platform.signed(now=NOW, nonce="n"))
    verify(platform.signed(now=NOW + 1, nonce="n"))
    number = registry.add_platform("Second", "1.1", key="second", secret=SECRET)[0].id
    assert verify(LMS(key="second", secret=SECRET).signed(now=NOW, nonce="n")).platform_id == number


@pytest.mark.parametrize("name", OAUTH)
def test_each_oauth_argument_is_needed(platform: LMS, refused: Any, name: str) -> None:
    form = platform.signed(now=NOW)
    assert refused({**form, f"oauth_{name}": ""}) == "unsigned"
    del form[f"oauth_{name}"]
    assert refused(form) == "unsigned"
    # Nor where the signature holds without it.
    if name != "signature":
        form["oauth_signature"] = rfc5849(without_signature(form), URL, platform.secret)
        assert refused(form) == "unsigned"


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("consumer_key", "unknown", "unknown-key"),
        ("consumer_key", "KEY-OF-CANVAS", "unknown-key"),
        ("consumer_key", "key-of-canvas ", "unknown-key"),
        ("consumer_key", "' OR 1=1 --", "unknown-key"),
        ("consumer_key", "\x1b[31m\n" * 90, "unknown-key"),
        ("signature_method", "PLAINTEXT", "oauth-signature-method"),
        ("signature_method", "HMAC-SHA256", "oauth-signature-method"),
        ("signature_method", "hmac-sha1", "oauth-signature-method"),
        ("version", "1.0a", "oauth-version"),
        ("version", "2.0", "oauth-version"),
        ("callback", "https://evil.example", "oauth-callback"),
        ("timestamp", "soon", "timestamp"),
        ("timestamp", f"-{NOW:.0f}", "timestamp"),
        ("timestamp", f"{NOW:.1f}", "timestamp"),
        ("timestamp", f" {NOW:.0f}", "timestamp"),
        ("timestamp", f"{NOW:.0f}000", "timestamp"),
        ("timestamp", "١٧٩٠٠٠٠٠٠٠", "timestamp"),
        ("timestamp", "²", "timestamp"),
        ("timestamp", f"{NOW + 1:.0f}", "signature"),
        ("nonce", "another", "signature"),
        ("nonce", "n" * 256, "timestamp"),
        ("signature", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=", "signature"),
        ("signature", "no base64 at all é", "signature"),
    ],
)
def test_each_oauth_argument_must_be_right(platform: LMS, refused: Any, name: str, value: str, code: str) -> None:
    assert refused(platform.signed(now=NOW, **{f"oauth_{name}": value})) == code


@pytest.mark.parametrize("method", ["HMAC-SHA256", "HMAC-SHA512", "PLAINTEXT"])
def test_other_methods_are_refused_where_their_signature_is_right(platform: LMS, refused: Any, method: str) -> None:
    client = Client(
        platform.key,
        client_secret=platform.secret,
        callback_uri="about:blank",
        signature_type=SIGNATURE_TYPE_BODY,
        signature_method=method,
        timestamp=str(int(NOW)),
    )
    _, _, body = client.sign(
        URL, "POST", body=platform.fields(), headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert refused(dict(parse_qsl(body, keep_blank_values=True))) == "oauth-signature-method"


@pytest.mark.parametrize(
    ("seconds", "code", "words"),
    [
        (301, "stale", "5 minutes old"),
        (5400, "stale", "90 minutes old"),
        (-301, "future", "5 minutes in the future"),
        (-10800, "future", "3 hours in the future"),
        (NOW, "stale", "days old"),
    ],
)
def test_the_clocks_must_agree(
    platform: LMS, refused: Any, verify: Verify, seconds: float, code: str, words: str
) -> None:
    form = platform.signed(now=NOW - seconds)
    assert refused(form) == code
    with pytest.raises(LTIError, match=words):
        verify(form)


@pytest.mark.parametrize("seconds", [-300, -1, 0, 1, 300])
def test_some_minutes_do_no_harm(platform: LMS, verify: Verify, seconds: float) -> None:
    assert verify(platform.signed(now=NOW - seconds)).sub


def test_a_nonce_is_kept_as_long_as_its_launch_could_be_believed(
    registry: Registry, platform: LMS, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    import illumidesk.registry.store as store

    monkeypatch.setattr(store, "NONCE_SWEEP", 0.0)  # those that have expired go at each launch
    early = platform.signed(now=NOW + v11.WINDOW)  # its clock is ahead
    verify(early)
    for later in (0, v11.WINDOW, 2 * v11.WINDOW):
        monkeypatch.setattr(store.time, "time", lambda later=later: NOW + later)
        verify(platform.signed(now=NOW + later), now=NOW + later)
        with pytest.raises(LTIError, match="used already"):
            verify(early, now=NOW + later)
    monkeypatch.setattr(store.time, "time", lambda: NOW + 10 * v11.WINDOW)
    verify(platform.signed(now=NOW + 10 * v11.WINDOW), now=NOW + 10 * v11.WINDOW)
    assert kept(registry) == 1


# The signature


@pytest.mark.parametrize("field", sorted({*LMS().fields(), "oauth_nonce", "oauth_timestamp"}))
def test_a_changed_missing_or_added_field_is_seen(platform: LMS, refused: Any, field: str) -> None:
    form = platform.signed(now=NOW)
    value = str(int(form[field]) + 1) if field == "oauth_timestamp" else f"{form[field]}x"
    assert refused({**form, field: value}) == "signature"
    assert refused({**form, f"{field}_2": "x"}) == "signature"
    if not field.startswith("oauth_"):
        del form[field]
        assert refused(form) == "signature"


@pytest.mark.parametrize(
    "url",
    [
        "http://hub.example.edu/hub/lti11/launch",
        "https://hub.example.edu:8443/hub/lti11/launch",
        "https://other.example.edu/hub/lti11/launch",
        "https://hub.example.edu/hub/lti11/launch/",
        "https://hub.example.edu/hub/lti11/launch?x=1",
        "https://hub.example.edu/hub/LTI11/launch",
        "https://[/hub/lti11/launch",
        "nonsense",
        "",
    ],
)
def test_the_address_is_signed(platform: LMS, refused: Any, url: str) -> None:
    assert refused(platform.signed(now=NOW), url, own=url.partition("/hub/")[0]) == "signature"


@pytest.mark.parametrize("secret", ["x", f"{SECRET} ", SECRET.upper(), SECRET.replace("+", "%2B")])
def test_another_secret_is_refused(platform: LMS, refused: Any, secret: str) -> None:
    assert refused(platform.signed(now=NOW, secret=secret)) == "signature"


def test_a_platform_that_was_removed_is_not_believed(registry: Registry, platform: LMS, refused: Any) -> None:
    form = platform.signed(now=NOW)
    registry.remove_platform(platform.id)
    assert refused(form) == "unknown-key"
    # Its secret is gone from the database, and an empty one opens nothing.
    assert refused(platform.signed(now=NOW, secret="")) == "unknown-key"


@pytest.mark.parametrize(
    ("signed", "seen"),
    [
        ("https://hub.example.edu:443/hub/lti11/launch", URL),
        (URL, "https://hub.example.edu:443/hub/lti11/launch"),
        ("https://HUB.Example.EDU/hub/lti11/launch", URL),
        ("http://hub.example.edu:80/hub/lti11/launch", "http://hub.example.edu/hub/lti11/launch"),
        ("http://127.0.0.1:8000/hub/lti11/launch", "http://127.0.0.1:8000/hub/lti11/launch"),
        (f"{URL}?", URL),
    ],
)
def test_default_ports_and_case_of_the_host_do_not_count(platform: LMS, verify: Verify, signed: str, seen: str) -> None:
    assert verify(platform.signed(url=signed, now=NOW), seen, own=seen.partition("/hub/")[0]).sub


@pytest.mark.parametrize(
    "query", ["a=1", "a=1&b=", "a=1&a=2", "a=%C3%BC+x%2By", "next=%2Fhub%2Fa%3Fb%3Dc%26d", "a=%25"]
)
def test_a_query_is_signed_with_the_form(platform: LMS, verify: Verify, refused: Any, query: str) -> None:
    form = platform.signed(url=f"{URL}?{query}", now=NOW)
    assert refused(form) == "signature"
    assert refused(form, f"{URL}?{query}&c=1") == "signature"
    assert refused(form, f"{URL}?{query}x") == "signature"
    assert verify(form, f"{URL}?{query}").sub


def test_moodle_sends_a_query_twice_and_signs_it_once(platform: LMS, verify: Verify, refused: Any) -> None:
    url = f"{URL}?next=%2Fhub%2Fhome&custom_a=%C3%BC"
    form = platform.signed(platform.fields(next="/hub/home", custom_a="ü"), now=NOW)
    assert refused(form, f"{URL}?next=%2Fhub%2Fhome&custom_a=other") == "signature"
    assert refused(form, f"{url}&custom_b=1") == "signature"
    launch = verify(form, url)
    assert launch.next_url == "/hub/home"
    assert launch.custom["a"] == "ü"


def test_browsers_make_cr_lf_of_lf(platform: LMS, verify: Verify) -> None:
    for signed in ("a\nb\n\nc", "a\r\nb"):
        form = platform.signed(platform.fields(custom_text=signed, resource_link_description="x"), now=NOW)
        form["custom_text"] = signed.replace("\r\n", "\n").replace("\n", "\r\n")
        assert verify(form).custom["text"] == form["custom_text"]
    # With Moodle's query, too.
    form = platform.signed(platform.fields(custom_text="a\nb", custom_q="1"), now=NOW)
    form["resource_link_description"] = "Line 1\r\nLine 2 + 50%"
    with pytest.raises(LTIError, match="signature"):
        verify(form | {"custom_text": "a\rb"}, f"{URL}?custom_q=1")


VALUE = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


#: Any, but the one that says where a launch leads: that must be an address.
NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(lambda name: name != "next")


@given(values=st.dictionaries(NAME, VALUE, max_size=6), secret=VALUE)
def test_any_text_is_signed_as_the_rfc_says(values: dict[str, str], secret: str) -> None:
    platform = LMS(secret=secret)
    fields = {f"custom_{name}": value for name, value in values.items()} | platform.fields()
    form = {
        **fields,
        "oauth_consumer_key": platform.key,
        "oauth_signature_method": "HMAC-SHA1",
        "oauth_timestamp": f"{NOW:.0f}",
        "oauth_nonce": "n +&%é",
        "oauth_version": "1.0",
        "oauth_callback": "about:blank",
    }
    form["oauth_signature"] = rfc5849(list(form.items()), URL, secret)
    launch = v11.verify(
        form, URL, consumers={platform.key: platform}.get, nonces=_Any(), roles=LTI_ROLES, own=OWN, now=NOW
    )
    for name, value in values.items():
        assert launch.custom[name] == value


class _Any:
    def use_nonce(self, platform_id: int, value: str, expires: float) -> bool:
        return True


@given(
    st.dictionaries(st.sampled_from([f"oauth_{name}" for name in OAUTH]) | st.text(max_size=5), st.text(max_size=20)),
    st.text(max_size=40),
)
def test_whatever_strangers_send_is_answered_in_a_sentence(form: dict[str, str], url: str) -> None:
    platform = LMS()
    good = {"oauth_signature_method": "HMAC-SHA1", "oauth_version": "1.0", "oauth_callback": "about:blank"}
    for sent in (
        form,
        {**form, **good},
        {**platform.signed(now=NOW), **form},
        {**platform.signed(url=URL), **form, **good},
    ):
        with pytest.raises(LTIError):
            v11.verify(sent, url, consumers=lambda _: platform, nonces=_Any(), roles=LTI_ROLES, own=OWN, now=NOW)


def test_a_launch_that_is_believed_tells_the_log_nothing(
    platform: LMS, verify: Verify, caplog: pytest.LogCaptureFixture
) -> None:
    form = platform.signed(now=NOW)
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    verify(form)
    for word in (platform.secret, "POST&", "zoe", form["oauth_signature"]):
        assert word not in caplog.text


# What it says


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"lti_message_type": None}, "message-type"),
        ({"lti_message_type": ""}, "message-type"),
        ({"lti_message_type": "ToolProxyRegistrationRequest"}, "message-type"),
        ({"lti_message_type": "Basic-LTI-Launch-Request"}, "message-type"),
        ({"lti_version": None}, "version"),
        ({"lti_version": "LTI-2p0"}, "version"),
        ({"lti_version": "1.3.0"}, "version"),
        ({"user_id": None}, "user"),
        ({"user_id": ""}, "user"),
        ({"user_id": " \t"}, "user"),
        ({"resource_link_id": None}, "resource-link"),
        ({"resource_link_id": " "}, "resource-link"),
        ({"custom_next": "https://evil.example/"}, "next"),
        ({"next": "//evil.example/"}, "next"),
        ({"lti_message_type": "ContentItemSelectionRequest"}, "return-url"),
        ({"lti_message_type": "ContentItemSelectionRequest", "content_item_return_url": "javascript:1"}, "return-url"),
        ({"lti_message_type": "ContentItemSelectionRequest", "content_item_return_url": "https://[x"}, "return-url"),
        ({"lti_message_type": "ContentItemSelectionRequest", "content_item_return_url": "https:///x"}, "return-url"),
    ],
)
def test_a_launch_must_say_what_it_is(platform: LMS, refused: Any, changes: dict[str, str | None], code: str) -> None:
    assert refused(platform.signed(platform.fields(**changes), now=NOW)) == code


@pytest.mark.parametrize("who", ["teacher", "ta", "student"])
@pytest.mark.parametrize("brand", BRANDS)
def test_every_platform_is_understood(brand: Brand, who: Who) -> None:
    platform = lms(brand)
    launch = v11.verify(
        platform.signed(platform.fields(who), now=NOW),
        URL,
        consumers={platform.key: platform}.get,
        nonces=_Any(),
        roles=LTI_ROLES,
        own=OWN,
        now=NOW,
    )
    assert launch.role == ROLE[who]
    assert launch.login == "zoe.login" if brand not in ("brightspace",) else launch.login == "zoe"
    assert launch.name == f"Zoë {who.title()}"
    assert launch.email == f"zoe+{who}@example.edu"
    assert launch.context_id == platform.fields()["context_id"]
    assert launch.context_title
    assert "\n" not in launch.context_title
    assert "\r" not in launch.context_title
    assert launch.resource_link_id == "88391-e1919-bb3456"
    assert launch.resource_link_title == "Notebook: «Übung 1» & more"
    assert launch.next_url == ""
    assert launch.deep_linking is None


def test_a_person_without_anything_but_an_id_may_come(platform: LMS, verify: Verify) -> None:
    fields = {
        name: value
        for name, value in platform.fields().items()
        if name in ("lti_message_type", "lti_version", "resource_link_id", "user_id")
    }
    launch = verify(platform.signed(fields, now=NOW))
    assert (launch.sub, launch.context_id, launch.role, launch.name, launch.email, launch.login) == (
        "student-29123",
        None,
        None,
        "",
        "",
        "",
    )
    launch = verify(platform.signed({**fields, "context_id": "7"}, now=NOW))
    assert (launch.context_id, launch.role) == ("7", "student")


def test_a_variable_that_the_platform_left_is_no_text(platform: LMS, verify: Verify) -> None:
    fields = platform.fields(
        lis_person_name_full="$Person.name.full",
        custom_canvas_user_login_id="$Canvas.user.loginId",
        custom_username="zoe",
    )
    launch = verify(platform.signed(fields, now=NOW))
    assert (launch.name, launch.login) == ("", "zoe")


def test_content_item_selection(platform: LMS, verify: Verify) -> None:
    changes = {
        "lti_message_type": "ContentItemSelectionRequest",
        "content_item_return_url": "https://lms.example.edu/return?a=b&c",
        "accept_media_types": "application/vnd.ims.lti.v1.ltilink, text/html ,",
        "accept_multiple": "true",
        "data": ' {"x": "ü+&"}\n',
    }
    fields = platform.fields("teacher", resource_link_id=None, **changes)
    launch = verify(platform.signed(fields, now=NOW))
    asked = launch.deep_linking
    assert asked is not None
    assert asked.return_url == changes["content_item_return_url"]
    assert asked.data == changes["data"]
    assert asked.accepts == ("application/vnd.ims.lti.v1.ltilink", "text/html")
    assert asked.multiple
    assert (launch.role, launch.resource_link_id) == ("instructor", None)
    del fields["data"]
    del fields["accept_multiple"]
    asked = verify(platform.signed(fields, now=NOW)).deep_linking
    assert asked is not None
    assert (asked.data, asked.multiple) == (None, False)


PULL = "git-pull?repo=https%3A%2F%2Fgithub.com%2Fa%2Fb&branch=main&subPath=x%2Fy%20z.ipynb&app=lab"


@pytest.mark.parametrize(
    ("fields", "query", "goes_to"),
    [
        ({"custom_next": f"/hub/user-redirect/{PULL}"}, "", f"/hub/user-redirect/{PULL}"),
        ({"next": f"{OWN}/hub/user-redirect/{PULL}"}, "", f"/hub/user-redirect/{PULL}"),
        ({"custom_next": PULL}, "", f"/hub/user-redirect/{PULL}"),
        ({}, f"?next={quote(f'/hub/user-redirect/{PULL}', '')}", f"/hub/user-redirect/{PULL}"),
        ({}, f"?custom_next={quote(PULL, '')}", f"/hub/user-redirect/{PULL}"),
        ({"custom_next": "/a", "next": "/b"}, "?next=/c", "/b"),
        ({"custom_next": " ", "next": ""}, "?next=/c", "/c"),
        ({"custom_workspace_type": "notebook"}, "", "/hub/workspaces/notebook"),
        ({"workspace_type": "lab"}, "", "/hub/workspaces/lab"),
        ({}, "?custom_workspace_type=notebook", "/hub/workspaces/notebook"),
        ({}, "?workspace_type=notebook", "/hub/workspaces/notebook"),
        ({"custom_workspace_type": "vscode"}, "", "/hub/workspaces/vscode"),
        ({"custom_workspace_type": " ../x?y#z "}, "", "/hub/workspaces/..%2Fx%3Fy%23z"),
        ({}, "", ""),
    ],
)
def test_where_next(platform: LMS, verify: Verify, fields: dict[str, str], query: str, goes_to: str) -> None:
    url = f"{URL}{query}"
    assert verify(platform.signed(platform.fields(**fields), url=url, now=NOW), url).next_url == goes_to


# Roles


URN, INST, SYS = "urn:lti:role:ims/lis/", "urn:lti:instrole:ims/lis/", "urn:lti:sysrole:ims/lis/"


@pytest.mark.parametrize(
    ("roles", "role"),
    [
        ([], "student"),
        ([""], "student"),
        ([" , ,"], "student"),
        (["Instructor"], "instructor"),
        (["instructor"], "instructor"),
        (["INSTRUCTOR"], "instructor"),
        (["Learner"], "student"),
        (["Student"], "student"),
        (["Mentor"], "student"),
        (["Administrator"], "instructor"),
        (["ContentDeveloper"], "instructor"),
        (["TeachingAssistant"], "ta"),
        (["Learner,Instructor"], "instructor"),
        (["Learner, TeachingAssistant ,Mentor"], "ta"),
        (["Learner", "TeachingAssistant", "Instructor"], "instructor"),
        ([f"{URN}Instructor"], "instructor"),
        ([f"{URN}Learner"], "student"),
        ([f"{URN}TeachingAssistant"], "ta"),
        (["URN:LTI:ROLE:ims/lis/Instructor"], "instructor"),
        ([f"{URN}Instructor/GuestInstructor"], "instructor"),
        ([f"{URN}Instructor/PrimaryInstructor,{URN}Learner"], "instructor"),
        ([f"{URN}TeachingAssistant/TeachingAssistantSection"], "ta"),
        ([f"{URN}Learner/NonCreditLearner"], "student"),
        (["Instructor/TeachingAssistant"], "student"),
        ([f"{MEMBERSHIP}#Instructor"], "instructor"),
        ([f"{MEMBERSHIP}#Learner"], "student"),
        ([f"{MEMBERSHIP}#TeachingAssistant"], "ta"),
        ([f"{MEMBERSHIP}#Administrator"], "instructor"),
        ([f"{MEMBERSHIP}#Manager"], "student"),
        ([f"{MEMBERSHIP}/Instructor#TeachingAssistant"], "ta"),
        ([f"{MEMBERSHIP}/Instructor#TeachingAssistantSection"], "ta"),
        ([f"{MEMBERSHIP}/Instructor#PrimaryInstructor"], "instructor"),
        ([f"{MEMBERSHIP}#Instructor", f"{MEMBERSHIP}/Instructor#TeachingAssistant"], "ta"),
        ([f"{MEMBERSHIP}#Instructor", f"{MEMBERSHIP}/Instructor#PrimaryInstructor"], "instructor"),
        ([f"{MEMBERSHIP}/Learner#Instructor"], "instructor"),
        ([f"{MEMBERSHIP}/Learner#GuestLearner"], "student"),
        # Whom the institution calls what counts for nothing where the course says something, and else only.
        ([f"{INSTITUTION}#Instructor", f"{MEMBERSHIP}#Learner"], "student"),
        ([f"{SYSTEM}#Administrator", f"{MEMBERSHIP}#Learner"], "student"),
        ([f"{INST}Administrator,Learner"], "student"),
        ([f"{SYS}Administrator", f"{INST}Instructor", f"{URN}TeachingAssistant"], "ta"),
        ([f"{INSTITUTION}#Instructor", f"{MEMBERSHIP}#Alien"], "student"),
        ([f"{INSTITUTION}#Instructor"], "instructor"),
        ([f"{INST}Instructor"], "instructor"),
        ([f"{SYS}User"], "student"),
        ([f"{INSTITUTION}#Student"], "student"),
        (["http://purl.imsglobal.org/vocab/lti/system/person#TestUser", f"{MEMBERSHIP}#Learner"], "student"),
        # What is no role at all.
        (["Instructors"], "student"),
        (["Not an Instructor"], "student"),
        (["https://evil.example/membership-not#Instructor", "Learner"], "student"),
        (["#", "urn:lti:", "urn:lti:role:", "/", f"{MEMBERSHIP}#", f"{MEMBERSHIP}/#"], "student"),
    ],
)
def test_roles(roles: list[str], role: str) -> None:
    assert role_of(roles, LTI_ROLES) == role


@pytest.mark.parametrize(
    ("changes", "roles", "role"),
    [
        ({"Mentor": "ta"}, ["Mentor"], "ta"),
        ({"mentor": "ta"}, [f"{MEMBERSHIP}#Mentor"], "ta"),
        ({"TeachingAssistant": "instructor"}, [f"{MEMBERSHIP}/Instructor#TeachingAssistant"], "instructor"),
        ({"ContentDeveloper": "student"}, ["ContentDeveloper"], "student"),
        ({"GuestInstructor": "student"}, [f"{MEMBERSHIP}/Instructor#GuestInstructor"], "student"),
        ({"GuestInstructor": "student"}, [f"{MEMBERSHIP}/Instructor#GuestInstructor", "Instructor"], "student"),
        ({"Manager": "instructor"}, [f"{URN}Manager"], "instructor"),
    ],
)
def test_settings_change_the_table(changes: dict[str, Any], roles: list[str], role: str) -> None:
    assert role_of(roles, {**LTI_ROLES, **changes}) == role


@given(st.lists(st.text(max_size=60), max_size=5))
def test_no_text_is_a_role_by_accident(roles: list[str]) -> None:
    known = "instructor" in "".join(roles).casefold() or "administrator" in "".join(roles).casefold()
    assert role_of(roles, LTI_ROLES) in ({"student", "ta", "instructor"} if known else {"student"})
