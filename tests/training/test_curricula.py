"""Curricula: difficulty, orders, paces, the classes' guarantee, weights by difficulty."""

import json
import math

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ParamsError, StoreError
from pipeline.models.batch import Targets
from pipeline.params import Part
from pipeline.training.curricula.base import AFFECT, CURRICULA, Roll, read_curriculum
from pipeline.training.curricula.measures import MEASURES
from pipeline.training.curricula.pacing import PACES, share_seen
from pipeline.training.curricula.prototypes import DifficultyOptions, measure_difficulty
from pipeline.training.curricula.scaling import weigh_by_class, weigh_samples

CLASSES = ("angry", "happy", "neutral", "sad")
WHERE = "training.curriculum.options"


def unit(value):
    """From 1–5 to the project's scale."""
    return (value - 3) / 2


def make_roll(names, points, classes=CLASSES, batch=1, seed=0, **columns):
    """Clips by class name (or None) and (valence, arousal, dominance) from 1 to 5 (or None)."""
    emotion = torch.tensor([classes.index(name) if name else -1 for name in names])
    affect = {
        name: torch.tensor([float("nan") if p is None or p[k] is None else unit(p[k]) for p in points], dtype=torch.float64)
        for k, name in enumerate(AFFECT)
    }
    table = pl.DataFrame(
        {"id": [f"c{i}" for i in range(len(names))], **({"labels": pl.Series([None] * len(names), dtype=pl.String)} | columns)}
    )
    return Roll(table, classes, emotion, affect, batch, seed)


def targets(roll):
    n = len(roll.emotion)
    return Targets(roll.emotion, torch.zeros(n, 0), None, {}, torch.ones(n))


def build(name, roll, **options):
    curriculum = read_curriculum(Part(name=name, options=options))
    curriculum.observe(roll)
    return curriculum


def difficulty(label, point, **options):
    return float(measure_difficulty(DifficultyOptions(**options), make_roll([label], [point]))[0])


def test_difficulty_is_the_published_one():
    assert difficulty("neutral", (3.2, 2.3, 3.1)) == pytest.approx(0.300)
    assert difficulty("happy", (4, 3.8, 3.8)) == pytest.approx(0, abs=1e-9)
    assert difficulty("angry", (3.8, 4.2, 4)) == pytest.approx(2)


@pytest.mark.parametrize("name", ["happy", "joy", "hap", "excited"])
def test_a_class_is_known_by_its_synonyms(name):
    roll = make_roll([name], [(3, 3.8, 3.8)], classes=("boredom", name))
    assert float(measure_difficulty(DifficultyOptions(), roll)) == pytest.approx(1)
    given_ = DifficultyOptions(prototypes={"happiness": {"valence": 3, "arousal": 3.8, "dominance": 3.8}})
    assert float(measure_difficulty(given_, roll)) == pytest.approx(0, abs=1e-9)


def test_a_scale_is_a_scale():
    """The same point and prototype, told from 0 to 100, are as far apart in units of that scale."""
    assert difficulty("neutral", (3.2, 2.3, 3.1), scale=(0, 100)) == pytest.approx(0.3 * 25)


