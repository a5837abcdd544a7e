"""The layout of a shard: one row per row of the snapshot, one column of codes per level.

The columns are plain Parquet types, so that pandas, polars, duckdb and Hugging Face datasets read a shard without this
project; shapes and digests are JSON in the schema's metadata.
"""

import json
from dataclasses import asdict, dataclass

import pyarrow as pa

from components.artifacts import digest_of
from components.config import require
from components.errors import StorageError
from components.store.parquet import METADATA_KEY

CODES_FORMAT = 2

SNAPSHOT_COLUMNS = (
    pa.field("id", pa.int64(), nullable=False),
    pa.field("key", pa.string(), nullable=False),
    pa.field("label", pa.int32()),
    pa.field("split", pa.string(), nullable=False),
    pa.field("copy", pa.int16(), nullable=False),
)
"""Columns copied from the snapshot."""
VERSION_COLUMN = pa.field("version", pa.int64(), nullable=False)
"""Hash of key, copy and content of the image when it was encoded (`row_versions`): while it is equal, the row is not
encoded again."""
ERROR_COLUMN = pa.field("error", pa.float32(), nullable=False)
"""Mean squared distance between encoder outputs and the vectors of the codes, summed over levels."""


@dataclass(frozen=True, kw_only=True)
class CodeLevel:
    """The code maps of one level."""

    name: str
    """Name of the level and of its column."""
    height: int
    """Codes per column of the map."""
    width: int
    """Codes per row of the map."""
    codebook_size: int
    """Codes are 0 .. codebook_size - 1."""

    def __post_init__(self) -> None:
        reserved = [field.name for field in (*SNAPSHOT_COLUMNS, VERSION_COLUMN, ERROR_COLUMN)]
        clash = self.name in reserved
        require(not clash, f"a level must not share its name with one of {reserved}, got {self.name!r}")
        sides = f"{self.height}x{self.width}"
        require(self.height >= 1 and self.width >= 1, f"code maps must have sides of at least 1, got {sides}")
        fits = 2 <= self.codebook_size <= 2**32
        require(fits, f"codebook_size of level '{self.name}' must lie in 2..2**32, got {self.codebook_size}")

    @property
    def type(self) -> pa.DataType:
        """Type of one code on disk."""
        return pa.uint16() if self.codebook_size <= 1 << 16 else pa.uint32()


@dataclass(frozen=True, kw_only=True)
class CodeSchema:
    """What is the same in all shards of a code dataset."""

    levels: tuple[CodeLevel, ...]
    """Top first."""
    tokenizer_digest: str
    """Digest of the tokenizer that made the codes."""
    preprocessing: str
    """Digest of what turns a file into pixels: size, crop, channels, background, augmentation, decoding rules."""

    def __post_init__(self) -> None:
        names = [level.name for level in self.levels]
        require(len(names) >= 1, "a code dataset must have at least one level, got none")
        require(len(set(names)) == len(names), f"level names must differ, got {names}")

    @property
    def digest(self) -> str:
        """Equal digests mean that equal images get equal codes."""
        return digest_of(asdict(self))

    def level(self, name: str) -> CodeLevel:
        """The level called `name`; raises ValueError when there is none."""
        by_name = {level.name: level for level in self.levels}
        require(name in by_name, f"level must be one of {list(by_name)}, got {name!r}")
        return by_name[name]

    def arrow(self) -> pa.Schema:
        """Columns and metadata of every shard."""
        # Lists of fixed size: a shard stores no offsets.
        codes = [
            pa.field(level.name, pa.list_(pa.field("element", level.type), level.height * level.width), nullable=False)
            for level in self.levels
        ]
        facts = {"format": CODES_FORMAT, **asdict(self)}
        return pa.schema(
            [*SNAPSHOT_COLUMNS, VERSION_COLUMN, *codes, ERROR_COLUMN],
            metadata={METADATA_KEY: json.dumps(facts, sort_keys=True).encode()},
        )

    @classmethod
    def from_arrow(cls, schema: pa.Schema) -> "CodeSchema":
        """Read what `arrow` wrote; raises StorageError for any other file."""
        facts = json.loads((schema.metadata or {}).get(METADATA_KEY, b"{}"))
        if facts.get("format") != CODES_FORMAT:
            raise StorageError(
                f"a shard of codes must have format {CODES_FORMAT}, got {facts.get('format')}: encode again"
            )
        levels = tuple(CodeLevel(**level) for level in facts["levels"])
        return cls(levels=levels, tokenizer_digest=facts["tokenizer_digest"], preprocessing=facts["preprocessing"])
