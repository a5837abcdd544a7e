"""Source `folder`: a tree with one folder per class, or a folder of images without classes."""

from components.config import require
from components.images.config import ImagesConfig
from components.images.listing import Listing
from components.images.sources.file_tree import IMAGE_EXTENSIONS, FileTree, image_file_rows, read_file_tree
from components.images.sources.labels import Label, number_labels

SPLIT_NAMES = frozenset({"test", "train", "val", "valid", "validation"})
"""Names of folders, in lower case, that hold the splits of a dataset and not its classes."""


def list_folder(config: ImagesConfig, snapshot_folder: str) -> Listing:
    """Images labelled by the top folder of their path; classes are numbered by their sorted names.

    Where all images lie directly in the folder, none has a label. Raises ValueError for images of both kinds, and for
    folders that are splits.
    """
    tree = read_file_tree(config, IMAGE_EXTENSIONS, "a folder with one folder per class, or with images")
    loose = [file.path for file in tree.files if "/" not in file.path]
    folders = sorted({file.path.split("/")[0] for file in tree.files if "/" in file.path})
    _check_one_kind(tree, loose, folders)
    _check_no_splits(tree, folders)
    top_folders: list[Label] = [file.path.split("/")[0] if folders else None for file in tree.files]
    labels, classes = number_labels(top_folders)
    return Listing(image_file_rows(tree.files, labels), classes, ignored=tree.ignored)


def _check_one_kind(tree: FileTree, loose: list[str], folders: list[str]) -> None:
    require(
        not loose or not folders,
        f"images must lie either all in folders, one per class, or all directly in {tree.root}, which makes a model "
        f"without classes; found {len(loose)} directly in it, for example {loose[:1]}, beside {len(folders)} folders "
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
