"""The page as an ASGI application, behind its guard."""

from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI

from mnemon.web.guard import Guard
from mnemon.web.page import STYLE, THEME, build_page
from mnemon.web.server import MOST_BYTES
from mnemon.web.workspace import Workspace


def make_app(workspace: Workspace, uploads: Path) -> Any:
    """`uploads`: where Gradio keeps what was dropped; it and the workspace's own folders are all that is served."""
    workspace.folder.mkdir(parents=True, exist_ok=True)
    inner = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        build_page(workspace),
        path="/",
        allowed_paths=[str(folder) for folder in workspace.shown],
        max_file_size=MOST_BYTES,
        show_error=True,
        ssr_mode=False,
        theme=THEME,
        css=STYLE,
        footer_links=[],
    )
    return Guard(inner, MOST_BYTES)
