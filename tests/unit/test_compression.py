"""What a person's server compresses."""

from __future__ import annotations

import json

from tornado.httpclient import HTTPResponse
from tornado.testing import AsyncHTTPTestCase
from tornado.web import Application, RequestHandler

from illumidesk.grader.compression import CompressedSettings

ANSWER = {"settings": ["the same words again and again"] * 200}


class Answer(RequestHandler):
    def get(self) -> None:
        self.write(ANSWER)

    put = get


class TestCompressedSettings(AsyncHTTPTestCase):
    def get_app(self) -> Application:
        application = Application([(r"/user/.*", Answer)])
        application.add_transform(CompressedSettings)
        return application

    def ask(self, path: str, *, method: str = "GET", takes: str = "gzip, deflate, br") -> HTTPResponse:
        return self.fetch(
            f"/user/student1{path}",
            method=method,
            headers={"Accept-Encoding": takes},
            body=b"" if method == "PUT" else None,
            decompress_response=False,
        )

    def test_labs_settings_are_compressed(self) -> None:
        packed = self.ask("/lab/api/settings?1796102643769")
        assert packed.headers["Content-Encoding"] == "gzip"
        assert packed.headers["Vary"] == "Accept-Encoding"
        assert len(packed.body) == int(packed.headers["Content-Length"]) < len(json.dumps(ANSWER)) / 5
        again = self.fetch("/user/student1/lab/api/settings", headers={"Accept-Encoding": "gzip"})
        assert json.loads(again.body) == ANSWER

    def test_a_browser_that_cannot_unpack_gets_it_as_it_is(self) -> None:
        plain = self.ask("/lab/api/settings", takes="identity")
        assert json.loads(plain.body) == ANSWER
        assert plain.headers["Vary"] == "Accept-Encoding"

    def test_everything_else_stays_as_it_is(self) -> None:
        for path in ("/lab/api/settings/@jupyterlab/x:plugin", "/api/contents/lab/api/settings.txt", "/lab"):
            answer = self.ask(path)
            assert "Content-Encoding" not in answer.headers
            assert "Vary" not in answer.headers
            assert json.loads(answer.body) == ANSWER
        assert "Content-Encoding" not in self.ask("/lab/api/settings", method="PUT").headers
