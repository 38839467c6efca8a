"""From paths to the templates that name quotas, and back."""

from __future__ import annotations

import uuid
from enum import IntEnum, StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from aiotwhelp.routes import Routes, expand, generic_template

UUID = "123e4567-e89b-12d3-a456-426614174000"


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/2/users/12/tweets", "/2/users/{id}/tweets"),
        ("/2/users/me", "/2/users/me"),
        ("/1.1/statuses/show/123.json", "/1.1/statuses/show/{id}.json"),
        ("/1.1/help/privacy.json", "/1.1/help/privacy.json"),
        (f"/files/{UUID}", "/files/{id}"),
        (f"/files/{UUID.upper()}.json", "/files/{id}.json"),
        (f"/files/{UUID.replace('-', '')}", "/files/{id}"),
        ("/objects/0123456789abcdef", "/objects/{id}"),
        ("/objects/0123456789abcde", "/objects/0123456789abcde"),
        ("/objects/0123456789abcdeg", "/objects/0123456789abcdeg"),
        (f"/files/{UUID[:-1]}g", f"/files/{UUID[:-1]}g"),
        ("/users/0", "/users/{id}"),
        ("/users/12a", "/users/12a"),
        ("/users/-12", "/users/-12"),
        ("/users/١٢", "/users/١٢"),
        ("/2", "/2"),
        ("/12/34", "/12/{id}"),
        ("/123/users", "/{id}/users"),
        ("/a/2", "/a/{id}"),
        ("/", "/"),
        ("", "/"),
        ("/.json", "/.json"),
        ("/a/.json", "/a/.json"),
    ],
)
def test_the_generic_rule(path, template):
    assert generic_template(path) == template


@pytest.mark.parametrize(
    "path",
    ["/2/users/12/", "//2//users///12", "2/users/12", "/2/users/12?x=/9", "/2/users/12#a/b?c"],
)
def test_empty_segments_trailing_slashes_and_queries_do_not_matter(path):
    assert generic_template(path) == "/2/users/{id}"


@pytest.mark.parametrize("path", ["/2/%75sers/%31%32", "/2/users/1%32", "/2/user%73/12"])
def test_needless_encoding_does_not_make_another_quota(path):
    assert generic_template(path) == "/2/users/{id}"
    assert Routes([("GET", "/2/users/{id}")]).match("GET", path) == "/2/users/{id}"


def test_an_encoded_slash_is_no_border_between_segments():
    assert generic_template("/a/12%2F34") == "/a/12%2F34"
    assert Routes([("GET", "/a/{id}/b")]).match("GET", "/a/x%2Fy/b") == "/a/{id}/b"
    assert Routes([("GET", "/a/{id}/b")]).match("GET", "/a%2F12%2Fb") == "/a%2F12%2Fb"


def test_any_name_of_a_placeholder_is_the_same_template():
    assert generic_template("/a/{user_id}/b/{x}.json") == "/a/{id}/b/{id}.json"
    routes = Routes([("GET", "/2/users/{id}/tweets")])
    assert routes.match("GET", "/2/users/{user_id}/tweets") == "/2/users/{id}/tweets"


def test_a_key_never_grows_with_the_path():
    assert generic_template("/a/" + "x" * 10_000) == "/a/{id}"
    assert generic_template("/a" * 10_000) == "/a" * 16 + "/{rest}"
    assert len(generic_template("/%zz" * 10_000 + ".json")) < 100


@given(st.text(max_size=200) | st.lists(st.sampled_from(["a", "12", ".json", "%2F", "{b}", ""])))
def test_a_template_is_its_own_template(path):
    path = path if isinstance(path, str) else "/".join(path)
    template = generic_template(path)
    assert template.startswith("/")
    assert generic_template(template) == template
    assert Routes([]).match("GET", path) == template


# --- known routes --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def routes() -> Routes:
    return Routes(
        [
            ("GET", "/2/users/{id}"),
            ("DELETE", "/2/users/{user_id}"),
            ("GET", "/2/users/me"),
            ("GET", "/2/users/{id}/tweets"),
            ("GET", "/2/users/by/username/{username}"),
            ("GET", "/1.1/statuses/show/{id}.json"),
            ("GET", "/1.1/users/suggestions.json"),
            ("GET", "/1.1/users/suggestions/{slug}.json"),
            ("GET", "/1.1/users/suggestions/{slug}/members.json"),
            ("GET", "/files/{name}"),
        ]
    )


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/2/users/12", "/2/users/{id}"),
        ("/2/users/me", "/2/users/me"),
        ("/2/users/me/", "/2/users/me"),
        ("/2/users/jack", "/2/users/{id}"),
        ("/2/users/me/tweets", "/2/users/{id}/tweets"),  # a literal that leads nowhere
        ("/2/users/by/tweets", "/2/users/{id}/tweets"),
        ("/2/users/by/username/jack", "/2/users/by/username/{username}"),
        ("/2/users/by/username/12", "/2/users/by/username/{username}"),
        ("/1.1/statuses/show/12.json", "/1.1/statuses/show/{id}.json"),
        ("/1.1/statuses/show/12", "/1.1/statuses/show/{id}"),  # not known without its suffix
        ("/1.1/users/suggestions.json", "/1.1/users/suggestions.json"),
        ("/1.1/users/suggestions/art.json", "/1.1/users/suggestions/{slug}.json"),
        ("/1.1/users/suggestions/art/members.json", "/1.1/users/suggestions/{slug}/members.json"),
        ("/files/report.json", "/files/{name}"),
        ("/files/report.pdf", "/files/{name}"),
        ("/2/unknown/12", "/2/unknown/{id}"),
        ("/2/users", "/2/users"),
        ("/", "/"),
    ],
)
def test_a_path_finds_its_known_template_or_the_generic_one(routes, path, template):
    assert routes.match("GET", path) == template
    assert routes.match("get", path) == template


