"""One phase of training: epochs of steps, each judged on validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.errors import ParamsError
from pipeline.models.batch import Inputs, Outputs, Targets
from pipeline.models.model import EmotionModel
from pipeline.models.spec import ModelSpec
from pipeline.params import Params

from .average import average, averaged, lag
from .course import Course, prepare
from .curricula.roll import call_roll
from .data.dataset import Dataset
from .mixup import mix_inputs, mix_targets
from .objective import Objective
from .plan import Plan, recall_losses
from .schedules import Moment
from .selection import name_measure, score
from .state import Progress
from .team import ALONE, Team


@dataclass(frozen=True)
class Learner:
    """A model, what it learns from, and where it stands.

    Attributes:
        name: of the phase. course: its clips and parameters. order: the source of chance of what is shown.
        team: the processes that learn the run.
    """

    name: str
    model: EmotionModel
    course: Course
    objective: Objective
    plan: Plan
    optimiser: torch.optim.Optimizer
    order: torch.Generator
    progress: Progress
    seed: int = 0
    team: Team = ALONE

    @classmethod
    def begin(
        cls,
        name: str,
        spec: ModelSpec,
        data: Dataset,
        params: Params,
        model: EmotionModel,
        optimiser: torch.optim.Optimizer,
        order: torch.Generator,
        progress: Progress,
        seed: int,
        team: Team = ALONE,
    ) -> Learner:
        """At the phase's start, or where `progress` was saved in it.

        Args:
            params: of the phase, see `settle`.

        Raises:
            StoreError, ParamsError: there is nothing to learn from, or parameters do not go together.
        """
        training = params.training
        objective = Objective(params.loss, spec).to(data.emotion.device)
        course = prepare(spec, data, params, unlabelled=objective.unlabelled)
        objective.observe(course.targets(course.train))
        if training.mixup and objective.keeps:
            raise ParamsError("training.mixup leaves no clip as it is for the queue of a loss; set its options.queue to 0.")
        if objective.lags and not training.ema:
            raise ParamsError(
                "options.momentum of a loss keeps what the averaged weights make, and there are none; set training.ema."
            )
        objective.recall(progress.memory)
        plan = Plan.make(params, model, call_roll(data, course.train, training.batch_size, seed))
        return cls(name, model, course, objective, plan, optimiser, order, progress, seed, team)

    def run(self) -> Iterator[None]:
        """Epochs until the last, or until patience ends; yields after each."""
        training, progress = self.course.params.training, self.progress
        patience = float("inf") if training.patience is None or training.select == "last" else training.patience
        while progress.epoch < training.epochs and progress.waited < patience:
            loss = self._learn()
            with averaged(self.model, progress.average):
                self._validate(loss)
            if progress.epoch <= self.plan.spared:
                progress.waited = 0
            last = self.course.look(self.model, self.team) if self.plan.looks else None
            progress.weight = self.plan.weigh(progress.epoch, self.course.targets(self.course.train), last)
            progress.memory = self.objective.memory()
            yield

    def _learn(self) -> float:
        """One epoch; the mean loss of its clips."""
        training, progress = self.course.params.training, self.progress
        self.model.train()
        self.objective.train()
        self.team.seed(self.seed, progress.phase, progress.epoch)
        if progress.weight is None:
            progress.weight = self.plan.weigh(progress.epoch, self.course.targets(self.course.train), None)
        losses = recall_losses(progress.history, progress.epoch)
        batches, several = list(self.course.sample(self.order, progress.weight)), training.accumulate
        steps = [batches[i : i + several] for i in range(0, len(batches), several)]
        total = 0.0
        for i, step in enumerate(steps):
            self.plan.step(self.model, self.optimiser, Moment(progress.epoch, i, len(steps), training.epochs, losses))
            # Of the whole model: what a frozen part was last told in the phase before is no part of the norm that is clipped.
            self.model.zero_grad(set_to_none=True)
            clips, seen = sum(map(len, step)), []
            for places in step:
                inputs, targets = self.course.show(places, progress.weight, self.order)
                loss, outputs = self._lose(inputs, targets)
                # A step of several batches is that of one as large.
                (loss * (len(places) / clips)).backward()
                total += float(loss.detach()) * len(places)
                seen.append((inputs, outputs, targets))
            self.team.add_gradients(self.model)
            nn.utils.clip_grad_norm_(self.model.parameters(), training.clip_norm)
            self.optimiser.step()
            if training.ema:
                average(progress, self.model, float(training.ema))
            for inputs, outputs, targets in seen if self.objective.keeps else ():
                late = partial(lag, self.model, progress.average)
                lagging = self.team.ask(late, inputs) if self.objective.lags else None
                self.objective.remember(outputs, targets, lagging)
        return total / sum(map(len, batches))

    def _lose(self, inputs: Inputs, targets: Targets) -> tuple[Tensor, Outputs]:
        """The loss of a batch, and its outputs; with mixup, of pairs of clips mixed by one share of Beta(α, α)."""
        alpha = float(self.course.params.training.mixup)
        if not alpha:
            outputs = self.team.ask(self.model, inputs)
            return self.objective(outputs, targets), outputs
        device = targets.weight.device
        partner = torch.randperm(len(targets.weight), generator=self.order).to(device)
        share = torch.distributions.Beta(alpha, alpha).sample().to(device)
        outputs = self.model(mix_inputs(inputs, partner, share))
        mixed = self.objective(outputs, mix_targets(targets, partner))
        return share * self.objective(outputs, targets) + (1 - share) * mixed, outputs

    @torch.inference_mode()
    def _validate(self, train_loss: float) -> None:
        """Score the epoch, keep what was learned when it is the best so far."""
        course, progress = self.course, self.progress
        select = course.params.training.select
        measure = name_measure(select, course.spec)
        loss = value = float("nan")
        # All of validation as one batch, so that CCC is over all of it and not a mean over batches.
        if not course.params.training.refit:
            outputs, targets = course.examine(self.model, self.team)
            loss = float(self.objective.eval()(outputs, targets))
            loss, value = self.team.agree(loss, score(measure, outputs, targets, loss))
        progress.epoch += 1
        judged = {} if measure == "loss" else {f"val_{measure}": value}
        progress.history.append(
            {"phase": self.name, "epoch": progress.epoch, "train_loss": train_loss, "val_loss": loss, **judged}
        )
        # Few validation clips make equal scores common: the lower loss decides.
        if select == "last" or (value, -loss) > progress.key or not progress.best:
            progress.key, progress.best_epoch, progress.waited = (value, -loss), progress.epoch, 0
            progress.best = {name: tensor.clone() for name, tensor in self.model.trainable().items()}
        else:
            progress.waited += 1
