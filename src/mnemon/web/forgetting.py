"""What the library still knows: the score matrix, in words, and the images and photos of a cell."""

from pathlib import Path

from mnemon.data.reading import is_image
from mnemon.evaluation import ScoreMatrix, matrix_from_rows
from mnemon.verdict import in_words
from mnemon.web.timeline import image_of, revisions
from mnemon.web.workspace import Workspace

PHOTOS = 4


def matrix(workspace: Workspace) -> ScoreMatrix | None:
    """Identity alignment by revision and concept; None without scores."""
    opened = workspace.opened()
    found = matrix_from_rows(opened.rows(), "identity_alignment") if opened else None
    return found if found is not None and found.names else None


def words(workspace: Workspace) -> str:
    """What was kept, one sentence: each concept's last score against its first."""
    opened = workspace.opened()
    rows = opened.rows() if opened else {}
    if not rows:
        return "Nothing was scored yet: teach a concept with scores, or run `mnemon evaluate`."
    first: dict[str, float] = {}
    newest = max(rows)
    for state in sorted(rows):
        for name, scores in rows[state]["concepts"].items():
            if state < newest and scores["identity_alignment"] is not None:
                first.setdefault(name, scores["identity_alignment"])
    return in_words(rows[newest], first)


def images_of(workspace: Workspace, revision: int, name: str) -> list[tuple[Path, str]]:
    """The image of a concept at a revision, if it was drawn, and some of its photos, each with what it is."""
    entries = {entry.number: entry for entry in revisions(workspace)}
    found = []
    if revision in entries and (file := image_of(workspace, entries[revision], name)).exists():
        found.append((file, f"{name} after {revision}"))
    photos = sorted(file for file in (workspace.photos / name).glob("*/*") if is_image(file))
    return found + [(file, f"photo of {name}") for file in photos[:PHOTOS]]
