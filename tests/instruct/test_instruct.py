"""Instruction tuning on a stand-in: what is scored, learned, said and saved."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from pipeline import params as parameters
from pipeline.cli import app
from pipeline.errors import CorpusError, ParamsError, UserError, WeightsError
from pipeline.instruct import saved
from pipeline.instruct.answer import answer, fit_temperatures, measure, say
from pipeline.instruct.examples import Example, Split, make_examples, read_records, split_examples, weigh
from pipeline.instruct.folds import teach
from pipeline.instruct.labels import score_labels
from pipeline.instruct.learn import learn
from pipeline.instruct.settings import Settings
from pipeline.instruct.tutor import Tutor
from pipeline.models.composed.prompt import ANSWER, UNLABELLED
from pipeline.models.composed.speaker import Sampling, choose_token, lose
from pipeline.models.quantise import quantise_layers
from pipeline.serving.composed.items import Item
from pipeline.storage import tables

ROOT = Path(__file__).resolve().parents[2]
SHAPE = {
    "model_type": "llama",
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
    # The scores of a frozen head of small numbers are all alike, whatever is learned below it.
    "initializer_range": 0.3,
}
CLASSES = ("joy", "sadness and grief", "fear")
SAID = ["I won the prize!", "She left us.", "Who is there?", "What a day!"]
TASKS = {
    "emotion": {"questions": ["Which of {labels} is it?", "Name the emotion."], "answer": "emotion"},
    "reason": {"questions": ["Why?"], "answer": "why", "labels": False},
}


def settle(**changed):
    given = {
        "language": {
            "weights": "random:0",
            "architecture": SHAPE,
            "lora": {"r": 8, "alpha": 16, "dropout": 0.1, "targets": "all"},
        },
        "tasks": TASKS,
        "rounds": [{"tasks": ["emotion"], "epochs": 2, "lr": 1e-2}, {"tasks": ["emotion", "reason"], "epochs": 2, "lr": 5e-3}],
        "batch": 2,
        "sampling": {"max_tokens": 8},
    }
    return Settings.model_validate(given | changed)


def tabulate(count=4):
    rows = [
        {
            "id": f"c/{i}",
            "corpus": "c",
            "text": SAID[i % 4],
            "emotion": CLASSES[(0, 1, 2, 0)[i % 4]],
            "labels": json.dumps({"why": "The voice trembles."}) if i % 2 else None,
        }
        for i in range(count)
    ]
    return tables.frame(rows)


class Rows(Tutor):
    """Clips with rows of a stream, without a store."""

    def _width(self, stream):
        return 6

    def item(self, clip):
        place = int(clip.rpartition("/")[2])
        values = np.random.default_rng(place).normal(size=(1, 6)).astype(np.float32)
        return Item(clip, {} if place == 2 else {"video": values}, {}, self.clips[clip]["text"])


def open_tutor(settings=None, stir=True, kind=Rows):
    settings = settings or settle()
    known = [*CLASSES, "The voice trembles."]
    tutor = kind.open(settings, tabulate(), {"video": None} if kind is Rows else {}, CLASSES, known=known)
    if stir:  # adapters that begin as nothing are made something
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for name, value in tutor.learned().items():
                if "lora_B" in name:
                    value.copy_(torch.randn(value.shape, generator=generator) * 0.2)
    tutor.speaker.eval()
    return tutor


@pytest.fixture(scope="module")
def tutor():
    return open_tutor()


@pytest.fixture
def examples():
    return make_examples(tabulate(), settle().tasks, CLASSES, {})


def of(examples, task):
    return [one for one in examples if one.task == task]


def forward(tutor, prompt, rows):
    """(L, V) log-likelihoods of a prompt alone, with no shortcut."""
    states, mask = tutor.speaker.model.assemble([prompt], [rows])
    hidden = tutor.speaker.model.language(states, mask)[0]
    return (hidden @ tutor.speaker.head.T).log_softmax(-1)


def test_nothing_but_the_answer_and_its_end_is_learned(tutor, examples):
    prompt, _ = tutor.ask(examples[1], answer=examples[1].answer)
    wanted = [*tutor.tongue.tokeniser("sadness and grief"), 2]
    assert prompt.labels[-len(wanted) :].tolist() == wanted and len(wanted) == 4
    assert set(prompt.labels[: -len(wanted)].tolist()) == {UNLABELLED}
    asked, _ = tutor.ask(examples[1])
    assert asked.ids.tolist() == prompt.ids[: len(asked)].tolist() and ANSWER not in asked.spans


@torch.no_grad()
def test_label_scores_are_those_of_single_forwards(tutor, examples):
    some = of(examples, "emotion")
    found = score_labels(tutor, some)
    for i, example in enumerate(some):
        for k, name in enumerate(CLASSES):
            prompt, rows = tutor.ask(example, answer=name)
            told, (low, high) = forward(tutor, prompt, rows), prompt.spans[ANSWER]
            each = [float(told[place - 1, prompt.ids[place]]) for place in range(low, high)]
            assert float(found[i, k]) == pytest.approx(sum(each) / len(each), abs=1e-5)


def test_labels_of_more_tokens_are_not_the_less_likely_for_it(examples):
    """Where every token is as likely as every other, so is every label; a sum would choose the shortest."""
    tutor = open_tutor()
    tutor.speaker.head = torch.zeros_like(tutor.speaker.head)
    found = score_labels(tutor, of(examples, "emotion"))
    torch.testing.assert_close(found, torch.full((4, 3), -math.log(128)))


@torch.no_grad()
def test_a_batch_is_as_each_alone(tutor, examples):
    together = tutor.score(examples)
    for one, scores in zip(examples, together, strict=True):
        torch.testing.assert_close(tutor.score([one])[0], scores, atol=1e-5, rtol=0)


def test_weights_and_loss_by_hand(tutor, examples):
    weighed = weigh(examples)
    # Four emotions of three classes: two of joy, one each of the others. Reasons have no class.
    assert [one.weight for one in of(weighed, "emotion")] == pytest.approx([4 / 6, 4 / 3, 4 / 3, 4 / 6])
    assert {one.weight for one in of(weighed, "reason")} == {1.0}
    scores = [torch.tensor([-1.0, -3.0]), torch.tensor([-4.0])]
    assert float(lose(scores, torch.tensor([0.5, 2.0]))) == 0.5 * 2 + 2 * 4


def test_what_the_library_of_models_says_of_the_loss(tutor, examples):
    """Cross-entropy with -100 elsewhere, of one example."""
    prompt, rows = tutor.ask(examples[1], answer=examples[1].answer)
    with torch.no_grad():
        told = forward(tutor, prompt, rows)
        theirs = torch.nn.functional.nll_loss(told[:-1], torch.from_numpy(prompt.labels[1:]), ignore_index=UNLABELLED)
        ours = lose(tutor.score([examples[1]]), torch.ones(1))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_batches_and_accumulation_are_the_same_step(examples):
    settings = settle(rounds=[{"tasks": ["emotion"], "epochs": 1, "lr": 1e-2}])
    settings.language.lora.__dict__["dropout"] = 0.0
    found = []
    for batch, accumulate in ((3, 1), (1, 3)):
        tutor = open_tutor(settings.model_copy(update={"batch": batch, "accumulate": accumulate}))
        learn(tutor, Split(weigh(of(examples, "emotion")), []))
        found.append({name: value.detach().clone() for name, value in tutor.learned().items()})
    # Four examples in steps of three: the last is of one, and is taken.
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], atol=2e-4, rtol=0)


def test_four_samples_are_learned_and_said(examples):
    settings = settle(rounds=[{"tasks": ["emotion"], "epochs": 60, "lr": 1e-2, "final_lr": 1e-3}], batch=4)
    settings.language.lora.__dict__["dropout"] = 0.0
    tutor, some = open_tutor(settings, stir=False), of(examples, "emotion")
    before = {name: value.detach().clone() for name, value in tutor.learned().items()}
    frozen = {name: value.clone() for name, value in tutor.network.state_dict().items() if "lora_" not in name}
    progress = learn(tutor, Split(weigh(some), []))
    assert progress.history[-1]["train_loss"] < 0.1 < 1 < progress.history[0]["train_loss"]
    assert all(not torch.equal(before[name], value) for name, value in tutor.learned().items())
    assert all(torch.equal(frozen[name], value) for name, value in tutor.network.state_dict().items() if name in frozen)
    assert say(tutor, some) == [one.answer for one in some]
    assert score_labels(tutor, some).argmax(1).tolist() == [one.label for one in some]
    figures = measure(answer(tutor, some, {}), CLASSES)["emotion"]
    assert figures["outside"] == 0 and figures["named"]["macro_f1"] == figures["likeliest"]["macro_f1"] == 1.0


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, examples):
    split = Split(weigh(examples), of(examples, "emotion")[:2])

    class Stopped(Exception):
        pass

    def run(stop, state):
        def tell(progress):
            if len(progress.history) == stop:
                raise Stopped

        tutor = open_tutor(stir=False)
        try:
            return tutor, learn(tutor, split, state=state, about="a", on_epoch=tell)
        except Stopped:
            return None

    whole, progress = run(0, tmp_path / "whole")
    for stop in (1, 2, 3):  # within a round, at its end, within the next
        state = tmp_path / f"{stop}"
        assert run(stop, state) is None
        tutor, resumed = run(0, state)
        assert resumed.history == progress.history
        assert all(torch.equal(value, whole.learned()[name]) for name, value in tutor.learned().items())
    with pytest.raises(ParamsError, match="other settings or clips; give --fresh"):
        learn(open_tutor(stir=False), split, state=tmp_path / "1", about="b")


def test_what_is_drawn_is_drawn_again_by_its_seed(examples):
    drawn = {"temperature": 1.0, "top_p": 0.95, "max_tokens": 12}
    one, two = (open_tutor(settle(sampling=drawn | {"seed": seed})) for seed in (0, 1))
    some = of(examples, "emotion")
    assert say(one, some) == say(one, some) != say(two, some)
    # An answer does not depend on what was asked before it in a batch of its kind.
    assert say(one, some)[0] == say(one, some[:1])[0]


def test_with_a_cache_it_says_what_it_says_without(tutor, examples):
    prompt, rows = tutor.ask(examples[0])
    said = tutor.speaker.say(prompt, rows, Sampling(max_tokens=8), ())
    for n, token in enumerate(said):
        whole = replace(prompt, ids=np.concatenate([prompt.ids, np.array(said[:n], np.int64)]))
        with torch.no_grad():
            assert int(forward(tutor, whole, rows)[-1].argmax()) == token
    assert len(said) == 8


def test_sampling_keeps_to_the_likeliest():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    generator = torch.Generator().manual_seed(0)

    def drawn(**options):
        return {choose_token(logits, Sampling(temperature=1.0, **options), generator) for _ in range(300)}

    assert drawn() == {0, 1, 2, 3} and drawn(top_k=2) == {0, 1} and drawn(top_p=0.8) == {0, 1} and drawn(top_p=0.81) == {0, 1, 2}
    assert choose_token(logits, Sampling(temperature=0)) == 0


def test_answers_outside_the_list_are_counted_and_nothing_is_put_in_their_place(tutor, examples):
    some = of(examples, "emotion")
    rows = answer(tutor, some, {"emotion": 2.0})
    assert {row["named"] for row in rows} == {None}  # it has learned nothing
    figures = measure(rows, CLASSES)["emotion"]
    assert figures["outside"] == 4 and figures["outside_share"] == 1.0 and figures["named"]["accuracy"] == 0.0
    shares = score_labels(tutor, some).double().div(2).softmax(1)
    assert [row["confidence"] for row in rows] == pytest.approx(shares.max(1).values.tolist())
    mixed = [{**row, "named": name} for row, name in zip(rows, ["joy", None, "joy", "joy"], strict=True)]
    found = measure(mixed, CLASSES)["emotion"]["named"]
    # Joy: 2 of 3 claims right, both found; the two others are missed.
    assert found["accuracy"] == 0.5 and found["macro_f1"] == pytest.approx(0.8 / 3) and found["uar"] == pytest.approx(1 / 3)
    kept = answer(tutor, some, {}, constrained=True)
    assert {row["said"] for row in kept} <= set(CLASSES) and measure(kept, CLASSES)["emotion"]["outside"] == 0


def test_temperature_is_fitted_on_validation(tutor, examples):
    some = of(examples, "emotion")
    ((name, found),) = fit_temperatures(tutor, examples).items()
    scores, truth = score_labels(tutor, some).double(), torch.tensor([one.label for one in some])
    grid = np.exp(np.linspace(np.log(0.05), np.log(20), 100))
    losses = [float(torch.nn.functional.cross_entropy(scores / t, truth)) for t in grid]
    assert name == "emotion" and float(torch.nn.functional.cross_entropy(scores / found, truth)) <= min(losses) + 1e-6


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks for an old name
def test_saved_is_what_learned_and_peft_reads_it(tmp_path):
    from peft import PeftModel
    from transformers import LlamaConfig, LlamaForCausalLM

    tutor = open_tutor(kind=Tutor)
    example = Example("c/0", "emotion", "joy", 0)
    about = {"corpus": "c", "fold": 0, "train": 4, "val": 0}
    progress = type("P", (), {"history": [{"train_loss": 1.0, "val_loss": 2.0}]})
    saved.save(tmp_path / "a", tutor, progress, about, {})
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "instruct.json",
    ]
    card = (tmp_path / "a/README.md").read_text()
    record = saved.read_record(tmp_path / "a")
    assert "random:0" in card and record["digest"] in card and record["base"] in card and "licence" in card
    again = open_tutor(stir=False, kind=Tutor)
    saved.load(tmp_path / "a", again)
    prompt, rows = tutor.ask(example, answer="joy")
    with torch.no_grad():
        ours = forward(tutor, prompt, rows)
        assert torch.equal(forward(again, prompt, rows), ours)
        saved.merge(again)
        torch.testing.assert_close(forward(again, prompt, rows), ours, atol=2e-5, rtol=0)
        saved.merge(again, back=True)
        torch.testing.assert_close(forward(again, prompt, rows), ours, atol=2e-5, rtol=0)
        ids = torch.from_numpy(prompt.ids)[None]
        # The whole model with the adapters added, and the base with the adapters that PEFT reads.
        saved.export(tutor, tmp_path / "whole")
        whole = LlamaForCausalLM.from_pretrained(tmp_path / "whole").eval()
        torch.testing.assert_close(whole(ids).logits.log_softmax(-1)[0], ours, atol=2e-5, rtol=0)
        assert torch.equal(forward(tutor, prompt, rows), ours) or torch.allclose(forward(tutor, prompt, rows), ours, atol=2e-5)
        base = LlamaForCausalLM(LlamaConfig(**{k: v for k, v in SHAPE.items() if k != "model_type"}, tie_word_embeddings=True))
        frozen = {
            f"model.{name.replace('.base_layer.', '.')}": value
            for name, value in tutor.network.state_dict().items()
            if "lora_" not in name
        }
        base.load_state_dict(frozen | {"model.embed_tokens.weight": tutor.speaker.model.embeddings}, strict=False)
        theirs = PeftModel.from_pretrained(base, tmp_path / "a").eval()
        torch.testing.assert_close(theirs(ids).logits.log_softmax(-1)[0], ours, atol=2e-5, rtol=0)


def test_adapters_of_another_model_are_refused(tmp_path):
    tutor = open_tutor()
    progress = type("P", (), {"history": [{"train_loss": 1.0, "val_loss": 2.0}]})
    saved.save(tmp_path / "a", tutor, progress, {"corpus": "c", "fold": 0, "train": 4, "val": 0}, {})
    record = saved.read_record(tmp_path / "a")
    record["settings"]["language"]["weights"] = "random:1"
    with pytest.raises(WeightsError, match="taught on a language model"):
        saved.read_settings(record, tmp_path / "a")
    smaller = settle()
    smaller.language.lora.__dict__["r"] = 4
    with pytest.raises(WeightsError, match="shape"):
        saved.load(tmp_path / "a", open_tutor(smaller))


def test_records_by_clip_or_as_a_list(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"0": {"why": "A smile."}}))
    (tmp_path / "b.json").write_text(json.dumps([{"video_name": "c/0", "why": "A smile."}, {"id": "1", "emotion": "Fear."}]))
    task = {"reason": settle().tasks["reason"]}
    for name in "ab":
        records = read_records(tmp_path / f"{name}.json")
        found = make_examples(tabulate(), task, CLASSES, records)
        assert found[0] == Example("c/0", "reason", "A smile.", -1)
    emotion = make_examples(tabulate(2), {"emotion": settle().tasks["emotion"]}, CLASSES, records)
    assert [one.answer for one in emotion] == ["joy", "fear"]  # a record goes before the manifest
    for wrong in ("7", "[7]", '[{"why": "x"}]', "{}", "{"):
        (tmp_path / "c.json").write_text(wrong)
        with pytest.raises(CorpusError, match="records"):
            read_records(tmp_path / "c.json")


def test_test_clips_teach_nothing_and_a_task_without_answers_is_said():
    table = tabulate().with_columns(pl.Series("role", ["train", "train", "val", "test"]))
    split = split_examples(table, settle(), CLASSES, {})
    assert {one.clip for one in split.train} == {"c/0", "c/1"} and {one.clip for one in split.val} == {"c/2"}
    with pytest.raises(ParamsError, match="tasks.reason: no training clip has an answer under 'why'"):
        split_examples(table.with_columns(labels=pl.lit(None, pl.String)), settle(), CLASSES, {})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rounds": [{"tasks": ["other"]}]}, "rounds name the task other"),
        ({"language": {"weights": "random:0", "lora": None}}, "nothing learns"),
    ],
)
def test_settings_that_cannot_be(changed, message):
    with pytest.raises(ValueError, match=message):
        settle(**changed)


def test_too_long_a_text_is_one_line_that_names_the_clip():
    tutor = open_tutor()
    tutor.clips["c/0"]["text"] = "so " * 200
    with pytest.raises(ParamsError, match="c/0: a prompt of .* tokens, and the language model takes 128"):
        tutor.ask(Example("c/0", "emotion", "joy", 0))


def test_without_bitsandbytes_fewer_bits_are_one_line(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ParamsError, match="quantise 4bit needs bitsandbytes; run `pip install bitsandbytes`"):
        quantise_layers(torch.nn.Sequential(torch.nn.Linear(2, 2)), "4bit")


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_fewer_bits_learn_too(bits, examples):
    language = {"weights": "random:0", "architecture": SHAPE | {"hidden_size": 64, "intermediate_size": 128}, "lora": {}}
    rounds = [{"tasks": ["emotion"], "epochs": 2, "lr": 1e-2}]
    tutor, plain = (open_tutor(settle(rounds=rounds, language=language | {"quantise": one}), stir=False) for one in (bits, None))
    some = of(examples, "emotion")
    gap = (score_labels(tutor, some) - score_labels(plain, some)).abs().max()
    assert 0 < float(gap) < {"4bit": 2.0, "8bit": 0.3}[bits]
    if bits == "4bit":
        with pytest.raises(ParamsError, match="quantise 4bit learns on a GPU"):
            learn(tutor, Split(some, []))
    else:
        history = learn(tutor, Split(some, [])).history
        assert history[1]["train_loss"] < history[0]["train_loss"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "data").mkdir()
    (tmp_path / "features").mkdir()
    monkeypatch.chdir(tmp_path)
    table = tabulate(12)
    tables.write(table, "data/manifest.parquet")
    tables.write(table.select("id", *tables.LABELS), "data/truth.parquet")
    roles = [
        {"id": f"c/{i}", "fold": k, "role": ("test" if i % 2 == k else "val" if i > 9 else "train")}
        for i in range(12)
        for k in (0, 1)
    ]
    tables.write(pl.DataFrame(roles), "data/folds.parquet", sort=("fold", "id"))
    return tmp_path


def run(*words):
    done = CliRunner().invoke(app, [*map(str, words)])
    if isinstance(done.exception, UserError):
        return str(done.exception)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_folds_by_two_commands(project):
    changes = (
        "-S",
        f"tasks={json.dumps({k: v for k, v in TASKS.items() if k == 'emotion'})}",
        "-S",
        "rounds=[{tasks: [emotion]}]",
    )
    assert "models/instruct/fold_1" in run("instruct", "learn", "--settings", "tiny", *changes)
    assert "fold_0 is taught already" in run("instruct", "learn", "--settings", "tiny", *changes)
    before = (project / "models/instruct/fold_0/adapter_model.safetensors").read_bytes()
    run("instruct", "learn", "--settings", "tiny", *changes, "--out", "again", "--fold", 0)
    assert (project / "again/fold_0/adapter_model.safetensors").read_bytes() == before
    assert "outside the list" in run("instruct", "answer", "--constrained")
    figures = json.loads((project / "reports/instruct.json").read_text())
    rows = [json.loads(line) for line in (project / "reports/instruct.jsonl").read_text().splitlines()]
    assert {row["clip"]: row["fold"] for row in rows} == {f"c/{i}": i % 2 for i in range(12)}
    assert figures["all"]["emotion"]["count"] == 12 and figures["folds"]["0"]["emotion"]["count"] == 6
    assert all(row["true"] == CLASSES[(0, 1, 2, 0)[int(row["clip"][2:]) % 4]] for row in rows)
    run("instruct", "merge", "models/instruct/fold_0", "--out", "whole")
    assert (project / "whole/model.safetensors").is_file()
    run("instruct", "learn", "--settings", "tiny", *changes, "-S", "seed=1", "--fold", 0)  # other settings: taught anew
    assert (project / "models/instruct/fold_0/adapter_model.safetensors").read_bytes() != before
    assert saved.read_record(project / "models/instruct/fold_0")["settings"]["seed"] == 1
    assert "there is no fold 7" in run("instruct", "learn", "--settings", "tiny", "--fold", 7)
    assert "run `python -m pipeline instruct learn` first" in run("instruct", "answer", "--out", "nowhere")


def test_a_fold_never_sees_the_answers_of_its_test_clips(project):
    """Other truths of test clips, the same bits."""
    settings, given = settle(tasks={"emotion": TASKS["emotion"]}, rounds=[{"tasks": ["emotion"]}]), parameters.read()
    found = []
    for turned in (False, True):
        table = tabulate(12)
        if turned:
            test = pl.col("id").is_in([f"c/{i}" for i in range(0, 12, 2)])
            table = table.with_columns(pl.when(test).then(pl.lit("fear")).otherwise(pl.col("emotion")).alias("emotion"))
        tables.write(table, "data/manifest.parquet")
        assert teach(settings, given, 0, Path(f"run{turned}/fold_0"))
        found.append(Path(f"run{turned}/fold_0/adapter_model.safetensors").read_bytes())
    assert found[0] == found[1]
