"""The page of the map: its size, how long it takes to make, and what it is like in a browser.

    python tests/benchmarks/map_page.py [--rows 8000 50000 200000]

Needs the outputs of the demonstration data (`dvc repro`, or `dvc pull`) and Chromium with its chromedriver. Its 6,000
clustered rows stay; new rows are made of two of its rows and some noise each, with words of both texts, until there are
as many as asked for. Prints megabytes of the page; seconds and processor seconds to make it, and the peak of memory;
seconds from opening until it is usable, all texts read; frames a second while the map is dragged; and milliseconds from
a search to its hits. Chromium without a window draws on the processor: a GPU is faster.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from selenium import webdriver

ROOT = Path(__file__).parent.parent.parent
OUTPUTS = ("reduced.npy", "labels.npy", "silhouettes.npy", "tree.npy", "model", "clusters")
BATCH_ROWS = 20_000
COUNT_FRAMES = """
const until = performance.now() + 1000 * arguments[0], done = arguments[1];
const canvas = document.querySelector("#map canvas");
const {left, top} = canvas.getBoundingClientRect();
let frames = 0;
const at = (type, target) => target.dispatchEvent(new MouseEvent(type, {bubbles: true, buttons: 1, view: window,
  clientX: left + 300 + 100 * Math.sin(frames / 20), clientY: top + 300 + 100 * Math.cos(frames / 20)}));
const start = performance.now();
at("mousedown", canvas);
const frame = () => {
  frames++;
  at("mousemove", window);
  if (performance.now() < until) return requestAnimationFrame(frame);
  at("mouseup", window);
  done(1000 * frames / (performance.now() - start));
};
requestAnimationFrame(frame);
"""
SEARCH = """
const start = performance.now();
state.words = wordsOf(arguments[0]);
update();
return [performance.now() - start, listed.length];
"""


def make_new_rows(folder: Path, rows: int) -> None:
    """Batches of rows between two of the clustered rows, with words of both."""
    sources = sorted((ROOT / "data/embeddings_clu").glob("*.npy"))
    vectors = np.concatenate([np.load(path) for path in sources]).astype(np.float32)
    lines = [line for path in sources for line in path.with_suffix(".jsonl").read_text().splitlines()]
    texts = [json.loads(line) for line in lines]
    rng = np.random.default_rng(0)
    shutil.rmtree(folder)
    folder.mkdir()
    for start in range(0, rows, BATCH_ROWS):
        count = min(BATCH_ROWS, rows - start)
        first, second = rng.integers(len(vectors), size=(2, count))
        share = rng.uniform(0.5, 1, size=(count, 1)).astype(np.float32)
        mixed = share * vectors[first] + (1 - share) * vectors[second]
        mixed += rng.normal(scale=0.005, size=mixed.shape).astype(np.float32)
        np.save(folder / f"batch_{start // BATCH_ROWS}.npy", mixed.astype(np.float16))
        with (folder / f"batch_{start // BATCH_ROWS}.jsonl").open("w") as file:
            for a, b in zip(first.tolist(), second.tolist(), strict=True):
                words = texts[a]["text"].split() + texts[b]["text"].split()
                kept = rng.permutation(len(words))[: len(words) // 2 + 1]
                text = " ".join(words[i] for i in kept)
                file.write(json.dumps({"text": text, "id": texts[a]["id"], "topic": texts[a]["topic"]}) + "\n")


def run_stage(folder: Path, stage: str) -> tuple[float, float]:
    """Seconds and processor seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", f"stages.{stage}"], cwd=folder, check=True, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def peak_of(folder: Path) -> int:
    """MiB of the stage in a process of its own."""
    code = (
        "import sys, resource\nfrom stages.map import map\nmap()\n"
        "print(int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, text=True)
    return int(done.stdout.splitlines()[-1])


def look_at(page: Path) -> tuple[float, float, float]:
    """Seconds until the page is usable, frames a second while it is dragged, and milliseconds of a search."""
    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(argument)
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    browser = webdriver.Chrome(options=options, service=service)
    try:
        browser.get(page.as_uri())
        while (ready := browser.execute_script("return document.body.dataset.ready")) is None:
            time.sleep(0.1)
        frames = browser.execute_async_script(COUNT_FRAMES, 4)
        searched, _ = browser.execute_script(SEARCH, "water")
    finally:
        browser.quit()
    return int(ready) / 1000, frames, searched


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, nargs="+", default=[8000, 50_000, 200_000])
    arguments = options.parse_args()
    print("| rows | page, MB | made in, s | processor s | peak MiB | usable after, s | frames a second | search, ms |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    folder = Path(tempfile.mkdtemp())
    try:
        subprocess.run(["git", "clone", "-q", str(ROOT), str(folder / "clone")], check=True)
        for name in OUTPUTS:
            shutil.rmtree(folder / "clone/data" / name, ignore_errors=True)  # the part of the model that Git has
            os.symlink(ROOT / "data" / name, folder / "clone/data" / name)
        for rows in arguments.rows:
            make_new_rows(folder / "clone/data/embeddings_classf", rows - 6000)
            for stage in ("classify", "visualize"):
                run_stage(folder / "clone", stage)
            taken, used = run_stage(folder / "clone", "map")
            peak, page = peak_of(folder / "clone"), folder / "clone/plots/map.html"
            ready, frames, searched = look_at(page)
            size = page.stat().st_size / 1e6
            print(
                f"| {rows:,} | {size:.1f} | {taken:.1f} | {used:.1f} | {peak} | {ready:.1f} | {frames:.0f} | "
                f"{searched:.0f} |",
                flush=True,
            )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
