"""What tells how far figures can be trusted, against values known beforehand."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from pipeline import metrics
from pipeline.errors import StoreError
from pipeline.evaluation import attribution, difficulty, selective, summary, transductive, trust, trust_panels
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.report import write_report
from pipeline.evaluation.sums import Groups
from pipeline.runs.predict import predict_clip
from pipeline.runs.run import load_run
from pipeline.storage import tables
from pipeline.storage.atomic import write_json
from pipeline.training.answers import calibration, speakers
from pipeline.training.data.dataset import Dataset
from pipeline.training.stage import train
from tests.fabricated import Fabricated

CLASSES = ("anger", "joy", "neutral", "sadness")


def judge(corpus, params, out="reports"):
    files = {name: corpus.path(f"data/{name}.parquet") for name in ("truth", "truth_annotations", "manifest", "folds")}
    return evaluate(params, corpus.path("data/index.h5"), **files, runs=corpus.path("models/runs"), out=corpus.path(out))


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    corpus = Fabricated(tmp_path_factory.mktemp("judged"), clips=90, noise=1.0)
    params = corpus.params(training={"seeds": 2, "epochs": 6, "linear": {}}, fusion={"name": "late"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFFECTORY_CACHE", str(corpus.path("cache")))
        train(params, corpus.index(params), **corpus.files, out=corpus.path("models/runs"))
    judge(corpus, params)
    return corpus, params


def read(corpus, name):
    return json.loads(corpus.path(f"reports/{name}").read_text())


def predictions(corpus, out="reports"):
    return pl.read_parquet(corpus.path(f"{out}/predictions.parquet"))


# Temperature


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (6000, 4))
    truth = np.array([rng.choice(4, p=p) for p in softmax(logits, 1)])
    found = calibration.fit_temperature(torch.from_numpy(logits * temperature), torch.from_numpy(truth))
    assert found == pytest.approx(temperature, rel=0.05)

    def loss(t):
        return -log_softmax(logits * temperature / t, 1)[np.arange(6000), truth].mean()

    assert loss(found) < min(loss(found * 1.01), loss(found / 1.01))


def test_always_right_and_never_right_end_at_the_bounds():
    logits = torch.eye(3).repeat(5, 1)
    right = logits.argmax(1)
    assert calibration.fit_temperature(logits, right) == calibration.LEAST
    assert calibration.fit_temperature(logits, (right + 1) % 3) == calibration.MOST
    assert calibration.fit_temperature(logits * 1e4, right) == calibration.LEAST, "no overflow"


def test_tempering_probabilities_is_dividing_logits():
    logits = np.random.default_rng(1).normal(0, 3, (50, 5))
    heat = np.linspace(0.3, 4, 50)
    np.testing.assert_allclose(metrics.temper(softmax(logits, 1), heat), softmax(logits / heat[:, None], 1), atol=1e-12)
    assert np.isfinite(metrics.temper([[1.0, 0.0]], [20.0])).all()


def test_temperatures_are_of_the_validation_clips(judged):
    corpus, params = judged
    data = Dataset.load(corpus.path("data/index.h5"), corpus.files["manifest"], corpus.files["folds"], params, 0)
    rows = data.rows("val")
    table = predictions(corpus)
    for seed in (0, 1):
        run = load_run(corpus.path(f"models/runs/fused/fold0/seed{seed}"))
        with torch.inference_mode():
            logits = run.model(data.batch(rows, run.streams))["emotion"]
        mine = table.filter((pl.col("variant") == "fused") & (pl.col("seed") == seed))
        assert mine["temperature"].n_unique() == 1
        assert mine["temperature"][0] == pytest.approx(calibration.fit_temperature(logits, data.emotion[rows]), rel=1e-4)


def test_the_linear_model_learned_from_validation_and_is_not_scaled(judged):
    corpus, _ = judged
    table, found = predictions(corpus), read(corpus, "metrics.json")
    assert table.filter(pl.col("variant") == "linear")["temperature"].is_null().all()
    assert "ece_scaled" in found["fused"] and "ece_scaled" not in found["linear"]
    run = load_run(corpus.path("models/runs/fused/fold0/seed0"))
    assert not calibration.learns_from_validation(run)
    run.config["params"]["training"]["refit"] = True
    assert calibration.learns_from_validation(run)


def test_the_scaled_error_is_that_of_tempered_probabilities(judged):
    corpus, _ = judged
    errors = []
    for (_,), part in predictions(corpus).filter(pl.col("variant") == "fused").group_by("seed"):
        p = metrics.temper(part.select(f"p_{c}" for c in CLASSES).to_numpy(), part["temperature"].to_numpy())
        errors.append(metrics.calibration([CLASSES.index(c) for c in part["truth"]], p)[0])
    assert read(corpus, "metrics.json")["fused"]["ece_scaled"]["mean"] == pytest.approx(np.mean(errors), abs=1e-6)


def test_held_out_labels_move_no_prediction_and_no_temperature(judged):
    corpus, params = judged
    before = predictions(corpus)
    path = corpus.path("data/truth.parquet")
    kept = path.read_bytes()
    truth = tables.read(path)
    try:
        tables.write(truth.with_columns(pl.col("emotion").reverse()), path)
        judge(corpus, params, "elsewhere")
    finally:
        path.write_bytes(kept)
    after = predictions(corpus, "elsewhere")
    assert after["truth"].to_list() != before["truth"].to_list()
    assert after.drop("truth").equals(before.drop("truth"))


# Selective accuracy


def table_of(right, sure):
    """Predictions of two classes: whether each clip is right, and how sure it is."""
    truth = ["joy" if i % 2 else "anger" for i in range(len(right))]
    other = {"joy": "anger", "anger": "joy"}
    predicted = [t if ok else other[t] for t, ok in zip(truth, right, strict=True)]
    return pl.DataFrame(
        {
            "seed": 0,
            "id": [f"c{i:03d}" for i in range(len(right))],
            "speaker": [f"s{i % 6}" for i in range(len(right))],
            "truth": truth,
            "predicted": predicted,
            "p_anger": [p if name == "anger" else 1 - p for name, p in zip(predicted, sure, strict=True)],
            "p_joy": [p if name == "joy" else 1 - p for name, p in zip(predicted, sure, strict=True)],
        }
    )


def test_the_surest_are_answered():
    right = [True] * 14 + [False] * 6
    table = table_of(right, [0.99 - 0.02 * i for i in range(20)])
    groups = Groups.of(table)
    found = summary.summarise([table], [], groups, ("anger", "joy"), ())
    assert found["accuracy_at_80"].mean == pytest.approx(14 / 16)
    assert found["uar_at_80"].mean == pytest.approx(14 / 16)
    # At k twentieths k clips are answered: right until 14, then 14 of k.
    assert found["selective_accuracy"].mean == pytest.approx(np.mean([min(1, 14 / k) for k in range(1, 21)]))
    curve = selective.draw_curve([table], groups, ("anger", "joy"), None).filter(pl.col("metric") == "accuracy")
    np.testing.assert_allclose(curve["mean"], [min(1, 14 / k) for k in range(1, 21)], atol=1e-6)
    assert curve["mean"][-1] == pytest.approx(found["accuracy"].mean, abs=1e-6)


def test_the_mistaken_confidence_of_a_liar_falls_to_the_left():
    right = [False] * 6 + [True] * 14
    table = table_of(right, [0.99 - 0.02 * i for i in range(20)])
    found = summary.summarise([table], [], Groups.of(table), ("anger", "joy"), ())
    assert found["accuracy_at_80"].mean == pytest.approx(10 / 16) and found["selective_accuracy"].mean < found["accuracy"].mean


@pytest.mark.parametrize("count, coverage, kept", [(10, 0.8, 8), (7, 0.5, 4), (20, 0.15, 3), (3, 0.05, 1), (20, 1.0, 20)])
def test_a_coverage_is_rounded_up(count, coverage, kept):
    probability = np.random.default_rng(0).dirichlet(np.ones(3), count)
    assert selective.choose_surest(probability, coverage).sum() == kept


# Shapley values


@pytest.mark.parametrize("streams", [2, 3, 4])
def test_shapley_values_are_the_mean_over_orders(streams):
    worth = np.random.default_rng(streams).normal(size=2**streams)
    gains = np.zeros(streams)
    for order in itertools.permutations(range(streams)):
        there = 0
        for stream in order:
            gains[stream] += worth[there | 1 << stream] - worth[there]
            there |= 1 << stream
    found = attribution.share_out(streams) @ worth
    np.testing.assert_allclose(found, gains / math.factorial(streams))
    assert found.sum() == pytest.approx(worth[-1] - worth[0])


def test_shapley_values_of_a_run_add_up(judged):
    corpus, _ = judged
    found = read(corpus, "trust.json")["shapley"]
    assert found["streams"] == ["audio", "text", "video"]
    assert found["full"]["mean"] == pytest.approx(read(corpus, "metrics.json")["fused"]["uar"]["mean"], abs=1e-6)
    total = sum(found["uar"][name]["mean"] for name in found["streams"])
    assert total == pytest.approx(found["full"]["mean"] - found["none"]["mean"], abs=1e-5)
    recalls = read(corpus, "per_class.json")["fused"]
    none = recall_of_none(corpus)
    for label in CLASSES:
        gained = sum(found["recall"][name][label]["mean"] for name in found["streams"])
        assert gained == pytest.approx(recalls[label]["recall"]["mean"] - none[label], abs=1e-5)


def recall_of_none(corpus):
    """Recall per class of the fused runs with every stream missing, mean over seeds."""
    found = {label: [] for label in CLASSES}
    for seed in (0, 1):
        said = predict_clip(load_run(corpus.path(f"models/runs/fused/fold0/seed{seed}")), {}).emotion
        for label in CLASSES:
            found[label].append(float(said == label))
    return {label: np.mean(values) for label, values in found.items()}


def test_what_cannot_be_shared_out_is_said():
    few = pl.DataFrame({"kept": ["audio"]})
    many = pl.DataFrame({"kept": ["a+b+c+d+e", "a+b+c+d"]})
    groups = Groups("clip", [], {}, 0)
    assert "one stream" in attribution.attribute(few, groups, CLASSES, None)["reason"]
    assert "5 streams" in attribution.attribute(many, groups, CLASSES, None)["reason"]
    assert "no classes" in attribution.attribute(few, groups, (), None)["reason"]


# Difficulty


def test_difficulty_is_the_distance_from_the_class_mean():
    names = ["valence", "arousal", "dominance"]
    manifest = pl.DataFrame(
        {
            "id": ["a", "b", "t"],
            "emotion": ["neutral"] * 3,
            "valence": [2.5, 3.5, 99],
            "arousal": [2.5] * 3,
            "dominance": [3.0] * 3,
        }
    )
    folds = pl.DataFrame({"fold": [0] * 3, "id": ["a", "b", "t"], "role": ["train", "train", "test"]})
    truth = pl.DataFrame({"id": ["t"], "emotion": ["neutral"], "valence": [3.2], "arousal": [2.3], "dominance": [3.1]})
    prototypes = difficulty.find_prototypes(manifest, folds, names)
    assert prototypes.row(0) == (0, "neutral", 3.0, 2.5, 3.0), "of training clips alone"
    found = difficulty.measure(pl.DataFrame({"id": ["t"], "fold": [0]}), truth, prototypes, names)
    assert found["difficulty"][0] == pytest.approx(0.3)


def make_hard(count=200, seeds=2):
    """Clips whose chance to be right falls with their distance from the class' mean at 0."""
    rng = np.random.default_rng(3)
    far = rng.uniform(0, 1, count)
    ids = [f"c{i:03d}" for i in range(count)]
    labels = [CLASSES[i % 2] for i in range(count)]
    truth = pl.DataFrame({"id": ids, "emotion": labels, "valence": far, "arousal": 0.0})
    trained = pl.DataFrame({"id": ["x", "y"], "emotion": list(CLASSES[:2]), "valence": [0.0, 0.0], "arousal": [0.0, 0.0]})
    manifest = pl.concat([truth.with_columns(pl.lit(None, pl.Float64).alias(n) for n in ("valence", "arousal")), trained])
    roles = pl.DataFrame({"fold": 0, "id": [*ids, "x", "y"], "role": ["test"] * count + ["train"] * 2})
    parts = [
        pl.DataFrame(
            {
                "fold": 0,
                "seed": seed,
                "id": ids,
                "truth": labels,
                "predicted": [a if rng.random() > b else CLASSES[2] for a, b in zip(labels, far, strict=True)],
            }
        )
        for seed in range(seeds)
    ]
    return parts, truth, manifest, roles, far


