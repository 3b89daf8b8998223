"""What is minimised: the sum of named loss terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pipeline.errors import ParamsError
from pipeline.models.batch import Outputs, Targets
from pipeline.models.losses.base import Loss
from pipeline.models.registry import LOSSES
from pipeline.models.spec import ModelSpec
from pipeline.params import Term
from pipeline.parts import read_options

#: What losses that compare clips read: what is fused, which every model gives, and the output of a head made of it.
EMBEDDING, PROJECTION = "embedding", "projection"


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
            if output not in spec.outputs and output != EMBEDDING:
                continue
            whole, part = output.partition("@")[0], LOSSES.find(term.name)
            if whole not in part.reads:
                reads = ", ".join(part.reads)
                raise ParamsError(f"loss.{name}: {term.name} reads {reads}, not {output}; choose another loss or `on`.")
            if part.over_time and spec.base is None:
                raise ParamsError(f"loss.{name}: {term.name} compares instants, and task.level is clip; set it to frame.")
            if part.over_time and whole != output:
                raise ParamsError(f"loss.{name}: {term.name} compares instants of what is fused, not {output}; write {whole}.")
            if part.wants is not None and spec.outputs[output].options.get(part.wants) is not True:
                raise ParamsError(f"loss.{name}: {term.name} wants heads.{output}.options.{part.wants} to be true.")
            options = read_options(part.Options, term.options, f"loss.{name}.options")
            compared = whole in (EMBEDDING, PROJECTION)
            size = len(spec.classes) if compared else spec.outputs[output].size
            named = spec.classes if compared or whole == "emotion" else ()
            with _naming(name):
                self.terms[name] = part(output, size, options, named)
            self.weights[name] = float(term.weight)
        if not self.weights:
            raise ParamsError(f"no term of the loss ({', '.join(terms)}) reads what is predicted ({', '.join(spec.outputs)}).")

    def observe(self, targets: Targets) -> None:
        """Show the losses the targets of all training clips."""
        for name, term in self._losses().items():
            with _naming(name):
                term.observe(targets)

    @property
    def keeps(self) -> bool:
        """Whether a loss keeps anything of a batch."""
        return any(term.keeps for term in self._losses().values())

    @property
    def lags(self) -> bool:
        """Whether a loss keeps what the averaged weights make of a batch."""
        return any(term.lags for term in self._losses().values())

    @property
    def unlabelled(self) -> bool:
        """Whether a loss learns from clips without any label."""
        return any(term.unlabelled for term in self._losses().values())

    def remember(self, outputs: Outputs, targets: Targets, lagging: Outputs | None = None) -> None:
        """Show the losses a batch after its step.

        Args:
            lagging: what the averaged weights make of it, where a loss `lags`.
        """
        for term in self._losses().values():
            term.remember(lagging if lagging is not None and term.lags else outputs, targets)

    def memory(self) -> dict[str, Tensor]:
        """What the losses keep of earlier batches, by name; its size changes as it fills."""
        return dict(self.state_dict())

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Inverse of `memory`."""
        for name, value in memory.items():
            owner, _, leaf = name.rpartition(".")
            term = self.get_submodule(owner)
            setattr(term, leaf, value.to(getattr(term, leaf).device))

    def forward(self, outputs: Outputs, targets: Targets) -> Tensor:
        """The weighted sum, a scalar."""
        parts = [self.weights[name] * term(outputs, targets) for name, term in self._losses().items()]
        return torch.stack(parts).sum()

    def _losses(self) -> dict[str, Loss]:
        return {name: term for name, term in self.terms.items() if isinstance(term, Loss)}


@contextmanager
def _naming(term: str) -> Iterator[None]:
    """Have a mistake say which term it is in."""
    try:
        yield
    except ParamsError as error:
        raise ParamsError(f"loss.{term}: {error}") from error
