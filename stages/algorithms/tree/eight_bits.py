"""Lower bounds from products of 8-bit integers, by onnxruntime: faster where a processor is made for them.

A vector v is stored as b q: whole numbers q from -127 to 127 and a scale b of its own. The rest r = v - b q is measured
when v is written, e = |r|. Then

    v_i . v_j = b_i b_j (q_i . q_j) + b_i q_i . r_j + r_i . v_j

in which q_i . q_j is exact, in 32-bit integers, and by Cauchy and Schwarz the rest is at most

    (|v_i| + e_i) e_j + e_i |v_j|  <=  E_i + E_j,   E = k |v|^2 / 2 + e^2 (1 / k + 1) / 2

for any k > 0, because x y <= (k x^2 + y^2 / k) / 2 and e_i e_j <= (e_i^2 + e_j^2) / 2. k is about e / |v|, which is
0.007 for components that are spread as a normal distribution, whatever their number. Offsets are lowered by E.

A pass over a block takes a fifth of the time of its products, so passes are saved. The library multiplies each column
by its scale and adds a number of its own while it multiplies; the scale of a row is left to `Values`.
"""

from functools import cache

import numpy as np

from stages.algorithms.tree.lower_bounds import ABSENT, PRESENT, UNIT, Values, half_inverses, keep

LARGEST = 127
RATIO = 2.0**-7  # k
LOOSE = 2.0**-5  # the most that a bound may be lower than it need be to save passes; a tenth of it is usual
# Components of which the sum of products is below 2^31.
MOST_COLUMNS = 2**31 // (255 * 128)


class EightBits:
    """Vectors as 8-bit integers with a scale each."""

    tile = 1536  # of 768 a tree of 72,064 rows takes a third longer: threads wait for each other after each short call
    width = 2048
    spare = 0.75

    def __init__(self, n: int, d: int, weighted: bool):
        self.whole = np.empty((n, d), np.int8)
        self.scales = np.empty(n, np.float32)
        self.offsets = np.empty(n, np.float32)
        self.halves = np.empty(n, np.float32) if weighted else None

    def write(self, slots: np.ndarray, vectors: np.ndarray, offsets: np.ndarray, sizes: np.ndarray) -> None:
        """Set vectors (p, d) float64, offsets and sizes of ``slots``."""
        largest = np.maximum(np.abs(vectors).max(axis=1), np.finfo(np.float32).tiny * 2**20)
        scales = (largest / LARGEST).astype(np.float32)
        whole = np.rint(vectors / scales[:, None])
        rest = np.square(vectors - whole * scales[:, None].astype(np.float64)).sum(axis=1)
        squares = np.square(vectors).sum(axis=1)
        margins = RATIO * squares / 2 + rest * (1 / RATIO + 1) / 2
        # Beyond that: the double precision above, and 10 roundings to single precision of what is no larger than this.
        margins += 1e-9 * margins + 16 * UNIT * (offsets + squares)
        self.whole[slots], self.scales[slots], self.offsets[slots] = whole, scales, offsets - margins
        if self.halves is not None:
            self.halves[slots] = half_inverses(sizes)

    def drop(self, slots: np.ndarray) -> None:
        """Put slots as far as ABSENT."""
        self.whole[slots] = 0
        self.offsets[slots] = ABSENT

    def compact(self, alive: np.ndarray) -> None:
        """Keep the slots listed in ascending order."""
        for name in ("whole", "scales", "offsets", "halves"):
            setattr(self, name, keep(getattr(self, name), alive))

    def bounds(self, rows: np.ndarray, columns: slice) -> Values:
        """Lower bounds of the distances of slots to a range of slots."""
        scales, offsets, of_columns = self.scales[rows], self.offsets[rows], self.offsets[columns]
        halves = None if self.halves is None else (self.halves[rows], self.halves[columns])
        left, right = self.whole[rows].view(np.uint8) + np.uint8(128), self.whole[columns]
        # The scales of rows can be left to `Values` if offsets of columns stand a row's scale in the product: an offset
        # below the highest one by so much is divided by the smallest scale, so that times any other it is lower still.
        highest = of_columns.max(initial=-1, where=of_columns < PRESENT)
        lowest_scale = scales.min()
        loose = (highest - of_columns.min()) * (scales.max() / lowest_scale - 1)
        if loose < LOOSE and (halves is None or all((each == 0.5).all() for each in halves)):
            added = (of_columns - highest) / lowest_scale
            found = multiply(left, right, self.scales[columns], added)
            return Values(found, rows, columns, scales, offsets + highest)
        found = multiply(left, right, self.scales[columns], np.zeros_like(of_columns))
        found *= scales[:, None]
        found += offsets[:, None]
        found += of_columns
        if halves is not None:
            found /= np.add.outer(*halves)
        return Values(found, rows, columns)