def test_twenty_buckets_and_their_line():
    parts, truth, manifest, roles, far = make_hard()
    table, fit = difficulty.analyse(parts, truth, manifest, roles, CLASSES)
    assert table["bucket"].to_list() == list(range(1, 21)) and table["clips"].to_list() == [10] * 20
    np.testing.assert_allclose(table["difficulty"], np.sort(far).reshape(20, 10).mean(1), atol=1e-9)
    first = np.argsort(far)[:10]
    scores = []
    for part in parts:
        chosen = part[first.tolist()]
        matrix = metrics.confusion(*([CLASSES.index(c) for c in chosen[k]] for k in ("truth", "predicted")), 4)
        scores.append(metrics.uar(matrix))
    assert table["uar"][0] == pytest.approx(np.mean(scores))
    expected = stats.pearsonr(table["difficulty"], table["uar"])
    assert fit["r"] == pytest.approx(expected.statistic, abs=1e-6) and fit["p"] == pytest.approx(expected.pvalue, abs=1e-6)
    assert fit["r"] < -0.8 and fit["slope"] < 0 and fit["clips"] == 200
    np.testing.assert_allclose(table["fitted"], np.polyval(np.polyfit(table["difficulty"], table["uar"], 1), table["difficulty"]))


def test_no_dimensions_no_difficulty_and_a_sentence():
    parts, truth, manifest, roles, _ = make_hard(40)
    bare = truth.with_columns(pl.lit(None, pl.Float64).alias(n) for n in ("valence", "arousal"))
    for given, classes, said in ((bare, CLASSES, "no valence"), (truth, (), "no classes"), (truth[:2], CLASSES, "Of 2 held-out")):
        table, fit = difficulty.analyse(parts, given, manifest, roles, classes)
        assert said in fit["reason"] and table.is_empty() and "uar" in table.columns
    constant = difficulty.fit_line(np.zeros(5), np.arange(5.0))
    assert constant == {"r": None, "p": None, "slope": None, "intercept": None}


