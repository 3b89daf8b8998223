"""Losses against their definitions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline import metrics
from pipeline.models.batch import Targets
from pipeline.models.losses.base import weigh_classes
from pipeline.models.losses.concordance import concord
from pipeline.models.registry import LOSSES
from pipeline.parts import read_options

CLASSES = ("cross_entropy", "focal")


def sample(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(12, 4, generator=generator), torch.randint(0, 4, (12,), generator=generator)


def targets(emotion=None, dimensions=None, frames=None, weight=None):
    size = len(next(x for x in (emotion, dimensions, frames) if x is not None))
    return Targets(
        torch.full((size,), -1) if emotion is None else emotion,
        torch.full((size, 2), torch.nan) if dimensions is None else dimensions,
        frames,
        {},
        torch.ones(size) if weight is None else weight,
    )


def build(name, on="emotion", size=4, **options):
    part = LOSSES.find(name)
    return part(on, size, read_options(part.Options, options, "loss"))


def of_classes(name, logits, truth, weight=None, observed=None, **options):
    loss = build(name, size=logits.shape[1], **options)
    loss.observe(targets(truth if observed is None else observed))
    return loss({"emotion": logits}, targets(truth, weight=weight))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_is_the_librarys(smoothing, weighted):
    logits, truth = sample()
    weights = weigh_classes(truth, 4) if weighted else None
    torch.testing.assert_close(
        of_classes("cross_entropy", logits, truth, label_smoothing=smoothing, class_weights=weighted),
        F.cross_entropy(logits, truth, weights, label_smoothing=smoothing),
    )


def test_focal_without_focus_is_cross_entropy():
    logits, truth = sample()
    torch.testing.assert_close(of_classes("focal", logits, truth, gamma=0.0), of_classes("cross_entropy", logits, truth))


def test_focal_definition():
    logits, truth = sample()
    alpha = weigh_classes(truth, 4)
    p = logits.softmax(1)[torch.arange(12), truth]
    expected = (alpha[truth] * (1 - p) ** 2 * -p.log()).mean()
    torch.testing.assert_close(of_classes("focal", logits, truth, class_weights=True), expected)


@pytest.mark.parametrize("name", CLASSES)
def test_a_step_raises_the_true_class(name):
    """The sign error of a source system: training pushed the true class down."""
    logits, truth = sample()
    logits.requires_grad_()
    of_classes(name, logits, truth).backward()
    assert (logits.grad[torch.arange(12), truth] < 0).all()


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("options", [{}, {"class_weights": True}])
def test_unknown_rows_and_rows_of_weight_zero_take_no_part(name, options):
    logits, truth = sample()
    hidden, weight = torch.where(torch.arange(12) < 4, -1, truth), torch.ones(12)
    weight[10:] = 0
    found = of_classes(name, logits, hidden, weight, observed=truth, **options)
    torch.testing.assert_close(found, of_classes(name, logits[4:10], truth[4:10], observed=truth, **options))
    empty = of_classes(name, logits.requires_grad_(), torch.full((12,), -1), observed=truth, **options)
    assert empty == 0
    empty.backward()
    assert (logits.grad == 0).all()


def test_concordance_oracle():
    y, p, one = torch.tensor([-0.5, -0.2, 0, 0.3, 0.6]), torch.tensor([-0.4, -0.1, 0.1, 0.2, 0.4]), torch.ones(5)
    assert float(concord(p, y, one)) == pytest.approx(0.927536, abs=1e-5)
    assert float(concord(y, y, one)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("share", [0.5, 0.0, 1.0])
@pytest.mark.parametrize("on", ["dimensions", "frames"])
def test_concordance_and_squares_over_known_rows(on, share):
    generator = np.random.default_rng(0)
    truth, pred = generator.uniform(-1, 1, (2, 20, 2))
    truth[:5, 0], truth[3:, 1] = np.nan, np.nan
    expected = np.mean(
        [
            (1 - share) * np.nanmean((truth[:, k] - pred[:, k]) ** 2) + share * (1 - metrics.ccc(truth[:, k], pred[:, k]))
            for k in range(2)
        ]
    )
    loss, shape = build("concordance", on, 2, share=share), (20, 2) if on == "dimensions" else (5, 4, 2)
    known = targets(**{on: torch.tensor(truth).reshape(shape)})
    assert float(loss({on: torch.tensor(pred).reshape(shape)}, known)) == pytest.approx(expected, abs=1e-6)


def test_concordance_of_weighted_rows_is_that_of_the_rows_kept():
    generator = torch.Generator().manual_seed(0)
    truth, pred = torch.randn(10, 2, generator=generator), torch.randn(10, 2, generator=generator)
    weight = (torch.arange(10) < 6).float()
    loss = build("concordance", "dimensions", 2)
    torch.testing.assert_close(
        loss({"dimensions": pred}, targets(dimensions=truth, weight=weight)),
        loss({"dimensions": pred[:6]}, targets(dimensions=truth[:6])),
    )


def test_concordance_of_few_rows():
    pred, loss = torch.tensor([[0.5, 0.1]], requires_grad=True), build("concordance", "dimensions", 2)
    assert loss({"dimensions": pred}, targets(dimensions=torch.tensor([[0.0, float("nan")]]))).item() == pytest.approx(0.25)
    nothing = loss({"dimensions": pred}, targets(dimensions=torch.full((1, 2), float("nan"))))
    nothing.backward()
    assert nothing == 0 and (pred.grad == 0).all()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_run_under_vmap(name):
    """Several seeds at once: no branch on values, no waiting for the device."""
    loss = build(name, on := LOSSES.find(name).reads[0], size=4)
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(3, 12, 4, generator=generator)
    known = targets(sample()[1], torch.randn(12, 4, generator=generator), weight=torch.rand(12, generator=generator))
    found = torch.func.vmap(lambda x: loss({on: x}, known))(outputs)
    torch.testing.assert_close(found, torch.stack([loss({on: x}, known) for x in outputs]))
