"""What a phase of training is told: the run's parameters, with what is its own."""

from __future__ import annotations

from pipeline.errors import ParamsError
from pipeline.models.spec import ModelSpec
from pipeline.params import Params, Phase, Training

from .selection import CLASSES, check_selection

#: Of a phase, what stands in `training` under the same name.
OWN = tuple(name for name in Phase.model_fields if name in Training.model_fields)


def settle(params: Params, phase: Phase, spec: ModelSpec) -> Params:
    """The parameters of a phase.

    Raises:
        ParamsError: they do not go together.
    """
    own = {name: getattr(phase, name) for name in OWN if getattr(phase, name) is not None}
    own["select"] = choose_selection(phase, params.training.select)
    check_selection(own["select"], spec)
    training = params.training.model_copy(update=own)
    if training.pairs is not None and (spec.base is None or any(spec.turns)):
        raise ParamsError("training.pairs cuts clips along the time base: set task.level to frame, and context to none.")
    loss = params.loss if phase.loss is None else phase.loss
    return params.model_copy(update={"training": training, "loss": loss})


def choose_selection(phase: Phase, inherited: str) -> str:
    """What selects the phase's epoch: a head that its loss does not teach says nothing of it, so then the loss does.

    Raises:
        ParamsError: the phase itself asks for what its loss does not teach.

    >>> from pipeline.params import Term
    >>> contrast = {"near": Term(name="local_contrastive", on="projection")}
    >>> choose_selection(Phase(loss=contrast), "ccc"), choose_selection(Phase(), "ccc")
    ('loss', 'ccc')
    """
    chosen = phase.select or inherited
    if phase.loss is None or chosen in ("loss", "last"):
        return chosen
    judged = {"emotion"} if chosen in CLASSES else {"dimensions", "frames"}
    if judged & {term.on or name for name, term in phase.loss.items()}:
        return chosen
    if phase.select is not None:
        wanted = " or ".join(sorted(judged))
        raise ParamsError(f"training.phases: {phase.name} selects {chosen}, but has no loss on {wanted}; select loss, or last.")
    return "loss"
