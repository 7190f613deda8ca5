"""Lower bounds from products in single precision on a GPU, by PyTorch.

Near pairs are selected there, and only they come back. PyTorch's CPU device serves as well, so that no GPU is needed to
test this.
"""

from functools import cache

import numpy as np
import torch

from stages.algorithms.tree.lower_bounds import ABSENT, UNIT, half_inverses, single_rows

PROBE = 512  # rows and columns of a product by which a device's rounding is measured
FEW = 16  # components of these rows: the fewer, the more of the rounding shows


def find_device(device: str | None) -> torch.device | None:
    """The device asked for; of ``auto`` the GPU that is there, or None.

    Raises
    ------
    ValueError
        If it is not there, or rounds more than single precision does.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        device = next((name for name, is_there in there.items() if is_there), None)
        return None if device is None else find_device(device)
    if not there[device]:
        raise ValueError(f"run.device is {device}, but PyTorch {torch.__version__} finds none here; set auto or cpu.")
    found = torch.device(device)
    if not rounds_singly(found):
        raise ValueError(
            f"run.device is {device}, whose products are rounded to less than single precision (TF32, say); turn that "
            "off in PyTorch, or set run.device: cpu."
        )
    return found


@cache
def rounds_singly(device: torch.device) -> bool:
    """Whether a product of matrices there keeps to the bound of single precision."""
    rows = np.random.default_rng(0).standard_normal((PROBE, FEW)).astype(np.float32)
    there = torch.from_numpy(rows).to(device)
    off = np.abs((there @ there.T).cpu().numpy() - rows.astype(np.float64) @ rows.T.astype(np.float64))
    lengths = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1))
    return bool((off <= (FEW + 1) * UNIT * np.outer(lengths, lengths)).all())


class Accelerator:
    """Products of matrices in single precision, on a device."""

    tile = 4096
    width = 2**20
    spare = 0.0

    def __init__(self, device: torch.device, n: int, d: int, weighted: bool):
        self.right = torch.empty((n, d + 2), dtype=torch.float32, device=device)
        self.halves = torch.empty(n, dtype=torch.float32, device=device) if weighted else None

    def write(self, slots: np.ndarray, vectors: np.ndarray, offsets: np.ndarray, sizes: np.ndarray) -> None:
        """Set vectors (p, d) float64, offsets and sizes of ``slots``."""
        places = self._here(slots)
        self.right[places] = self._here(single_rows(vectors, offsets))
        if self.halves is not None:
            self.halves[places] = self._here(half_inverses(sizes))

    def drop(self, slots: np.ndarray) -> None:
        """Put slots as far as ABSENT."""
        places = self._here(slots)
        self.right[places] = 0
        self.right[places, -2] = float(ABSENT)

    def compact(self, alive: np.ndarray) -> None:
        """Keep the slots listed in ascending order."""
        places = self._here(alive)
        self.right = self.right[places]
        self.halves = None if self.halves is None else self.halves[places]

    def bounds(self, rows: np.ndarray, columns: slice) -> "There":
        """Lower bounds of the distances of slots to a range of slots."""
        places = self._here(rows)
        left = -self.right[places]
        left[:, -1] = self.right[places, -2]
        left[:, -2] = 1
        found = left @ self.right[columns].T  # (r, d + 2) @ (d + 2, w) -> (r, w)
        if self.halves is not None:
            found /= self.halves[places, None] + self.halves[columns]
        itself = np.flatnonzero((rows >= columns.start) & (rows < columns.stop))
        found[self._here(itself), self._here(rows[itself] - columns.start)] = torch.inf
        return There(found)

    def _here(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self.right.device)


class There:
    """A block of lower bounds on a device, (r, w)."""

    def __init__(self, values: torch.Tensor):
        self.values = values

    def minima(self, kept: int) -> np.ndarray:
        """Per row the minima of groups of columns, fewer than 16 times ``kept``."""
        found = self.values
        while found.shape[1] >= 16 * kept:
            half = found.shape[1] // 2
            found = torch.minimum(found[:, :half], found[:, half : 2 * half])
        return found.cpu().numpy()

    def below(
        self, of_rows: np.ndarray, of_columns: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows, in ascending order, columns and keys of all that are below a row's or a column's limit."""
        device = self.values.device
        near = self.values < torch.from_numpy(of_rows).to(device)[:, None]
        if of_columns is not None:
            near |= self.values < torch.from_numpy(of_columns).to(device)
        row, column = near.nonzero(as_tuple=True)
        return row.cpu().numpy(), column.cpu().numpy(), self.values[row, column].cpu().numpy()
