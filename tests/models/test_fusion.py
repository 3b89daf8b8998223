"""Fusions by themselves: their formulas, gates, dropout, alignment in time."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from pipeline.errors import ParamsError
from pipeline.models.batch import Inputs, Tokens
from pipeline.models.blocks import Attention, CrossBlock, attend, weigh
from pipeline.models.fusion.base import align, keep_one, mean_tokens
from pipeline.models.fusion.multihead import divide_width, find_divisor
from pipeline.models.registry import FUSIONS
from pipeline.models.spec import ModelSpec, OutputSpec, PartSpec, StreamSpec
from tests import tiny_language
from tests.tiny_language import build_with_language


def build(name, streams, width, heads=2, dropout=0.0, **options):
    part = FUSIONS.find(name)
    sizes = streams if isinstance(streams, dict) else dict.fromkeys(streams, width)
    held = {}
    if part.holds_language:
        language = tiny_language.describe(width)
        held = {"language": language, "state": tiny_language.weights_of(language)}
    return part(sizes, width, heads, dropout, part.Options(**options), **held)


def tokens(values, mask=None):
    size, length = values.shape[:2]
    starts = torch.arange(length).float().expand(size, length)
    return Tokens(values, torch.ones(size, length).bool() if mask is None else mask, torch.stack([starts, starts + 1], -1))


@pytest.mark.parametrize("name", FUSIONS)
def test_fusion_takes_the_shapes_of_the_reference(name):
    """Single vectors are tokens with T = 1: (4, 768) of sound and (4, 768) of text to (4, 512), and the model to (4, 4)."""
    streams = {n: StreamSpec(width=768) for n in ("audio", "text")}
    outputs = {"emotion": OutputSpec(name="emotion", size=4)}
    part = PartSpec(name=name)
    spec = ModelSpec(streams=streams, width=512, layers=0, heads=8, fusion=part, outputs=outputs, classes=tuple("nhsa"))
    output = build_with_language(spec)(Inputs({n: tokens(torch.randn(4, 1, 768)) for n in streams}))
    assert output["embedding"].shape == (4, 512) and output["emotion"].shape == (4, 4)


def perceive(linear, norm, x):
    """Linear → LayerNorm → ReLU by hand."""
    return F.layer_norm(x @ linear.weight.T + linear.bias, x.shape[:-1] and norm.normalized_shape, norm.weight, norm.bias).relu()


def pair(width=16, size=3):
    return torch.randn(size, 2, width), torch.ones(size, 2).bool()


def test_concatenation_is_two_layers_the_first_twice_as_wide():
    concat, (vectors, present) = build("concat", "at", 16).eval(), pair()
    first, second = concat.perceptron
    assert (first[0].in_features, first[0].out_features, second[0].out_features) == (32, 32, 16)
    wanted = perceive(second[0], second[1], perceive(first[0], first[1], vectors.flatten(1)))
    torch.testing.assert_close(concat.mix(vectors, present)[0], wanted)


@pytest.mark.parametrize("per_dimension", [False, True])
def test_gates_are_on_what_is_projected(per_dimension):
    """g = softmax(W2 relu(W1 [a'; t'])), y = LN(Σ g v')."""
    gated, (vectors, present) = build("gated", "at", 16, per_dimension=per_dimension).eval(), pair()
    projected = torch.stack([net(vectors[:, i]) for i, net in enumerate(gated.projections)], 1)
    first, _, second = gated.gate
    hidden = (projected.flatten(1) @ first.weight.T + first.bias).relu()
    gates = (hidden @ second.weight.T + second.bias).view(3, 2, -1).softmax(1)
    fused, shares = gated.mix(vectors, present)
    torch.testing.assert_close(fused, F.layer_norm((gates * projected).sum(1), (16,)))
    torch.testing.assert_close(shares, gates.mean(-1))


def test_adaptive_with_all_present_is_a_layer_on_the_encodings():
    adaptive, (vectors, present) = build("adaptive", "at", 16).eval(), pair()
    each = [perceive(net[0], net[1], vectors[:, i]) for i, net in enumerate(adaptive.encode)]
    wanted = perceive(adaptive.several[0], adaptive.several[1], torch.cat(each, 1))
    torch.testing.assert_close(adaptive.mix(vectors, present)[0], wanted)


@pytest.mark.parametrize("project", [True, False])
def test_early_is_one_layer_on_the_concatenation(project):
    early = build("early", "atv", 16, project=project).eval()
    vectors, present = (
        torch.randn(4, 3, 16),
        torch.tensor([[True, True, True], [True, False, True], [False, True, False], [False] * 3]),
    )
    known = vectors * present[..., None]
    summed = F.linear(known.flatten(1), early.joint.weight, early.joint.bias) if project else known.sum(1)
    torch.testing.assert_close(early.mix(vectors, present)[0], F.gelu(F.layer_norm(summed, (16,))))


def test_tensor_fusion_multiplies_every_dimension_with_every_other():
    tensor = build("tensor", "atv", 16, size=3)
    vectors = torch.randn(5, 3, 3)
    ones = torch.cat([vectors, torch.ones(5, 3, 1)], -1)
    wanted = torch.einsum("bi,bj,bk->bijk", *ones.unbind(1)).flatten(1)
    torch.testing.assert_close(tensor.multiply(vectors), wanted)
    assert wanted.shape == (5, 64) and (wanted[:, -1] == 1).all()
    # Without the second stream the product of the others stands where its one is multiplied, and all else is zero.
    vectors[:, 1] = 0
    found = tensor.multiply(vectors).view(5, 4, 4, 4)
    torch.testing.assert_close(found[:, :, 3], torch.einsum("bi,bk->bik", ones[:, 0], ones[:, 2]))
    assert (found[:, :, :3] == 0).all()


def test_low_rank_is_tensor_fusion_with_weights_in_factors():
    """Σ over all products of dimensions times Σ_r c_r ⊗ factors, made in full."""
    low = build("low_rank", "atv", 4, rank=2).eval()
    with torch.no_grad():
        low.bias.normal_(), low.weight.normal_()
        [factor.bias.normal_() for factor in low.factors]
    vectors = torch.randn(5, 3, 4)
    ones = torch.cat([vectors, torch.ones(5, 3, 1)], -1)
    factors = [torch.cat([f.weight, f.bias[:, None]], 1).view(2, 4, 5) for f in low.factors]  # (rank, W, H + 1)
    whole = torch.einsum("r,rwi,rwj,rwk->wijk", low.weight, *factors)
    wanted = torch.einsum("bi,bj,bk,wijk->bw", *ones.unbind(1), whole) + low.bias
    torch.testing.assert_close(low.multiply(vectors), wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("width", "sizes", "wanted"),
    [
        (512, (768, 2048, 1536), [90, 242, 180]),
        (1024, (768, 2048, 1536), [180, 483, 361]),
        (16, (5, 5), [8, 8]),
        (7, (1, 9000, 1), [1, 5, 1]),
        (10, (40, 40, 40, *[9] * 7), [1] * 10),
        (3, (1, 1, 1), [1, 1, 1]),
    ],
)
def test_widths_are_in_proportion_and_the_widest_gets_the_rest(width, sizes, wanted):
    assert divide_width(width, sizes) == wanted and sum(wanted) == width


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=8), st.integers(8, 600))
def test_widths_fill_the_vector_and_nobody_goes_empty(sizes, width):
    widths = divide_width(width, sizes)
    assert sum(widths) == width and min(widths) >= 1


