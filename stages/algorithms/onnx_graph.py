"""A model as an ONNX graph: the chain in double precision, with the rounding that gives the same digits anywhere.

It takes the `onnx` package, and is imported where a graph is asked for.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from stages.algorithms.centroids import DIRECTION, directions
from stages.algorithms.prediction.doubt import LEAST, LOG
from stages.algorithms.prediction.novelty import CLOSE
from stages.algorithms.prediction.prediction import STORED, Model
from stages.algorithms.principal_components import ROW_BITS

OPSET = 18  # of 2022; nothing here has needed a newer one
IR_VERSION = 8  # that came with it
HALF_BITS = 0.7213475204444817  # 1 / (2 ln 2): of the logarithm of a square, the exponent of its root
INPUT = "embeddings"
OUTPUTS = {
    "cluster": TensorProto.INT32,
    "probability": TensorProto.FLOAT,
    "margin": TensorProto.FLOAT,
    "runner_up": TensorProto.INT32,
    "distance": TensorProto.FLOAT,
    "novel": TensorProto.BOOL,
    "candidates": TensorProto.BOOL,  # a column a cluster
    "sure": TensorProto.BOOL,
}


def onnx_bytes(
    model: Model, metadata: dict[str, str], precision: str = "float32", numbers: Sequence[int] = ()
) -> bytes:
    """The graph of a model, the same bytes every time.

    Parameters
    ----------
    model : Model
    metadata : dict of str to str
    precision : str
        Of the embeddings: float16, float32 or float64.
    numbers : sequence of int
        Of the clusters, in the order of their places; 0 to k - 1 if none are given.

    Returns
    -------
    bytes
        Of an ONNX model that takes `embeddings` (rows, columns) and gives `OUTPUTS`, all (rows,) but `candidates`,
        (rows, k). It does what `classify_rows` does, and refuses no row: of one that is not finite or all zeros, or too
        large to square, what it says means nothing.
    """
    graph = _Graph()
    rows = graph.add("Cast", INPUT, to=TensorProto.DOUBLE)
    _add_clusters(graph, rows, model, np.array(numbers or range(len(model.intercept))))
    _add_novelty(graph, rows, model)

    k, columns = len(model.intercept), len(model.reduction.mean)
    shapes = {name: ["rows", k] if name == "candidates" else ["rows"] for name in OUTPUTS}
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(precision))
    inputs = [helper.make_tensor_value_info(INPUT, kind, ["rows", columns])]
    outputs = [helper.make_tensor_value_info(name, kind, shapes[name]) for name, kind in OUTPUTS.items()]
    made = helper.make_model(
        helper.make_graph(graph.nodes, "classify", inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="stages.export",
    )
    helper.set_model_props(made, metadata)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString(deterministic=True)


class _Graph:
    """Nodes in the order of the computation; a result is known by the name of its node."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(
        self, operator: str, *inputs: "str | np.ndarray | float", to_name: str | None = None, **settings: Any
    ) -> str:
        """Add a node, and constants for those inputs that are values; its name."""
        name = to_name or f"{operator}_{len(self.nodes)}"
        names = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        self.nodes.append(helper.make_node(operator, names, [name], name=name, **settings))
        return name

    def constant(self, value: np.ndarray | float) -> str:
        """Add a constant: float64, or int64 where the values are whole numbers by type."""
        array = np.asarray(value)
        array = np.array(array, dtype="<i8" if array.dtype.kind == "i" else "<f8", order="C")
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def rounded(self, value: str, unit: float) -> str:
        """As `on_grid`, but for the sign of 0."""
        return self.add("Mul", self.add("Round", self.add("Div", value, unit)), unit)

    def squared_lengths(self, rows: str) -> str:
        return self.add("ReduceSumSquare", rows, np.array([1]), keepdims=1)

    def project(self, rows: str, components: np.ndarray) -> str:
        """As `project`: rows in units of a power of two, so that their product with the components is exact."""
        squares = self.add("Max", self.squared_lengths(rows), np.finfo(float).tiny)
        exponent = self.add("Floor", self.add("Mul", self.add("Log", squares), HALF_BITS))
        unit = self.add("Pow", 2.0, self.add("Add", exponent, 1.0 - ROW_BITS))
        integers = self.add("Round", self.add("Div", rows, unit))
        return self.add("Mul", self.add("MatMul", integers, components.T), unit)

    def cosine_distances(self, rows: str, centroids: np.ndarray) -> str:
        """As `cosine_distances`: of directions that are rounded, so that their products are exact."""
        lengths = self.add("Sqrt", self.squared_lengths(rows))
        lengths = self.add("Where", self.add("Equal", lengths, 0.0), 1.0, lengths)
        units = self.rounded(self.add("Div", rows, lengths), DIRECTION)
        similarities = self.add("MatMul", units, directions(centroids).T)
        return self.add("Clip", self.add("Sub", 1.0, similarities), 0.0, 2.0)

    def one_each(self, values: str, places: str) -> str:
        """Of each row the value at its place: (rows, k), (rows, 1) -> (rows,)."""
        return self.flat(self.add("GatherElements", values, places, axis=1))

    def flat(self, column: str) -> str:
        return self.add("Squeeze", column, np.array([1]))

    def numbered(self, places: str, numbers: np.ndarray) -> str:
        """The number of each place: (rows, 1) -> (rows,)."""
        if np.array_equal(numbers, np.arange(len(numbers))):
            return self.flat(places)
        return self.add("Gather", numbers, self.flat(places))

    def stored(self, value: str, name: str) -> None:
        self.add("Cast", self.rounded(value, STORED), to=TensorProto.FLOAT, to_name=name)


