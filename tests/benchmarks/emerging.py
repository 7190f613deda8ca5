"""How often rows of an unseen topic are found among others, and how often there is a group where nothing is new.

    python tests/benchmarks/emerging.py [--topics plant food ...] [--hidden 60] [--new 5000] [--trials 20] [--seed 0]

Rows are those of the demonstration data. For a topic, all rows of it are left out but the hidden ones, which lie among
so many new rows; the others are known. "One group": trials with just one, most of its rows of the topic. For "nothing
new" all rows are dealt out at random. Means are over the trials with one group.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from stages.algorithms.tree_scan import find_groups
from stages.files.batches import open_batches
from stages.files.blocks import read_blocks
from stages.files.texts import iterate_texts

ROOT = Path(__file__).parent.parent.parent
LEAST = 10


def read_demonstration() -> tuple[np.ndarray, np.ndarray]:
    """The rows of both folders, and their topics."""
    batches = [batch for name in ("clu", "classf") for batch in open_batches(ROOT / f"data/embeddings_{name}")]
    rows = np.concatenate([block.astype(np.float32) for block in read_blocks(batches)])
    return rows, np.array([text["topic"] for batch in batches for text in iterate_texts(batch)])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--topics", nargs="*", default=["plant", "animal", "food", "location", "person"])
    options.add_argument("--hidden", type=int, default=60)
    options.add_argument("--new", type=int, default=5000)
    options.add_argument("--trials", type=int, default=20)
    options.add_argument("--seed", type=int, default=0)
    arguments = options.parse_args()
    rows, topics = read_demonstration()
    print("| unseen | known rows | trials | one group | any group | its rows | of the topic | known | seconds |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for topic in ["", *arguments.topics]:
        others, own = np.flatnonzero(topics != topic), np.flatnonzero(topics == topic)
        found, alarms, seconds = [], 0, 0.0
        for trial in range(arguments.trials):
            rng = np.random.default_rng([arguments.seed, trial])
            dealt, hidden = rng.permutation(others), rng.permutation(own)[: arguments.hidden]
            new, known = np.concatenate([dealt[: arguments.new], hidden]), dealt[arguments.new :]
            start = time.process_time()
            groups = find_groups(rows[known], rows[new], LEAST, trial)
            seconds += time.process_time() - start
            alarms += bool(groups)
            of_topic = [np.count_nonzero(group.rows >= arguments.new) for group in groups]
            if len(groups) == 1 and 2 * of_topic[0] > len(groups[0].rows):
                found.append((len(groups[0].rows), of_topic[0], groups[0].known))
            sizes = [len(group.rows) for group in groups]
            print(f"  {topic or 'nothing'}, trial {trial}: groups of {sizes} rows", file=sys.stderr)
        means = [f"{mean:.1f}" for mean in np.mean(found, axis=0)] if found else ["", "", ""]
        cells = [topic or "nothing", f"{len(others) - arguments.new:,}", arguments.trials, len(found), alarms, *means]
        print(f"| {' | '.join(map(str, cells))} | {seconds / arguments.trials:.1f} |", flush=True)


if __name__ == "__main__":
    main()
