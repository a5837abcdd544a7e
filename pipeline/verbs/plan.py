"""`plan`: what a config means and what a run of it would do, before anything starts."""

import os
from collections.abc import Mapping, Sequence

import yaml
from rich.console import Console

from components.config import to_plain
from components.errors import ConfigError
from components.images.facts import SnapshotFacts
from pipeline.config import PipelineConfig, config_digest
from pipeline.config_files import load_config
from pipeline.dag import dag_of, groups_of, local_cpus, outputs_of
from pipeline.states import StepState, step_states
from pipeline.step import Step
from pipeline.verbs.look import ImagesLook, look_at_images
from pipeline.verbs.tables import format_bytes, format_time, make_printer, make_table

LONG_FIT_SECONDS = 24 * 3600
"""A fit that would take longer than a day gets a warning."""


def print_plan(source: str, overrides: Sequence[str], *, offline: bool) -> int:
    """Print the plan of a config; `offline` asks neither MLflow nor the stores of artifacts and images, times nothing.

    Raises ConfigError, after all that can be said without them, when no model can be fitted to the images.
    """
    from pipeline.session import look_up_memo

    config = load_config(source, overrides)
    steps = dag_of(config)
    states = step_states(None if offline else look_up_memo(config), steps)
    console = make_printer()
    console.print(f"config {source}, digest {config_digest(config)[:12]}\n")
    console.print(yaml.safe_dump(to_plain(config), sort_keys=False, default_flow_style=None, width=110))
    console.print(f"schedule: {config.orchestration.describe_schedule()}\n")
    images = states["images"].artifact
    snapshot = images.read(SnapshotFacts) if images else None
    look, fault = _look_at_images(config, source) if not offline and snapshot is None else (None, None)
    classes = snapshot.classes if snapshot else len(look.class_sizes) if look else None
    _print_images(console, look, fault)
    _print_codes(console, config, snapshot)
    _print_models(console, config, classes)
    _print_resources(console, steps)
    _print_costs(console, config, steps, snapshot, classes, measure=not offline)
    if offline:
        console.print("Which steps are done was not looked up (--offline).")
    else:
        _print_states(console, states)
    if fault is not None:
        raise fault
    return 0


def _look_at_images(config: PipelineConfig, source: str) -> tuple[ImagesLook | None, ConfigError | None]:
    """What a look at the images shows, or why no model can be fitted to them."""
    try:
        return look_at_images(config.images, source, outputs_of(config)), None
    except ConfigError as fault:
        return None, fault


def _print_images(console: Console, look: ImagesLook | None, fault: ConfigError | None) -> None:
    lines = list(look.describe()) if look else fault.faults if fault else []
    if lines:
        console.print("\n".join(["Images", *lines, ""]))


def _print_codes(console: Console, config: PipelineConfig, snapshot: SnapshotFacts | None) -> None:
    from pipeline.sizes import level_sizes

    levels = level_sizes(config)
    columns = ("level", "map", "codebook", "codes per image", "bits per image")
    table = make_table("Code maps", *columns, right=columns[2:])
    for level in levels:
        map_size = f"{level.height}x{level.width}"
        table.add_row(level.name, map_size, str(level.codebook_size), f"{level.codes:,}", f"{level.bits:,.0f}")
    bits = sum(level.bits for level in levels)
    table.add_row("all", "", "", f"{sum(level.codes for level in levels):,}", f"{bits:,.0f}")
    console.print(table)
    pixels = config.images.image_size**2 * config.images.channels * 8
    console.print(f"{pixels / bits:.0f} times smaller than the pixels ({pixels:,} bits per image)")
    if snapshot is not None:
        size = format_bytes(snapshot.rows * bits / 8)
        rows = f"for the {snapshot.rows:,} rows of the snapshot, before compression"
    else:
        size = format_bytes(bits / 8)
        rows = "per row, before compression; the number of rows is known after the snapshot"
    console.print(f"code dataset: about {size} {rows}\n")


def _print_models(console: Console, config: PipelineConfig, classes: int | None) -> None:
    from pipeline.sizes import model_sizes

    columns = ("model", "parameters", "weights", "checkpoint", "updates", "batch")
    table = make_table("Models", *columns, right=columns[1:])
    fits = {
        "tokenizer": config.vqvae.training,
        "classifier": config.classifier.training,
        "judge": config.judge.training,
        **{f"prior_{level}": prior.training for level, prior in config.priors.items()},
    }
    for size in model_sizes(config, classes):
        training = fits[size.name]
        table.add_row(
            size.name,
            f"{size.parameters:,}",
            format_bytes(size.bytes),
            format_bytes(size.checkpoint_bytes),
            f"{training.updates:,}",
            str(training.batch_size),
        )
    console.print(table)
    without = "class embeddings not counted: the number of classes is known after the snapshot"
    console.print(f"{without if classes is None else f'for {classes} classes' if classes else 'without classes'}\n")


