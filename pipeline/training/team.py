"""Processes that learn one run together: data parallel, through accelerate.

Each holds all that learns, makes every batch, and reads its share of the clips. What the model says of them is gathered from all,
so that each takes the loss of the whole batch, whatever loss it is, and its derivative by way of its own clips. The sum of these
is the gradient of one process that reads all clips; with it all take the same step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from pipeline.errors import ParamsError
from pipeline.models.batch import Inputs, Outputs, choose_rows, is_over_time
from pipeline.models.language import LanguageModel
from pipeline.models.model import EmotionModel

#: Layers whose statistics are those of the clips they are shown together.
BATCHWISE = (nn.modules.batchnorm._BatchNorm,)


@dataclass(frozen=True)
class Team:
    """One of `size` processes; the first of them saves and tells. A team of one does what there would be without it.

    Attributes:
        sharded: the frozen layers of a language model are spread over the processes, and fetched when they are used
            (FSDP; Zhao et al. 2023). What learns is not: it is small, and everything else goes on as without.
    """

    rank: int = 0
    size: int = 1
    sharded: bool = False

    @property
    def first(self) -> bool:
        """Whether this process saves and tells."""
        return self.rank == 0

    def prepare(self, model: EmotionModel) -> None:
        """Spread what is to be spread, before the model is put on its device.

        Raises:
            ParamsError: a model that a share of the batch would train otherwise.
        """
        if self.size == 1:
            return
        if any(isinstance(part, BATCHWISE) for part in model.modules()):
            raise ParamsError(
                "a layer of this model normalises over the batch, and no process reads a whole one; set training.processes to 1."
            )
        if self.sharded:
            mesh = init_device_mesh(_find_device().type, (self.size,))
            for part in [one for one in model.modules() if isinstance(one, LanguageModel)]:
                part.shard(mesh)

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    def seed(self, *numbers: int) -> None:
        """Begin the noise of an epoch (dropout), another in each process; a run that goes on finds it again."""
        if self.size > 1:
            torch.manual_seed(int(np.random.SeedSequence([*numbers, self.rank]).generate_state(1)[0]))

    def ask(self, model: Callable[[Inputs], Outputs], inputs: Inputs) -> Outputs:
        """What the model says of a batch; the gradient goes by way of this process's rows of it."""
        if self.size == 1:
            return model(inputs)
        some = next(iter(inputs.streams.values())).mask
        count = len(some) if inputs.history is None else len(inputs.history.places)
        return self._gather(model(choose_rows(inputs, self._choose(count).to(some.device))), count)

    def predict(self, work: Callable[[Tensor], Outputs], rows: Tensor) -> Outputs:
        """What `work` makes of all rows, each process of its own; of equally many, so that sharded layers are asked as often."""
        if self.size == 1 or not len(rows):
            return work(rows)
        return self._gather(work(rows[self._choose(len(rows)).to(rows.device)]), len(rows))

    def agree(self, *values: float) -> list[float]:
        """The values of the first process, by which all decide alike."""
        if self.size == 1:
            return list(values)
        from accelerate.utils import broadcast

        told: Tensor = broadcast(torch.tensor(values, dtype=torch.float64, device=_find_device()))
        return told.tolist()

    def add_gradients(self, model: nn.Module) -> None:
        """Give every parameter the sum of its gradients; one that no process has a gradient of stays without."""
        if self.size == 1:
            return
        from accelerate.utils import reduce

        learning = [value for value in model.parameters() if value.requires_grad]
        own = [torch.zeros_like(value) if value.grad is None else value.grad for value in learning]
        have = torch.tensor([float(value.grad is not None) for value in learning], device=own[0].device)
        total: Tensor = reduce(torch.cat([have, *(one.flatten() for one in own)]), "sum")
        sizes = [one.numel() for one in own]
        there, *parts = total.split([len(learning), *sizes])
        for value, part, known in zip(learning, parts, there.tolist(), strict=True):
            value.grad = part.view_as(value) if known else None

    def _choose(self, count: int) -> Tensor:
        """(⌈count / size⌉,) this process's rows; where they run out, the last one again."""
        share = -(-count // self.size)
        return torch.arange(self.rank * share, (self.rank + 1) * share).clamp(max=count - 1)

    def _gather(self, outputs: Outputs, count: int) -> Outputs:
        """All rows' outputs; those of this process's own rows as they are, with their graph."""
        from accelerate.utils import gather, pad_across_processes

        found: Outputs = {}
        for name, given in outputs.items():
            own: Tensor = pad_across_processes(given, dim=1) if is_over_time(name) else given
            kept = own.detach().contiguous()
            rows: Tensor = gather(kept.byte()).bool() if kept.dtype == torch.bool else gather(kept)
            low = min(self.rank * len(own), count)
            high = min(low + len(own), count)
            found[name] = torch.cat([rows[:low], own[: high - low], rows[high:count]])
        return found


def _find_device() -> torch.device:
    from accelerate import PartialState

    device: torch.device = PartialState().device
    return device


#: One process, as most runs have it.
ALONE = Team()
