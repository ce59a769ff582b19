"""What a training will take, before it starts."""

from mnemon.planning import MemoryOptions, Plan, fitting_gpus
from mnemon.web.workspace import Workspace


def in_words(workspace: Workspace, steps: int | None) -> str:
    """Memory from the configs, time from the last concept of the library that was learned here.

    Raises:
        MnemonError: there is no such base.
    """
    opened = workspace.opened()
    method = opened.method if opened else workspace.new_method()
    base = opened.base_name if opened else workspace.base_name or "world"
    peak = Plan(base, method).estimate(MemoryOptions()).peak
    fits = fitting_gpus(peak)
    memory = f"About {peak / 2**30:.1f} GB of memory" + (f" (a GPU of {fits[0]} GB will do)." if fits else ".")
    wanted = steps or method.steps
    for entry in reversed(opened.history() if opened else []):
        trained = entry.settings.get("training", {}).get("steps") or method.steps
        if (seconds := entry.settings.get("seconds")) and trained:
            time = duration(seconds / trained * wanted)
            return f"{wanted} steps, about {time}, as <{entry.concept}> took. {memory}"
    return f"{wanted} steps; how long they take is known after the first ones. {memory}"


def duration(seconds: float) -> str:
    """ "40 s", "3 min", "2.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