def test_heads_are_a_divisor_of_the_width():
    assert [find_divisor(512, degree) for degree in (1, 2, 3, 10)] == [1, 2, 4, 512]
    assert build("multihead", "at", 512, 8, degree=3).attention.heads == 4
    assert build("multihead", "at", 512, 8).attention.heads == 8


def test_streams_look_at_each_other_and_no_clip_at_another():
    """y = LN(x + mean of what the streams present see), their tokens being their slices of x, with attention by hand."""
    streams = {"audio": 1536, "text": 768, "video": 2048}
    multihead = build("multihead", streams, 16, degree=3).eval()
    assert multihead.widths == [5, 2, 9] and multihead.attention.heads == 4
    vectors, present = torch.randn(2, 3, 16), torch.tensor([[True, True, True], [True, False, True]])
    fused, shares = multihead.mix(vectors, present)
    net = multihead.attention
    for clip in range(2):
        here = present[clip].nonzero()[:, 0].tolist()
        x, rows, end = multihead.absent.detach().clone(), torch.zeros(3, 16), 0
        for i, (size, project) in enumerate(zip(multihead.widths, multihead.projections, strict=True)):
            if i in here:
                x[end : end + size] = rows[i, end : end + size] = project(vectors[clip, i])
            end += size
        q, k, v = (part(rows[here]).view(len(here), 4, 4).transpose(0, 1) for part in (net.query, net.key, net.value))
        weights = (q @ k.transpose(1, 2) / 2).softmax(-1)  # (heads, M, M)
        seen = net.out((weights @ v).transpose(0, 1).flatten(1))
        torch.testing.assert_close(fused[clip], F.layer_norm(x + seen.mean(0), (16,)))
        torch.testing.assert_close(shares[clip, here], weights.mean((0, 1)))
    assert shares[1, 1] == 0
    torch.testing.assert_close(shares.sum(1), torch.ones(2))


