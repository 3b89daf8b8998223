"""Learning-rate schedules, optimisers, dropout on the way, the growing adversary."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from pipeline.errors import ParamsError
from pipeline.models.batch import Fused
from pipeline.models.component import advance
from pipeline.models.heads.adversary import Adversary, grow
from pipeline.params import Dropout, Training
from pipeline.training.dropout import DropoutPlan
from pipeline.training.schedules import SCHEDULES, Moment, read_schedule

EPOCHS, STEPS = 20, 5


def trace(name, *, losses=(), training=None, **options):
    """The factor of each step of 20 epochs of 5 steps."""
    group = Training(schedule={"name": name, "options": options}, **{"warmup": 0.1, **(training or {})})
    schedule = read_schedule(group)
    moments = [Moment(e, i, STEPS, EPOCHS, losses[:e]) for e in range(EPOCHS) for i in range(STEPS)]
    return [schedule.factor(now) for now in moments]


def test_cosine_is_what_training_does_unless_told_otherwise():
    assert Training().schedule.name == "cosine"
    factors = trace("cosine")
    assert factors[0] == pytest.approx(0.1) and factors[9] == factors[10] == 1
    assert factors[10:] == sorted(factors[10:], reverse=True) and 0 < factors[-1] < 0.01
    assert trace("cosine", training={"warmup": 0.0})[0] == 1


def test_each_schedule_goes_its_way():
    risen = [(i + 1) / 10 for i in range(10)]
    assert trace("constant") == trace("none") == pytest.approx([*risen, *[1] * 90])
    assert trace("step", every=8, gamma=0.1)[10::5] == pytest.approx([1] * 6 + [0.1] * 8 + [0.01] * 4)
    assert trace("exponential", gamma=0.9)[10::5] == pytest.approx([0.9**epoch for epoch in range(2, 20)])
    cycle = trace("one_cycle")
    assert cycle[0] == pytest.approx(1 / 25) and cycle[10] == max(cycle) == 1 and cycle[-1] < 1e-3
    assert cycle[5] == pytest.approx((1 / 25 + 1) / 2) and cycle[55] == pytest.approx((1 + 4e-6) / 2)
    assert cycle[:11] == sorted(cycle[:11]) and cycle[10:] == sorted(cycle[10:], reverse=True)


def test_plateau_falls_when_the_validation_loss_stands_still():
    losses = [5.0, 4.0, 3.0, 3.0, 3.0, 3.0, 2.0, *[2.0] * 13]
    factors = trace("plateau", losses=losses, patience=3, factor=0.5, least=0.2, training={"warmup": 0.0})[::5]
    # 3 epochs without gain end after the sixth; from the seventh's gain on, every third.
    assert factors == [1] * 6 + [0.5] * 4 + [0.25] * 3 + [0.2] * 7
    assert trace("plateau", losses=[9.0 - epoch for epoch in range(20)], training={"warmup": 0.0}) == [1] * 100


def test_the_curriculums_schedule_begins_high_ends_low_and_rises_again():
    factors = trace("curriculum", training={"curriculum": {"name": "random", "options": {"epochs": 12}}})
    assert factors[0] == pytest.approx(3) and factors[59] == pytest.approx(0.2) and factors[60] == pytest.approx(2)
    assert factors[:60] == sorted(factors[:60], reverse=True) and factors[60:] == sorted(factors[60:], reverse=True)
    assert 0 < factors[-1] < 0.02
    assert trace("curriculum", epochs=12) == factors
    with pytest.raises(ParamsError, match="needs training.curriculum"):
        trace("curriculum")
    with pytest.raises(ParamsError, match="goes by validation"):
        trace("plateau", training={"refit": True, "select": "last"})


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_a_sampler_of_many_batches_does_not_run_ahead(name):
    """The epoch's rate stays that of its end, and is never negative."""
    schedule = read_schedule(Training(schedule={"name": name, "options": {"epochs": 3} if name == "curriculum" else {}}))
    ends = [schedule.factor(Moment(9, i, 4, 10, [1.0] * 9)) for i in (3, 4, 40)]
    assert ends[0] == ends[1] == ends[2] >= 0


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"name": "cosin"}, "Unknown schedule 'cosin'. Did you mean 'cosine'?"),
        (
            {"name": "step", "options": {"evry": 3}},
            "Unknown parameter of training.schedule.options 'evry'. Did you mean 'every'?",
        ),
        ({"name": "step", "options": {"gamma": 1.5}}, "training.schedule.options.gamma"),
        ({"name": "cosine", "options": {"gamma": 0.5}}, "Unknown parameter of training.schedule.options 'gamma'"),
    ],
)
def test_mistakes_in_a_schedule_are_one_line(chosen, said):
    with pytest.raises(ParamsError) as caught:
        read_schedule(Training(schedule=chosen))
    assert said in str(caught.value) and "\n" not in str(caught.value)


