"""What learns: an encoder, and what stands on its rows while it is adapted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import ParamsError
from pipeline.features.encoders.encoder import Encoder
from pipeline.features.encoders.extractor import Prepared
from pipeline.features.encoders.pooling import POOLS
from pipeline.models.batch import Outputs, Targets
from pipeline.models.losses.base import Loss
from pipeline.params import Adapt, Stream, Term
from pipeline.parts import Parts, read_options
from pipeline.training.data.annotations import interpolate

from .clips import Clips

LOSSES: Parts[Loss] = Parts("pipeline.models.losses", Loss, "loss")
#: Outputs along the rows of a clip; all others have one row per clip or, at level `frame`, per instant.
OVER_TIME = ("frames", "projection.frames")
OUTPUTS = ("emotion", "dimensions", "embedding", "projection", *OVER_TIME)


def choose_level(adapt: Adapt, clips: Clips) -> str:
    """`clip` or `frame`, as the parameters say, else as the truth is."""
    return adapt.level or ("frame" if clips.truth and adapt.objective == "dimensions" else "clip")


class Learner(nn.Module):
    """Heads on an encoder, which is no part of the module: it is saved by itself.

    Args:
        width: of the encoder's rows.
        where: the key of `adapt`, for messages.

    Raises:
        ParamsError: a term reads what is not there, or an option does not fit.
    """

    def __init__(self, encoder: Encoder, stream: Stream, adapt: Adapt, clips: Clips, width: int, where: str) -> None:
        super().__init__()
        # Not registered: what stands on the encoder is what this module holds.
        self._encoder = (encoder,)
        self.level = choose_level(adapt, clips)
        self.pool = stream.pooling if stream.pooling in POOLS and not stream.rate else "mean"
        wide = 2 * width if self.pool in ("mean_max", "statistics") and self.level == "clip" else width
        self.weights: dict[str, float] = {}
        self.terms = nn.ModuleDict()
        for name, term in adapt.terms.items():
            self.terms[name] = _build_term(name, term, clips, f"{where}.loss.{name}")
            self.weights[name] = float(term.weight)
        read = {"projection.frames" if loss.over_time else loss.on for loss in self.losses.values()}
        sizes = {"emotion": len(clips.classes), "dimensions": len(clips.names)}
        self.heads = nn.ModuleDict({name: nn.Linear(wide, size) for name, size in sizes.items() if name in read})
        if "frames" in read:
            self.heads["frames"] = nn.Linear(width, len(clips.names))
        for name, size in (("projection", wide), ("projection.frames", width)):
            if name in read:
                self.heads[_key(name)] = nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.Linear(size, adapt.projection))

    @property
    def losses(self) -> dict[str, Loss]:
        """The terms by name."""
        return {name: one for name, one in self.terms.items() if isinstance(one, Loss)}

    def forward(self, batch: Sequence[Prepared]) -> tuple[Outputs, list[int]]:
        """Outputs of a batch, and how many rows each clip has. At level `frame` an instant is a row of its own."""
        rows = encode(self._encoder[0], batch)
        lengths = [len(one) for one in rows]
        single = torch.cat(rows) if self.level == "frame" else torch.stack([POOLS[self.pool](one) for one in rows])
        outputs: Outputs = {"embedding": single}
        for name, head in self.heads.items():
            if _named(name) in OVER_TIME:
                values = head(nn.utils.rnn.pad_sequence(rows, batch_first=True))
                there = torch.arange(values.shape[1], device=values.device) < torch.tensor(lengths, device=values.device)[:, None]
                values = F.normalize(values, dim=-1) if name != "frames" else values
                outputs[_named(name)] = values * there[..., None]
            else:
                values = head(single)
                outputs[name] = F.normalize(values, dim=-1) if name == "projection" else values
        return outputs, lengths

    def lose(self, outputs: Outputs, targets: Mapping[str, Targets]) -> Tensor:
        """The weighted sum of the terms."""
        parts = [self.weights[name] * loss(_view(loss, outputs), targets[_shape(loss)]) for name, loss in self.losses.items()]
        return torch.stack(parts).sum()

    def observe(self, targets: Mapping[str, Targets]) -> None:
        """Show the losses the truth of all training clips."""
        for loss in self.losses.values():
            loss.observe(targets[_shape(loss)])

    def remember(self, outputs: Outputs, targets: Mapping[str, Targets]) -> None:
        """Show the losses a batch after its step."""
        for loss in self.losses.values():
            loss.remember(_view(loss, outputs), targets[_shape(loss)])

    def memory(self) -> dict[str, Tensor]:
        """What the losses keep of earlier batches."""
        return dict(self.terms.state_dict())

    def recall(self, memory: Mapping[str, Tensor]) -> None:
        """Inverse of `memory`, whose sizes change as it fills."""
        for name, value in memory.items():
            owner, _, leaf = name.rpartition(".")
            setattr(self.terms.get_submodule(owner), leaf, value)


def _key(output: str) -> str:
    """Names of modules hold no dot."""
    return output.replace(".", ":")


def _named(key: str) -> str:
    return key.replace(":", ".")


def _shape(loss: Loss) -> str:
    return "time" if loss.over_time or loss.on in OVER_TIME else "row"


def _view(loss: Loss, outputs: Outputs) -> Outputs:
    """What a loss reads; to one over time a clip's vector is the mean of those of its instants."""
    if not loss.over_time:
        return outputs
    return outputs | {"projection": F.normalize(outputs["projection.frames"].sum(1), dim=-1)}


