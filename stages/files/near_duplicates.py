"""Groups of nearly equal rows, as Parquet."""

from pathlib import Path

import numpy as np

from stages.files.rows import Row
from stages.runtime.files import replacing


def write_near_duplicates(path: Path, rows: list[Row], group: np.ndarray) -> None:
    """Write the rows of each group, by group and row; rows of group -1 are left out."""
    import pyarrow
    import pyarrow.parquet

    order = np.argsort(group, kind="stable")
    chosen = order[group[order] >= 0].tolist()
    columns = {
        "group": pyarrow.array(group[chosen], pyarrow.int32()),
        "batch": pyarrow.array([rows[i].batch for i in chosen], pyarrow.string()),
        "row": pyarrow.array([rows[i].row for i in chosen], pyarrow.int32()),
        "text": pyarrow.array([rows[i].text for i in chosen], pyarrow.string()),
    }
    with replacing(path) as file:
        pyarrow.parquet.write_table(pyarrow.table(columns), file)
