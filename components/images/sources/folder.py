"""Source `folder`: a tree with one folder per class, or a folder of images without classes."""

from collections.abc import Collection, Sequence

import pyarrow.compute as pc

from components.config import require
from components.images.config import ImagesConfig
from components.images.listing import Listing, ListingBuilder, Numbering
from components.images.sources.file_tree import IMAGE_EXTENSIONS, FileTree, image_file_rows
from components.images.sources.labels import number_labels

SPLIT_NAMES = frozenset({"test", "train", "val", "valid", "validation"})
"""Names of folders, in lower case, that hold the splits of a dataset and not its classes."""


def list_folder(config: ImagesConfig, snapshot_folder: str, without: Sequence[str]) -> Listing:
    """Images labelled by the top folder of their path; classes are numbered by their sorted names.

    Where all images lie directly in the folder, none has a label. Raises ValueError for images of both kinds, and for
    folders that are splits.
    """
    tree, builder = (
        FileTree(config, IMAGE_EXTENSIONS, "a folder with one folder per class, or with images", without),
        ListingBuilder(),
    )
    loose_images, example = 0, ""
    for files in tree.pages():
        path = files["path"]
        inside = pc.match_substring(path, "/")
        folders = pc.replace_substring_regex(path, r"(?s)/.*", "")
        builder.add(image_file_rows(tree.root, files, pc.if_else(inside, folders, None)))
        loose = path.filter(pc.invert(inside))
        loose_images += len(loose)
        example = min([*loose.to_pylist(), *([example] if example else [])], default="")

    def number(folders: Collection[str]) -> Numbering:
        names = sorted(folders)
        _check_one_kind(tree, loose_images, example, names)
        _check_no_splits(tree, names)
        numbers, classes = number_labels(names)
        return Numbering(dict(zip(names, numbers, strict=True)), classes)

    return builder.finish(number, ignored=tree.ignored)


def _check_one_kind(tree: FileTree, loose_images: int, example: str, folders: list[str]) -> None:
    require(
        not loose_images or not folders,
        f"images must lie either all in folders, one per class, or all directly in {tree.root}, which makes a model "
        f"without classes; found {loose_images} directly in it, for example {[example]}, beside {len(folders)} folders "
        f"with images, for example {folders[:1]}: move each image into the folder of its class, or set "
        "images.source=files to use all of them without classes",
    )


def _check_no_splits(tree: FileTree, folders: list[str]) -> None:
    if not folders or any(name.lower() not in SPLIT_NAMES for name in folders):
        return
    training = next((name for name in folders if name.lower() == "train"), folders[0])
    raise ValueError(
        f"the folders in {tree.root} must be classes, found only {', '.join(folders)}, which are splits of a dataset: "
        f"give one split, images.uri={tree.root}/{training} (part of its images is held out, images.held_out says "
        "how much), or move the class folders of all splits into one folder; images.source=files uses all images "
        "without classes"
    )
