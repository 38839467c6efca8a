"""What is known of APIs: the catalogue of X, names of quotas, addresses that are our own."""

from __future__ import annotations

import dataclasses
import datetime
import pickle
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from aiotwhelp.apis import IDEMPOTENT_METHODS, Api, Endpoint, PublishedLimit, X, api_at
from aiotwhelp.headers import X_DIALECT

#: Path, calls per 15 minutes for a user, and with an app's own token (0: not accepted).
READS = """
statuses/mentions_timeline 75 0
statuses/user_timeline 900 1500
statuses/home_timeline 15 0
statuses/retweets_of_me 75 0
statuses/retweets/:id 75 300
statuses/show/:id 900 900
statuses/oembed 180 180
statuses/retweeters/ids 75 300
statuses/lookup 900 300
direct_messages/sent 15 0
direct_messages/show 15 0
search/tweets 180 450
direct_messages 15 0
friendships/no_retweets/ids 15 0
friends/ids 15 15
followers/ids 15 15
friendships/incoming 15 0
friendships/outgoing 15 0
friendships/show 180 15
friends/list 15 15
followers/list 15 15
friendships/lookup 15 0
account/settings 15 0
account/verify_credentials 75 0
blocks/list 15 0
blocks/ids 15 0
users/lookup 900 300
users/show 900 900
users/search 900 0
users/profile_banner 180 0
mutes/users/ids 15 0
mutes/users/list 15 0
users/suggestions/:slug 15 15
users/suggestions 15 15
users/suggestions/:slug/members 15 15
favorites/list 75 75
lists/list 15 15
lists/statuses 900 900
lists/memberships 75 75
lists/subscribers 180 15
lists/subscribers/show 15 15
lists/members/show 15 15
lists/members 900 75
lists/show 75 75
lists/subscriptions 15 15
lists/ownerships 15 15
saved_searches/list 15 0
saved_searches/show/:id 15 0
geo/id/:place_id 75 0
geo/reverse_geocode 15 0
geo/search 15 0
trends/place 75 75
trends/available 75 75
application/rate_limit_status 180 180
help/configuration 15 15
help/languages 15 15
help/privacy 15 15
help/tos 15 15
trends/closest 75 75
"""

WRITES = """
statuses/destroy/:id
statuses/update
statuses/retweet/:id
statuses/unretweet/:id
statuses/update_with_media
direct_messages/destroy
direct_messages/new
friendships/create
friendships/destroy
friendships/update
account/settings
account/update_profile
account/update_profile_image
blocks/create
blocks/destroy
account/remove_profile_banner
account/update_profile_banner
mutes/users/create
mutes/users/destroy
favorites/destroy
favorites/create
lists/members/destroy
lists/subscribers/create
lists/subscribers/destroy
lists/members/create_all
lists/members/create
lists/destroy
lists/update
lists/create
lists/members/destroy_all
saved_searches/create
saved_searches/destroy/:id
geo/place
users/report_spam
"""

USER_WINDOWED = {  # writes whose published limits span hours, not 15 minutes
    "statuses/update": (300, 3 * 3600),
    "statuses/retweet/:id": (300, 3 * 3600),
    "friendships/create": (400, 24 * 3600),
    "favorites/create": (1000, 24 * 3600),
}


def rows(table: str) -> list[tuple[str, ...]]:
    return [tuple(line.split()) for line in table.split("\n") if line]


def concrete(path: str) -> str:
    """A path as it is really asked for: placeholders filled with a word no rule knows."""
    return f"/1.1/{re.sub(r':[a-z_]+', 'some-word', path)}.json"


@pytest.mark.parametrize(("path", "user", "app"), rows(READS), ids=lambda text: text)
def test_each_read_of_v1_is_found_with_its_limits(path, user, app):
    endpoint = X.endpoint("GET", concrete(path))
    assert endpoint is not None
    assert endpoint.method == "GET"
    assert endpoint.template == re.sub(r":([a-z_]+)", r"{\1}", f"/1.1/{path}.json")
    assert endpoint.user_limit == int(user)
    assert endpoint.app_limit == (int(app) or None)
    assert endpoint.app_auth == (app != "0")
    assert endpoint.family == path.split("/")[0]


@pytest.mark.parametrize("path", [path for (path,) in rows(WRITES)])
def test_each_write_of_v1_is_found_and_has_no_15_minute_limit(path):
    endpoint = X.endpoint("POST", concrete(path))
    assert endpoint is not None
    assert endpoint.method == "POST"
    assert endpoint.user_limit is None
    assert endpoint.app_limit is None
    assert not endpoint.app_auth
    limit, length = USER_WINDOWED.get(path, (None, 24 * 3600))
    assert endpoint.limit("user", length) == limit


