"""The page: five tabs on one library."""

from pathlib import Path
from typing import Any

import gradio as gr

from mnemon.web.draw_tab import DrawTab
from mnemon.web.exchange_tab import ExchangeTab
from mnemon.web.forgetting_tab import ForgettingTab
from mnemon.web.handlers import Tab, clear, markdown
from mnemon.web.teach_tab import TeachTab
from mnemon.web.timeline_tab import TimelineTab
from mnemon.web.training import Trainings
from mnemon.web.workspace import Workspace

FONTS = ["system-ui", "sans-serif"]
THEME = gr.themes.Soft(
    primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=["ui-monospace", "monospace"]
).set(  # text with a contrast of 4.5 or more
    background_fill_primary="*neutral_50",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    block_label_text_color="*primary_800",
    block_title_text_color="*primary_800",
    block_label_text_color_dark="*primary_200",
    block_title_text_color_dark="*primary_200",
    block_label_background_fill_dark="*primary_900",
    block_title_background_fill_dark="*primary_900",
    checkbox_label_background_fill_selected="*primary_700",
    checkbox_label_background_fill_selected_dark="*primary_700",
    body_text_color_subdued="*neutral_600",
    block_info_text_color="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    block_info_text_color_dark="*neutral_300",
)
STYLE = """
.scroll { overflow-x: auto; }
.scroll table { border-collapse: collapse; border: 0 !important; }
.scroll th, .scroll td { padding: 4px 8px; text-align: center; white-space: nowrap; border: 0 !important; }
.scroll tr { border: 0 !important; border-bottom: 1px solid var(--border-color-primary) !important; }
.scroll td img { border-radius: 6px; margin: 0 !important; }
.heat button { min-width: 56px; padding: 8px 4px; border: 0; border-radius: 4px; cursor: pointer; }
.heat button:focus-visible { outline: 3px solid var(--color-accent); }
#status progress { width: 100%; height: 12px; appearance: none; border: 0; border-radius: 6px; overflow: hidden;
  background: var(--neutral-200); }
#status progress::-webkit-progress-bar { background: var(--neutral-200); }
#status progress::-webkit-progress-value, #status progress::-moz-progress-bar { background: var(--primary-700); }
#photo-gallery .grid-wrap, #samples .grid-wrap { min-height: 0 !important; }
footer { display: none !important; }
"""


def build_page(workspace: Workspace) -> gr.Blocks:
    """The page of a workspace; nothing is loaded before it is needed."""
    trainings = Trainings(workspace)
    teach, draw = TeachTab(workspace, trainings), DrawTab(workspace)
    others: dict[str, Tab] = {
        "Timeline": TimelineTab(workspace),
        "Forgetting": ForgettingTab(workspace),
        "Take along": ExchangeTab(workspace),
    }
    with gr.Blocks(title=f"mnemon · {workspace.library.name}", analytics_enabled=False) as page:
        headline = gr.Markdown()
        with gr.Tabs():
            with gr.Tab("Teach") as teach_tab:
                teach.build()
            with gr.Tab("Draw") as draw_tab:
                draw.build()
            private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
            draw_tab.select(clear(draw.show), None, draw.outputs, **private)
            tabs = [teach_tab, draw_tab]
            for title, tab in others.items():
                with gr.Tab(title) as shown:
                    tab.build()
                shown.select(clear(tab.show), None, tab.outputs, **private)
                tabs.append(shown)
        for event in (page.load, *(tab.select for tab in tabs)):
            event(lambda: _headline(workspace), None, headline, **private)
        teach.ended.change(lambda: _headline(workspace), None, headline, **private)
        page.load(clear(teach.show), None, teach.shown, **private)
    page.queue(default_concurrency_limit=8, max_size=64)
    return page


def _headline(workspace: Workspace) -> str:
    opened = workspace.opened()
    if opened is None:
        return f"## mnemon\n{markdown(workspace.library.name)}: a new library"
    names = ", ".join(f"<{name}>" for name in opened.names()) or "no concept"
    base = opened.base_name if opened.base_name == "world" else Path(opened.base_name).name
    what = f"{opened.method_name} on '{base}', revision {opened.revision}"
    return f"## mnemon\n{markdown(f'{workspace.library.name}: {names} · {what}')}"
