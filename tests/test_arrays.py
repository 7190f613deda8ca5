"""Files appear whole or not at all, and the same every time."""

from pathlib import Path

import numpy as np
import pytest

from stages.runtime import arrays


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