def test_the_catalogue_holds_each_endpoint_once():
    names = [endpoint.name for endpoint in X.endpoints]
    assert len(names) == len(set(names)) == len(X.endpoints)
    first = [endpoint for endpoint in X.endpoints if endpoint.template.startswith("/1.1/")]
    assert len(first) == 93
    assert sum(endpoint.method == "GET" for endpoint in first) == 59
    assert all(endpoint in X.endpoints for endpoint in first)
    assert "GET /2/users/me" not in X.endpoints


def test_every_endpoint_finds_itself_by_its_own_template():
    for endpoint in X.endpoints:
        assert X.template(endpoint.method, endpoint.template) == endpoint.template
        assert X.endpoint(endpoint.method, endpoint.template) is endpoint


@pytest.mark.parametrize(
    ("method", "path", "limits"),
    [
        ("GET", "/2/tweets", {("user", 5000, 900), ("app-only", 3500, 900)}),
        ("GET", "/2/tweets/7", {("user", 900, 900), ("app-only", 450, 900)}),
        ("GET", "/2/tweets/search/recent", {("user", 300, 900), ("app-only", 450, 900)}),
        (
            "GET",
            "/2/tweets/search/all",
            {("user", 1, 1), ("app-only", 1, 1), ("app-only", 300, 900)},
        ),
        ("POST", "/2/tweets", {("user", 100, 900), ("app", 10000, 86400)}),
        ("POST", "/2/users/7/likes", {("user", 50, 900), ("user", 1000, 86400)}),
        ("GET", "/2/users/me", {("user", 75, 900)}),
        ("GET", "/2/users/7/tweets", {("user", 900, 900), ("app-only", 10000, 900)}),
        ("GET", "/2/tweets/search/stream", {("app-only", 50, 900)}),
        ("POST", "/2/media/upload", {("user", 500, 900), ("app", 50000, 86400)}),
        (
            "POST",
            "/2/dm_conversations/with/7/messages",
            {("user", 15, 900), ("user", 1440, 86400)},
        ),
        (
            "POST",
            "/1.1/statuses/update.json",
            {("user", 300, 10800), ("app", 300, 10800)},
        ),
        (
            "GET",
            "/1.1/statuses/user_timeline.json",
            {("user", 900, 900), ("app-only", 1500, 900), ("app", 100_000, 86400)},
        ),
    ],
)
def test_an_endpoint_may_have_several_limits_at_once(method, path, limits):
    endpoint = X.endpoint(method, path)
    assert {(each.scope, each.limit, each.length) for each in endpoint.limits} == limits
    assert len(endpoint.limits) == len(limits)


def test_limits_of_the_catalogue_speak_one_language():
    limits = [limit for endpoint in X.endpoints for limit in endpoint.limits]
    assert {limit.scope for limit in limits} == {"user", "app-only", "app"}
    assert {limit.length for limit in limits} == {1, 900, 10800, 86400}
    assert all(limit.limit > 0 for limit in limits)
    app_only = [e for e in X.endpoints if any(x.scope == "app-only" for x in e.limits)]
    assert all(endpoint.app_auth for endpoint in app_only)


# --- endpoints that ended ------------------------------------------------------------------


def test_a_retired_endpoint_says_when_and_what_now():
    privacy = X.endpoint("GET", "/1.1/help/privacy.json")
    assert privacy.retired == datetime.date(2019, 6, 10)
    assert privacy.farewell == (
        "GET /1.1/help/privacy.json was retired on 2019-06-10; "
        "there is no replacement: the policy is at https://x.com/privacy"
    )


def test_the_days_of_retirement():
    retired = {e.template: e.retired.isoformat() for e in X.endpoints if e.retired}
    assert retired == {
        "/1.1/help/privacy.json": "2019-06-10",
        "/1.1/help/tos.json": "2019-06-10",
        "/1.1/help/configuration.json": "2021-06-18",
        "/1.1/direct_messages.json": "2018-09-17",
        "/1.1/direct_messages/sent.json": "2018-09-17",
        "/1.1/direct_messages/show.json": "2018-09-17",
        "/1.1/direct_messages/new.json": "2018-09-17",
        "/1.1/direct_messages/destroy.json": "2018-09-17",
    }


