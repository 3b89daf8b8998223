"""Fusions by themselves: gates, dropout, alignment in time."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.models.batch import Tokens
from pipeline.models.blocks import CrossBlock, attend
from pipeline.models.fusion.base import align, keep_one, mean_tokens
from pipeline.models.registry import FUSIONS


def build(name, streams, width, heads=2, dropout=0.0, **options):
    part = FUSIONS.find(name)
    return part(dict.fromkeys(streams, width), width, heads, dropout, part.Options(**options))


def tokens(values, mask=None):
    size, length = values.shape[:2]
    starts = torch.arange(length).float().expand(size, length)
    return Tokens(values, torch.ones(size, length).bool() if mask is None else mask, torch.stack([starts, starts + 1], -1))


def test_fusion_takes_the_shapes_of_the_reference():
    """Four clips, audio and text of width 512 to (4, 512), single vectors being tokens with T = 1."""
    streams = {n: tokens(torch.randn(4, 1, 512)) for n in ("audio", "text")}
    for name in FUSIONS:
        fused = build(name, ("audio", "text"), 512, 8, 0.1)(streams)
        assert fused.vector.shape == (4, 512) and fused.parts.shape == (4, 2, 512) and fused.tokens is None


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
