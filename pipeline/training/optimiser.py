"""The optimiser, and how its learning rate is set."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch
from torch import nn

from pipeline.errors import ParamsError
from pipeline.models.model import EmotionModel, is_within
from pipeline.params import Training


def group_parameters(model: EmotionModel, training: Training) -> list[dict]:
    """Groups for the optimiser: a rate per part (`training.rates`), and no decay of norms, biases and embeddings.

    Each group holds its peak rate as `peak`.

    Raises:
        ParamsError: everything is frozen.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, value in model.named_parameters():
        if not value.requires_grad:
            continue
        # The longest name that fits is the nearest part.
        part = max((p for p in training.rates if is_within(name, p)), key=len, default=None)
        rate = float(training.lr) * (float(training.rates[part]) if part else 1.0)
        groups.setdefault((rate, value.ndim > 1), []).append(value)
    if not groups:
        raise ParamsError("training.phases.freeze leaves nothing to learn; take a part out of it.")
    return [
        {"params": values, "lr": rate, "peak": rate, "weight_decay": float(training.weight_decay) if decayed else 0.0}
        for (rate, decayed), values in groups.items()
    ]


def build_optimiser(model: EmotionModel, training: Training) -> torch.optim.Optimizer:
    """The optimiser of `training.optimiser` over what learns.

    `adamw` takes the decay from the weights (Loshchilov & Hutter 2019), the others add it to the gradient; `sgd` has
    Nesterov's momentum of 0.9.
    """
    groups, lr = group_parameters(model, training), float(training.lr)
    if training.optimiser == "sgd":
        return without_compiler(torch.optim.SGD)(groups, lr=lr, momentum=0.9, nesterov=True, fused=True)
    kind = torch.optim.Adam if training.optimiser == "adam" else torch.optim.AdamW
    return without_compiler(kind)(groups, lr=lr, fused=True)


@functools.cache
def without_compiler(kind: type[torch.optim.Optimizer]) -> Any:
    """The same optimiser without the wrappers by which torch's compiler sees its methods.

    They import the compiler, which takes longer than many a run, and nothing here is compiled. What they do beside that is to
    turn gradients off for a step.
    """
    bare = {
        name: inspect.unwrap(getattr(kind, name)) for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    }
    return type(kind.__name__, (kind,), bare | {"step": torch.no_grad()(inspect.unwrap(kind.step))})


def set_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Every group at `factor` of its peak."""
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * factor
