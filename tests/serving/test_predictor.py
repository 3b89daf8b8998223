"""Prediction on raw files: the same numbers as from the stores, and one clear line for what cannot be."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pipeline import cli
from pipeline import params as parameters
from pipeline.data.decode.errors import DecodeError
from pipeline.errors import DeviceError, StoreError, UserError
from pipeline.features import extract
from pipeline.features.encoders.extractor import Turn
from pipeline.models.model import EmotionModel
from pipeline.models.spec import PartSpec
from pipeline.params import Stream
from pipeline.runs.predict import average, predict_clip
from pipeline.runs.run import load_run
from pipeline.serving.predictor import Predictor
from pipeline.serving.show import format_json
from pipeline.serving.spoken import Spoken
from pipeline.storage.feature_store import Status, Store
from pipeline.training.stage import train


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor.load(trained.params, trained.models)


def cached(trained, clip: str) -> dict:
    """Features of a clip from the stores; streams it lacks are left out."""
    found = {}
    for name in trained.params.streams:
        entry = Store(trained.folder / "features" / f"{name}.h5")[clip]
        if entry.status == Status.OK:
            found[name] = (np.asarray(entry.values, np.float32), entry.times)
    return found


@pytest.mark.parametrize("number", [0, 1, 4, 5, 6])
def test_raw_clip_equals_cached_features(trained, predictor, number):
    """4 has no text, 5 no sound, 6 no picture."""
    row = trained.rows[number]
    features = cached(trained, row["id"])
    assert len(features) == (2 if number in (4, 5, 6) else 3)
    runs = [load_run(trained.models / "fused" / "fold0" / f"seed{s}") for s in range(2)]
    expected = average([predict_clip(run, features) for run in runs])
    found = predictor.predict(trained.folder / "corpus" / f"clip{number}.mp4", text=row["text"])
    assert found.models == 2
    assert [found.emotions[c] for c in expected.classes] == pytest.approx(expected.probabilities.tolist(), abs=1e-4)
    assert list(found.dimensions.values()) == pytest.approx(expected.dimensions.tolist(), abs=1e-4)
    if expected.trace is None:
        assert not found.trace and not len(found.times)
    else:
        np.testing.assert_allclose(np.stack(list(found.trace.values()), 1), expected.trace, atol=1e-4)
        np.testing.assert_allclose(found.times, expected.times, atol=1e-4)


@pytest.mark.parametrize("number", [0, 5, 6])
def test_features_are_the_stores(trained, predictor, number):
    """Decoding, encoder and rounding are those of training, up to the last digit of float16."""
    row = trained.rows[number]
    source = predictor.source(trained.folder / "corpus" / f"clip{number}.mp4", Spoken(row["text"]))
    found, _ = predictor.features(source)
    expected = cached(trained, row["id"])
    assert found.keys() == expected.keys()
    for name, (values, times) in found.items():
        np.testing.assert_allclose(values, expected[name][0], atol=2e-3, rtol=2e-3)
        np.testing.assert_allclose(times, expected[name][1], atol=1e-3)


def test_views_are_predicted_from_too(trained, predictor, monkeypatch):
    """Look k has view k of every stream; classes and dimensions are the mean over looks, the trace is of the clip as it is."""
    views = {"audio": ("speed:1.1", "speed:0.9"), "video": ("mirror",), "text": ()}
    encoders = {name: Stream(**stream.model_dump() | {"views": views[name]}) for name, stream in predictor.encoders.items()}
    seeing = replace(predictor, encoders=encoders)
    path, said = trained.folder / "corpus" / "clip0.mp4", Spoken(trained.rows[0]["text"])
    source = seeing.source(path, said)
    plain, _ = seeing.features(source)
    (seen,) = seeing.views_of([source], [plain])
    assert {name: list(of) for name, of in seen.items()} == {
        "audio": ["speed:0.9", "speed:1.1"],
        "video": ["mirror"],
        "text": [],
    }
    monkeypatch.chdir(trained.folder)
    store = Store(extract.extract(trained.params.model_copy(update={"streams": encoders}), "audio", out="seen.h5"))
    for name, (values, times) in seen["audio"].items():
        expected, when = store.views[name].read(store.position["clip0"])
        np.testing.assert_allclose(values, expected, atol=2e-3, rtol=2e-3)
        np.testing.assert_allclose(times, when, atol=1e-3)
    first = plain | {"audio": seen["audio"]["speed:0.9"], "video": seen["video"]["mirror"]}
    second = plain | {"audio": seen["audio"]["speed:1.1"]}
    said_of = [average([predict_clip(run, look) for run in seeing.runs]) for look in (plain, first, second)]
    found = seeing.predict(path, text=trained.rows[0]["text"])
    chances = np.mean([one.probabilities for one in said_of], 0)
    assert [found.emotions[c] for c in said_of[0].classes] == pytest.approx(chances.tolist(), abs=1e-5)
    dimensions = np.mean([one.dimensions for one in said_of], 0)
    assert list(found.dimensions.values()) == pytest.approx(dimensions.tolist(), abs=1e-5)
    np.testing.assert_allclose(np.stack(list(found.trace.values()), 1), said_of[0].trace, atol=1e-5)
    assert np.abs(said_of[0].probabilities - said_of[1].probabilities).max() > 1e-6


def test_a_clip_without_sound_has_no_views_of_it(trained, predictor):
    encoders = {name: stream.model_copy(update={"views": ("speed:0.9",)}) for name, stream in predictor.encoders.items()}
    seeing = replace(predictor, encoders={"audio": encoders["audio"], "text": predictor.encoders["text"]})
    source = seeing.source(trained.folder / "corpus" / "clip5.mp4", Spoken("I saw it."))
    plain, use = seeing.features(source)
    assert use["audio"].status == Status.MISSING and seeing.views_of([source], [plain]) == [{"text": {}}]
    assert len(seeing.looks_of([source], [plain])[0]) == 1


def test_probabilities_are_sorted_and_sum_to_one(trained, predictor):
    found = predictor.predict(trained.folder / "corpus" / "clip0.mp4", text="Hello there.")
    chances = list(found.emotions.values())
    assert sum(chances) == pytest.approx(1, abs=1e-5) and chances == sorted(chances, reverse=True)
    assert -1 <= found.valence <= 1 and -1 <= found.arousal <= 1
    assert set(found.random) == {"audio", "text", "video"}


def test_what_is_missing_is_named(trained, predictor, make_film, tmp_path):
    found = predictor.predict(make_film(tmp_path / "mute.mp4", audio=False))
    assert found.streams["video"].status == Status.OK and found.streams["video"].rows > 0
    assert found.streams["audio"] == type(found.streams["audio"])(Status.MISSING, 0, "the file has no sound")
    assert found.streams["text"].reason == "no text was given"


def test_silence_is_missing_as_in_the_manifest(predictor, make_film, tmp_path):
    found = predictor.predict(make_film(tmp_path / "silent.mp4", loud=0.0))
    assert found.streams["audio"].status == Status.MISSING and "silent" in found.streams["audio"].reason


def test_a_cut_is_a_clip_of_its_own(predictor, make_film, tmp_path):
    path = make_film(tmp_path / "long.mp4", seconds=3)
    part, whole = predictor.predict(path, start=0.5, end=1.5), predictor.predict(path)
    assert part.duration == pytest.approx(1, abs=1e-3)
    assert part.streams["video"].rows == 4 < whole.streams["video"].rows
    assert part.times.max() <= 1.01


def test_text_alone_moves_the_prediction(trained, predictor):
    path = trained.folder / "corpus" / "clip0.mp4"
    assert predictor.predict(path, text="Wonderful!").emotions != predictor.predict(path).emotions


def test_order_of_files_does_not_matter(trained, predictor):
    first, second = (trained.folder / "corpus" / f"clip{i}.mp4" for i in (0, 2))
    before = predictor.predict(first).emotions
    predictor.predict(second)
    assert predictor.predict(first).emotions == before


@pytest.mark.parametrize("start, end", [(-1, None), (2, 1), (1, 1)])
def test_empty_cut(predictor, trained, start, end):
    with pytest.raises(UserError, match="is empty; give 0 <= start < end"):
        predictor.predict(trained.folder / "corpus" / "clip0.mp4", start=start, end=end)


def test_absent_file_is_one_line(predictor, tmp_path):
    with pytest.raises(DecodeError, match=r"nowhere\.mp4.*not there") as caught:
        predictor.predict(tmp_path / "nowhere.mp4")
    assert "\n" not in str(caught.value)


def test_no_medium_is_one_line(predictor, tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("not a film " * 100)
    with pytest.raises(UserError, match=r"notes\.mp4") as caught:
        predictor.predict(path)
    assert "\n" not in str(caught.value)


def test_nothing_readable_says_why(predictor, make_film, tmp_path):
    path = make_film(tmp_path / "hush.mp4", video=False, loud=0.0)
    with pytest.raises(UserError, match="nothing this model can read .*the file has no video") as caught:
        predictor.predict(path)
    assert "\n" not in str(caught.value)


def test_untrained(trained, tmp_path):
    with pytest.raises(StoreError, match="holds no trained model. Run `dvc repro train`"):
        Predictor.load(trained.params, tmp_path)


def test_the_ensemble_on_a_raw_clip_is_half_its_networks_and_half_the_linear_model(trained, monkeypatch, tmp_path):
    monkeypatch.chdir(trained.folder)
    asked = trained.params.model_dump(mode="json")
    asked["training"] |= {"linear": {"penalty": 0.1}, "ensemble": {"linear": True}}
    params = parameters.parse(asked)
    folders = train(params, out=tmp_path / "runs")
    features = cached(trained, "clip0")
    fused = average([predict_clip(load_run(folder), features) for folder in folders[:2]])
    linear = predict_clip(load_run(folders[2]), features)
    found = Predictor.load(params, tmp_path / "runs", variant="ensemble").predict("corpus/clip0.mp4", text="I saw 0 birds today.")
    assert found.models == 3
    chances = (fused.probabilities + linear.probabilities) / 2
    assert abs(fused.probabilities - linear.probabilities).max() > 1e-3
    assert [found.emotions[c] for c in fused.classes] == pytest.approx(chances.tolist(), abs=1e-4)
    np.testing.assert_allclose(np.stack(list(found.trace.values()), 1), fused.trace, atol=1e-4)
    (trained.folder / "params.yaml").write_text(json.dumps(asked))
    result = CliRunner().invoke(cli.app, ["predict", "corpus/clip0.mp4", "--variant", "ensemble"])
    assert result.exit_code != 0 and "was trained without an ensemble" in str(result.exception)


def test_unknown_variant_and_fold(trained):
    with pytest.raises(StoreError, match="Unknown trained variant 'fusd'. Did you mean 'fused'"):
        Predictor.load(trained.params, trained.models, variant="fusd")
    with pytest.raises(StoreError, match="has no fold 3"):
        Predictor.load(trained.params, trained.models, fold=3)


def test_device_that_is_not_there(trained):
    with pytest.raises(DeviceError):
        Predictor.load(trained.params, trained.models, device="cuda:99")


def test_shares_are_those_of_the_streams_there_are(trained, predictor):
    found = predictor.predict(trained.folder / "corpus" / "clip5.mp4", text="No.")
    shares = {name: one.share for name, one in found.streams.items()}
    assert shares.pop("audio") is None  # the file has no sound
    assert sum(shares.values()) == pytest.approx(1, abs=1e-5) and all(0 < share < 1 for share in shares.values())
    shown = json.loads(format_json(found))["streams"]
    assert {name: one["share"] for name, one in shown.items()} == pytest.approx(shares | {"audio": None}, abs=1e-6)


def hearing(predictor, **options):
    """The first model, with a context that nobody trained."""
    torch.manual_seed(0)
    run = predictor.runs[0]
    context = PartSpec(name="attention", options={"turns": 2, **options})
    model = EmotionModel(run.model.spec.model_copy(update={"context": context, "turns": (2, 0)})).eval()
    return replace(predictor, runs=[replace(run, model=model)])


def test_a_context_is_given_what_was_said_before(trained, predictor):
    heard, clip = hearing(predictor, speakers=True), trained.folder / "corpus" / "clip1.mp4"
    ben, ann, eve = Turn("Ben", "Did you see it?"), Turn("Ann", "What a day!"), Turn("Eve", "Nobody asked.")

    def ask(*context, speaker="Ann", asked=heard):
        return list(asked.predict(clip, text="No.", speaker=speaker, context=context).emotions.items())

    alone = ask()
    assert ask(ben) != alone and ask(ben, ann) != ask(ann, ben)
    assert ask(eve, ben, ann) == ask(replace(eve, text="Something else."), ben, ann)  # too long ago
    assert ask(ben, ann, speaker="Ben") != ask(ben, ann, speaker="Ann")
    assert ask(ben) == ask(replace(ben, speaker="Bob"))  # who speaks counts, not how he is called
    assert ask(ben, asked=predictor) == ask(asked=predictor)  # a model without context
    turns = heard.recall([eve, ben, ann], "Ann")
    assert [set(turn.features) for turn in turns] == [{"text"}] * 2 and [turn.voice for turn in turns] == [1, 0]
    as_clip, _ = heard.features(heard.source(clip, Spoken(ann.text, ann.speaker, (eve, ben))))
    np.testing.assert_array_equal(turns[1].features["text"][0], as_clip["text"][0])


def test_attention_is_written_on_request(trained, predictor, tmp_path):
    heard, clip = hearing(predictor), trained.folder / "corpus" / "clip1.mp4"
    heard.predict(clip, text="No.", context=[Turn(None, "Why?")], attention=tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as found:
        maps = {name: found[name] for name in found.files if not name.startswith("times.")}
        times = {name.removeprefix("times."): found[name] for name in found.files if name.startswith("times.")}
    with pytest.raises(UserError, match=r"nowhere/a.npz cannot be written: No such file"):
        heard.predict(clip, text="No.", attention=tmp_path / "nowhere" / "a.npz")
    assert set(maps) == {"context.attention", *(f"encoders.{name}.blocks.0.attention" for name in predictor.encoders)}
    assert maps["context.attention"].shape == (2, 1, 2) and set(times) == set(predictor.encoders)
    for name in times:
        weights = maps[f"encoders.{name}.blocks.0.attention"][:, : len(times[name]), : len(times[name])]
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)


def test_command_line(trained, monkeypatch):
    monkeypatch.chdir(trained.folder)
    (trained.folder / "params.yaml").write_text(json.dumps(trained.params.model_dump(mode="json")))
    result = CliRunner().invoke(cli.app, ["predict", "corpus/clip5.mp4", "--json"])
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["streams"]["audio"]["reason"] == "the file has no sound" and set(found["emotions"]) == {
        "joy",
        "sadness",
    }
    result = CliRunner().invoke(cli.app, ["predict", "corpus/clip5.mp4", "--text", "What a day!"])
    assert "without audio: the file has no sound" in result.stdout and "random weights" in result.stdout
