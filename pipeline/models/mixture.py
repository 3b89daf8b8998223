"""One statement from several: of what each says, and of how sure it is."""

from __future__ import annotations

from torch import Tensor

from .batch import Outputs, name_variance

#: Least variance of a mixture: what rounding leaves of two that agree.
TINY = 1e-8


def mix_values(values: Tensor, log_variances: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and logarithm of the variance of a mixture of normal distributions.

    The variance is what the members give, in the mean, and how far apart they are (Lakshminarayanan et al. 2017).

    Args:
        values, log_variances: (n, …). weight: (n, …), summing to one over n.

    >>> import torch
    >>> mean, log_variance = mix_values(torch.tensor([[0.0], [1.0]]), torch.zeros(2, 1), torch.full((2, 1), 0.5))
    >>> float(mean), float(log_variance.exp())
    (0.5, 1.25)
    """
    mean = (values * weight).sum(0)
    variance = ((log_variances.exp() + (values - mean).square()) * weight).sum(0)
    return mean, variance.clamp(min=TINY).log()


def mix_outputs(name: str, parts: Tensor, variances: Tensor | None, weight: Tensor) -> Outputs:
    """The output `name` of several (n, …), and its variance where they give one; see `mix_values`."""
    if variances is None:
        return {name: (parts * weight).sum(0)}
    mean, log_variance = mix_values(parts, variances, weight)
    return {name: mean, name_variance(name): log_variance}
