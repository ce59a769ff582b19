"""Who is answered. The application behind the guard only says yes."""

from typing import Any

import pytest

from mnemon.web.guard import Guard
from tests.web.asking import ask


async def yes(scope: Any, receive: Any, send: Any) -> None:
    read = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("cut off")
        read += message["body"]
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"3")]})
    await send({"type": "http.response.body", "body": b"yes"})


GUARDED = Guard(yes, 1000)
OTHER = "http://evil.example"


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "[::1]:7860", "localhost"])
def test_this_machines_own_names_are_answered(host: str) -> None:
    answer = ask(GUARDED, "/", {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin"})
    assert answer.status == 200
    assert answer.headers["x-frame-options"] == "DENY" and answer.headers["x-content-type-options"] == "nosniff"


def test_a_link_to_the_page_may_be_followed_from_anywhere() -> None:
    visit = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert ask(GUARDED, "/", visit).status == 200
    assert ask(GUARDED, "/gradio_api/file=/x.png", visit).status == 403
    assert ask(GUARDED, "/", {**visit, "sec-fetch-dest": "iframe"}).status == 403


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {"host": "evil.example:7860"}, 403),  # a name that was made to point here
        ("/", {"host": "127.0.0.1.evil.example"}, 403),
        ("/", {"host": "evil.example@127.0.0.1:7860"}, 403),
        ("/", {"host": ""}, 403),
        ("/", {"host": "[::1"}, 403),
        ("/gradio_api/queue/join", {"origin": OTHER}, 403),  # a form, or a script, of another page
        ("/gradio_api/queue/join", {"origin": "null"}, 403),
        ("/gradio_api/upload", {"origin": "http://127.0.0.1:8000"}, 403),  # another server of this machine
        ("/gradio_api/file=/lib-web/images/00000.png", {"sec-fetch-site": "cross-site"}, 403),  # an <img> there
        ("/gradio_api/file=/lib-web/images/00000.png", {"sec-fetch-site": "same-site"}, 403),
        ("/gradio_api/proxy=http://evil.example/", {}, 403),
        ("/gradio_api/file=http://evil.example/x.png", {}, 403),
        ("/gradio_api/file%3Dhttp:%2F%2Fevil.example/x.png", {}, 403),
        ("/gradio_api/file=%252e%252e%252fx%2500.png", {}, 403),
        ("/gradio_api/upload", {"content-length": "1001"}, 413),
        ("/gradio_api/upload", {"content-length": "-1"}, 413),
    ],
)
def test_hostile_requests_are_refused(path: str, headers: dict[str, str], status: int) -> None:
    assert ask(GUARDED, path, headers, "POST" if "origin" in headers else "GET").status == status


def test_a_body_that_does_not_say_its_length_is_cut_off() -> None:
    assert ask(GUARDED, "/", method="POST", chunks=[b"x" * 500] * 2).status == 200
    with pytest.raises(ConnectionError):
        ask(GUARDED, "/", method="POST", chunks=[b"x" * 500] * 3)


def test_a_socket_is_refused() -> None:
    async def never(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    assert ask(Guard(never, 10), "/", kind="websocket").status == 403
