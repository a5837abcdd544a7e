"""Summary at the end of a run: artifacts and their figures, where the pictures are, and commands to continue with."""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.classifier.facts import ClassifierFacts
from components.progress import format_duration
from components.tracking.server import without_password
from pipeline.session import Session


def print_summary(session: Session, source: str, overrides: Sequence[str], seconds: float) -> None:
    """Print the summary of a run that succeeded; `source` and `overrides` are what the user typed."""
    results = session.memo.results
    made = ", ".join(name for name in session.steps if results[name].made)
    work = f"made {made}" if made else "nothing to do, all was done before"
    print(f"\n{session.config.name}: {work} ({format_duration(seconds)})\n")
    for name, step in session.steps.items():
        print(f"  {name:<14} {results[name].artifact.read(step.facts).headline()}")
    print("\npictures and report")
    for path in (*sorted(session.folder().glob("*.html")), *sorted(session.folder().glob("*.png"))):
        print(f"  {path}")
    print("\nregistered models")
    for step in session.model_steps:
        if model := session.registered(step):
            print(f"  {model.uri}  ({', '.join(model.aliases)})")
    print("\nlook further")
    for title, command in _commands(session, source, overrides):
        print(f"  {title:<16} {command}")


def _commands(session: Session, source: str, overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    python, uri = python_command(), without_password(session.tracker.uri)
    config = " ".join([source, *(f"--set '{override}'" for override in overrides)])
    generator = f"models:/{session.config.name}-generator@champion"
    yield "MLflow UI", uri if uri.startswith("http") else f"{python} -m mlflow ui --backend-store-uri {uri} --port 5000"
    yield "orchestrator UI", f"{python} -m pipeline ui {config}"
    rejects = session.memo.results["classifier"].artifact.read(ClassifierFacts).task != "none"
    yield "samples", f"{python} -m pipeline sample {generator} --count 8{' --keep 0.25' if rejects else ''}"
    yield "lineage", f"{python} -m pipeline lineage {generator}"


def python_command() -> str:
    """This Python as one would type it: a relative path if it is below the current folder."""
    inside = Path(sys.executable).is_relative_to(Path.cwd())
    return os.path.relpath(sys.executable) if inside else sys.executable
