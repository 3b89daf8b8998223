"""What decides a run beside its clips: parameters, and code."""

from __future__ import annotations

from pipeline.models.registry import CONTEXTS, FUSIONS, HEADS, LOSSES, TEMPORALS
from pipeline.models.spec import ModelSpec
from pipeline.params import Params

from .course import build_sampler
from .curricula.base import CURRICULA
from .data.windows import choose_limit
from .together import count_processes
from .variants import Variant


def choose_parameters(params: Params, variant: Variant) -> dict:
    """The parameters that decide a run; of the student they are those that `settle_student` gives."""
    if variant.linear and params.training.linear:
        return {
            "linear": params.training.linear.model_dump(mode="json"),
            **params.training.model_dump(mode="json", include={"threads", "normalise"}),
            **(params.training.model_dump(mode="json", include={"tau", "select"}) if params.training.tau else {}),
            "task": params.task.model_dump(mode="json"),
            "max_tokens": choose_limit(params),
            **params.temporal.model_dump(mode="json", include={"weights"}),
        }
    beside = {"seeds", "unimodal", "threads", "linear", "rotate", "ensemble", "student", "processes", "shard"}
    training = params.training.model_dump(mode="json", exclude=beside)
    together = {"threads"} | ({"processes", "shard"} if count_processes(params, variant) > 1 else set())
    return {
        "training": training | params.training.model_dump(mode="json", include=together),
        "loss": {name: term.model_dump(mode="json") for name, term in params.loss.items()},
        "task": params.task.model_dump(mode="json"),
        "temporal": params.temporal.model_dump(mode="json"),
        "fusion": variant.fusion.model_dump(mode="json"),
    }


def list_modules(params: Params, spec: ModelSpec) -> list[str]:
    """What decides a run; for a network also the modules of the parts chosen by name, which no import names."""
    if spec.linear:
        return ["pipeline.training.linear", "pipeline.runs.run"]
    terms = [params.loss, *(phase.loss for phase in params.training.phases if phase.loss)]
    parts: list[type] = [FUSIONS.find(spec.fusion.name), TEMPORALS.find(spec.temporal.name)]
    parts += [CONTEXTS.find(spec.context.name)] if spec.context else []
    parts += [HEADS.find(output.name) for output in spec.outputs.values()]
    parts += [LOSSES.find(term.name) for named in terms for term in named.values()]
    parts += [CURRICULA.find(params.training.curriculum.name)] if params.training.curriculum else []
    parts += [type(build_sampler(params))]
    return ["pipeline.training.loop", "pipeline.runs.run", *sorted({part.__module__ for part in parts})]