def test_measures_by_hand():
    point = (4.5, 3.3, 3.5)  # of happy (4, 3.8, 3.8): valence beyond it, arousal .5 and dominance .3 short
    short = (0, 0.5, 0.3)
    found = {name: difficulty("happy", point, measure=name) for name in MEASURES}
    assert found["euclidean"] == pytest.approx(math.sqrt(0.25 + 0.25 + 0.09))
    assert found["directional"] == pytest.approx(math.hypot(*short) / (5 * math.sqrt(3)))
    assert found["directional_l1"] == pytest.approx(0.4 * 0.5 + 0.2 * 0.3)
    assert found["directional_quadratic"] == pytest.approx(0.3 * 0.25 + 0.2 * 0.09)
    weights = {"valence": 0.5, "arousal": 0.4, "dominance": 0.1}
    assert difficulty("happy", point, measure="directional_l1", weights=weights) == pytest.approx(0.4 * 0.5 + 0.1 * 0.3)
    mean, centred = sum(point) / 3, [4 - 11.6 / 3, 3.8 - 11.6 / 3, 3.8 - 11.6 / 3]
    around = [value - mean for value in point]
    rho = sum(a * b for a, b in zip(around, centred, strict=True)) / (math.hypot(*around) * math.hypot(*centred))
    assert found["pearson"] == pytest.approx((1 - rho) / 2)
    # Ranks (3, 1, 2) against (3, 1.5, 1.5).
    assert found["spearman"] == pytest.approx((1 - 1.5 / math.sqrt(2 * 1.5)) / 2)
    assert difficulty("happy", (3, 3, 3), measure="pearson") == 0.5  # a constant has no direction
    # Sad is low: above the prototype is short of it, below is not. Neutral counts both ways.
    assert difficulty("sad", (1, 2.2, 2), measure="directional") == pytest.approx(0, abs=1e-9)
    assert difficulty("sad", (2, 2.2, 2), measure="directional") == pytest.approx(0.2 / (5 * math.sqrt(3)))
    assert difficulty("neutral", (3, 2.3, 3), measure="directional") == pytest.approx(0.2 / (5 * math.sqrt(3)))
    assert difficulty("neutral", (3, 2.7, 3), measure="directional") == pytest.approx(0.2 / (5 * math.sqrt(3)))


def test_learned_prototypes_are_the_classes_means():
    classes = ("boredom", "fear")
    roll = make_roll(["fear", "fear", "boredom"], [(1, 4, 2), (2, 5, 2), (2, 2, 2)], classes=classes)
    assert measure_difficulty(DifficultyOptions(learned=True), roll).tolist() == pytest.approx(
        [math.sqrt(0.5)] * 2 + [0], abs=1e-9
    )
    with pytest.raises(ParamsError, match="has none of 'boredom'; give one, or say `learned: true`"):
        measure_difficulty(DifficultyOptions(), roll)


