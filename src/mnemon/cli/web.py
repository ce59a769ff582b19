"""`mnemon web`: the page."""

from typing import Annotated

import typer

from mnemon.cli.options import DEFAULT_LIBRARY, LibraryPath, NewBase, NewMethod
from mnemon.cli.printing import say


def add_to(app: typer.Typer) -> None:
    app.command("web")(web)


def web(
    library: LibraryPath = DEFAULT_LIBRARY,
    base: NewBase = None,
    method: NewMethod = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of 127.0.0.1; 0 takes a free one.")] = 7860,
) -> None:
    """Open a page to teach, draw, look and export, in a browser on this machine (extra: web).

    Photos, images and exports are kept beside the library, in LIBRARY-web. Ctrl-C ends the server; a training goes on
    from its last checkpoint when the page is opened again.

    Example: mnemon web -l my-library
    """
    from mnemon.web.server import serve
    from mnemon.web.workspace import Workspace

    workspace = Workspace(library, base, method)
    serve(workspace, port, lambda address: say(f"{address} (library {library}; Ctrl-C ends the server)"))
