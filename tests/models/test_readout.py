"""One vector of a stream's tokens: mean, statistics, attentive statistics."""

import pytest
import torch

from pipeline.errors import ParamsError
from pipeline.models.attention import read_attention
from pipeline.models.batch import Inputs, Tokens
from pipeline.models.fusion.base import Fusion
from pipeline.models.readout import Readout
from pipeline.models.registry import FUSIONS
from pipeline.models.spec import ModelSpec, OutputSpec, PartSpec, StreamSpec
from tests.tiny_language import build_with_language, find_dead

STREAMS = {"audio": StreamSpec(width=6), "text": StreamSpec(width=5)}


def tokens(width, lengths, longest=None, seed=0):
    size, longest = len(lengths), longest or max(lengths)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    values = torch.randn(size, max(lengths), width, generator=torch.Generator().manual_seed(seed))
    values = torch.nn.functional.pad(values, (0, 0, 0, longest - max(lengths)), value=1e3)  # junk where no token is
    starts = torch.arange(longest).float().expand(size, longest)
    return Tokens(values, mask, torch.stack([starts, starts + 1], -1))


def build(readout, fusion="concat", **changes):
    torch.manual_seed(0)
    fields = {"streams": STREAMS, "width": 16, "heads": 2, "dropout": 0.0, "readout": readout, "fusion": PartSpec(name=fusion)}
    outputs = {"emotion": OutputSpec(name="emotion", size=3)}
    return build_with_language(ModelSpec(**{**fields, "outputs": outputs, "classes": ("a", "b", "c"), **changes}))


def test_statistics_are_mean_and_deviation():
    one = tokens(4, [5, 2, 1, 0])
    found = Readout(4, attentive=False).summarise(one)
    for i, length in enumerate((5, 2, 1)):
        rows = one.values[i, :length]
        torch.testing.assert_close(found[i], torch.cat([rows.mean(0), rows.std(0, unbiased=False)]))
    assert (found[2, 4:] == 0).all() and (found[3] == 0).all()


def test_attentive_statistics_weigh_tokens_by_what_they_hold():
    """As published: α = softmax(vᵀ tanh(W h + b)), μ = Σ α h, σ = sqrt(Σ α h² - μ²)."""
    torch.manual_seed(0)
    one, readout = tokens(4, [5, 2, 1, 0]), Readout(4, attentive=True)
    first, _, second = readout.score
    found, weights = readout.summarise(one), readout.weigh(one)
    for i, length in enumerate((5, 2, 1)):
        rows = one.values[i, :length]
        alpha = ((rows @ first.weight.T + first.bias).tanh() @ second.weight[0]).softmax(0)[:, None]
        mean = (alpha * rows).sum(0)
        deviation = ((alpha * rows.square()).sum(0) - mean.square()).clamp(min=0).sqrt()
        torch.testing.assert_close(found[i], torch.cat([mean, deviation]), atol=1e-3 if length == 1 else 1e-5, rtol=0)
        torch.testing.assert_close(weights[i, :length], alpha[:, 0])
    assert (weights.sum(1) == torch.tensor([1.0, 1.0, 1.0, 0.0])).all() or torch.allclose(weights.sum(1)[:3], torch.ones(3))
    assert (found[2, 4:] == 0).all() and (found[3] == 0).all() and (weights[~one.mask] == 0).all()


@pytest.mark.parametrize("attentive", [False, True])
def test_one_token_has_no_deviation_and_a_slope_that_is_a_number(attentive):
    torch.manual_seed(0)
    one, readout = tokens(4, [1, 1, 0]), Readout(4, attentive)
    same = Tokens(torch.ones(2, 3, 4), torch.ones(2, 3).bool(), torch.zeros(2, 3, 2))  # many, all alike
    for given in (one, same):
        values = given.values.clone().requires_grad_()
        found = readout(given._replace(values=values))
        found.square().sum().backward()
        assert torch.isfinite(values.grad).all() and values.grad.abs().sum() > 0
        assert (readout.summarise(given)[:, 4:] == 0).all()
        assert all(torch.isfinite(p.grad).all() for p in readout.parameters())
    assert (readout(one)[2] == 0).all()


