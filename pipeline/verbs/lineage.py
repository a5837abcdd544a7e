"""`lineage`: from a registered model back to the code dataset, the tokenizer and the image snapshot."""

import argparse
import json
from collections.abc import Callable

from rich.text import Text
from rich.tree import Tree

from components.artifacts import Artifact
from components.images.facts import SnapshotFacts
from components.tracking.runs import ARTIFACT_TAG, GATES_TAG, GIT_TAG, INPUTS_TAG, STEP_TAG, Run
from pipeline.models import open_registry
from pipeline.verbs.tables import make_printer


def print_lineage(options: argparse.Namespace) -> int:
    """Print every artifact that the model came from, each once, with digest, code, gates, folder and MLflow run."""
    tracker = open_registry(options.state, options.model)
    model = tracker.registry.find(options.model)
    tracker.made_by(model.run_id)
    runs = {run.info.run_id: run for _, run in tracker.ancestry(model.run_id)}
    aliases = f" ({', '.join(model.aliases)})" if model.aliases else ""
    tree = Tree(Text(f"{model.uri}{aliases}"), guide_style="dim")
    _grow(tree, runs, model.run_id, tracker.run_link, set())
    make_printer().print(tree, soft_wrap=True)
    return 0


def _grow(tree: Tree, runs: dict[str, Run], run_id: str, link: Callable[[str], str], shown: set[str]) -> None:
    """Add a run's artifact to the tree, and below it the artifacts it was made from."""
    tags, params = runs[run_id].data.tags, runs[run_id].data.params
    if ARTIFACT_TAG not in tags:
        step = tags.get(STEP_TAG, "a run")
        tree.add(Text(f"{step} {run_id}: its artifact was never committed, or the record of it was removed"))
        return
    artifact = Artifact.from_json(tags[ARTIFACT_TAG])
    title = f"{artifact.kind} {artifact.digest[:12]}"
    if run_id in shown:
        tree.add(Text(f"{title} (above)"))
        return
    shown.add(run_id)  # an artifact that several steps read appears once in full
    code, gates = tags.get(GIT_TAG, "unknown"), tags.get(GATES_TAG, "not judged")
    lines = [f"{title}, code {code}, gates {gates}"]
    if artifact.kind == "images":
        facts = artifact.read(SnapshotFacts)
        source = params.get("source", "unknown") if params.get("uri", "None") == "None" else params["uri"]
        lines.append(f"{facts.images:,} images of {facts.classes} classes from {source}")
    branch = tree.add(Text("\n".join([*lines, artifact.uri, link(run_id)])))
    for made_from in json.loads(tags.get(INPUTS_TAG, "[]")):
        _grow(branch, runs, made_from["run_id"], link, shown)
