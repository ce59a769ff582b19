"""What the tabs share: errors as messages, addresses of files, text in HTML."""

import functools
import html
import inspect
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import gradio as gr

from mnemon.errors import MnemonError

F = TypeVar("F", bound=Callable[..., Any])
MARKUP = set("\\`*_{}[]()#+!|$~<>&\"'")
BUTTONS = ["download", "fullscreen"]
"""Of images: without Gradio's button that sends them elsewhere."""
log = logging.getLogger("mnemon")


class Tab(Protocol):
    """A tab that is filled anew whenever it is opened."""

    def build(self) -> None: ...

    @property
    def outputs(self) -> list[Any]:
        """What `show` fills."""

    def show(self) -> list[Any]: ...


def clear(handler: F) -> F:
    """The handler, but what a person can mend is shown as a message, and nothing else of an error reaches the page."""
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def generating(*values: Any) -> Iterator[Any]:
            try:
                yield from handler(*values)
            except Exception as error:
                raise _message(error) from error

        return generating  # type: ignore[return-value]

    @functools.wraps(handler)
    def calling(*values: Any) -> Any:
        try:
            return handler(*values)
        except Exception as error:
            raise _message(error) from error

    return calling  # type: ignore[return-value]


def _message(error: Exception) -> gr.Error:
    if isinstance(error, gr.Error):
        return error
    if not isinstance(error, MnemonError | OSError):
        log.exception("an error in the page")
        return gr.Error("Something went wrong; the terminal of `mnemon web` says what.", print_exception=False)
    return gr.Error(text(str(error)), duration=20, print_exception=False)


def text(plain: str) -> str:
    """Plain text for a place that takes HTML."""
    return html.escape(plain)


def markdown(plain: str) -> str:
    """Plain text for a place that takes Markdown: nothing in it is markup."""
    return "".join(f"&#{ord(sign)};" if sign in MARKUP else sign for sign in plain)


def address(file: Path) -> str:
    """Where a browser finds a file of the workspace."""
    return f"/gradio_api/file={quote(str(file))}"


def image(file: Path, alt: str, size: int = 96) -> str:
    """An image in HTML, loaded when it comes into sight."""
    return (
        f'<a href="{address(file)}" target="_blank"><img src="{address(file)}" alt="{text(alt)}" loading="lazy" '
        f'width="{size}" height="{size}"></a>'
    )


def number(value: Any, what: str, default: int | None = None) -> int | None:
    """A whole number from the page.

    Raises:
        MnemonError: it is none.
    """
    if value in (None, ""):
        return default
    try:
        whole = int(value)
    except (TypeError, ValueError, OverflowError):
        whole = None
    if whole is None or whole != value:
        raise MnemonError(f"'{value}' is no whole number: give {what} one.")
    return whole
