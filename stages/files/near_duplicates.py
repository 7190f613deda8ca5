"""Groups of nearly equal rows, as Parquet."""

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from stages.files.rows import Row
from stages.runtime.files import replacing

SCHEMA = pyarrow.schema(
    [
        ("group", pyarrow.int32()),
        ("batch", pyarrow.string()),
        ("row", pyarrow.int32()),
        ("text", pyarrow.string()),
    ]
)


def write_near_duplicates(path: Path, rows: list[Row], group: np.ndarray) -> None:
    """Write the rows of each group, by group and row; rows of group -1 are left out."""
    order = np.argsort(group, kind="stable")
    chosen = order[group[order] >= 0].tolist()
    table = pyarrow.table(
        [
            group[chosen],
            [rows[i].batch for i in chosen],
            [rows[i].row for i in chosen],
            [rows[i].text for i in chosen],
        ],
        schema=SCHEMA,
    )
    with replacing(path) as file:
        pyarrow.parquet.write_table(table, file)