def test_an_endpoint_without_a_day_of_retirement_may_still_have_a_successor():
    show = X.endpoint("GET", "/1.1/statuses/show/7.json")
    assert show.farewell == (
        "GET /1.1/statuses/show/{id}.json may have been withdrawn; use GET /2/tweets/{id}"
    )
    assert X.endpoint("GET", "/2/users/me").farewell is None
    assert Endpoint("GET", "/a", retired=datetime.date(2020, 1, 2)).farewell == (
        "GET /a was retired on 2020-01-02"
    )


def test_every_successor_of_v2_that_a_hint_names_is_in_the_catalogue():
    named = [
        found
        for endpoint in X.endpoints
        for found in re.findall(r"(GET|POST|PUT|DELETE) (/2/\S+)", endpoint.hint.replace(";", " "))
    ]
    assert len(named) > 40
    for method, template in named:
        assert X.endpoint(method, template) is not None, f"{method} {template}"


# --- names of quotas -----------------------------------------------------------------------


def test_a_quota_is_named_by_method_and_template():
    assert X.quota_name("GET", "/1.1/help/privacy.json") == "GET /1.1/help/privacy.json"
    assert X.quota_name("get", "/2/users/12/tweets?max_results=5") == "GET /2/users/{id}/tweets"
    assert X.quota_name("GET", "/2/unknown/12") == "GET /2/unknown/{id}"


def test_case_37_endpoints_of_one_category_share_a_quota():
    update = X.quota_name("POST", "/1.1/statuses/update.json")
    assert X.quota_name("POST", "/1.1/statuses/retweet/123.json") == update
    assert X.quota_name("POST", "/1.1/statuses/unretweet/123.json") != update
    assert update not in {endpoint.name for endpoint in X.endpoints}


def test_case_37_get_and_post_of_one_path_are_two_quotas():
    path = "/1.1/account/settings.json"
    assert X.quota_name("GET", path) != X.quota_name("POST", path)
    assert X.template("GET", path) == X.template("POST", path)


def test_case_37_two_endpoints_never_share_without_a_category():
    named = [X.quota_name(endpoint.method, endpoint.template) for endpoint in X.endpoints]
    assert len(set(named)) == len(named) - (len(X.categories) - 1)


def test_all_values_of_a_placeholder_are_one_quota():
    names = {
        X.quota_name("GET", path)
        for path in (
            "/1.1/geo/id/df51dec6f4ee2b2c.json",
            "/1.1/geo/id/7.json",
            "/1.1/geo/id/a-b_c.json",
            "/1.1/geo/id/{place_id}.json",
            "/1.1/geo/id/{id}.json",
            "https://api.x.com/1.1/geo/id/x.json",
            URL("https://api.x.com/1.1/geo/id/y.json"),
        )
    }
    assert names == {"GET /1.1/geo/id/{place_id}.json"}


def test_a_path_with_dots_is_named_as_it_will_be_sent():
    assert X.template("GET", "/2/users/../tweets") == "/2/tweets"
    assert X.template("GET", "/2/users/%2e%2E/tweets") == "/2/tweets"
    assert X.template("GET", "/2/users/./12") == "/2/users/{id}"


def test_a_users_own_categories_may_name_placeholders_freely():
    api = dataclasses.replace(
        X, categories={"GET /2/users/{user}/tweets": "reads", "get /2/lists/{x}/tweets": "reads"}
    )
    assert api.quota_name("GET", "/2/users/1/tweets") == "reads"
    assert api.quota_name("GET", "/2/lists/2/tweets") == "reads"
    assert api.quota_name("POST", "/1.1/statuses/update.json") == "POST /1.1/statuses/update.json"


def test_categories_make_templates_known():
    api = Api("mine", "https://api.example", categories={"GET /things/{name}": "things"})
    assert api.quota_name("GET", "/things/some-word") == "things"
    assert api.quota_name("GET", "/others/some-word") == "GET /others/some-word"


def test_an_api_of_ones_own():
    limit = PublishedLimit("user", 60, 60)
    api = Api(
        "mine", "https://api.example/v2/", endpoints=[Endpoint("get", "/u/{u}", limits=(limit,))]
    )
    assert api.base_url == "https://api.example/v2"
    assert api.url("/u/jack") == "https://api.example/v2/u/jack"
    assert api.endpoint("GET", "/u/jack").limit("user", 60) == 60
    assert api.endpoint("GET", "https://api.example/v2/u/jack").family == "{u}"
    assert api.template("GET", "https://other.example/v2/u/jack") == "/v2/u/jack"
    assert api.endpoint("POST", "/u/jack") is None
    assert Endpoint("GET", "/users").family == "users"