# The speaker


def test_a_probe_names_speakers_that_are_there_and_guesses_those_that_are_not():
    rng = np.random.default_rng(0)
    speaker = np.repeat(np.arange(5), 40)
    centres = rng.normal(0, 3, (5, 12))
    there = centres[speaker] + rng.normal(size=(200, 12))
    half = np.arange(200) % 2 == 0
    assert (speakers.name_speakers(there[half], speaker[half], there[~half]) == speaker[~half]).all()
    noise = rng.normal(size=(200, 12))
    assert (speakers.name_speakers(noise[half], speaker[half], noise[~half]) == speaker[~half]).mean() < 0.4
    flat = np.ones((200, 3))
    assert (speakers.name_speakers(flat[half], speaker[half], flat[~half]) == speaker[~half]).mean() == pytest.approx(0.2)


def test_turned_into_the_span_of_its_clips_the_probe_is_the_same():
    rng = np.random.default_rng(1)
    speaker = np.repeat(np.arange(4), 10)
    wide = rng.normal(size=(80, 300))
    wide[:, :4] += 2 * np.eye(4)[np.tile(speaker, 2)]
    known, asked = (wide[:40] - wide[:40].mean(0)) / wide[:40].std(0), (wide[40:] - wide[:40].mean(0)) / wide[:40].std(0)
    plain = LogisticRegression(C=1 / (speakers.PENALTY * 40), max_iter=1000, tol=1e-8)
    expected = plain.fit(known / 300**0.5, speaker).predict(asked / 300**0.5)
    found = speakers.name_speakers(wide[:40], speaker, wide[40:])
    assert (found == expected).mean() > 0.95