def test_a_corpus_without_dominance_is_measured_without():
    roll = make_roll(["neutral", "neutral"], [(3.3, 2.9, None), (3, None, None)])
    assert measure_difficulty(DifficultyOptions(), roll).tolist() == pytest.approx([0.5, math.nan], nan_ok=True)
    with pytest.raises(StoreError, match="needs an emotion and valence, dominance"):
        measure_difficulty(DifficultyOptions(dimensions=("valence", "dominance")), roll)
    with pytest.raises(StoreError, match="no training clip has them"):
        measure_difficulty(DifficultyOptions(), make_roll([None, "sad"], [(3, 3, 3), None]))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("dificulty", {}, "Unknown curriculum 'dificulty'. Did you mean 'difficulty'?"),
        ("difficulty", {"measure": "euclidian"}, f"Unknown {WHERE}.measure 'euclidian'. Did you mean 'euclidean'?"),
        ("difficulty", {"pace": "sqr"}, "Unknown pace 'sqr'. Did you mean 'sqrt'?"),
        ("difficulty", {"pace": {"name": "step", "evry": 2}}, f"Unknown parameter of {WHERE}.pace 'evry'"),
        ("random", {"pace": {"name": "root_p", "start": 0}}, f"{WHERE}.pace.start"),
        ("random", {"pace": 3}, f"{WHERE}.pace"),
        (
            "difficulty",
            {"prototypes": {"hapy": {"valence": 3}}},
            f"Unknown class in {WHERE}.prototypes 'hapy'. Did you mean 'happy'?",
        ),
        ("difficulty", {"prototypes": {"sad": {"valence": 3}}}, f"{WHERE}.prototypes.sad has no arousal"),
        ("difficulty", {"prototypes": {"sad": {"valence": 7}}}, "7.0 is not between 1.0 and 5.0"),
        ("difficulty", {"weights": {"valence": 1}}, "euclidean has no weights"),
        ("class_balance", {"order": ["neutral", "hapy"]}, f"Unknown class in {WHERE}.order 'hapy'"),
        ("class_balance", {"order": ["sad", "sad"]}, "names 'sad' twice"),
        ("preset", {}, "Unknown column of numbers in training.curriculum.options.column 'curriculum_order'. Did you mean"),
        ("preset", {"path": "none.csv"}, f"{WHERE}.path: none.csv is not there"),
        ("random", {"scaling": {"by": "clip"}}, f"Unknown {WHERE}.scaling.by 'clip'"),
    ],
)
def test_mistakes_are_one_line(name, options, said):
    roll = make_roll(CLASSES, [(3, 3, 3)] * 4, curriculum_ordr=[1.0, 2.0, 3.0, 4.0])
    with pytest.raises(ParamsError) as caught:
        build(name, roll, **options)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_paces_have_the_published_values():
    assert [round(share_seen("sqrt", epoch, 15), 3) for epoch in (0, 7)] == [0.258, 0.73]
    assert round(share_seen("linear", 0, 15), 3) == 0.067 and round(share_seen("log", 0, 15), 2) == 0.25
    assert [share_seen(pace, 14, 15) for pace in ("linear", "sqrt", "log", "none")] == [1, 1, 1, 1]
    percentiles = [round(100 * share_seen("percentile_exponential", epoch, 15), 1) for epoch in (0, 1, 2, 3, 15)]
    assert percentiles == [10.0, 11.5, 14.4, 18.0, 100.0]
    assert share_seen("percentile_linear", 5, 15) == pytest.approx(0.4)
    assert share_seen("percentile_logarithmic", 5, 15) == pytest.approx(0.1 + 0.9 / math.sqrt(3))
    step = {"name": "step", "start": 0.2, "increment": 0.3, "every": 2}
    assert [share_seen(step, epoch, 15) for epoch in range(7)] == pytest.approx([0.2, 0.2, 0.5, 0.5, 0.8, 0.8, 1])
    exp = {"name": "exp", "start": 0.1, "growth": 3, "every": 2}
    assert [share_seen(exp, epoch, 15) for epoch in range(7)] == pytest.approx([0.1, 0.1, 0.3, 0.3, 0.9, 0.9, 1])
    root = {"name": "root_p", "start": 0.2, "power": 3}
    assert share_seen(root, 5, 15) == pytest.approx((5 * (1 - 0.008) / 15 + 0.008) ** (1 / 3))
    assert share_seen({"name": "root_p", "start": 0.2, "power": 1e-6}, 5, 15) == pytest.approx(
        share_seen({"name": "geometric", "start": 0.2}, 5, 15), rel=1e-4
    )


@pytest.mark.parametrize("pace", sorted(PACES))
@given(epochs=st.integers(1, 60))
def test_a_share_grows_to_all(pace, epochs):
    shares = [share_seen(pace, epoch, epochs) for epoch in range(epochs + 2)]
    assert shares == sorted(shares) and 0 < shares[0] and shares[epochs:] == [1, 1]


def spread(n):
    """n clips, class by class, ever further from their prototypes."""
    labels = [CLASSES[i % 4] for i in range(n)]
    centres = {"angry": (1.8, 4.2, 4), "happy": (4, 3.8, 3.8), "neutral": (3, 2.5, 3), "sad": (1.8, 2.2, 2)}
    return labels, [tuple(v + (i + 1) * 1e-3 for v in centres[label]) for i, label in enumerate(labels)]


def test_difficulty_shows_the_easiest_first_and_inverse_the_hardest():
    roll = make_roll(*spread(1000))
    for name, seen in (("difficulty", slice(0, 258)), ("inverse", slice(1000 - 258, None))):
        weight = build(name, roll).weigh(0, targets(roll), None)
        assert int(weight.sum()) == 258 and weight[seen].all()
        assert build(name, roll).weigh(14, targets(roll), None).all()


@pytest.mark.parametrize("name", ["difficulty", "inverse"])
def test_clips_without_emotion_or_dimension_join_at_the_end(name):
    labels, points = spread(100)
    labels[3], points[50] = None, None
    points[70] = (3, None, 3)
    roll = make_roll(labels, points)
    curriculum = build(name, roll, pace={"name": "step", "start": 0.97, "increment": 0.01, "every": 1})
    assert [int(curriculum.weigh(epoch, targets(roll), None).sum()) for epoch in range(4)] == [97, 98, 99, 100]
    assert curriculum.weigh(0, targets(roll), None).eq(0).nonzero()[:, 0].tolist() == [3, 50, 70]


