"""Five seeds of a pooled network, one after the other, and stacked: one step for all of them at once (`torch.func`)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from pipeline.models.batch import Inputs, Targets
from pipeline.models.model import EmotionModel

from . import epoch
from .epoch import ReadyMade, make_data, make_params
from .figures import Figure, alternate, ratio

MEMBERS = 5
#: Of a run: AdamW as it is there, gradients cut at a norm.
RATE, DECAY, NORM = 1.5e-3, 0.05, 1.0


#: Width of the network, clips of a batch, numbers of a stream's token: as the RAVDESS recipe trains, and a small one.
CASES = {
    "256 wide": {"width": 256, "batch": 128, "reads": 1152},
    "32 wide": {"width": 32, "batch": 32, "reads": 64},
}


@dataclass(frozen=True)
class Size:
    #: Of RAVDESS, less a fold.
    clips: int = 860
    width: int = 1152
    repeats: int = 7
    tiny: bool = False


TINY = Size(clips=60, width=8, repeats=1, tiny=True)


class OneByOne:
    """Each member by itself, as runs are."""

    def __init__(self, models: list[EmotionModel], objective: nn.Module, batches: list[tuple[Inputs, Targets]]) -> None:
        self.models, self.objective, self.batches = models, objective, batches
        self.optimisers = [torch.optim.AdamW(one.parameters(), RATE, weight_decay=DECAY, fused=True) for one in models]

    def __call__(self) -> None:
        """One epoch of all members."""
        for model, optimiser in zip(self.models, self.optimisers, strict=True):
            for inputs, targets in self.batches:
                optimiser.zero_grad(set_to_none=True)
                self.objective(model(inputs), targets).backward()
                nn.utils.clip_grad_norm_(model.parameters(), NORM)
                optimiser.step()

    def learned(self) -> dict[str, Tensor]:
        """(members, …) each parameter."""
        return {name: value.detach() for name, value in stack_module_state(self.models)[0].items()}


class Stacked:
    """All members in one step: parameters (members, …), the model mapped over them."""

    def __init__(self, models: list[EmotionModel], objective: nn.Module, batches: list[tuple[Inputs, Targets]]) -> None:
        # Every member has batches of its own, as runs draw their clips each in another order.
        self.batches = [(nested(lambda one: one.expand(len(models), *one.shape), inputs), targets) for inputs, targets in batches]
        parameters, self.buffers = stack_module_state(models)
        self.parameters = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        self.optimiser = torch.optim.AdamW(self.parameters.values(), RATE, weight_decay=DECAY, fused=True)
        self.objective, self.skeleton = objective, copy.deepcopy(models[0]).train()

    def __call__(self) -> None:
        """One epoch of all members."""
        for inputs, targets in self.batches:

            def lose(parameters: dict, buffers: dict, one: dict, targets: Targets = targets) -> Tensor:
                outputs = functional_call(self.skeleton, (parameters, buffers), (Inputs(one),))
                return self.objective(outputs, targets)

            losses = vmap(lose, randomness="different")(self.parameters, self.buffers, inputs.streams)
            self.optimiser.zero_grad(set_to_none=True)
            losses.sum().backward()
            gradients = [value.grad for value in self.parameters.values() if value.grad is not None]
            norms = torch.stack([grad.flatten(1).norm(dim=1) for grad in gradients]).norm(dim=0)
            factor = (NORM / (norms + 1e-6)).clamp(max=1)
            for grad in gradients:
                grad.mul_(factor.reshape(-1, *[1] * (grad.dim() - 1)))
            self.optimiser.step()

    def learned(self) -> dict[str, Tensor]:
        """(members, …) each parameter."""
        return {name: value.detach() for name, value in self.parameters.items()}


def nested(function: Callable[[Tensor], Tensor], inputs: Inputs) -> Inputs:
    """The inputs with a function of every tensor of every stream."""
    return Inputs({name: type(tokens)(*map(function, tokens)) for name, tokens in inputs.streams.items()})


def measure(folder: Path, size: Size) -> list[Figure]:
    """Speed of two networks; and without chance, whether both ways end in the same numbers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [figure for name, case in CASES.items() for figure in _measure_case(name, size, **case)]
    finally:
        torch.set_num_threads(threads)


def _measure_case(name: str, size: Size, width: int, batch: int, reads: int) -> list[Figure]:
    size = replace(size, width=min(size.width, reads))
    one, stacked = _make(size, width, batch)
    one(), stacked()
    taken = alternate({"one": one, "stacked": stacked}, size.repeats)
    still, together = _make(size, width, batch, chance=False)
    for way in (still, together):
        way(), way()
    apart = max(float((still.learned()[name] - value).abs().max()) for name, value in together.learned().items())
    return [
        Figure(
            f"{MEMBERS} pooled networks, {name}: stacked ÷ one by one",
            ratio(taken["one"], taken["stacked"]),
            "ratio",
            "",
            f"speed of an epoch on batches made before; {size.clips} clips, one thread; median of {size.repeats} by turns",
        ),
        Figure(
            f"{name}, without dropout and noise, two epochs: largest difference of a parameter",
            apart,
            "",
            "",
            "with dropout the two draw other numbers and are other runs",
        ),
    ]


def _make(size: Size, width: int, batch: int, chance: bool = True) -> tuple[OneByOne, Stacked]:
    data = make_data(epoch.Size(clips=size.clips, tokens=(1, 3), width=size.width))
    params = make_params(
        1,
        fusion={"name": "early", "options": {"project": False}},
        temporal={"pooling": "statistics", "width": width, "noise": 0.2 * chance, "dropout": 0.3 * chance},
        training={"batch_size": batch},
    )
    ready = ReadyMade(params, data)
    fitted = {name: value for name, value in ready.model.state_dict().items() if "standardise" in name}
    models = []
    for seed in range(MEMBERS):
        torch.manual_seed(seed)
        model = EmotionModel(ready.spec).train()
        model.load_state_dict(fitted, strict=False)
        models.append(model)
    return OneByOne(copy.deepcopy(models), ready.objective, ready.batches), Stacked(models, ready.objective, ready.batches)
