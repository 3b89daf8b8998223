"""params.yaml is exactly what conf/ composes to, and a wrong value is one clear line."""

import copy
import json
import re
import shlex
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


def test_every_parameter_of_phase_2_can_be_set_for_one_experiment(composed):
    """`-S temporal.pooling=statistics` wants the key to be there."""
    known = params.parse(composed)
    for group in ("task", "temporal", "training"):
        assert set(composed[group]) == set(type(getattr(known, group)).model_fields), group


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
    assert composed["protocol"].keys() >= {name.split(".")[1] for name in recorded if name.startswith("protocol.")}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("recipe=meldd", "Unknown recipe 'meldd'."),
        ("stream@streams.audio=hubrt_base", "Unknown stream 'hubrt_base'."),
        ("fusion=gatd", "Unknown fusion 'gatd'."),
    ],
)
def test_a_choice_that_is_not_there_is_answered_with_those_that_are(override, said):
    with pytest.raises(ParamsError) as caught:
        compose([override], ROOT / "conf")
    assert str(caught.value).startswith(said) and override.rpartition("=")[2][:3] in str(caught.value)[len(said) :]


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


GOOD = (ROOT / "params.yaml").read_text(encoding="utf-8")
#: Lists of lists by anchors: nine to the power of nine values.
BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{one}: &{one} [{', '.join([f'*{other}'] * 9)}]\n" for other, one in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"# only a comment\n", "holds nothing but comments"),
        (b"- recipe\n- demo\n", "holds a list"),
        (b"demo", "holds a single value"),
        (GOOD.encode() + "# caf\u00e9\n".encode("latin-1"), f"is not UTF-8 (line {GOOD.count(chr(10)) + 1})"),
        (GOOD.encode("utf-16"), "is not UTF-8 (line 1)"),
        (b"a: " + b"[" * 3000 + b"]" * 3000, "is nested too deeply"),
        ("".join(f"{' ' * i}a:\n" for i in range(60)).encode(), "is nested too deeply"),
        (b"a: &a [*a]\n", "is nested too deeply"),
        (BOMB.encode(), "has more values"),
        (GOOD.encode() + BOMB.encode(), "has more values"),
        (b"#" * 2_000_000, "bytes, which parameters never have"),
        (GOOD.replace("  min_duration", "\tmin_duration").encode(), "is not valid YAML"),
        ((GOOD + "recipe: demo\n").encode(), 'found duplicate key "recipe"'),
        (GOOD.replace("  max_rate: 0.05", "  max_rate: 0.05\n  max_rate: 1").encode(), 'found duplicate key "max_rate"'),
        (GOOD.encode() + b"\0", "is not valid YAML"),
        (b"a: !!python/object/apply:os.system [id]\n", "could not determine a constructor"),
        ((GOOD + "---\nrecipe: demo\n").encode(), "expected a single document"),
        ((GOOD + "day: 2026-99-99\n").encode(), "holds a value that YAML cannot read"),
        ((GOOD + "1: 2\n").encode(), "Keys should be strings"),
        ((GOOD + f"list: [{'1, ' * 900}]\n").encode(), "unknown parameter list"),
        (GOOD.replace("lr: 0.001", "lr: .inf").encode(), "training.lr: Input should be a finite number"),
        (GOOD.replace("silence: -70.0", "silence: .nan").encode(), "integrity.silence: Input should be a finite number"),
        (GOOD[: GOOD.index("per_dimension") + 3].encode(), "is not valid YAML"),
    ],
)
def test_whatever_the_file_has_become_is_one_line(tmp_path, content, said):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ParamsError) as caught:
        params.read(path)
    assert said in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < len(str(path)) + 500


def test_a_folder_or_a_file_nobody_may_read_is_a_line(tmp_path):
    (tmp_path / "params.yaml").mkdir()
    with pytest.raises(ParamsError, match="cannot be read"):
        params.read(tmp_path / "params.yaml")


def test_the_first_key_says_where_the_file_comes_from(composed):
    first, line = next(iter(composed)), GOOD.splitlines()[0]
    assert first == "composed" and line.startswith("composed: from conf/") and "python -m pipeline use" in line


def commands(word):
    """Every `-S` and `use` of the documentation and of the comments in conf/, as lists of overrides."""
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "conf").rglob("*.yaml"))]:
        for line in re.findall(rf"{word} [^`\n]*", path.read_text(encoding="utf-8")):
            words = shlex.split(line.split("  #")[0].rstrip(".,;:)"), comments=False)
            yield pytest.param(words, id=f"{path.name}: {' '.join(words)}"[:90])


@pytest.mark.parametrize("words", list(commands("dvc exp run")))
def test_what_the_docs_set_is_set_as_dvc_does(words):
    """Composed without the help that the pipeline's own commands give: `+` only for what adds a stream, an entry, or to a stream
    what its file does not name."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    overrides = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "-S"]
    if any("…" in one or "NAME" in one for one in overrides):
        pytest.skip("a pattern, not a command")
    overrides = [one.partition(",")[0] if "--queue" in words else one for one in overrides]
    if any(one in ("fusion=doubled",) for one in overrides):
        pytest.skip("a part of one's own")
    plus = [one for one in overrides if one.startswith("+") and not one.startswith("+streams.")]
    assert not [one for one in plus if "@" not in one and not one.endswith("={}")]
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        assert hydra_compose("config", overrides)


def test_plus_is_never_wrong(composed):
    """Which keys conf/ names is nothing to know by heart."""
    one = compose(["+corpus.options.shortest=1.0", "+training.epochs=3"], ROOT / "conf")
    assert one == compose(["corpus.options.shortest=1.0", "training.epochs=3"], ROOT / "conf")
    with pytest.raises(ParamsError, match=r"unknown parameter training\.epoch"):
        params.parse(compose(["+training.epoch=3"], ROOT / "conf"))


@pytest.mark.parametrize(
    "name", ["../evil", "x;touch PWNED", "a b", "A", "$(id)", "", "-x", "é"], ids=lambda name: ascii(name).strip("'") or "empty"
)
@pytest.mark.parametrize("key", ["recipe", "corpus.name"])
def test_a_name_set_with_s_is_a_word(composed, key, name):
    values = copy.deepcopy(composed)
    group, _, last = key.rpartition(".")
    (values[group] if group else values)[last] = name
    with pytest.raises(ParamsError, match=re.escape(key)):
        params.parse(values)


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


def test_the_output_of_a_term_may_be_written_without_quotes_in_conf():
    """YAML 1.1, which composes them, takes `on` for a truth value."""
    read = YAML(typ="safe", pure=True)
    read.version = (1, 1)
    term = read.load("{name: dice, on: emotion@audio}")
    assert True in term and params.Term(**{"name": "x"}).on is None
    assert params.Term.model_validate(term) == params.Term(name="dice", on="emotion@audio")