def test_halves_share_no_clip_and_hold_every_speaker():
    rng = np.random.default_rng(2)
    speaker = rng.integers(-1, 30, 5000)
    known, asked = speakers.choose_clips(speaker, 0)
    assert not set(known) & set(asked) and len(known) + len(asked) <= speakers.CLIPS
    assert (
        set(speaker[known]) == set(speaker[asked]) and len(set(speaker[known])) == speakers.SPEAKERS and -1 not in speaker[known]
    )
    counts = np.bincount(speaker[known])
    assert set(counts[counts > 0]) == {4}
    assert all((a == b).all() for a, b in zip((known, asked), speakers.choose_clips(speaker, 0), strict=True))
    assert [len(part) for part in speakers.choose_clips(np.array([-1, 0, 1, 2]), 0)] == [0, 0]


def test_the_probe_of_a_run(judged):
    corpus, _ = judged
    found = read(corpus, "probe.json")
    assert found["chance"] == pytest.approx(1 / 6, abs=1e-6) and found["speakers"] == 6 and len(found["runs"]) == 2
    assert found["after"]["mean"] == pytest.approx(np.mean([run["after"] for run in found["runs"]]), abs=1e-5)
    assert 0 <= found["before"]["low"] <= found["before"]["mean"] <= found["before"]["high"] <= 1


