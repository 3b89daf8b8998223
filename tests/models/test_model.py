"""The whole model, every fusion: invariances, gradients, missing streams."""

import itertools

import pytest
import torch
from torch import nn

from pipeline.errors import ParamsError
from pipeline.models import fusion
from pipeline.models.batch import Tokens
from pipeline.models.model import EmotionModel, ModelSpec, StreamSpec
from pipeline.models.stream import attend

NAMES = sorted(fusion.FUSIONS)
STREAMS = {"audio": StreamSpec(width=6, levels=3), "text": StreamSpec(width=5), "video": StreamSpec(width=8)}


def make(name, **changes):
    torch.manual_seed(0)
    fields = {
        "streams": STREAMS,
        "width": 16,
        "heads": 2,
        "layers": 1,
        "fusion": name,
        "dropout": 0.1,
        "classes": ("a", "b", "c"),
        "dimensions": ("valence", "arousal"),
        "base": "video",
    }
    return EmotionModel(ModelSpec(**{**fields, **changes}))


def batch(size=8, length=5, *, holes=True, seed=1):
    """Tokens of random length; with holes, clip i lacks the streams of the bits of i (clip 7 lacks all)."""
    generator = torch.Generator().manual_seed(seed)
    result = {}
    for bit, (name, spec) in enumerate(STREAMS.items()):
        shape = (spec.levels, spec.width) if spec.levels else (spec.width,)
        lengths = torch.randint(1, length + 1, (size,), generator=generator)
        if holes:
            lengths = lengths * torch.tensor([not i >> bit & 1 for i in range(size)])
        mask = torch.arange(length) < lengths[:, None]
        values = torch.randn(size, length, *shape, generator=generator)
        starts = torch.arange(length).float().expand(size, length)
        result[name] = Tokens(
            values * mask.reshape(size, length, *[1] * len(shape)), mask, torch.stack([starts, starts + 1], -1) * 0.5
        )
    return result


def pick(tokens, rows):
    return {name: Tokens(*(x[rows] for x in t)) for name, t in tokens.items()}