class Tower(nn.Module):
    """Every kind of dropout there is."""

    def __init__(self):
        super().__init__()
        self.low = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1), nn.MultiheadAttention(4, 2, dropout=0.2))
        self.low2 = nn.GRU(4, 4, num_layers=2, dropout=0.3)
        self.high = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1)
        self.plain = nn.Linear(4, 4)

    def rates(self):
        high = self.high
        return [self.low[1].p, self.low[2].dropout, self.low2.dropout, high.dropout.p, high.dropout1.p, high.self_attn.dropout]


def test_dropout_changes_below_its_part_and_nowhere_else():
    model = Tower()
    steps = (
        Dropout(part="low", value=0.5, from_epoch=2),
        Dropout(part="low.2", value=0.7, from_epoch=4),
        Dropout(part="high", value=0),
    )
    plan = DropoutPlan(model, steps, 3, strict=True)
    seen = []
    for epoch in (0, 2, 3, 4, 0):
        plan.set(epoch)
        seen.append(model.rates())
    first = [0.1, 0.2, 0.3, 0.1, 0.1, 0.1]
    assert seen == [first, [0.5, 0.5, *first[2:]], [0.5, 0.5, 0.3, 0, 0, 0], [0.5, 0.7, 0.3, 0, 0, 0], first]


def test_a_part_without_dropout_and_a_curriculum_that_is_not_there():
    with pytest.raises(ParamsError, match=r"training\.dropout: there is no dropout in plain\.$"):
        DropoutPlan(Tower(), (Dropout(part="plain", value=0.5, from_epoch=0),), None, strict=True)
    DropoutPlan(Tower(), (Dropout(part="plain", value=0.5, from_epoch=0),), None, strict=False).set(0)
    with pytest.raises(ParamsError, match="waits for the end of a curriculum"):
        DropoutPlan(Tower(), (Dropout(part="low", value=0.5),), None, strict=True)


@pytest.mark.parametrize("done", [0.0, 0.1, 0.5, 1.0])
def test_the_progressive_adversary_has_the_published_strength(done):
    """The gradient below the head is that of a plain head times -λ(p), in the head the same."""
    torch.manual_seed(0)
    head = Adversary("speaker", 6, 3, 0.0, Adversary.Options(strength=0.5, schedule="progressive"))
    vector = torch.randn(4, 6, requires_grad=True)
    fused = Fused(vector, None, vector[:, None], torch.ones(4, 1).bool(), None)
    plain = torch.autograd.grad(head.net(vector).square().sum(), [vector, *head.net.parameters()])
    advance(nn.ModuleList([head]), done)
    found = torch.autograd.grad(head(fused)["speaker"].square().sum(), [vector, *head.net.parameters()])
    strength = 0.5 * (2 / (1 + torch.exp(torch.tensor(-10.0 * done))) - 1)
    torch.testing.assert_close(found[0], -strength * plain[0])
    torch.testing.assert_close(found[1:], plain[1:])


def test_a_constant_adversary_stays():
    head = Adversary("speaker", 6, 3, 0.0, Adversary.Options(strength=0.5))
    head.advance(0.0)
    assert head.strength == 0.5 and grow(0) == 0 and grow(1) == pytest.approx(0.9999, abs=1e-4)


COMPILER = """
import sys, torch
from pipeline.training.optimiser import without_compiler

KINDS = ((torch.optim.AdamW, {}), (torch.optim.Adam, {}), (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}))

def learn(kind, options):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 2))
    optimiser = kind([{"params": model.parameters(), "peak": 1e-3}], lr=1e-2, weight_decay=0.01, fused=True, **options)
    for _ in range(4):
        optimiser.zero_grad()
        model(torch.randn(4, 5)).square().sum().backward()
        optimiser.step()
        optimiser.load_state_dict(optimiser.state_dict())
    return torch.cat([one.detach().flatten() for one in model.parameters()])

bare = [learn(without_compiler(kind), options) for kind, options in KINDS]
assert "torch._dynamo" not in sys.modules
assert all(torch.equal(found, learn(*one)) for found, one in zip(bare, KINDS))
assert "torch._dynamo" in sys.modules
"""


def test_optimisers_import_no_compiler_and_step_to_the_same_bits():
    done = subprocess.run([sys.executable, "-c", COMPILER], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
