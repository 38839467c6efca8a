"""The help family and rate_limit_status, typed."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from aiotwhelp import Help, Language, Session
from aiotwhelp.emulator import Emulator
from tests.stack import in_virtual_time, scripted, serving, session_of


@in_virtual_time
async def test_the_help_family_is_typed() -> None:
    async with Emulator() as api, session_of(api) as session:
        policy = Help(session)
        text = await policy.privacy()
        assert "\n" in text
        assert "\u2019" in text
        assert (await policy.tos()).startswith("Terms of Service")
        languages = await policy.languages()
        assert all(isinstance(each, Language) and each.code for each in languages)
        assert (await policy.configuration())["photo_sizes"]


@in_virtual_time
async def test_rate_limit_status_is_found_by_the_apis_own_templates() -> None:
    async with Emulator(limits={"help/privacy": 7}) as api, session_of(api) as session:
        await Help(session).privacy()
        status = await Help(session).rate_limit_status("help", "statuses")
        assert set(status.resources) == {"help", "statuses"}
        assert (status["/help/privacy"].limit, status["/help/privacy"].remaining) == (7, 6)
        assert status["/statuses/show/:id"].limit == 900
        with pytest.raises(KeyError):
            status["/no/such"]
        assert len((await Help(session).rate_limit_status()).resources) > 10
        assert api.requests[1].params == {"resources": "help,statuses"}
        assert api.requests[2].query == ""


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("privacy", []),
        ("privacy", {"privacy": 1}),
        ("tos", {}),
        ("tos", None),
        ("languages", {}),
        ("languages", [{"code": "pt"}]),
        ("languages", ["pt"]),
        ("configuration", []),
        ("rate_limit_status", {}),
        ("rate_limit_status", {"resources": {"help": {"/help/tos": {"limit": "x"}}}}),
        ("rate_limit_status", {"resources": {"help": {"/help/tos": 3}}}),
    ],
)
def test_an_answer_of_another_shape_is_a_value_error(method: str, answer: Any) -> None:
    @in_virtual_time
    async def scene() -> None:
        async with (
            serving(scripted(lambda _: web.json_response(answer))) as server,
            Session(server.url) as session,
        ):
            with pytest.raises(ValueError, match="expected"):
                await getattr(Help(session), method)()

    scene()


@pytest.mark.parametrize("wrong", [None, "https://api.x.com", Session])
def test_the_help_family_needs_a_session(wrong: Any) -> None:
    with pytest.raises(TypeError, match="session is a Session, not "):
        Help(wrong)
