"""The half of a model that reduce writes, with its one reader."""

from pathlib import Path

import numpy as np

from stages.algorithms.principal_components import Reduction
from stages.runtime.arrays import Field, read_model

POSITIVE = float(np.finfo(np.float64).tiny)
# The sizes: columns of embeddings, d components.
REDUCTION = {
    "mean": Field("f8", ("columns",)),
    "components": Field("f8", ("d", "columns")),
    "explained_variance": Field("f8", ("d",), low=0),
    "total_variance": Field("f8", (), low=POSITIVE),
    "center": Field("f8", ("d",)),
    "scale": Field("f8", ("d",), low=POSITIVE),
}


def read_reduction(path: Path) -> Reduction:
    """Read the half that reduce writes."""
    return Reduction(**read_model(path, "reduce", REDUCTION, {}))
