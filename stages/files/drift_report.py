"""The report on drift: drift.json, known by how it begins."""

import logging

from stages.algorithms.prediction.drift import ALL, Drift, departures, furthest
from stages.runtime import record
from stages.runtime.arrays import opened
from stages.runtime.files import lexists
from stages.runtime.remote import Place

log = logging.getLogger(__name__)

# How drift.json begins, but for its spaces. No other file is taken for one that may be replaced.
REPORT = f'{{"drift":{{"{ALL}":{{"verdict":'.replace(" ", "").encode()


def refuse_another_report(path: Place) -> None:
    """Refuse to replace what no run of classify wrote."""
    begins = b""
    if path.is_file():
        with opened(path, "classify") as file:
            begins = b"".join(file.read(1000).split())
    if lexists(path) and not begins.startswith(REPORT):
        raise ValueError(
            f"{path}: not written by classify, and it would be replaced; move it away, or choose another folder."
        )


def write_report(path: Place, drifts: dict[str, Drift], left_out: dict[str, str]) -> None:
    """Log what is not like training, and write the table; where there are many batches, not of each that is alike.

    `left_out` is what was refused, by the name of its file, and stands beside the table.
    """
    shown = furthest(drifts)
    for name, drift in shown.items():
        if drift.verdict != "like training":
            causes = ", ".join(test for test, value in departures(drift).items() if value > 1)
            log.warning("%s: %s (%s)", name, drift.verdict, causes)
    listed = {name: drift for name, drift in drifts.items() if name in shown or drift.verdict != "like training"}
    if len(listed) > len(shown):
        log.warning("%d more batches are not like training; drift.json lists them", len(listed) - len(shown))
    if drifts[ALL].verdict == "foreign":
        # Columns are all that can be compared for certain: unrelated texts look as another embedding model does.
        log.warning("check that these rows were embedded as those were that the model was made from")
    table = {
        name: {key: record.rounded(value) for key, value in drift._asdict().items()} for name, drift in listed.items()
    }
    others = {"others_like_training": len(drifts) - len(listed)} if len(listed) < len(drifts) else {}
    record.write_json(path, {"drift": table} | others | ({"left_out": left_out} if left_out else {}))
