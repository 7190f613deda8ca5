"""Arrays and models: the same bytes every time, and read without running what they hold."""

from pathlib import Path

import numpy as np
import pytest

from stages.runtime import arrays


def test_models_are_the_same_bytes_and_load_without_pickle():
    for name in ("a.npz", "b.npz"):
        arrays.save_model(Path(name), one=np.eye(2), two=np.float64(3))
    assert Path("a.npz").read_bytes() == Path("b.npz").read_bytes()
    with np.load("a.npz", allow_pickle=False) as stored:
        assert stored["two"] == 3


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