@pytest.mark.parametrize("readout", ["statistics", "attentive"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_models_with_readouts_are_as_invariant_as_those_without(fusion, readout):
    """Alone as in a batch, padding read by nobody, an absent stream no number, a gradient in every parameter."""
    model = build(readout, fusion)
    lengths = {"audio": [5, 0, 3, 0, 1], "text": [2, 4, 0, 0, 1]}
    inputs = Inputs({name: tokens(STREAMS[name].width, lengths[name]) for name in STREAMS})
    whole = model.train()(inputs)["emotion"]
    (whole * torch.randn(whole.shape)).sum().backward()
    assert find_dead(model) == []
    assert torch.isfinite(whole).all() and all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
    model.eval()
    padded = Inputs({name: tokens(STREAMS[name].width, lengths[name], 9) for name in STREAMS})
    torch.testing.assert_close(model(padded)["emotion"], model(inputs)["emotion"], atol=1e-5, rtol=0)
    for i in range(5):
        lone = Inputs({name: Tokens(*(part[i : i + 1] for part in one)) for name, one in inputs.streams.items()})
        torch.testing.assert_close(model(lone)["emotion"][0], model(inputs)["emotion"][i], atol=1e-5, rtol=0)


def test_the_mean_has_nothing_to_learn():
    names = [name for name, _ in build("mean").named_parameters()]
    assert not any("readout" in name for name in names)
    assert len(names) < len(list(build("statistics").named_parameters())) < len(list(build("attentive").named_parameters()))


def test_a_fusion_that_pools_nothing_takes_no_readout():
    class Whole(Fusion):
        def forward(self, streams, base=None, text=None):
            raise NotImplementedError

    whole = Whole({"audio": 4}, 4, 1, 0.0, Fusion.Options())
    whole.choose_readout("mean")
    with pytest.raises(ParamsError, match="temporal.readout is 'attentive', and fusion Whole does not pool tokens"):
        whole.choose_readout("attentive")


def test_attention_is_read_on_request_and_leaves_nothing_behind():
    """Every attention of the model by its place: rows sum to one where there is something to look at, and it is the one used."""
    model = build("mean", "cross_attention", streams=STREAMS | {"video": StreamSpec(width=3)}, context=PartSpec(name="attention"))
    model.eval().requires_grad_(False)
    lengths = {"audio": [5, 0, 3], "text": [2, 4, 0], "video": [1, 1, 0]}
    inputs = Inputs({name: tokens(model.spec.streams[name].width, lengths[name]) for name in lengths})
    before = model(inputs)["emotion"]
    found = read_attention(model, inputs)
    assert torch.equal(model(inputs)["emotion"], before)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert {name: tuple(one.shape) for name, one in found.items()} == {
        "encoders.audio.blocks.0.attention": (3, 2, 5, 5),
        "encoders.text.blocks.0.attention": (3, 2, 4, 4),
        "encoders.video.blocks.0.attention": (3, 2, 1, 1),
        "fusion.layers.0.audio.attention": (3, 2, 5, 5),
        "fusion.layers.0.text.attention": (3, 2, 4, 6),
        "fusion.layers.0.video.attention": (3, 2, 1, 9),
        "context.attention": (3, 2, 1, 1),
    }
    text = found["fusion.layers.0.text.attention"]
    assert (text[1, :, :, :5] == 0).all()  # the second clip has no sound: it looks at the picture alone
    torch.testing.assert_close(text[1, :, :, 5], torch.ones(2, 4))
    torch.testing.assert_close(text[:2].sum(-1), torch.ones(2, 2, 4))
    states = model.fusion.layers[0]["text"].attention
    noted = []
    handle = states.register_forward_hook(lambda module, given, out: noted.append((given, out)))
    model(inputs)
    handle.remove()
    (_, others, _), out = noted[0]
    values = states.value(others).unflatten(-1, (2, -1)).transpose(1, 2)
    seen = states.out((text @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(seen[:2], out[:2], atol=1e-5, rtol=0)
