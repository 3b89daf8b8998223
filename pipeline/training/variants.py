"""What is trained side by side: all streams fused, and each stream alone."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import ParamsError, one_of
from pipeline.models.model import ModelSpec, StreamSpec
from pipeline.params import Fusion, Params

from .data.dataset import Dataset

FUSED = "fused"


@dataclass(frozen=True)
class Variant:
    """A name, the streams it reads and how they are fused."""

    name: str
    streams: tuple[str, ...]
    fusion: Fusion


def variants(params: Params) -> list[Variant]:
    """`fused`, and with `training.unimodal` each stream under its own name.

    A stream alone has nothing to fuse; it always goes through `concat`, so that its result does not
    depend on the fusion under study (and is not computed again when that changes).
    """
    names = tuple(sorted(params.streams))
    found = [Variant(FUSED, names, params.fusion)]
    if params.training.unimodal and len(names) > 1:
        if FUSED in names:
            raise ParamsError(f"a stream is named {FUSED!r}, as the fused model is; rename it in `streams`.")
        found += [Variant(name, (name,), Fusion(name="concat")) for name in names]
    return found


def time_base(params: Params, streams: tuple[str, ...]) -> str | None:
    """The stream along whose tokens frame-level dimensions go; None when the task is per clip.

    A variant without the time base uses its own first stream.

    Raises:
        ParamsError: `task.time_base` names no stream.
    """
    if params.task.level != "frame" or not params.task.dimensions:
        return None
    wanted = params.task.time_base
    if wanted is not None:
        if wanted not in params.streams:
            raise one_of("stream in task.time_base", wanted, params.streams)
        if wanted in streams:
            return wanted
    seen = [name for name in streams if params.streams[name].modality in ("video", "face")]
    return (seen or list(streams))[0]


def spec(params: Params, variant: Variant, data: Dataset) -> ModelSpec:
    """The model of a variant for this data set."""
    facts = {name: data.streams[name].facts for name in variant.streams}
    return ModelSpec(
        streams={name: StreamSpec(width=int(f["width"]), levels=int(f["levels"])) for name, f in facts.items()},
        width=params.temporal.width,
        layers=params.temporal.layers,
        heads=params.temporal.heads,
        dropout=float(params.temporal.dropout),
        fusion=variant.fusion.name,
        options=dict(variant.fusion.options),
        classes=data.classes,
        dimensions=data.names,
        base=time_base(params, variant.streams),
    )
