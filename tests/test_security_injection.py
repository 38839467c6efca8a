"""Values stay values: none becomes another path, another host, another header, another log line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aiotwhelp import AiotwhelpError, Bearer, Session, X
from aiotwhelp.apis import api_at
from aiotwhelp.routes import expand
from tests.hostile import all_logs, answers, hostile, shown
from tests.stack import assert_at_rest, in_virtual_time, scripted, serving

#: Values for a segment, and how they go over the wire; None for those that cannot be sent.
VALUES: list[tuple[Any, str | None]] = [
    ("a/b", "a%2Fb"),
    ("a%2Fb", "a%252Fb"),
    ("%2e%2e", "%252e%252e"),
    ("a\\b", "a%5Cb"),
    ("a?b=c", "a%3Fb=c"),
    ("a#b", "a%23b"),
    ("a;b", "a;b"),
    ("@evil.example", "@evil.example"),
    ("a\r\nX-Injected: b", "a%0D%0AX-Injected:%20b"),
    ("a\x00b", "a%00b"),
    ("a b\tc", "a%20b%09c"),
    ("é\u202e", "%C3%A9%E2%80%AE"),
    ("{id}", "%7Bid%7D"),
    ("...", "..."),
    # Encoded, a slash is no border between segments (RFC 3986, 3.3).
    ("../admin", "..%2Fadmin"),
    ("..\\admin", "..%5Cadmin"),
    (12, "12"),
    (-1, "-1"),
    ("x" * 7000, "x" * 7000),
    ("", None),
    (".", None),
    ("..", None),
    ("..;", None),
    (".;/x", None),
    (";x", None),
    ("\ud800", None),
    (None, None),
    (True, None),
    (1.5, None),
    (b"12", None),
    (10**5000, None),
]


@in_virtual_time
async def test_a_path_parameter_is_one_segment_on_the_wire_or_an_error() -> None:
    async with hostile(answers(200)) as server, Session(server.url) as session:
        for value, segment in VALUES:
            server.heads.clear()
            call = session.fetch("/2/users/{id}/likes", path_params={"id": value})
            if segment is None:
                with pytest.raises((ValueError, TypeError)):
                    await call
                assert server.heads == []
                continue
            await call
            [head] = server.heads
            first, host, *others = head.decode().split("\r\n")
            assert first == f"GET /2/users/{segment}/likes HTTP/1.1"
            assert host == f"Host: {server.url.removeprefix('http://')}"
            assert not [line for line in others if line.startswith("X-Injected")]
        # Values that the route takes for values are one quota.
        assert {key.route for key in session.limiter.quotas()} <= {
            "GET /2/users/{id}/likes",
            *(f"GET /2/users/{segment}/likes" for _, segment in VALUES),
        }
        await assert_at_rest(session)


@pytest.mark.parametrize(
    "template",
    [
        "https://{x}/2/users",
        "https://{x}.x.com/2/users",
        "https://api.x.com{x}/2/users",
        "https://api.x.com:{x}/2/users",
        "{x}://api.x.com/2/users",
        "//{x}/2/users",
        "{x}/2/users",
        "{x}",
    ],
)
@pytest.mark.parametrize(
    "value", ["evil.example", ".evil.example", "//evil.example", "@evil", "80"]
)
def test_a_placeholder_never_chooses_a_host(template: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"host|slash"):
        X.url(expand(template, {"x": value}))


@pytest.mark.parametrize("template", ["https://api.x.com/2/{x}", "/2/{x}", "/2/a//{x}"])
def test_a_placeholder_in_a_path_is_filled_in_whole_urls_too(template: str) -> None:
    assert X.url(expand(template, {"x": "//evil"})).endswith("/%2F%2Fevil")


@in_virtual_time
async def test_what_cannot_be_sent_is_an_error_and_nothing_is_sent() -> None:
    async with serving(scripted(200)) as server, Session(server.url) as session:
        for path in (
            "/a\r\nX: y",
            "/a\x00",
            "/a\x7f",
            "/2/users/\ud800",
            "/x?a=\ud800",
            "//evil",
            "",
        ):
            with pytest.raises(ValueError, match=r"control|slash"):
                await session.fetch(path)
        for method in ("GET\r\nX: y", "GET /other HTTP/1.1", "É"):
            with pytest.raises(ValueError, match="method"):
                await session.fetch("/x", method=method)
        for headers in ({"X": "a\r\nY: b"}, {"X\r\nY": "a"}, {"X": "\x00"}, {"X": "a\nb"}):
            with pytest.raises(ValueError, match="header"):
                await session.fetch("/x", headers=headers)
        assert server.seen == []
        await assert_at_rest(session)


@in_virtual_time
async def test_a_quota_is_named_after_the_path_that_is_sent() -> None:
    paths = ["/2/a/../b", "/2/%2e%2e/b", "/2/a%2fb", "/2/a\\..\\b", "/2/./b", "/2/%61", "/2//b/"]
    async with serving(scripted(200)) as server, Session(server.url) as session:
        for path in paths:
            await session.fetch(path)
            sent = server.seen[-1].raw_path
            assert session.quota(sent).key == session.quota(path).key


# Log lines ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 402, 403, 429])
def test_no_text_of_a_server_forges_a_line_or_moves_a_cursor(status: int) -> None:
    @in_virtual_time
    async def scene() -> None:
        forged = "all is well\r\n2026-01-01 ERROR root: \x1b[2J\u2028\u202e\x00"
        body = {"errors": [{"code": 10**4000, "message": forged}], "type": f"x/{forged}"}
        for said in (body, {"title": forged}, {"detail": forged}, {"error": forged}, "nothing"):
            odd = answers(status, body=json.dumps(said).encode(), reason="\x1b[2J\t\x80")
            with all_logs() as lines:
                async with hostile(odd) as server, Session(server.url, retries=0) as session:
                    with pytest.raises(AiotwhelpError) as caught:
                        await session.fetch("/x")
            for text in (str(caught.value), *lines, str(getattr(caught.value, "problem", ""))):
                assert text.isprintable()
                assert len(text) < 1000

    scene()


# Addresses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://someone:hunter2@api.example",
        "https://hunter2@api.example",
        "https://:hunter2@api.example/x",
        "https://someone:hunter2@",
        "https://someone:hunter2",
        "https://someone:hunter2/x",
        "https://someone:hunter2@other@api.example",
        "https://someone:hunter2:80",
        "//someone:hunter2@api.example",
        "https://api.example/?key=hunter2",
        "https://api.example?key=hunter2",
        "https://api.example/x#hunter2",
        "https://api.example:99999/?key=hunter2",
        "ftp://api.example/?key=hunter2",
    ],
)
def test_an_address_with_a_secret_in_it_is_refused_without_the_secret(url: str) -> None:
    for refuse in (
        X.at,
        api_at,
        Session,
        lambda url: Session.from_env({"AIOTWHELP_BASE_URL": url, "AIOTWHELP_BEARER_TOKEN": "t"}),
    ):
        with pytest.raises(ValueError, match=r"URL|address") as caught:
            refuse(url)
        # The texts of its source lines aside.
        texts = [text for text in shown(caught.value) if not text.startswith("  File")]
        assert not [text for text in texts if "hunter2" in text]


@in_virtual_time
async def test_a_path_with_a_secret_in_its_query_is_refused_without_the_secret() -> None:
    async with Session("http://127.0.0.1:1", auth=Bearer("a-token")) as session:
        for path in (
            "x?token=hunter2",
            "/x\r\n?token=hunter2",
            "https://someone:hunter2@127.0.0.1/x",
        ):
            with pytest.raises(ValueError, match=r"slash|control|user") as caught:
                await session.fetch(path)
            assert "hunter2" not in str(caught.value)
