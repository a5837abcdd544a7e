"""How each kind of entry reaches MLflow. A delivery may be repeated: what the run has is not added again."""

import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from PIL import Image

from components.tracking.spool import Entry
from components.tracking.tags import ARTIFACT_TAG, DRIVER_TAG, ERROR_TAG, INPUTS_TAG, SUCCEEDED_TAG

MAX_METRICS_PER_REQUEST = 1000
"""MLflow's limit for one batch."""
MAX_PARAMETERS_PER_REQUEST = 100
"""MLflow's limit for one batch."""
MAX_PARAMETER_CHARACTERS = 6000
"""MLflow's limit for the value of a parameter."""
MAX_DIGEST_CHARACTERS = 36
"""MLflow's limit for the digest of a dataset."""
MAX_ERROR_CHARACTERS = 2000
"""Characters of an error that a run's tag keeps."""


def deliver(client: MlflowClient, entries: Sequence[Entry], late: bool) -> None:
    """Send entries of one run and one kind.

    `late`: this process does not work on the run any more, or never did: the run may have gone on elsewhere, and what
    an ended process left may have been sent by it.
    """
    if entries[0].kind == "metrics":
        _metrics(client, entries, late)
        return
    for entry in entries:
        _SENDERS[entry.kind](client, entry)


def _metrics(client: MlflowClient, entries: Sequence[Entry], late: bool) -> None:
    run_id = entries[0].run_id
    # MLflow ignores a metric that equals a stored one in key, step, time and value.
    metrics = [
        Metric(key, value, round(1000 * entry.body["time"]), entry.body["step"])  # milliseconds
        for entry in entries
        for key, value in entry.body["values"].items()
    ]
    if late:
        recorded = {
            key: {metric.step for metric in client.get_metric_history(run_id, key)}
            for key in {metric.key for metric in metrics}
        }
        metrics = [metric for metric in metrics if metric.step not in recorded[metric.key]]
    for start in range(0, len(metrics), MAX_METRICS_PER_REQUEST):
        client.log_batch(run_id, metrics=metrics[start : start + MAX_METRICS_PER_REQUEST])


def _picture(client: MlflowClient, entry: Entry) -> None:
    name, step = entry.body["name"], entry.body["step"]
    if step is None:
        _file(client, entry, f"pictures/{name}.png")
        return
    # MLflow's image view finds its files by their names; the small copy is written last.
    start, end = f"images/{name.replace('/', '~')}+step+{step}+", "+compressed.webp"
    stored = [file.path for file in client.list_artifacts(entry.run_id, "images")]
    if not any(path.startswith(start) and path.endswith(end) for path in stored):
        with Image.open(io.BytesIO(entry.data)) as image:
            client.log_image(entry.run_id, image, key=name, step=step, timestamp=round(1000 * entry.body["time"]))


def _document(client: MlflowClient, entry: Entry) -> None:
    _file(client, entry, entry.body["name"])


def _file(client: MlflowClient, entry: Entry, path: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / Path(path).name
        local.write_bytes(entry.data)
        client.log_artifact(entry.run_id, str(local), str(Path(path).parent) if "/" in path else None)


def _parameters(client: MlflowClient, entry: Entry) -> None:
    """Log settings that the run does not have yet; values are cut at MLflow's limit."""
    logged = client.get_run(entry.run_id).data.params
    values: Mapping[str, str] = entry.body["values"]
    new = [Param(key, value[:MAX_PARAMETER_CHARACTERS]) for key, value in values.items() if key not in logged]
    for start in range(0, len(new), MAX_PARAMETERS_PER_REQUEST):
        client.log_batch(entry.run_id, params=new[start : start + MAX_PARAMETERS_PER_REQUEST])


def _inputs(client: MlflowClient, entry: Entry) -> None:
    """Record what the run is made from: as MLflow datasets with digests, and in the tag that `ancestry` follows."""
    links = entry.body["links"]
    client.set_tag(entry.run_id, INPUTS_TAG, json.dumps(links))
    datasets = []
    for link, fingerprint in zip(links, entry.body["fingerprints"], strict=True):
        source = json.dumps({"uri": link["uri"], "fingerprint": fingerprint})
        dataset = Dataset(link["kind"], link["digest"][:MAX_DIGEST_CHARACTERS], "vqvae2", source)
        datasets.append(DatasetInput(dataset, [InputTag("mlflow.data.context", link["kind"])]))
    if datasets:
        client.log_inputs(entry.run_id, datasets=datasets)


def _failure(client: MlflowClient, entry: Entry) -> None:
    """Mark a run as failed; it stays open for the next attempt at the same step."""
    if ARTIFACT_TAG not in client.get_run(entry.run_id).data.tags:  # another driver may have finished it meanwhile
        client.set_tag(entry.run_id, ERROR_TAG, entry.body["reason"][:MAX_ERROR_CHARACTERS])
        client.update_run(entry.run_id, status="FAILED")


def _end(client: MlflowClient, entry: Entry) -> None:
    """End a pipeline's run for one driver; while others work in it, it stays open, and the last one ends it."""
    run = client.get_run(entry.run_id)
    drivers = {tag for tag in run.data.tags if tag.startswith(DRIVER_TAG)}
    own = DRIVER_TAG + entry.body["driver"]
    succeeded = entry.body["succeeded"] or SUCCEEDED_TAG in run.data.tags
    if drivers - {own}:
        if succeeded:
            client.set_tag(entry.run_id, SUCCEEDED_TAG, "true")
    elif succeeded:
        client.set_terminated(entry.run_id, "FINISHED")
    elif run.info.status != "FINISHED":
        client.update_run(entry.run_id, status="FAILED")
    if own in drivers:
        client.delete_tag(entry.run_id, own)


_SENDERS: Mapping[str, Callable[[MlflowClient, Entry], None]] = {
    "picture": _picture,
    "document": _document,
    "parameters": _parameters,
    "inputs": _inputs,
    "failure": _failure,
    "end": _end,
}
