"""The clustering methods, a row each, and the parameters that `cluster` and `compare` share.

A new method of scikit-learn is a `TypedDict` of its parameters and a row of `METHODS`: what params.yaml may hold, what
the stages take and what stands in the comparison follow from these.
"""

from typing import Annotated, Literal, TypedDict

from annotated_types import Interval

from stages.algorithms.partitions.candidates import Dbscan, Estimator, Method, TreeCuts
from stages.algorithms.partitions.criteria import Criterion
from stages.algorithms.partitions.estimators import refuse_covariance
from stages.algorithms.tree.linkage import LINKAGES, Linkage
from stages.algorithms.tree.smoothing import Smooth


class KMeansParameters(TypedDict):
    """The group `kmeans` of params.yaml."""

    init: Literal["k-means++", "random"]
    n_init: Annotated[int, Interval(ge=1, le=1000)]


class MiniBatchKMeansParameters(TypedDict):
    """The group `minibatch_kmeans` of params.yaml."""

    batch_size: Annotated[int, Interval(ge=1, le=1_000_000)]
    n_init: Annotated[int, Interval(ge=1, le=1000)]


class BisectingKMeansParameters(TypedDict):
    """The group `bisecting_kmeans` of params.yaml."""

    init: Literal["k-means++", "random"]
    n_init: Annotated[int, Interval(ge=1, le=1000)]
    bisecting_strategy: Literal["biggest_inertia", "largest_cluster"]


class GaussianMixtureParameters(TypedDict):
    """The group `gaussian_mixture` of params.yaml."""

    covariance_type: Literal["full", "tied", "diag", "spherical"]
    max_iter: Annotated[int, Interval(ge=1, le=10_000)]


class DbscanParameters(TypedDict):
    """The group `dbscan` of params.yaml."""

    min_samples: Annotated[int, Interval(ge=2, le=10_000)]
    eps: Annotated[float, Interval(gt=0, le=2)] | None
    eps_steps: Annotated[int, Interval(ge=1, le=1000)]
    max_noise: Annotated[float, Interval(ge=0, le=1)]


class CompareParameters(TypedDict):
    """The group `compare` of params.yaml."""

    max_rows: Annotated[int, Interval(ge=100, le=1_000_000)]
    null_references: Annotated[int, Interval(ge=2, le=10_000)]
    k_steps: Annotated[int, Interval(ge=3, le=1000)]
    subsamples: Annotated[int, Interval(ge=2, le=1000)]
    subsample_share: Annotated[float, Interval(ge=0.1, le=0.99)]
    refits: Annotated[int, Interval(ge=2, le=1000)]
    borderline_share: Annotated[float, Interval(gt=0, le=1)]


METHODS: dict[str, Method] = {
    row.name: row
    for row in (
        TreeCuts(
            "agglomerative",
            changes={
                f"agglomerative {linkage}{' consolidated' if moved else ''}": {"linkage": linkage, "consolidate": moved}
                for linkage in LINKAGES
                for moved in (False, True)
            },
        ),
        Estimator(
            "kmeans",
            KMeansParameters,
            estimator="KMeans",
            changes={"kmeans random": {"init": "random"}, "kmeans k-means++": {"init": "k-means++"}},
        ),
        Estimator("minibatch_kmeans", MiniBatchKMeansParameters, estimator="MiniBatchKMeans"),
        Estimator("bisecting_kmeans", BisectingKMeansParameters, estimator="BisectingKMeans"),
        Estimator(
            "gaussian_mixture", GaussianMixtureParameters, estimator="GaussianMixture", refuse_rows=refuse_covariance
        ),
        Dbscan("dbscan", DbscanParameters, criteria=("davies_bouldin", "silhouette", "modularity")),
    )
}

MethodName = Literal[tuple(METHODS)]
Groups = TypedDict("Groups", {row.name: row.parameters for row in METHODS.values() if row.parameters})


class ClusteringParameters(Groups):
    """What `cluster` and `compare` both read of params.yaml: these, and the group of each method."""

    method: MethodName
    criterion: Criterion
    linkage: Linkage
    smooth: Smooth
    k_min: Annotated[int, Interval(ge=2, le=10_000)]
    k_max: Annotated[int, Interval(ge=2, le=10_000)]
    consolidate: bool
    max_share: Annotated[float, Interval(gt=0, le=1)]
    min_cluster_size: Annotated[int, Interval(ge=1, le=1_000_000)]
    seed: Annotated[int, Interval(ge=0, le=2**31 - 1)]


def refuse(parameters: ClusteringParameters) -> None:
    """Raise ValueError where parameters do not go together."""
    METHODS[parameters["method"]].refuse(parameters)


def refuse_range(parameters: ClusteringParameters, n: int) -> None:
    """Raise ValueError where n rows do not allow the numbers of clusters."""
    k_min, k_max = parameters["k_min"], parameters["k_max"]
    if n < 3:
        raise ValueError(f"{n} rows, expected at least 3 to choose clusters among; embed more texts.")
    if not k_min <= k_max < n:
        raise ValueError(
            f"params.yaml: k_min {k_min} and k_max {k_max}: expected k_min <= k_max < {n}, the number of rows; lower "
            + ("k_max." if k_min <= k_max else "k_min, or raise k_max.")
        )
