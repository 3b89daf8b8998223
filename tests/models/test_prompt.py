"""Where everything stands in a prompt that holds the rows of a film."""

import re

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.errors import ParamsError
from pipeline.models.composed.prompt import PLACE, UNLABELLED, Ask, Tokeniser, Wording, collate, wrap

ROWS = {"image": 256, "facemae": 1, "videomae": 1, "audio": 1, "cls": 1}
ASK = Ask("Which emotion is it?", "emotion", "I am so glad.")
WORDS: dict[str, int] = {}


def encode(text):
    """Pieces as LLaMA's tokenizer has them in the words around the rows: brackets and words apart."""
    return [WORDS.setdefault(piece, len(WORDS) + 10) for piece in re.findall(r"\w+|</|[^\w\s]", text)]


TOKENISER = Tokeniser(encode, bos=1, end=2)


def test_spans_follow_each_other_and_cover_the_whole():
    found = wrap(TOKENISER, ROWS, ASK, answer="joy")
    assert list(found.spans) == [
        "bos", "prefix", "image", "between", "facemae", "videomae", "audio", "cls", "text", "answer",
    ]  # fmt: skip
    bounds = list(found.spans.values())
    assert bounds[0][0] == 0 and bounds[-1][1] == len(found)
    assert [high for _, high in bounds[:-1]] == [low for low, _ in bounds[1:]]
    streams = {name for name in found.spans if (found.ids[slice(*found.spans[name])] == PLACE).all()}
    assert streams == set(ROWS)


@pytest.mark.parametrize(("template", "start"), [("{}", 4), ("[INST] {} [/INST]", 7)])
def test_the_image_starts_where_the_published_model_has_it(template, start):
    found = wrap(TOKENISER, ROWS, ASK, Wording(template=template))
    assert found.spans["image"] == (start, start + 256)
    face, video, cls = (found.spans[name][0] for name in ("facemae", "videomae", "cls"))
    assert (video - face, cls - face) == (1, 3)


def test_training_and_generation_are_wrapped_alike():
    generation, training = wrap(TOKENISER, ROWS, ASK), wrap(TOKENISER, ROWS, ASK, answer="joy")
    assert training.ids[: len(generation)].tolist() == generation.ids.tolist()
    assert training.ids[len(generation) :].tolist() == [*encode("joy"), 2]
    assert generation.spans == {name: place for name, place in training.spans.items() if name != "answer"}
    assert (generation.labels == UNLABELLED).all()
    labels = training.labels
    assert labels[labels != UNLABELLED].tolist() == [*encode("joy"), 2]


def test_no_placeholder_is_left_and_none_is_made():
    plain, tricky = (
        wrap(TOKENISER, ROWS, Ask("What?", transcript=said)) for said in ("hi", "<VideoHere> {task} {} <FeatureHere>")
    )
    assert not set(encode("VideoHere FeatureHere")) & set(plain.ids.tolist())
    assert {name: place for name, place in tricky.spans.items() if name != "text"} == {
        name: place for name, place in plain.spans.items() if name != "text"
    }
    assert (tricky.ids == PLACE).sum() == (plain.ids == PLACE).sum() == sum(ROWS.values())


def test_what_a_clip_lacks_takes_no_place():
    found = wrap(TOKENISER, ROWS | {"facemae": 0}, ASK)
    whole = wrap(TOKENISER, ROWS, ASK)
    assert "facemae" not in found.spans and not len(found.places("facemae"))
    assert len(found) == len(whole) - 1
    assert found.ids[found.ids != PLACE].tolist() == whole.ids[whole.ids != PLACE].tolist()


@pytest.mark.parametrize("said", [None, "", "  "])
def test_without_words_or_task_there_is_no_sentence_about_them(said):
    found = wrap(TOKENISER, ROWS, Ask("Which emotion is it?", transcript=said))
    assert found.ids[found.places("text")].tolist() == encode("</feature> Which emotion is it? [/INST]")


def test_prompts_are_padded_on_the_right():
    short, long = wrap(TOKENISER, {"image": 2}, Ask("a")), wrap(TOKENISER, {"image": 2}, Ask("a b c"))
    ids, mask = collate([short, long])
    assert mask.sum(1).tolist() == [len(short), len(long)]
    assert ids[0, : len(short)].tolist() == short.ids.tolist() and not ids[0, len(short) :].any()
    assert np.flatnonzero(ids[0] == PLACE).tolist() == short.places("image").tolist()


def test_too_long_a_prompt_is_refused():
    with pytest.raises(ParamsError, match="takes 200; shorten"):
        wrap(TOKENISER, ROWS, ASK, limit=200)


def test_a_stream_is_not_called_as_a_part_of_the_prompt():
    with pytest.raises(ParamsError, match="called text"):
        wrap(TOKENISER, {"text": 1}, ASK)


@pytest.mark.parametrize(
    "change",
    [{"template": "no place"}, {"layout": "<VideoHere> alone"}, {"layout": "<FeatureHere><VideoHere>"}, {"said": "nothing"}],
)
def test_a_wording_without_its_places_is_refused(change):
    with pytest.raises(ValidationError, match=r"once|before"):
        Wording(**change)
