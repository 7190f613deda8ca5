"""Parameters are checked by the stage's signature; files appear whole or not at all."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal, TypedDict

import numpy as np
import pytest
from annotated_types import Interval
from conftest import ROOT

from stages.runtime import arrays, parameters, record


class Group(TypedDict):
    C: Annotated[float, Interval(gt=0)]
    folds: int


SCHEMA = {
    "share": Annotated[float, Interval(gt=0, le=1)],
    "standardize": bool,
    "linkage": Literal["average", "ward"],
    "k_min": Annotated[int, Interval(ge=2)],
    "address": str | None,
    "group": Group,
}
GOOD = {
    "share": 0.95, "standardize": True, "linkage": "ward", "k_min": 2, "address": None, "group": {"C": 10, "folds": 5},
}  # fmt: skip


def read(**changes) -> dict:
    values = {name: value for name, value in {**GOOD, **changes}.items() if value != "absent"}
    Path("params.yaml").write_text(json.dumps(values))
    Path("dvc.yaml").write_text(json.dumps({"stages": {"one": {"params": [*SCHEMA, "of_another_stage"]}}}))
    return parameters.read_parameters(SCHEMA)


def test_good_parameters_arrive():
    assert read() == GOOD
    assert isinstance(read(share=1)["share"], float)
    assert read(address="tcp://one", of_another_stage=1, run={"anything": 1})["address"] == "tcp://one"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": 0}, "share is 0, expected a number such as 0.95 or 10 above 0 to 1"),
        ({"share": 1.01}, "share is 1.01"),
        ({"share": float("inf")}, "share is 'Infinity'"),
        ({"share": "0.95"}, "share is '0.95'"),
        ({"share": True}, "share is True"),
        ({"standardize": 1}, "standardize is 1, expected true or false"),
        ({"linkage": "Ward"}, "linkage is 'Ward', expected one of average, ward"),
        ({"k_min": 1}, "k_min is 1, expected a whole number at least 2"),
        ({"k_min": 2.0}, "k_min is 2.0, expected a whole number"),
        ({"k_min": None}, "k_min is None"),
        ({"address": 3}, "address is 3, expected a text or null"),
        ({"group": 3}, "group is 3, expected a group of C, folds"),
        ({"group": {"C": 10}}, "parameter group.folds is missing"),
        ({"group": {"C": 0, "folds": 5}}, "group.C is 0, expected a number such as 0.95 or 10 above 0"),
        ({"group": {"C": 1, "fold": 5}}, "unknown parameter group.fold; did you mean group.folds?"),
        ({"k_mni": 3}, "unknown parameter k_mni; did you mean k_min?"),
        ({"k_min": "absent"}, "parameter k_min is missing; expected a whole number at least 2"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=r"params.yaml: ") as refused:
        read(**changes)
    assert message in str(refused.value)


@pytest.mark.parametrize("content", ["- 1", "", "a: [", "a: \t1"])
def test_a_broken_file_is_refused(content):
    Path("params.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"params.yaml: "):
        parameters.read_parameters(SCHEMA)


def test_a_failed_write_leaves_the_old_file_and_nothing_else():
    path = Path("out") / "a.npy"
    arrays.save_array(path, np.arange(3))
    with pytest.raises(RuntimeError), arrays.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [p.name for p in path.parent.iterdir()] == ["a.npy"]
    np.testing.assert_array_equal(np.load(path), np.arange(3))


def test_models_are_the_same_bytes_and_load_without_pickle():
    for name in ("a.npz", "b.npz"):
        arrays.save_model(Path(name), one=np.eye(2), two=np.float64(3))
    assert Path("a.npz").read_bytes() == Path("b.npz").read_bytes()
    with np.load("a.npz", allow_pickle=False) as stored:
        assert stored["two"] == 3


def test_plots_hold_plain_numbers_of_six_digits():
    record.write_plot(Path("p.json"), [{"k": np.int64(2), "score": np.float32(1 / 3), "name": "ё", "edge": True}])
    assert (
        Path("p.json").read_text(encoding="utf-8") == '[\n{"k": 2, "score": 0.333333, "name": "ё", "edge": true}\n]\n'
    )


def test_a_refusal_is_one_line_and_a_traceback_only_if_asked_for():
    code = "from stages.runtime import command\ndef sample(*, k: int): ...\ncommand.run(sample)"
    Path("params.yaml").write_text("k: 1.5")
    Path("dvc.yaml").write_text("stages: {}")
    for environment, lines in (({}, 1), ({"STAGE_TRACEBACK": "1"}, 5)):
        done = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT), **environment}, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) >= lines
        assert done.stderr.splitlines()[-1].endswith("k is 1.5, expected a whole number.")
        assert ("Traceback" in done.stderr) == (lines > 1)


def test_warnings_are_shown_once_each_in_one_line_of_the_log():
    code = """
import logging, warnings
import numpy as np
from stages.runtime import arrays, command, parameters, record
from stages.algorithms.partitions.processes import run_each

def sample():
    logging.info("begin")
    for _ in range(2):
        warnings.warn("first of\\n  two lines")
        with warnings.catch_warnings():
            warnings.warn("first of\\n  two lines")
        np.log(np.zeros(1) - 1)
    run_each(np.divide, [(1.0, 0.0)] * 3, workers=2)

if __name__ == "__main__":
    command.run(sample)
"""
    Path("sample.py").write_text(code)
    Path("params.yaml").write_text("run: {}")
    Path("dvc.yaml").write_text("stages: {}")
    done = subprocess.run([sys.executable, "sample.py"], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.strip() for line in done.stderr.splitlines()] == [
        "sample  begin",
        "sample  first of two lines (UserWarning)",
        "sample  invalid value encountered in log (RuntimeWarning)",
        "sample  divide by zero encountered in divide (RuntimeWarning)",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"^a.npy: no such file; run `dvc repro link` to make it, or `dvc pull` to fetch it\.$"),
        (b"", r"^a.npy: not a readable .npy array \(.+\); run `dvc repro link` to make it again\.$"),
        (np.array([{}]), r"^a.npy: not a readable .npy array \(Object arrays cannot be loaded .+\); run"),
    ],
)
def test_an_array_that_is_missing_or_unreadable_is_refused_with_the_stage_that_makes_it(content, message):
    path = Path("a.npy")
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        arrays.read_array(path, "link")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"^m.npz: no such file; run `dvc repro` to make the model, or `dvc pull` to fetch it\.$"),
        ({"one": np.eye(2)}, r"^m.npz: not this pipeline's model \(.*two.*\); run `dvc repro`\.$"),
        ({"one": np.eye(2), "two": np.array([{}])}, r"^m.npz: not this pipeline's model \(Object arrays"),
    ],
)
def test_a_model_that_is_missing_or_holds_anything_else_is_refused(content, message):
    if content is not None:
        np.savez("m.npz", **content)
    with pytest.raises(ValueError, match=message):
        arrays.read_model(Path("m.npz"), ("one", "two"))
