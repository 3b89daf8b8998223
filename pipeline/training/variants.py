"""What is trained side by side: all streams fused, and each stream alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ParamsError, one_of
from pipeline.models.pooled import Pooling
from pipeline.models.registry import CONTEXTS, FUSIONS, HEADS, LOSSES
from pipeline.models.spec import LanguageSpec, ModelSpec, OutputSpec, PartSpec, StreamSpec
from pipeline.params import Fusion, Params, Part, Term
from pipeline.parts import read_options
from pipeline.runs.folders import ENSEMBLE, FUSED, LINEAR, STUDENT
from pipeline.runs.language import describe_language

from .data.dataset import Dataset
from .data.windows import choose_window
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

    @property
    def student(self) -> bool:
        """Whether the ensemble teaches it."""
        return self.name == STUDENT

    @property
    def once(self) -> bool:
        """Whether it is there once per fold, and not once per seed."""
        return self.linear or self.student


def list_variants(params: Params) -> list[Variant]:
    """`fused`, with `training.linear` the linear model of the same streams, with `training.student` the network that the ensemble
    teaches, with `training.unimodal` each stream by its name.

    A stream alone has nothing to fuse; it always goes through `concat`, so that its result does not
    depend on the fusion under study (and is not computed again when that changes).
    """
    names = params.inputs
    whole = {FUSED: "the fused model", LINEAR: "the linear model", ENSEMBLE: "the mean of several models"}
    for taken, what in (whole | {STUDENT: "the network that the ensemble teaches"}).items():
        if taken in names:
            raise ParamsError(f"a stream is named {taken!r}, as {what} is; rename it in `streams`.")
    found = [Variant(FUSED, names, params.fusion)]
    if params.training.linear is not None:
        found.append(Variant(LINEAR, names, Fusion(name="concat")))
    if params.training.student is not None:
        found.append(Variant(STUDENT, names, params.fusion))
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
        if wanted not in params.inputs:
            raise one_of("stream in task.time_base", wanted, params.inputs)
        if wanted in streams:
            return wanted
    seen = [name for name in streams if params.streams[name].modality in ("video", "face")]
    return (seen or list(streams))[0]


def specify_model(params: Params, variant: Variant, data: Dataset) -> ModelSpec:
    """The model of a variant for this data set.

    Raises:
        ParamsError: a head, context or stream that is not known, or a loss on an output that nothing predicts.
    """
    # One without layers is as good as not there: what a recipe says of a stream that is dropped can be taken back.
    if unknown := sorted({name for name, layers in params.temporal.hidden.items() if layers} - set(params.streams)):
        raise one_of("stream in temporal.hidden", unknown[0], params.streams)
    language = _describe_language(params, variant, data)
    reader = language.stream if language else None
    streams = {name: _describe_stream(params, name, data, variant.linear, name == reader) for name in variant.streams}
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
        temporal=PartSpec(name=params.temporal.kind, options=params.temporal.options),
        causal=params.temporal.causal,
        position=params.temporal.position,
        readout=params.temporal.readout,
        fusion=PartSpec(**variant.fusion.model_dump()),
        context=PartSpec(**context.model_dump()) if context else None,
        turns=turns,
        outputs=_list_outputs(params, variant, data, base),
        classes=data.classes,
        dimensions=data.dimension_names,
        base=base,
        window=choose_window(params),
        noise=float(params.temporal.noise),
        language=language,
    )


def _describe_language(params: Params, variant: Variant, data: Dataset) -> LanguageSpec | None:
    part = FUSIONS.find(variant.fusion.name)
    if variant.linear or not part.holds_language:
        return None
    options: Any = read_options(part.Options, variant.fusion.options, "fusion.options")
    trunks = {name: trunk for name in variant.streams if (trunk := data.streams[name].trunk) is not None}
    return describe_language(options, trunks, params.streams)


def _describe_stream(params: Params, name: str, data: Dataset, linear: bool, states: bool) -> StreamSpec:
    stream = data.streams[name]
    pooling: Pooling = "statistics" if linear else params.temporal.pooling
    # A stream of one token per clip has no deviation over it.
    if pooling == "statistics" and int(stream.offsets.diff().max()) <= 1:
        pooling = "mean"
    width, levels = (int(str(stream.facts[fact])) for fact in ("width", "levels"))
    hidden = () if linear or states else params.temporal.hidden.get(name, ())
    prompted = stream.trunk is not None
    read: Pooling = "states" if states else pooling
    return StreamSpec(width=width, levels=levels, axis=stream.axis, pooling=read, prompted=prompted, hidden=hidden)


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
        if at and stream not in params.inputs:
            raise one_of(f"stream of loss.{name}", stream, params.inputs)
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
    over_time = {term.on or name for named in terms for name, term in named.items() if LOSSES.find(term.name).over_time}
    result = {}
    for output, size in sizes.items():
        whole = output.partition("@")[0]
        part = params.heads.get(output) or Part(name="adversary" if whole in data.domains else whole)
        HEADS.find(part.name)
        options = _want(output, terms, part.options)
        options |= {"frames": True} if whole == PROJECTION and output in over_time and base is not None else {}
        result[output] = OutputSpec(name=part.name, options=options, size=size)
    return result


def _want(output: str, terms: Sequence[Mapping[str, Term]], options: dict[str, Any]) -> dict[str, Any]:
    """Options of a head, with what losses on its output want of it.

    Raises:
        ParamsError: it says how sure it is, and no loss teaches it.
    """
    read = [term for named in terms for name, term in named.items() if (term.on or name) == output]
    wanted = {wants: True for term in read if (wants := LOSSES.find(term.name).wants) is not None}
    if options.get("uncertainty") is True and "uncertainty" not in wanted:
        raise ParamsError(
            f"heads.{output}.options.uncertainty is true, but no loss teaches it; take loss=gaussian, or such a term."
        )
    return wanted | options
