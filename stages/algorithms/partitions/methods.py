"""The clustering methods by name: their parameters in params.yaml, and the criteria that each can have."""

from typing import Annotated, Any, Literal, TypedDict, get_args

from annotated_types import Interval

Linkage = Literal["average", "complete", "single", "ward"]
LINKAGES = get_args(Linkage)
Method = Literal["agglomerative", "kmeans", "minibatch_kmeans", "gaussian_mixture", "dbscan"]
Criterion = Literal["davies_bouldin", "davies_bouldin_gap", "silhouette", "elbow"]


class KMeansParameters(TypedDict):
    """The group `kmeans` of params.yaml."""

    init: Literal["k-means++", "random"]
    n_init: Annotated[int, Interval(ge=1)]


class MiniBatchKMeansParameters(TypedDict):
    """The group `minibatch_kmeans` of params.yaml."""

    batch_size: Annotated[int, Interval(ge=1)]
    n_init: Annotated[int, Interval(ge=1)]


class GaussianMixtureParameters(TypedDict):
    """The group `gaussian_mixture` of params.yaml."""

    covariance_type: Literal["full", "tied", "diag", "spherical"]
    max_iter: Annotated[int, Interval(ge=1)]


class DbscanParameters(TypedDict):
    """The group `dbscan` of params.yaml."""

    min_samples: Annotated[int, Interval(ge=2)]
    eps: float | None
    eps_steps: Annotated[int, Interval(ge=1, le=1000)]
    max_noise: Annotated[float, Interval(ge=0, le=1)]


class CompareParameters(TypedDict):
    """The group `compare` of params.yaml."""

    null_references: Annotated[int, Interval(ge=2)]
    k_steps: Annotated[int, Interval(ge=3)]
    subsamples: Annotated[int, Interval(ge=2)]
    subsample_share: Annotated[float, Interval(ge=0.1, le=0.99)]
    refits: Annotated[int, Interval(ge=2)]
    borderline_share: Annotated[float, Interval(gt=0, le=1)]


def refuse(method: str, criterion: str, consolidate: bool, eps: float | None) -> None:
    """Raise ValueError where parameters do not go together."""
    if method == "dbscan" and criterion in ("elbow", "davies_bouldin_gap"):
        raise ValueError(
            f"criterion is {criterion}, which needs a result at every k, but dbscan is given eps and finds k itself; "
            "with dbscan it can be davies_bouldin or silhouette."
        )
    if consolidate and method != "agglomerative":
        raise ValueError(
            f"consolidate is true, which moves the rows of a cut of the tree, but method is {method}; "
            "set consolidate: false, or method: agglomerative."
        )
    if eps is not None and not 0 < eps <= 2:
        raise ValueError(f"dbscan.eps is {eps:g}, expected null for a search or a cosine distance above 0 to 2.")


def options_of(method: str, groups: dict[str, Any], k_max: int) -> dict[str, Any]:
    """The options of an estimator of scikit-learn, from the parameter groups by name."""
    options = dict(groups[method])
    if method == "minibatch_kmeans":
        # Never fewer rows to start from than there are clusters.
        options["init_size"] = max(3 * options["batch_size"], 3 * k_max)
    return options
