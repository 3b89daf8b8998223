"""What a clip takes from the turns around it, whatever the context: its own dialogue, in its window, and nothing else."""

import pytest
import torch

from pipeline.errors import ParamsError
from pipeline.models.batch import Fused, History, Inputs, Tokens
from pipeline.models.contexts.base import list_alone, read_alone
from pipeline.models.model import EmotionModel
from pipeline.models.registry import CONTEXTS
from pipeline.models.spec import ModelSpec, OutputSpec, PartSpec, StreamSpec
from pipeline.training.data.dialogues import find_turns, sort_turns

NAMES = sorted(CONTEXTS)
WIDTH = 16
#: Dialogue, turn and speaker of twelve clips: seven turns of three people, four turns of two, one clip of no dialogue.
NUMBERS = torch.tensor(
    [*([0, t, s] for t, s in enumerate([0, 1, 0, 2, 2, 1, 0])), *([1, t, 3 + t % 2] for t in range(4)), [-1, -1, -1]]
)
ROLES = torch.ones(12).long()


def build(name, dropout=0.0, **options):
    torch.manual_seed(0)
    part = CONTEXTS.find(name)
    return part(WIDTH, 2, dropout, part.Options(**options))


def fuse(count=12, seed=1):
    draw = torch.Generator().manual_seed(seed)
    parts = torch.randn(count, 2, WIDTH, generator=draw)
    return Fused(parts.sum(1), None, parts, torch.ones(count, 2).bool(), None)


def turns_of(rows, before, after=0):
    return find_turns(NUMBERS, ROLES, sort_turns(NUMBERS), torch.tensor(rows), (before, after))


def alter(fused, clip):
    parts = fused.parts.clone()
    parts[clip] = parts[clip].flip(-1) * 2
    return fused._replace(parts=parts, vector=parts.sum(1))


@torch.inference_mode()
def find_moved(context, history, clips):
    """For each of the clips: which rows change when it is another."""
    fused = fuse()
    found = context(fused, history).vector
    return [((found - context(alter(fused, clip), history).vector).abs().amax(-1) > 1e-6).tolist() for clip in clips]


WINDOWS = {"causal": {"turns": 2}, "both": {"turns": 2, "later": 1}, "later": {"turns": 0, "later": 2}}
KINDS = [(name, window) for name in NAMES for window in WINDOWS]


@pytest.mark.parametrize(("name", "window"), KINDS)
def test_the_turns_of_the_window_are_seen_and_no_other(name, window):
    """A later turn, a turn too long ago, another dialogue: not one bit of them."""
    options = WINDOWS[window]
    context = build(name, **options, speakers=True).eval()
    before, after = options.get("turns", 0), options.get("later", 0)
    rows = list(range(12))
    history = turns_of(rows, before, after)
    dialogue = NUMBERS[:, 0].tolist()
    for clip, found in enumerate(find_moved(context, history, rows)):
        wanted = [dialogue[row] == dialogue[clip] and row - before <= clip <= row + after for row in rows]
        assert found == wanted, clip


