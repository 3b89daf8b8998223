"""Losses against their definitions."""

import numpy as np
import pytest
import torch

from pipeline import metrics
from pipeline.models import losses
from pipeline.params import Loss


def sample(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(12, 4, generator=generator), torch.randint(0, 4, (12,), generator=generator)


def test_focal_without_focus_is_cross_entropy():
    logits, target = sample()
    torch.testing.assert_close(losses.focal(logits, target, 0.0), losses.cross_entropy(logits, target))


def test_focal_definition():
    logits, target = sample()
    alpha = torch.tensor([0.5, 1.0, 2.0, 3.0])
    p = logits.softmax(1)[torch.arange(12), target]
    expected = (alpha[target] * (1 - p) ** 2 * -p.log()).mean()
    torch.testing.assert_close(losses.focal(logits, target, 2.0, alpha), expected)


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_a_step_raises_the_true_class(name):
    """The sign error of a source system: training pushed the true class down."""
    logits, target = sample()
    logits.requires_grad_()
    losses.emotion(logits, target, Loss(emotion=name), None).backward()
    assert (logits.grad[torch.arange(12), target] < 0).all()


def test_unknown_rows_take_no_part():
    logits, target = sample()
    hidden = torch.where(torch.arange(12) < 4, -1, target)
    for loss in (losses.cross_entropy, losses.focal):
        torch.testing.assert_close(loss(logits, hidden), loss(logits[4:], target[4:]))
        empty = loss(logits.requires_grad_(), torch.full((12,), -1))
        assert empty == 0
        empty.backward()


def test_concordance_oracle():
    y, p = torch.tensor([-0.5, -0.2, 0, 0.3, 0.6]), torch.tensor([-0.4, -0.1, 0.1, 0.2, 0.4])
    assert float(losses.concordance(p, y)) == pytest.approx(0.927536, abs=1e-5)
    assert float(losses.concordance(y, y)) == pytest.approx(1, abs=1e-5)


def test_dimensional_is_half_and_half_over_known_rows():
    generator = np.random.default_rng(0)
    truth, pred = generator.uniform(-1, 1, (2, 20, 2))
    truth[:5, 0], truth[3:, 1] = np.nan, np.nan
    expected = np.mean(
        [0.5 * np.nanmean((truth[:, k] - pred[:, k]) ** 2) + 0.5 * (1 - metrics.ccc(truth[:, k], pred[:, k])) for k in range(2)]
    )
    assert float(losses.dimensional(torch.tensor(pred), torch.tensor(truth))) == pytest.approx(expected, abs=1e-6)


def test_dimensional_of_few_rows():
    pred = torch.tensor([[0.5, 0.1]], requires_grad=True)
    assert losses.dimensional(pred, torch.tensor([[0.0, float("nan")]])).item() == pytest.approx(0.25)
    nothing = losses.dimensional(pred, torch.full((1, 2), float("nan")))
    nothing.backward()
    assert nothing == 0 and (pred.grad == 0).all()


def test_class_weights():
    weights = losses.class_weights(torch.tensor([0, 0, 0, 1, -1]), 3)
    assert weights.tolist() == pytest.approx([4 / 6, 2.0, 1.0])
