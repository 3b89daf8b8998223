"""The whole model, every fusion: invariances, gradients, missing streams, time."""

import pytest
import torch
from torch import nn

from pipeline.errors import ParamsError
from pipeline.models.batch import History, Inputs, Tokens, drop_streams
from pipeline.models.model import EmotionModel
from pipeline.models.pooled import pool_tokens
from pipeline.models.registry import FUSIONS
from pipeline.models.spec import ModelSpec, OutputSpec, PartSpec, StreamSpec
from pipeline.models.stream import StreamEncoder
from tests.tiny_language import build_with_language, find_dead

NAMES = sorted(FUSIONS)
STREAMS = {"audio": StreamSpec(width=6, levels=3), "text": StreamSpec(width=5), "video": StreamSpec(width=8)}
OUTPUTS = {
    "emotion": OutputSpec(name="emotion", size=3),
    "dimensions": OutputSpec(name="dimensions", size=2),
    "frames": OutputSpec(name="frames", size=2),
}


def make(name, options=None, **changes):
    torch.manual_seed(0)
    fields = {
        "streams": STREAMS,
        "width": 16,
        "heads": 2,
        "layers": 1,
        "fusion": PartSpec(name=name, options=options or {}),
        "dropout": 0.1,
        "outputs": OUTPUTS,
        "classes": ("a", "b", "c"),
        "dimensions": ("valence", "arousal"),
        "base": "video",
    }
    return build_with_language(ModelSpec(**{**fields, **changes}))


def batch(size=8, length=5, *, holes=True, seed=1):
    """Tokens of random length; with holes, clip i lacks the streams of the bits of i (clip 7 lacks all)."""
    generator = torch.Generator().manual_seed(seed)
    result = {}
    for bit, (name, spec) in enumerate(STREAMS.items()):
        shape = (spec.levels, spec.width) if spec.levels else (spec.width,)
        lengths = torch.randint(1, length + 1, (size,), generator=generator)
        if holes:
            lengths = lengths * torch.tensor([not i >> bit & 1 for i in range(size)])
        mask = torch.arange(length) < lengths[:, None]
        values = torch.randn(size, length, *shape, generator=generator)
        starts = torch.arange(length).float().expand(size, length)
        result[name] = Tokens(
            values * mask.reshape(size, length, *[1] * len(shape)), mask, torch.stack([starts, starts + 1], -1) * 0.5
        )
    return Inputs(result)


def pick(inputs, rows):
    return Inputs({name: Tokens(*(x[rows] for x in t)) for name, t in inputs.streams.items()})


def change(inputs, stream, **fields):
    return Inputs(inputs.streams | {stream: inputs.streams[stream]._replace(**fields)})


