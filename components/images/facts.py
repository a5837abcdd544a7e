"""The facts of a snapshot."""

from dataclasses import dataclass

from components.artifacts import Facts


@dataclass(frozen=True, kw_only=True)
class SnapshotFacts(Facts):
    """Counts of a snapshot, and the shape of its pixels."""

    images: int
    rows: int
    """Images and their augmented copies."""
    train_images: int
    train_rows: int
    held_out: int
    """Held-out images; they have no copies."""
    test: int = 0
    """Test images; they have no copies."""
    classes: int
    rejects: int = 0
    """Files that cannot be used."""
    ignored_files: int = 0
    """Files passed over: hidden, or without an image's extension."""
    image_size: int
    channels: int

    def headline(self) -> str:
        """Images by split, and rows."""
        split = f"{self.train_images:,} to train on, {self.held_out:,} held out"
        split += f", {self.test:,} to test on" if self.test else ""
        return f"{self.images:,} ({split}), {self.rows:,} rows with augmented copies"
