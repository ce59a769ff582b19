"""The report's images: what each method made of every concept, and when."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from mnemon.evaluation.run_record import RunRecord
from mnemon.report import page

COLUMNS = (1, 10, 25, 50)  # after how many concepts images are shown, and at the end
SIDE_BY_SIDE = 12  # concepts, at the most, that all methods are shown next to each other for


def side_by_side(shown: Mapping[str, RunRecord]) -> str:
    """Rows concepts, columns methods, all after the last concept; a run of each method with its images."""
    if len(shown) < 2:
        return ""
    names = _spread(sorted(next(iter(shown.values())).names), SIDE_BY_SIDE)
    heads = "".join(f'<th scope="col">{escape(method)}</th>' for method in shown)
    rows = "".join(f'<tr><th scope="row">{escape(name)}</th>{_of_all(shown, name)}</tr>' for name in names)
    table = _table(heads, rows, "The same prompts and seeds for all; below: identity alignment")
    return f"<section><h2>Side by side, at the end</h2>{table}</section>"


def _of_all(shown: Mapping[str, RunRecord], name: str) -> str:
    ends = [(method, record, len(record.names)) for method, record in shown.items()]
    return "".join(_cell(record, end, name, f"{method}: {name} at the end") for method, record, end in ends)


def grids(shown: Mapping[str, RunRecord]) -> str:
    """For each method a grid: rows concepts, columns just learned, after concept 1, 10, 25, 50, and at the end."""
    parts = [
        page.merged(f"{method}, {record.label}", _grid(record) + _together(record), _open(place, record))
        for place, (method, record) in enumerate(shown.items())
    ]
    if not parts:
        return ""
    said = "Same prompts and seeds in a row; below each: identity alignment. One run of each method."
    return f"<section><h2>Every concept over time</h2><p>{said}</p>{''.join(parts)}</section>"


def _open(place: int, record: RunRecord) -> bool:
    return place == 0 and len(record.names) <= SIDE_BY_SIDE


def columns_of(record: RunRecord) -> list[int]:
    """After which concepts there are images of all learned so far, of those that are shown."""
    count = len(record.names)
    whole = [t for t in COLUMNS if t < count and all((t, name) in record.strips for name in record.names[:t])]
    return [*whole, count]


def _grid(record: RunRecord) -> str:
    states, count = columns_of(record), len(record.names)
    said = [f"after {t}" if t < count else f"after {t}, the end" for t in states]
    heads = "".join(f'<th scope="col">{text}</th>' for text in ["just learned", *said])
    rows = []
    for place, name in enumerate(record.names, start=1):
        cells = [_cell(record, place, name, f"{name} just learned", "new")]
        cells += [_cell(record, t, name, f"{name} after concept {t}") if t >= place else "<td></td>" for t in states]
        rows.append(f'<tr><th scope="row">{place}. {escape(name)}</th>{"".join(cells)}</tr>')
    return _table(heads, "".join(rows), f"{record.method}: concepts in the order in which they were learned")


def _together(record: RunRecord) -> str:
    """Several concepts in one image, at the end."""
    count = len(record.names)
    keys = [name for t, name in record.strips if t == count and name not in record.names]
    if not keys:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{escape(key.replace("+", " + "))}</th>{_cell(record, count, key, f"{key} together")}</tr>'
        for key in keys
    )
    return _table('<th scope="col">at the end</th>', rows, f"{record.method}: several concepts in one image")


def _table(heads: str, rows: str, caption: str) -> str:
    return (
        f'<div class="card wide"><table class="pictures"><caption>{escape(caption)}</caption>'
        f"<thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(record: RunRecord, t: int, name: str, alt: str, kind: str = "") -> str:
    path = record.strips.get((t, name))
    marked = f' class="{kind}"' if kind else ""
    if path is None:
        return '<td class="missing">no image</td>'
    score = record.rows.get(t, {}).get("concepts", {}).get(name, {}).get("identity_alignment")
    below = f'<span class="score">{page.number(score, 2)}</span>' if score is not None else ""
    return f"<td{marked}>{page.cell([_opened(path)], alt)}{below}</td>"


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _spread(names: Sequence[str], count: int) -> list[str]:
    """At most `count` of them, evenly spread."""
    if len(names) <= count:
        return list(names)
    return [names[round(place * (len(names) - 1) / (count - 1))] for place in range(count)]
