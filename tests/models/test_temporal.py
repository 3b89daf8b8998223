"""Temporal encoders: padding, neighbours, gradients, causality, reach; heads that are causal, or say how sure they are."""

import math

import pytest
import torch
from torch import nn

from pipeline.errors import ParamsError
from pipeline.models.batch import Inputs, Tokens, name_variance
from pipeline.models.fusion.base import align
from pipeline.models.heads.base import LEAST, MOST
from pipeline.models.mixture import mix_values
from pipeline.models.registry import FUSIONS, HEADS, TEMPORALS
from pipeline.models.spec import ModelSpec, OutputSpec, PartSpec, StreamSpec
from pipeline.parts import read_options
from tests.tiny_language import build_with_language

KINDS = sorted(TEMPORALS)
BOTH = [(kind, causal) for kind in KINDS for causal in (False, True)]
FRAMES = {"frames": OutputSpec(name="frames", size=2), "dimensions": OutputSpec(name="dimensions", size=2)}


def build(kind, causal=False, layers=2, **options):
    torch.manual_seed(0)
    part = TEMPORALS.find(kind)
    return part(8, layers, 2, 0.0, causal, read_options(part.Options, options, "temporal.options")).eval()


def clips(size=5, length=9, *, seed=1):
    """Values and mask; clip i has some tokens, the last has none."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([9, 1, 4, 7, 0])[:size]
    return torch.randn(size, length, 8, generator=generator), torch.arange(length) < lengths[:, None]


def make(kind, causal=True, fusion="concat", **changes):
    torch.manual_seed(0)
    fields = {
        "streams": {"video": StreamSpec(width=6)},
        "width": 16,
        "heads": 2,
        "layers": 2,
        "fusion": PartSpec(name=fusion),
        "outputs": FRAMES,
        "dimensions": ("valence", "arousal"),
        "base": "video",
        "temporal": PartSpec(name=kind),
        "causal": causal,
    }
    return build_with_language(ModelSpec(**{**fields, **changes})).eval()


def film(length=8, width=6, seconds=0.5, seed=0):
    start = torch.arange(length)[None] * seconds
    values = torch.randn(1, length, width, generator=torch.Generator().manual_seed(seed))
    return Tokens(values, torch.ones(1, length).bool(), torch.stack([start, start + seconds], -1))


@pytest.mark.parametrize("position", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_when_an_instant_is_matters_only_where_tokens_are_told(kind, position):
    model, clip = make(kind, position=position), film()
    late = clip._replace(times=clip.times + 3.0)
    first, later = (model(Inputs({"video": one}))["frames"] for one in (clip, late))
    assert (first - later).abs().max() > 1e-4 if position else torch.equal(first, later)


def test_there_are_three():
    assert KINDS == ["gru", "tcn", "transformer"]


@pytest.mark.parametrize(("kind", "causal"), BOTH)
def test_padding_and_neighbours_change_nothing(kind, causal):
    net, (x, mask) = build(kind, causal), clips()
    whole = net(x, mask)
    assert whole.shape == x.shape and torch.isfinite(whole).all()
    junk = torch.cat([x.masked_fill(~mask[..., None], -1e3), torch.full((5, 4, 8), 1e3)], 1)
    padded = net(junk, torch.cat([mask, torch.zeros(5, 4).bool()], 1))[:, :9]
    torch.testing.assert_close(padded[mask], whole[mask], atol=1e-5, rtol=0)
    for i in range(4):
        alone = net(x[i : i + 1, mask[i]], mask[i : i + 1, mask[i]])
        torch.testing.assert_close(alone[0], whole[i, mask[i]], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kind", "causal"), BOTH)
def test_tokens_after_holes_are_told_of_those_before(kind, causal):
    """A mask need not begin at the first token."""
    net, (x, _) = build(kind, causal), clips(1)
    mask = torch.tensor([[False, True, True, False, True, True, True, False, False]])
    found = net(x.masked_fill(~mask[..., None], 1e3), mask)
    torch.testing.assert_close(found[mask], net(x.masked_fill(~mask[..., None], -7.0), mask)[mask], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kind", "causal"), BOTH)
def test_every_parameter_learns(kind, causal):
    net, (x, mask) = build(kind, causal).train(), clips()
    (net(x, mask) * torch.randn(x.shape) * mask[..., None]).sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize(("kind", "causal"), BOTH)
def test_causal_is_that_later_tokens_change_nothing_earlier(kind, causal):
    net, (x, mask) = build(kind, causal), clips(1)
    other = x.clone()
    other[:, 5] = 2 * other[:, 5].flip(-1)
    moved = (net(other, mask) - net(x, mask)).detach().abs().sum(-1)[0]
    assert (moved[5:7] > 1e-4).all()
    assert (moved[:5] == 0).all() if causal else (moved[3:5] > 1e-4).all()


@pytest.mark.parametrize(("layers", "kernel"), [(1, 3), (2, 3), (3, 2)])
def test_a_convolution_reaches_as_far_as_it_says(layers, kernel):
    net, x = build("tcn", True, layers, kernel=kernel), torch.randn(1, 40, 8)
    mask = torch.ones(1, 40).bool()
    other = x.clone()
    other[:, 3] = 2 * other[:, 3].flip(-1)
    moved = ((net(other, mask) - net(x, mask)).abs().sum(-1)[0] > 1e-7).nonzero().flatten()
    assert (int(moved[0]), int(moved[-1])) == (3, 3 + 2 * (kernel - 1) * (2**layers - 1))


def test_no_layer_is_the_tokens_as_they_are():
    x, mask = clips()
    assert all(torch.equal(build(kind, layers=0)(x, mask), x) for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_what_came_before(kind):
    """The sign of the first token, told at the last: nothing but time carries it there."""
    torch.manual_seed(0)
    net, read = build(kind, True, layers=1).train(), nn.Linear(8, 1)
    x, mask = torch.randn(24, 5, 8), torch.ones(24, 5).bool()
    truth = x[:, 0, 0].sign()
    optimiser = torch.optim.Adam([*net.parameters(), *read.parameters()], 1e-2)
    for _ in range(40):
        loss = (read(net(x, mask)[:, -1])[:, 0] - truth).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.3


@pytest.mark.parametrize("fusion", sorted(FUSIONS))
@pytest.mark.parametrize("kind", KINDS)
def test_a_causal_model_tells_nothing_of_an_instant_by_what_comes_later(kind, fusion):
    streams = {"video": StreamSpec(width=6), "audio": StreamSpec(width=5)}
    if fusion in ("cross_attention", "llama"):
        with pytest.raises(ParamsError, match=r"fusion (CrossAttention|Llama) looks at all of a clip"):
            make(kind, fusion=fusion, streams=streams)
        return
    model = make(kind, fusion=fusion, streams=streams)
    sound = film(5, 5, seconds=0.4, seed=1)  # ends at two seconds of four
    inputs = Inputs({"video": film(), "audio": sound})
    whole = model(inputs)["frames"][0]
    for name, at in (("video", 5), ("audio", 3)):
        old = inputs.streams[name]
        values = old.values.clone()
        values[:, at:] = 2 * values[:, at:].flip(-1)
        moved = (model(Inputs(inputs.streams | {name: old._replace(values=values)}))["frames"][0] - whole).detach().abs().sum(-1)
        begins = float(old.times[0, at, 0])
        earlier = inputs.streams["video"].times[0, :, 1] <= begins
        assert (moved[earlier] == 0).all() and (moved[~earlier] > 1e-5).any(), (name, moved)


def test_a_prediction_of_a_causal_model_is_the_same_when_the_film_is_cut_there():
    model, whole = make("gru"), film()
    cut = Tokens(*(one[:, :3] for one in whole))
    torch.testing.assert_close(model(Inputs({"video": cut}))["frames"], model(Inputs({"video": whole}))["frames"][:, :3])


def test_before_its_first_token_a_stream_is_silent_to_a_causal_model():
    late = film(2, 3)._replace(times=torch.tensor([[[2.0, 2.5], [2.5, 3.0]]]))
    assert align(late, film(4, 1), True).abs().sum() == 0 and align(late, film(4, 1)).abs().sum() > 0


def test_a_context_is_refused_over_time_where_the_model_is_causal():
    with pytest.raises(ParamsError, match=r"temporal\.causal: a context reads a whole clip"):
        make("gru", context=PartSpec(name="gru"), turns=(8, 0))
    make("gru", context=PartSpec(name="gru"), turns=(8, 0), base=None, outputs={"dimensions": FRAMES["dimensions"]})


def test_unknown_kinds_and_options_are_one_line():
    with pytest.raises(ParamsError, match=r"Unknown temporal\.kind 'lstm'"):
        make("lstm")
    with pytest.raises(ParamsError, match=r"temporal\.options"):
        make("tcn", temporal=PartSpec(name="tcn", options={"kernal": 3}))


@pytest.mark.parametrize("kind", KINDS)
def test_the_prediction_of_a_frame_moves_with_its_own_time(kind):
    """What a frame shows moves its own prediction most; the same frame at another time is predicted otherwise."""
    model, video = make(kind, False, layers=1), film(12)
    whole = model(Inputs({"video": video}))["frames"][0]
    for place in (1, 6, 10):
        moved = torch.zeros(12)
        for seed in range(6):
            values = video.values.clone()
            values[0, place] = 4 * torch.randn(6, generator=torch.Generator().manual_seed(seed))
            moved += (model(Inputs({"video": video._replace(values=values)}))["frames"][0] - whole).detach().abs().sum(-1)
        assert moved.argmax() == place
    later = model(Inputs({"video": video._replace(times=video.times + 1.7)}))["frames"][0]
    assert not torch.allclose(later, whole, atol=1e-3)


def heads(name, **options):
    torch.manual_seed(0)
    part = HEADS.find(name)
    return part(name, 8, 2, 0.0, read_options(part.Options, options, "heads"))


@pytest.mark.parametrize("name", ["dimensions", "frames"])
def test_values_are_bounded_unless_told_otherwise_and_say_how_sure_they_are(name):
    far = torch.full((3, 5, 16 if name == "frames" else 8), 1.0)
    for bounded in (True, False):
        head = heads(name, bounded=bounded, uncertainty=True)
        with torch.no_grad():
            head.net[-1].weight.mul_(100)
        found = head.regress(far * torch.arange(far.shape[-1]))
        assert (found[name].abs().max() <= 1) == bounded
        deviation = (found[name_variance(name)] / 2).exp()
        assert deviation.shape == found[name].shape
        assert deviation.min() >= LEAST * 0.999 and deviation.max() <= MOST * 1.001
    assert set(heads(name).regress(far)) == {name}


@pytest.mark.parametrize("fusion", ["concat", "late"])
def test_how_sure_a_model_is_goes_through_every_fusion_and_every_parameter_learns(fusion):
    outputs = {name: one.model_copy(update={"options": {"uncertainty": True}}) for name, one in FRAMES.items()}
    streams = {"video": StreamSpec(width=6), "audio": StreamSpec(width=5)}
    model = make("tcn", False, fusion, outputs=outputs, streams=streams).train()
    lost = torch.tensor([[True], [False]])  # the second clip has no sound
    video, sound = (Tokens(*(torch.cat([x, x]) for x in one)) for one in (film(), film(5, 5, seed=2)))
    found = model(Inputs({"video": video, "audio": sound._replace(mask=sound.mask & lost)}))
    sum((found[name_variance(n)] * torch.randn(2)).sum() + (found[n] * torch.randn(2)).sum() for n in FRAMES).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    if fusion == "late":
        each = torch.stack([found[f"dimensions@{n}"][0] for n in streams])
        sure = torch.stack([found[f"dimensions.log_variance@{n}"][0] for n in streams]).exp()
        torch.testing.assert_close(found["dimensions.log_variance"][0].exp(), (sure + each**2).mean(0) - each.mean(0) ** 2)
        torch.testing.assert_close(found["dimensions.log_variance"][1], found["dimensions.log_variance@video"][1])


def test_a_mixture_is_as_wide_as_samples_of_it():
    means, log_variances, weight = torch.tensor([[-0.5], [0.2], [0.9]]), torch.tensor([[-2.0], [-4.0], [-1.0]]), [0.2, 0.5, 0.3]
    generator = torch.Generator().manual_seed(0)
    who = torch.multinomial(torch.tensor(weight), 200_000, True, generator=generator)
    drawn = means[who, 0] + (log_variances[who, 0] / 2).exp() * torch.randn(200_000, generator=generator)
    mean, log_variance = mix_values(means, log_variances, torch.tensor(weight)[:, None])
    assert math.isclose(mean, drawn.mean(), abs_tol=5e-3) and math.isclose(log_variance.exp(), drawn.var(), rel_tol=2e-2)
