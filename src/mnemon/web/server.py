"""The server of the page, on this machine alone."""

import os
import socket
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from mnemon.errors import MnemonError
from mnemon.web.workspace import Workspace

HOST = "127.0.0.1"
MOST_BYTES = 2 * 2**30
"""Of one request: an adapter for a large base may come in."""


def serve(workspace: Workspace, port: int, on_ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve until interrupted.

    Args:
        on_ready: called with the page's address.

    Raises:
        MnemonError: the extra `web` is not installed, or the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="mnemon-web-") as uploads:
        # Read by Gradio when it is imported: uploads go there, and nothing is reported anywhere.
        os.environ |= {"GRADIO_TEMP_DIR": uploads, "GRADIO_ANALYTICS_ENABLED": "False"}
        try:
            import uvicorn

            from mnemon.web.app import make_app
        except ImportError as error:
            raise MnemonError(f"The page needs the extra `web`: pip install 'mnemon[web]' ({error}).") from None
        app = make_app(workspace, Path(uploads))
        with closing(_socket(port)) as bound:
            config = uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=2)
            server = uvicorn.Server(config)
            on_ready(f"http://{HOST}:{bound.getsockname()[1]}")
            server.run(sockets=[bound])


def _socket(port: int) -> socket.socket:
    """Bound to this machine's own address.

    Raises:
        MnemonError: the port is taken, or may not be used.
    """
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
        bound.listen(128)  # so that the page can be asked for from now on
    except (OSError, OverflowError) as error:
        bound.close()
        raise MnemonError(
            f"Port {port} cannot be used ({error}): another page may be open there; choose another with --port."
        ) from None
    return bound
