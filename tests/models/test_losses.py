"""Losses against their definitions."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import metrics
from pipeline.errors import ParamsError
from pipeline.models.batch import Targets, name_variance
from pipeline.models.losses.base import ClassLoss, count_classes
from pipeline.models.losses.class_weights import weigh_classes
from pipeline.models.losses.concordance import concord
from pipeline.models.losses.embeddings import EmbeddingLoss
from pipeline.models.losses.memory import QueueLoss
from pipeline.models.registry import LOSSES
from pipeline.parts import read_options

NAMES = sorted(LOSSES)
CLASSES = [name for name in NAMES if issubclass(LOSSES.find(name), ClassLoss)]
EMBEDDINGS = [name for name in NAMES if issubclass(LOSSES.find(name), EmbeddingLoss) and name != "window_contrastive"]
QUEUES = [name for name in NAMES if issubclass(LOSSES.find(name), QueueLoss)]
WEIGHTED = ("cross_entropy", "focal", "multilabel")
#: Every loss as it comes, and in its other forms.
FORMS = [
    *((name, {}) for name in NAMES if name != "pseudo_label"),
    ("pseudo_label", {"teacher": "face", "classes": ["a", "b", None, "c"]}),
    *((name, {"class_weights": rule}) for name in WEIGHTED for rule in ("inverse", "sqrt", "balanced", [0, 1, 2, 3])),
    ("cross_entropy", {"class_weights": [0, 1, 2, 3], "label_smoothing": 0.3}),
    ("focal", {"gamma": 0.5, "temperature": 3}),
    ("class_balanced", {"gamma": 2, "beta": 0.9}),
    ("concordance", {"share": 1.0}),
    ("supervised_contrastive", {"labels": "dimensions"}),
    ("triplet", {"form": "margin", "margin": 0.5}),
    ("local_contrastive", {"beta": 0.0}),
    ("smoothness", {"relief": 0.0}),
]
#: Clips of the training part of MELD: anger, disgust, fear, joy, neutral, sadness, surprise.
MELD = torch.tensor([1109, 271, 268, 1743, 4710, 683, 1205])
FEELINGS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")


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


def build(name, on=None, size=4, classes=(), **options):
    part = LOSSES.find(name)
    return part(on, size, read_options(part.Options, options, "loss"), classes)


def taught_by(*columns, on=None, names=("a", "b", "c", "d")):
    """A loss whose teacher is the stream `face`."""
    part, size = LOSSES.find("pseudo_label"), 2 if on else 4
    return part(on, size, part.Options(teacher="face", classes=columns), names if on is None else ())


def of_classes(name, logits, truth, weight=None, observed=None, **options):
    loss = build(name, size=logits.shape[1], **options)
    loss.observe(targets(truth if observed is None else observed))
    return loss({"emotion": logits}, targets(truth, weight=weight))


def whole(seed, size=12, *, unknown=0.0):
    """Outputs (R, 4) that every loss can read, and targets with every label, some unknown and some of weight 0."""
    generator = torch.Generator().manual_seed(seed)
    emotion = torch.randint(0, 4, (size,), generator=generator)
    dimensions = torch.rand(size, 4, generator=generator) * 2 - 1
    lost = torch.rand(size, generator=generator) < unknown
    weight = torch.rand(size, generator=generator) + 0.1
    weight = weight * (torch.rand(size, generator=generator) >= unknown)
    dimensions = dimensions.masked_fill(lost[:, None], torch.nan)
    frames = torch.stack([dimensions, dimensions.roll(1, 1), dimensions / 2], 1)
    chances = {"face": torch.rand(size, 4, generator=generator)}
    chances["ensemble.emotion"] = torch.rand(size, 4, generator=generator).softmax(1)
    truth = Targets(torch.where(lost, -1, emotion), dimensions, frames, {}, weight, torch.arange(size) // 2, chances)
    return torch.randn(size, 4, generator=generator), truth


def give(loss, outputs):
    """Outputs (R, 4) as the loss reads them; where it reads instants, with three of each clip."""
    over_time = {f"{loss.on}.frames": torch.stack([outputs, outputs.roll(1, -1), outputs.flip(-1)], 1)} if loss.over_time else {}
    return {loss.on: outputs} | over_time


def prepared(name, options, seed=99):
    part = LOSSES.find(name)
    loss = part(None, 4, read_options(part.Options, options, "loss"), tuple("abcd"))
    loss.observe(whole(seed, 40)[1])
    return loss


def keep(truth, rows):
    return truth._replace(
        **{name: getattr(truth, name)[rows] for name in ("emotion", "dimensions", "frames", "weight", "clip")},
        taught={name: value[rows] for name, value in truth.taught.items()},
    )


@pytest.mark.parametrize(("name", "options"), FORMS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), queued=st.booleans())
def test_rows_that_take_no_part_do_nothing_and_the_order_does_not_matter(name, options, seed, queued):
    if queued and name in QUEUES:
        options = options | {"queue": 7}
    loss, (outputs, truth) = prepared(name, options), whole(seed, unknown=0.3)
    if queued:
        loss.remember(give(loss, whole(seed + 1)[0]), whole(seed + 1)[1])
    there = ((truth.emotion >= 0) | loss.unlabelled) & (truth.weight > 0)
    found = loss(give(loss, outputs), truth)
    torch.testing.assert_close(found, loss(give(loss, outputs[there]), keep(truth, there)), atol=2e-6, rtol=2e-5)
    shuffled = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(found, loss(give(loss, outputs[shuffled]), keep(truth, shuffled)), atol=2e-6, rtol=2e-5)
    wild = torch.where(there[:, None], outputs, 1e4)
    torch.testing.assert_close(found, loss(give(loss, wild), truth), atol=2e-6, rtol=2e-5)


@pytest.mark.parametrize(("name", "options"), FORMS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([0.0, 1.0, 1e4]))
def test_value_and_gradient_are_finite_and_reach_the_outputs(name, options, seed, scale):
    loss, (outputs, truth) = prepared(name, options), whole(seed)
    outputs = (outputs.sign() * scale if scale != 1 else outputs).requires_grad_()
    found = loss(give(loss, outputs), truth)
    found.backward()
    assert found.dtype == torch.float32 and torch.isfinite(found) and torch.isfinite(outputs.grad).all()
    assert scale != 1 or outputs.grad.abs().sum() > 0


@pytest.mark.parametrize(("name", "options"), FORMS)
@pytest.mark.parametrize("why", ["weight", "truth"])
def test_nobody_takes_part(name, options, why):
    loss, (outputs, truth) = prepared(name, options), whole(0)
    if why == "weight":
        truth = truth._replace(weight=torch.zeros(12))
    else:
        unknown = {"dimensions": torch.full((12, 4), torch.nan), "frames": torch.full((12, 3, 4), torch.nan)}
        truth = truth._replace(emotion=torch.full((12,), -1), **unknown)
        if loss.unlabelled:
            assert torch.isfinite(loss(give(loss, outputs), truth))
            return
    found = loss(give(loss, outputs.requires_grad_()), truth)
    found.backward()
    assert found == 0 and (outputs.grad == 0).all()


@pytest.mark.parametrize(("name", "options"), [*FORMS, *((name, {"queue": 5}) for name in QUEUES)])
def test_losses_run_under_vmap(name, options):
    """Several seeds at once: no branch on values, no waiting for the device."""
    loss, (_, truth) = prepared(name, options), whole(0, unknown=0.2)
    loss.remember(give(loss, whole(1)[0]), truth)
    outputs = torch.randn(3, 12, 4, generator=torch.Generator().manual_seed(0))
    found = torch.func.vmap(lambda x: loss(give(loss, x), truth))(outputs)
    torch.testing.assert_close(found, torch.stack([loss(give(loss, x), truth) for x in outputs]))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize(
    ("chosen", "weigh"),
    [
        ("none", torch.ones_like),
        (False, torch.ones_like),
        (True, lambda n: n.sum() / (4 * n)),
        ("balanced", lambda n: n.sum() / (4 * n)),
        ("inverse", lambda n: 1 / n),
        ("sqrt", lambda n: 1 / n.sqrt()),
        ([1, 0, 2.5, 4], lambda n: torch.tensor([1, 0, 2.5, 4])),
        ({"b": 3, "d": 0}, lambda n: torch.tensor([1.0, 3, 1, 0])),
    ],
)
def test_cross_entropy_is_the_librarys(smoothing, chosen, weigh):
    logits, truth = sample()
    weights = weigh(count_classes(truth, 4))
    rows = weights[truth] > 0  # the library smooths clips that count for nothing
    torch.testing.assert_close(
        of_classes("cross_entropy", logits, truth, classes=tuple("abcd"), label_smoothing=smoothing, class_weights=chosen),
        F.cross_entropy(logits[rows], truth[rows], weights, label_smoothing=smoothing),
    )


def test_focal_without_focus_is_cross_entropy():
    logits, truth = sample()
    torch.testing.assert_close(of_classes("focal", logits, truth, gamma=0.0), of_classes("cross_entropy", logits, truth))


def test_focal_definition():
    logits, truth = sample()
    alpha = weigh_classes(count_classes(truth, 4), "balanced")
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


def test_concordance_with_truth_that_never_changes_is_the_squared_error():
    """CCC is undefined there: no NaN, no constant beside the loss; a dimension that varies has its own."""
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(3, 5, 2, generator=generator, requires_grad=True)
    truth = torch.randn(3, 5, 2, generator=generator)
    truth[..., 0] = 0.3
    found = build("concordance", "frames")({"frames": pred}, targets(frames=truth))
    square = (pred - truth).square().mean((0, 1))
    expected = (
        square[0] + 0.5 * square[1] + 0.5 * (1 - metrics.ccc(truth[..., 1].flatten(), pred[..., 1].detach().flatten()))
    ) / 2
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=0)
    found.backward()
    assert torch.isfinite(pred.grad).all() and (pred.grad != 0).all()


def test_the_gaussian_loss_is_the_likelihood_of_torch_and_asks_for_the_spread_there_is():
    generator = torch.Generator().manual_seed(0)
    pred, log_variance, truth = (torch.randn(200, 2, generator=generator) for _ in range(3))
    outputs = {"dimensions": pred, name_variance("dimensions"): log_variance}
    found = build("gaussian")(outputs, targets(dimensions=truth))
    torch.testing.assert_close(found, F.gaussian_nll_loss(pred, truth, log_variance.exp()))
    width = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.Adam([width], 0.1)
    for _ in range(150):
        spread = {"dimensions": pred, name_variance("dimensions"): width.expand(200, 2)}
        optimiser.zero_grad()
        build("gaussian")(spread, targets(dimensions=truth)).backward()
        optimiser.step()
    assert float(width.detach().exp()) == pytest.approx(float((pred - truth).square().mean()), rel=0.02)


def test_alpha_of_the_training_clips_of_meld():
    """The published list of a source system."""
    loss = build("focal", size=7, class_weights="inverse")
    loss.observe(targets(torch.arange(7).repeat_interleave(MELD)))
    published = [9.01, 36.86, 37.27, 5.73, 2.12, 14.63, 8.29]
    assert loss.factors.tolist() == pytest.approx(published, abs=0.006)
    by_name = build("focal", size=7, class_weights=dict(zip(FEELINGS, published, strict=True)), classes=FEELINGS)
    by_list = build("focal", size=7, class_weights=published)
    assert by_name.factors.tolist() == by_list.factors.tolist() == pytest.approx(published)


def test_a_class_that_nobody_shows_weighs_what_a_clip_does_in_the_mean():
    counts = torch.tensor([3.0, 1.0, 0.0])
    assert weigh_classes(counts, "inverse").tolist() == pytest.approx([4 / 3, 4, 2])
    assert weigh_classes(counts, "none").tolist() == [1, 1, 1]
    assert weigh_classes(torch.zeros(3), "sqrt").tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ("invers", "loss.class_weights: one of none, balanced, inverse, sqrt, a list"),
        ([1, 2, 3], "class_weights has 3 weights for the 4 classes of emotion: a, b, c, d."),
        ([1, 2, -1, 1], "loss.class_weights: weights are numbers from 0 on, and not all 0"),
        ([0, 0, 0, 0], "weights are numbers from 0 on, and not all 0"),
        ([1, True, 1, 1], "weights are numbers from 0 on, and not all 0"),
        ({"a": "much"}, "weights are numbers from 0 on, and not all 0"),
        ({"e": 2}, "Unknown class 'e'"),
        (3, "loss.class_weights: one of none"),
    ],
)
@pytest.mark.parametrize("name", WEIGHTED)
def test_class_weights_that_do_not_fit_are_one_line(name, chosen, said):
    with pytest.raises(ParamsError) as caught:
        build(name, classes=tuple("abcd"), class_weights=chosen)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_weights_by_name_want_names():
    with pytest.raises(ParamsError, match="by name are for the emotions; write those of speaker as a list"):
        build("cross_entropy", "speaker", class_weights={"a": 2})


def test_focal_clamps_the_value_and_not_the_gradient():
    logits = torch.tensor([[0.0, 100.0]], requires_grad=True)
    found = build("focal", size=2)({"emotion": logits}, targets(torch.tensor([0])))
    found.backward()
    assert found.item() == pytest.approx(-math.log(1e-8), rel=1e-5) and logits.grad[0, 0] == pytest.approx(-1)


def test_focal_of_a_temperature_is_that_of_cooler_logits():
    logits, truth = sample()
    torch.testing.assert_close(of_classes("focal", logits, truth, temperature=4), of_classes("focal", logits / 4, truth))


def test_auto_focal_definition():
    logits, truth = sample()
    rarity = 1 / (count_classes(truth, 4).clamp(min=1) + 0.1)
    weights = rarity / rarity.sum() * torch.tensor([1, 2.5, 1, 1])
    p = (logits / 2).softmax(1)[torch.arange(12), truth]
    expected = (0.5 * weights[truth] * (1 - p) ** 2 * -p.log()).mean()
    chosen = {"classes": ("angry", "happy", "neutral", "sad"), "factors": {"happy": 2.5}, "temperature": 2}
    torch.testing.assert_close(of_classes("auto_focal", logits, truth, **chosen), expected)


def test_class_balanced_definition():
    logits, truth = sample()
    counts = count_classes(truth, 4).double()
    weights = (1 - 0.9) / (1 - 0.9**counts)
    weights = (weights * 4 / weights.sum()).float()
    expected = (weights[truth] * F.cross_entropy(logits, truth, reduction="none")).mean()
    torch.testing.assert_close(of_classes("class_balanced", logits, truth, beta=0.9), expected)
    torch.testing.assert_close(of_classes("class_balanced", logits, truth, beta=0.0), F.cross_entropy(logits, truth))


def test_logit_adjusted_definition_and_what_it_is_for():
    logits, truth = sample()
    share = count_classes(truth, 4) / 12
    torch.testing.assert_close(
        of_classes("logit_adjusted", logits, truth, tau=1.5), F.cross_entropy(logits + 1.5 * share.log(), truth)
    )
    torch.testing.assert_close(of_classes("logit_adjusted", logits, truth, tau=0), F.cross_entropy(logits, truth))
    # Inputs that say nothing: its best logits favour no class, whereas cross-entropy's follow the frequencies.
    flat = torch.zeros(1, 4, requires_grad=True)
    of_classes("logit_adjusted", flat.expand(12, 4), truth).backward()
    assert flat.grad.abs().max() < 1e-6


@pytest.mark.parametrize("missing", [None, 2])
def test_dice_of_perfect_predictions_is_0_whatever_is_absent(missing):
    truth = torch.tensor([i for i in (0, 0, 1, 2, 3, 3) if i != missing])
    assert of_classes("dice", 1e4 * F.one_hot(truth, 4).float(), truth).item() == pytest.approx(0, abs=1e-6)


def test_dice_definition():
    logits, truth = sample()
    p, y = logits.softmax(1), F.one_hot(truth, 4)
    tp, fp, fn = (p * y).sum(0), (p * (1 - y)).sum(0), ((1 - p) * y).sum(0)
    torch.testing.assert_close(of_classes("dice", logits, truth), 1 - (2 * tp / (2 * tp + fp + fn)).mean())


def test_multilabel_is_the_librarys():
    logits, truth = sample()
    weights = torch.tensor([1.0, 2, 3, 4])
    expected = F.binary_cross_entropy_with_logits(logits, F.one_hot(truth, 4).float(), pos_weight=weights)
    torch.testing.assert_close(of_classes("multilabel", logits, truth, class_weights=[1, 2, 3, 4]), expected)


def test_multilabel_wants_every_class_of_a_clip_that_has_several():
    logits, truth = sample()
    several = F.one_hot(truth, 4).bool() | (torch.rand(12, 4, generator=torch.Generator().manual_seed(1)) < 0.3)
    given = targets(torch.where(torch.arange(12) < 2, -1, truth))._replace(several=several)
    loss = build("multilabel", class_weights="inverse")
    loss.observe(given)
    counts = several[2:].sum(0)
    expected = F.binary_cross_entropy_with_logits(logits[2:], several[2:].float(), pos_weight=counts.sum() / counts)
    torch.testing.assert_close(loss({"emotion": logits}, given), expected)
    # The speaker is one, whatever the emotions are.
    speaker = given._replace(domain={"speaker": truth})
    alone = build("multilabel", on="speaker")({"speaker": logits}, speaker)
    torch.testing.assert_close(alone, F.binary_cross_entropy_with_logits(logits, F.one_hot(truth, 4).float()))


def test_squared_error_is_concordance_without_a_share():
    outputs, truth = whole(0, unknown=0.3)
    truth.dimensions[0, 1] = torch.nan
    found = build("squared_error")({"dimensions": outputs}, truth)
    torch.testing.assert_close(found, build("concordance", share=0)({"dimensions": outputs}, truth))


def compare(name, vectors, emotion=None, dimensions=None, **options):
    known = targets(emotion, dimensions)
    return build(name, "embedding", **options)({"embedding": vectors}, known)


def test_supervised_contrastive_definition():
    vectors, truth = sample()
    near = F.normalize(vectors) @ F.normalize(vectors).T / 0.2
    expected = []
    for i in range(12):
        others = [j for j in range(12) if j != i]
        alike = [j for j in others if truth[j] == truth[i]]
        chance = [near[i, j] - near[i, others].logsumexp(0) for j in alike]
        expected += [-torch.stack(chance).mean()] if alike else []
    found = compare("supervised_contrastive", vectors, truth, temperature=0.2)
    torch.testing.assert_close(found, torch.stack(expected).mean())


@pytest.mark.parametrize("n", [1, 5])
def test_contrast_of_equal_similarities_is_the_logarithm_of_their_number(n):
    """One positive, n negatives, all equally near: InfoNCE = ln(n + 1)."""
    truth = torch.cat([torch.zeros(2), torch.arange(1, n + 1)]).long()
    found = compare("supervised_contrastive", torch.ones(n + 2, 3), truth, size=n + 1)
    assert found.item() == pytest.approx(math.log(n + 1), rel=1e-5)


def test_contrast_by_dimensions_weighs_by_distance():
    vectors, _ = sample()
    place = torch.rand(12, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    near, apart = F.normalize(vectors) @ F.normalize(vectors).T / 0.07, torch.cdist(place, place)
    expected = []
    for i in range(12):
        others = torch.tensor([j for j in range(12) if j != i])
        w = (-10 * apart[i, others]).exp()
        expected.append(-(w * near[i, others].log_softmax(0)).sum() / w.sum())
    found = compare("supervised_contrastive", vectors, dimensions=place, labels="dimensions")
    torch.testing.assert_close(found, torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)


def test_triplet_ratio_of_equal_nearness_is_ln_2():
    found = compare("triplet", torch.ones(6, 3), torch.tensor([0, 0, 1, 1, 2, 2]))
    assert found.item() == pytest.approx(math.log(2), rel=1e-6)


@pytest.mark.parametrize("form", ["ratio", "margin"])
def test_triplet_definition(form):
    vectors, truth = sample(3)
    near = F.normalize(vectors) @ F.normalize(vectors).T
    classes = {}
    for i in range(12):
        alike = [j for j in range(12) if j != i and truth[j] == truth[i]]
        unlike = [j for j in range(12) if truth[j] != truth[i]]
        if not alike:
            continue
        p, q = (1 + near[i, alike]) / 2, (1 + near[i, unlike]) / 2
        ratio = -(p.mean() / (p.mean() + q.mean())).log()
        pairs = (near[i, unlike][:, None] - near[i, alike] + 0.3).clamp(min=0).mean()
        classes.setdefault(int(truth[i]), []).append(ratio if form == "ratio" else pairs)
    expected = torch.stack([torch.stack(values).mean() for values in classes.values()]).mean()
    torch.testing.assert_close(compare("triplet", vectors, truth, form=form, margin=0.3), expected)


def test_prototype_definition():
    vectors, truth = sample()
    unit, expected = F.normalize(vectors), []
    for i in range(12):
        members = [[j for j in range(12) if j != i and truth[j] == k] for k in range(4)]
        if members[truth[i]]:
            near = [F.normalize(unit[m].mean(0), dim=0) @ unit[i] / 0.5 if m else torch.tensor(-1e9) for m in members]
            expected.append(F.cross_entropy(torch.stack(near), truth[i]))
    torch.testing.assert_close(compare("prototype", vectors, truth, temperature=0.5), torch.stack(expected).mean())


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_a_queue_is_more_clips_to_compare_with_and_forgets_the_oldest(name):
    (first, a), (second, b), (third, c) = (whole(seed, 6) for seed in range(3))
    loss = build(name, "embedding", queue=9)
    loss.remember({"embedding": first}, a)
    loss.remember({"embedding": second.requires_grad_()}, b._replace(weight=torch.tensor([1.0, 1, 1, 1, 1, 0])))
    assert loss.queue.shape == (9, 4) and not loss.queue.requires_grad
    torch.testing.assert_close(loss.queue, F.normalize(torch.cat([second[:5], first[:4]])).detach())
    assert loss.queue_truth.tolist() == [*b.emotion[:5].tolist(), *a.emotion[:4].tolist()]
    # The clips of the batch as anchors, among those of the batch and the queue.
    together = torch.cat([third, second[:5], first[:4]])
    known = torch.cat([c.emotion, b.emotion[:5], a.emotion[:4]])
    valid = ~torch.eye(6, 15, dtype=torch.bool)
    unit = F.normalize(together)
    value, has = loss.compare(unit[:6], unit, c.emotion, known, valid)
    expected = loss.average(value, c.weight * has, c.emotion)
    torch.testing.assert_close(loss({"embedding": third}, c), expected)
    assert set(loss.state_dict()) == {"queue", "queue_truth"}


def test_many_clips_are_compared_piece_by_piece(monkeypatch):
    (outputs, truth), loss = whole(0, 12), build("supervised_contrastive", "embedding")
    found = loss({"embedding": outputs}, truth)
    monkeypatch.setattr("pipeline.models.losses.embeddings.AT_ONCE", 5)
    torch.testing.assert_close(loss({"embedding": outputs}, truth), found)


@pytest.mark.parametrize(
    ("name", "options"), [(n, {}) for n in EMBEDDINGS] + [("supervised_contrastive", {"labels": "dimensions"})]
)
def test_what_is_compared_needs_labels(name, options):
    with pytest.raises(ParamsError, match="no training clip has the labels"):
        build(name, **options).observe(targets(torch.full((4,), -1)))


def taught(name, rows, **known):
    truth = targets(**known) if known else targets(torch.full((len(rows),), -1))
    return truth._replace(taught={name: rows})


def test_a_teacher_of_classes_is_cross_entropy_with_its_chances():
    logits, _ = sample()
    rows = torch.rand(12, 3, generator=torch.Generator().manual_seed(2))
    rows[4], rows[7, 1] = torch.nan, torch.nan
    rows[5] = torch.tensor([0.0, 1.0, 0.0])  # all of it on what is no class
    loss = taught_by("c", None, "a")
    known = [i for i in range(12) if i not in (4, 5, 7)]
    chance = torch.zeros(12, 4)
    chance[:, 2], chance[:, 0] = rows[:, 0], rows[:, 2]
    expected = F.cross_entropy(logits[known], (chance / chance.sum(1, keepdim=True))[known])
    torch.testing.assert_close(loss({"emotion": logits}, taught("face", rows)), expected)
    weight = torch.ones(12).index_fill(0, torch.tensor(known), 0.0)
    nobody = loss({"emotion": logits.requires_grad_()}, taught("face", rows)._replace(weight=weight))
    nobody.backward()
    assert nobody == 0 and (logits.grad == 0).all()


def test_a_teacher_of_dimensions_is_squared_error():
    values, rows = torch.randn(6, 2), torch.rand(6, 2) * 2 - 1
    rows[2] = torch.nan
    loss = taught_by(on="dimensions")
    here = torch.arange(6) != 2
    torch.testing.assert_close(loss({"dimensions": values}, taught("face", rows)), F.mse_loss(values[here], rows[here]))


@pytest.mark.parametrize(
    ("columns", "rows", "said"),
    [
        (["a", "e"], None, "Unknown class of the teacher 'e'"),
        ([], None, "classes names what the numbers of the teacher's rows are of; this term is on emotion"),
        (["a", "b"], torch.rand(3, 5), "the teacher face has rows of 5 numbers, and 2 are wanted"),
        (["a", "b"], torch.full((3, 2), torch.nan), "no training clip has the stream face"),
        (["a", "b"], torch.full((3, 2), -0.3), "the rows of the teacher face are no chances from 0 to 1"),
    ],
)
def test_a_teacher_that_does_not_fit_is_one_line(columns, rows, said):
    with pytest.raises(ParamsError) as caught:
        taught_by(*columns).observe(taught("face", rows))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_distil_is_the_divergence_of_softened_chances_times_the_temperature_squared():
    """Against numbers worked out by hand: at 2 the chances .64, .04, .16, .16 are as .8 : .2 : .4 : .4."""
    said = torch.tensor([[0.64, 0.04, 0.16, 0.16], [0.25, 0.25, 0.25, 0.25], [torch.nan] * 4])
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [2.0 * np.log(4), 0.0, 0.0, 0.0], [9.0, 0.0, 0.0, 0.0]])
    # Softened: q = 4/9, 1/9, 2/9, 2/9 against 1/4; q = 1/4 against 4/7, 1/7, 1/7, 1/7.
    first = sum(q * np.log(q / 0.25) for q in (4 / 9, 1 / 9, 2 / 9, 2 / 9))
    second = 0.25 * np.log(7 / 16) + 0.75 * np.log(7 / 4)
    loss, truth = build("distil", temperature=2.0), taught("ensemble.emotion", said)
    loss.observe(truth)
    assert float(loss({"emotion": logits}, truth)) == pytest.approx(4 * (first + second) / 2, abs=1e-6)
    weight = torch.tensor([1.0, 0.0, 1.0])
    assert float(loss({"emotion": logits}, truth._replace(weight=weight))) == pytest.approx(4 * first, abs=1e-6)
    alike = build("distil", temperature=5.0)({"emotion": said[:2].log()}, taught("ensemble.emotion", said[:2]))
    assert float(alike) == pytest.approx(0, abs=1e-6)


def test_distil_takes_classes_that_the_ensemble_rules_out_and_values():
    said = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    logits = torch.zeros(1, 4, requires_grad=True)
    found = build("distil", temperature=1.0)({"emotion": logits}, taught("ensemble.emotion", said))
    found.backward()
    assert float(found.detach()) == pytest.approx(np.log(4), abs=1e-5)
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.75, 0.25, 0.25, 0.25]]))  # p - q, as of cross-entropy
    values = torch.tensor([[0.5, -0.5], [0.1, 0.2], [torch.nan, 0.0]])
    truth = taught("ensemble.dimensions", values)
    loss = build("distil", "dimensions", 2)
    torch.testing.assert_close(loss({"dimensions": torch.zeros(3, 2)}, truth), torch.tensor((0.25 + 0.025) / 2))


def test_distil_without_an_ensemble_says_what_to_set():
    with pytest.raises(ParamsError, match="distil is the loss of the variant student; set training.student"):
        build("distil").observe(taught("face", torch.ones(3, 4)))