@pytest.mark.parametrize(("name", "window"), KINDS)
def test_room_for_turns_that_are_not_there_changes_nothing(name, window):
    options = WINDOWS[window]
    context, fused = build(name, **options, speakers=True).eval(), fuse()
    before, after = options.get("turns", 0), options.get("later", 0)
    whole = context(fused, turns_of(list(range(12)), before, after)).vector
    for row in (0, 1, 5, 6, 11):
        history = turns_of([row], before, after)
        here = history.here[0].nonzero()[:, 0]
        low, high = int(here[0]), int(here[-1]) + 1
        tight = History(history.places[:, low:high], history.voices[:, low:high], history.at - low)
        torch.testing.assert_close(context(fused, tight).vector[0], whole[row], atol=1e-5, rtol=0)
        torch.testing.assert_close(context(fused, history).vector[0], whole[row], atol=1e-5, rtol=0)
    # A clip of no dialogue is as one that is predicted from itself alone.
    context = build(name, **options).eval()
    alone = context(fused, list_alone(fused.present)).vector
    torch.testing.assert_close(alone[11], context(fused, turns_of([11], before, after)).vector[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_turn_lost_in_between_is_passed_over(name):
    """Of another role: its place stays empty, and what stands in it is not read."""
    context, fused = build(name, turns=3).eval(), fuse()
    roles = ROLES.clone()
    roles[4] = 2
    history = find_turns(NUMBERS, roles, sort_turns(NUMBERS), torch.tensor([5]), (3, 0))
    assert history.places.tolist() == [[2, 3, -1, 5]] and history.voices.tolist() == [[2, 1, -1, 0]]
    assert find_moved(context, history, (2, 3, 4, 5)) == [[True], [True], [False], [True]]
    assert torch.isfinite(context(fused, history).vector).all()


@pytest.mark.parametrize(("name", "window"), KINDS)
def test_every_parameter_gets_a_gradient(name, window):
    options = WINDOWS[window]
    context = build(name, **options, speakers=True).train()
    history = turns_of(list(range(12)), options.get("turns", 0), options.get("later", 0))
    rows = context(fuse(), history).vector
    (rows * torch.randn(rows.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
    dead = [key for key, p in context.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


@pytest.mark.parametrize("name", NAMES)
def test_who_speaks_counts_where_it_is_told(name):
    history = turns_of([2, 5], 2)
    other = history._replace(voices=torch.tensor([[1, 1, 0], [0, 0, 0]]))
    for speakers in (False, True):
        context = build(name, turns=2, speakers=speakers).eval()
        same = torch.allclose(context(fuse(), history).vector, context(fuse(), other).vector, atol=1e-6)
        assert same is not speakers
    # Those past the third of the others are told from the clip's own and from nobody, not from each other.
    third, fourth, own = (context(fuse(), history._replace(voices=torch.full((2, 3), v))).vector for v in (3, 9, 0))
    assert torch.equal(third, fourth) and not torch.allclose(third, own, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_turns_counts(name):
    context = build(name, turns=2).eval()
    history = turns_of([4], 2)
    swapped = history._replace(places=history.places[:, [1, 0, 2]])
    assert not torch.allclose(context(fuse(), history).vector, context(fuse(), swapped).vector, atol=1e-5)


def test_a_recurrent_network_carries_on_from_the_turn_before():
    """The state after the last turn is what `torch.nn.GRU` gives on the turns one by one."""
    context, fused = build("gru", turns=3).eval(), fuse()
    history = turns_of([2], 3)
    turns = context.norm(fused.vector[:3] + context.distance.weight[[2, 1, 0]])
    state = torch.zeros(1, 1, WIDTH)
    for turn in turns:
        _, state = context.forwards(turn[None, None], state)
    wanted = fused.vector[2] + context.out(state[0, 0])
    torch.testing.assert_close(context(fused, history).vector[0], wanted, atol=1e-6, rtol=0)


def test_a_causal_transformer_lets_no_turn_look_ahead():
    """What an earlier turn is in the first layer does not depend on a later one; with `later` it does."""
    for later in (0, 1):
        context = build("transformer", turns=2, layers=2, later=later).eval()
        seen = []
        context.blocks[0].register_forward_hook(lambda module, given, out, seen=seen: seen.append(out[0, 0]))
        history = turns_of([2], 2, later)
        context(fuse(), history), context(alter(fuse(), 2), history)
        assert torch.equal(*seen) is not bool(later)


def test_streams_that_decide_alone_know_their_own_turns():
    """Late fusion: each stream's row is that of a dialogue in which there is no other stream."""
    for name in NAMES:
        context, fused = build(name, turns=2).eval(), fuse()
        present = fused.present.clone()
        present[1, 0] = False  # the turn before clip 2 lacks the first stream
        fused = fused._replace(present=present)
        history = turns_of([2, 9], 2)
        first, second = read_alone(context, fused, history).unbind(1)
        other = alter(fused, 1)
        again = read_alone(context, other, history)
        torch.testing.assert_close(again[:, 0], first, atol=0, rtol=0)
        assert (again[0, 1] - second[0]).abs().max() > 1e-6
        lone = fused._replace(vector=fused.parts[:, 1], parts=fused.parts[:, 1:], present=present[:, 1:])
        torch.testing.assert_close(context(lone, history).vector, second, atol=1e-6, rtol=0)


def test_late_fusion_hears_the_dialogue():
    spec = ModelSpec(
        streams={"audio": StreamSpec(width=4), "text": StreamSpec(width=4)},
        width=WIDTH,
        fusion=PartSpec(name="late"),
        context=PartSpec(name="attention", options={"turns": 2}),
        outputs={"emotion": OutputSpec(name="emotion", size=3)},
        classes=("a", "b", "c"),
    )
    torch.manual_seed(0)
    model = EmotionModel(spec).eval()
    there, times = torch.ones(12, 1).bool(), torch.zeros(12, 1, 2)
    streams = {name: Tokens(torch.randn(12, 1, 4), there, times) for name in spec.streams}
    before = model(Inputs(streams, history=turns_of([2], 2)))
    values = streams["text"].values.clone()
    values[1] = values[1].flip(-1)
    after = model(Inputs(streams | {"text": Tokens(values, there, times)}, history=turns_of([2], 2)))
    assert before["emotion"].shape == (1, 3) and (after["emotion"] - before["emotion"]).abs().max() > 1e-5
    assert torch.equal(after["emotion@audio"], before["emotion@audio"])


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("gruu", {}, "Unknown context 'gruu'. Did you mean 'gru'?"),
        ("gru", {"turns": 0}, "context.options: turns and later are both 0"),
        ("transformer", {"layers": 0}, "context.options.layers"),
        ("attention", {"speakers": 1}, "context.options.speakers"),
        ("attention", {"layers": 2}, "Unknown parameter of context.options 'layers'"),
    ],
)
def test_mistakes_are_one_line(name, options, said):
    with pytest.raises(ParamsError) as caught:
        EmotionModel(ModelSpec(streams={"audio": StreamSpec(width=4)}, context=PartSpec(name=name, options=options)))
    assert said in str(caught.value) and "\n" not in str(caught.value)
