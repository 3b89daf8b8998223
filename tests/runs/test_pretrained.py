"""Exported models: read back without anything else, they say what the runs say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel

from pipeline.errors import StoreError, UserError
from pipeline.models.batch import History
from pipeline.models.registry import CONTEXTS, FUSIONS, TEMPORALS
from pipeline.models.spec import OutputSpec, PartSpec, StreamSpec, WindowSpec
from pipeline.runs.inputs import Before
from pipeline.runs.predict import average, predict_clip
from pipeline.runs.pretrained.config import AffectoryConfig
from pipeline.runs.pretrained.model import AffectoryModel
from tests.runs.exported import LONGEST, OUTPUTS, STREAMS, make_clips, make_spec, pad, save

ONE = {"outputs": {name: OUTPUTS[name] for name in ("emotion", "dimensions")}}
VARIANTS = {
    **{f"fusion {name}": make_spec(name) for name in sorted(FUSIONS)},
    **{f"temporal {name}": make_spec(temporal=PartSpec(name=name)) for name in sorted(TEMPORALS)},
    "one stream": make_spec(streams={"video": STREAMS["video"]}),
    "classes alone": make_spec(outputs={"emotion": OUTPUTS["emotion"]}, dimensions=(), base=None),
    "values alone": make_spec(outputs={"dimensions": OUTPUTS["dimensions"]}, classes=(), base=None),
    "linear": make_spec(streams={n: s.model_copy(update={"pooling": "statistics"}) for n, s in STREAMS.items()}, linear=True),
    "pooled": make_spec(streams={n: s.model_copy(update={"pooling": "mean"}) for n, s in STREAMS.items()}, base=None, **ONE),
    "places": make_spec(streams={"video": StreamSpec(width=8, levels=4, axis="space"), "text": STREAMS["text"]}),
    "prompt": make_spec(streams={"text": StreamSpec(width=5, prompted=True), "video": STREAMS["video"]}),
    "windows": make_spec(window=WindowSpec(tokens=4, stride=2, most=4)),
    "sure of it": make_spec(outputs=OUTPUTS | {"frames": OutputSpec(name="frames", size=2, options={"uncertainty": True})}),
}


def check(found, expected, clips, tolerance=1e-6):
    for i, one in enumerate(expected):
        for name in ("probabilities", "dimensions", "shares"):
            mine = getattr(found, name)
            assert (mine is None) == (getattr(one, name) is None), name
            if mine is not None:
                np.testing.assert_allclose(mine[i].detach(), getattr(one, name), rtol=0, atol=tolerance, err_msg=name)
        if one.trace is not None:
            np.testing.assert_allclose(found.trace[i, : len(one.trace)].detach(), one.trace, rtol=0, atol=tolerance)
        if one.spread is not None:
            np.testing.assert_allclose(found.spread[i, : len(one.spread)].detach(), one.spread, rtol=0, atol=10 * tolerance)


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_read_back_says_what_the_runs_say(tmp_path, name):
    """Two seeds, clips of other lengths in one padded batch, one longer than the model takes, streams that are missing."""
    spec = VARIANTS[name]
    runs = [save(tmp_path / f"seed{seed}", spec, seed) for seed in range(2)]
    AffectoryModel.of(runs).save_pretrained(tmp_path / "out")
    model = AutoModel.from_pretrained(tmp_path / "out")
    assert isinstance(model, AffectoryModel) and not model.training
    clips = make_clips(spec)
    expected = [average([predict_clip(run, clip) for run in runs]) for clip in clips]
    if spec.base is not None and "frames" in spec.outputs and not spec.linear:
        assert any(one.trace is not None for one in expected)
    with torch.inference_mode():
        check(model(**pad(spec, clips, more=2)), expected, clips)


def test_an_ensemble_with_the_linear_model_is_weighed(tmp_path):
    streams = {n: s.model_copy(update={"pooling": "statistics"}) for n, s in STREAMS.items()}
    runs = [save(tmp_path / "a", make_spec("gated")), save(tmp_path / "b", make_spec("gated"), 1)]
    runs.append(save(tmp_path / "c", make_spec(streams=streams, linear=True), 2, "linear"))
    weights = [0.25, 0.25, 0.5]
    AffectoryModel.of(runs, weights).save_pretrained(tmp_path / "out")
    model, clips = AffectoryModel.from_pretrained(tmp_path / "out"), make_clips(make_spec())
    expected = [average([predict_clip(run, clip) for run in runs], weights) for clip in clips]
    found = model(**pad(make_spec(), clips))
    check(found, expected, clips)
    np.testing.assert_allclose(found.logits.softmax(-1).detach(), found.probabilities.detach(), atol=1e-6)


@pytest.mark.parametrize("name", sorted(CONTEXTS))
def test_earlier_turns_are_taken(tmp_path, name):
    spec = make_spec(context=PartSpec(name=name, options={"turns": 2}), turns=(2, 0))
    run = save(tmp_path / "run", spec)
    AffectoryModel.of([run]).save_pretrained(tmp_path / "out")
    model, clips = AffectoryModel.from_pretrained(tmp_path / "out"), make_clips(spec, lengths=(3, 4, 5))
    expected = predict_clip(run, clips[2], [Before(clips[0], 1), Before(clips[1], 0)])
    history = History(torch.tensor([[0, 1, 2]]), torch.tensor([[1, 0, 0]]), 2)
    check(model(**pad(spec, clips), history=history), [expected], clips[2:])
    alone = model(**pad(spec, clips[2:]))
    check(alone, [predict_clip(run, clips[2])], clips[2:])
    assert (alone.probabilities[0] - torch.from_numpy(expected.probabilities)).abs().max() > 1e-4


def test_the_configuration_names_classes_and_streams(tmp_path):
    AffectoryModel.of([save(tmp_path / "run", make_spec())]).save_pretrained(tmp_path / "out")
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert isinstance(config, AffectoryConfig) and config.id2label == {0: "a", 1: "b", 2: "c"} and config.label2id["c"] == 2
    assert config.dimensions == ["valence", "arousal"] and config.streams == {"audio": [3, 6], "text": [5], "video": [8]}
    assert config.members[0]["max_tokens"] == LONGEST and config.architectures == ["AffectoryModel"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]


def test_frozen_layers_of_a_language_model_are_not_in_the_folder(tmp_path):
    AffectoryModel.of([save(tmp_path / "run", make_spec("llama"))]).save_pretrained(tmp_path / "out")
    model = AffectoryModel.from_pretrained(tmp_path / "out")
    saved = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert saved < 4 * sum(value.numel() for value in model.state_dict().values())
    assert set(model.learned()) < set(model.state_dict())


def test_it_learns_on(tmp_path):
    """What is read is a module like any other: gradients reach all that was learned."""
    AffectoryModel.of([save(tmp_path / "run", make_spec("gated"))]).save_pretrained(tmp_path / "out")
    model = AffectoryModel.from_pretrained(tmp_path / "out")
    found = model(**pad(make_spec(), make_clips(make_spec(), lengths=(5, 6, 5))))
    (found.logits.sum() + found.dimensions.sum() + found.trace.sum()).backward()
    assert all(value.grad is not None for value in model.parameters())


def test_it_is_read_without_parameters_or_stores(tmp_path):
    """In an empty folder, by a program that imports the class alone."""
    AffectoryModel.of([save(tmp_path / "run", make_spec("gated"))]).save_pretrained(tmp_path / "out")
    code = (
        "import sys, torch; from pipeline.runs.pretrained.model import AffectoryModel\n"
        f"model = AffectoryModel.from_pretrained({str(tmp_path / 'out')!r})\n"
        "print(model({'text': torch.zeros(1, 2, 5)}, times={'text': torch.zeros(1, 2, 2)}).probabilities.sum().item())\n"
        "assert not {'dvc', 'pipeline.data', 'pipeline.features', 'pipeline.training'} & set(sys.modules)"
    )
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-c", code]
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(command, cwd=tmp_path / "empty", env={"PYTHONPATH": root}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda given: given["values"].update(smell=torch.zeros(2, 1, 3)), "Unknown stream 'smell'"),
        (lambda given: given["values"].clear(), "no stream was given"),
        (lambda given: given["values"].update(text=torch.zeros(2, 1, 7)), r"stream text has values of shape \(2, 1, 7\)"),
        (lambda given: given["values"].update(text=torch.zeros(3, 1, 5)), "stream text has values of shape"),
        (lambda given: given["times"].pop("video"), "stream video is without times"),
        (lambda given: given["mask"].update(video=torch.ones(2, 99)), "mask of stream video"),
    ],
)
def test_features_that_do_not_fit_are_one_line(tmp_path, change, line):
    model = AffectoryModel.of([save(tmp_path / "run", make_spec())])
    given = pad(make_spec(), make_clips(make_spec(), lengths=(3, 4)))
    change(given)
    if not given["values"]:
        given = {"values": {}}
    with pytest.raises(UserError, match=line):
        model(**given)


def test_a_folder_that_is_none_or_is_damaged_is_one_line(tmp_path):
    with pytest.raises(StoreError, match="no exported model"):
        AffectoryModel.from_pretrained(tmp_path)
    AffectoryModel.of([save(tmp_path / "run", make_spec())]).save_pretrained(tmp_path / "out")
    with pytest.raises(UserError, match="Unknown option of from_pretrained 'revison'. Did you mean 'revision'"):
        AffectoryModel.from_pretrained(tmp_path / "out", revison="x")
    path = tmp_path / "out" / "config.json"
    config = json.loads(path.read_text())
    config["members"][0]["model"]["width"] = 32
    path.write_text(json.dumps(config))
    with pytest.raises(StoreError, match="does not fit config.json"):
        AffectoryModel.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize("unit", ["speaker", "session"])
def test_features_normalised_by_speaker_are_refused(tmp_path, unit):
    with pytest.raises(UserError, match=f"normalised over all clips of a {unit}"):
        AffectoryModel.of([save(tmp_path / "run", make_spec(), normalise=unit)])
