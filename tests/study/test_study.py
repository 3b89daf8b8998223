"""Studies on trained runs of fabricated features."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline import params as parameters
from pipeline.compose import compose
from pipeline.errors import ParamsError, StoreError
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.intervals import Interval
from pipeline.features.encoders.registry import read_streams
from pipeline.models.registry import FUSIONS
from pipeline.params import Params
from pipeline.study import ask
from pipeline.study.answer import Answer, Held, answer
from pipeline.study.definition import Entry, Question, Study, make_study, read_study
from pipeline.study.figures import Row
from pipeline.study.holm import correct
from pipeline.study.settings import Setting, list_settings
from pipeline.study.tell import conclude, note
from pipeline.training.sources import Sources
from pipeline.training.stage import train

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # Holm (1979), by hand: 4 · 0.005, 3 · 0.01, 2 · 0.03, and 0.04 no less than the one before.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.5, 0.9], [1.0, 1.0]),
        ([float("nan"), 0.02, float("nan"), 0.04], [None, 0.04, None, 0.04]),
        ([], []),
    ],
)
def test_holm_by_hand(values, expected):
    found = [None if p != p else pytest.approx(p) for p in correct(values)]
    assert found == expected


class Asked:
    """A fabricated corpus after `train` and `evaluate`."""

    def __init__(self, corpus, **groups):
        self.corpus, self.params = corpus, corpus.params(**groups)
        index = corpus.index(self.params)
        self.sources = Sources(str(index), *(str(path) for path in corpus.files.values()))
        self.held = Held(*(str(corpus.path(f"data/{name}.parquet")) for name in ("truth", "truth_annotations")))

    def evaluate(self):
        files = self.corpus.files
        train(self.params, self.sources.index, **files, out=self.corpus.path("models/runs"))
        return evaluate(
            self.params,
            self.sources.index,
            truth=self.held.truth,
            truth_annotations=self.held.annotations,
            manifest=files["manifest"],
            folds=files["folds"],
            runs=self.corpus.path("models/runs"),
            out=self.corpus.path("reports"),
        )

    def ask(self, study, **options):
        return answer(study, self.params, self.sources, self.held, conf=ROOT / "conf", **options)

    def run(self, *words, **options):
        out = self.corpus.path("reports")
        return list(ask.run(words, self.params, sources=self.sources, held=self.held, conf=ROOT / "conf", out=out, **options))

    def runs(self):
        return sorted(path.name for path in self.corpus.folder.parent.joinpath("cache/runs").iterdir())


def rows_of(found):
    return {row.setting.name: row for one in found.answers for row in one.rows}


def test_sets_of_streams_are_the_runs_and_figures_of_train_and_evaluate(fabricate):
    asked = Asked(fabricate(clips=45), training={"seeds": 2, "epochs": 1, "unimodal": True, "linear": {}})
    scored, before = asked.evaluate(), asked.runs()
    found = asked.ask(read_study("modalities", ROOT / "conf"))
    rows = rows_of(found)
    assert list(rows) == [
        "audio + text + video",
        *("audio + text", "audio + video", "text + video"),
        *("audio", "text", "video"),
    ]
    # The whole and the streams alone were there: 3 pairs with 2 seeds are new.
    assert (found.runs, found.trained, len(set(asked.runs()) - set(before))) == (14, 6, 6)
    for name, variant in (("audio + text + video", "fused"), ("audio", "audio"), ("text", "text"), ("video", "video")):
        scored[variant].pop("ece_scaled")  # which asks the validation clips as well
        assert {m: one.rounded() for m, one in rows[name].figures.items()} == scored[variant]
    compared = json.loads(asked.corpus.path("reports/comparisons.json").read_text())
    for name in ("audio", "text", "video"):
        assert rows[name].p == pytest.approx(compared[name]["p"], abs=1e-6)
        assert rows[name].difference.mean == pytest.approx(-compared[name]["difference"], abs=1e-6)
    corrected = correct([row.p for row in rows.values()])
    assert [row.corrected for row in rows.values()][1:] == corrected[1:]
    assert asked.ask(read_study("modalities", ROOT / "conf")).trained == 0


def test_what_is_predicted_over_time_is_judged_by_its_frames(fabricate):
    task, loss = {"level": "frame", "emotion": False}, {name: {"name": "concordance"} for name in ("frames", "dimensions")}
    training = {"seeds": 2, "epochs": 2, "select": "ccc"}
    asked = Asked(fabricate(clips=30, folds=5), task=task, loss=loss, training=training)
    scored = asked.evaluate()["fused"]
    (one,) = asked.ask(make_study(["training.lr=0.001,0.01"])).answers
    same, other = one.rows
    assert one.metric == "frame_ccc" and same.figures["frame_ccc"] == same.figure
    assert {name: value.rounded() for name, value in same.figures.items()} == {
        name: {key: value[key] for key in Interval._fields} for name, value in scored.items() if name in same.figures
    }
    assert other.difference.mean == pytest.approx(other.figure.mean - same.figure.mean) and other.difference.bounded
    tried = Question(question="?", settings=(Entry(name="network"), Entry(name="linear", variant="linear")))
    (one,) = asked.ask(Study(name="networks", questions=(tried,))).answers
    assert one.metric == "ccc", "the linear model says nothing over time"
    assert all(row.figure.bounded for row in one.rows)


def test_the_page_keeps_earlier_studies_and_the_models_are_left_alone(fabricate):
    asked = Asked(fabricate(clips=60), training={"seeds": 2, "epochs": 1})
    asked.evaluate()
    others = {p: p.read_bytes() for p in asked.corpus.folder.rglob("*") if p.is_file()}
    said = "".join(asked.run("seeds", "training.lr=0.001,0.01"))
    assert "2 seeds" in said and "lr 0.01" in said and "No difference to" in said
    changed = {p for p in asked.corpus.folder.rglob("*") if p.is_file() and others.get(p) != p.read_bytes()}
    assert {p.relative_to(asked.corpus.folder).as_posix() for p in changed} == {
        f"reports/study.{kind}" for kind in ("json", "csv", "html")
    }
    page = asked.corpus.path("reports/study.html").read_text()
    assert page.index('id="sweep"') < page.index('id="seeds"') and "http" not in page.replace("http-equiv", "")
    rows = asked.corpus.path("reports/study.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 + 2 and "p_holm" in rows[0]
    again = asked.run("training.lr=0.001,0.01")
    assert "2 runs" not in again[0] and ", 0 of them trained now" in again[0]
    assert asked.run("training.lr=0.001,0.01", only_plan=True)[0].startswith("sweep: 4 runs, 0 to be trained\n")
    asked.params = asked.corpus.params(training={"seeds": 1, "epochs": 1})
    asked.run("seeds")
    page = asked.corpus.path("reports/study.html").read_text()
    assert "Asked with other parameters than seeds" in page and "training.seeds" in page


def test_validation_chooses_and_is_not_the_held_out_best(fabricate):
    fusion = YAML(typ="safe").load((ROOT / "conf/fusion/concat.yaml").read_text())
    asked = Asked(fabricate(clips=60, folds=2), fusion=fusion, training={"seeds": 1, "epochs": 1})
    found = asked.ask(read_study("fusion", ROOT / "conf"))
    one = found.answers[0]
    assert one.reference.setting.name == "concat"  # the present parameters
    assert one.chosen.validation == max(row.validation for row in one.rows)
    assert one.best.figure.mean == max(row.figure.mean for row in one.rows)


def test_what_cannot_be_run_is_a_row_that_says_why(fabricate):
    asked = Asked(fabricate(clips=60), training={"seeds": 1, "epochs": 1, "select": "uar"})
    study = Study.model_validate(
        {
            "name": "mine",
            "questions": [
                {
                    "question": "?",
                    "settings": [
                        {"name": "no emotion", "set": ["task.emotion=false"]},
                        {"name": "smell", "modalities": ["smell"]},
                        {"name": "whispers", "streams": ["audio", "whispers"]},
                        {"name": "two", "streams": ["text", "audio"]},
                        {"name": "gated", "set": ["fusion=gated"]},
                        {"name": "linear", "variant": "linear"},
                        {"name": "student", "variant": "student"},
                        {"every": "context", "only": ["nothing_of_the_kind"]},
                    ],
                },
                {"question": "elsewhere?", "group": "corpus", "settings": [{"name": "x"}]},
            ],
        }
    )
    rows = rows_of(asked.ask(study))
    assert "training.select is 'uar'" in rows["no emotion"].reason
    assert rows["smell"].reason == "there is no stream of smell"
    assert rows["whispers"].reason == "there is no stream whispers"
    assert rows["two"].setting.variant.streams == ("audio", "text") and rows["two"].figure.mean > 0
    assert all(rows[name].figure.mean > 0 and not rows[name].reason for name in ("present", "gated", "linear", "student"))
    assert rows["linear"].runs == rows["student"].runs == 1
    assert rows["nothing_of_the_kind"].reason == "there is no context nothing_of_the_kind"


def test_words_of_a_row():
    params = Params.model_construct()
    ours = Row(Setting("a", params, None), Interval(0.6, 0.5, 0.7), validation=0.5, shared="speaker", runs=3)
    better = replace(ours, difference=Interval(0.1, 0.02, 0.2), p=0.01, corrected=0.03, validation=0.6, shared="")
    other = replace(better, setting=Setting("b", params, None), figure=Interval(0.7, 0.6, 0.8), corrected=0.06, validation=0.4)
    one = Answer(Question(question="?", settings=(Entry(name="a"),)), (ours, better, other), "uar", "uar")
    assert [note(one, row) for row in one.rows] == [
        "reference, transductive: features normalised within a speaker",
        "chosen on validation, differs",
        "",
    ]
    said = " ".join(conclude(one, 2))
    assert "Validation chooses a, which reaches UAR 0.600 (0.500 to 0.700)" in said
    assert "Highest on held-out clips is b with 0.700" in said and "choose on validation" in said
    assert "after Holm's correction over 2 comparisons: a (+0.100)" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fusoin",), "Unknown study 'fusoin'. Did you mean 'fusion'?"),
        (("fusion.name=concat,gatd",), "Unknown fusion 'gatd'"),
        (("fusion=concat,gatd",), "Unknown fusion 'gatd'"),
        (("training.epoch=1,2",), "unknown parameter training.epoch"),
        (("training.lr=0.1",), "a study compares several values"),
        (("training.seeds=1,2",), "the same seeds"),
        (("streams.audio.layer=1,2",), "streams.audio.layer decides features or folds"),
        (("protocol.folds=3,5",), "protocol.folds decides features or folds"),
        (("training.lr=0.1,[",), "error"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_trained(fabricate, words, said):
    asked = Asked(fabricate(clips=20))
    with pytest.raises(ParamsError) as error:
        asked.run(*words)
    assert (said in str(error.value) or said == "error") and "\n" not in str(error.value)
    assert not asked.corpus.folder.parent.joinpath("cache/runs").exists()


def test_without_features_it_is_one_line(fabricate, tmp_path):
    params = fabricate(clips=20).params()
    with pytest.raises(StoreError, match="dvc repro"):
        list(ask.run(["fusion"], params, sources=Sources(str(tmp_path / "index.h5")), conf=ROOT / "conf"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("question: Why?\nsettings: []\n", "settings"),
        ("question: Why?\nsettings: [{name: a, sett: [training.lr=1]}]\n", "sett: unknown key"),
        ("question: Why?\nsettings: [{set: [training.lr=1]}]\n", "either a name"),
        ("question: Why?\nsettings: [{name: a, streams: [x], modalities: [y]}]\n", "either `modalities` or `streams`"),
        ("question: Why?\nsettings: [{name: a}, {name: a}]\n", "two settings are named 'a'"),
        ("question: Why?\nreference: b\nsettings: [{name: a}]\n", "Unknown reference 'b'"),
        ("question: Why?\nsettings: [{every: smell}]\n", "Unknown kind in `every` 'smell'"),
        ("question: Why?\nsettings: [{name: a, variant: smell}]\n", "Unknown variant 'smell'"),
        ("question: Why?\ndefaults: {training.smell.a: 1}\nsettings: [{name: a}]\n", "there is no parameter training.smell.a"),
        ("question: Why?\nsettings: [{name: a, set: ['training.lr=1,2']}]\n", "a setting has one value"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(fabricate, tmp_path, content, said):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "mine.yaml").write_text(content)
    params = fabricate(clips=20).params()
    with pytest.raises(ParamsError) as error:
        list_settings(read_study("mine", tmp_path).questions[0], params, tmp_path)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_the_study_of_the_documentation_is_one(fabricate, tmp_path):
    block = (ROOT / "docs" / "experiments.md").read_text().split("# conf/study/mine.yaml\n")[1].split("```")[0]
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "mine.yaml").write_text(block)
    found = list_settings(read_study("mine", tmp_path).questions[0], fabricate(clips=20).params(), ROOT / "conf")
    assert [one.name for one in found] == ["present", "none", "a third", "the linear model"]
    assert found[2].params.fusion.options["modality_dropout"] == 0.3 and found[3].variant.linear


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "study").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_there_is_has_settings(fabricate, path):
    params = fabricate(clips=20).params(training={"seeds": 2})
    for question in read_study(path.stem, ROOT / "conf").questions:
        assert question.group or len(list_settings(question, params, ROOT / "conf")) > 1


def test_the_experiments_of_hlm12erc_are_those_of_its_recipe():
    """Every setting can be run on the recipe's streams, and its fusion has the published widths and heads."""
    params = parameters.parse(compose(["recipe=hlm12erc"], ROOT / "conf"))
    questions = read_study("hlm12erc", ROOT / "conf").questions
    found = {one.name: one for question in questions for one in list_settings(question, params, ROOT / "conf")}
    assert [name for name, one in found.items() if one.skipped] == []
    alone = {one.variant.streams[0] for one in found.values() if len(one.variant.streams) == 1}
    assert alone == set(params.streams) == {"text", "words", "audio", "waveform", "video", "faces"}
    cards = read_streams(ROOT / "conf/stream")
    size = {s: int(next(card["width"] for one, card in cards.values() if one == params.streams[s])) for s in params.streams}
    for name, widths in (("attention over the streams", [180, 90, 242]), ("attention 1024 wide", [361, 180, 483])):
        chosen = found[name].params
        part, names = FUSIONS.find(chosen.fusion.name), found[name].variant.streams
        fusion = part({s: size[s] for s in names}, chosen.temporal.width, 8, 0.1, part.Options(**chosen.fusion.options))
        assert (names, fusion.widths, fusion.attention.heads) == (("audio", "text", "video"), widths, 4)
    losses = {tuple(sorted(t.name for n, t in one.params.loss.items() if n[:2] == "em")) for one in found.values()}
    kinds = ("cross_entropy", "dice", "focal")
    assert losses >= {(kind,) for kind in kinds} | {(kind, "triplet") for kind in kinds}
