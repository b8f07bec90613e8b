"""What every answer has in common: a request id, a bound on the body, an optional token, and errors as problem+json."""

from __future__ import annotations

import hmac
import logging
import secrets
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)


def problem(
    request: Request, status: int, title: str, detail: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Return an RFC 9457 problem answer that carries the request id."""
    body = {"type": "about:blank", "status": status, "title": title, "detail": detail}
    body["instance"] = request.url.path
    body["request_id"] = request.state.request_id
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def install_problems(app: FastAPI) -> None:
    """Answer every error of an app as problem+json; what is our fault is logged with its request id."""

    @app.exception_handler(StarletteHTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        titles = {
            401: "Unauthorized",
            404: "Not found",
            405: "Method not allowed",
            409: "Conflict",
            429: "Too many jobs",
        }
        title = titles.get(error.status_code, "Request refused")
        return problem(request, error.status_code, title, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        fields = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
        return problem(request, 422, "Invalid request", fields)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        logger.error("request %s failed", request.state.request_id, exc_info=error)
        return problem(request, 500, "Internal error", "the service failed; the request id finds the reason in its log")


class Gate:
    """ASGI middleware in front of everything: request id, token, and a byte count before the body is parsed.

    Starlette spools uploads to disk before a handler runs, so a check inside the handler would come too late.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, token: str | None) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}

        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(b"request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        request = Request(scope)
        answer: JSONResponse | None = None
        if self.token and scope["path"].startswith("/v1/") and not self._allowed(headers):
            answer = problem(request, 401, "Unauthorized", "send the header Authorization: Bearer <token>")
        declared = headers.get("content-length", "0")
        if answer is None and (not declared.isdigit() or int(declared) > self.max_bytes):
            answer = self._too_large(request)
        if answer is not None:
            await answer(scope, receive, tagged)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.max_bytes:
                raise HTTPException(413, f"the body is larger than {self.max_bytes // 10**6} MB")
            return message

        await self.app(scope, counted, tagged)

    def _allowed(self, headers: dict[str, Any]) -> bool:
        given = headers.get("authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(given.encode(), (self.token or "").encode())

    def _too_large(self, request: Request) -> JSONResponse:
        return problem(request, 413, "Too large", f"the body is larger than {self.max_bytes // 10**6} MB")
