"""`mnemon init`: a config file for `mnemon learn`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mnemon.cli.options import Json
from mnemon.cli.printing import print_json, say
from mnemon.errors import MnemonError
from mnemon.settings import DEFAULT_METHOD

CONFIG = Path("concepts.toml")


def add_to(app: typer.Typer) -> None:
    app.command("init")(init)


def init(
    photos: Annotated[list[Path] | None, typer.Argument(help="Folders of photos, one a concept.")] = None,
    to: Annotated[Path, typer.Option("--out", "-o", help="The file.")] = CONFIG,
    base: Annotated[
        str, typer.Option(help="world, a diffusers folder, a checkpoint in one file or a hub id.")
    ] = "world",
    method: Annotated[str, typer.Option(help="A method; see `mnemon methods`.")] = DEFAULT_METHOD,
    json_output: Json = False,
) -> None:
    """Write a config file for `mnemon learn --config`, with what suits the base as comments.

    Example: mnemon init photos/rex photos/tom --base /models/sdxl
    """
    from mnemon.files import write_text

    if to.exists():
        raise MnemonError(f"'{to}' is there already: choose another place with --out.")
    write_text(to, config_text(base, method, [str(folder) for folder in photos or ()]))
    if json_output:
        print_json({"config": str(to)})
    else:
        say(f"Written: {to}. Fill in the concepts, then: mnemon learn --config {to}")


def config_text(base: str, method: str, photos: Sequence[str]) -> str:
    """The file. Commented values are those that are taken without them."""
    from dataclasses import fields

    from mnemon.api.opening import profile_named
    from mnemon.methods import method_from, method_settings
    from mnemon.settings_docs import attribute_docs
    from mnemon.training import TrainingSettings

    profile, made = profile_named(base), method_from(method)
    settings = {**method_settings(made), **profile.rates(method_settings(made))}
    defaults = {one.name: one.default for one in fields(TrainingSettings)}
    defaults |= {"steps": made.steps, "batch_size": made.batch_size, **profile.training()}
    for name in ("steps", "batch_size"):
        settings.pop(name)
    concepts = [f"[[concepts]]\nphotos = {_value(folder)}\n" for folder in photos] or [
        '# [[concepts]]\n# photos = "photos/rex"\n'
    ]
    more = '# name = "rex"\n# class_noun = "dog"\n# references = "others/rex"\n# training = { steps = 300 }\n'
    return "\n".join(
        [
            "# For `mnemon learn --config`. Paths are relative to this file; comments show what is taken without them.",
            'library = "mnemon-library"',
            f"base = {_value(base)}",
            f"method = {_value(method)}",
            f"# weights = {_value(profile.weights)}  # on a GPU",
            '# memory = "24GB"  # of the GPU; that of this machine without',
            '# score = "all"',
            "",
            "[settings]  # of the method",
            *_commented(settings, attribute_docs(type(made))),
            "",
            "[training]",
            *_commented(defaults, attribute_docs(TrainingSettings)),
            "",
            "[photos]",
            '# fit = "crop"',
            "# flip = false",
            "# random_crop = false",
            "",
            "\n".join(one + more for one in concepts),
        ]
    )


def _commented(values: Mapping[str, Any], docs: Mapping[str, str]) -> list[str]:
    """A line for each value, with the first sentence of what it means."""
    meanings = {name: docs.get(name, "").partition(". ")[0].rstrip(".") for name in values}
    taken = {name: f" = {_value(value)} " if value is not None else ": not set " for name, value in values.items()}
    return [f"# {name}{said} # {meanings[name]}" for name, said in taken.items()]


def _value(value: Any) -> str:
    """In TOML, which writes text, truth values, numbers and lists as JSON does."""
    return json.dumps(value, ensure_ascii=False)
