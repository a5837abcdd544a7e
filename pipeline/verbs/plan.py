"""`plan`: what a config means and what a run of it would do, before anything starts."""

import os
from collections.abc import Mapping, Sequence

import yaml
from rich.console import Console

from pipeline.config import PipelineConfig, config_digest, load_config, to_plain
from pipeline.dag import local_cpus, side_by_side, steps_of
from pipeline.states import StepState, step_states
from pipeline.verbs.tables import format_bytes, make_printer, make_table


def print_plan(source: str, overrides: Sequence[str], *, offline: bool) -> int:
    """Print it; `offline` asks neither MLflow nor the artifact store."""
    from pipeline.session import look_up_memo

    config = load_config(source, overrides)
    states = step_states(None if offline else look_up_memo(config), steps_of(config))
    console = make_printer()
    console.print(f"config {source}, digest {config_digest(config)[:12]}\n")
    console.print(yaml.safe_dump(to_plain(config), sort_keys=False, default_flow_style=None, width=110))
    images = states["images"].artifact
    _print_codes(console, config, dict(images.facts) if images else {})
    _print_models(console, config, int(images.facts["classes"] or 0) if images else None)
    _print_resources(console, config)
    if offline:
        console.print("What is done was not looked up (--offline).")
    else:
        _print_states(console, states)
    return 0


def _print_codes(console: Console, config: PipelineConfig, snapshot: Mapping[str, object]) -> None:
    from pipeline.sizes import level_sizes

    levels = level_sizes(config)
    table = make_table(
        "Code maps",
        "level",
        "map",
        "codebook",
        "codes an image",
        "bits an image",
        right=("codebook", "codes an image", "bits an image"),
    )
    for level in levels:
        table.add_row(
            level.name,
            f"{level.height}x{level.width}",
            str(level.codebook_size),
            f"{level.codes:,}",
            f"{level.bits:,.0f}",
        )
    bits = sum(level.bits for level in levels)
    table.add_row("all", "", "", f"{sum(level.codes for level in levels):,}", f"{bits:,.0f}")
    console.print(table)
    pixels = config.images.image_size**2 * config.images.channels * 8
    console.print(f"{pixels / bits:.0f} times smaller than the pixels ({pixels:,} bits an image)")
    rows = snapshot.get("rows")
    if isinstance(rows, int):
        console.print(
            f"code dataset: about {format_bytes(rows * bits / 8)} for the {rows:,} rows of the snapshot, "
            "before compression\n"
        )
    else:
        console.print(
            f"code dataset: about {format_bytes(bits / 8)} a row, before compression; "
            "how many rows is known after the snapshot\n"
        )


def _print_models(console: Console, config: PipelineConfig, classes: int | None) -> None:
    from pipeline.sizes import model_sizes

    table = make_table(
        "Models",
        "model",
        "parameters",
        "weights",
        "checkpoint",
        "updates",
        "batch",
        right=("parameters", "weights", "checkpoint", "updates", "batch"),
    )
    fits = {
        "tokenizer": config.vqvae.training,
        "classifier": config.classifier.training,
        "judge": config.judge.training,
    }
    fits |= {f"prior_{level}": prior.training for level, prior in config.priors.items()}
    for size in model_sizes(config, classes or 0):
        fit = fits[size.name]
        table.add_row(
            size.name,
            f"{size.parameters:,}",
            format_bytes(size.bytes),
            format_bytes(size.checkpoint_bytes),
            f"{fit.updates:,}",
            str(fit.batch_size),
        )
    console.print(table)
    console.print(
        f"for {classes} classes\n"
        if classes
        else "class embeddings not counted: how many classes is known after the snapshot\n"
    )


def _print_resources(console: Console, config: PipelineConfig) -> None:
    table = make_table(
        "Resources",
        "step",
        "workers",
        "CPUs each",
        "GPUs each",
        "side by side with",
        right=("workers", "CPUs each", "GPUs each"),
    )
    together = side_by_side(config)
    for name, step in steps_of(config).items():
        if step.resources is None:
            table.add_row(name, "in the driver", "", "", "")
            continue
        others = ", ".join(one for one in together if one != name) if name in together else ""
        table.add_row(name, str(step.resources.workers), f"{step.resources.cpus:g}", f"{step.resources.gpus:g}", others)
    console.print(table)
    needed = local_cpus(config)
    if address := os.environ.get("RAY_ADDRESS"):
        console.print(
            f"on the Ray cluster at {address}: all of it side by side takes {needed:g} CPUs; "
            "with fewer, fits wait for each other\n"
        )
    else:
        console.print(
            f"on this machine ({os.cpu_count()} cores): a local Ray with {max(needed, os.cpu_count() or 1):g} "
            "logical CPUs, one thread a worker\n"
        )


def _print_states(console: Console, states: Mapping[str, StepState]) -> None:
    table = make_table("Steps", "step", "state")
    for name, state in states.items():
        failed = "; ".join(str(verdict) for verdict in state.verdicts if not verdict.passed)
        table.add_row(name, f"{state}: {failed}" if failed else str(state))
    console.print(table)
    waiting = [name for name, state in states.items() if state.artifact is None]
    if not waiting and all(state.good for state in states.values()):
        console.print("\nnothing to do")
