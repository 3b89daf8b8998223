"""A language model that reads the rows of a film inside a prompt."""

import json

import pytest
import torch
from pydantic import ValidationError
from transformers import LlamaConfig, LlamaModel

from pipeline.errors import ParamsError
from pipeline.models.composed.model import Composed, make_projector
from pipeline.models.composed.prompt import Ask, Tokeniser, wrap
from pipeline.models.composed.readout import Absent, Readout
from pipeline.models.language import LanguageModel
from pipeline.weights import seeded
from pipeline.weights.vocabulary import read_vocabulary
from tests import tiny_language

WIDTH = 16
WIDTHS = {"image": 20, "facemae": 6, "videomae": 7, "audio": 5, "cls": 8}
COUNTS = {"image": 12, "facemae": 1, "videomae": 1, "audio": 1, "cls": 1}
TOKENISER = Tokeniser(lambda text: [3 + sum(map(ord, word)) % 60 for word in text.split()], bos=1, end=2)


def stand_in():
    return {"vocab_size": 64, "hidden_size": WIDTH, **tiny_language.SHAPE}


@pytest.fixture(scope="module")
def model():
    described = tiny_language.describe(WIDTH, 0)
    language = LanguageModel(described, tiny_language.weights_of(described), None)
    embeddings = read_vocabulary("random:0", json.dumps({"model_type": "llama"} | stand_in())).embeddings
    made = Composed(language, embeddings, {name: make_projector(name, size, WIDTH, 0) for name, size in WIDTHS.items()})
    return made.eval().requires_grad_(False)


def rows(seed=0, **changed):
    """Of every stream; `changed` seeds replace single ones."""
    found = {}
    for name, width in WIDTHS.items():
        generator = torch.Generator().manual_seed(changed.get(name, seed) * 100 + list(WIDTHS).index(name))
        found[name] = torch.randn(COUNTS[name], width, generator=generator)
    return found


def ask(said="so glad"):
    return Ask("Which emotion is it ?", "emotion", said)


def run(model, *films, said="so glad"):
    """Prompts, and the trace of all of them together."""
    prompts = [wrap(TOKENISER, {name: len(one) for name, one in film.items()}, ask(said)) for film in films]
    return prompts, model(prompts, [model.project(film) for film in films])


def read(model, readout, film, said="so glad"):
    (prompt,), trace = run(model, film, said=said)
    return readout.read([layer[0] for layer in trace], prompt)


def test_words_alone_go_through_as_in_the_library(model):
    with seeded(0):
        whole = LlamaModel._from_config(LlamaConfig(**stand_in()), attn_implementation="eager").eval()
    (prompt,), trace = run(model, {})
    theirs = whole(torch.from_numpy(prompt.ids)[None], output_hidden_states=True)
    for ours, layer in zip(trace, theirs.hidden_states, strict=True):
        torch.testing.assert_close(ours, layer, atol=1e-6, rtol=0)


def test_rows_stand_where_their_names_say(model):
    film = rows()
    (prompt,), (states, *_) = run(model, film)
    for name, values in film.items():
        projector = model.projectors[name]
        torch.testing.assert_close(states[0, prompt.places(name)], values @ projector.weight.T + projector.bias)


@pytest.mark.parametrize("changed", ["facemae", "videomae", "audio", "cls"])
def test_legacy_places_are_blind_to_all_but_the_image(model, changed):
    # `bos [INST] <video> ` is three tokens here; 6 to 9 are rows 3 to 6 of the image.
    (prompt,), _ = run(model, rows())
    low, high = prompt.spans["image"]
    assert low <= 6 and high > 9
    legacy, last = Readout(rows="legacy"), Readout(rows="last")
    one, other = rows(), rows(**{changed: 7})
    assert torch.equal(read(model, legacy, one), read(model, legacy, other))
    assert torch.equal(read(model, legacy, one), read(model, legacy, one, said="so sad and blue"))
    assert not torch.allclose(read(model, last, one), read(model, last, other))
    assert not torch.allclose(read(model, legacy, one), read(model, legacy, rows(image=7)))


def test_nothing_depends_on_neighbours_or_padding(model):
    films = [rows(0), {name: one for name, one in rows(1).items() if name in ("facemae", "cls")}, rows(2)]
    prompts, together = run(model, *films)
    for i, film in enumerate(films):
        _, alone = run(model, film)
        for ours, theirs in zip(alone, together, strict=True):
            torch.testing.assert_close(ours[0], theirs[i, : len(prompts[i])], atol=1e-5, rtol=0)


def test_readouts_by_name(model):
    film = rows()
    (prompt,), trace = run(model, film)
    layers = [layer[0] for layer in trace]
    low, high = prompt.spans["image"]
    expected = {
        Readout(): layers[-1][-1:],
        Readout(rows="mean", span="image"): layers[-1][low:high].mean(0, keepdim=True),
        Readout(rows="legacy", layer=2): layers[2][6:10],
        Readout(rows=(6, 7, 8, 9), layer=2): layers[2][6:10],
        Readout(rows=(0, -1), span="image", layer=(1, -1)): torch.cat([layers[k][[low, high - 1]] for k in (1, -1)]),
        Readout(rows="all", span="text"): layers[-1][slice(*prompt.spans["text"])],
        Readout(rows="last", span="facemae", layer=0): model.project(film)["facemae"],
    }
    for readout, wanted in expected.items():
        torch.testing.assert_close(readout.read(layers, prompt), wanted)


def test_what_is_not_there_is_said(model):
    film = {name: one for name, one in rows().items() if name != "facemae"}
    with pytest.raises(Absent, match="has no facemae"):
        read(model, Readout(rows="mean", span="facemae"), film)
    with pytest.raises(Absent, match="image has 12 places, and readout.rows asks for 12"):
        read(model, Readout(rows=(12,), span="image"), film)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"span": "facmae"}, "Did you mean 'facemae'"),
        ({"span": "answer"}, "Unknown readout.span 'answer'"),
        ({"layer": 4}, "has 3 layers; write 0 to 3"),
        ({"layer": (0, -5)}, "layer -5"),
        ({"rows": "legacy", "span": "text"}, "leave readout.span null"),
    ],
)
def test_a_readout_that_no_prompt_has_is_refused(options, message):
    with pytest.raises(ParamsError, match=message):
        Readout(**options).check(WIDTHS, 3)


def test_an_empty_list_of_places_is_refused():
    with pytest.raises(ValidationError, match="keeps nothing"):
        Readout(rows=())


def test_rows_and_places_have_to_match(model):
    film = rows()
    prompt = wrap(TOKENISER, COUNTS | {"image": 11}, ask())
    with pytest.raises(ValueError, match="image has 12 rows and 11 places"):
        model([prompt], [model.project(film)])
    with pytest.raises(ValueError, match="has no row"):
        model([prompt], [model.project({name: one for name, one in film.items() if name != "image"})])


def test_a_stand_in_depends_on_its_stream_alone():
    one, again, other = (make_projector(name, 6, WIDTH, 3) for name in ("facemae", "facemae", "videomae"))
    assert torch.equal(one.weight, again.weight) and not torch.equal(one.weight, other.weight)
