"""`lineage`: from a registered model back to the code dataset, the tokenizer and the image snapshot."""

import argparse
import json
from collections.abc import Callable

from rich.text import Text
from rich.tree import Tree

from components.artifacts import Artifact
from components.tracking.runs import ARTIFACT_TAG, GATES_TAG, GIT_TAG, INPUTS_TAG, STEP_TAG, Run
from pipeline.verbs.tables import make_printer
from pipeline.verbs.use import open_registry


def print_lineage(options: argparse.Namespace) -> int:
    """Print every artifact that the model came from, each once, with digest, code revision, gates and places."""
    tracker = open_registry(options.state)
    model = tracker.model(options.model)
    tracker.made_by(model.run_id)
    runs = {run.info.run_id: run for _, run in tracker.ancestry(model.run_id)}
    aliases = f" ({', '.join(model.aliases)})" if model.aliases else ""
    tree = Tree(Text(f"{model.uri}{aliases}"), guide_style="dim")
    _grow(tree, runs, model.run_id, tracker.run_link, set())
    make_printer().print(tree, soft_wrap=True)
    return 0


def _grow(tree: Tree, runs: dict[str, Run], run_id: str, link: Callable[[str], str], shown: set[str]) -> None:
    """Add a run's artifact to the tree, and below it what that was made from."""
    tags, params = runs[run_id].data.tags, runs[run_id].data.params
    if ARTIFACT_TAG not in tags:
        tree.add(
            Text(
                f"{tags.get(STEP_TAG, 'a run')} {run_id}: its artifact was never committed, or the record of it was removed"
            )
        )
        return
    artifact = Artifact.from_json(tags[ARTIFACT_TAG])
    title = f"{artifact.kind} {artifact.digest[:12]}"
    if run_id in shown:
        tree.add(Text(f"{title} (above)"))
        return
    shown.add(run_id)
    lines = [", ".join([title, f"code {tags.get(GIT_TAG, 'unknown')}", f"gates {tags.get(GATES_TAG, 'not judged')}"])]
    if artifact.kind == "images":
        source = params.get("source", "unknown") if params.get("uri", "None") == "None" else params["uri"]
        lines.append(f"{artifact.facts['images']:,} images of {artifact.facts['classes']} classes from {source}")
    branch = tree.add(Text("\n".join([*lines, artifact.uri, link(run_id)])))
    for given in json.loads(tags.get(INPUTS_TAG, "[]")):
        _grow(branch, runs, given["run_id"], link, shown)
