"""Source `folder`: a tree with one folder per class."""

from components.config import require
from components.images.config import ImagesConfig
from components.images.listing import Listing
from components.images.sources.file_tree import IMAGE_EXTENSIONS, image_file_rows, read_file_tree
from components.images.sources.labels import number_labels


def list_folder(config: ImagesConfig, snapshot_folder: str) -> Listing:
    """Images labelled by the top folder of their path; classes are numbered by their sorted names."""
    tree = read_file_tree(config, IMAGE_EXTENSIONS, "a folder with one folder per class")
    loose = [file.path for file in tree.files if "/" not in file.path]
    require(
        not loose,
        f"every image must be in the folder of its class, found {len(loose)} directly in {tree.root}, for "
        f"example {loose[:1]}: make one folder per class there and move the images into them, or set "
        "images.source=files",
    )
    labels, classes = number_labels([file.path.split("/")[0] for file in tree.files])
    return Listing(image_file_rows(tree.files, labels), classes, ignored=tree.ignored)
