"""Summary at the end of a run: artifacts and their figures, where the pictures are, and commands to continue with."""

from collections.abc import Iterator, Sequence

from components.classifier.facts import ClassifierFacts
from components.progress import format_duration
from components.tracking.server import without_password
from pipeline.commands import mlflow_ui_command, pipeline_command, this_python
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
    python, uri = this_python(), without_password(session.tracker.uri)
    generator = f"models:/{session.config.name}-generator@champion"
    yield "MLflow UI", uri if uri.startswith("http") else mlflow_ui_command(uri)
    yield "orchestrator UI", pipeline_command("ui", source, overrides, python=python)
    rejects = session.memo.results["classifier"].artifact.read(ClassifierFacts).task != "none"
    keep = ("--keep", "0.25") if rejects else ()
    yield "samples", pipeline_command("sample", generator, (), "--count", "8", *keep, python=python)
    yield "lineage", pipeline_command("lineage", generator, python=python)
