"""Who may ask the page: this machine's own browser tabs, and nobody by way of another page.

A page of another site can send requests to 127.0.0.1 through its visitor's browser. Refused are
  other names of this machine than 127.0.0.1, localhost and [::1]       (DNS rebinding)
  an Origin, or a Sec-Fetch-Site, of another page                       (forged requests, images of the library)
  bodies above a limit, also those that do not say their length
  Gradio's routes that fetch addresses from elsewhere
Not covered: other programs of the same user, who can read the library's files anyway.
"""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?")
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; "
    "form-action 'self'; base-uri 'self'; object-src 'none'",
}


class Guard:
    """ASGI middleware that refuses what the module says.

    Args:
        most: bytes of a request's body.
    """

    def __init__(self, app: App, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refused = self.refusal(scope) if scope["type"] == "http" else (403, "Only HTTP is spoken here.")
        if refused:
            await _refuse(send, *refused)
            return
        body = _Limited(receive, self._most)
        await self._app(scope, body, _with_headers(send))

    def refusal(self, scope: Message) -> tuple[int, str] | None:
        """Status and reason, if the request is refused by its head."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if not HOST.fullmatch(headers.get("host", "")):
            return 403, "This page is for this machine alone: open it as http://127.0.0.1."
        own = f"http://{headers['host']}"
        if (origin := headers.get("origin")) is not None and origin != own:
            return 403, "Requests from other pages are refused."
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not _is_visit(scope, headers):
            return 403, "Requests from other pages are refused."
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._most:
            return 413, f"More than {self._most // 2**20} MB at once are refused."
        path = unquote(unquote(scope["path"]))
        if "/proxy=" in path or "://" in path or "/file=http" in path or "\0" in path:
            return 403, "Nothing is fetched from elsewhere."
        return None


class _Limited:
    """The body, cut off above the limit: a body in chunks does not say its length."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._left = receive, most

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        return message if self._left >= 0 else {"type": "http.disconnect"}


def _is_visit(scope: Message, headers: dict[str, str]) -> bool:
    """Whether somebody followed a link to the page itself."""
    return (
        scope["method"] == "GET" and scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )  # fmt: skip


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = reason.encode()
    head = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


def _with_headers(send: Send) -> Send:
    added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [pair for pair in message["headers"] if pair[0].decode("latin-1").lower() not in HEADERS]
            message = {**message, "headers": [*own, *added]}
        await send(message)

    return sending
