"""`results`: the results card of a config's newest run, as Markdown."""

import json
from collections.abc import Sequence

from components.errors import MissingArtifact
from components.evaluation.card import markdown_table
from components.store import objects
from pipeline.commands import nothing_has_run
from pipeline.config_files import load_config
from pipeline.session import Session, look_up_memo


def print_results(source: str, overrides: Sequence[str]) -> int:
    """Print the card of the newest evaluation of the preset or config file `source`."""
    config = load_config(source, overrides)
    memo = look_up_memo(config)
    if memo is None:
        raise MissingArtifact(nothing_has_run(source, overrides))
    artifact = Session(config, memo=memo).artifact("evaluation")
    print(markdown_table(json.loads(objects.read_bytes(objects.join(artifact.uri, "results.json")))))
    return 0
