"""The benchmark: every method on the same base, sequences and metrics, with the whole score matrix kept."""

from mnemon.benchmark.bench import Ended, run_bench
from mnemon.benchmark.engines import ENGINES, Engine, ProcessExecutor, RayExecutor, SerialExecutor, engine_named
from mnemon.benchmark.jobs import Job, JobFolder, Progress, plan
from mnemon.benchmark.runner import run_job
from mnemon.benchmark.scoring import Scoring
from mnemon.benchmark.sequences import ConceptSequence, open_sequence, shipped_sequences

__all__ = [
    "ENGINES",
    "ConceptSequence",
    "Ended",
    "Engine",
    "SerialExecutor",
    "Job",
    "JobFolder",
    "ProcessExecutor",
    "Progress",
    "RayExecutor",
    "Scoring",
    "engine_named",
    "open_sequence",
    "plan",
    "run_bench",
    "run_job",
    "shipped_sequences",
]
