"""How right probabilities are, and the power that makes them righter."""

import numpy as np

from stages.algorithms.centroids import BLOCK_ROWS
from stages.algorithms.grids import keep_bits

SHARPNESS_BITS = 12
LIMITS, MOST_STEPS = (0.01, 100.0), 100  # of the sharpness, and of the search for it


def fit_sharpness(probabilities: np.ndarray, labels: np.ndarray, start: float = 1.0) -> float:
    """The power of the probabilities, renormalised, that makes the labels likeliest: above 1 where they are too timid.

    Temperature scaling (Guo et al. 2017, "On calibration of modern neural networks"), with the temperature's inverse.
    On a regression's scores it is one factor of all coefficients and intercepts, and changes no argmax.

    Parameters
    ----------
    probabilities : ndarray of shape (n, k)
        Of rows that the model has not seen. Rows whose own cluster has 0 tell nothing.
    labels : ndarray of shape (n,), int
    start : float
        Where the search begins; it decides no digit.

    Returns
    -------
    float in [0.01, 100]
        1 where no row tells anything.
    """
    own = probabilities[np.arange(len(labels)), labels]
    if not own.any():
        return 1.0
    parts = []
    for start_row in range(0, len(own), BLOCK_ROWS):  # so that what one pass writes and the next reads stays in a cache
        part = slice(start_row, start_row + BLOCK_ROWS)
        told = own[part] > 0
        of_part = np.ascontiguousarray(probabilities[part][told].T)  # (k, rows): sums over k take half the time
        scores = np.log(of_part, where=of_part > 0, out=np.full_like(of_part, -1e300))
        highest = scores.max(axis=0)  # made 0, or a high power of many small probabilities would leave no sum
        scores -= highest
        parts.append((scores, np.log(own[part][told]) - highest))

    def derivatives(power: float) -> tuple[float, float]:
        """First and second one of the log loss, summed, which is convex: the first is 0 where the loss is least."""
        slope = curvature = 0.0
        for scores, own_scores in parts:
            weights = np.exp(power * scores)
            sums = weights.sum(axis=0)
            weights *= scores
            means = weights.sum(axis=0) / sums
            weights *= scores
            slope += float((means - own_scores).sum())
            curvature += float((weights.sum(axis=0) / sums - np.square(means)).sum())
        return slope, curvature

    least, most = low, high = LIMITS
    power = min(max(start, least), most)
    for _ in range(MOST_STEPS):  # Newton's; bisection where they lead out of where the root is known to lie
        slope, curvature = derivatives(power)
        low, high = (low, power) if slope > 0 else (power, high)
        proposed = power - slope / curvature if curvature > 0 else (least if slope > 0 else most)
        if proposed <= least == low and derivatives(least)[0] >= 0:
            return least
        if proposed >= most == high and derivatives(most)[0] <= 0:
            return most
        step, power = abs(proposed - power), proposed if low < proposed < high else np.sqrt(low * high)
        if power == proposed and step <= 1e-7 * power:  # the next would be of the square of that
            break
    return float(keep_bits(power, SHARPNESS_BITS))


def sharpen(probabilities: np.ndarray, sharpness: float) -> np.ndarray:
    """Raise probabilities (n, k) to a power and renormalise."""
    powers = (probabilities / probabilities.max(axis=1, keepdims=True)) ** sharpness
    return powers / powers.sum(axis=1, keepdims=True)


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of the negative logarithms of the probabilities (n, k) of the rows' clusters (n,), as in scikit-learn."""
    return float(log_losses(probabilities, labels).mean())


def log_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    least = np.finfo(float).eps
    return -np.log(np.clip(probabilities[np.arange(len(labels)), labels], least, 1 - least))


def macro_f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Mean over clusters of the F1 score: of rows that are in a cluster or put into it, twice those that are both."""
    right = np.bincount(labels[predicted == labels], minlength=labels.max() + 1)
    both = np.bincount(predicted, minlength=len(right)) + np.bincount(labels)
    return float((2 * right / both).mean())


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Mean difference between the highest probability and the share of rows where it is right.

    Rows are binned by their highest probability, as many in each bin (Nguyen & O'Connor 2015), and bins weighted by
    their rows. Even a calibrated model has about sqrt(bins / n) by chance.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    return sum(
        abs(confidence[part].sum() - right[part].sum())
        for part in np.array_split(np.argsort(confidence, kind="stable"), bins)
    ) / len(labels)
