"""Starlette on uvicorn, with uvloop and httptools."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from .asgi import serve

queue: asyncio.Queue[Any] = asyncio.Queue()
count = 0
# The response is always the same and holds no state of a request.
RECEIVED = JSONResponse({"message": "Event received", "result": True})


async def consume() -> None:
    global count
    while True:
        await queue.get()
        count += 1


async def events(request: Request) -> JSONResponse:
    try:
        event = await request.json()
    except ValueError as error:
        return JSONResponse({"message": f"Invalid JSON: {error}", "result": False}, 400)
    queue.put_nowait(event)
    return RECEIVED


async def counted(request: Request) -> JSONResponse:
    return JSONResponse({"count": count})


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    consumer = asyncio.create_task(consume())
    yield
    consumer.cancel()


app = Starlette(
    routes=[Route("/events", events, methods=["POST"]), Route("/count", counted)],
    lifespan=lifespan,
)

if __name__ == "__main__":
    serve(app)
