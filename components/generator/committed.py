"""A generator from the artifact store."""

from components.generator.ancestral import Generator
from components.generator.stored import load_generator
from components.store import commits


def load_committed_generator(uri: str) -> Generator:
    """The committed generator at `uri`, in main memory."""
    folder = commits.local_copy(uri)
    parts = {file["path"].split("/")[0] for file in commits.read_manifest(uri)["files"]}
    return load_generator({part: folder / part for part in parts})
