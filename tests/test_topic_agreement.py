"""Agreement with known topics, against scikit-learn, over the rows that have one."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score

from stages.algorithms.comparison.measures import compare_with_topics
from stages.algorithms.topic_agreement import TopicAgreement, agree_with_topics


@pytest.mark.parametrize("seed", range(5))
def test_agreement_is_scikit_learns_over_the_rows_with_a_topic_and_noise_is_a_cluster(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 4, size=60)
    topics = [None if rng.random() < 0.3 else str(max(label, rng.integers(5))) for label in labels]
    known = np.array([topic is not None for topic in topics])
    expected = [topic for topic in topics if topic], labels[known]
    found = agree_with_topics(labels, topics)
    assert found.known_topics == len(set(expected[0]))
    assert found.v_measure == found.normalized_mutual_information
    assert found.v_measure == pytest.approx(normalized_mutual_info_score(*expected), abs=1e-12)
    assert found.adjusted_mutual_information == pytest.approx(adjusted_mutual_info_score(*expected), abs=1e-12)
    assert found.adjusted_rand_index == pytest.approx(adjusted_rand_score(*expected), abs=1e-12)
    assert compare_with_topics(labels, topics) == {
        "v_measure": found.v_measure, "ari": found.adjusted_rand_index, "nmi": found.v_measure,
    }  # fmt: skip


def test_fewer_than_two_topics_have_no_score():
    labels = np.array([0, 0, 1, 1, -1])
    assert agree_with_topics(labels, ["a", "a", "b", "b", None]).v_measure == 1
    assert agree_with_topics(labels, ["a", None, None, "a", None]) == TopicAgreement(1, None, None, None, None)
    assert agree_with_topics(labels, [None] * 5) == TopicAgreement(0, None, None, None, None)


def test_one_long_topic_takes_no_room_in_all_rows():
    labels = np.arange(2000) % 2
    topics = ["a" * 100_000_000 if label else "b" for label in labels.tolist()[:2]] * 1000
    assert agree_with_topics(labels, topics).v_measure == 1
