"""Multinomial logistic regression in the coordinates of the principal components.

scikit-learn finds the same optimum; on some thousand correlated numbers it takes ten times as long, for its L-BFGS sees
directions whose curvatures differ a thousandfold (docs/performance.md). Along the principal components the curvatures are known
but for a factor, so that each coordinate is scaled by its own first.
"""

from __future__ import annotations

import numpy as np

from pipeline.errors import ParamsError

#: Largest component of the gradient, in the scaled coordinates, at which the optimum is reached.
TOLERANCE = 1e-7
STEPS = 2000


def fit_logistic(vectors: np.ndarray, truth: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Minimise mean cross entropy + penalty/2 ‖W‖² with free biases.

    Args:
        vectors: (n, D) float64. truth: (n,) classes 0 … K - 1, each of which occurs.
        penalty: λ > 0.

    Returns:
        W (K, D) and the biases (K,), both summing to zero over the classes.

    Raises:
        ParamsError: no optimum within `STEPS` steps.
    """
    from scipy.optimize import minimize  # here, for networks do without scipy
    from scipy.special import logsumexp

    count, classes = len(vectors), int(truth.max()) + 1
    centre = vectors.mean(0)
    axes, variances = _find_axes(vectors - centre)
    # The curvature of the cross entropy, were all classes equally likely, and that of the penalty.
    scale = 1 / np.sqrt((classes - 1) / classes**2 * variances + penalty)
    scores, penalties = ((vectors - centre) @ axes) * scale, penalty * scale**2
    right = np.eye(classes)[truth]
    size = classes * len(scale)

    def measure(values: np.ndarray) -> tuple[float, np.ndarray]:
        weights = values[:size].reshape(classes, -1)
        logits = scores @ weights.T + values[size:]
        total = logsumexp(logits, axis=1, keepdims=True)
        loss = (total - logits)[np.arange(count), truth].mean() + 0.5 * (penalties * weights**2).sum()
        error = (np.exp(logits - total) - right) / count
        return loss, np.concatenate([(error.T @ scores + penalties * weights).ravel(), error.sum(0)])

    found = minimize(
        measure,
        np.zeros(size + classes),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": STEPS, "maxfun": 2 * STEPS, "gtol": TOLERANCE, "ftol": 0.0, "maxcor": 20},
    )
    if not found.success:
        raise ParamsError(
            f"the linear model did not settle in {STEPS} steps (penalty {penalty:g}); set training.linear.penalty higher."
        )
    weights = (found.x[:size].reshape(classes, -1) * scale) @ axes.T
    biases = found.x[size:] - weights @ centre
    return weights, biases - biases.mean()


def _find_axes(centred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(D, r) orthonormal principal axes and the variance (r,) along each; those without any are left out.

    By the smaller of the two products of the data with themselves.
    """
    count, width = centred.shape
    if count < width:
        squares, sides = np.linalg.eigh(centred @ centred.T)
    else:
        squares, sides = np.linalg.eigh(centred.T @ centred)
    there = squares > 1e-12 * max(squares[-1], 1e-300)
    squares, sides = squares[there], sides[:, there]
    axes = centred.T @ sides / np.sqrt(squares) if count < width else sides
    return axes, squares / count
