"""A conversation segment by segment: what is said is what a whole look says; how it is cut; what is kept."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline import cli
from pipeline import params as parameters
from pipeline.errors import UserError
from pipeline.features.encoders import registry
from pipeline.features.encoders.extractor import Clip, Turn
from pipeline.features.engine.forward import Forward
from pipeline.params import Stream
from pipeline.serving.predictor import Predictor
from pipeline.serving.running import RunningTrunk
from pipeline.serving.segments import cut_by_voice, read_film, read_lines, read_samples
from pipeline.serving.session import Segment, Session
from pipeline.storage.feature_store import Status
from pipeline.training.stage import train

SHAPE = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
}
SAID = [
    ("Ann", "Did it rain?"),
    ("Ben", "No, it did not."),
    ("Ann", "I am so glad!"),
    ("Ben", "Me too."),
    ("Ann", "Let us go."),
    ("Ben", "Yes."),
]


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor.load(trained.params, trained.models)


def make_trunk(**options):
    stream = {"modality": "text", "source": "x", "encoder": "trunk", "weights": "random:3", "architecture": SHAPE}
    extractor = registry.build(Stream.model_validate(stream | {"options": {"depth": 2, **options}}))
    return extractor, Forward(extractor)


@pytest.mark.parametrize("keep", ["own", "all"])
def test_a_running_trunk_gives_what_the_whole_prompt_gives(keep):
    """With earlier turns in the prompt, until it begins again with as many as it was made with."""
    window, turns = 4, 2
    whole, forward = make_trunk(turns=window, keep=keep)
    extractor, own_forward = make_trunk(turns=turns, keep=keep)
    running, held = RunningTrunk(extractor, own_forward, window), 0
    context = []
    for speaker, text in SAID:
        values, times = running.push(speaker, text, 2.0, context)
        held = held + 1 if held <= window else turns + 1  # with the turn itself
        assert running.turns == held
        clip = Clip("a", text=text, speaker=speaker, context=tuple(context[-(held - 1) :] if held > 1 else ()), duration=2.0)
        expected, at = forward([whole.prepare(clip)])[0]
        np.testing.assert_allclose(values, expected, atol=1e-4)
        np.testing.assert_array_equal(times, at)
        context.append(Turn(speaker, text))
    running.forget()
    fresh, _ = running.push(*SAID[0], 2.0)
    np.testing.assert_allclose(
        fresh, forward([whole.prepare(Clip("a", text=SAID[0][1], speaker="Ann", duration=2.0))])[0][0], atol=1e-4
    )


def test_a_silent_turn_counts_as_one():
    """As it does where the prompt is written anew: the last two turns, whether or not something was said in them."""
    extractor, forward = make_trunk(turns=2)
    running, context = RunningTrunk(extractor, forward), []
    for speaker, text in (SAID[0], (None, None), SAID[1], (None, None), (None, None), SAID[2], SAID[3], (None, None), SAID[4]):
        if text is None:
            running.pass_over()
        else:
            found, _ = running.push(speaker, text, 2.0, context)
            clip = Clip("a", text=text, speaker=speaker, context=tuple(context), duration=2.0)
            np.testing.assert_allclose(found, forward([extractor.prepare(clip)])[0][0], atol=1e-4)
        context.append(Turn(speaker, text))


def test_a_running_trunk_that_is_full_begins_again():
    extractor, forward = make_trunk(turns=0, max_length=48)
    running, context = RunningTrunk(extractor, forward, 50), []
    for speaker, text in SAID * 3:
        values, _ = running.push(speaker, text, 2.0, context)
        assert len(values) and np.isfinite(values).all() and running.turns <= 6
        context.append(Turn(speaker, text))
    long, _ = running.push("Ann", "so " * 90, 2.0, context)
    expected, _ = forward([extractor.prepare(Clip("a", text="so " * 90, speaker="Ann", duration=2.0))])[0]
    np.testing.assert_allclose(long, expected, atol=1e-4)


@pytest.mark.parametrize("number", [0, 5, 6])
def test_a_segment_is_judged_as_the_file_is(trained, predictor, number):
    row, path = trained.rows[number], trained.folder / "corpus" / f"clip{number}.mp4"
    expected = predictor.predict(path, text=row["text"])
    (segment,) = read_film(path, trained.params, 100.0)
    session = Session(predictor)
    step = session.push(segment._replace(text=row["text"]))
    assert step.emotions == pytest.approx(expected.emotions, abs=1e-4)
    assert step.dimensions == pytest.approx(expected.dimensions, abs=1e-4)
    assert {n: one.status for n, one in step.streams.items()} == {n: one.status for n, one in expected.streams.items()}
    assert step.latency > 0 and (step.number, len(session.results)) == (0, 1)


def test_a_context_sees_earlier_segments_until_a_reset(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(trained.folder)
    context = parameters.parse(
        trained.params.model_dump(mode="json") | {"context": {"name": "attention", "options": {"turns": 2}}}
    )
    train(context, out=tmp_path / "runs")
    model = Predictor.load(context, tmp_path / "runs")
    session = Session(model)
    pieces = [Segment(i, i + 1.0, text=text, speaker=speaker) for i, (speaker, text) in enumerate(SAID[:4])]
    steps = [session.push(one) for one in pieces]
    film = trained.folder / "corpus" / "clip0.mp4"
    turns = [Turn(*one) for one in SAID[:3]]
    source = model.source(film)
    expected = model.estimate(
        {
            "text": model.features(
                replace(source, spoken=replace(source.spoken, text=SAID[3][1], speaker="Ben", context=tuple(turns)))
            )[0]["text"]
        },
        model.recall(turns, "Ben"),
        0,
    )
    assert list(dict(sorted(steps[3].emotions.items())).values()) == pytest.approx(expected.probabilities.tolist(), abs=1e-5)
    alone = Session(model).push(pieces[3])
    assert alone.emotions != pytest.approx(steps[3].emotions, abs=1e-6)
    session.reset()
    assert session.push(pieces[3]).emotions == pytest.approx(alone.emotions, abs=1e-6) and session.results[0].number == 0


def test_a_segment_without_anything_is_one_line_and_the_next_goes_on(predictor):
    session = Session(predictor)
    with pytest.raises(UserError, match="the segment from 3 s has nothing this model can read .*nothing is said"):
        session.push(Segment(3, 4))
    step = session.push(Segment(4, 5, text="Hello there.", waveform=np.zeros(16000, np.float32)))
    assert step.streams["audio"].status == Status.MISSING and step.streams["audio"].reason == "the sound is silent"
    assert step.emotion in ("joy", "sadness") and step.number == 0


def test_sound_is_cut_where_it_pauses():
    rate = 1000
    tone, pause = np.sin(np.arange(rate) * 0.9).astype(np.float32), np.zeros(rate // 2, np.float32)
    pieces = cut_by_voice(np.concatenate([pause, tone, pause, tone, tone, pause]), rate)
    np.testing.assert_allclose(pieces, [(0.5, 1.5), (2.0, 4.0)], atol=0.05)
    assert cut_by_voice(np.zeros(rate), rate) == [] and cut_by_voice(np.zeros(3), rate) == []
    long = cut_by_voice(np.concatenate([tone] * 10), rate, longest=4.0)
    assert [round(end - start) for start, end in long] == [4, 4, 2] and long[0][1] == long[1][0]


def test_samples_come_in_pieces_and_half_a_sample_is_told():
    samples = (np.arange(2500) % 100 * 300).astype("<i2").tobytes()
    pieces = list(read_samples(io.BytesIO(samples), 1000, 1.0))
    assert [(one.start, one.end) for one in pieces] == [(0, 1), (1, 2), (2, 2.5)]
    np.testing.assert_allclose(np.concatenate([one.waveform for one in pieces]), np.frombuffer(samples, "<i2") / 32768)
    with pytest.raises(UserError, match="middle of one"):
        list(read_samples(io.BytesIO(samples[:-1]), 1000, 1.0))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2 is no JSON"),
        ('{"txt": "a"}', "line 2 has 'txt'; a line is an object with text, speaker, file, start, end"),
        ("[1]", "line 2 has 'list'"),
        ('{"file": "FILM", "start": 2, "end": 1}', "line 2: the cut from 2 s to 1 s is empty"),
        ('{"file": "FILM", "start": "x"}', "line 2: start and end are seconds"),
    ],
)
def test_lines_that_cannot_be_read_are_one_line(trained, line, said):
    film = str(trained.folder / "corpus" / "clip0.mp4")
    lines = ['{"text": "Hello."}', line.replace("FILM", film)]
    with pytest.raises(UserError, match=said) as fault:
        list(read_lines(lines, trained.params))
    assert "\n" not in str(fault.value)


def test_a_line_may_name_a_piece_of_a_film(trained):
    film = str(trained.folder / "corpus" / "clip2.mp4")
    (piece,) = read_lines(
        [json.dumps({"file": film, "start": 0.5, "end": 1.5, "text": "Oh.", "speaker": "Ann"}), ""], trained.params
    )
    assert (piece.start, piece.end, piece.text, piece.speaker) == (0.5, 1.5, "Oh.", "Ann")
    assert len(piece.waveform) == pytest.approx(16000, abs=1100) and len(piece.frames) == len(piece.times) == 4


def test_the_command_streams_a_film_and_lines(trained, monkeypatch):
    monkeypatch.chdir(trained.folder)
    (trained.folder / "params.yaml").write_text(json.dumps(trained.params.model_dump(mode="json")))
    run = CliRunner().invoke(cli.app, ["stream", "corpus/clip2.mp4", "--hop", "0.5"])
    assert run.exit_code == 0, run.output
    *lines, last = run.output.strip().splitlines()
    assert len(lines) == 4 and all("ms" in line and ("joy" in line or "sadness" in line) for line in lines)
    assert last.startswith("4 segments, p50 ")
    given = '{"text": "Hello."}\n{}\n{"text": "Bye.", "speaker": "Ann"}\n'
    run = CliRunner().invoke(cli.app, ["stream", "-", "--json"], input=given)
    found = [json.loads(line) for line in run.output.strip().splitlines()]
    assert [set(one) >= {"emotion", "latency"} for one in found] == [True, False, True] and "nothing this model" in found[1][
        "error"
    ]
