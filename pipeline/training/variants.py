"""What is trained side by side: all streams fused, and each stream alone."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import ParamsError, one_of
from pipeline.models.pooled import Pooling
from pipeline.models.registry import CONTEXTS, HEADS
from pipeline.models.spec import ModelSpec, OutputSpec, PartSpec, StreamSpec
from pipeline.params import Fusion, Params, Part
from pipeline.parts import read_options
from pipeline.runs.folders import ENSEMBLE, FUSED, LINEAR

from .data.dataset import Dataset
from .objective import EMBEDDING, PROJECTION

#: Outputs a task may ask for.
TASK = ("emotion", "dimensions", "frames")


@dataclass(frozen=True)
class Variant:
    """A name, the streams it reads and how they are fused."""

    name: str
    streams: tuple[str, ...]
    fusion: Fusion

    @property
    def linear(self) -> bool:
        """Whether it is the linear model, which has no seeds: it starts from nothing."""
        return self.name == LINEAR


def list_variants(params: Params) -> list[Variant]:
    """`fused`, with `training.linear` the linear model of the same streams, with `training.unimodal` each stream by its name.

    A stream alone has nothing to fuse; it always goes through `concat`, so that its result does not
    depend on the fusion under study (and is not computed again when that changes).
    """
    names = tuple(sorted(params.streams))
    for taken, what in ((FUSED, "the fused model"), (LINEAR, "the linear model"), (ENSEMBLE, "the mean of several models")):
        if taken in names:
            raise ParamsError(f"a stream is named {taken!r}, as {what} is; rename it in `streams`.")
    found = [Variant(FUSED, names, params.fusion)]
    if params.training.linear is not None:
        found.append(Variant(LINEAR, names, Fusion(name="concat")))
    if params.training.unimodal and len(names) > 1:
        found += [Variant(name, (name,), Fusion(name="concat")) for name in names]
    return found


def choose_time_base(params: Params, streams: tuple[str, ...]) -> str | None:
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


def specify_model(params: Params, variant: Variant, data: Dataset) -> ModelSpec:
    """The model of a variant for this data set.

    Raises:
        ParamsError: a head or context that is not known, or a loss on an output that nothing predicts.
    """
    streams = {name: _describe_stream(params, name, data, variant.linear) for name in variant.streams}
    if variant.linear:
        chosen = params.training.linear and params.training.linear.context
        return ModelSpec(
            streams=streams,
            classes=data.classes,
            dimensions=data.dimension_names,
            linear=True,
            earlier=chosen.weights if chosen else (),
            turns=(chosen.turns, 0) if chosen else (0, 0),
        )
    base = choose_time_base(params, variant.streams)
    if base is not None and params.temporal.pooling != "none":
        raise ParamsError(
            f"temporal.pooling {params.temporal.pooling} leaves one row per clip, but task.level is frame; "
            "take pooling none, or level clip."
        )
    context = params.context
    turns = (0, 0)
    if context is not None:
        kind = CONTEXTS.find(context.name)
        options = read_options(kind.Options, context.options, "context.options")
        turns = (options.turns, options.later)
    return ModelSpec(
        streams=streams,
        width=params.temporal.width,
        layers=params.temporal.layers,
        heads=params.temporal.heads,
        dropout=float(params.temporal.dropout),
        readout=params.temporal.readout,
        fusion=PartSpec(**variant.fusion.model_dump()),
        context=PartSpec(**context.model_dump()) if context else None,
        turns=turns,
        outputs=_list_outputs(params, variant, data, base),
        classes=data.classes,
        dimensions=data.dimension_names,
        base=base,
        noise=float(params.temporal.noise),
    )


def _describe_stream(params: Params, name: str, data: Dataset, linear: bool) -> StreamSpec:
    stream = data.streams[name]
    pooling: Pooling = "statistics" if linear else params.temporal.pooling
    # A stream of one token per clip has no deviation over it.
    if pooling == "statistics" and int(stream.offsets.diff().max()) <= 1:
        pooling = "mean"
    return StreamSpec(width=int(str(stream.facts["width"])), levels=int(str(stream.facts["levels"])), pooling=pooling)


def _list_outputs(params: Params, variant: Variant, data: Dataset, base: str | None) -> dict[str, OutputSpec]:
    """What the task asks for, and what a term of the loss is on besides."""
    sizes = {"emotion": len(data.classes), "dimensions": len(data.dimension_names)}
    sizes = {name: size for name, size in sizes.items() if size}
    if base is not None:
        sizes["frames"] = sizes["dimensions"]
    terms = [params.loss, *(phase.loss for phase in params.training.phases if phase.loss)]
    for name, term in ((name, term) for named in terms for name, term in named.items()):
        output = term.on or name
        whole, at, stream = output.partition("@")
        if at and stream not in params.streams:
            raise one_of(f"stream of loss.{name}", stream, params.streams)
        if whole in data.domains:
            sizes[output] = len(data.domains[whole])
        elif output == EMBEDDING:
            continue  # every model gives it
        elif whole == PROJECTION:
            if not at or (stream in variant.streams and len(variant.streams) > 1):
                sizes[output] = params.temporal.width
        elif whole not in TASK or output.startswith("frames@"):
            alone = [f"{one}@STREAM" for one in ("emotion", "dimensions", PROJECTION)]
            known = [*TASK, *data.domains, EMBEDDING, PROJECTION, *alone]
            raise one_of(f"output of loss.{name}", output, known)
        elif at and whole in ("emotion", "dimensions") and stream in variant.streams and len(variant.streams) > 1:
            sizes |= {output: sizes[whole]} if whole in sizes else {}
    for output in params.heads:
        if output.partition("@")[0] not in (*TASK, *data.domains, PROJECTION):
            raise one_of("output in heads", output, [*TASK, *data.domains, PROJECTION])
    result = {}
    for output, size in sizes.items():
        whole = output.partition("@")[0]
        part = params.heads.get(output) or Part(name="adversary" if whole in data.domains else whole)
        HEADS.find(part.name)
        result[output] = OutputSpec(**part.model_dump(), size=size)
    return result