@pytest.mark.parametrize("name", NAMES)
def test_shapes_bounds_and_finite_whatever_is_missing(name):
    output = make(name).eval()(batch())
    assert output.logits.shape == (8, 3) and output.dimensions.shape == (8, 2) and output.frames.shape == (8, 5, 2)
    assert all(torch.isfinite(x).all() for x in output)
    assert output.dimensions.abs().max() <= 1 and output.frames.abs().max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_no_sample_depends_on_its_neighbours(name):
    model, tokens = make(name).eval(), batch()
    whole = model(tokens)
    for order in ([7, 6, 5, 4, 3, 2, 1, 0], [3, 0, 7, 1]):
        torch.testing.assert_close(model(pick(tokens, order)).logits, whole.logits[order], atol=1e-5, rtol=0)
    for i in range(8):
        alone = model(pick(tokens, [i]))
        torch.testing.assert_close(alone.logits[0], whole.logits[i], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.frames[0], whole.frames[i], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing(name):
    model, tokens = make(name).eval(), batch()
    padded = {}
    for key, t in tokens.items():
        junk = torch.full((8, 4, *t.values.shape[2:]), 1e3)
        padded[key] = Tokens(
            torch.cat([t.values, junk], 1),
            torch.cat([t.mask, torch.zeros(8, 4).bool()], 1),
            torch.cat([t.times, torch.full((8, 4, 2), 77.0)], 1),
        )
    torch.testing.assert_close(model(padded).logits, model(tokens).logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(model(padded).dimensions, model(tokens).dimensions, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name):
    model = make(name, dropout=0.0).train()
    output = model(batch())
    weight = torch.randn(output.logits.shape)
    ((output.logits * weight).sum() + output.dimensions.square().sum() + output.frames.square().sum()).backward()
    dead = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


@pytest.mark.parametrize("name", NAMES)
def test_values_of_a_missing_stream_are_not_read(name):
    model, tokens = make(name).eval(), batch()
    hidden = tokens | {"audio": tokens["audio"]._replace(mask=tokens["audio"].mask & False)}
    other = hidden | {"audio": hidden["audio"]._replace(values=torch.full_like(hidden["audio"].values, 9.0))}
    torch.testing.assert_close(model(hidden).logits, model(other).logits)
    assert not torch.allclose(model(hidden).logits[:1], model(tokens).logits[:1])


@pytest.mark.parametrize("name", NAMES)
def test_every_present_stream_matters(name):
    model, tokens = make(name).eval(), batch(holes=False)
    for stream in STREAMS:
        changed = tokens | {stream: tokens[stream]._replace(values=tokens[stream].values.flip(-1) * 2)}
        assert not torch.allclose(model(changed).logits, model(tokens).logits, atol=1e-4), stream


@pytest.mark.parametrize("name", NAMES)
def test_one_stream_alone(name):
    model = make(name, streams={"text": STREAMS["text"]}, base="text").train()
    output = model({"text": batch()["text"]})
    (output.logits.square().sum() + output.frames.sum() + output.dimensions.sum()).backward()
    assert torch.isfinite(output.logits).all()


@pytest.mark.parametrize("name", NAMES)
def test_overfits_a_tiny_batch(name):
    model, tokens = make(name, dropout=0.0, base=None), batch(holes=False)
    target = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    model.train()
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(tokens).logits, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (model.eval()(tokens).logits.argmax(1) == target).all()


def test_fusion_takes_the_shapes_of_the_reference():
    """Four clips, audio and text of width 512 to (4, 512), single vectors being tokens with T = 1."""
    tokens = {n: torch.randn(4, 1, 512) for n in ("audio", "text")}
    masks = {n: torch.ones(4, 1).bool() for n in tokens}
    for name in NAMES:
        assert fusion.build(name, ("audio", "text"), 512, 8, 0.1, {})(tokens, masks).shape == (4, 512)


def test_cross_attention_sees_single_tokens():
    """With several keys the query decides: attention that pooled first could not tell queries apart."""
    torch.manual_seed(0)
    cross = fusion.CrossLayer(16, 2, 0.0).eval()
    context, mask = torch.randn(1, 6, 16), torch.ones(1, 6).bool()
    first, second = (cross.attention(torch.randn(1, 1, 16) * 3, context, mask) for _ in range(2))
    assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize("per_dimension", [True, False])
def test_gates_sum_to_one_over_what_is_present(per_dimension):
    gated = fusion.build("gated", tuple(STREAMS), 16, 2, 0.0, {"per_dimension": per_dimension})
    present = torch.tensor(list(itertools.product([True, False], repeat=3)))
    weights = gated.weights(torch.randn(8, 3, 16), present)
    assert (weights[~present] == 0).all()
    torch.testing.assert_close(weights.sum(1)[:7], torch.ones(7, 16 if per_dimension else 1))
    assert (weights[7] == 0).all()


def test_adaptive_one_stream_present_is_its_own_encoding():
    adaptive = fusion.build("adaptive", ("audio", "text"), 16, 2, 0.0, {}).eval()
    tokens = {n: torch.randn(2, 3, 16) for n in ("audio", "text")}
    masks = {"audio": torch.ones(2, 3).bool(), "text": torch.zeros(2, 3).bool()}
    torch.testing.assert_close(adaptive(tokens, masks), adaptive.encode[0](tokens["audio"].mean(1)))


def test_modality_dropout_is_per_sample_and_keeps_one():
    torch.manual_seed(0)
    present = torch.tensor([[True, True, True], [True, False, False], [False, False, False]]).repeat(500, 1)
    kept = fusion.keep_one(present, 0.5)
    assert not (kept & ~present).any()
    assert torch.equal(kept.any(1), present.any(1))
    share = kept[::3].float().mean()
    assert 0.5 < share < 0.65  # half, and those spared
    assert len({tuple(row.tolist()) for row in kept[::3]}) == 7
    torch.testing.assert_close(fusion.keep_one(present, 0.0), present)


def test_attention_over_nothing_is_zero():
    x = torch.randn(2, 3, 8, requires_grad=True)
    out = attend(x, x, x, torch.tensor([[True] * 3, [False] * 3]), 2)
    assert (out[1] == 0).all() and (out[0] != 0).any()
    out.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_position_is_in_seconds():
    """The same instants give the same code, however many tokens there are."""
    encoder = make("concat").encoders["text"]
    coarse = torch.tensor([[[0.0, 2.0], [2.0, 4.0]]])
    fine = torch.tensor([[[0.5, 1.5], [1.5, 2.5], [2.5, 3.5]]])
    torch.testing.assert_close(encoder.position(coarse)[0, 0], encoder.position(fine)[0, 0])
    assert not torch.allclose(encoder.position(fine)[0, 1], encoder.position(fine)[0, 0])


def test_unknown_fusion_and_option():
    with pytest.raises(ParamsError, match="Unknown fusion 'gatd'. Did you mean 'gated'?"):
        make("gatd")
    with pytest.raises(ParamsError, match="fusion.options 'hidden'"):
        make("concat", options={"hidden": 3})
    with pytest.raises(ParamsError, match="modality_dropout is 1"):
        make("adaptive", options={"modality_dropout": 1})
    with pytest.raises(ParamsError, match="layers is 0"):
        make("cross_attention", options={"layers": 0})
