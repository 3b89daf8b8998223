"""Losses on embeddings over time against double loops, and what takes no part in them."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from pipeline.errors import ParamsError
from pipeline.models.batch import Targets
from pipeline.models.losses.instants import InstantLoss
from pipeline.models.registry import LOSSES
from pipeline.parts import read_options

NAMES = [name for name in sorted(LOSSES) if issubclass(LOSSES.find(name), InstantLoss)]
CONTRASTS = ("local_contrastive", "global_contrastive")


def build(name, **options):
    part = LOSSES.find(name)
    return part(None, 4, read_options(part.Options, options, "loss"))


def sample(seed=0, lengths=(5, 3, 1, 4), owner=None, known=0.8):
    """Clips of these lengths, padded: outputs and targets, the labels of some instants unknown."""
    generator = torch.Generator().manual_seed(seed)
    rows, longest = len(lengths), max(lengths)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    vectors = F.normalize(torch.randn(rows, longest, 6, generator=generator), dim=-1) * mask[..., None]
    truth = torch.rand(rows, longest, 2, generator=generator) * 2 - 1
    truth[torch.rand(rows, longest, generator=generator) > known] = torch.nan
    truth[~mask] = torch.nan
    clips = F.normalize(torch.randn(rows, 6, generator=generator), dim=-1)
    weight = torch.rand(rows, generator=generator) + 0.5
    empty = torch.zeros(rows, 0)
    owner = torch.arange(rows) if owner is None else torch.tensor(owner)
    return {"projection": clips, "projection.frames": vectors}, Targets(empty, empty, truth, {}, weight, owner)


def instants(outputs, targets):
    """(row, time, vector, labels or None) of each, one by one."""
    frames = outputs["projection.frames"]
    for r, t in product(range(frames.shape[0]), range(frames.shape[1])):
        if frames[r, t].any() and targets.weight[r] > 0:
            labels = targets.frames[r, t]
            yield r, t, frames[r, t], labels if torch.isfinite(labels).all() else None


def negatives(r, found, targets, earlier=()):
    ours = targets.clip[r]
    return [z for q, _, z, _ in found if targets.clip[q] != ours] + [z for z, clip in earlier if clip != ours]


def surprise(anchor, positive, others, temperature):
    chances = torch.stack([anchor @ one for one in (positive, *others)]) / temperature
    return chances.logsumexp(0) - chances[0]


def mean(values, weights):
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)


def loop_local(outputs, targets, beta, temperature=0.07, earlier=(), apart_from=None, among=True):
    found = list(instants(outputs, targets))
    at = {(r, t): (z, labels) for r, t, z, labels in found}
    values, weights = [], []
    for r, t, z, labels in found:
        others = negatives(r, found, targets, earlier) if among else []
        if apart_from is not None:
            others = others + [n for q, s, n, _ in found if q == r and abs(s - t) >= apart_from]
        if (r, t + 1) not in at or not others:
            continue
        following, beside = at[r, t + 1]
        apart = 0.0 if labels is None or beside is None else (labels - beside).norm()
        values.append(surprise(z, following, others, temperature))
        weights.append(targets.weight[r] * math.exp(-beta * apart))
    return mean(values, weights)


def loop_global(outputs, targets, temperature=0.07, earlier=()):
    found = list(instants(outputs, targets))
    pairs = [
        (surprise(outputs["projection"][r], z, negatives(r, found, targets, earlier), temperature), targets.weight[r])
        for r, _, z, _ in found
        if negatives(r, found, targets, earlier)
    ]
    return mean(*zip(*pairs, strict=True))


OWNERS = [None, (0, 1, 0, 2)]


@pytest.mark.parametrize("owner", OWNERS)
@pytest.mark.parametrize("beta", [0.0, 1.0, 10.0])
def test_local_contrast_is_its_double_loop(owner, beta):
    outputs, targets = sample(1, owner=owner)
    found = build("local_contrastive", beta=beta)(outputs, targets)
    torch.testing.assert_close(found, loop_local(outputs, targets, beta), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("apart", "others"), [(2, True), (2, False), (3, False)])
def test_instants_far_away_in_the_same_clip_repel_where_they_are_asked_to(apart, others):
    outputs, targets = sample(1)
    loss = build("local_contrastive", beta=0.0, apart=apart, others=others, queue=9)
    first, before = sample(3, (2, 2), (8, 0))
    loss.remember(first, before)
    earlier = list(zip(loss.queue, loss.queue_truth, strict=True))
    expected = loop_local(outputs, targets, 0.0, earlier=earlier, apart_from=apart, among=others)
    torch.testing.assert_close(loss(outputs, targets), expected, atol=1e-6, rtol=1e-6)


def test_contrast_with_nothing_to_repel_is_one_line():
    with pytest.raises(ParamsError, match="set apart, or leave others true"):
        build("local_contrastive", others=False)


def test_the_weight_of_a_pair_by_its_labels_is_really_used():
    """Upstream computed it after the logits, where nothing read it."""
    outputs, targets = sample(1, known=2.0)
    alike, weighed = (float(build("local_contrastive", beta=beta)(outputs, targets)) for beta in (0.0, 10.0))
    assert abs(alike - weighed) > 0.05
    same = targets._replace(frames=torch.zeros_like(targets.frames))
    assert float(build("local_contrastive", beta=10.0)(outputs, same)) == pytest.approx(alike, rel=1e-6)


@pytest.mark.parametrize("owner", OWNERS)
def test_global_contrast_is_its_double_loop(owner):
    outputs, targets = sample(2, owner=owner)
    found = build("global_contrastive")(outputs, targets)
    torch.testing.assert_close(found, loop_global(outputs, targets), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "loop"), [("local_contrastive", lambda *a, **k: loop_local(*a, 10.0, **k)), (CONTRASTS[1], loop_global)]
)
def test_the_queue_holds_the_latest_of_other_clips_and_validation_does_not_look(name, loop):
    loss = build(name, queue=7)
    (first, a), (second, b), (outputs, targets) = sample(3, (2, 2), (8, 0)), sample(4, (4,), (9,)), sample(5)
    loss.remember(first, a)
    loss.remember(second, b._replace(weight=torch.ones(1)))
    kept = [*second["projection.frames"][0], *first["projection.frames"].flatten(0, 1)[:3]]
    torch.testing.assert_close(loss.queue, torch.stack(kept))
    assert loss.queue_truth.tolist() == [9] * 4 + [8, 8, 0]
    earlier = list(zip(kept, loss.queue_truth, strict=True))
    torch.testing.assert_close(loss(outputs, targets), loop(outputs, targets, earlier=earlier), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(loss.eval()(outputs, targets), loop(outputs, targets), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("n", [1, 7])
def test_contrast_of_equal_similarities_is_ln_n_plus_1(n):
    """A clip of two instants, and n other clips of one."""
    frames = torch.ones(n + 1, 2, 3) / 3**0.5
    frames[1:, 1] = 0
    outputs = {"projection": torch.ones(n + 1, 3), "projection.frames": frames}
    weight, empty = torch.ones(n + 1), torch.zeros(n + 1, 0)
    targets = Targets(empty, empty, None, {}, weight)
    assert build("local_contrastive")(outputs, targets).item() == pytest.approx(math.log(n + 1), rel=1e-5)
    # Each other clip's negatives are the two of the first and the n - 1 others, n + 1 of them.
    expected = (2 * math.log(n + 1) + n * math.log(n + 2)) / (n + 2)
    assert build("global_contrastive")(outputs, targets).item() == pytest.approx(expected, rel=1e-5)


def test_instants_of_the_same_clip_repel_no_one():
    """Two rows of one clip and nobody else: nothing to tell it from."""
    outputs, targets = sample(6, (4, 4), (3, 3))
    for name in CONTRASTS:
        assert build(name)(outputs, targets) == 0


@pytest.mark.parametrize("relief", [0.0, 0.9])
def test_smoothness_is_its_loop(relief):
    outputs, targets = sample(7)
    at = {(r, t): (z, labels) for r, t, z, labels in instants(outputs, targets)}
    values, weights = [], []
    for (r, t), (z, labels) in at.items():
        if (r, t + 1) in at:
            following, beside = at[r, t + 1]
            apart = 0.0 if labels is None or beside is None else min(1.0, float((labels - beside).norm()))
            values.append((1 - relief * apart) * (following - z).square().sum())
            weights.append(targets.weight[r])
    torch.testing.assert_close(build("smoothness", relief=relief)(outputs, targets), mean(values, weights), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("reach", "gap"), [(8, 0.05), (2, 0.4)])
def test_ranking_is_its_loop(reach, gap):
    outputs, targets = sample(8, (9, 7, 2), known=0.9)
    known = [(r, t, z, labels) for r, t, z, labels in instants(outputs, targets) if labels is not None]
    values, weights = [], []
    for (r, t, a, la), (q, m, mid, lm), (p, f, far, lf) in product(known, repeat=3):
        near = len({t, m}) == 2 and len({t, f}) == 2 and max(abs(t - m), abs(t - f)) <= reach
        if r == q == p and near and (la - lf).norm() - (la - lm).norm() > gap:
            values.append(((a - mid).norm() - (a - far).norm() + 0.5).clamp(min=0))
            weights.append(targets.weight[r])
    assert len(values) > 10
    found = build("temporal_ranking", reach=reach, gap=gap)(outputs, targets)
    torch.testing.assert_close(found, mean(values, weights), atol=1e-6, rtol=1e-6)


def test_ranking_needs_labels_over_time():
    _, targets = sample(known=-1.0)
    for lost in (targets, targets._replace(frames=None)):
        with pytest.raises(ParamsError, match="no training clip has the labels over time"):
            build("temporal_ranking").observe(lost)


def test_collapse_is_1_and_all_directions_are_0():
    loss = build("anti_collapse")
    _, targets = sample(0, (4,) * 64)
    one = torch.zeros(64, 4, 6)
    one[..., 0] = 1
    spread = F.normalize(torch.randn(64, 4, 6, generator=torch.Generator().manual_seed(0)), dim=-1)
    values = [float(loss({"projection": one[:, 0], "projection.frames": z}, targets)) for z in (one, spread)]
    assert values[0] == pytest.approx(1, abs=1e-3) and values[1] < 0.05


@pytest.mark.parametrize("name", NAMES)
def test_padding_and_rows_without_weight_take_no_part(name):
    outputs, targets = sample(9)
    loss = build(name)
    expected = loss(outputs, targets)
    longer = outputs | {"projection.frames": F.pad(outputs["projection.frames"], (0, 0, 0, 3))}
    torch.testing.assert_close(loss(longer, targets), expected)
    idle = {key: torch.cat([value, value[:1].flip(-1)]) for key, value in outputs.items()}
    more = Targets(
        *(torch.cat([one, one[:1]]) for one in (targets.emotion, targets.dimensions, targets.frames)),
        {},
        torch.cat([targets.weight, torch.zeros(1)]),
        torch.cat([targets.clip, torch.tensor([77])]),
    )
    torch.testing.assert_close(loss(idle, more), expected)


@pytest.mark.parametrize("name", NAMES)
def test_clips_of_one_instant_have_no_neighbours_and_no_nan(name):
    outputs, targets = sample(10, (1, 1, 1))
    frames = outputs["projection.frames"].requires_grad_()
    found = build(name)(outputs, targets)
    found.backward()
    assert torch.isfinite(found) and torch.isfinite(frames.grad).all()
    assert name in ("global_contrastive", "anti_collapse") or found == 0


@pytest.mark.parametrize("name", CONTRASTS)
def test_many_anchors_are_compared_piece_by_piece(name, monkeypatch):
    outputs, targets = sample(11)
    found = build(name)(outputs, targets)
    monkeypatch.setattr("pipeline.models.losses.instants.AT_ONCE", 3)
    torch.testing.assert_close(build(name)(outputs, targets), found)


@pytest.mark.parametrize("name", CONTRASTS)
def test_what_is_queued_pulls_as_the_double_loop_says(name):
    """The slope beside a queue is taken on the way there; of several seeds at once too."""
    options = {"temperature": 0.3, "queue": 7, **({"beta": 0.0} if name == "local_contrastive" else {})}
    (outputs, targets), (before, owners) = sample(20), sample(21, owner=(0, 9, 9, 2))
    loss = build(name, **options)
    loss.remember(before, owners)
    earlier = list(zip(loss.queue, loss.queue_truth, strict=True))

    def loop(frames):
        found = list(instants({**outputs, "projection.frames": frames}, targets))
        at, values, weights = {(r, t): z for r, t, z, _ in found}, [], []
        for r, t, z, _ in found:
            anchor, near = (z, at.get((r, t + 1))) if name == "local_contrastive" else (outputs["projection"][r], z)
            if near is not None:
                values.append(surprise(anchor, near, negatives(r, found, targets, earlier), 0.3))
                weights.append(targets.weight[r])
        return mean(values, weights)

    def whole(frames):
        return loss({**outputs, "projection.frames": frames}, targets)

    mask = (outputs["projection.frames"] != 0).any(-1, keepdim=True)
    several = F.normalize(torch.randn(3, *mask.shape[:2], 6, generator=torch.Generator().manual_seed(1)), dim=-1) * mask
    expected = []
    for one in several:
        frames = one.clone().requires_grad_()
        # The loss divides by lengths, which are one: what would change them is no part of the slope.
        slope = torch.autograd.grad(loop(frames), frames)[0]
        expected.append(slope - (slope * one).sum(-1, keepdim=True) * one)
        (found,) = torch.autograd.grad(whole(frames), frames)
        torch.testing.assert_close(found, expected[-1], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(whole))(several), torch.stack(expected), atol=1e-6, rtol=1e-5)


def test_contrast_is_float32_under_half_precision():
    outputs, targets = sample(12)
    half = {key: value.half() for key, value in outputs.items()}
    for name in CONTRASTS:
        found = build(name, temperature=0.01)(half, targets)
        assert found.dtype == torch.float32 and torch.isfinite(found)
        torch.testing.assert_close(found, build(name, temperature=0.01)(outputs, targets), atol=0.1, rtol=0.01)


def test_windows_of_one_clip_among_those_of_others():
    vectors = F.normalize(torch.randn(7, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    clip, empty = torch.tensor([5, 5, 3, 3, 3, 8, 5]), torch.zeros(7, 0)
    expected = []
    for i in range(6):  # the last has no weight
        alike = [j for j in range(6) if j != i and clip[j] == clip[i]]
        unlike = [vectors[j] for j in range(6) if clip[j] != clip[i]]
        expected += [torch.stack([surprise(vectors[i], vectors[j], unlike, 0.07) for j in alike]).mean()] if alike else []
    targets = Targets(empty, empty, None, {}, torch.tensor([1.0] * 6 + [0]), clip)
    loss = build("window_contrastive", queue=4)
    torch.testing.assert_close(loss({"projection": vectors}, targets), torch.stack(expected).mean())
    # Of what is queued, earlier windows of the same clip are neither near nor far.
    loss.remember({"projection": vectors[:1]}, Targets(empty[:1], empty[:1], None, {}, torch.ones(1), clip[:1]))
    two = Targets(empty[:4], empty[:4], None, {}, torch.ones(4), clip[:4])
    near = vectors[:4] @ torch.cat([vectors[:4], vectors[:1]]).T / 0.07
    values = [
        near[i, [j, *rest]].logsumexp(0) - near[i, j]
        for i, j, rest in ((0, 1, [2, 3]), (1, 0, [2, 3]), (2, 3, [0, 1, 4]), (3, 2, [0, 1, 4]))
    ]
    torch.testing.assert_close(loss({"projection": vectors[:4]}, two), torch.stack(values).mean())
    with pytest.raises(ParamsError, match="no other to tell it from"):
        loss.observe(two._replace(clip=torch.ones(4).long()))
