"""What is minimised: the sum of named loss terms."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.errors import ParamsError
from pipeline.models.batch import Outputs, Targets
from pipeline.models.losses.base import Loss
from pipeline.models.registry import LOSSES
from pipeline.models.spec import ModelSpec
from pipeline.params import Term
from pipeline.parts import read_options


class Objective(nn.Module):
    """Terms over the outputs a model has; those on other outputs are left out.

    Raises:
        ParamsError: an unknown loss or option, one that cannot read the output it is on, or no term left.
    """

    def __init__(self, terms: Mapping[str, Term], spec: ModelSpec) -> None:
        super().__init__()
        self.weights: dict[str, float] = {}
        self.terms = nn.ModuleDict()
        for name, term in terms.items():
            output = term.on or name
            if output not in spec.outputs:
                continue
            part = LOSSES.find(term.name)
            if output.partition("@")[0] not in part.reads:
                reads = ", ".join(part.reads)
                raise ParamsError(f"loss.{name}: {term.name} reads {reads}, not {output}; choose another loss or `on`.")
            options = read_options(part.Options, term.options, f"loss.{name}.options")
            self.terms[name] = part(output, spec.outputs[output].size, options)
            self.weights[name] = float(term.weight)
        if not self.weights:
            raise ParamsError(f"no term of the loss ({', '.join(terms)}) reads what is predicted ({', '.join(spec.outputs)}).")

    def observe(self, targets: Targets) -> None:
        """Show the losses the targets of all training clips."""
        for term in self._losses().values():
            term.observe(targets)

    def forward(self, outputs: Outputs, targets: Targets) -> Tensor:
        """The weighted sum, a scalar."""
        parts = [self.weights[name] * term(outputs, targets) for name, term in self._losses().items()]
        return torch.stack(parts).sum()

    def _losses(self) -> dict[str, Loss]:
        return {name: term for name, term in self.terms.items() if isinstance(term, Loss)}
