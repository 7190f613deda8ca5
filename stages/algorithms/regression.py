"""Multinomial logistic regression, fitted to its optimum as far as double precision can tell."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

BLOCK_ROWS = 4096  # handled at a time, so that what one pass writes and the next reads stays in a cache
SAMPLE_ROWS = 4096  # whose curvature guides the steps
CURVATURES = 2**24  # numbers in the matrices of curvature, 128 MB: from 256 classes on all share one matrix
# Weights at most, and rows for each at least, that the curvature of all together pays for.
COUPLED, ROWS_EACH = 1024, 32
NEAR = 0.03  # a step after which that curvature serves to the end
STEPS = {np.float32: 30, np.float64: 100}  # Newton's, at most, that conjugate gradients of each precision solve for
TURNS = 1000  # of the conjugate gradients for one step, at most
SMALL = 1e-11  # a step, relative to the largest weight, after which only rounding is left
STALLED = {np.float32: 1e-3, np.float64: 1e-8}  # a step from which on each has to be four times as small as the last

Each = Callable[..., Iterable[Any]]  # `map`, or that of a pool of threads


class Optimum(NamedTuple):
    """Where a regression led, and what another one of similar rows may start from."""

    weights: np.ndarray  # (k, m + 1)
    inverse: np.ndarray | None = None  # (1, k (m + 1), k (m + 1)) of the second derivatives there, about


class Regression:
    """The loss of a regression on some rows, and the weights where it is least.

    The weights of a class are m coefficients and last an intercept, which bears no penalty.

    Parameters
    ----------
    inputs : ndarray of shape (n, m), float64
        Of mean 0, which moves no optimum and more than halves the time.
    labels : ndarray of shape (n,), int
        Classes 0 to k - 1, at least two.
    C : float
        Inverse strength of the penalty.
    each : callable
        Maps a function over blocks of rows, in one thread or in several. What it gives is added in the order of the
        blocks, so that the number of threads decides no digit.
    """

    def __init__(self, inputs: np.ndarray, labels: np.ndarray, C: float, each: Each = map):
        self.n, m = inputs.shape
        parts = [slice(start, start + BLOCK_ROWS) for start in range(0, self.n, BLOCK_ROWS)]
        self.inputs, self.labels = [inputs[part] for part in parts], [labels[part] for part in parts]
        self.k, self.C, self.each = int(labels.max()) + 1, C, each
        # Of two classes scikit-learn penalises the difference w, by w^2 / 2; here each has half of it.
        self.penalty = np.append(np.full(m, 2.0 if self.k == 2 else 1.0), 0.0)

    def fit(self, start: Optimum | None = None) -> Optimum | None:
        """The optimum, of intercepts that add up to 0, or None if that many steps do not lead there.

        Parameters
        ----------
        start : Optimum, optional
            Of other rows of the same population.

        Notes
        -----
        Newton's method, damped. Loss and gradient, in double precision, decide where the optimum is. Conjugate
        gradients solve for a step, the more precisely the smaller the last one was: in single precision, which takes
        half the time, while each step is much smaller than the last, and then in double. They are preconditioned by the
        curvature of each class for itself, with a third of the turns that one for all classes takes, and near the
        optimum of many rows by that of all classes together, with a third of these. On 50,000 x 30 distances
        scikit-learn's newton-cg took seven times as long.
        """
        weights, self.inverse = start or (np.zeros((self.k, len(self.penalty))), None)
        weights = _level(weights.copy())
        for kind in STEPS:
            self._propose_in(kind)
            weights, found = self._descend(weights)
            if found:
                return Optimum(weights, self.inverse)
            self.inverse = None  # it may be what led nowhere
        return None

    def _propose_in(self, kind: type) -> None:
        """Solve for steps in such a precision from now on."""
        self.kind = kind
        self.proposing = list(self.each(lambda inputs: _with_ones(inputs).astype(kind), self.inputs))  # (m + 1, rows)

    def _descend(self, weights: np.ndarray) -> tuple[np.ndarray, bool]:
        """Newton steps while they help; whether they led to the optimum."""
        loss, gradient, shares = self._evaluate(weights)
        last = 1.0
        for _ in range(STEPS[self.kind]):
            if last < NEAR and weights.size <= min(COUPLED, self.n / ROWS_EACH) and self.inverse is None:
                self.inverse = self._inverse_curvature_of_all(shares)
            step = self._newton_step(gradient, shares, float(np.clip(last**2, 1e-8, 1e-2)))
            if step is None:
                return weights, False
            before, descent, rate = loss, (gradient * step).sum(), 1.0
            while True:
                tried = weights - rate * step
                loss, gradient, shares = self._evaluate(tried)
                if loss <= before - 1e-4 * rate * descent + 1e-12 * abs(before) or rate < 1e-9:
                    break
                rate /= 2
            weights = tried
            size = np.abs(step).max() / max(np.abs(weights).max(), np.finfo(float).tiny)
            if size <= SMALL:
                return weights, True
            if last / 4 < size <= STALLED[self.kind]:
                return weights, self.kind is np.float64
            last = size
        return weights, False

    def _evaluate(self, weights: np.ndarray) -> tuple[float, np.ndarray, list[np.ndarray]]:
        """The loss, its gradient (k, m + 1), and of each block the probabilities (k, rows) that proposals use."""

        def of_block(inputs: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
            inputs, rows = _with_ones(inputs), np.arange(len(labels))
            scores = weights @ inputs
            scores -= scores.max(axis=0)
            own = scores[labels, rows]
            shares = np.exp(scores, out=scores)
            sums = shares.sum(axis=0)
            shares /= sums
            proposing = shares.astype(self.kind)
            proposing[proposing < 1e-30] = 0  # processors are slow at numbers near the smallest
            shares[labels, rows] -= 1
            return (np.log(sums) - own).sum(), shares @ inputs.T, proposing

        losses, gradients, shares = zip(*self.each(of_block, self.inputs, self.labels), strict=True)
        loss = self.C * sum(losses) + (self.penalty * np.square(weights)).sum() / 2
        return float(loss), _level(self.C * sum(gradients) + self.penalty * weights), list(shares)

    def _newton_step(self, gradient: np.ndarray, shares: list[np.ndarray], precision: float) -> np.ndarray | None:
        """The step (k, m + 1) to be taken away, or None where rounding leaves none."""
        inverses = self._inverse_curvatures(shares) if self.inverse is None else self.inverse

        def near(rest: np.ndarray) -> np.ndarray:
            return _level((rest.reshape(-1, 1, inverses.shape[1]) @ inverses).reshape(rest.shape))

        step, rest = np.zeros_like(gradient), gradient
        direction = proposed = near(rest)
        first = size = (rest * proposed).sum()
        for _ in range(TURNS):
            if abs(size) <= precision * first:
                break
            turned = self._turn(direction, shares)
            curvature = (direction * turned).sum()
            if not (size > 0 and curvature > 0):
                break
            length = size / curvature
            step = step + length * direction
            rest = rest - length * turned
            proposed = near(rest)
            size, before = (rest * proposed).sum(), size
            direction = proposed + size / before * direction
        return step if step.any() or not gradient.any() else None

    def _turn(self, direction: np.ndarray, shares: list[np.ndarray]) -> np.ndarray:
        """The product of the matrix of second derivatives with a direction: both (k, m + 1)."""
        cast = direction.astype(self.kind)

        def of_block(inputs: np.ndarray, shares: np.ndarray) -> np.ndarray:
            change = cast @ inputs  # (k, m + 1) @ (m + 1, rows)
            change *= shares
            change -= shares * change.sum(axis=0)
            return (change @ inputs.T).astype(np.float64)

        return _level(self.C * sum(self.each(of_block, self.proposing, shares)) + self.penalty * direction)

    def _inverse_curvatures(self, shares: list[np.ndarray]) -> np.ndarray:
        """Inverses of the second derivatives by the weights of one class, about: (k, m + 1, m + 1), or one for all."""
        inputs, shares, rows = self._sample(shares)
        weights = shares * (1 - shares)
        if self.k * len(inputs) ** 2 > CURVATURES:
            weights = weights.mean(axis=0, keepdims=True)
        products = np.stack([(inputs * each) @ inputs.T for each in weights]).astype(np.float64)
        curvatures = self.C * rows * products + np.diag(self.penalty)
        of_intercepts = curvatures[:, -1, -1]
        of_intercepts += 1e-6 * of_intercepts.mean() + np.finfo(float).tiny  # or a class that no row doubts has none
        return np.linalg.inv(curvatures)

    def _inverse_curvature_of_all(self, shares: list[np.ndarray]) -> np.ndarray:
        """The inverse of the second derivatives by all weights, about: (1, k (m + 1), k (m + 1))."""
        inputs, shares, rows = self._sample(shares)
        k, m = len(shares), len(inputs)
        shared = (shares[:, None] * inputs).reshape(k * m, -1)
        curvature = -(shared @ shared.T).astype(np.float64).reshape(k, m, k, m)
        for cluster, each in enumerate(shares):
            curvature[cluster, :, cluster] += (inputs * each) @ inputs.T
        curvature *= self.C * rows
        intercepts = curvature[:, -1, :, -1]
        intercepts += np.trace(intercepts) / k  # one number more in all of them changes nothing
        curvature = curvature.reshape(k * m, k * m) + np.diag(np.tile(self.penalty, k))
        return np.linalg.inv(curvature)[None]

    def _sample(self, shares: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, float]:
        """Inputs (m + 1, rows) and probabilities (k, rows) of some rows, and how many rows each stands for."""
        every = -(-self.n // SAMPLE_ROWS)
        inputs, sampled = (np.hstack([block[:, ::every] for block in blocks]) for blocks in (self.proposing, shares))
        return inputs, sampled, self.n / inputs.shape[1]


def _with_ones(inputs: np.ndarray) -> np.ndarray:
    """(rows, m) -> (m + 1, rows)"""
    return np.vstack([inputs.T, np.ones(len(inputs))])


def _level(weights: np.ndarray) -> np.ndarray:
    """Weights whose intercepts add up to 0: one number more in all changes nothing, and noise is to add none."""
    weights[:, -1] -= weights[:, -1].mean()
    return weights