def test_one_speaker_is_not_asked_about(fabricate):
    corpus = fabricate(clips=30)
    path = corpus.files["manifest"]
    tables.write(tables.read(path).with_columns(pl.lit("ann").alias("speaker")), path)
    params = corpus.params(training={"epochs": 1}, task={"dimensions": []})
    train(params, corpus.index(params), **corpus.files, out=corpus.path("models/runs"))
    judge(corpus, params)
    assert read(corpus, "probe.json") == {"reason": "1 training speaker with two clips or more."}
    page = write_report(params, corpus.path("data"), corpus.path("reports"), corpus.path("features")).read_text()
    assert "was not measured. 1 training speaker" in page


# Transductive


@pytest.mark.parametrize(
    "config, unit",
    [
        ({"normalise": "none"}, None),
        ({"normalise": "train"}, None),
        ({"normalise": "speaker"}, "speaker"),
        ({"normalise": "session"}, "session"),
    ],
)
def test_what_is_transductive(config, unit):
    assert transductive.find_transductive([config, dict(config)]) == unit


def test_models_of_two_kinds_cannot_stand_in_one_table():
    with pytest.raises(StoreError, match="normalised in 2 ways"):
        transductive.find_transductive([{"normalise": "train"}, {"normalise": "speaker"}])


def test_every_table_and_drawing_of_figures_says_transductive(judged):
    corpus, params = judged
    configs = list(corpus.path("models/runs").glob("*/*/*/config.json"))
    kept = {path: path.read_bytes() for path in configs}
    try:
        for path in configs:
            write_json(path, json.loads(path.read_text()) | {"normalise": "speaker"})
        judge(corpus, params, "transductive")
    finally:
        for path, content in kept.items():
            path.write_bytes(content)
    assert json.loads(corpus.path("transductive/summary.json").read_text())["transductive"] == "speaker"
    assert "transductive" not in read(corpus, "summary.json")
    page = write_report(params, corpus.path("data"), corpus.path("transductive"), corpus.path("features")).read_text()
    told = "ransductive: features normalised per speaker with unlabelled test clips"
    assert f"<strong>T{told}.</strong>" in page.split("<main>")[0]
    sections = {one.split('"')[0]: one.split("</section>")[0] for one in page.split('<section id="')[1:]}
    for name, text in sections.items():
        headings = text.count("<h2") + text.count("<h3") + text.count("<caption")
        marks = text.count(f'title="t{told}"')
        assert marks == (0 if name in transductive.PLAIN else headings), name
        drawings = text.count('role="img"')
        assert text.count(f'aria-label="T{told}') == (0 if name in transductive.PLAIN else drawings), name
    plain = write_report(params, corpus.path("data"), corpus.path("reports"), corpus.path("features")).read_text()
    assert "ransductive" not in plain.split("</style>")[1].split("params.yaml of this run")[0]


