"""The dendrogram of rows by cosine distance."""

import numpy as np

from stages.algorithms.centroids import unit_vectors


def linkage_tree(rows: np.ndarray, linkage: str) -> np.ndarray:
    """SciPy's linkage matrix of the rows by cosine distance; ward on the unit sphere.

    Time O(n^2 d), memory O(n^2).
    """
    from scipy.cluster.hierarchy import linkage as scipy_linkage

    units = unit_vectors(rows.astype(np.float64))
    return scipy_linkage(units, linkage, metric="euclidean" if linkage == "ward" else "cosine")