def test_attention_over_one_token_cannot_ask():
    """The single-vector form of the reference: a softmax over one key is 1, so the query moves nothing but itself."""
    block = build("cross_attention", "at", 16, factor=4).eval().layers[0]["a"]
    assert block.perceptron[0].out_features == 64
    other, mask = torch.randn(1, 1, 16), torch.ones(1, 1).bool()
    net = block.attention
    for query in torch.randn(3, 1, 1, 16):
        torch.testing.assert_close(net(query, other, mask), net.out(net.value(other)))


@pytest.mark.parametrize(
    ("name", "streams", "width", "options", "said"),
    [
        (
            "tensor",
            "abcdef",
            16,
            {},
            "6 streams of size 8 has 531441 numbers, more than 65536; set fusion.options.size to 5 or less",
        ),
        ("tensor", "abcdefghijklmnopq", 16, {"size": 1}, "131072 numbers, more than 65536; take fusion=low_rank"),
        ("multihead", "abcdefghi", 8, {}, "fusion multihead: 9 streams do not fit into temporal.width 8"),
        ("multihead", "at", 16, {"degree": 6}, "fusion.options.degree: 16 has 5 divisors"),
    ],
)
def test_what_cannot_be_built_is_one_line(name, streams, width, options, said):
    with pytest.raises(ParamsError) as caught:
        build(name, streams, width, **options)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FUSIONS)
def test_l2_leaves_nothing_of_a_streams_length(name):
    torch.manual_seed(0)
    streams = {n: tokens(torch.randn(3, 4, 16)) for n in ("audio", "text")}
    louder = streams | {"audio": streams["audio"]._replace(values=streams["audio"].values * 7)}
    for l2 in (True, False):
        fusion = build(name, ("audio", "text"), 16, l2=l2).eval()
        fusion.relate = lambda given: given  # cross attention makes other tokens of louder ones
        same = torch.allclose(fusion(streams).vector, fusion(louder).vector, atol=1e-5)
        assert same is l2


@pytest.mark.parametrize("name", FUSIONS)
def test_the_tokens_of_a_stream_are_a_set(name):
    """In any order, with their times: the same vector, the same instants."""
    torch.manual_seed(0)
    fusion = build(name, ("audio", "video"), 16).eval()
    streams = {n: tokens(torch.randn(2, 5, 16)) for n in ("audio", "video")}
    order = torch.tensor([3, 0, 4, 1, 2])
    mixed = streams | {"audio": Tokens(*(part[:, order] for part in streams["audio"]))}
    whole, found = fusion(streams, "video"), fusion(mixed, "video")
    torch.testing.assert_close(found.vector, whole.vector, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.tokens.values, whole.tokens.values, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", FUSIONS)
def test_shares_are_of_the_streams_present(name):
    torch.manual_seed(0)
    fusion = build(name, ("audio", "text", "video"), 16).eval()
    streams = {n: tokens(torch.randn(8, 2, 16)) for n in fusion.streams}
    for bit, (n, one) in enumerate(streams.items()):
        here = torch.tensor([not i >> bit & 1 for i in range(8)])
        streams[n] = one._replace(mask=one.mask & here[:, None], values=one.values * here[:, None, None])
    fused = fusion(streams)
    assert (fused.shares is not None) is (name in ("gated", "late", "multihead"))
    if fused.shares is not None:
        assert (fused.shares[~fused.present] == 0).all() and (fused.shares >= 0).all()
        torch.testing.assert_close(fused.shares.sum(1), fused.present.any(1).float())
        lone = fused.present.sum(1) == 1
        torch.testing.assert_close(fused.shares[lone], fused.present[lone].float())


def test_cross_attention_sees_single_tokens():
    """With several keys the query decides: attention that pooled first could not tell queries apart."""
    torch.manual_seed(0)
    cross = CrossBlock(16, 2, 0.0).eval()
    context, mask = torch.randn(1, 6, 16), torch.ones(1, 6).bool()
    first, second = (cross.attention(torch.randn(1, 1, 16) * 3, context, mask) for _ in range(2))
    assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize("per_dimension", [True, False])
def test_gates_sum_to_one_over_what_is_present(per_dimension):
    gated = build("gated", ("audio", "text", "video"), 16, per_dimension=per_dimension)
    present = torch.tensor(list(itertools.product([True, False], repeat=3)))
    weights = gated.weigh(torch.randn(8, 3, 16), present)
    assert (weights[~present] == 0).all()
    torch.testing.assert_close(weights.sum(1)[:7], torch.ones(7, 16 if per_dimension else 1))
    assert (weights[7] == 0).all()
    _, shares = gated.mix(torch.randn(8, 3, 16), present)
    torch.testing.assert_close(shares.sum(1)[:7], torch.ones(7))


def test_adaptive_one_stream_present_is_its_own_encoding():
    adaptive = build("adaptive", ("audio", "text"), 16).eval()
    streams = {n: tokens(torch.randn(2, 3, 16)) for n in ("audio", "text")}
    streams["text"] = streams["text"]._replace(mask=torch.zeros(2, 3).bool())
    torch.testing.assert_close(adaptive(streams).vector, adaptive.encode[0](streams["audio"].values.mean(1)))


def test_modality_dropout_is_per_clip_and_keeps_one():
    torch.manual_seed(0)
    present = torch.tensor([[True, True, True], [True, False, False], [False, False, False]]).repeat(500, 1)
    kept = keep_one(present, 0.5)
    assert not (kept & ~present).any()
    assert torch.equal(kept.any(1), present.any(1))
    share = kept[::3].float().mean()
    assert 0.5 < share < 0.65  # half, and those spared
    assert len({tuple(row.tolist()) for row in kept[::3]}) == 7
    torch.testing.assert_close(keep_one(present, 0.0), present)


def test_instants_stay_when_dropout_takes_the_base_stream():
    torch.manual_seed(0)
    fusion = build("concat", ("audio", "video"), 8, modality_dropout=0.9).train()
    streams = {n: tokens(torch.randn(64, 3, 8)) for n in ("audio", "video")}
    fused = fusion(streams, "video")
    assert not fused.present[:, 1].all() and fused.tokens.mask.all()


def test_attention_over_nothing_is_zero():
    x = torch.randn(2, 3, 8, requires_grad=True)
    out = attend(x, x, x, torch.tensor([[True] * 3, [False] * 3]), 2)
    assert (out[1] == 0).all() and (out[0] != 0).any()
    out.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_weights_of_attention_are_those_it_uses():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 4, 8), torch.randn(3, 5, 8), torch.randn(3, 5, 8)
    mask = torch.tensor([[True] * 5, [True, False, True, False, False], [False] * 5])
    for allowed in (mask, mask[:, None].expand(-1, 4, -1) & torch.ones(4, 5).bool().tril()):
        weights = weigh(q, k, allowed, 2)  # (B, heads, Q, K)
        values = v.unflatten(-1, (2, -1)).transpose(1, 2)
        torch.testing.assert_close((weights @ values).transpose(1, 2).flatten(2), attend(q, k, v, allowed, 2), atol=1e-6, rtol=0)
    net = Attention(8, 2, 0.0)
    weights = net.weigh(q, k, mask)
    values = net.value(k).unflatten(-1, (2, -1)).transpose(1, 2)
    torch.testing.assert_close(net.out((weights @ values).transpose(1, 2).flatten(2)), net(q, k, mask), atol=1e-6, rtol=0)


