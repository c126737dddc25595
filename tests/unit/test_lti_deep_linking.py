"""What a link may open, how it travels, and the signed answers, looked at as a platform would."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oauthlib.oauth1 import Client
from oauthlib.oauth1.rfc5849 import signature

from illumidesk.errors import IllumiDeskError
from illumidesk.lti.deep_linking import DL_CLAIM, Choice, assignment_of, check_launch, reply_11, reply_13
from illumidesk.lti.errors import LTIError
from illumidesk.lti.keys import key_set, new_key
from illumidesk.lti.launch import DeepLinking, Launch, local_path, next_of
from illumidesk.lti.v13 import CLAIM
from tests.support.lms import lms

OWN = "https://hub.example.edu"
REPOSITORY = "https://git.example.edu/a b/intro.git".replace(" ", "%20")


@dataclass(frozen=True)
class ToolKey:
    kid: str
    private: str


@pytest.fixture(scope="module")
def key() -> ToolKey:
    return ToolKey(*new_key())


# What may be chosen

GOOD = [
    (Choice("workspace", workspace_type="lab"), "JupyterLab", {"workspace_type": "lab"}),
    (Choice("workspace", workspace_type="notebook", title="Mine"), "Mine", {"workspace_type": "notebook"}),
    (Choice("assignment", assignment="Übung 1"), "Übung 1", {"assignment": "Übung 1"}),
    (
        Choice("file", path="notes/week 1&2/Übung.ipynb"),
        "Übung.ipynb",
        {"next": "/hub/user-redirect/lab/tree/notes/week%201%262/%C3%9Cbung.ipynb"},
    ),
    (
        Choice("git", repository="https://git.example.edu/intro.git/"),
        "intro",
        {"next": "/hub/user-redirect/git-pull?repo=https%3A%2F%2Fgit.example.edu%2Fintro.git&app=lab"},
    ),
]


@pytest.mark.parametrize(("choice", "title", "custom"), GOOD)
def test_what_a_link_opens(choice: Choice, title: str, custom: dict[str, str]) -> None:
    choice.check()
    assert choice.shown_title() == title
    assert choice.custom() == custom


def test_a_repository_reaches_nbgitpuller_whole() -> None:
    choice = Choice("git", repository=REPOSITORY, branch="feature/x+1#2", path="week 1/a&b=ü.ipynb")
    choice.check()
    assert choice.shown_title() == "a&b=ü.ipynb"
    target = next_of(given=[choice.custom()["next"]], target="", workspace_type="", own=OWN)
    parts = urlsplit(target)
    assert parts.path == "/hub/user-redirect/git-pull"
    assert parts.fragment == ""
    assert parse_qs(parts.query) == {
        "repo": [REPOSITORY],
        "branch": ["feature/x+1#2"],
        "subPath": ["week 1/a&b=ü.ipynb"],
        "app": ["lab"],
    }


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        (Choice("workspace", workspace_type="emacs"), "no workspace type"),
        (Choice("workspace", workspace_type="vscode", workspaces={}), "no workspace type"),
        (Choice("workspace"), "no workspace type"),
        (Choice("workspace", workspace_type="lab", title="x" * 256), "title"),
        (Choice("workspace", workspace_type="lab", title="a\nb"), "title"),
        (Choice("assignment"), "name is missing"),
        (Choice("assignment", assignment="a/b"), "not a valid assignment name"),
        (Choice("assignment", assignment=".."), "not a valid assignment name"),
        (Choice("assignment", assignment="a+b"), "not a valid assignment name"),
        (Choice("assignment", assignment="$User.id"), "begin with"),
        (Choice("git"), "address is missing"),
        (Choice("git", repository="git@github.com:a/b.git"), "no address of a git repository"),
        (Choice("git", repository="ext::sh -c id"), "no address of a git repository"),
        (Choice("git", repository="file:///etc"), "no address of a git repository"),
        (Choice("git", repository="https://"), "no address of a git repository"),
        (Choice("git", repository="https://host"), "no address of a git repository"),
        (Choice("git", repository="https://host/"), "no address of a git repository"),
        (Choice("git", repository="https://host/a/../b"), "no address of a git repository"),
        (Choice("git", repository="https://host:x/a"), "no address of a git repository"),
        (Choice("git", repository="https://[host/a"), "no address of a git repository"),
        (Choice("git", repository="https://host/a b"), "no address of a git repository"),
        (Choice("git", repository="https://host/a\n"), "no address of a git repository"),
        (Choice("git", repository="https://host/" + "a" * 1000), "no address of a git repository"),
        (Choice("git", repository="https://u:secret@host/a"), "no name and no password"),
        (Choice("git", repository="https://github.com/a/b/tree/main/c"), "page of a repository"),
        (Choice("git", repository="https://gitlab.com/a/b/-/blob/main/c"), "page of a repository"),
        (Choice("git", repository="https://github.com/a/b/blob/main/c.ipynb"), "page of a repository"),
        (Choice("git", repository="https://host/a?b=c"), "page of a repository"),
        (Choice("git", repository="https://host/a", branch="--upload-pack=x"), "no name of a branch"),
        (Choice("git", repository="https://host/a", branch="a..b"), "no name of a branch"),
        (Choice("git", repository="https://host/a", branch="a b"), "no name of a branch"),
        (Choice("git", repository="https://host/a", path="../x"), "within the folder"),
        (Choice("file"), "name is missing"),
        (Choice("file", path="/etc/passwd"), "without a slash"),
        (Choice("file", path="~root/x"), "without a slash"),
        (Choice("file", path="a/../../b"), "within the folder"),
        (Choice("file", path="a\\..\\b"), "within the folder"),
        (Choice("file", path="a\x00b"), "name is none"),
        (Choice("file", path="x" * 1001), "name is none"),
    ],
)
def test_what_no_link_opens(choice: Choice, says: str) -> None:
    with pytest.raises(IllumiDeskError) as error:
        choice.check()
    assert says in error.value.message
    assert "secret" not in error.value.message + error.value.hint
    assert "\n" not in error.value.message


@given(
    kind=st.sampled_from(["git", "file"]),
    repository=st.one_of(st.text(), st.text().map(lambda text: f"https://host/{text}")),
    branch=st.text(max_size=20),
    path=st.text(max_size=40),
)
@settings(max_examples=400, deadline=None)
def test_whatever_is_typed_stays_on_this_host(kind: Any, repository: str, branch: str, path: str) -> None:
    choice = Choice(kind, repository=repository, branch=branch, path=path)
    try:
        choice.check()
    except IllumiDeskError:
        return
    target = choice.custom()["next"]
    assert local_path(target, OWN) == target
    assert target.startswith("/hub/user-redirect/")
    assert target.isascii()
    assert ".." not in target.split("/")


# Who may choose

ASKED = DeepLinking(return_url="https://lms.example.edu/return?a=b%20c", data='ü "x"&', deployment_id="1:dep")


def launch(**changes: Any) -> Launch:
    values: dict[str, Any] = {"platform_id": 1, "version": "1.3", "sub": "2", "context_id": "7", "role": "instructor"}
    return Launch(**{**values, **changes})


@pytest.mark.parametrize("role", ["student", "ta", None])
def test_only_instructors_choose(role: Any) -> None:
    check_launch(launch(role=role))
    check_launch(launch(deep_linking=ASKED))
    with pytest.raises(LTIError) as error:
        check_launch(launch(role=role, deep_linking=ASKED))
    assert error.value.code == "not-instructor"


@pytest.mark.parametrize(
    ("version", "accepts", "good"),
    [
        ("1.3", ("link", "ltiResourceLink"), True),
        ("1.3", (), True),
        ("1.3", ("file", "html"), False),
        ("1.1", ("application/vnd.ims.lti.v1.ltilink",), True),
        ("1.1", ("*/*",), True),
        ("1.1", ("text/html", "image/*"), False),
    ],
)
def test_only_links_are_given(version: Any, accepts: tuple[str, ...], good: bool) -> None:
    asking = launch(version=version, deep_linking=DeepLinking("https://lms.example.edu", accepts=accepts))
    if good:
        check_launch(asking)
        return
    with pytest.raises(LTIError) as error:
        check_launch(asking)
    assert error.value.code == "accepts"


@pytest.mark.parametrize(
    ("custom", "next_url", "wanted"),
    [
        ({"assignment": "ps1"}, "", "ps1"),
        ({"assignment": " ps1 "}, "/hub/user-redirect/lab", "ps1"),
        ({"assignment": "ps1"}, "/hub/user-redirect/lab/tree/x.ipynb", ""),
        ({"assignment": "$Assignment.name"}, "", ""),
        ({"assignment": ""}, "", ""),
        ({}, "", ""),
    ],
)
def test_the_assignment_of_a_launch(custom: dict[str, str], next_url: str, wanted: str) -> None:
    assert assignment_of(launch(custom=custom, next_url=next_url)) == wanted


def test_an_assignments_name_that_is_none_is_refused() -> None:
    with pytest.raises(LTIError, match="not a valid assignment name"):
        check_launch(launch(custom={"assignment": "../ps1"}))


# The answers


def claims_of(token: str, key: ToolKey, audience: str) -> dict[str, Any]:
    (public,) = jwt.PyJWKSet.from_dict(key_set([key])).keys
    header = jwt.get_unverified_header(token)
    assert (header["alg"], header["kid"]) == ("RS256", key.kid)
    claims: dict[str, Any] = jwt.decode(token, public.key, algorithms=["RS256"], audience=audience)
    return claims


def test_the_answer_by_lti_13(key: ToolKey) -> None:
    platform = lms("moodle")
    choice = Choice("assignment", assignment="ps1", title="Problem set 1")
    url = f"{OWN}/hub/lti13/launch"
    claims = claims_of(reply_13(ASKED, choice, platform=platform, url=url, key=key), key, platform.issuer)
    assert claims["iss"] == platform.client_id
    assert claims["aud"] == platform.issuer
    assert len(claims["nonce"]) >= 32
    assert claims["exp"] - claims["iat"] == 300
    assert {name: claims[CLAIM + name] for name in ("message_type", "version", "deployment_id")} == {
        "message_type": "LtiDeepLinkingResponse",
        "version": "1.3.0",
        "deployment_id": "1:dep",
    }
    assert claims[f"{DL_CLAIM}data"] == ASKED.data
    assert claims[f"{DL_CLAIM}content_items"] == [
        {
            "type": "ltiResourceLink",
            "title": "Problem set 1",
            "url": url,
            "custom": {"assignment": "ps1"},
            "window": {"targetName": "_blank"},
            "lineItem": {"scoreMaximum": 100, "label": "Problem set 1", "resourceId": "ps1"},
        }
    ]
    again = claims_of(reply_13(ASKED, choice, platform=platform, url=url, key=key), key, platform.issuer)
    assert again["nonce"] != claims["nonce"]


def test_only_an_assignment_has_a_grade(key: ToolKey) -> None:
    platform = lms("canvas")
    for choice, _, _ in GOOD:
        token = reply_13(ASKED, choice, platform=platform, url=OWN, key=key)
        (item,) = claims_of(token, key, platform.issuer)[f"{DL_CLAIM}content_items"]
        assert ("lineItem" in item) == (choice.kind == "assignment")


def test_nothing_chosen_and_no_data(key: ToolKey) -> None:
    platform = lms("canvas")
    asked = DeepLinking("https://lms.example.edu", deployment_id="d")
    claims = claims_of(reply_13(asked, None, platform=platform, url=OWN, key=key), key, platform.issuer)
    assert claims[f"{DL_CLAIM}content_items"] == []
    assert f"{DL_CLAIM}data" not in claims
    fields = reply_11(asked, None, consumer=platform, url=OWN)
    assert json.loads(fields["content_items"])["@graph"] == []
    assert "data" not in fields


@pytest.mark.parametrize(
    "return_url", [ASKED.return_url, "https://lms.example.edu:8443/x", "http://lms.example.edu/?a="]
)
def test_the_answer_by_lti_11(return_url: str) -> None:
    consumer = lms("canvas")
    url = f"{OWN}/hub/lti11/launch"
    asked = DeepLinking(return_url, data='x=1&ü\n"<>')
    fields = reply_11(asked, Choice("file", path="a b/ü.ipynb"), consumer=consumer, url=url)
    assert fields["oauth_consumer_key"] == consumer.key
    pairs = signature.collect_parameters(uri_query=urlsplit(return_url).query, body=list(fields.items()))
    text = signature.signature_base_string(
        "POST",
        signature.base_string_uri(return_url),
        signature.normalize_parameters(pairs),  # type: ignore[arg-type]  # the stub says dict
    )
    client = Client(consumer.key, client_secret=consumer.secret)
    assert fields["oauth_signature"] == signature.sign_hmac_sha1_with_client(text, client)
    assert (fields["lti_message_type"], fields["lti_version"]) == ("ContentItemSelection", "LTI-1p0")
    # As a browser sends it.
    assert fields["data"] == 'x=1&ü\r\n"<>'
    assert json.loads(fields["content_items"]) == {
        "@context": "http://purl.imsglobal.org/ctx/lti/v1/ContentItem",
        "@graph": [
            {
                "@type": "LtiLinkItem",
                "mediaType": "application/vnd.ims.lti.v1.ltilink",
                "title": "ü.ipynb",
                "url": url,
                "custom": {"next": "/hub/user-redirect/lab/tree/a%20b/%C3%BC.ipynb"},
                "placementAdvice": {"presentationDocumentTarget": "window"},
            }
        ],
    }
    assert consumer.secret not in str(fields)
