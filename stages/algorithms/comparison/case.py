"""What is compared: the rows, all of them or an even sample, and the clusters in use."""

from typing import NamedTuple

import numpy as np

from stages.algorithms.partitions.methods import ClusteringParameters, CompareParameters
from stages.algorithms.partitions.processes import Progress
from stages.algorithms.tree.row_lists import RowLists


class Case(NamedTuple):
    """What every step of a comparison is given."""

    rows: np.ndarray  # (m, d)
    merges: np.ndarray | None  # (m - 1, 4), their tree by the linkage in use; None where it has yet to be built
    in_use: np.ndarray  # (m,) the labels in use
    k: int  # clusters in use, of which a sample may hold fewer
    sampled: bool  # whether there are more rows than these, of which the labels in use were found
    parameters: ClusteringParameters
    compared: CompareParameters
    progress: Progress
    lists: RowLists | None = None  # of these rows, once they have been searched

    @property
    def grid(self) -> list[int]:
        """The k that all is fitted at: some of the range, and the k in use."""
        ends = self.parameters["k_min"], self.parameters["k_max"]
        return sorted({round(each) for each in np.linspace(*ends, self.compared["k_steps"])} | {self.k})

    @property
    def k_values(self) -> list[int]:
        """The grid with a k before and a k after it, which the elbow needs."""
        k_min, k_max = self.parameters["k_min"], self.parameters["k_max"]
        return sorted({min(self.k, k_min) - 1, *self.grid, max(self.k, k_max) + 1})


def refuse_sample(m: int, k: int, parameters: ClusteringParameters) -> None:
    """Raise ValueError where a sample of m rows is too small for the numbers of clusters."""
    largest = max(k, parameters["k_max"])
    if largest >= m:
        raise ValueError(
            f"params.yaml: compare.max_rows is {m}, but as many as {largest} clusters are looked for, which takes more "
            "rows than that; raise compare.max_rows, or lower k_max."
        )
