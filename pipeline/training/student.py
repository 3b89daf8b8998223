"""The student: one network per fold that learns what the ensemble says, beside the labels (Hinton, Vinyals and Dean 2015).

The members of its own fold are asked of training and validation clips, never of held-out ones; it is as quick to ask as one
network.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from pipeline.models.losses.distil import name_answers
from pipeline.params import Loss, Params, Term
from pipeline.runs.run import load_run

from .answers.clips import predict_test
from .data.dataset import Dataset

#: Outputs that the ensemble teaches.
TAUGHT = ("emotion", "dimensions")


def settle_student(params: Params) -> Params:
    """The parameters that the student is trained with: its own size, labels for one share of the loss, the ensemble for the rest.

    Each term on the task's emotion or dimensions is worth less, and beside it stands one on what the ensemble says. A phase whose
    loss has no such term is as it was.
    """
    student = params.training.student
    assert student is not None, "training.student is null"
    phases = tuple(
        phase.model_copy(update={"loss": _teach(phase.loss, student.share, student.temperature)}) if phase.loss else phase
        for phase in params.training.phases
    )
    return params.model_copy(
        update={
            "temporal": student.resize(params.temporal),
            "loss": _teach(params.loss, student.share, student.temperature),
            "training": params.training.model_copy(update={"phases": phases}),
        }
    )


def _teach(loss: Loss, share: float, temperature: float) -> Loss:
    taught: Loss = {}
    for name, term in loss.items():
        on = term.on or name
        if on not in TAUGHT:
            taught[name] = term
            continue
        taught[name] = term.model_copy(update={"weight": float(term.weight) * (1 - share)})
        options = {"temperature": temperature} if on == "emotion" else {}
        weight = share * float(term.weight) + float(taught[f"ensemble_{on}"].weight if f"ensemble_{on}" in taught else 0)
        taught[f"ensemble_{on}"] = Term.model_validate({"name": "distil", "on": on, "weight": weight, "options": options})
    return taught


def average_answers(members: Mapping[Path, float], data: Dataset) -> dict[str, Tensor]:
    """What the ensemble says of the training and validation clips: (N, C) mean chances, (N, K) mean values, by `name_answers`.

    Args:
        members: the run folders of the fold, and what each is worth. data: of the fold as it was drawn.

    Returns:
        NaN for held-out clips; nobody is asked about those. An output that only some members give is the mean of those.
    """
    rows = data.rows("train", "val")
    sums: dict[str, Tensor] = {}
    worth: dict[str, float] = {}
    for folder, weight in members.items():
        run = load_run(folder)
        run.model.to(data.emotion.device)
        outputs = predict_test(run, data, rows)
        for name in (name for name in TAUGHT if name in outputs):
            said = outputs[name].double().softmax(1) if name == "emotion" else outputs[name].double()
            sums[name] = sums.get(name, 0) + weight * said
            worth[name] = worth.get(name, 0.0) + weight
    answers = {}
    for name, total in sums.items():
        whole = torch.full((len(data.ids), total.shape[1]), float("nan"), dtype=torch.float32)
        whole[rows.cpu()] = (total / worth[name]).float()
        answers[name_answers(name)] = whole.to(data.emotion.device)
    return answers
