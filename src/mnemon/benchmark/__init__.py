"""The benchmark: every method on the same base, sequences and metrics, with the whole score matrix kept."""

from mnemon.benchmark.bench import BenchResult, run_bench
from mnemon.benchmark.engines import ENGINES, Engine, ProcessExecutor, RayExecutor, SerialExecutor, engine_named
from mnemon.benchmark.jobs import Job, plan
from mnemon.benchmark.runner import run_job
from mnemon.benchmark.sequences import ConceptSequence, shipped_sequences
from mnemon.benchmark.sources import open_sequence

__all__ = [
    "ENGINES",
    "BenchResult",
    "ConceptSequence",
    "Engine",
    "SerialExecutor",
    "Job",
    "ProcessExecutor",
    "RayExecutor",
    "engine_named",
    "open_sequence",
    "plan",
    "run_bench",
    "run_job",
    "shipped_sequences",
]
