"""FastAPI on uvicorn, with uvloop and httptools."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Body, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from .asgi import serve

queue: asyncio.Queue[Any] = asyncio.Queue()
count = 0


async def consume() -> None:
    global count
    while True:
        await queue.get()
        count += 1


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    consumer = asyncio.create_task(consume())
    yield
    consumer.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/events")
async def events(event: Annotated[Any, Body()]) -> dict[str, Any]:
    queue.put_nowait(event)
    return {"message": "Event received", "result": True}


@app.exception_handler(RequestValidationError)
async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    return JSONResponse({"message": f"Invalid JSON: {error}", "result": False}, 400)


@app.get("/count")
async def counted() -> dict[str, int]:
    return {"count": count}


if __name__ == "__main__":
    serve(app)
