"""The tiny generator's parts as artifacts, and a workspace without a cluster."""

from components.artifacts import Artifact
from components.store import commits
from components.store.lease import Lease
from components.workspace import Workspace


def commit_parts(folders, root):
    """Artifacts by name, each with the files of the folder of that name."""
    artifacts = {}
    for name, folder in folders.items():
        contents = {file.name: file.read_bytes() for file in folder.iterdir()}
        digest = commits.save_artifact(str(root / name), contents, {})
        artifacts[name] = Artifact(kind=name, uri=str(root / name), digest=digest, fingerprint="", run_id="")
    return artifacts


def workspace_in(root, name, **settings):
    lease = Lease(str(root / "leases"), 0, "token", "a test", "now")
    return Workspace(name=name, fingerprint="f", uri=str(root / name), seed=3, lease=lease, **settings)
