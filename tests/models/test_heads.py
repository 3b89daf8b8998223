"""Heads: alone as in a batch, a gradient for every parameter, vectors of length 1."""

import pytest
import torch

from pipeline.errors import ParamsError
from pipeline.models.batch import Fused, Tokens
from pipeline.models.registry import HEADS


def build(name, output=None, **options):
    torch.manual_seed(0)
    part = HEADS.find(name)
    return part(output or name, 8, 5, 0.0, part.Options(**options))


def fused(size=6):
    generator = torch.Generator().manual_seed(0)
    tokens = Tokens(torch.randn(size, 3, 8, generator=generator), torch.ones(size, 3).bool(), torch.zeros(size, 3, 2))
    vector = torch.randn(size, 8, generator=generator)
    return Fused(vector, tokens, vector[:, None], torch.ones(size, 1).bool(), None)


@pytest.mark.parametrize("name", sorted(HEADS))
def test_alone_is_as_in_a_batch_and_every_parameter_learns(name):
    head, whole = build(name), fused()
    found = head(whole)[name]
    one = Fused(whole.vector[2:3], Tokens(*(x[2:3] for x in whole.tokens)), whole.parts[2:3], whole.present[2:3], None)
    torch.testing.assert_close(head(one)[name], found[2:3], atol=1e-6, rtol=1e-5)
    (found * torch.randn(found.shape)).sum().backward()
    assert [key for key, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_a_projection_has_length_1():
    torch.testing.assert_close(build("projection")(fused())["projection"].norm(dim=1), torch.ones(6))


def test_prototypes_are_the_cosine_by_the_temperature():
    head = build("prototypes")
    with torch.no_grad():
        head.prototypes[3] = 7 * head.net(fused().vector[:1])[0]  # its length does not matter
    assert head(fused())["prototypes"][0, 3].item() == pytest.approx(10, abs=1e-4)


def test_a_projection_over_time_is_that_of_the_clip_at_each_instant_and_zero_where_there_is_none():
    torch.manual_seed(0)
    part = HEADS.find("projection")
    head, whole = part("projection", 8, 5, 0.0, part.Options(frames=True)), fused()
    mask = torch.arange(3) < torch.tensor([3, 2, 1, 3, 2, 1])[:, None]
    found = head(whole._replace(tokens=whole.tokens._replace(mask=mask)))
    torch.testing.assert_close(found["projection.frames"].norm(dim=-1), mask.float())
    at = whole._replace(vector=whole.tokens.values[:, 0])
    torch.testing.assert_close(found["projection.frames"][:, 0], head(at)["projection"])
    assert set(head(whole._replace(tokens=None))) == {"projection"}


def test_a_feed_forward_stack_is_its_layers():
    head, vector = build("feed_forward", "emotion", widths=[6, 4], dropout=0.2), fused().vector
    assert [part.p for part in head.modules() if isinstance(part, torch.nn.Dropout)] == [0.2, 0.2]
    (first, *_), (second, *_) = head.layers
    assert (first.weight.shape, second.weight.shape, head.out.weight.shape) == ((6, 8), (4, 6), (5, 4))
    inner = second(first(vector).relu()).relu()
    torch.testing.assert_close(head.eval()(fused())["emotion"], head.out(inner))
    short = build("feed_forward", "emotion", widths=[6, 4], l2=True)
    torch.testing.assert_close(short(fused())["emotion"], short.out(inner / inner.norm(dim=1, keepdim=True).clamp(min=1e-12)))
    values = build("feed_forward", "dimensions", widths=[6, 4])(fused())["dimensions"]
    torch.testing.assert_close(values, head.out(inner).tanh())


def test_a_stack_reads_no_instants():
    with pytest.raises(ParamsError, match=r"heads\.frames: feed_forward reads a clip as a whole"):
        build("feed_forward", "frames")
