"""What each kind of method offers to choose from: cuts of the tree, a fit at every k, or DBSCAN at every eps."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

import numpy as np

from stages.algorithms.partitions.criteria import Criterion, elbow_ratios
from stages.algorithms.partitions.cuts import CutScores, cut_tree, score_cuts
from stages.algorithms.partitions.density import EpsSearch, search_bytes, search_eps
from stages.algorithms.partitions.estimators import Partition, fit_partition, score_partitions
from stages.algorithms.partitions.modularity import fitted_modularities, searched_modularities, tree_modularities
from stages.algorithms.partitions.null_band import fitted_curve, tree_curve
from stages.algorithms.partitions.processes import Progress, run_each
from stages.algorithms.tree.linkage import matrix_bytes
from stages.algorithms.tree.row_lists import RowLists

log = logging.getLogger(__name__)

Parameters = Mapping[str, Any]  # `ClusteringParameters`: what cluster and compare read of params.yaml


class Candidates(NamedTuple):
    """What a method offers to choose from: a partition a k, or an eps; arrays have an entry each."""

    k: np.ndarray  # int64, clusters asked for, or found by DBSCAN
    scores: CutScores
    partition: Callable[[int], Partition]  # of the candidate at a place
    extra: dict[str, np.ndarray]  # what else to show of each


@dataclass(frozen=True)
class Method:
    """What is known of a method by its name: a row of the table in `methods.py`."""

    name: str  # in params.yaml
    parameters: type | None = None  # of its group in params.yaml, which has its name
    criteria: tuple[str, ...] = get_args(Criterion)  # that can choose among its candidates
    random: bool = False  # whether another seed may give another result
    # Where the comparison has several variants of it: by their names in tables, the options that each has of its own.
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    # Raises ValueError where n rows of d columns are too few for k clusters with these options.
    refuse_rows: Callable[[int, int, int, dict[str, Any]], None] = lambda n, d, k, options: None

    @property
    def variants(self) -> dict[str, dict[str, Any]]:
        """The options that each variant in the comparison has of its own, by its name in tables."""
        return self.changes or {self.name: {}}

    def options(self, parameters: Parameters) -> dict[str, Any]:
        """What params.yaml says of the method, by the names that `label` and the variants have."""
        return dict(parameters[self.name])

    def variant_in_use(self, parameters: Parameters) -> str:
        """The name in tables of the variant that params.yaml describes."""
        options = self.options(parameters)
        return next(name for name, changes in self.variants.items() if changes.items() <= options.items())

    def refuse(self, parameters: Parameters) -> None:
        """Raise ValueError where parameters do not go with the method."""
        if parameters["criterion"] not in self.criteria:
            raise ValueError(
                f"criterion is {parameters['criterion']}, which needs a result at every k, but {self.name} is given "
                f"eps and finds k itself; with {self.name} it can be {' or '.join(self.criteria)}."
            )
        if parameters["consolidate"] and not isinstance(self, TreeCuts):
            raise ValueError(
                f"consolidate is true, which moves the rows of a cut of the tree, but method is {self.name}; "
                "set consolidate: false, or method: agglomerative."
            )

    def bytes_needed(self, rows: np.ndarray, options: dict[str, Any]) -> int:
        """Memory that finding clusters in the rows takes, where it is much, or 0."""
        return 0

    def label(self, rows: np.ndarray, k: int, seed: int, options: dict[str, Any]) -> Partition:
        """Partition the rows into k clusters."""
        raise NotImplementedError

    def candidates(
        self, rows: np.ndarray, merges: np.ndarray, parameters: Parameters, progress: Progress
    ) -> Candidates:
        """Everything to choose from, scored.

        Parameters
        ----------
        rows : ndarray of shape (n, d)
        merges : ndarray of shape (n - 1, 4)
            The linkage matrix of the rows by the linkage in use.
        parameters : ClusteringParameters
        progress : callable
            As in `processes`.

        Raises
        ------
        ValueError
            If there is nothing to choose from.
        """
        raise NotImplementedError

    def curve(self, parameters: Parameters) -> tuple:
        """A function of `null_band` that scores other rows at the same k, and its arguments after the rows."""
        raise NotImplementedError

    def modularities(self, parameters: Parameters) -> tuple:
        """A function of `modularity` that does the same, and its arguments after the rows."""
        raise NotImplementedError


class TreeCuts(Method):
    """The cuts of the tree of merges."""

    def options(self, parameters: Parameters) -> dict[str, Any]:
        """The linkage, the neighbours that rows are smoothed with, and whether they are moved once the tree is cut."""
        return {name: parameters[name] for name in ("linkage", "smooth", "consolidate")}

    def bytes_needed(self, rows: np.ndarray, options: dict[str, Any]) -> int:
        """Those of the distances that the linkage keeps."""
        return matrix_bytes(options["linkage"], len(rows))

    def candidates(
        self, rows: np.ndarray, merges: np.ndarray, parameters: Parameters, progress: Progress
    ) -> Candidates:
        """A cut at every k."""
        k_min, k_max = parameters["k_min"], parameters["k_max"]
        scores = score_cuts(rows, merges, k_min - 1, k_max + 1)
        return _with_elbow(k_min, k_max, scores, lambda i: Partition(cut_tree(merges, k_min + i)), {})

    def curve(self, parameters: Parameters) -> tuple:
        """The scores of the cuts of a tree by the linkage in use."""
        return tree_curve, *(parameters[name] for name in ("linkage", "smooth", "k_min", "k_max"))

    def modularities(self, parameters: Parameters) -> tuple:
        """The modularity of the cuts of such a tree, before rows are moved."""
        return tree_modularities, *self.curve(parameters)[1:]


@dataclass(frozen=True)
class Estimator(Method):
    """An estimator of scikit-learn that is given k."""

    estimator: str = ""  # its class
    random: bool = True

    def options(self, parameters: Parameters) -> dict[str, Any]:
        """The group; where it has batches, never fewer rows to start from than there are clusters."""
        options = super().options(parameters)
        if "batch_size" in options:
            options["init_size"] = 3 * max(options["batch_size"], parameters["k_max"])
        return options

    def label(self, rows: np.ndarray, k: int, seed: int, options: dict[str, Any]) -> Partition:
        """Fit the estimator."""
        return fit_partition(rows, self.estimator, k, seed, options)

    def candidates(
        self, rows: np.ndarray, merges: np.ndarray, parameters: Parameters, progress: Progress
    ) -> Candidates:
        """A fit at every k; nothing is known of the fits of other k, so each costs a fit of its own."""
        k_min, k_max, options = parameters["k_min"], parameters["k_max"], self.options(parameters)
        self.refuse_rows(*rows.shape, k_max + 1, options)
        # From the largest k down: the longest fits first leave no worker waiting in the end.
        tasks = [(rows, self.estimator, k, parameters["seed"], options) for k in range(k_max + 1, k_min - 2, -1)]
        done = progress(f"{self.name}, k {k_min}..{k_max}", len(tasks))
        partitions = run_each(fit_partition, tasks, done=done)[::-1]
        unfinished = sum(not partition.converged for partition in partitions)
        if unfinished:
            log.warning("%d of %d fits stopped at max_iter before they converged", unfinished, len(partitions))
        scores, inside = score_partitions(rows, partitions), partitions[1:-1]
        known = inside[0].bic is not None
        extra = {"bic": np.array([partition.bic for partition in inside])} if known else {}
        return _with_elbow(k_min, k_max, scores, inside.__getitem__, extra)

    def curve(self, parameters: Parameters) -> tuple:
        """The scores of fits with the same options from the same seed."""
        k_min, k_max, seed = parameters["k_min"], parameters["k_max"], parameters["seed"]
        return fitted_curve, self.estimator, k_min, k_max, seed, self.options(parameters)

    def modularities(self, parameters: Parameters) -> tuple:
        """The modularity of the same fits."""
        return fitted_modularities, *self.curve(parameters)[1:]


class Dbscan(Method):
    """DBSCAN, which is given eps and finds k."""

    def modularities(self, parameters: Parameters) -> tuple:
        """The modularity of what a search finds in other rows."""
        return searched_modularities, parameters[self.name], parameters["k_min"], parameters["k_max"]

    def options(self, parameters: Parameters) -> dict[str, Any]:
        """The two that DBSCAN itself has."""
        return {name: parameters[self.name][name] for name in ("eps", "min_samples")}

    def bytes_needed(self, rows: np.ndarray, options: dict[str, Any]) -> int:
        """Those of the neighbours of each row."""
        return search_bytes(len(rows), options["min_samples"])

    def label(self, rows: np.ndarray, k: int, seed: int, options: dict[str, Any]) -> Partition:
        """DBSCAN at one eps, of whatever k and seed; as many rows as there are make a core row where they are few."""
        return Partition(search_eps(rows, min(options["min_samples"], len(rows)), [options["eps"]]).labels[0])

    def search(self, rows: np.ndarray, parameters: Parameters, lists: RowLists | None = None) -> EpsSearch:
        """DBSCAN at the eps of params.yaml, or at those that a search tries."""
        group = parameters[self.name]
        given = None if group["eps"] is None else [group["eps"]]
        return search_eps(rows, group["min_samples"], given, group["eps_steps"], lists)

    def candidates(
        self, rows: np.ndarray, merges: np.ndarray, parameters: Parameters, progress: Progress
    ) -> Candidates:
        """What is found at each eps, where it has neither too few or too many clusters nor too much noise."""
        k_min, k_max, max_noise = parameters["k_min"], parameters["k_max"], parameters[self.name]["max_noise"]
        search = self.search(rows, parameters)
        for eps, clusters, noise, largest in zip(
            search.eps, search.clusters, search.noise_share, search.largest_share, strict=True
        ):
            log.info("eps %.4f: %4d clusters, noise %.3f, largest %.3f", eps, clusters, noise, largest)
        in_range = (search.clusters >= k_min) & (search.clusters <= k_max)
        kept = np.flatnonzero(in_range & (search.noise_share <= max_noise))
        if not len(kept):
            raise ValueError(
                f"dbscan: {search.clusters.min()} to {search.clusters.max()} clusters at the {len(search.eps)} eps "
                f"tried, expected one with {k_min}..{k_max} clusters and at most {max_noise:g} noise; change "
                "dbscan.min_samples, dbscan.max_noise, dbscan.eps or k_min..k_max."
            )
        partitions = [Partition(search.labels[i]) for i in kept]
        extra = {"eps": search.eps[kept], "noise_share": search.noise_share[kept]}
        return Candidates(search.clusters[kept], score_partitions(rows, partitions), partitions.__getitem__, extra)


def _with_elbow(
    k_min: int, k_max: int, scores: CutScores, partition: Callable[[int], Partition], extra: dict[str, np.ndarray]
) -> Candidates:
    """Candidates of k_min..k_max out of scores that have one k more at both ends, which the elbow needs."""
    k = np.arange(k_min - 1, k_max + 2)
    trimmed = CutScores(*(column[1:-1] for column in scores))
    # A partition of which one cluster has rows is none, by any criterion.
    elbow = np.where(trimmed.k > 1, elbow_ratios(k, scores.inertia), np.nan)
    return Candidates(k[1:-1], trimmed, partition, {"elbow": elbow, **extra})
