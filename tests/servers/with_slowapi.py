"""Starlette with slowapi, on uvicorn. SETTINGS: arguments of Limiter."""

import json
import socket
import sys
import time

import uvicorn
from slowapi import Limiter, _rate_limit_exceeded_handler
from slowapi.errors import RateLimitExceeded
from slowapi.middleware import SlowAPIMiddleware
from slowapi.util import get_remote_address
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

descriptor, settings = sys.argv[1:]
journal: list[str] = []
limiter = Limiter(get_remote_address, **json.loads(settings))


async def answer(request: Request) -> JSONResponse:
    return JSONResponse({})


app = Starlette(routes=[Route("/{path:path}", answer)])
app.state.limiter = limiter
app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)
app.add_middleware(SlowAPIMiddleware)


async def noting(scope: Scope, receive: Receive, send: Send) -> None:
    async def note(message: Message) -> None:
        if message["type"] == "http.response.start":
            journal.append(f"{time.time()} {message['status']}\n")
        await send(message)

    if scope["path"] == "/-/journal":
        await PlainTextResponse("".join(journal))(scope, receive, send)
    else:
        await app(scope, receive, note)


server = uvicorn.Server(uvicorn.Config(noting, log_level="warning", lifespan="off"))
server.run(sockets=[socket.socket(fileno=int(descriptor))])
