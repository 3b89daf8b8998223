"""params.yaml is exactly what conf/ composes to, and a wrong value is one clear line."""

import copy
import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import params
from pipeline.compose import compose, text
from pipeline.errors import ParamsError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def composed():
    return compose(folder=ROOT / "conf")


def test_committed_params_are_the_composition(composed):
    committed = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    assert committed == composed, "run `make params`"
    assert text(composed) == (ROOT / "params.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("recipe", sorted(path.stem for path in (ROOT / "conf" / "recipe").glob("*.yaml")))
def test_every_recipe_composes_to_valid_parameters(recipe):
    assert params.parse(compose([f"recipe={recipe}"], ROOT / "conf")).recipe == recipe


def flatten(values, prefix=""):
    """`{"a": {"b": 1}}` → `{"a.b": 1}`."""
    found = {}
    for name, value in values.items():
        found |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
    return found


RECORDED = json.loads((ROOT / "tests" / "recipes.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("recipe", sorted(RECORDED.keys() - {"common"}))
def test_every_recipe_composes_to_what_is_recorded(recipe):
    """However the files of conf/ share what they hold: no recipe changes unnoticed."""
    composed = compose([f"recipe={recipe}"], ROOT / "conf")
    recorded = RECORDED["common"] | RECORDED[recipe]
    found = flatten(composed)
    assert {name: found.get(name, "is gone") for name in recorded} == recorded
    assert set(composed["streams"]) == {name.split(".")[1] for name in recorded if name.startswith("streams.")}
    assert composed["protocol"].keys() == {name.split(".")[1] for name in recorded if name.startswith("protocol.")}


def test_every_recipe_is_recorded():
    assert RECORDED.keys() - {"common"} == {path.stem for path in (ROOT / "conf" / "recipe").glob("*.yaml")}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("dataset=ravdess", "dataset has been renamed; write corpus=ravdess."),
        ("~encoders", "encoders has been renamed; write ~bundle."),
        ("protocol=kfold_actor", "protocol=kfold_actor has been renamed; write protocol=kfold_speaker."),
    ],
)
def test_an_old_name_is_answered_with_the_new_one(override, said):
    with pytest.raises(ParamsError) as caught:
        compose([override], ROOT / "conf")
    assert str(caught.value) == f"{override}: {said}"


@pytest.mark.parametrize(
    ("group", "package"),
    [
        ("fusion", "fusion"),
        ("loss", "loss"),
        ("task", "task"),
        ("temporal", "temporal"),
        ("training", "training"),
        ("protocol", "protocol"),
    ],
)
def test_every_choice_of_a_group_is_valid(group, package):
    for path in (ROOT / "conf" / group).glob("*.yaml"):
        values = compose([f"{group}={path.stem}"], ROOT / "conf")
        assert params.parse(values), path


def test_streams_are_swapped_and_dropped():
    swapped = compose(["stream@streams.audio=wavlm"], ROOT / "conf")
    assert "wavlm" in swapped["streams"]["audio"]["weights"]
    assert set(compose(["~stream@streams.video"], ROOT / "conf")["streams"]) == {"audio", "text"}
    assert compose(["bundle=base"], ROOT / "conf")["streams"]["text"]["weights"].startswith("hf:")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fusoin": {}}, "unknown parameter fusoin"),
        ({"dataset": "ravdess"}, "unknown parameter dataset; it is called corpus now"),
        ({"training": {"lr": "fast"}}, "training.lr"),
        ({"training": {"lr": -1}}, "training.lr"),
        ({"streams": {}}, "streams is empty"),
        ({"temporal": {"width": 30, "heads": 4}}, "not a multiple of heads"),
        ({"task": {"emotion": False, "dimensions": []}}, "predicts nothing"),
        ({"corpus": {"name": "demo"}}, "corpus.root is missing"),
        ({"run": {"engine": "spark"}}, "run.engine"),
    ],
)
def test_a_mistake_is_one_line_naming_the_key(composed, change, said):
    values = copy.deepcopy(composed) | change
    with pytest.raises(ParamsError) as caught:
        params.parse(values)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x;touch PWNED;y", "../../evil", "/etc/x", "Audio", "a-b", "a b", "a\n", "", "1a", "ä", "$(a)"])
def test_a_name_is_only_a_word(composed, name):
    """It becomes a file and a word of a shell command."""
    values = copy.deepcopy(composed)
    audio = values["streams"].pop("audio")
    for change, key in (
        ({"streams": values["streams"] | {name: audio}}, f"streams: stream {name!r}"),
        ({"recipe": name}, "recipe"),
        ({"corpus": values["corpus"] | {"name": name}}, "corpus.name"),
    ):
        with pytest.raises(ParamsError) as caught:
            params.parse(values | change)
        said = str(caught.value)
        assert said.startswith(f"params.yaml: {key}: ") and repr(name) in said and "\n" not in said
    assert params.parse(values | {"streams": {"audio_2": audio}}).stream("audio_2")


@pytest.mark.parametrize(
    ("name", "modality"), [("audio", "video"), ("audio", "text"), ("text", "audio"), ("video", "audio"), ("face", "video")]
)
def test_a_stream_named_after_a_modality_has_it(composed, name, modality):
    values = copy.deepcopy(composed)
    values["streams"] = {name: values["streams"]["audio"] | {"modality": modality}}
    with pytest.raises(ParamsError) as caught:
        params.parse(values)
    assert f"streams.{name}.modality is {modality}" in str(caught.value) and "\n" not in str(caught.value)
    for fine, has in ((name, name), ("other", modality), ("video", "face")):
        values["streams"] = {fine: values["streams"].popitem()[1] | {"modality": has}}
        assert params.parse(values).stream(fine).modality == has


def test_a_video_encoder_under_the_name_audio_is_refused():
    with pytest.raises(ParamsError, match=r"streams\.audio\.modality is video"):
        params.parse(compose(["stream@streams.audio=clip_tiny"], ROOT / "conf"))


def test_small_numbers_survive_the_yaml_of_a_sweep(composed, tmp_path):
    values = copy.deepcopy(composed)
    values["training"]["lr"] = "1e-06"  # what a YAML 1.1 writer makes of 0.000001
    assert params.parse(values).training.lr == 1e-6


def test_unknown_stream_names_the_nearest(composed):
    with pytest.raises(ParamsError, match="Did you mean 'audio'"):
        params.parse(composed).stream("adio")


def test_absent_or_broken_file(tmp_path):
    with pytest.raises(ParamsError, match="is not there"):
        params.read(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [")
    with pytest.raises(ParamsError, match="not valid YAML"):
        params.read(tmp_path / "params.yaml")


def test_unknown_choice_is_a_line(composed):
    with pytest.raises(ParamsError, match="fusion"):
        compose(["fusion=magic"], ROOT / "conf")


@pytest.mark.parametrize(
    "loss",
    [
        {"emotion": "focal", "class_weights": False, "label_smoothing": 0.0, "gamma": 2.0, "dimensions": 1.0},
        {"emotion": {"name": "focal"}, "gamma": 2.0},
        {"dimensions": 1.0},
    ],
)
def test_the_loss_of_version_0_1_is_one_line_that_names_the_new_keys(loss):
    values = compose(folder=ROOT / "conf") | {"loss": loss}
    with pytest.raises(ParamsError) as caught:
        params.parse(values)
    said = str(caught.value)
    assert "loss.emotion.name" in said and "loss.dimensions.weight" in said and said.count("params.yaml:") == 1
