"""ASGI middleware in front of everything: request id, who calls and how often, a byte count before the body is read.

Starlette spools uploads to disk before a handler runs, so a check inside the handler would come too late.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import secrets
import time
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from animate4d.serve.clients import COOKIE, RateLimit, Tokens
from animate4d.serve.config import LOOPBACK, ServeConfig
from animate4d.serve.problems import problem

logger = logging.getLogger(__name__)

READING = ("GET", "HEAD")
HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]


class Gate:
    """Lets a request in, or answers 400, 401, 403, 408, 413 or 429; logs each with its id.

    Without tokens only requests addressed to this machine by name are let in, so that no web page can reach the service
    by making its own name point here; and with or without, none that writes comes from another site's page.
    """

    def __init__(self, app: ASGIApp, *, config: ServeConfig, tokens: Tokens | None) -> None:
        self.app, self.tokens = app, tokens
        self.max_bytes = config.max_upload_mb * 10**6
        self.upload_seconds = config.upload_seconds
        self.rate = RateLimit(config.requests_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0
        request = Request(scope)
        request.state.request_id = secrets.token_hex(8)

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                mine = (b"request-id", request.state.request_id.encode())
                message["headers"] = [*message["headers"], mine, *HEADERS]
            await send(message)

        try:
            self._check(request)
        except HTTPException as refusal:
            headers = dict(refusal.headers or {})
            await problem(request, refusal.status_code, refusal.detail, headers)(scope, receive, tagged)
        else:
            await self.app(scope, self._counted(receive), tagged)
        finally:
            self._log(request, status, time.perf_counter() - begun)

    def _check(self, request: Request) -> None:
        """Raise an HTTPException for a request that is not let in, else note whose it is."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if self.tokens is None and urlsplit(f"//{host}").hostname not in LOOPBACK:
            raise HTTPException(403, "without tokens this service answers to the names of its own machine only")
        if origin is not None and request.method not in READING and urlsplit(origin).netloc != host:
            raise HTTPException(403, f"a page of {origin[:80]} may not write here")
        request.state.client = request.client.host if request.client else ""
        if request.url.path.startswith("/v1/"):
            if self.tokens is not None:
                request.state.client = self._named(request, self.tokens)
            if wait := self.rate.wait(request.state.client):
                detail = "too many requests; come again after Retry-After seconds"
                raise HTTPException(429, detail, {"Retry-After": str(math.ceil(wait))})
        declared = request.headers.get("content-length", "0")
        if not (declared.isascii() and declared.isdigit()):
            raise HTTPException(400, "Content-Length is no number")
        if int(declared) > self.max_bytes:
            raise HTTPException(413, self._too_large())

    def _named(self, request: Request, tokens: Tokens) -> str:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not given and request.method in READING:
            given = request.cookies.get(COOKIE, "")
        name = tokens.name(given)
        if name is None:
            wanted = {"WWW-Authenticate": "Bearer"}
            raise HTTPException(401, "send the header Authorization: Bearer <token>", wanted)
        return name

    def _counted(self, receive: Receive) -> Receive:
        """Return a `receive` that ends a body which is too large or arrives too slowly."""
        seen, whole = 0, False
        until = time.monotonic() + self.upload_seconds

        async def counted() -> Message:
            nonlocal seen, whole
            if whole:
                return await receive()  # from now on only the end of the connection comes, whenever it comes
            try:
                async with asyncio.timeout(until - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"the body did not arrive within {self.upload_seconds} s") from None
            seen += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if seen > self.max_bytes:
                raise HTTPException(413, self._too_large())
            return message

        return counted

    def _too_large(self) -> str:
        return f"the body is larger than {self.max_bytes // 10**6} MB"

    def _log(self, request: Request, status: int, seconds: float) -> None:
        """Write one line; JSON keeps what a client wrote from looking like another line."""
        facts = {
            "request": request.state.request_id,
            "client": getattr(request.state, "client", ""),
            "method": request.method,
            "path": request.url.path[:200],
            "status": status,
            "ms": round(1e3 * seconds, 1),
        }
        logger.info(json.dumps(facts))
