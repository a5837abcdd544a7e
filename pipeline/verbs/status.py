"""`status`: the state of a config's steps, who works on them, and which models are registered."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from components.store.lease import RENEW_SECONDS, SignOfLife, read_sign_of_life
from components.tracking.runs import Tracker
from components.tracking.server import without_password
from pipeline.commands import mlflow_ui_command, nothing_has_run
from pipeline.config_files import load_config
from pipeline.dag import dag_of
from pipeline.gates import summarise_verdicts
from pipeline.memo import Memo
from pipeline.session import look_up_memo
from pipeline.states import StepState, step_states
from pipeline.verbs.tables import make_printer, make_table

MAX_VERSIONS = 5
"""Newest versions listed per registered model."""


def print_status(source: str, overrides: Sequence[str]) -> int:
    """Print the status of a config; creates nothing."""
    config = load_config(source, overrides)
    console = make_printer()
    memo = look_up_memo(config)
    if memo is None:
        console.print(nothing_has_run(source, overrides), soft_wrap=True)
        return 0
    states = step_states(memo, dag_of(config))
    _print_steps(console, memo, states, _at_work(memo, states))
    _print_models(console, memo.tracker, config.name)
    folder = Path(config.state).absolute() / "latest" / config.name
    if folder.is_dir():
        console.print(f"\npictures      {folder}")
    console.print(f"schedule      {config.orchestration.describe_schedule()}")
    console.print(f"artifacts     {memo.root}")
    console.print(f"MLflow        {without_password(memo.tracker.uri)}")
    if (store := memo.tracker.uri).startswith("sqlite"):
        console.print(f"MLflow's UI   {mlflow_ui_command(store)}", soft_wrap=True)
    return 0


def _print_steps(console: Console, memo: Memo, states: Mapping[str, StepState], at_work: Mapping[str, str]) -> None:
    table = make_table(f"Steps of '{memo.config.name}'", "step", "state", "gates", "artifact", "MLflow run")
    for name, state in states.items():
        digest = state.artifact.digest[:12] if state.artifact else ""
        gates = summarise_verdicts(list(state.verdicts)) if state.verdicts else ""
        run = (
            f"{state.run_id} ({memo.tracker.client.get_run(state.run_id).info.status.lower()})" if state.run_id else ""
        )
        table.add_row(name, at_work.get(name, str(state)), gates, digest, run)
    console.print(table)
    runs = [state.run_id for state in states.values() if state.run_id]
    if runs:
        console.print(f"\nan MLflow run is at {memo.tracker.run_link('<run>')}")


def _at_work(memo: Memo, states: Mapping[str, StepState]) -> dict[str, str]:
    """Who works on each step, by its lease: a holder is alive if two signs of life, read a while apart, differ."""
    folders = {
        name: memo.lease_folder(memo.steps[name], state.fingerprint)
        for name, state in states.items()
        if state.artifact is None and state.fingerprint
    }
    first_signs = {name: sign for name, folder in folders.items() if (sign := read_sign_of_life(folder))}
    if first_signs:
        time.sleep(RENEW_SECONDS + 1)  # a live holder renews its lease meanwhile
    return {name: _describe_holder(sign, read_sign_of_life(folders[name])) for name, sign in first_signs.items()}


def _describe_holder(before: SignOfLife, now: SignOfLife | None) -> str:
    if now is None:
        return f"{before.holder} just released it"
    if now == before:
        return f"interrupted: {now.holder} is silent; the next run continues"
    return f"at work: {now.holder}, since {now.since}"


def _print_models(console: Console, tracker: Tracker, name: str) -> None:
    versions = [
        version
        for kind in ("tokenizer", "generator")
        for version in tracker.registry.versions(f"{name}-{kind}")[:MAX_VERSIONS]
    ]
    if not versions:
        console.print("\nno model is registered yet")
        return
    console.print()
    table = make_table("Registered models", "model", "aliases", "MLflow run")
    for version in versions:
        table.add_row(version.uri, ", ".join(version.aliases), version.run_id)
    console.print(table)