def multiply(left: np.ndarray, right: np.ndarray, scales: np.ndarray, added: np.ndarray) -> np.ndarray:
    """added - (left - 128) @ right.T * scales: (r, d) uint8, (w, d) int8, two (w,) float32 -> (r, w) float32."""
    feed = {"left": left, "right": right, "scales": scales, "added": added, "sign": MINUS, "zero": MIDDLE}
    return _session().run(None, feed)[0]


MINUS, MIDDLE = np.array([-1], np.float32), np.array([128], np.uint8)


@cache
def can_multiply(d: int) -> bool:
    """Whether onnxruntime is installed and its products of 8-bit integers are exact on this processor.

    On one without instructions for them it adds pairs of products in 16 bits, which is too short for the largest.
    """
    try:
        _session()
    except ImportError:
        return False
    if d > MOST_COLUMNS:
        return False
    for r, w, columns in ((1, 1, d), (13, 37, d), (64, 64, 67)):
        # Rows of the largest and of the smallest numbers, in which pairs of products add up to the most.
        left = np.resize(np.array([255, 1, 255], np.uint8), (r, 1)).repeat(columns, axis=1)
        right = np.resize(np.array([127, 127, -127], np.int8), (w, 1)).repeat(columns, axis=1)
        expected = -(left.astype(np.float64) - 128) @ right.T.astype(np.float64)
        found = multiply(left, right, np.ones(w, np.float32), np.zeros(w, np.float32))
        if (found != expected.astype(np.float32)).any():
            return False
    return True


@cache
def _session():
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(_model(), options, providers=["CPUExecutionProvider"])


def _model() -> bytes:
    """The product as an ONNX model, written by hand: a package that writes one is as large as that which runs it."""
    inputs = ["left", "columns", "sign", "scales", "zero", "", "added"]
    nodes = (
        _node("Transpose", ["right"], "columns"),
        _node("MatMulIntegerToFloat", inputs, "found", "com.microsoft"),
    )
    kinds = {"left": (2, 2), "right": (3, 2), "sign": (1, 1), "scales": (1, 1), "zero": (2, 1), "added": (1, 1)}
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, b"product")
    graph += b"".join(_field(11, _value(name, *kind)) for name, kind in kinds.items())
    graph += _field(12, _value("found", 1, 2))
    versions = [_field(1, b"") + _field(2, 13), _field(1, b"com.microsoft") + _field(2, 1)]
    return _field(1, 8) + _field(7, graph) + b"".join(_field(8, version) for version in versions)


def _node(kind: str, inputs: list[str], output: str, domain: str = "") -> bytes:
    named = [*((1, name) for name in inputs), (2, output), (4, kind), (7, domain)]
    return b"".join(_field(number, name.encode()) for number, name in named)


def _value(name: str, element: int, axes: int) -> bytes:
    """An input or output: elements of kind 1 (float32), 2 (uint8) or 3 (int8), axes of any length."""
    shape = b"".join(_field(1, _field(2, f"{name}{axis}".encode())) for axis in range(axes))
    return _field(1, name.encode()) + _field(2, _field(1, _field(1, element) + _field(2, shape)))


def _field(number: int, content: int | bytes) -> bytes:
    """A field of a protocol buffer: a whole number, or bytes after their length."""
    if isinstance(content, int):
        return _whole(number << 3) + _whole(content)
    return _whole(number << 3 | 2) + _whole(len(content)) + content


def _whole(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + _whole(number >> 7)
