"""Tags that tie MLflow's runs to the artifact store.

A step's run carries:

    vqvae2.step         tokenizer, codes, prior_top, ...
    vqvae2.fingerprint  what the step was asked to do
    vqvae2.artifact     the artifact's record (JSON), written when it is committed
    vqvae2.inputs       records of the artifacts it was made from (JSON)
    vqvae2.gates        passed | failed: <which, and by how much>
    vqvae2.git          revision of the code
    vqvae2.error        the error that ended the step; removed when the run is continued

The parent run carries vqvae2.pipeline (digest of the config), vqvae2.git, and while drivers work in it one
vqvae2.driver.<token> each (drivers.py).
"""

import os
import subprocess
from pathlib import Path

STEP_TAG, FINGERPRINT_TAG, ARTIFACT_TAG = "vqvae2.step", "vqvae2.fingerprint", "vqvae2.artifact"
INPUTS_TAG, GATES_TAG, GIT_TAG, PIPELINE_TAG = "vqvae2.inputs", "vqvae2.gates", "vqvae2.git", "vqvae2.pipeline"
ERROR_TAG = "vqvae2.error"
PARENT_TAG = "mlflow.parentRunId"
DRIVER_TAG = "vqvae2.driver."
"""Followed by the driver's token."""
SUCCEEDED_TAG = "vqvae2.succeeded"
"""One driver made everything; others still work in the run."""
REFUSED_TAG = "vqvae2.refused"
"""MLflow did not take an entry of this run, though it answered."""


def git_revision() -> str:
    """Revision of this code: GIT_REVISION where it is set (container images), else git's, else 'unknown'."""
    if revision := os.environ.get("GIT_REVISION"):
        return revision
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
