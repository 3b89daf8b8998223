"""The fusion that holds a language model: its order, its frozen layers, its words."""

import copy
import itertools

import pytest
import torch
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaModel

from pipeline.errors import ParamsError
from pipeline.models.batch import Inputs, Tokens, drop_streams
from pipeline.models.fusion.llama import Llama
from pipeline.models.language import GROUP, LanguageModel, Lora, Projector, split_by_length
from pipeline.models.spec import ModelSpec, OutputSpec, PartSpec, StreamSpec
from pipeline.weights import layers, seeded
from tests import tiny_language
from tests.tiny_language import build_with_language

WIDTH = 16


def whole_model(**changes):
    """The stand-in that `tiny_language` cuts, uncut."""
    shape = {"vocab_size": 64, "hidden_size": WIDTH, **tiny_language.SHAPE, **changes}
    with seeded(0):
        return LlamaModel._from_config(LlamaConfig(**shape), attn_implementation="eager").eval()


def make(order="words_first", *, streams=("audio", "lm"), lora=None, **options):
    torch.manual_seed(0)
    specs = {"audio": StreamSpec(width=6), "video": StreamSpec(width=5)}
    specs["lm"] = StreamSpec(width=WIDTH, pooling="states", prompted=True)
    options = {"order": order, "lora": lora, **options}
    return build_with_language(
        ModelSpec(
            streams={name: specs[name] for name in streams},
            width=8,
            heads=2,
            fusion=PartSpec(name="llama", options=options),
            language=tiny_language.describe(WIDTH, stream="lm" if "lm" in streams else None),
            outputs={"emotion": OutputSpec(name="emotion", size=3)},
            classes=("a", "b", "c"),
        )
    ).eval()