def test_each_method_may_spell_its_placeholder_in_its_own_way(routes):
    assert routes.match("DELETE", "/2/users/12") == "/2/users/{user_id}"
    assert routes.match("DELETE", "/2/users/me") == "/2/users/{user_id}"


def test_an_unknown_method_still_finds_the_template_of_the_path(routes):
    assert routes.match("HEAD", "/2/users/by/username/jack") == "/2/users/by/username/{username}"


def test_a_walk_visits_no_more_than_the_tree_holds():
    # Both ways are open at the first level only; an endless path ends with the tree.
    depth = 16
    routes = Routes([("GET", "/a" * depth), ("GET", "/{id}" * depth + "/end")])
    assert routes.match("GET", "/a" * depth + "/end") == "/{id}" * depth + "/end"
    assert routes.match("GET", "/a" * 100_000) == generic_template("/a" * 100_000)


# --- expand --------------------------------------------------------------------------------


class Color(StrEnum):
    RED = "red"


class Number(IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    ("value", "segment"),
    [
        (12, "12"),
        (2**70, str(2**70)),
        ("jack", "jack"),
        (uuid.UUID(UUID), UUID),
        (Number.ONE, "1"),
        (Color.RED, "red"),
        ("a/b", "a%2Fb"),
        ("../../etc", "..%2F..%2Fetc"),
        ("%2e%2e", "%252e%252e"),
        ("...", "..."),
        ("a?b#c", "a%3Fb%23c"),
        ("a\r\nHost: evil", "a%0D%0AHost%3A%20evil"),
        ("\x00", "%00"),
        ("☃", "%E2%98%83"),
        ("{id}", "%7Bid%7D"),
        ("a;b=c&d@e:f", "a%3Bb%3Dc%26d%40e%3Af"),
        ("\\1", "%5C1"),
    ],
)
def test_a_value_stays_one_segment(value, segment):
    assert expand("/2/users/{id}/tweets", {"id": value}) == f"/2/users/{segment}/tweets"


def test_a_template_may_have_several_placeholders_and_a_suffix():
    path = expand("/1.1/{a}/{b}/{a}.json", {"a": 1, "b": "{a}"})
    assert path == "/1.1/1/%7Ba%7D/1.json"


def test_the_work_grows_with_the_number_of_placeholders_and_not_with_its_square():
    class Name(str):
        compared = 0

        def __eq__(self, other):
            Name.compared += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    many = 1000
    template = "".join(f"/{{n{number}}}" for number in range(many))
    params = {Name(f"n{number}"): number for number in range(many)}
    assert expand(template, params) == "".join(f"/{number}" for number in range(many))
    assert Name.compared < 10 * many


def test_a_path_without_placeholders_stays_as_it_is():
    assert expand("/2/users/me") == "/2/users/me"
    assert expand("/2/users/me", {}) == "/2/users/me"


@pytest.mark.parametrize("value", ["", ".", ".."])
def test_a_value_that_would_lead_elsewhere_is_refused(value):
    with pytest.raises(ValueError, match="check the value before the call"):
        expand("/2/users/{id}", {"id": value})


def test_a_value_that_is_not_unicode_is_refused():
    with pytest.raises(ValueError, match="lone surrogate"):
        expand("/2/users/{id}", {"id": "\ud800"})


@pytest.mark.parametrize("value", [None, True, False, 1.0, b"12", ["1"], object()])
def test_a_value_of_another_type_is_refused(value):
    with pytest.raises(TypeError, match="pass a str, an int or a UUID"):
        expand("/2/users/{id}", {"id": value})


def test_a_missing_value_is_named():
    with pytest.raises(ValueError, match=r"needs path_params for id, tweet_id"):
        expand("/2/users/{id}/likes/{tweet_id}")


def test_an_unknown_value_is_named():
    with pytest.raises(ValueError, match=r"has no placeholder for 'user_id'"):
        expand("/2/users/{id}", {"id": 1, "user_id": 2})
    with pytest.raises(ValueError, match=r"has no placeholder for 'id'"):
        expand("/2/users/me", {"id": 1})


@pytest.mark.parametrize("template", ["/a/{id", "/a/id}", "/a/{}", "/a/{{id}}", "/a/{b/c}"])
def test_a_broken_template_is_refused(template):
    with pytest.raises(ValueError, match="write placeholders as"):
        expand(template, {"id": 1})


@given(st.text(min_size=1))
def test_no_value_leaves_its_segment_on_the_wire(value):
    template = "/2/users/{id}/tweets"
    try:
        path = expand(template, {"id": value})
    except ValueError:
        return
    url = URL("https://api.x.com" + path)
    assert url.host == "api.x.com"
    assert url.raw_path.count("/") == 4
    assert not url.raw_query_string
    assert not url.raw_fragment
    assert url.parts[3] == value
    assert Routes([("GET", template)]).match("GET", url.raw_path) == template
