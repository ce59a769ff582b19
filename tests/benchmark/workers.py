"""What workers do in tests, to be imported by their processes."""

import os
import signal

from mnemon.benchmark.jobs import Job
from mnemon.benchmark.runner import run_job
from mnemon.benchmark.running import OnProgress
from mnemon.evaluation.run_folder import Progress


def die_at_first(job: Job, on_progress: OnProgress) -> None:
    """The job `lora` dies at its first try, `stamina` at every one; others are done at once."""
    tries = job.folder / "tries"
    before = int(tries.read_text()) if tries.exists() else 0
    job.folder.mkdir(parents=True, exist_ok=True)
    tries.write_text(str(before + 1))
    on_progress(Progress(0, 1, "trying"))
    if job.method == "stamina" or (job.method == "lora" and before == 0):
        os.kill(os.getpid(), signal.SIGKILL)
    (job.folder / "done").write_text("done")


def run_but_die_at_first(job: Job, on_progress: OnProgress) -> None:
    """The real job, in a worker that dies before its first try is over."""
    tries = job.folder / "tries"
    if not tries.exists():
        tries.parent.mkdir(parents=True, exist_ok=True)
        tries.write_text("1")
        os.kill(os.getpid(), signal.SIGKILL)
    run_job(job, on_progress)