def _build_term(name: str, term: Term, clips: Clips, where: str) -> Loss:
    output, part = term.on or name, LOSSES.find(term.name)
    if output not in OUTPUTS:
        raise ParamsError(f"{where}: there is no output {output!r} here; terms are on {', '.join(OUTPUTS)}.")
    plain = output.removesuffix(".frames") if part.over_time else output
    if plain not in part.reads:
        raise ParamsError(f"{where}: {term.name} reads {', '.join(part.reads)}, not {output}; choose another loss or `on`.")
    if output in ("dimensions", "frames") and not clips.names:
        raise ParamsError(f"{where}: {output} needs objective dimensions, and task.dimensions.")
    if output == "emotion" and not clips.classes:
        raise ParamsError(f"{where}: emotion needs objective emotion.")
    size = len(clips.names) if output in ("dimensions", "frames") else len(clips.classes)
    try:
        return part(plain, size, read_options(part.Options, term.options, f"{where}.options"), clips.classes)
    except ParamsError as error:
        raise ParamsError(f"{where}: {error}") from error


def encode(encoder: Encoder, batch: Sequence[Prepared]) -> list[Tensor]:
    """(T, D) float32 rows of each clip; layers that are kept apart are averaged. Clips of one bucket go together."""
    found: dict[int, Tensor] = {}
    for bucket in dict.fromkeys(item.bucket for item in batch):
        places = [i for i, item in enumerate(batch) if item.bucket == bucket]
        for place, rows in zip(places, encoder.encode([batch[i] for i in places]), strict=True):
            assert isinstance(rows, Tensor)  # noqa: S101  it has a network
            found[place] = (rows.mean(1) if rows.ndim == 3 else rows).float()
    return [found[i] for i in range(len(batch))]


def make_targets(
    clips: Clips, places: Sequence[int], batch: Sequence[Prepared] | None, level: str, device: str
) -> dict[str, Targets]:
    """Truth of a batch as outputs are shaped: `row`, one per clip or instant, and `time`, along the rows of each clip.

    Args:
        batch: the prepared clips, whose times are asked for; None where only what clips have as a whole is.
    """
    emotion, dimensions = clips.emotion[list(places)], clips.dimensions[list(places)]
    frames = None
    if batch is not None:
        frames = nn.utils.rnn.pad_sequence(
            [_along(clips, place, item) for place, item in zip(places, batch, strict=True)],
            batch_first=True,
            padding_value=float("nan"),
        )
    ones = torch.ones(len(places))
    whole = Targets(emotion, dimensions, frames, {}, ones, torch.tensor(list(places)))
    single = whole
    if level == "frame" and batch is not None and frames is not None:
        lengths = torch.tensor([len(item.times) for item in batch])
        flat = torch.cat([one[:length] for one, length in zip(frames, lengths.tolist(), strict=True)])
        single = Targets(emotion.repeat_interleave(lengths), flat, None, {}, torch.ones(len(flat)))
    return {"row": _to(single, device), "time": _to(whole, device)}


def _along(clips: Clips, place: int, item: Prepared) -> Tensor:
    """(T, K) truth at the rows of a clip: over time where it is known, else the clip's at each."""
    truth = clips.truth.get(clips.jobs[place].id)
    if truth is None:
        return clips.dimensions[place].expand(len(item.times), -1)
    return torch.from_numpy(interpolate(truth, np.asarray(item.times, np.float64).mean(1)))


def _to(targets: Targets, device: str) -> Targets:
    frames = None if targets.frames is None else targets.frames.to(device)
    return targets._replace(
        emotion=targets.emotion.to(device),
        dimensions=targets.dimensions.to(device),
        frames=frames,
        weight=targets.weight.to(device),
    )


def calculating(precision: str, device: str) -> AbstractContextManager:
    """Where products are in half precision, if they are to be."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)