# The page


def test_the_page_draws_all_of_it(judged):
    corpus, params = judged
    page = write_report(params, corpus.path("data"), corpus.path("reports"), corpus.path("features")).read_text()
    sections = {one.split('"')[0]: one.split("</section>")[0] for one in page.split('<section id="')[1:]}
    assert "Temperature scaled: ECE" in sections["calibration"] and "UAR of the clips answered" in sections["calibration"]
    assert "cannot be scaled" in sections["calibration"]
    assert "Shapley value of each stream" in sections["worth"] and "lets each stream count" in sections["worth"]
    table = predictions(corpus).filter(pl.col("variant") == "fused")
    share = table.filter(pl.col("truth") == "joy")["share_audio"].mean()
    assert f"{100 * share:.0f}&thinsp;%" in sections["worth"].split(">joy</th>")[-1].split("</tr>")[0]
    assert "Pearson r" in sections["difficulty"] or "no line" in sections["difficulty"]
    assert "a linear probe names the speaker of" in sections["speakers"]
    assert "python -m pipeline robustness" in sections["robustness"]
    wrong = page.split("gets most wrong, mean over seeds")[1].split("</table>")[0]
    means = table.group_by("id", "truth").agg(pl.col(f"p_{c}").mean() for c in CLASSES)
    bad = [
        (row[f"p_{row['truth']}"], row["id"])
        for row in means.to_dicts()
        if max(CLASSES, key=lambda c: row[f"p_{c}"]) != row["truth"]
    ]
    assert [clip in wrong for _, clip in sorted(bad)[:12]] == [True] * min(12, len(bad)) and bad


def test_what_was_said_stands_beside_a_mistake(judged):
    corpus, _ = judged
    path = corpus.files["manifest"]
    kept = path.read_bytes()
    try:
        told = pl.concat_str(pl.lit("I said  "), "id", pl.lit(" " + "and so on " * 20))
        tables.write(tables.read(path).with_columns(told.alias("text")), path)
        rows = trust_panels.show_worst(predictions(corpus), corpus.path("data"))
    finally:
        path.write_bytes(kept)
    assert rows and all(row["said"].startswith(f"I said {row['id']} and so") and len(row["said"]) == 90 for row in rows)


def test_evaluating_again_writes_the_same_bytes(judged):
    corpus, params = judged
    judge(corpus, params, "again")
    for name in (
        "trust.json",
        "probe.json",
        "metrics.json",
        "plots/selective.csv",
        "plots/difficulty.csv",
        "predictions.parquet",
    ):
        assert corpus.path(f"again/{name}").read_bytes() == corpus.path(f"reports/{name}").read_bytes(), name


def test_no_classes_is_said_in_every_panel(fabricate):
    corpus = fabricate(clips=40)
    params = corpus.params(task={"emotion": False}, training={"select": "ccc", "epochs": 1})
    train(params, corpus.index(params), **corpus.files, out=corpus.path("models/runs"))
    judge(corpus, params)
    found = read(corpus, "trust.json")
    assert all("no classes" in found[name]["reason"] for name in ("shapley", "difficulty"))
    page = write_report(params, corpus.path("data"), corpus.path("reports"), corpus.path("features")).read_text()
    assert "Shapley values: The model predicts no classes." in page and "Not drawn. The model predicts no classes." in page


def test_trust_is_written_where_it_is_named(tmp_path):
    parts, truth, manifest, roles, _ = make_hard(40)
    parts = [p.with_columns(**{f"p_{c}": pl.lit(0.25) for c in CLASSES}, speaker=pl.lit("a")) for p in parts]
    trust.write_trust(tmp_path, parts, pl.DataFrame(), {"reason": "x"}, Groups.of(parts[0]), CLASSES, (truth, manifest, roles))
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {
        "selective.csv",
        "difficulty.csv",
        "trust.json",
        "probe.json",
    }
