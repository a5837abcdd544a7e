"""The evaluation at scale: peak memory of its driver, and time per sample, as the number of samples grows.

    python -m benchmarks.evaluation [samples ...]

Makes the shrunk main job once. Then, for each number of samples, a fresh driver evaluates its generator on a local Ray
with two workers: everything but the classifiers of the accuracy score. The driver's memory is the peak of its own
process; workers are others.
"""

import json
import multiprocessing
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.bare import run_steps
from benchmarks.processes import peak_memory
from benchmarks.timing import Figure, report_figures
from benchmarks.tiny import OVERRIDES
from components.artifacts import Artifact
from components.config import StepResources
from components.store.lease import acquire_lease, keep_alive
from components.workspace import Workspace
from pipeline.config import PipelineConfig
from pipeline.config_files import load_config

GIB = 2**30
SAMPLES = (12_500, 25_000, 50_000)
INPUTS = ("images", "tokenizer", "codes", "prior_top", "prior_bottom", "classifier", "judge", "generator")
WORKERS = 2


def main() -> None:
    """Measure, print, write benchmarks/results."""
    context, figures = multiprocessing.get_context("spawn"), []
    config = load_config("digits", OVERRIDES)
    with tempfile.TemporaryDirectory() as folder:
        artifacts, _ = run_steps(config, Path(folder))
        records = {name: artifacts[name].to_json() for name in INPUTS}
        for samples in map(int, sys.argv[1:] or SAMPLES):
            answers = context.Queue()
            process = context.Process(target=_evaluate, args=(config, records, folder, samples, answers))
            process.start()
            seconds, peak = answers.get()
            process.join()
            name = f"{samples:,} samples"
            figures.append(Figure(name=f"{name}: peak of the driver", value=peak / GIB, unit="GiB"))
            figures.append(Figure(name=f"{name}: time", value=seconds, unit="s"))
            figures.append(Figure(name=f"{name}: time per 1,000 samples", value=1000 * seconds / samples, unit="s"))
    report_figures("evaluation", figures)


def _evaluate(
    config: PipelineConfig, records: dict[str, str], root: str, samples: int, answers: "multiprocessing.Queue[object]"
) -> None:
    from components.cluster.step import Cluster
    from components.evaluation.step import evaluate_generator

    cluster = Cluster(local_cpus=WORKERS + 2)
    inputs = {name: Artifact.from_json(record) for name, record in records.items()}
    settings = replace(config.evaluation, samples=samples, keep=1.0, shares=(1.0,), cas_updates=0)
    name = f"evaluation-{samples}"
    lease, started = acquire_lease(f"{root}/leases/{name}", wait_seconds=0, report=print), time.monotonic()
    with keep_alive(lease):
        workspace = Workspace(
            name=name, fingerprint="", uri=f"{root}/{name}", seed=0, lease=lease, connect=lambda: cluster
        )
        output = evaluate_generator(
            settings, inputs, title=name, settings="", resources=StepResources(workers=WORKERS), workspace=workspace
        )
    print(json.dumps(output.facts.record()))
    answers.put((time.monotonic() - started, peak_memory()))


if __name__ == "__main__":
    main()