def test_alignment_weighs_by_shared_seconds_and_falls_back_to_the_nearest():
    values = torch.tensor([[[1.0], [2.0], [4.0], [99.0]]])
    times = torch.tensor([[[0.0, 1.0], [1.0, 2.0], [6.0, 7.0], [0.0, 9.0]]])
    stream = Tokens(values, torch.tensor([[True, True, True, False]]), times)
    instants = torch.tensor([[[0.0, 1.0], [0.75, 1.75], [3.0, 3.5], [4.75, 5.0], [1.5, 1.5]]])
    found = align(stream, Tokens(torch.zeros(1, 5, 1), torch.ones(1, 5).bool(), instants))
    assert found.flatten().tolist() == pytest.approx([1.0, 0.25 * 1 + 0.75 * 2, 2.0, 4.0, 2.0])
    nothing = align(stream._replace(mask=stream.mask & False), Tokens(values, stream.mask, times))
    assert (nothing == 0).all()


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6))
def test_alignment_is_a_mean_of_tokens_that_are_there(count, instants, seed):
    generator = torch.Generator().manual_seed(seed)
    edges = torch.rand(1, count, 2, generator=generator).mul(8).sort(-1).values
    moments = torch.rand(1, instants, 2, generator=generator).mul(8).sort(-1).values
    values = torch.randn(1, count, 3, generator=generator)
    found = align(
        Tokens(values, torch.ones(1, count).bool(), edges),
        Tokens(torch.zeros(1, instants, 3), torch.ones(1, instants).bool(), moments),
    )
    assert (found <= values.amax(1, keepdim=True) + 1e-5).all() and (found >= values.amin(1, keepdim=True) - 1e-5).all()


def test_mean_of_tokens_counts_those_there_are():
    values = torch.tensor([[[2.0], [6.0]], [[5.0], [7.0]], [[3.0], [4.0]]])
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    assert mean_tokens(Tokens(values, mask, torch.zeros(3, 2, 2))).tolist() == [[4.0], [5.0], [0.0]]
