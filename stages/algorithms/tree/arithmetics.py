"""What proposes which clusters may be near: the arithmetic that is asked for, or the fastest that is to be had here."""

from functools import partial
from typing import Literal

from stages.algorithms.tree.lower_bounds import Arithmetic, Make, SinglePrecision

# Rows below which no library is imported for 8-bit products, which would then save less than they cost.
FEW_ROWS = 8000

Device = Literal["cpu", "cuda", "mps", "auto"]


def arithmetic(device: Device = "cpu", integers: bool = True) -> Make:
    """What computes lower bounds: on a device, and on the CPU in 8 bits where that is to be had.

    Raises
    ------
    ValueError
        If the device is not there, or PyTorch, which serves it, is not.
    """
    if device != "cpu":
        try:
            from stages.algorithms.tree.accelerator import Accelerator, find_device
        except ImportError as error:
            raise ValueError(
                f"run.device is {device}, but PyTorch cannot be imported ({error}); "
                "`pip install -r requirements-gpu.txt`, or set run.device: cpu."
            ) from error
        found = find_device(device)
        if found is not None:
            return partial(Accelerator, found)
    return _eight_bits_or_single if integers else SinglePrecision


def _eight_bits_or_single(n: int, d: int, weighted: bool) -> Arithmetic:
    if n >= FEW_ROWS:
        from stages.algorithms.tree.eight_bits import EightBits, can_multiply

        if can_multiply(d):
            return EightBits(n, d, weighted)
    return SinglePrecision(n, d, weighted)