def tokens(width, lengths, room=0):
    size, longest = len(lengths), max(*lengths, 1) + room
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    values = torch.randn(size, longest, width, generator=torch.Generator().manual_seed(width)) * mask[..., None]
    starts = torch.arange(longest).float().expand(size, longest)
    return Tokens(values, mask, torch.stack([starts, starts + 1], -1))


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("left", [False, True])
def test_split_is_whole(depth, left):
    language = tiny_language.describe(WIDTH, depth)
    upper = LanguageModel(language, tiny_language.weights_of(language), None).eval()
    ids = torch.arange(10).view(2, 5)
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1] if left else [1, 1, 1, 0, 0]]).bool()
    places = (mask.long().cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        output = whole_model()(input_ids=ids, attention_mask=mask.long(), position_ids=places, output_hidden_states=True)
        found = upper(output.hidden_states[depth], mask)
        torch.testing.assert_close(found[mask], output.last_hidden_state[mask], atol=1e-6, rtol=0)
        lower = layers.cut_above(copy.deepcopy(whole_model()), depth)
        below = lower(input_ids=ids, attention_mask=mask.long(), position_ids=places).last_hidden_state
        torch.testing.assert_close(below[mask], output.hidden_states[depth][mask], atol=1e-6, rtol=0)


def test_frozen_layers_are_held_once_and_nothing_below_them():
    language = tiny_language.describe(WIDTH, 2)
    state = tiny_language.weights_of(language)
    assert {name.split(".")[1] for name in state if name.startswith("layers.")} == {"0"} and "norm.weight" in state
    first, second = (LanguageModel(language, state, Lora()) for _ in range(2))
    one, other = (dict(model.named_parameters()) for model in (first, second))
    frozen = [name for name in one if "lora" not in name]
    assert frozen and all(one[name].data_ptr() == other[name].data_ptr() for name in frozen)
    assert not any("embed" in name for name in one)
    assert {name for name, value in one.items() if value.requires_grad} == set(one) - set(frozen)


@pytest.mark.parametrize("order", ["words_first", "words_last"])
def test_the_order_is_that_of_the_documentation(order):
    fusion = make(order, tokens=2).fusion
    streams = {"audio": tokens(8, [3, 0]), "lm": tokens(WIDTH, [4, 3])}
    fusion.observe(streams["lm"])
    states, mask, _ = fusion.assemble(streams)
    words, scale = streams["lm"].values, fusion.scale
    pseudo = fusion.projectors["audio"](streams["audio"], streams["audio"].values.sum(1) / 3)[0] * scale
    open_, close = fusion.markers[0] * scale
    seen = [open_, *pseudo, close]
    if order == "words_last":
        opens, closes = fusion.markers[1] * scale
        wanted = [words[0, 0], *seen, opens, *words[0, 1:], closes, fusion.emotion * scale]
    else:
        wanted = [*words[0], *seen, fusion.emotion * scale]
    torch.testing.assert_close(states[0][mask[0]], torch.stack(wanted))
    assert mask[1].sum() == len(wanted) - 4 - 1  # no sound, one word less
    assert mask[:, -1].all()


def test_the_fused_vector_is_the_last_state_at_the_emotion_token():
    """Against the uncut stand-in, whose second layer is handed the same states."""
    model = make()
    inputs = {"audio": tokens(8, [3]), "lm": tokens(WIDTH, [4])}
    states, mask, _ = model.fusion.assemble(inputs)
    upper = whole_model()
    upper.layers = upper.layers[1:]
    with torch.inference_mode():
        last = upper(inputs_embeds=states, attention_mask=mask.long()).last_hidden_state[:, -1]
        torch.testing.assert_close(model.fusion(inputs).vector, F.layer_norm(last, (WIDTH,)), atol=1e-5, rtol=0)


def test_what_the_streams_say_themselves_is_added():
    """Their mean, of those that are there; words through a layer of their own."""
    model = make(residual=True)
    inputs = {"audio": tokens(8, [3, 3, 0]), "lm": tokens(WIDTH, [4, 0, 5])}
    states, mask, _ = model.fusion.assemble(inputs)
    with torch.inference_mode():
        last = 0.1 * F.layer_norm(model.fusion.language(states, mask)[:, -1], (WIDTH,))
        sound = model.fusion.projectors["audio"](inputs["audio"], inputs["audio"].values.sum(1) / 3)[:, 0]
        words = inputs["lm"].values[:, 1:].sum(1) / torch.tensor([3.0, 1.0, 4.0])[:, None]
        words = model.fusion.beside(F.layer_norm(words, (WIDTH,)))
        wanted = last + torch.stack([(sound[0] + words[0]) / 2, sound[1], words[2]])
        torch.testing.assert_close(model.fusion(inputs).vector, wanted, atol=1e-5, rtol=0)


def test_rows_of_like_length_run_together_and_give_what_they_give_alone():
    language = tiny_language.describe(WIDTH)
    model = LanguageModel(language, tiny_language.weights_of(language), Lora(dropout=0)).eval()
    states = torch.randn(6, 80, WIDTH)
    mask = torch.arange(80) < torch.tensor([3, 80, 5, 78, 1, 40])[:, None]
    mask[1, 10:20] = False  # holes are closed
    assert [rows.tolist() for rows, _ in split_by_length(*order(mask.sum(1)))] == [[3, 1], [5], [2, 0, 4]]
    states.requires_grad_(True)
    found = model.read_last(states, mask)
    wanted = torch.stack(
        [model(one[None, here], torch.ones(1, int(here.sum())).bool())[0, -1] for one, here in zip(states, mask, strict=True)]
    )
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    seen = torch.autograd.grad(found.square().sum(), states, retain_graph=True)[0]
    torch.testing.assert_close(seen, torch.autograd.grad(wanted.square().sum(), states)[0], atol=1e-4, rtol=1e-4)
    assert not seen[~mask].any()


def order(lengths):
    return lengths.argsort(descending=True), lengths


def test_groups_are_no_dearer_than_any_others():
    """Against all ways to cut six rows, longest first."""
    lengths = torch.tensor([50, 48, 30, 12, 11, 3])

    def cost(groups):
        return sum(len(rows) * longest + GROUP for rows, longest in groups)

    every = []
    for cut in itertools.product([False, True], repeat=5):
        edges = [0, *(i + 1 for i in range(5) if cut[i]), 6]
        every.append([(range(a, b), int(lengths[a])) for a, b in itertools.pairwise(edges)])
    found = split_by_length(torch.arange(6), lengths)
    assert cost(found) == min(map(cost, every)) < cost(split_by_length(torch.arange(6), lengths, one=True))
    assert torch.cat([rows for rows, _ in found]).tolist() == list(range(6))


def test_the_scale_is_that_of_the_words_without_the_first_token():
    model, words = make(), tokens(WIDTH, [4, 0, 3])
    words.values[:, 0] *= 1e3
    model.fusion.observe(words)
    rest = words.mask.clone()
    rest[:, 0] = False
    assert float(model.fusion.scale) == pytest.approx(float(words.values[rest].square().mean(-1).sqrt().median()))
    torch.testing.assert_close(model.fusion.sink, words.values[[0, 2], 0].mean(0))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("order", ["words_first", "words_last"])
@pytest.mark.parametrize("projector", ["linear", "mlp", "resampler"])
def test_any_streams_of_any_clip_alone_as_in_a_batch_and_padding_is_nothing(order, projector, residual):
    more = {"projector": projector, "tokens": 2, "residual": residual}
    model = make(order, streams=("audio", "lm", "video"), lora={"r": 2, "alpha": 4}, **more)
    lengths = {"audio": [3, 0, 2, 0], "lm": [4, 5, 0, 0], "video": [0, 2, 2, 0]}
    widths = {"audio": 6, "lm": WIDTH, "video": 5}
    inputs = Inputs({name: tokens(widths[name], lengths[name]) for name in lengths})
    whole = model(inputs)
    assert torch.isfinite(whole["emotion"]).all()
    padded = {
        name: Tokens(
            torch.cat([one.values, torch.full_like(one.values[:, :2], 1e3)], 1),
            F.pad(one.mask, (0, 2)),
            F.pad(one.times, (0, 0, 0, 2)),
        )
        for name, one in inputs.streams.items()
    }
    torch.testing.assert_close(model(Inputs(padded))["emotion"], whole["emotion"], atol=1e-5, rtol=0)
    for i in range(4):
        lone = Inputs({name: Tokens(*(part[i : i + 1] for part in one)) for name, one in inputs.streams.items()})
        torch.testing.assert_close(model(lone)["emotion"][0], whole["emotion"][i], atol=1e-5, rtol=0)
    for name in lengths:
        gone = model(drop_streams(inputs, [name]))["emotion"]
        had = torch.tensor(lengths[name]) > 0
        assert ((gone - whole["emotion"]).abs().sum(1) > 1e-6).tolist() == had.tolist(), name


def test_only_what_learns_is_saved_and_every_bit_of_it_learns():
    more = {"tokens": 2, "projector": "mlp", "residual": True}
    model = make(streams=("audio", "lm", "video"), lora={"r": 2, "targets": "all"}, **more).train()
    streams = {"audio": tokens(6, [3, 0]), "lm": tokens(WIDTH, [4, 5]), "video": tokens(5, [2, 2])}
    model(Inputs(streams))["emotion"].square().sum().backward()
    learns = {name for name, value in model.named_parameters() if value.requires_grad}
    assert learns == model.learned and any("lora_A" in name for name in learns) and "fusion.markers" in learns
    assert [name for name, p in model.named_parameters() if name in learns and not p.grad.abs().sum() > 0] == []
    saved = model.trainable()
    assert not any("base_layer" in name or "norm.weight" in name and "network" in name for name in saved)
    assert {"fusion.scale", "fusion.sink"} <= set(saved)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks for an old name
def test_checkpointing_changes_no_gradient():
    """Of the same weights and clips, without chance; what is kept meanwhile is less (`tests/test_memory.py`)."""
    streams = {"audio": tokens(6, [3, 0]), "lm": tokens(WIDTH, [4, 5])}
    found = []
    for checkpointing in (False, True):
        model = make(lora={"r": 2, "dropout": 0}, checkpointing=checkpointing).train()
        for part in model.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
        model(Inputs(streams))["emotion"].square().sum().backward()
        found.append({name: value.grad for name, value in model.named_parameters() if value.grad is not None})
    assert any("lora_A" in name for name in found[0])
    torch.testing.assert_close(found[1], found[0], atol=1e-6, rtol=0)


def test_adapters_beside_fewer_bits_learn():
    model = make(lora={"r": 2}, quantise="8bit").train()
    model(Inputs({"audio": tokens(6, [3, 0]), "lm": tokens(WIDTH, [4, 5])}))["emotion"].square().sum().backward()
    assert not tiny_language.find_dead(model)


def test_merged_adapters_are_the_adapters():
    language = tiny_language.describe(WIDTH)
    state = {name: value.clone() for name, value in tiny_language.weights_of(language).items()}
    model = LanguageModel(language, state, Lora(targets="all")).eval()
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.1)
    values, mask = torch.randn(2, 5, WIDTH), torch.ones(2, 5).bool()
    with torch.inference_mode():
        apart = model(values, mask)
    for part in model.modules():
        if hasattr(part, "merge"):
            part.merge()
    with torch.inference_mode():
        torch.testing.assert_close(model(values, mask), apart, atol=2e-5, rtol=0)


