"""How far clusters agree with topics that are known from outside."""

from typing import NamedTuple

import numpy as np


class TopicAgreement(NamedTuple):
    """Scores of scikit-learn over the rows with a topic; None where fewer than two topics are known."""

    known_topics: int
    v_measure: float | None
    normalized_mutual_information: float | None  # the same number, by the arithmetic mean of the two entropies
    adjusted_mutual_information: float | None
    adjusted_rand_index: float | None


def agree_with_topics(labels: np.ndarray, topics: list[str | None]) -> TopicAgreement:
    """Score the agreement of a partition with known topics.

    Parameters
    ----------
    labels : ndarray of shape (n,), int
        Noise, -1, counts as a cluster of its own.
    topics : list of str or None, of length n
        Rows without a topic are left out.
    """
    places = {topic: place for place, topic in enumerate(sorted({*topics} - {None}))}
    return agree_with_numbers(labels, np.array([places.get(topic, -1) for topic in topics], dtype=int))


def agree_with_numbers(labels: np.ndarray, topics: np.ndarray) -> TopicAgreement:
    """As `agree_with_topics`, of topics that have numbers already: -1 where a row has none."""
    known = np.flatnonzero(topics >= 0)
    given, found = topics[known], labels[known]
    count = len(np.unique(given))
    if count < 2:
        return TopicAgreement(count, None, None, None, None)
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, v_measure_score

    measures = (v_measure_score, adjusted_mutual_info_score, adjusted_rand_score)
    v_measure, information, rand = (float(measure(given, found)) for measure in measures)
    return TopicAgreement(count, v_measure, v_measure, information, rand)
