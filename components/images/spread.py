"""Orders of images in which every prefix is spread over the classes, for figures and for pictures.

Rows of a snapshot are sorted by key, hence by class: their first thousand may hold one class of a hundred. Both orders
depend on labels and ids alone, so that a snapshot and the codes made from it name the same images.

Shapes: n images.
"""

import numpy as np


def proportional_order(labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Positions int64 (n,) of images with `labels` int64 (n,) (-1: none) and `ids` int64 (n,), which are hashes.

    Every prefix holds each class in proportion to its size, and is a random draw inside each class. Seats are allotted
    to classes by Webster's method (Sainte-Lague): the r-th image of a class of m, from 0, comes at (r + 1/2) / m.
    """
    rank, size = _ranks(labels, ids)  # (n,) each
    return np.lexsort((ids, (rank + 0.5) / size))


def class_rounds(labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Positions int64 (n,), one image of every class before the second of any: for a few pictures.

    The classes of a round come in an order of their own, so that a picture with fewer images than classes does not
    always show the first ones.
    """
    rank, _ = _ranks(labels, ids)  # (n,)
    return np.lexsort((ids, rank))


def _ranks(labels: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank of each image by id inside its class, from 0, int64 (n,); and the size of its class, int64 (n,)."""
    order = np.lexsort((ids, labels))  # (n,): class after class, by rising id
    _, first, counts = np.unique(labels[order], return_index=True, return_counts=True)  # (classes,) each
    rank, size = np.empty(len(labels), np.int64), np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - np.repeat(first, counts)
    size[order] = np.repeat(counts, counts)
    return rank, size
