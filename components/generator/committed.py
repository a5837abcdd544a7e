"""A generator from the artifact store."""

from components.generator.ancestral import Generator
from components.generator.stored import load_generator
from components.store import commits


def load_committed_generator(uri: str) -> Generator:
    """The committed generator at `uri`, in main memory."""
    folder = commits.local_copy(uri)
    parts = {name.split("/")[0] for name in commits.file_names(uri)}
    return load_generator({part: folder / part for part in parts})