def _add_clusters(graph: _Graph, rows: str, model: Model, numbers: np.ndarray) -> None:
    reduction, k = model.reduction, len(model.intercept)
    projected = graph.project(graph.add("Sub", rows, reduction.mean), reduction.components)
    reduced = graph.add("Div", graph.add("Sub", projected, reduction.center), reduction.scale)
    distances = graph.cosine_distances(reduced, model.centroids)
    scores = graph.add("Add", graph.add("MatMul", distances, model.coef.T), model.intercept)
    scores = graph.add("Sub", scores, graph.add("ReduceMax", scores, np.array([1]), keepdims=1))
    powers = graph.add("Exp", scores)
    probabilities = graph.add("Div", powers, graph.add("ReduceSum", powers, np.array([1]), keepdims=1))

    logs = graph.rounded(graph.add("Max", graph.add("Log", probabilities), LEAST), LOG)

    first = graph.add("ArgMax", probabilities, axis=1, keepdims=1)
    is_first = graph.add("Equal", first, np.arange(k))
    second = graph.add("ArgMax", graph.add("Where", is_first, -np.inf, logs), axis=1, keepdims=1)
    best = graph.one_each(probabilities, first)
    others = graph.add("Where", is_first, -1.0, probabilities)
    next_best = graph.add("ReduceMax", others, np.array([1]), keepdims=0)
    graph.add("Cast", graph.numbered(first, numbers), to=TensorProto.INT32, to_name="cluster")
    graph.stored(best, "probability")
    graph.stored(graph.add("Sub", best, next_best), "margin")
    graph.add("Cast", graph.numbered(second, numbers), to=TensorProto.INT32, to_name="runner_up")
    graph.stored(graph.one_each(distances, first), "distance")

    reaching = graph.add("GreaterOrEqual", logs, model.candidate_limits)
    candidates = graph.add("Or", reaching, is_first, to_name="candidates")
    number = graph.add("ReduceSum", graph.add("Cast", candidates, to=TensorProto.INT64), np.array([1]), keepdims=0)
    graph.add("Equal", number, 1, to_name="sure")


def _add_novelty(graph: _Graph, rows: str, model: Model) -> None:
    """As `measure_rows` and the limits have it."""
    mean, components, centroids, negligible = model.detector
    if not len(components):  # a component of zeros says as little as none, and no runtime fails on it
        components, centroids = np.zeros((1, len(mean))), np.zeros((len(centroids), 1))
    centred = graph.add("Sub", rows, mean)
    near = graph.project(centred, components)
    distance = graph.add("ReduceMin", graph.cosine_distances(near, centroids), np.array([1]), keepdims=1)
    squares = graph.add("Sub", graph.squared_lengths(centred), graph.squared_lengths(near))
    residual = graph.add("Sqrt", graph.add("Max", squares, 0.0))
    beyond = [
        graph.add("Greater", graph.add("Where", graph.add("Less", value, least), 0.0, value), limit)
        for value, least, limit in (
            (distance, CLOSE, model.distance_limit),
            (residual, negligible, model.residual_limit),
        )
    ]
    graph.add("Squeeze", graph.add("Or", *beyond), np.array([1]), to_name="novel")
