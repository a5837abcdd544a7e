"""Source `files`: any tree of image files, with or without a table of labels."""

import re
import unicodedata
from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from components.config import require
from components.images.config import ImagesConfig
from components.images.listing import Listing, ListingBuilder, Numbering
from components.images.sources.file_tree import IMAGE_EXTENSIONS, FileTree, image_file_rows
from components.images.sources.labels import MAX_CLASSES, Label, label_values, number_labels
from components.images.sources.table_files import TableFile, typed
from components.store import objects
from components.store.spool import ExternalSort, SortedLookup

LABELS_SCHEMA = pa.schema([("key", pa.string()), ("label", pa.string())])


def list_files(config: ImagesConfig, snapshot_folder: str, without: Sequence[str]) -> Listing:
    """All images of the tree; labels come from the table `config.labels`, null for images that it lacks."""
    tree, builder = FileTree(config, IMAGE_EXTENSIONS, "a folder with images", without), ListingBuilder()
    example = ""
    for files in tree.pages():
        builder.add(image_file_rows(tree.root, files))
        example = example or files["path"][0].as_py()
    table = _LabelTable(config) if config.labels else None
    lookup = table.lookup() if table else None

    def number(labels: Collection[str]) -> Numbering:
        if table is None or lookup is None:
            return Numbering({}, ())
        require(
            not table.rows or lookup.found > 0,
            f"images.labels must name images by their path below {tree.root}, as in {example!r}; none of its "
            f"{table.rows} keys does, for example {table.first_key!r}",
        )
        texts = sorted(labels)
        numbers, classes = number_labels([table.label_of[text] for text in texts])
        require(
            bool(classes),
            f"images.labels must give the images labels, column '{config.label_column}' of {config.labels} has none "
            f"for any of the {builder.rows} images: fill it, or leave images.labels out for a model without classes",
        )
        return Numbering(dict(zip(texts, numbers, strict=True)), classes)

    return builder.finish(number, labels=lookup, ignored=tree.ignored)


class _LabelTable:
    """The labels in the CSV or Parquet table that `config.labels` names, sorted by key on this machine's disk."""

    def __init__(self, config: ImagesConfig) -> None:
        uri = objects.absolute(str(config.labels))
        file = TableFile(uri, "images.labels")
        names = [config.key_column, config.label_column]
        require(
            set(names) <= set(file.columns),
            f"{uri} must have the columns '{config.key_column}' and '{config.label_column}', found {file.columns}: "
            "set images.key_column and images.label_column",
        )
        self.rows, self.first_key = 0, None
        self.label_of: dict[str, Label] = {}
        """What each text in the column means."""
        self._sort = ExternalSort("key")
        texts: set[str] = set()
        for rows in file.tables(names, text=names):
            keys = pc.replace_substring_regex(rows[config.key_column].cast(pa.string()), r"^(\./)+", "")
            labels = rows[config.label_column]
            if file.is_parquet:
                values = label_values(labels, uri)
                labels = pa.array([None if value is None else str(value) for value in values], pa.string())
                self.label_of |= {str(value): value for value in set(values)}
            else:
                texts.update(pc.unique(labels.drop_null()).to_pylist())
            distinct = max(len(texts), len(self.label_of))
            require(distinct <= MAX_CLASSES, f"{uri} must have at most {MAX_CLASSES} different labels, got more")
            self.first_key = self.first_key or keys[0].as_py()
            self.rows += rows.num_rows
            self._sort.add(_in_every_spelling(pa.table([keys, labels], schema=LABELS_SCHEMA)))
        if texts:
            ordered = sorted(texts)
            # Whether a column holds numbers or names is decided by all of its values together; 007 is a name.
            are_names = any(re.match(r"-?0\d", text) for text in ordered)
            values = pa.array(ordered, pa.string()) if are_names else typed(ordered)
            self.label_of = dict(zip(ordered, label_values(pa.chunked_array([values]), uri), strict=True))
        self._check_unique(uri)

    def lookup(self) -> SortedLookup:
        """Label by key, for rising keys."""
        return SortedLookup(self._sort.tables(), LABELS_SCHEMA, "key")

    def _check_unique(self, uri: str) -> None:
        repeated, before = 0, None
        for rows in self._sort.tables():
            keys = rows["key"].combine_chunks()
            repeated += pc.sum(pc.equal(keys.slice(1), keys.slice(0, len(keys) - 1))).as_py() or 0
            repeated += keys[0].as_py() == before
            before = keys[-1].as_py()
        require(repeated == 0, f"{uri} must name each key once, got {repeated} repetitions")


def _in_every_spelling(rows: pa.Table) -> pa.Table:
    """Rows with each key as it is and, where they differ, in both normal forms of Unicode: systems that write file
    names disagree on the form."""
    other = rows.filter(pc.invert(pc.string_is_ascii(rows["key"])))
    # By Python: Arrow's utf8_normalize does not compose.
    spelled = [
        ({unicodedata.normalize(form, key) for form in ("NFC", "NFD")} - {key}, label)
        for key, label in zip(other["key"].to_pylist(), other["label"].to_pylist(), strict=True)
    ]
    added = [(key, label) for keys, label in spelled for key in sorted(keys)]
    columns = [[key for key, _ in added], [label for _, label in added]]
    return pa.concat_tables([rows, pa.table(columns, schema=LABELS_SCHEMA)])