def test_token_by_token_is_all_at_once():
    language = tiny_language.describe(WIDTH)
    model = LanguageModel(language, tiny_language.weights_of(language), None).eval()
    values = torch.randn(1, 6, WIDTH)
    with torch.inference_mode():
        whole = model(values, torch.ones(1, 6).bool())
        cache, found = model.make_cache(), []
        for place in range(6):
            found.append(model(values[:, place : place + 1], torch.ones(1, 1).bool(), cache, place))
        torch.testing.assert_close(torch.cat(found, 1), whole, atol=1e-5, rtol=0)


def test_adapters_beside_nothing_and_a_sequence_too_long_are_told():
    language = tiny_language.describe(WIDTH)
    with pytest.raises(ParamsError, match="fusion.options.lora.targets: Target modules .*'qproj'"):
        LanguageModel(language, tiny_language.weights_of(language), Lora(targets=("qproj",)))
    with pytest.raises(ParamsError, match="the language model takes 256; shorten the trunk's options.max_length"):
        make(streams=("lm",))(Inputs({"lm": tokens(WIDTH, [300])}))
    with pytest.raises(ParamsError, match="none was handed to it"):
        Llama({"audio": 4}, 4, 1, 0.0, Llama.Options())
    wrong = tiny_language.weights_of(language) | {"layers.7.mlp.up_proj.weight": torch.zeros(1)}
    with pytest.raises(ParamsError, match="does not fit the layers above 1: layers.7"):
        LanguageModel(language, wrong, None)


def test_a_resampler_lets_its_queries_look():
    torch.manual_seed(0)
    net = Projector(8, WIDTH, 3, "resampler", 2)
    one = tokens(8, [4, 0])
    rows = net(one, torch.zeros(2, 8))
    assert rows.shape == (2, 3, WIDTH) and torch.isfinite(rows).all()
    order = torch.tensor([2, 0, 3, 1])
    mixed = one._replace(values=one.values[:, order])
    torch.testing.assert_close(net(mixed, torch.zeros(2, 8))[0], rows[0])
    assert not torch.allclose(rows[0, 0], rows[0, 1])


@pytest.mark.parametrize(("asked", "found"), [(0, 0), (0.5, 15), (1 / 3, 10), (20, 20), (0.999, None), (30, None), (12.5, None)])
def test_depth_is_a_number_or_a_share(asked, found):
    if found is None:
        with pytest.raises(ParamsError, match="depth"):
            layers.resolve_depth(asked, 30, "depth")
    else:
        assert layers.resolve_depth(asked, 30, "depth") == found
