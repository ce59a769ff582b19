"""`mnemon classify bench`: every method on the same classes, in several orders."""

from pathlib import Path
from typing import Annotated

import typer

from mnemon.cli.benching import Watch, names_of, say_result, settings_by_method
from mnemon.cli.options import Json
from mnemon.cli.printing import progress


def bench(
    sequence: Annotated[
        str, typer.Option(help="classes-10, classes-20, classes-4-dev, or a folder with train and test.")
    ] = "classes-10",
    methods: Annotated[str, typer.Option(help="Names with commas between, or all.")] = "all",
    orders: Annotated[int, typer.Option(min=1, help="Orders of the classes; the first is the sequence's own.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of the training.")] = 1,
    to: Annotated[Path, typer.Option("--out", "-o", help="Results folder; the same command goes on in it.")] = Path(
        "classes"
    ),
    tasks: Annotated[int | None, typer.Option(min=1, help="Of a folder: how many to split its classes into.")] = None,
    protocol: Annotated[
        str, typer.Option(help="small: for the built-in backbone; codap, in21k: as the published tables.")
    ] = "small",
    backbone: Annotated[
        str | None, typer.Option("--backbone", "-b", help="A transformers folder or hub id; the protocol's by default.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="METHOD.KEY=VALUE", help="A setting, before the protocol's: stamina.rank=8."),
    ] = None,
    engine: Annotated[str, typer.Option(help="here (this process), processes or ray.")] = "here",
    workers: Annotated[int, typer.Option(min=1, help="Worker processes; with ray the cores of a job.")] = 1,
    json_output: Json = False,
) -> None:
    """Compare methods on a sequence of classes, with the whole score matrix of each; a killed run goes on.

    Example: mnemon classify bench --sequence classes-10 --methods stamina,coda-p --orders 3 --out runs/classes
    """
    from mnemon.benchmark import engine_named
    from mnemon.benchmark.classes import plan_classes, run_class_bench
    from mnemon.classification import CLASSIFIERS

    jobs = plan_classes(
        to.resolve(), sequence, names_of(methods, CLASSIFIERS), orders, seeds, tasks=tasks,
        settings=settings_by_method(set_ or []), backbone=backbone, protocol=protocol,
    )  # fmt: skip
    with progress("starting") as bar:
        ended = run_class_bench(jobs, engine_named(engine, workers), Watch(bar, len(jobs)))
    say_result(to, ended, json_output)
    if ended.failed:
        raise typer.Exit(1)
