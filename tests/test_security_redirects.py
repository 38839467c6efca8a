"""Wherever a server sends a call, the credential goes to the API's own origins only."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from aiotwhelp import (
    Bearer,
    ClientCredentials,
    Limiter,
    RateLimitMiddleware,
    Session,
    X,
    testing,
)
from aiotwhelp.apis import is_local
from tests.hostile import Internet, answers, by_path, hostile, internet, redirect, token
from tests.stack import (
    assert_at_rest,
    connections_in_use,
    elapsed,
    in_virtual_time,
    plain_api,
    quota_headers,
    scripted,
    serving,
)

API = "https://api.x.com"
EVIL = "https://evil.example"
HOSTS = ("api.x.com", "upload.x.com", "evil.example")

#: Where a Location leads from https://api.x.com/2/start, and whether that is the API's own.
LEADS = [
    ("/2/users", f"{API}/2/users", True),
    ("users", f"{API}/2/users", True),
    ("https:///evil.example/2/users", None, False),
    ("\\\\evil.example\\x", f"{API}/2/%5C%5Cevil.example%5Cx", True),
    ("HTTPS://API.X.COM/2/users", f"{API}/2/users", True),
    (f"{API}:443/2/users", f"{API}/2/users", True),
    (f"{API}./2/users", f"{API}/2/users", True),
    ("https://someone:else@api.x.com/2/users", f"{API}/2/users", True),
    ("https://upload.x.com/2/users", "https://upload.x.com/2/users", True),
    ("http://api.x.com/2/users", "http://api.x.com/2/users", False),
    (f"{EVIL}/x", f"{EVIL}/x", False),
    ("//evil.example/x", f"{EVIL}/x", False),
    ("https://api.x.com@evil.example/x", f"{EVIL}/x", False),
    ("https://api.x.com:443@evil.example/x", f"{EVIL}/x", False),
    ("https://evil.example#@api.x.com/x", f"{EVIL}/", False),
    ("https://evil.example?@api.x.com/x", f"{EVIL}/?@api.x.com/x", False),
    ("https://evil.example\\@api.x.com/x", None, False),
    ("https://api.x.com%2eevil.example/x", None, False),
    ("https://api.x.com.evil.example/x", None, False),
    ("https://xn--pi-7ka.x.com/x", None, False),
    (f"{API}:8443/x", None, False),
    (f"{API}:99999/x", None, False),
    ("https://[::1/x", None, False),
    ("ftp://api.x.com/x", None, False),
    ("file:///etc/passwd", None, False),
    ("javascript:alert(1)", None, False),
    (f"{EVIL}/" + "x" * 9000, None, False),
]


async def sent_away(
    network: Internet, to: str, *, status: int = 302, **options: Any
) -> aiohttp.ClientResponse | Exception:
    """Call the API, which redirects; return the last answer, or the error."""
    network.routes[f"{API}/2/start"] = redirect(to, status)
    auth = Bearer("a-token")
    async with Session(X, auth=auth, retries=0) as session:
        try:
            async with session.request(options.pop("method", "GET"), "/2/start", **options) as one:
                await one.read()
                return one
        except (aiohttp.ClientError, ValueError) as error:
            return error
        finally:
            assert connections_in_use(session) == session.limiter.stats().in_flight == 0


@in_virtual_time
async def test_a_location_that_lacks_a_host_leads_nowhere_else() -> None:
    async with internet(*HOSTS) as network:
        await sent_away(network, "https:/2/users")
        # aiohttp 3.14.0 raises; later versions take it for a path.
        assert {each.url for each in network.asked} <= {f"{API}/2/start", f"{API}/2/users"}


@pytest.mark.parametrize(("to", "there", "own"), LEADS, ids=[to[:40] for to, _, _ in LEADS])
def test_a_redirect_is_signed_at_home_and_nowhere_else(
    to: str, there: str | None, own: bool
) -> None:
    @in_virtual_time
    async def scene() -> None:
        async with internet(*HOSTS) as network:
            for status in (301, 302, 303, 307, 308):
                network.asked.clear()
                outcome = await sent_away(network, to, status=status)
                first, *others = network.asked
                assert first.headers["Authorization"] == "Bearer a-token"
                if there is None:
                    assert isinstance(outcome, aiohttp.ClientError)
                    assert others == []
                    continue
                [last] = others
                assert last.url == there
                assert last.headers.get("Authorization") == ("Bearer a-token" if own else None)

    scene()


@pytest.mark.parametrize("status", [307, 308])
def test_a_body_is_data_and_goes_where_a_307_sends_it_without_the_credential(status: int) -> None:
    @in_virtual_time
    async def scene() -> None:
        async with internet(*HOSTS) as network:
            form = {"text": "hello"}
            headers = {"Cookie": "a=b", "X-Api-Key": "mine"}
            away = f"{EVIL}/x"
            await sent_away(network, away, status=status, method="POST", data=form, headers=headers)
            here, there = network.asked
            assert here.secrets == {"authorization", "cookie", "x-api-key"}
            assert (there.method, there.body) == ("POST", b"text=hello")
            assert there.secrets == set()

    scene()


@in_virtual_time
async def test_headers_of_the_session_that_are_keys_do_not_follow_a_call_away() -> None:
    async with internet(*HOSTS) as network:
        network.routes[f"{API}/2/start"] = redirect(f"{EVIL}/x")
        headers = {"Authorization": "Bearer mine", "X-Api-Key": "mine", "Cookie": "a=b"}
        async with Session(X, headers=headers) as session:
            await session.fetch("/2/start")
        here, there = network.asked
        assert here.secrets == {"authorization", "cookie", "x-api-key"}
        assert there.secrets == set()


# There and back ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("waits", [False, True], ids=["at once", "after a wait"])
@pytest.mark.parametrize("start", ["/2/start", f"{EVIL}/x"], ids=["from home", "from elsewhere"])
@pytest.mark.parametrize("whose", ["of the call", "of the session"])
def test_a_call_that_a_foreign_origin_sends_back_is_not_signed(
    whose: str, start: str, waits: bool, method: str
) -> None:
    @in_virtual_time
    async def scene() -> None:
        async with internet(*HOSTS) as network:
            spent = 0 if waits else 9
            network.routes |= {
                f"{API}/2/start": redirect(f"{EVIL}/x", 307),
                f"{EVIL}/x": redirect(f"{API}/2/act", 307),
                f"{API}/2/act": lambda _: web.json_response(
                    {}, headers=quota_headers(spent, resets_in=60)
                ),
            }
            headers = {"X-Api-Key": "mine", "Cookie": "a=b", "Proxy-Authorization": "mine"}
            options = {"headers": headers} if whose == "of the session" else {}
            async with Session(X, auth=Bearer("a-token"), **options) as session:
                await session.fetch("/2/act", method=method)
                network.asked.clear()
                await session.fetch(start, method=method, headers=headers)
                assert (elapsed() > 50) == waits
                await assert_at_rest(session)
            assert network.urls[-2:] == [f"{EVIL}/x", f"{API}/2/act"]
            assert "authorization" not in network.asked[-2].secrets
            assert network.asked[-1].secrets == set()

    scene()


@in_virtual_time
async def test_a_call_that_is_sent_back_has_the_cookies_of_the_jar_alone() -> None:
    async with internet(*HOSTS) as network:
        network.routes |= {
            f"{API}/2/start": redirect(f"{EVIL}/x"),
            f"{EVIL}/x": redirect(f"{API}/2/act"),
            f"{API}/2/act": lambda _: web.json_response({}, headers=quota_headers(0, resets_in=60)),
        }
        jar = aiohttp.CookieJar()
        jar.update_cookies({"of-the-jar": "1"}, URL(API))
        async with Session(X, cookie_jar=jar, headers={"Cookie": "of-the-session=1"}) as session:
            await session.fetch("/2/act")
            await session.fetch("/2/start")
        assert elapsed() > 50
        cookies = [each.headers.get("Cookie", "") for each in network.asked]
        both = "of-the-jar=1; of-the-session=1"
        assert cookies == [both, both, "", "of-the-jar=1"]


@in_virtual_time
async def test_own_origins_may_send_a_call_to_each_other_and_it_stays_signed() -> None:
    async with internet(*HOSTS) as network:
        network.routes["https://upload.x.com/2/x"] = redirect(f"{API}/2/y")
        await sent_away(network, "https://upload.x.com/2/x")
        assert network.urls == [f"{API}/2/start", "https://upload.x.com/2/x", f"{API}/2/y"]
        assert [each.secrets for each in network.asked] == [{"authorization"}] * 3


@pytest.mark.parametrize("spent", [0, 9], ids=["after a wait", "at once"])
@pytest.mark.parametrize("auth", [Bearer("a-token"), None], ids=["signed", "unsigned"])
def test_what_a_session_brings_to_one_origin_is_not_sent_on_to_another(
    auth: Bearer | None, spent: int
) -> None:
    @in_virtual_time
    async def scene() -> None:
        async with internet(*HOSTS) as network:
            there = "https://upload.x.com/2/x"
            network.routes |= {
                f"{API}/2/start": redirect(there),
                there: lambda _: web.json_response({}, headers=quota_headers(spent, resets_in=60)),
            }
            headers = {"Cookie": "a=b", "Proxy-Authorization": "mine", "X-Api-Key": "mine"}
            if auth is None:
                headers["Authorization"] = "Bearer mine"
            async with Session(X, auth=auth, headers=headers) as session:
                await session.fetch(there)
                await session.fetch("/2/start")
            assert (elapsed() > 50) == (spent == 0)
            brought = {"x-api-key"} if auth is None else {"x-api-key", "authorization"}
            assert network.asked[-1].secrets == brought

    scene()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "HEAD"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"json": {"a": 1}},
        {"data": b"abc", "headers": {"Content-Length": "3", "X-Mine": "1"}},
        {"headers": {"Content-Type": "text/plain"}},
    ],
    ids=["nothing", "json", "bytes", "headers"],
)
def test_a_redirect_that_waits_sends_on_what_one_at_once_does(
    options: dict[str, Any], method: str, status: int
) -> None:
    async def sent(spent: int) -> list[tuple[str, str, dict[str, str], bytes]]:
        async with internet(*HOSTS) as network:
            there = f"{API}/2/there"
            network.routes |= {
                f"{API}/2/start": redirect(there, status),
                there: lambda _: web.json_response({}, headers=quota_headers(spent, resets_in=60)),
            }
            async with Session(X, auth=Bearer("a-token")) as session:
                becomes_get = status == 303 or (status < 303 and method == "POST")
                becomes = "GET" if becomes_get and method != "HEAD" else method
                await session.request(becomes, there)
                network.asked.clear()
                response = await session.request(method, "/2/start", **options)
                assert response.status == 200
                assert (elapsed() > 50) == (spent == 0)
            return [(one.method, one.url, dict(one.headers), one.body) for one in network.asked]

    assert testing.run(sent(0)) == testing.run(sent(9))


# Into this machine -------------------------------------------------------------------------

INSIDE = [
    "http://127.0.0.1:8080/x",
    "http://127.8.8.8/x",
    "http://localhost/x",
    "http://LOCALHOST./x",
    "http://db.localhost/x",
    "https://[::1]/x",
    "http://[::ffff:127.0.0.1]/x",
    "http://0.0.0.0/x",
    "http://[::]/x",
    "http://169.254.169.254/latest/meta-data",
    "http://[fe80::1]/x",
    # aiohttp takes no other spelling of an address.
    "http://2130706433/x",
    "http://0x7f000001/x",
    "http://0177.0.0.1/x",
    "http://127.1/x",
]


@pytest.mark.parametrize("to", INSIDE)
def test_no_redirect_leads_from_outside_into_this_machine(to: str) -> None:
    @in_virtual_time
    async def scene() -> None:
        async with internet(*HOSTS, "127.0.0.1", "169.254.169.254") as network:
            for status, way in itertools.product((302, 307), ("at once", "by another host")):
                network.asked.clear()
                network.routes[f"{EVIL}/x"] = redirect(to, status)
                first = to if way == "at once" else f"{EVIL}/x"
                outcome = await sent_away(network, first, status=status)
                assert isinstance(outcome, aiohttp.InvalidURL)
                assert network.urls == [f"{API}/2/start", f"{EVIL}/x"][: 1 if first == to else 2]

    scene()


@pytest.mark.parametrize(
    "host", ["api.x.com", "10.0.0.1", "127.0.0.1.example", "", "::2", "1.1", "localhost.example"]
)
def test_other_hosts_are_not_this_machine(host: str) -> None:
    assert not is_local(host)


@in_virtual_time
async def test_a_server_on_this_machine_may_send_a_call_to_another() -> None:
    async with (
        serving(scripted(200), "127.0.0.2") as second,
        serving(scripted(redirect(f"{second.url}/x"))) as first,
        Session(first.url, auth=Bearer("a-token")) as session,
    ):
        await session.fetch("/x")
        assert "Authorization" in first.seen[0].headers
        assert "Authorization" not in second.seen[0].headers


# Without an end ----------------------------------------------------------------------------


@pytest.mark.parametrize("host", [API, EVIL], ids=["at home", "elsewhere"])
@pytest.mark.parametrize("limit", [None, 3])
def test_a_loop_of_redirects_ends_and_costs_what_it_sends(host: str, limit: int | None) -> None:
    @in_virtual_time
    async def scene() -> None:
        async with internet(*HOSTS) as network:
            network.routes |= {f"{host}/a": redirect("b"), f"{host}/b": redirect("a")}
            options = {} if limit is None else {"max_redirects": limit}
            outcome = await sent_away(network, f"{host}/a", **options)
            assert isinstance(outcome, aiohttp.TooManyRedirects)
            assert len(network.asked) == (limit or 10)

    scene()


@in_virtual_time
async def test_what_a_foreign_origin_says_of_quotas_tokens_and_time_is_not_believed() -> None:
    lies = {
        **quota_headers(0, resets_in=900),
        "Date": "Fri, 31 Dec 9999 23:59:59 GMT",
        "WWW-Authenticate": "Bearer",
        "Set-Cookie": "a=b; Domain=api.x.com",
    }
    async with internet(*HOSTS) as network:
        network.routes |= {
            f"{API}/oauth2/token": lambda _: web.json_response(
                {"token_type": "bearer", "access_token": "a-token", "expires_in": 7200}
            ),
            f"{API}/2/start": redirect(f"{EVIL}/x"),
            f"{EVIL}/x": lambda _: web.json_response(
                {"errors": [{"code": 89}]}, status=401, headers=lies
            ),
        }
        async with Session(X, auth=ClientCredentials("a-key", "a-secret")) as session:
            for _ in range(3):
                async with session.get("/2/start") as response:
                    assert response.status == 401
            await session.fetch("/2/other")
            assert elapsed() < 1
            assert session.quota("/2/start").remaining is None
        assert network.urls.count(f"{API}/oauth2/token") == 1
        assert network.asked[-1].secrets == {"authorization"}


@in_virtual_time
async def test_refresh_and_other_ways_to_send_on_are_not_followed() -> None:
    async with internet(*HOSTS) as network:
        for status in (200, 201, 300, 304, 305, 306):
            told = {"Refresh": f"0; url={EVIL}/x", "Location": f"{EVIL}/x", "Link": f"<{EVIL}/x>"}
            network.routes[f"{API}/2/start"] = lambda _, status=status, told=told: web.Response(
                status=status, headers=told
            )
            async with (
                Session(X, auth=Bearer("a-token")) as session,
                session.get("/2/start") as response,
            ):
                assert response.status == status
        assert set(network.urls) == {f"{API}/2/start"}


# Other ways --------------------------------------------------------------------------------


@in_virtual_time
async def test_a_users_own_session_signs_for_no_foreign_origin_either() -> None:
    async with internet(*HOSTS) as network:
        limited = RateLimitMiddleware(Limiter(), apis={X: Bearer("a-token")})
        async with aiohttp.ClientSession(middlewares=[limited]) as session:
            for to, _, own in LEADS:
                network.asked.clear()
                network.routes[f"{API}/2/start"] = redirect(to)
                try:
                    async with session.get(f"{API}/2/start"):
                        pass
                except aiohttp.ClientError:
                    continue
                signed = network.asked[-1].headers.get("Authorization") == "Bearer a-token"
                assert signed == own, to


@in_virtual_time
async def test_no_credential_goes_in_the_clear_through_a_proxy() -> None:
    tokens = {b"/oauth2/token": token()}
    async with hostile(by_path(tokens, answers(200))) as server, hostile(answers(200)) as proxy:
        for auth in (Bearer("a-token"), ClientCredentials("a-key", "a-secret")):
            async with Session(server.url, auth=auth, proxy=proxy.url) as session:
                with pytest.raises(ValueError, match="through a proxy"):
                    await session.fetch("/x")
        async with Session(server.url, proxy=proxy.url) as session:
            await session.fetch("/x")
        assert len(proxy.heads) == 1
        assert server.heads == []


@in_virtual_time
async def test_cookies_of_one_answer_go_into_no_other_call() -> None:
    def sets(_: web.Request) -> web.StreamResponse:
        response = web.json_response({})
        for domain in ("", "; Domain=127.0.0.1", "; Domain=.0.0.1", "; Path=/; SameSite=None"):
            response.headers.add("Set-Cookie", f"id=mine{domain}")
        return response

    async with serving(scripted(sets)) as server, Session(server.url) as session:
        await asyncio.gather(*(session.fetch(f"/{each}") for each in range(5)))
        assert not any("Cookie" in request.headers for request in server.seen)


@in_virtual_time
async def test_an_api_in_the_clear_has_no_credential_to_lose() -> None:
    with pytest.raises(ValueError, match="must be https"):
        Session(plain_api("http://api.example"), auth=Bearer("a-token"))
    with pytest.raises(ValueError, match="must be https"):
        RateLimitMiddleware(Limiter(), apis={plain_api("http://api.example"): Bearer("a-token")})
