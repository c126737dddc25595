"""Where a launch leads: exactly where it says, and never off this host, as browsers read addresses."""

from __future__ import annotations

import ada_url
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from illumidesk.lti.errors import LTIError
from illumidesk.lti.launch import local_path, next_of

OWN = "https://hub.example.edu"
PULL = (
    "git-pull?repo=https%3A%2F%2Fgithub.com%2Fa%2Fb&branch=main&subPath=x%2Fy%20z.ipynb&app=lab&urlpath=tree/a%252Fb+c"
)


def origin_in_a_browser(text: str, own: str) -> str:
    """Where a browser goes that is redirected to `text` (the WHATWG's URL standard)."""
    return str(ada_url.URL(text, base=f"{own}/hub/lti13/launch").origin)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (PULL, f"/hub/user-redirect/{PULL}"),
        (f"/hub/user-redirect/{PULL}", f"/hub/user-redirect/{PULL}"),
        (f"{OWN}/hub/user-redirect/{PULL}#a=b%20c", f"/hub/user-redirect/{PULL}#a=b%20c"),
        (f"https://HUB.Example.EDU:443/{PULL}", f"/{PULL}"),
        (f"HTTPS://hub.example.edu/{PULL}", f"/{PULL}"),
        ("//hub.example.edu/x", "refused"),
        (OWN, "/"),
        (f"{OWN}?a=b", "/?a=b"),
        (f"{OWN}#a", "/#a"),
        ("?a=b", "/?a=b"),
        ("#a", "/#a"),
        (" /x\n", "/x"),
        ("/%2f%2fevil.example", "/%2f%2fevil.example"),
        ("/a//b/../c;d?e=//f", "/a//b/../c;d?e=//f"),
        ("/ü/程", "/ü/程"),
        ("lab/tree/a:b.ipynb", "/hub/user-redirect/lab/tree/a:b.ipynb"),
    ],
)
def test_what_is_of_this_host_survives_exactly(text: str, path: str) -> None:
    if path == "refused":  # no scheme: it is of this host only where the browser uses the same
        with pytest.raises(LTIError):
            local_path(text, OWN)
    else:
        assert local_path(text, OWN) == path
        assert origin_in_a_browser(path, OWN) == OWN


@pytest.mark.parametrize(
    "text",
    [
        "//evil.example/",
        "///evil.example",
        "////evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "\t//evil.example",
        "\x00//evil.example",
        "/ /evil.example",
        "https:evil.example",
        "https:/evil.example",
        "https:///evil.example",
        "https://evil.example",
        "http://hub.example.edu/",
        "https://hub.example.edu:8443/",
        "https://hub.example.edu:x/",
        "https://hub.example.edu:99999/",
        "https://hub.example.edu.evil.example/",
        "https://hub.example.edu./",
        "https://hub.example.edu@evil.example/",
        "https://evil.example\\@hub.example.edu/",
        "https://me@hub.example.edu/",
        "https://@hub.example.edu/",
        "https://hub.example.edu//evil.example",
        "https://hub.example.edu/\\evil.example",
        "https://ｈub.example.edu/",
        "https://[::1/",
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "java\nscript:alert(1)",
        "data:text/html,x",
        "blob:https://hub.example.edu/x",
        "mailto:a@b",
        "/a\u2028b",
        "/" + "a" * 9000,
    ],
)
def test_what_leads_elsewhere_or_is_read_two_ways_is_refused(text: str) -> None:
    with pytest.raises(LTIError) as caught:
        local_path(text, OWN)
    assert caught.value.code == "next"
    assert len(caught.value.message) < 200


def test_an_address_of_ours_that_is_none_refuses() -> None:
    for own in ("https://[", "https://a:b"):
        with pytest.raises(LTIError):
            local_path("https://hub.example.edu/x", own)


def test_the_port_is_part_of_the_host() -> None:
    assert local_path("http://127.0.0.1:8000/a", "http://127.0.0.1:8000") == "/a"
    assert local_path("http://[::1]:8000/a", "http://[::1]:8000") == "/a"
    with pytest.raises(LTIError):
        local_path("http://127.0.0.1/a", "http://127.0.0.1:8000")


@pytest.mark.parametrize(
    ("given_", "target", "workspace", "goes_to"),
    [
        (["", ""], "", "", ""),
        ([" ", "/b"], "/c", "", "/b"),
        (["/a", "/b"], "/c", "lab", "/a"),
        ([], f"{OWN}/hub/lti13/launch", "", ""),
        ([], f"{OWN}/hub/lti13/login", "notebook", "/hub/workspaces/notebook"),
        ([], f"{OWN}/hub/", "", ""),
        ([], f"{OWN}", "lab", "/hub/workspaces/lab"),
        ([], f"{OWN}/hub/lti13/launch?next=%2Fa%3Fb%3D%252F", "lab", "/a?b=%2F"),
        ([], f"{OWN}/hub/lti13/launch?workspace_type=notebook", "", "/hub/workspaces/notebook"),
        ([], f"{OWN}/user/x/lab?next=/y", "lab", "/user/x/lab?next=/y"),
        ([], f"{OWN}/services/cs101/", "", "/services/cs101/"),
    ],
)
def test_what_counts(given_: list[str], target: str, workspace: str, goes_to: str) -> None:
    assert next_of(given=given_, target=target, workspace_type=workspace, own=OWN) == goes_to


def test_a_query_cannot_lead_elsewhere() -> None:
    for inside in (
        "//evil.example",
        "%2F%2Fevil.example",
        "https:evil.example",
        "%5C%5Cevil.example",
        "%09//evil.example",
    ):
        with pytest.raises(LTIError):
            next_of(given=[], target=f"{OWN}/hub/lti13/launch?next={inside}", workspace_type="", own=OWN)


PIECES = ["/", "//", "\\", ":", "@", "?", "#", ".", "..", "%2f", "%5c", "\t", "\n", " ", "https", "http", "javascript"]
HOSTS = ["hub.example.edu", "evil.example", ":443", ":8443", "HUB", "[::1]", "127.1", "\u3002", "\uff0f", "\xad", "a"]
TEXT = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(PIECES + HOSTS) | st.text(max_size=2)).map("".join))


@given(TEXT, TEXT, st.sampled_from([OWN, "http://127.0.0.1:8000", "https://hub.example.edu:8443"]))
@example("/.//evil.example", "", OWN)
@example("..//evil.example", "", OWN)
@example("/..//evil.example", "", OWN)
def test_whatever_is_sent_stays_on_this_host(text: str, target: str, own: str) -> None:
    for run in (
        lambda: local_path(text, own),
        lambda: local_path(f"{own}{text}", own),
        lambda: next_of(given=[text], target=target, workspace_type="", own=own),
        lambda: next_of(given=[], target=f"{own}/hub/lti11/launch?{text}", workspace_type="", own=own),
    ):
        try:
            path = run()
        except LTIError:
            continue
        assert path == "" or path.startswith("/")
        assert not path.startswith("//")
        assert origin_in_a_browser(path, own) == own
