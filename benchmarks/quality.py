"""How good a preset's generator is over several seeds: every figure of every step, and limits for the gates.

    python -m benchmarks.quality [--preset digits] [--seeds 5] [--processes 1] [--write] [section.key=value ...]

Each seed runs all steps in one plain process (bare.py), `--processes` of them at the same time. A seed changes the
weights that fits start from, the order of batches, the augmented copies and the samples; the split stays the same.
Prints one row per figure: mean, standard deviation between seeds, least and greatest. For an accuracy with a gate it
prints the limit that lies GATE_ERRORS standard errors below the mean.
"""

import argparse
import json
import math
import multiprocessing
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.bare import run_steps
from benchmarks.processes import describe_machine
from components.artifacts import Artifact
from components.classifier.stored import load_classifier
from components.evaluation.facts import EvaluationFacts
from components.generator.rejection import draw_samples
from components.generator.stored import load_generator
from components.images.tensors import to_images
from pipeline.config import PipelineConfig
from pipeline.config_files import load_config
from pipeline.dag import dag_of

RESULT = Path(__file__).resolve().parent / "results" / "quality.json"
GATED = ("judge_accuracy", "kept_accuracy")
"""Fractions of samples for which a limit is derived."""
SAMPLES_PER_CLASS = 100
"""Samples behind each class's accuracy."""
IMAGES_PER_CHUNK = 500
"""Images that the judge reads at once."""
GATE_ERRORS = 4.0
"""Standard errors between the mean and the limit: a run then fails by chance in fewer than one of 10,000 cases."""


class SeedResult(NamedTuple):
    """One seed's run."""

    seed: int
    figures: dict[str, float]
    """<step>.<name>: every number among the facts of every step. class <name>, worst class: accuracies by class."""
    seconds: dict[str, float]
    """CPU seconds by step."""
    samples: int
    """Samples behind each accuracy."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and with --write keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="digits", help="name of a preset, or a config file")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 .. this - 1")
    parser.add_argument("--processes", type=int, default=1, help="seeds at the same time")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/quality.json")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    options = parser.parse_args(arguments)
    tasks = [(options.preset, options.overrides, seed) for seed in range(options.seeds)]
    results: list[SeedResult] = []
    # A new process per seed: nothing of one run is left for the next.
    with multiprocessing.get_context("spawn").Pool(options.processes, maxtasksperchild=1) as pool:
        for result in pool.imap(_measure_task, tasks):
            results.append(result)
            print(f"\n{render_table(results)}", flush=True)
            if options.write:  # after each seed: one takes minutes
                RESULT.write_text(_as_json(results, options.preset, options.overrides))


def _measure_task(task: tuple[str, Sequence[str], int]) -> SeedResult:
    return measure_seed(*task)


def _as_json(results: Sequence[SeedResult], preset: str, overrides: Sequence[str]) -> str:
    content = {
        "machine": describe_machine(),
        "preset": preset,
        "overrides": overrides,
        "limits": gate_limits(results),
        "seeds": [result._asdict() for result in results],
    }
    return json.dumps(content, indent=1) + "\n"


def measure_seed(preset: str, overrides: Sequence[str], seed: int) -> SeedResult:
    """All steps of the preset with `seed`, in this process, on one thread."""
    torch.set_num_threads(1)
    config = load_config(preset, [*overrides, f"seed={seed}"])
    with tempfile.TemporaryDirectory() as folder:
        artifacts, seconds = run_steps(config, Path(folder))
        figures = _figures(config, artifacts)
    return SeedResult(
        seed=seed,
        figures=figures,
        seconds={name: round(spent, 1) for name, spent in seconds.items()},
        samples=artifacts["evaluation"].read(EvaluationFacts).samples,
    )


def _figures(config: PipelineConfig, artifacts: Mapping[str, Artifact]) -> dict[str, float]:
    steps = dag_of(config)
    figures: dict[str, float] = {}
    for name, artifact in artifacts.items():
        facts = artifact.read(steps[name].facts).figures()
        figures |= {f"{name}.{figure}": value for figure, value in facts.items()}
    by_class = class_accuracies(config, artifacts)
    figures |= {f"class {name}": accuracy for name, accuracy in by_class.items()}
    return figures | ({"worst class": min(by_class.values())} if by_class else {})


@torch.no_grad()
def class_accuracies(config: PipelineConfig, artifacts: Mapping[str, Artifact]) -> dict[str, float]:
    """Fraction of SAMPLES_PER_CLASS samples, drawn as the generator does by default, that the judge reads as their own
    class; empty where there are no classes. These samples are not those of the evaluation."""
    folder = Path(artifacts["generator"].uri)
    parts = ("tokenizer", "classifier", *(f"prior_{level}" for level in config.level_names))
    generator = load_generator({part: folder / part for part in parts})
    if len(generator.classes) < 2:
        return {}
    judge = load_classifier(Path(artifacts["judge"].uri))
    classes, sampling = range(len(generator.classes)), config.generator.sampling
    samples = draw_samples(generator, classes=classes, count=SAMPLES_PER_CLASS, seed=config.seed, sampling=sampling)
    read = torch.cat([judge(to_images(part)).argmax(1) for part in samples.pixels.split(IMAGES_PER_CHUNK)])  # (n,)
    right = (read == samples.labels).view(len(classes), SAMPLES_PER_CLASS).double().mean(dim=1)  # (y,)
    return dict(zip(generator.classes, right.tolist(), strict=True))


def gate_limits(results: Sequence[SeedResult]) -> dict[str, float]:
    """Limit of each accuracy of GATED: GATE_ERRORS standard errors of one run below the mean over seeds."""
    limits = {}
    for name in GATED:
        if f"evaluation.{name}" not in results[0].figures:
            continue  # images without classes have no accuracy
        values = [result.figures[f"evaluation.{name}"] for result in results]
        limits[name] = statistics.fmean(values) - GATE_ERRORS * standard_error(values, results[0].samples)
    return limits


def standard_error(fractions: Sequence[float], samples: int) -> float:
    """Standard error of one run's fraction of `samples`: that of the count, and the spread between seeds.

    The spread holds the count's error already, once; adding both is on the safe side where seeds are few.
    """
    pooled = samples * len(fractions)
    # Laplace's rule: a fraction of 1 in all samples does not mean that it can be nothing else.
    mean = (statistics.fmean(fractions) * pooled + 1) / (pooled + 2)
    spread = statistics.variance(fractions) if len(fractions) > 1 else 0.0
    return math.sqrt(mean * (1 - mean) / samples + spread)


def render_table(results: Sequence[SeedResult]) -> str:
    """One row per figure, then CPU seconds, then the limits."""
    lines = [f"{'over ' + str(len(results)) + ' seeds':58} {'mean':>9} {'sd':>9} {'least':>9} {'greatest':>9}"]
    for name in results[0].figures:
        lines.append(_row(name, [result.figures[name] for result in results if name in result.figures]))
    for step in results[0].seconds:
        lines.append(_row(f"CPU seconds of {step}", [result.seconds[step] for result in results]))
    lines.append(_row("CPU seconds of all steps", [sum(result.seconds.values()) for result in results]))
    lines += [f"a gate for {name} may be {limit:.3f}" for name, limit in gate_limits(results).items()]
    return "\n".join(lines)


def _row(name: str, values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    numbers = (statistics.fmean(values), spread, min(values), max(values))
    return f"{name:58} " + " ".join(f"{number:9.4g}" for number in numbers)


if __name__ == "__main__":
    main()