@pytest.mark.parametrize("name", sorted(CURRICULA.keys() - {"class_balance"}))
def test_no_class_starves_and_there_is_a_batch(name):
    """The rare class is the most difficult, the least sure, the last in every order; one has a single clip."""
    labels = ["neutral"] * 96 + ["sad"] * 3 + ["angry"]
    votes = [json.dumps({"votes": {"a": 200 - i, "b": i}}) for i in range(100)]
    extra = {"curriculum_order": list(range(100)), "labels": votes}
    roll = make_roll(labels, [(3, 2.5 + i / 200, 3) for i in range(100)], batch=16, **extra)
    last = {"emotion": torch.linspace(9, 0, 100)[:, None] * torch.nn.functional.one_hot(roll.emotion, 4)}
    slow = {"name": "geometric", "start": 0.01}
    for options, least in (({}, 2), ({"guarantee": 0}, 0)):
        seen = build(name, roll, pace=slow, **options).weigh(0, targets(roll), last)
        counts = [int(seen[roll.emotion == k].sum()) for k in (2, 3, 0)]
        assert sum(counts) >= 16
        if least:
            assert counts[0] >= 2 and counts[1] >= 2 and counts[2] == 1
        elif name not in ("random", "inverse"):
            assert counts == [16, 0, 0]


def test_classes_join_one_by_one():
    labels = ["neutral"] * 4 + ["sad"] * 3 + ["happy"] * 5 + [None]
    roll = make_roll(labels, [None] * 13)

    def seen(epoch, **options):
        weight = build("class_balance", roll, epochs=3, pace="linear", **options).weigh(epoch, targets(roll), None)
        return sorted({labels[i] or "" for i in weight.nonzero()[:, 0].tolist()})

    assert [seen(epoch) for epoch in (0, 1, 2)] == [
        ["happy", "neutral"],
        ["", "happy", "neutral", "sad"],
        ["", "happy", "neutral", "sad"],
    ]
    assert seen(0, order=["sad", "angry", "neutral"]) == ["neutral", "sad"]
    assert seen(0, order=["sad"]) == ["happy", "sad"]


def test_chance_is_the_seeds_and_never_takes_back():
    one, other = make_roll(*spread(200), seed=1), make_roll(*spread(200), seed=2)
    first = build("random", one)
    weights = [first.weigh(epoch, targets(one), None) for epoch in range(15)]
    assert all((later >= earlier).all() for earlier, later in zip(weights, weights[1:], strict=False))
    assert torch.equal(weights[0], build("random", one).weigh(0, targets(one), None))
    assert not torch.equal(weights[0], build("random", other).weigh(0, targets(one), None))


def test_loss_shows_what_is_known_best():
    labels, points = spread(100)
    roll = make_roll([*labels[:99], None], points)
    right = torch.nn.functional.one_hot(roll.emotion.clamp(min=0), 4)
    last = {"emotion": right * torch.linspace(0, 5, 100)[:, None]}
    curriculum = build("loss", roll)
    weight = curriculum.weigh(0, targets(roll), last)
    assert int(weight.sum()) == 26 and weight[99 - 26 : 99].all() and curriculum.weigh(0, targets(roll), None).all()
    assert not curriculum.weigh(13, targets(roll), last)[99] and curriculum.weigh(14, targets(roll), last).all()


