"""What is recorded are plain numbers."""

from pathlib import Path

import numpy as np

from stages.runtime import record


def test_plots_hold_plain_numbers_of_six_digits():
    record.write_plot(Path("p.json"), [{"k": np.int64(2), "score": np.float32(1 / 3), "name": "ё", "edge": True}])
    assert (
        Path("p.json").read_text(encoding="utf-8") == '[\n{"k": 2, "score": 0.333333, "name": "ё", "edge": true}\n]\n'
    )
