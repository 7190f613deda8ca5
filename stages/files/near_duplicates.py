"""Groups of nearly equal rows, as Parquet."""

from pathlib import Path

import numpy as np

from stages.files.rows import Row
from stages.runtime.files import replacing


def write_near_duplicates(path: Path, rows: list[Row], group: np.ndarray) -> None:
    """Write the rows of each group, by group and row.

    Parameters
    ----------
    path : Path
    rows : list of Row
        Those that are in a group, in order.
    group : ndarray of shape (n,), int32
        That of each of all rows, -1 for a row that is in none.
    """
    import pyarrow
    import pyarrow.parquet

    group = group[group >= 0]
    order = np.argsort(group, kind="stable").tolist()
    columns = {
        "group": pyarrow.array(group[order], pyarrow.int32()),
        "batch": pyarrow.array([rows[i].batch for i in order], pyarrow.string()),
        "row": pyarrow.array([rows[i].row for i in order], pyarrow.int32()),
        "text": pyarrow.array([rows[i].text for i in order], pyarrow.string()),
    }
    with replacing(path) as file:
        pyarrow.parquet.write_table(pyarrow.table(columns), file)
