"""Write the model as one ONNX file, which any runtime of ONNX runs: new embeddings in, all of their classes out.

data/model/*, data/embeddings_classf/*.npy to check it on
  -> data/model/classify.onnx

A command: no stage of the pipeline waits for it. Neither Git nor DVC tracks the file, which can be made again.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stages.files.batches import open_batches
from stages.files.blocks import read_blocks
from stages.files.numbers import places_of
from stages.files.reduction import refuse_other_embeddings
from stages.model import Clusters, Table
from stages.runtime import command
from stages.runtime.files import hold, replacing
from stages.runtime.parameters import Text
from stages.runtime.remote import Address, Place

log = logging.getLogger(__name__)

IN_MODEL = Path("MODEL/classify.onnx")
PRECISIONS = ("float16", "float32", "float64")
TOLERANCE = 2.0**-10  # of the numbers, which are multiples of it: rounding may put one of them on the next
NUMBERS, CLASSES = ("probability", "margin", "distance"), ("cluster", "runner_up", "novel", "sure")


def export(
    *,
    model: Place = Path("data/model"),
    embeddings: Place = Path("data/embeddings_classf"),
    output: Path = IN_MODEL,
    precision: Text = Text(PRECISIONS[1]),  # noqa: B008, which cannot change
) -> None:
    """Write the model as ONNX, once onnxruntime has said with it what `classify` says of these embeddings.

    Its input, `embeddings`, is (rows, columns) of the precision: float16, float32 or float64. All within is double.
    Its outputs are columns of data/predictions: cluster, probability, margin, runner_up, distance, novel, sure, and
    candidates as true or false, (rows, clusters). The names of the clusters stand in its metadata, and their numbers
    where these are not 0 to k - 1.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"--precision {precision}: expected one of {', '.join(PRECISIONS)}.")
    if output == IN_MODEL:
        if isinstance(model, Address):
            raise ValueError(f"--model {model}: an address; give --output, a file of this machine.")
        output = model / IN_MODEL.name
    hold(output)
    clusters = Clusters.load(model)
    batches = open_batches(embeddings)
    refuse_other_embeddings(embeddings, batches, model / "reduction.npz")
    if batches[0].columns != clusters.columns:
        raise ValueError(
            f"{batches[0].path}: {batches[0].columns} columns, but the model in {model} was made from "
            f"{clusters.columns}; give embeddings of the same model."
        )
    try:
        import onnxruntime

        from stages.algorithms.onnx_graph import INPUT, OPSET, OUTPUTS, onnx_bytes
    except ImportError as error:
        raise ValueError(
            f"ONNX cannot be written or checked ({error}); run `pip install -r requirements-export.txt`."
        ) from None
    content = onnx_bytes(clusters.folded.model, metadata_of(clusters), precision, clusters.numbers)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    differing, rows = 0, sum(batch.rows for batch in batches)
    for block in read_blocks(batches):
        given = block.astype(precision)
        found = dict(zip(OUTPUTS, session.run(list(OUTPUTS), {INPUT: given}), strict=True))
        differing += rows_that_differ(found, clusters.classify(given), clusters.numbers)
    if differing:
        raise RuntimeError(
            f"{output}: not written, because onnxruntime {onnxruntime.__version__} says otherwise of {differing} of "
            f"{rows} rows of {embeddings} than `classify`; take the version of requirements-export.txt, or report this."
        )
    with replacing(output) as file:
        file.write(content)
    log.info("%s: ONNX opset %d, %d columns to %d clusters, %.1f MB; of %d rows it says what classify says",
        output, OPSET, clusters.columns, len(clusters.names), len(content) / 1e6, rows,
    )  # fmt: skip


def metadata_of(clusters: Clusters) -> dict[str, str]:
    """What the file says of the model, each as JSON but the digest."""
    said = {"names": clusters.names, "embedding": clusters.embedding and clusters.embedding._asdict()}
    if clusters.numbers != list(range(len(clusters.numbers))):
        said["numbers"] = clusters.numbers
    return {"digest": clusters.digest} | {name: json.dumps(value, ensure_ascii=False) for name, value in said.items()}


def rows_that_differ(found: dict[str, np.ndarray], expected: Table, numbers: Sequence[int]) -> int:
    """How many rows have other classes or candidates, or a number that is further off than `TOLERANCE`."""
    differs = np.zeros(len(expected["cluster"]), dtype=bool)
    for name in CLASSES:
        differs |= found[name] != expected[name]
    for name in NUMBERS:
        differs |= ~(np.abs(found[name] - expected[name]) <= TOLERANCE)
    candidates = np.zeros(found["candidates"].shape, dtype=bool)
    counts = [len(each) for each in expected["candidates"]]
    places = places_of(np.concatenate(expected["candidates"]), np.asarray(numbers))
    candidates[np.repeat(np.arange(len(counts)), counts), places] = True
    differs |= (found["candidates"] != candidates).any(axis=1)
    return int(np.count_nonzero(differs))


if __name__ == "__main__":
    command.run(export, elsewhere="model")