@pytest.mark.parametrize("name", NAMES)
def test_shapes_bounds_and_finite_whatever_is_missing(name):
    output = make(name).eval()(batch())
    assert output["emotion"].shape == (8, 3) and output["dimensions"].shape == (8, 2)
    assert output["frames"].shape == (8, 5, 2) and output["embedding"].shape == (8, 16)
    assert all(torch.isfinite(x).all() for x in output.values())
    assert output["dimensions"].abs().max() <= 1 and output["frames"].abs().max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_no_clip_depends_on_its_neighbours(name):
    model, inputs = make(name).eval(), batch()
    whole = model(inputs)
    for order in ([7, 6, 5, 4, 3, 2, 1, 0], [3, 0, 7, 1]):
        for key, value in model(pick(inputs, order)).items():
            torch.testing.assert_close(value, whole[key][order], atol=1e-5, rtol=0)
    for i in range(8):
        for key, value in model(pick(inputs, [i])).items():
            torch.testing.assert_close(value[0], whole[key][i], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing(name):
    model, inputs = make(name).eval(), batch()
    padded = {}
    for key, t in inputs.streams.items():
        junk = torch.full((8, 4, *t.values.shape[2:]), 1e3)
        padded[key] = Tokens(
            torch.cat([t.values, junk], 1),
            torch.cat([t.mask, torch.zeros(8, 4).bool()], 1),
            torch.cat([t.times, torch.full((8, 4, 2), 77.0)], 1),
        )
    found, whole = model(Inputs(padded)), model(inputs)
    torch.testing.assert_close(found["emotion"], whole["emotion"], atol=1e-5, rtol=0)
    torch.testing.assert_close(found["dimensions"], whole["dimensions"], atol=1e-5, rtol=0)
    torch.testing.assert_close(found["frames"][:, :5], whole["frames"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name):
    model = make(name, dropout=0.0).train()
    output = model(batch())
    weight = torch.randn(output["emotion"].shape)
    ((output["emotion"] * weight).sum() + output["dimensions"].square().sum() + output["frames"].square().sum()).backward()
    dead = find_dead(model)
    assert dead == []


@pytest.mark.parametrize("name", NAMES)
def test_values_of_a_missing_stream_are_not_read(name):
    model, inputs = make(name).eval(), batch()
    hidden = drop_streams(inputs, ["audio"])
    other = change(hidden, "audio", values=torch.full_like(hidden.streams["audio"].values, 9.0))
    for key in ("emotion", "dimensions", "frames"):
        torch.testing.assert_close(model(hidden)[key], model(other)[key])
    assert not torch.allclose(model(hidden)["emotion"][:1], model(inputs)["emotion"][:1])


@pytest.mark.parametrize("name", NAMES)
def test_every_present_stream_matters(name):
    model, inputs = make(name).eval(), batch(holes=False)
    whole = model(inputs)
    for stream in STREAMS:
        found = model(change(inputs, stream, values=inputs.streams[stream].values.flip(-1) * 2))
        for key in ("emotion", "frames"):
            assert not torch.allclose(found[key], whole[key], atol=1e-4), (stream, key)


@pytest.mark.parametrize("layers", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_a_quarter_second_of_sound_moves_the_frames_it_overlaps_most(name, layers):
    """Sound at 4 rows a second, seven frames of half a second: a change at either end is felt most at that end."""
    model = make(name, layers=layers).eval()
    times = torch.arange(14)[None].float() / 4
    sound = Tokens(torch.randn(1, 14, 3, 6), torch.ones(1, 14).bool(), torch.stack([times, times + 0.25], -1))
    moments = torch.arange(7)[None].float() / 2
    video = Tokens(torch.randn(1, 7, 8), torch.ones(1, 7).bool(), torch.stack([moments, moments + 0.5], -1))
    text = Tokens(torch.randn(1, 1, 5), torch.ones(1, 1).bool(), torch.tensor([[[0.0, 3.5]]]))
    inputs = Inputs({"audio": sound, "text": text, "video": video})
    whole = model(inputs)["frames"][0]
    for row, frame in ((0, 0), (13, 6), (6, 3)):
        moved = torch.zeros(7)
        for _ in range(16):
            values = sound.values.clone()
            values[0, row] = torch.randn(3, 6) * 5
            moved += (model(change(inputs, "audio", values=values))["frames"][0] - whole).detach().abs().sum(-1)
        assert moved.argmax() == frame, (row, moved)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("names", [("text",), ("audio", "text")])
def test_one_stream_alone_and_two(name, names):
    """Also with fewer streams no parameter is without use."""
    model = make(name, dropout=0.0, streams={n: STREAMS[n] for n in names}, base="text").train()
    output = model(Inputs({n: batch().streams[n] for n in names}))
    weight = torch.randn(output["emotion"].shape)
    ((output["emotion"] * weight).sum() + output["frames"].square().sum() + output["dimensions"].square().sum()).backward()
    assert torch.isfinite(output["emotion"]).all()
    assert find_dead(model) == []


@pytest.mark.parametrize("name", NAMES)
def test_overfits_a_tiny_batch(name):
    model, inputs = make(name, dropout=0.0, base=None), batch(holes=False)
    target = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    model.train()
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(inputs)["emotion"], target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert (model.eval()(inputs)["emotion"].argmax(1) == target).all()


def test_late_fusion_is_the_mean_of_the_probabilities_of_the_streams_present():
    model, inputs = make("late").eval(), batch()
    output = model(inputs)
    each = torch.stack([output[f"emotion@{name}"].softmax(-1) for name in STREAMS], 1)
    values = torch.stack([output[f"dimensions@{name}"] for name in STREAMS], 1)
    for i in range(8):
        here = output["present"][i] if output["present"][i].any() else torch.ones(3).bool()
        torch.testing.assert_close(output["emotion"][i].softmax(-1), each[i][here].mean(0))
        torch.testing.assert_close(output["dimensions"][i], values[i][here].mean(0))
    alone = drop_streams(inputs, ["text", "video"])
    torch.testing.assert_close(model(alone)["emotion"][0].softmax(-1), each[0, 0])


def test_an_output_of_one_stream_sees_that_stream_alone():
    outputs = OUTPUTS | {"emotion@audio": OutputSpec(name="emotion", size=3)}
    model, inputs = make("gated", outputs=outputs).eval(), batch(holes=False)
    other = change(inputs, "text", values=inputs.streams["text"].values.flip(-1))
    torch.testing.assert_close(model(inputs)["emotion@audio"], model(other)["emotion@audio"])
    assert not torch.allclose(model(inputs)["emotion"], model(other)["emotion"])


def test_context_sees_earlier_turns_of_the_dialogue_and_nothing_else():
    model, inputs = make("concat", context=PartSpec(name="attention", options={"turns": 2})).eval(), batch(holes=False)
    places = torch.tensor([[-1, -1, 0], [-1, 0, 1], [0, 1, 2], [-1, -1, 5]])
    history = History(places, torch.zeros_like(places), 2)
    whole = model(inputs._replace(history=history))
    assert whole["emotion"].shape == (4, 3) and whole["frames"].shape == (4, 5, 2)
    values = inputs.streams["text"].values.clone()
    values[0] = values[0].flip(-1)  # the first turn of the first dialogue
    other = model(change(inputs, "text", values=values)._replace(history=history))
    moved = (other["emotion"] - whole["emotion"]).abs().sum(-1)
    assert (moved[:3] > 1e-4).all() and moved[3] == 0
    # In another batch, another order, with more or less room for history: the same.
    fewer = Inputs(pick(inputs, [5, 0, 1]).streams, history=History(torch.tensor([[-1, 1, 2]]), torch.zeros(1, 3).long(), 2))
    torch.testing.assert_close(model(fewer)["emotion"][0], whole["emotion"][1], atol=1e-5, rtol=0)
    alone = model(pick(inputs, [5]))
    torch.testing.assert_close(alone["emotion"][0], whole["emotion"][3], atol=1e-5, rtol=0)


def test_an_adversary_turns_the_gradient_round():
    """Upstream of the head the gradient is that of the plain classifier times -strength; in the head it is the same."""
    gradients = {}
    for head, options in (("emotion", {}), ("adversary", {"strength": 0.5})):
        model = make("concat", dropout=0.0, outputs={"speaker": OutputSpec(name=head, size=4, options=options)})
        model(batch())["speaker"].square().sum().backward()
        gradients[head] = [model.heads["speaker"].net[1].weight.grad, model.fusion.absent.grad]
    torch.testing.assert_close(gradients["emotion"][0], gradients["adversary"][0])
    torch.testing.assert_close(-0.5 * gradients["emotion"][1], gradients["adversary"][1])


def test_what_is_frozen_from_the_start_is_neither_saved_nor_copied():
    model = make("concat")
    model.fusion.frozen = nn.Linear(4, 4).requires_grad_(False)
    whole = EmotionModel.__init__
    model._learned = {name for name, p in model.named_parameters() if p.requires_grad}
    assert whole is EmotionModel.__init__
    state = {name: value.clone() for name, value in model.trainable().items()}
    assert not any("frozen" in name for name in state) and set(state) < set(model.state_dict())
    other = make("concat", width=16)
    other.load_trainable(state)
    torch.testing.assert_close(other.eval()(batch())["emotion"], model.eval()(batch())["emotion"])
    with pytest.raises(RuntimeError, match="does not fit"):
        other.load_trainable({key: value for key, value in state.items() if key != "fusion.absent"})
    model.freeze(["encoders.audio", "heads"])
    learns = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learns and not any(name.startswith(("encoders.audio.", "heads.", "fusion.frozen")) for name in learns)
    assert set(state) == set(model.trainable())  # frozen for a while is learned all the same


def test_position_is_in_seconds():
    """The same instants give the same code, however many tokens there are."""
    encoder = make("concat").encoders["text"]
    assert isinstance(encoder, StreamEncoder)
    coarse = torch.tensor([[[0.0, 2.0], [2.0, 4.0]]])
    fine = torch.tensor([[[0.5, 1.5], [1.5, 2.5], [2.5, 3.5]]])
    torch.testing.assert_close(encoder.encode_position(coarse)[0, 0], encoder.encode_position(fine)[0, 0])
    assert not torch.allclose(encoder.encode_position(fine)[0, 1], encoder.encode_position(fine)[0, 0])


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("gatd", {}, "Unknown fusion 'gatd'. Did you mean 'gated'?"),
        ("base", {}, "Unknown fusion 'base'"),
        ("concat", {"hidden": 3}, "parameter of fusion.options 'hidden'"),
        ("adaptive", {"modality_dropout": 1}, r"fusion.options.modality_dropout: .* \(got 1"),
        ("cross_attention", {"layers": 0}, r"fusion.options.layers: .* \(got 0"),
        ("cross_attention", {"layers": True}, r"fusion.options.layers: .* \(got True"),
        ("gated", {"per_dimension": "false"}, r"fusion.options.per_dimension: .* \(got 'false'"),
    ],
)
def test_unknown_fusion_and_option(name, options, said):
    with pytest.raises(ParamsError, match=said):
        make(name, options)


def test_positions_are_sines_of_a_quarter_second_to_two_minutes():
    encoder = StreamEncoder(4, 6, 0, 1, 0.0)
    at = torch.tensor([0.0, 0.0625, 30.0])
    code = encoder.encode_position(torch.stack([at - 0.05, at + 0.05], -1)[None])[0]
    periods = torch.tensor([0.25, (0.25 * 120.0) ** 0.5, 120.0])
    phase = 2 * torch.pi * at[:, None] / periods
    torch.testing.assert_close(code, torch.cat([phase.sin(), phase.cos()], -1), atol=2e-4, rtol=0)
    assert code[1, 0] == pytest.approx(1, abs=1e-4) and code[2, 2] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("pooling", ["none", "mean"])
def test_a_stream_goes_through_a_perceptron_of_its_own(pooling):
    """Hidden layers of 3 and 2 times the width; other streams, and their first weights, are as without it."""
    streams = {name: one.model_copy(update={"pooling": pooling}) for name, one in STREAMS.items()}
    deep = streams | {"audio": streams["audio"].model_copy(update={"hidden": (3, 2)})}
    flat = {"base": None, "outputs": {"emotion": OUTPUTS["emotion"]}}
    model, plain = (make("concat", streams=chosen, dropout=0.0, **flat).train() for chosen in (deep, streams))
    layers = [part for part in model.encoders["audio"].project if isinstance(part, nn.Linear)]
    reads = 6 if pooling == "none" else 18
    assert [part.weight.shape for part in layers] == [(48, reads), (32, 48), (16, 32)]
    assert isinstance(plain.encoders["audio"].project, nn.Linear) and isinstance(model.encoders["text"].project, nn.Linear)
    inputs = batch() if pooling == "none" else Inputs({n: pool_tokens(t, "mean") for n, t in batch().streams.items()})
    output = model(inputs)["emotion"]
    for row in range(8):
        torch.testing.assert_close(model(pick(inputs, [row]))["emotion"], output[row : row + 1], atol=1e-5, rtol=0)
    (output * torch.randn(output.shape)).sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_a_perceptrons_width_is_what_a_stream_has_when_widths_are_shared_out():
    """Not that of a row of samples: 16,000 numbers would leave the dialogue next to nothing."""
    streams = {"sound": StreamSpec(width=16000, pooling="mean", hidden=(1,)), "text": StreamSpec(width=48, pooling="mean")}
    model = make("multihead", streams=streams, base=None, outputs={"emotion": OUTPUTS["emotion"]})
    assert model.fusion.widths == [4, 12]
