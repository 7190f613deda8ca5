"""A model is made whole: names of the clustered texts alone, limits, and what it was made from."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import name_model
from test_sample import K, label, write_rows

from stages.algorithms.centroids import number_by_size
from stages.algorithms.partitions.identity import know
from stages.algorithms.presentation.topic_words import Word
from stages.files.clustered import open_clustered
from stages.files.given_names import NAMES, read_names, refuse_fleeting, replace_names, warn_of_equal
from stages.files.identity import Identity, trace_rows, write_identity
from stages.files.model import read_card
from stages.name import join_words, name, name_apart
from stages.runtime.arrays import save_model

SAMPLE = 100
PARAMETERS = {
    "describe": {"words": 4, "rows": 2, "stop_words": "auto"}, "novelty": {"quantile": 0.95},
    "doubt": {"coverage": 0.8}, "method": "agglomerative", "criterion": "davies_bouldin", "linkage": "average",
    "smooth": 0, "consolidate": False,
}  # fmt: skip
MODEL = Path("data/model")


def write_model(texts: bool = True) -> np.ndarray:
    """A model of a sample; rows of the sample speak of their cluster, all others of anything else."""
    rows, blobs = write_rows(cuts=())
    found = label(blobs, SAMPLE)
    if texts:
        said = [{"text": "other words here"}] * len(rows)
        for row, cluster in zip(np.arange(SAMPLE) * len(rows) // SAMPLE, found.tolist(), strict=True):
            said[row] = {"text": f"theme{cluster}, kind{cluster} <b>"}
        lines = "".join(json.dumps(text) + "\n" for text in said)
        Path("data/embeddings_clu/b0.jsonl").write_text(lines, encoding="utf-8")
    return found


def test_names_are_of_the_clustered_texts_alone():
    write_model()
    name(sample_rows=SAMPLE, **PARAMETERS)
    card = read_card(MODEL)
    assert card.names == [f"kind{cluster}, theme{cluster}" for cluster in range(K)]
    assert card.words == [[f"kind{cluster}", f"theme{cluster}"] for cluster in range(K)]
    assert (card.quantile, card.coverage) == (0.95, 0.8)
    assert card.made_from["rows"] == 700
    assert card.made_from["clustered_rows"] == SAMPLE
    assert card.made_from["embedding"] is None


def test_weights_of_words_are_kept_and_names_are_cut_between_words():
    write_model()
    name(sample_rows=SAMPLE, **PARAMETERS)
    card = read_card(MODEL)
    assert [len(weights) for weights in card.weights] == [len(words) for words in card.words]
    assert all(weights == sorted(weights, reverse=True) and weights[-1] > 0 for weights in card.weights)
    assert card.made_from["languages"] == []
    long = [Word(letter * 19, 1.0, (letter,)) for letter in "abc"]
    assert join_words(long) == f"{'a' * 19}, {'b' * 19}"


def name_words(*texts: str) -> list[Word]:
    return [Word(text, 1.0, (text,)) for text in texts]


def test_two_clusters_of_one_name_are_told_apart_by_the_next_word_of_the_second():
    both = ["disk", "drive", "memory"]
    apart = name_apart([name_words(*both, "shared"), name_words(*both, "shared", "floppy"), name_words("car")])
    assert apart == ["disk, drive, memory", "disk, drive, memory, floppy", "car"]
    assert name_apart([name_words(*both), name_words(*both, "shared")])[1] == "disk, drive, memory, shared"
    # Where there is no room for one more, it takes the place of the last.
    long = [letter * 19 for letter in "ab"]
    assert name_apart([name_words(*long), name_words(*long, "z" * 18)]) == [", ".join(long), f"{long[0]}, {'z' * 18}"]
    wide = "w" * 40
    assert name_apart([name_words(wide), name_words(wide, "next")]) == [wide, "next"]
    # Without another word they stay equal, and no words are no name.
    assert name_apart([name_words("disk"), name_words("disk"), [], []]) == ["disk", "disk", "", ""]


def test_equal_names_by_hand_are_warned_of_by_number(caplog):
    warn_of_equal({3: "Birds", 40: "Fish"}, ["Birds", "Fish", "Birds"], [3, 40, 41])
    assert caplog.messages == [
        "clusters 3 and 41 have one name, Birds; give each its own in names.yaml or curation.yaml"
    ]


def test_names_that_are_given_by_numbers_that_last_go_before_words(caplog):
    given = {0: "Birds", 9: "Gone"}
    refuse_fleeting(NAMES, given, [0, 4], [0, 4])
    assert replace_names("names.yaml", given, ["a", "b"], [0, 4]) == ["Birds", "b"]
    assert "names.yaml: no cluster has these numbers now: 9 (Gone)" in caplog.text


def test_names_by_hand_of_a_cluster_that_has_changed_are_warned_of(caplog):
    found = write_model()
    before = np.where((found == 1) & (np.arange(SAMPLE) % 2 > 0), 0, found)
    traced = trace_rows(open_clustered(Path("data/embeddings_clu"), SAMPLE), before, K)
    known = know(traced, np.arange(K))
    write_identity(Path("data/identity.json"), Identity(known, [""] * K, known, K))
    NAMES.write_text("1: Birds\n2: Fish\n")
    name(sample_rows=SAMPLE, identity="data/identity.json", **PARAMETERS)
    assert read_card(MODEL).names[1:3] == ["Birds", "Fish"]
    assert "names.yaml: 1 (Birds) is not what it was when its number was kept (Jaccard 0." in caplog.text
    assert "(Fish)" not in caplog.text


def test_names_by_numbers_that_do_not_last_are_refused():
    write_model()
    Path("names.yaml").write_text("0: Birds\n")
    with pytest.raises(ValueError, match=r"^names.yaml: names clusters by number, but identity is null in params.yaml"):
        name(sample_rows=SAMPLE, **PARAMETERS)
    with pytest.raises(ValueError, match=r"^names.yaml: names 4, but data/identity.json does not keep this number yet"):
        refuse_fleeting(NAMES, {4: "Birds"}, [0, 4], [0])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: Birds", "'a' is no number of a cluster; expected one, such as 7: Birds."),
        ("-1: Birds", "-1 is no number of a cluster"),
        ("true: Birds", "True is no number of a cluster"),
        ("7: 12", "7 is 12, expected a text; put it in quotes."),
        ("7: [a]", "7 is ['a'], expected one name."),
        ("7: 2024-01-01", "expected a text; put it in quotes."),
        ("7:", "7 has no name; give one, or take the entry out."),
        ("7: ' '", "7 is ' ', expected a name of one line without control characters, 1 to 40 characters."),
        ('7: "a\\nb"', "expected a name of one line"),
        ('7: "\\u200b\\u202e "', "expected a name of one line"),
        (f"7: {'a' * 41}", "expected a name of one line without control characters, 1 to 40 characters."),
        ("7: 12\na: b", "Also 'a' is no number"),
        ("just words", "holds a str, expected keys and values"),
        ("7: [", "not valid YAML"),
    ],
)
def test_what_is_no_name_of_a_cluster_is_refused(text, fault):
    NAMES.write_text(text)
    with pytest.raises(ValueError, match=rf"^names.yaml: .*{re.escape(fault)}"):
        read_names(NAMES)


@pytest.mark.parametrize("text", [None, "", "# 7: Birds\n"])
def test_without_a_name_nothing_is_given(text):
    if text is not None:
        NAMES.write_text(text)
    assert read_names(NAMES) == {}
    refuse_fleeting(NAMES, {}, [0], None)


def test_without_texts_clusters_have_no_name():
    write_model(texts=False)
    name(sample_rows=SAMPLE, **PARAMETERS)
    assert read_card(MODEL)[:2] == ([""] * K, [[]] * K)


def test_labels_of_another_number_of_clusters_or_rows_are_refused():
    found = write_model()
    np.save("data/labels.npy", number_by_size(np.minimum(found, K - 2)))
    with pytest.raises(ValueError, match=rf"^data/model: {K} clusters, but data/labels.npy has {K - 1}; .* train`"):
        name(sample_rows=SAMPLE, **PARAMETERS)
    with pytest.raises(ValueError, match=r"^data/labels.npy: 100 labels, but data/embeddings_clu has 700 rows"):
        name(sample_rows=None, **PARAMETERS)


def test_the_file_of_another_model_is_refused_whichever_half_was_replaced():
    write_model()
    name(sample_rows=SAMPLE, **PARAMETERS)
    shutil.copytree(MODEL, "other")
    with np.load("other/classifier.npz") as arrays:
        arrays = dict(arrays)
    save_model(MODEL / "classifier.npz", **arrays | {"intercept": arrays["intercept"] + 1})
    with pytest.raises(ValueError, match=r"^data/model/model.json: made with another classifier.npz .* run `dvc repro"):
        read_card(MODEL)
    name_model(MODEL)
    assert read_card(MODEL).names == [""] * K
