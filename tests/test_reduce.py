"""Reduction is the same bytes however rows are cut into files, and of one state of them."""

from pathlib import Path

import numpy as np
import pytest
from conftest import make_blobs

from stages import reduce as reduce_stage
from stages.files.batches import open_batches, split_rows
from stages.reduce import reduce

ONE_WORKER = {"backend": "local", "workers": 1, "scheduler": None}


def make_rows(n: int, columns: int = 20) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, columns)) * 0.8 ** np.arange(columns) + 3


def run(rows: np.ndarray, cuts: list[int], folder: str, standardize: bool = True) -> dict[str, bytes]:
    Path(folder, "e").mkdir(parents=True)
    for i, part in enumerate(np.split(rows, cuts)):
        np.save(Path(folder, "e", f"b{i}.npy"), part)
    reduce(
        sample_rows=None, variance_threshold=0.9, standardize=standardize, run=ONE_WORKER, embeddings=Path(folder, "e"),
        reduced=Path(folder, "r.npy"), model=Path(folder, "m.npz"),
    )  # fmt: skip
    return {name: Path(folder, name).read_bytes() for name in ("r.npy", "m.npz")}


def test_one_six_or_six_hundred_files_give_the_same_bytes():
    rows = make_rows(900)
    expected = run(rows, [], "one")
    assert run(rows, [7, 100, 101, 450, 899], "six") == expected
    assert run(rows, np.sort(np.random.default_rng(1).permutation(899)[:599] + 1).tolist(), "six hundred") == expected


@pytest.mark.parametrize("magnitude", [1e154, 1e308])
def test_rows_too_large_to_square_are_refused_in_every_place(magnitude):
    rows = make_rows(300)
    rows[100:] = magnitude * np.random.default_rng(1).uniform(0.5, 1, size=(200, 20))  # 1e308: their sum overflows too
    with pytest.raises(ValueError, match=r"b1.npy: row \d+ holds a value of magnitude .*e\+\d+, too large"):
        run(rows, [50], "later")
    with pytest.raises(ValueError, match=r"b\d.npy: row \d+ holds a value of magnitude .*e\+\d+, too large"):
        run(rows[100:], [50], "all")


@pytest.mark.parametrize("unit", [1e-9, 1e-45, 1e-100])
def test_rows_too_near_each_other_for_single_precision_are_refused_unless_standardized_or_multiplied(unit):
    rows = make_rows(50) * unit
    with pytest.raises(
        ValueError, match=r"^near/e: reduced rows lie .+ from their mean, .+; set standardize: true, or"
    ):
        run(rows, [], "near", standardize=False)
    assert not Path("near/r.npy").exists()
    run(rows / unit, [], "multiplied", standardize=False)
    run(rows, [], "standardized")


def test_reduced_rows_are_a_plain_array_of_single_precision():
    run(make_rows(50), [20], "one")
    reduced = np.load("one/r.npy", allow_pickle=False)
    assert reduced.dtype == np.float32
    assert reduced.flags.c_contiguous
    assert len(reduced) == 50


@pytest.mark.parametrize("rows_of_part", [1, 4, 7, 100])
def test_parts_hold_all_rows_in_order(rows_of_part):
    Path("e").mkdir()
    for i, n in enumerate((3, 1, 10, 2)):
        np.save(f"e/b{i}.npy", np.ones((n, 2)))
    parts = split_rows(open_batches(Path("e")), rows_of_part)
    assert [sum(run.rows for run in part) for part in parts[:-1]] == [rows_of_part] * (len(parts) - 1)
    rows = [(run.path.stem, row) for part in parts for run in part for row in range(run.start, run.start + run.rows)]
    assert rows == [(f"b{i}", row) for i, n in enumerate((3, 1, 10, 2)) for row in range(n)]


@pytest.mark.parametrize("after", ["the first rows", "the moments"])
def test_a_batch_replaced_between_two_reads_is_refused_by_name(after, monkeypatch):
    # By one of the same name and shape, whose rows would be put on axes of the old ones.
    Path("e").mkdir()
    for i in range(3):
        np.save(f"e/b{i}.npy", make_blobs(60, 8, 3, i)[0])

    def replace_then(function):
        def replaced(*arguments):
            np.save("e/b1.npy", make_blobs(60, 8, 3, 9)[0])
            return function(*arguments)

        return replaced

    name = "accumulate_moments" if after == "the first rows" else "fit_reduction"
    monkeypatch.setattr(reduce_stage, name, replace_then(getattr(reduce_stage, name)))
    with pytest.raises(ValueError, match=r"^e/b1\.npy: changed while it was read: .*; run again when whatever"):
        reduce_stage.reduce(
            sample_rows=None, variance_threshold=0.95, standardize=True, run=ONE_WORKER, embeddings=Path("e"),
            reduced=Path("r.npy"), model=Path("m.npz"),
        )  # fmt: skip
    assert sorted(path.name for path in Path().iterdir()) == ["e"]