def test_a_preset_order_from_the_manifest_its_labels_or_a_file(tmp_path):
    order = [3.0, None, 1.0, 2.0]
    half = {"pace": {"name": "step", "start": 0.5}, "guarantee": 0}

    def seen(**options):
        roll = make_roll(CLASSES, [None] * 4, **columns)
        return build("preset", roll, **half, **options).weigh(0, targets(roll), None).nonzero()[:, 0].tolist()

    columns = {"curriculum_order": order}
    assert seen() == [2, 3] and seen(descending=True) == [0, 3]
    columns = {"labels": ['{"curriculum_order": 3}', None, '{"curriculum_order": 1}', '{"curriculum_order": 2, "x": "y"}']}
    assert seen() == [2, 3]
    columns = {}
    file = tmp_path / "order.csv"
    file.write_text("id,curriculum_order\nc0,3\nc2,1\nc3,2\nelsewhere,0\n")
    assert seen(path=str(file)) == [2, 3]
    pl.read_csv(file).write_parquet(tmp_path / "order.parquet")
    assert seen(path=str(tmp_path / "order.parquet")) == [2, 3]
    for text, said in (
        ("id,other\nc0,1\n", "Unknown column of"),
        ("id,curriculum_order\nc0,1\nc0,2\n", "more than one row of 'c0'"),
        ("id,curriculum_order\nc0,low\n", "is not of numbers"),
        ("id,curriculum_order\nx,1\n", "no training clip has a number"),
        ("", "cannot be read"),
    ):
        file.write_text(text)
        with pytest.raises((ParamsError, StoreError), match=said):
            seen(path=str(file))


def test_disagreement_shows_what_annotators_agreed_on_first():
    votes = [{"a": 2, "b": 1}, None, {"a": 3}, ["a", "b", "c"], {"a": 2, "b": 2}, "a", {}]
    roll = make_roll(["sad"] * 7, [None] * 7, labels=[json.dumps({"votes": one}) for one in votes])
    curriculum = build("disagreement", roll, guarantee=0)
    third = math.log(3) - 2 / 3 * math.log(2)
    wanted = [third, math.nan, 0, math.log(3), math.log(2), math.nan, math.nan]
    assert curriculum.score(targets(roll), None).tolist() == pytest.approx(wanted, nan_ok=True)
    assert (
        build("disagreement", roll, guarantee=0, epochs=7, pace="linear").weigh(1, targets(roll), None).tolist()
        == [1, 0, 1] + [0] * 4
    )
    with pytest.raises(StoreError, match="no training clip has 'rated' among the manifest's labels"):
        build("disagreement", roll, votes="rated")
    with pytest.raises(StoreError, match="`labels` of c0 is no JSON"):
        build("disagreement", make_roll(["sad"], [None], labels=["{"]))


@given(values=st.lists(st.none() | st.floats(0, 4), min_size=1, max_size=30), strength=st.floats(0, 5))
def test_weights_by_sample_have_the_mean_one(values, strength):
    known = torch.tensor([float("nan") if v is None else v for v in values], dtype=torch.float64)
    weight = weigh_samples(known, torch.zeros(len(values)).long(), strength)
    assert float(weight.mean()) == pytest.approx(1) and bool((weight > 0).all())
    mean = known.nanmean()
    if mean > 0:
        want = (1 + strength * (known / mean)) / (1 + strength)
        torch.testing.assert_close(weight[~known.isnan()], want[~known.isnan()])


def test_weights_by_class_are_the_published_ones():
    emotion = torch.tensor([0, 0, 0, 2, -1])
    known = torch.tensor([0.1, 0.3, float("nan"), 0.8, float("nan")], dtype=torch.float64)
    raw = [4 / (2 * 3) + 0.75 * 0.2, 4 / (2 * 1) + 0.75 * 0.8]
    each = [2 * value / sum(raw) for value in raw]
    assert weigh_by_class(known, emotion, 0.75).tolist() == pytest.approx([each[0]] * 3 + [each[1], 1])


def test_scaling_goes_with_any_curriculum_and_fades():
    roll = make_roll(*spread(100))
    curriculum = build("random", roll, pace="none", scaling={"by": "sample", "strength": 2, "until": 4})
    weights = [curriculum.weigh(epoch, targets(roll), None) for epoch in (0, 2, 4)]
    spans = [float(weight.max() - weight.min()) for weight in weights]
    assert spans[0] > spans[1] > spans[2] == 0 and all(float(w.mean()) == pytest.approx(1) for w in weights)
    part = build("difficulty", roll, scaling={"by": "class"}).weigh(0, targets(roll), None)
    assert int((part > 0).sum()) == 26 and len(set(part[part > 0].tolist())) == 4