# --- addresses -----------------------------------------------------------------------------


def test_x_lives_where_it_is_documented():
    assert X.base_url == "https://api.x.com"
    assert X.dialect is X_DIALECT
    assert X.url("/1.1/help/privacy.json") == "https://api.x.com/1.1/help/privacy.json"
    assert X.url(X.token_path) == "https://api.x.com/oauth2/token"
    assert X.url(X.invalidate_path) == "https://api.x.com/oauth2/invalidate_token"
    assert X.url(X.user_token_path) == "https://api.x.com/2/oauth2/token"
    assert X.idempotent == IDEMPOTENT_METHODS
    assert "POST" not in X.idempotent
    assert "PATCH" not in X.idempotent


@pytest.mark.parametrize(
    "url",
    [
        "https://api.x.com",
        "https://api.x.com/2/users/me?a=b#c",
        "https://API.X.COM/",
        "https://api.x.com./",
        "https://api.x.com:443/",
        "https://api.twitter.com/1.1/x.json",
        "https://upload.twitter.com/1.1/media/upload.json",
        "https://upload.x.com/1.1/media/upload.json",
        "https://api.x.com/@evil.example",
        "https://api。x.com/",
        URL("https://api.x.com/2/users/me"),
    ],
    ids=str,
)
def test_case_41_credentials_may_go_to_the_own_origins(url):
    assert X.is_own(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://api.x.com/",
        "http://api.x.com:443/",
        "https://api.x.com:8443/",
        "https://x.com/",
        "https://evil.example/api.x.com",
        "https://api.x.com.evil.example/",
        "https://evil-api.x.com/",
        "https://api.x.com../",
        "https://api.x.com@evil.example/",
        "https://api.x.com:443@evil.example/",
        "https://api.x.com\\@evil.example/",
        "https://evil.example#@api.x.com",
        "https://evil.example?@api.x.com",
        "https://user@api.x.com/",
        "https://user:secret@api.x.com/",
        "https://@api.x.com/",
        "https://:@api.x.com/",
        "https://api.x.com%2eevil.example/",
        "https://аpi.x.com/",  # a Cyrillic a
        "wss://api.x.com/",
        "ftp://api.x.com/",
        "file:///api.x.com",
        "//api.x.com/",
        "/2/users/me",
        "api.x.com",
        "",
        "https://",
        "https:///api.x.com",
        "https:api.x.com/",
        "https://api.x.com:99999/",
        "https://[api.x.com]/",
        "https://[api.x.com]@",
        "http://localhost/",
        "https://[::1]/",
        None,
        7,
    ],
    ids=str,
)
def test_case_41_credentials_go_to_no_foreign_origin(url):
    assert not X.is_own(url)


@pytest.mark.parametrize(
    ("base", "own", "foreign"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/x", "http://127.0.0.1:8081/x"),
        ("http://127.9.8.7", "http://127.9.8.7:80/x", "https://127.9.8.7/x"),
        ("http://localhost:80", "http://LOCALHOST/x", "http://127.0.0.1/x"),
        ("http://[::1]:8080/", "http://[0:0:0:0:0:0:0:1]:8080/x", "http://[::1]:80/x"),
        ("https://bücher.example", "https://xn--bcher-kva.example/", "https://bucher.example/"),
        ("https://api.example/v2", "https://api.example/other", "http://api.example/v2"),
    ],
)
def test_an_api_at_another_address_owns_that_address_only(base, own, foreign):
    api = X.at(base)
    assert api.is_own(own)
    assert not api.is_own(foreign)
    assert not api.is_own("https://api.x.com/")
    assert api.url("/2/users/me").startswith(api.base_url + "/2/")
    assert api.quota_name("POST", "/1.1/statuses/update.json") == "POST statuses"


@pytest.mark.parametrize(
    "base",
    ["http://192.168.0.7:8080", "http://api.example", "http://0.0.0.0", "http://127.1", "http://1"],
)
def test_credentials_never_go_in_the_clear_beyond_this_host(base):
    assert not X.at(base).is_own(f"{base}/2/users/me")


def test_the_template_of_a_url_is_that_of_the_path_below_the_base():
    api = X.at("http://127.0.0.1:8080/fake/x/")
    whole = api.url("/2/users/12")
    assert whole == "http://127.0.0.1:8080/fake/x/2/users/12"
    assert api.template("GET", whole) == "/2/users/{id}"
    assert api.template("GET", URL(whole)) == "/2/users/{id}"
    assert api.template("GET", "/2/users/12") == "/2/users/{id}"
    assert api.template("GET", "/2/./users/12") == "/2/users/{id}"