def _print_resources(console: Console, steps: Mapping[str, Step]) -> None:
    columns = ("step", "workers", "CPUs each", "GPUs each", "at the same time as")
    table = make_table("Resources", *columns, right=columns[1:4])
    for group in groups_of(steps):
        for step in group:
            if step.resources is None:
                table.add_row(step.name, "in the driver", "", "", "")
                continue
            others = ", ".join(other.name for other in group if other is not step)
            resources = step.resources
            table.add_row(step.name, str(resources.workers), f"{resources.cpus:g}", f"{resources.gpus:g}", others)
    console.print(table)
    needed = local_cpus(steps)
    if address := os.environ.get("RAY_ADDRESS"):
        cluster = f"on the Ray cluster at {address}: all of it at the same time takes {needed:g} CPUs"
        console.print(f"{cluster}; with fewer, fits wait for each other\n")
    else:
        cpus = max(needed, os.cpu_count() or 1)
        machine = f"on this machine ({os.cpu_count()} cores): a local Ray with {cpus:g} logical CPUs"
        console.print(f"{machine}, one thread per worker\n")


def _print_costs(
    console: Console,
    config: PipelineConfig,
    steps: Mapping[str, Step],
    snapshot: SnapshotFacts | None,
    classes: int | None,
    *,
    measure: bool,
) -> None:
    from pipeline.costs import encode_seconds, fit_costs

    costs = fit_costs(config, classes, measure=measure)
    columns = ("step", "time", "memory per worker", "from")
    table = make_table("Time and memory", *columns, right=columns[1:3])
    for cost in costs:
        origin = "updates timed here" if cost.measured else "operations at a stated rate"
        table.add_row(cost.name, format_time(cost.seconds), format_bytes(cost.memory), origin)
    workers = config.resources.codes.workers
    encoding, rows = encode_seconds(costs, 1000, workers), "per 1,000 rows"
    if snapshot is not None:
        encoding, rows = encode_seconds(costs, snapshot.rows, workers), f"for {snapshot.rows:,} rows"
    table.add_row("codes", format_time(encoding), "", f"a third of the tokenizer's updates, {rows}")
    console.print(table)
    console.print("times are upper limits (early stopping saves some) for a step that has its CPUs or GPUs to itself")
    if not os.environ.get("RAY_ADDRESS"):
        together = {cost.name: cost.seconds for cost in costs}
        console.print(f"all fits on this machine: about {format_time(local_seconds(together, steps))}")
    console.print("not estimated: images, generator and evaluation; they depend on the files and on the samples drawn")
    for warning in cost_warnings(config, {cost.name: cost.seconds for cost in costs}):
        console.print(warning)
    console.print("")


def local_seconds(fits: Mapping[str, float], steps: Mapping[str, Step]) -> float:
    """Seconds of all fits on this machine, where those of a group run side by side as far as its cores suffice.

    `fits` has the seconds of each fit that has its CPUs or GPUs to itself.
    """
    cores, total = os.cpu_count() or 1, 0.0
    for group in groups_of(steps):
        resources = {step.name: step.resources for step in group if step.resources and step.name in fits}
        cpu_seconds = sum(fits[name] * each.workers * each.cpus for name, each in resources.items() if not each.gpus)
        # A fit on a GPU takes all of it: those of a group wait for each other.
        gpu_seconds = sum(fits[name] for name, each in resources.items() if each.gpus)
        total += max([cpu_seconds / cores, gpu_seconds, *(fits[name] for name in resources)])
    return total


def cost_warnings(config: PipelineConfig, fits: Mapping[str, float]) -> list[str]:
    """One line for each fit that would take longer than LONG_FIT_SECONDS."""
    kinds = {"tokenizer": "tokenizer", "classifier": "classifier", "judge": "classifier"}
    warnings = []
    for name, seconds in fits.items():
        kind = kinds.get(name, "prior")
        cure = "more workers" if getattr(config.resources, kind).gpus else f"a GPU (resources.{kind}.gpus=1)"
        if seconds > LONG_FIT_SECONDS:
            warnings.append(
                f"WARNING: {name} would take about {format_time(seconds)}: give it {cure}, fewer updates, a smaller "
                "model, smaller images (images.image_size) or larger strides"
            )
    return warnings


def _print_states(console: Console, states: Mapping[str, StepState]) -> None:
    table = make_table("Steps", "step", "state")
    for name, state in states.items():
        failed = "; ".join(str(verdict) for verdict in state.verdicts if not verdict.passed)
        table.add_row(name, f"{state}: {failed}" if failed else str(state))
    console.print(table)
    waiting = [name for name, state in states.items() if state.artifact is None]
    if not waiting and all(state.good for state in states.values()):
        console.print("\nnothing to do")
