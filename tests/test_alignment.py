"""A map is turned, mirrored and scaled onto that of the last commit, and is the same where nothing has changed."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import procrustes

from stages.algorithms.presentation.alignment import LEAST_SHARED, align
from stages.files.map_positions import committed_positions, positions_of_rows, read_positions
from stages.files.rows import Row

MOTIONS = [
    lambda z: np.exp(2.5j) * z,
    lambda z: np.conj(z),
    lambda z: -1.7 * np.exp(1j) * np.conj(z) + 30 - 12j,
    lambda z: 0.2 * z - 5,
]  # fmt: skip


def some_map(n: int = 200, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 2)) * [40, 25] + [3, -8]


def moved(positions: np.ndarray, motion) -> np.ndarray:
    z = motion(positions[:, 0] + 1j * positions[:, 1])
    return np.column_stack([z.real, z.imag])


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_map_that_is_turned_mirrored_scaled_and_shifted_takes_the_earlier_digits(motion):
    earlier = np.round(some_map(), 2)
    found = align(moved(some_map(), motion), earlier)
    np.testing.assert_array_equal(found, earlier)


@pytest.mark.parametrize("motion", MOTIONS)
def test_it_is_procrustes_analysis_but_that_the_map_keeps_its_size(motion):
    rng = np.random.default_rng(1)
    earlier = np.round(some_map(), 2)
    now = moved(earlier + rng.normal(size=earlier.shape) * 15, motion)
    found = align(now, earlier)
    reference, expected, _ = procrustes(earlier, now)
    assert found.mean(axis=0) == pytest.approx(earlier.mean(axis=0), abs=1e-4)
    centred = found - earlier.mean(axis=0)
    spread = np.linalg.norm(earlier - earlier.mean(axis=0))
    assert np.linalg.norm(centred) == pytest.approx(spread, rel=1e-5)  # that of SciPy is smaller the more has moved
    np.testing.assert_allclose(centred / spread, expected / np.linalg.norm(expected), atol=1e-5)
    assert np.linalg.norm(expected) < 0.98 * np.linalg.norm(reference)


def test_rows_that_are_not_on_the_earlier_map_move_with_the_others():
    earlier = np.round(some_map(), 2)
    whole, few = some_map(), np.arange(200) % 3 > 0
    found = align(moved(whole, MOTIONS[2]), np.where(few[:, None], np.nan, earlier))
    np.testing.assert_array_equal(found[~few], earlier[~few])
    np.testing.assert_allclose(found[few], whole[few], atol=0.01)


def test_a_row_that_has_moved_lies_elsewhere_and_the_others_nearly_where_they_lay():
    earlier = np.round(some_map(), 2)
    now = moved(earlier, MOTIONS[2])
    now[7] += 60
    found = align(now, earlier)
    distances = np.linalg.norm(found - earlier, axis=1)
    assert distances.argmax() == 7 and distances[7] > 20
    assert np.median(distances) < 1


def test_few_shared_rows_rows_in_one_place_and_odd_numbers_leave_a_map_as_it_is():
    now, earlier = some_map(), np.full((200, 2), np.nan)
    earlier[: LEAST_SHARED - 1] = now[: LEAST_SHARED - 1] * -1
    np.testing.assert_array_equal(align(now, earlier), now)
    for odd in (np.ones((200, 2)), np.full((200, 2), 1e9), np.full((200, 2), np.inf)):
        np.testing.assert_array_equal(align(now, odd), now)
        np.testing.assert_array_equal(align(odd, now), odd)


def git(*arguments: str) -> None:
    subprocess.run(["git", "-c", "user.email=t@t", "-c", "user.name=t", *arguments], check=True, capture_output=True)


def test_the_earlier_map_is_that_of_the_last_commit_and_nothing_is_said_without_one():
    path = Path("plots/tsne.json")
    path.parent.mkdir()
    points = [
        {"x": 1.25, "y": -33.96, "cluster": 0, "kind": "clustered", "batch": "a<\u2060b{\u2060refresh_tag}", "row": 5},
        {"x": 0.07, "y": 2.0, "cluster": 1, "kind": "novel", "batch": "a<\u2060b{\u2060refresh_tag}", "row": 5},
    ]
    path.write_text(json.dumps(points))
    assert committed_positions(path) == {}  # no Git
    git("init", "-q")
    assert committed_positions(path) == {}  # no commit
    git("add", "plots")
    git("commit", "-qm", "map")
    path.unlink()
    rows = [
        Row("a<b{refresh_tag}", 5, "other text", None),
        Row("a<b{refresh_tag}", 6, None, None),
        Row("c", 5, None, None),
    ]
    for which, place in (("clustered", [1.25, -33.96]), ("new", [0.07, 2.0])):
        found = positions_of_rows(committed_positions(path), which, rows)
        assert found[0].tolist() == place  # the very digits
        assert np.isnan(found[1:]).all()
    odd = [
        {"batch": None}, {"row": 0.5}, {"row": -1}, {"row": 1e300}, {"row": float("nan")}, {"cluster": None},
        {"x": None}, {"x": 1e308}, {"y": 10**400}, {"y": float("inf")},
    ]  # fmt: skip
    contents = [json.dumps([points[0] | each]) for each in odd] + [json.dumps([points[0], points[0]])]
    for content in ("", "{}", "[1]", '[{"x": 1}]', "\xff", *contents):
        path.write_text(content)
        if content in contents:
            with pytest.raises(ValueError, match=r"^plots/tsne.json: not the points of the map"):
                read_positions(path)
        git("commit", "-aqm", "no map")
        assert committed_positions(path) == {}
    assert committed_positions(Path.cwd() / path) == {}  # outside of the repository, for all that Git knows


def test_the_map_of_the_last_commit_gives_the_frame_and_made_again_the_same_bytes(copy):
    path = copy.folder / "plots/tsne.json"
    first = path.read_bytes()
    copy.run_here("visualize")
    assert path.read_bytes() == first
    points = json.loads(first)
    for point in points:  # as another revision may have it
        point["x"], point["y"] = -3 * point["y"], 3 * point["x"]
    path.write_text(json.dumps(points))
    copy.commit()
    copy.run_here("visualize")
    before, after = ({(p["batch"], p["kind"], p["row"]): (p["x"], p["y"]) for p in each}
                     for each in (points, copy.json("plots/tsne.json")))  # fmt: skip
    assert before.keys() == after.keys()
    np.testing.assert_allclose([after[key] for key in before], list(before.values()), atol=0.02)
    copy.commit()
    second = path.read_bytes()
    copy.run_here("visualize")
    assert path.read_bytes() == second