def test_a_whole_url_is_kept():
    for url in ("https://api.x.com/2/users/me", "http://other.example/a?b=c"):
        assert X.url(url) == url
        assert X.url(URL(url)) == url
    assert X.url(URL("/2/users/me?x=1")) == "https://api.x.com/2/users/me?x=1"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("2/users/me", "must start with one slash"),
        ("", "must start with one slash"),
        ("//evil.example/x", "must start with one slash"),
        ("mailto:a", "must start with one slash"),
        ("javascript:alert(1)", "must start with one slash"),
        ("ftp://api.x.com/x", "not an http or https URL"),
        ("https:///x", "not an http or https URL"),
        ("https://api.x.com:99999/", "not a URL"),
        ("https://user@api.x.com/", "pass auth="),
        ("https://@api.x.com/", "pass auth="),
        ("/2/users/a\r\nHost: evil", "control characters"),
        ("https://api.x.com/\x00", "control characters"),
    ],
)
def test_a_url_that_cannot_be_asked_for_is_refused_in_clear_words(path, text):
    with pytest.raises(ValueError, match=text):
        X.url(path)


def test_a_url_that_is_none_has_no_template():
    with pytest.raises(ValueError, match="not a URL"):
        X.template("GET", "https://[::1]@")


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@api.x.com/",
        "https://user:hunter2@api.x.com:99999/",
        "https://user:hunter2#@api.x.com/",
        "https://user:hunter2/@api.x.com",
        "ftp://user:hunter2@api.x.com/",
        "//user:hunter2@api.x.com/",
        "https://user:hunter2@api.x.com/\r\n",
    ],
)
def test_a_password_in_a_url_is_in_no_error(url):
    for refuse in (X.url, X.at, api_at):
        with pytest.raises(ValueError, match=r"^(?!.*hunter2)") as caught:
            refuse(url)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/",
        "api.x.com",
        "ftp://api.x.com",
        "https://a.example?x=1",
        "https://a.example/#x",
        "https://[::1]@",
    ],
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match=r"URL|address"):
        X.at(url)
    with pytest.raises(ValueError, match=r"URL|address"):
        Api("mine", "https://api.example", origins=(url,))


@given(st.text())
def test_no_text_at_all_is_our_own_unless_it_leads_to_us(text):
    for url in (text, f"https://{text}", f"https://api.x.com{text}", f"https://{text}api.x.com"):
        if X.is_own(url):
            sub, _, domain = URL(url).raw_host.rstrip(".").partition(".")
            assert sub in {"api", "upload"}
            assert domain in {"x.com", "twitter.com"}
            assert URL(url).scheme == "https"
            assert URL(url).raw_user is None


def test_an_address_alone_makes_an_api():
    api = api_at("http://127.0.0.1:8080/")
    assert api.name == "127.0.0.1"
    assert api.is_own("http://127.0.0.1:8080/x")
    assert api.quota_name("GET", "/2/users/12") == "GET /2/users/{id}"
    assert api.endpoint("GET", "/2/users/12") is None
    assert api.token_path is None


# --- a value -------------------------------------------------------------------------------


def test_equal_facts_are_equal_and_hashable():
    there = X.at("http://127.0.0.1:1")
    assert there == X.at("http://127.0.0.1:1/")
    assert hash(there) == hash(X.at("http://127.0.0.1:1/"))
    assert there != X
    assert X.at("https://api.x.com") != X  # its credentials go to fewer places
    assert pickle.loads(pickle.dumps(X)) == X


def test_repr_tells_the_address_and_little_more():
    assert repr(api_at("http://127.0.0.1:8080")) == (
        "Api(name='127.0.0.1', base_url='http://127.0.0.1:8080', "
        "origins=('http://127.0.0.1:8080',))"
    )


def test_facts_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        X.base_url = "https://evil.example"  # type: ignore[misc] - the error is the point


def test_importing_the_catalogue_reads_no_file():
    code = (
        "from aiotwhelp import apis\n"
        "assert apis._load.cache_info().currsize == 0\n"
        "apis.X.at('http://127.0.0.1:1'), hash(apis.X), repr(apis.X)\n"
        "assert apis._load.cache_info().currsize == 0\n"
        "assert apis.X.endpoint('GET', '/2/users/me').user_limit == 75\n"
        "assert apis._load.cache_info().currsize == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
