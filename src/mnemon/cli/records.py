"""The commands that read or write no more than a library's records, and so import no torch: list, show, remove; and
check, which reads everything."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mnemon.cli.options import DEFAULT_LIBRARY, At, Json, LibraryPath
from mnemon.cli.printing import fact, note, number, out, print_json, row_table, say, table
from mnemon.errors import MnemonError


def list_(library: LibraryPath = DEFAULT_LIBRARY, at: At = None, json_output: Json = False) -> None:
    """The concepts of the library, in order of learning."""
    from mnemon.library import History

    opened = History.open(library, at)
    if damaged := opened.incomplete():
        note(
            f"Warning: files of {', '.join(damaged)} are missing or cut short; see `mnemon check -l {library}`.",
            "yellow",
        )
    concepts = [
        {"name": entry.concept, "noun": entry.class_noun, "state": entry.number, "learned": entry.time,
         "photos": len(entry.photos), "bytes": entry.stored_bytes}
        for entry in opened.concepts().values()
    ]  # fmt: skip
    if json_output:
        print_json(concepts)
        return
    say(f"{library}: base '{opened.base_name}', method '{opened.method_name}', revision {opened.revision}")
    columns = ("concept", "noun", "revision", "learned", "photos", "kB")
    rows = [
        (c["name"], c["noun"] or "–", c["state"], c["learned"], c["photos"], f"{int(str(c['bytes'])) / 1000:.0f}")
        for c in concepts
    ]
    out.print(table(columns, rows))


def show(
    name: Annotated[str | None, typer.Argument(help="A concept; the library's history without one.")] = None,
    library: LibraryPath = DEFAULT_LIBRARY,
    at: At = None,
    json_output: Json = False,
) -> None:
    """One concept with its scores over time, or the library's history."""
    from mnemon.library import History

    opened = History.open(library, at)
    rows = opened.rows()
    if name is None:
        history = [
            {"state": e.number, "action": e.action, "concept": e.concept, "time": e.time} for e in opened.history()
        ]
        value: Any = {"base": opened.base_name, "method": opened.method_name, "history": history, "rows": rows}
        if not json_output:
            out.print(table(("revision", "action", "concept", "time"), [tuple(entry.values()) for entry in history]))
            if rows:
                out.print(row_table(rows[max(rows)], opened))
    else:
        if name not in opened.concepts():
            raise MnemonError(f"{library} has no concept '{name}'; it has: {', '.join(opened.names()) or 'none yet'}.")
        entry = opened.concepts()[name]
        scores = {state: row["concepts"][name] for state, row in rows.items() if name in row["concepts"]}
        value = {
            "name": name, "noun": entry.class_noun, "state": entry.number, "time": entry.time,
            "bytes": entry.stored_bytes, "photos": list(entry.photos), "settings": entry.settings,
            "facts": entry.facts, "scores": scores,
        }  # fmt: skip
        if not json_output:
            called = f"<{name}> {entry.class_noun or ''}".strip()
            say(f"{called}: learned {entry.time} as revision {entry.number}")
            for key, noted in entry.facts.items():
                say(f"  {key.replace('_', ' ')}: {fact(noted)}")
            lines = [(s, number(v["identity_alignment"]), number(v["image_alignment"]), number(v["text_alignment"]))
                     for s, v in scores.items()]  # fmt: skip
            out.print(table(("revision", "identity", "image", "text"), lines))
    if json_output:
        print_json(value)


def remove(
    name: Annotated[str, typer.Argument(help="The concept to take out.")],
    library: LibraryPath = DEFAULT_LIBRARY,
    purge: Annotated[
        bool, typer.Option("--purge", help="Delete all that is kept of it, for good; it cannot be undone.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Take a concept out of the model, exactly. Its files stay, so past revisions still open.

    With --purge they are deleted: weights, features, checkpoints, and what the history says of its photos.
    """
    from mnemon.library import History

    opened = History.open(library)
    revision = opened.purge(name) if purge else opened.remove(name)
    if json_output:
        print_json({"removed": name, "state": revision})
    elif purge:
        say(f"<{name}> is removed and its files are deleted; the library is at revision {revision}.")
    else:
        before = revision - 1
        say(f"<{name}> is removed; the library is at revision {revision}. Revision {before} has it (--at {before}).")


def check(
    library: LibraryPath = DEFAULT_LIBRARY,
    out_folder: Annotated[
        Path | None, typer.Option("--salvage", metavar="OUT", help="Write what is whole to a new library.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Read every file of the library and list all damage, with what it costs and what to do; exit code 1 if any.

    With --salvage the exit code is 0 if there is a new library.
    """
    from mnemon.library.checking import problems

    if out_folder is not None:
        _salvage(library, out_folder, json_output)
        return
    found = problems(library)
    if json_output:
        print_json([vars(problem) for problem in found])
    elif not found:
        say(f"{library}: {_what_is_whole(library)} are whole.")
    else:
        for problem in found:
            say(f"{problem.what}\n  does not work until then: {problem.costs}")
    if found:
        raise SystemExit(1)


def _what_is_whole(library: Path) -> str:
    from mnemon.library import History
    from mnemon.library.entry import newest_entry
    from mnemon.library.header import CLASSES, read_header

    if read_header(library).get("kind") == CLASSES:
        return f"all {newest_entry(library)} tasks"
    opened = History.open(library)
    return f"all {opened.revision} revisions and {len(opened.names())} concepts"


def _salvage(library: Path, to: Path, json_output: bool) -> None:
    from mnemon.library.salvage import salvage

    done = salvage(library, to)
    if json_output:
        print_json({"library": str(to), **vars(done)})
        return
    for line in done.notes:
        say(line)
    say(f"{to}: {' '.join(f'<{name}>' for name in done.names)}. Measure it with `mnemon evaluate -l {to}`.")
