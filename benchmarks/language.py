"""A language model over its cached trunk: a training step, what depth and kept rows are worth, a turn of a long dialogue.

The language model is a stand-in of SmolLM2-135M's shape, which computes what a trained one does; clips are made up. All on one
thread, in processor time, which other work on the machine hardly changes.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

from .figures import Figure, alternate, ratio

if TYPE_CHECKING:
    import numpy as np
    import torch

    from pipeline.models.spec import LanguageSpec
    from pipeline.training.learner import Learner

#: Shares of the layers that lie in the trunk, and the targets of a step against that of all layers on the whole prompt.
DEPTHS = {0.0: ("", ""), 1 / 3: ("", ""), 0.5: ("<= 0.55", "<= 0.35"), 2 / 3: ("<= 0.36", "<= 0.22")}
ADDRESS = "random:0"


@dataclass(frozen=True)
class Size:
    width: int = 576
    inner: int = 1536
    layers: int = 30
    heads: int = 9
    vocabulary: int = 256
    #: Clips of a batch, tokens of a whole prompt and of what is kept of it (MELD with two turns).
    clips: int = 16
    prompt: int = 73
    kept: int = 23
    batches: int = 2
    rounds: int = 3
    #: Turns of a dialogue, words of each, and turns that stay in the prompt.
    turns: int = 24
    words: int = 8
    window: int = 6

    @property
    def architecture(self) -> dict[str, object]:
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.width,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": max(1, self.heads // 3),
            "max_position_embeddings": 2048,
        }


TINY = Size(width=12, inner=16, layers=6, heads=3, clips=3, prompt=9, kept=4, batches=1, rounds=1, turns=6, words=2, window=2)


def measure(folder: Path, size: Size) -> list[Figure]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = _make_weights(size)
        return [*_compare_steps(size, whole), *_compare_depths(size, whole), *_run_turns(size)]
    finally:
        torch.set_num_threads(threads)


def _make_weights(size: Size) -> dict[str, torch.Tensor]:
    from pipeline.weights import layers, parse

    return layers.make_stand_in(parse(ADDRESS), dict(size.architecture))


def _cut(size: Size, whole: dict[str, torch.Tensor], depth: float) -> tuple[LanguageSpec, dict[str, torch.Tensor]]:
    """The layers above: what they are, and their weights."""
    from pipeline.models.spec import LanguageSpec
    from pipeline.weights import layers

    config, below, count = layers.describe_above(ADDRESS, dict(size.architecture), depth, "depth")
    kept = {f"layers.{i}.": f"layers.{i - below}." for i in range(below, count)}
    state = {new + name[len(old) :]: value for old, new in kept.items() for name, value in whole.items() if name.startswith(old)}
    spec = LanguageSpec(weights=ADDRESS, base="made", config=config, below=below, layers=count, stream="lm")
    return spec, state | {"norm.weight": whole["norm.weight"]}


def _compare_steps(size: Size, whole: dict[str, torch.Tensor]) -> list[Figure]:
    """An epoch of the loop, and steps of the same layers alone on states that were put together before."""
    import torch

    from pipeline.models.language import LanguageModel, Lora

    found = []
    for name, lengths in (("clips of one length", _equal(size)), ("clips as long as MELD's", _unequal(size))):
        language, state = _cut(size, whole, 0.5)
        learner = _make_learner(size, language, state, lengths)
        course, fusion = learner.course, learner.model.fusion
        batches = [course.show(places, None, learner.order)[0].streams for places in course.sample(learner.order, None)]
        ready = [fusion.assemble(streams)[:2] for streams in batches]  # type: ignore[operator]
        ready = [(states.detach(), mask) for states, mask in ready]
        torch.manual_seed(0)
        bare = LanguageModel(language, state, Lora())
        optimiser = torch.optim.AdamW([value for value in bare.parameters() if value.requires_grad])

        def step_bare(bare: Any = bare, ready: Any = ready, optimiser: Any = optimiser) -> None:
            bare.train()
            for states, mask in ready:
                optimiser.zero_grad(set_to_none=True)
                bare(states, mask)[:, -1].square().mean().backward()
                optimiser.step()

        learner._learn()
        taken = alternate({"ours": learner._learn, "bare": step_bare}, size.rounds, process_time)
        step = statistics.median(taken["ours"]) / len(ready)
        note = f"{len(ready)} batches of {size.clips}, upper half of {size.layers} layers; {step:.3g} s a step"
        found.append(
            Figure(f"step on cached states ÷ layers alone, {name}", ratio(taken["ours"], taken["bare"]), "ratio", "<= 1.2", note)
        )
    return found


def _compare_depths(size: Size, whole: dict[str, torch.Tensor]) -> list[Figure]:
    """Forward and backward of what lies above each depth, on the whole prompt and on what is kept of it."""
    import torch

    from pipeline.models.language import LanguageModel, Lora

    models = {depth: LanguageModel(*_cut(size, whole, depth), Lora()).train() for depth in DEPTHS}

    def step(model: Any, tokens: int) -> None:
        states = torch.randn(size.clips, tokens, size.width)
        model(states, torch.ones(size.clips, tokens).bool())[:, -1].square().mean().backward()

    cases = {(depth, tokens): (model, tokens) for depth, model in models.items() for tokens in (size.prompt, size.kept)}
    for model in models.values():
        step(model, 2)
    taken = alternate({str(key): lambda case=case: step(*case) for key, case in cases.items()}, size.rounds, process_time)
    base, found = taken[str((0.0, size.prompt))], []
    note = f"{statistics.median(base):.3g} s: all layers, {size.clips} prompts of {size.prompt} tokens; LoRA of rank 8, q and v"
    for depth, targets in DEPTHS.items():
        for tokens, target, what in ((size.prompt, targets[0], "whole prompt"), (size.kept, targets[1], "first token and own")):
            if depth or tokens != size.prompt:
                share = ratio(taken[str((depth, tokens))], base)
                found.append(Figure(f"step above {depth:.2g} of the layers, {what} ÷ all layers", share, "ratio", target, note))
    return found


def _run_turns(size: Size) -> list[Figure]:
    """Turns of one dialogue, one after the other, through the trunk and the layers above it."""
    import torch

    from pipeline.features.encoders.extractor import Turn
    from pipeline.features.encoders.text.trunk import Trunk
    from pipeline.features.engine.forward import Forward
    from pipeline.models.language import LanguageModel
    from pipeline.params import Stream
    from pipeline.serving.running import RunningTrunk

    stream = Stream.model_validate(
        {
            "modality": "text", "source": "x", "encoder": "trunk", "weights": ADDRESS, "layer": -1, "pooling": "none",
            "architecture": {"model_type": "llama", **size.architecture}, "options": {"depth": 0.5, "max_length": 2048},
        }
    )  # fmt: skip
    extractor = Trunk.build(stream, Trunk.Options(depth=0.5, max_length=2048))
    running = RunningTrunk(extractor, Forward(extractor), size.window)
    language, state = _cut(size, _make_weights(size), 0.5)
    upper = LanguageModel(language, state, None).eval()
    text, taken = " ".join(f"word{i}" for i in range(size.words)), []
    for place in range(size.turns + 1):
        begun = process_time()
        rows, _ = running.push("someone", text, 1.0, [Turn("someone", text)] * place)
        with torch.inference_mode():
            states = torch.from_numpy(rows)[None]
            upper(states, torch.ones(states.shape[:2]).bool())
        taken.append(process_time() - begun)
    taken = taken[1:]  # the first finds everything cold
    half = len(taken) // 2
    grown = statistics.median(taken[half:]) / statistics.median(taken[:half])
    worst = sorted(taken)[min(len(taken) - 1, round(0.95 * len(taken)))]
    note = f"{size.turns} turns of {size.words} words, a window of {size.window}"
    return [
        Figure("turn through trunk and layers above", statistics.median(taken) * 1e3, "ms", "", f"median; {note}"),
        Figure("the same, 95th percentile", worst * 1e3, "ms", "<= 300", note),
        Figure("the same, later half of a dialogue ÷ earlier half", grown, "ratio", "<= 1.2", note),
    ]


def _equal(size: Size) -> np.ndarray:
    import numpy as np

    return np.full(size.clips * size.batches, size.kept)


def _unequal(size: Size) -> np.ndarray:
    """Mostly short, some long, as MELD's utterances: with the first token and eight that ask."""
    import numpy as np

    return 9 + np.random.default_rng(0).geometric(1 / max(2, size.kept - 9), size.clips * size.batches)


def _make_learner(size: Size, language: LanguageSpec, state: dict[str, torch.Tensor], lengths: np.ndarray) -> Learner:
    import numpy as np
    import polars as pl
    import torch

    from pipeline.models.model import EmotionModel
    from pipeline.models.spec import ModelSpec, OutputSpec, PartSpec, StreamSpec
    from pipeline.params import parse
    from pipeline.training.data.dataset import Dataset
    from pipeline.training.data.resident import Resident
    from pipeline.training.learner import Learner
    from pipeline.training.optimiser import build_optimiser
    from pipeline.training.standardise import observe_words
    from pipeline.training.state import Progress

    lengths = np.append(lengths, lengths[0])  # the last clip is there to be validated on
    count, total = len(lengths), int(lengths.sum())
    draw = torch.Generator().manual_seed(0)
    resident = Resident(
        torch.randn(total, size.width, generator=draw),
        torch.arange(total)[:, None].repeat(1, 2).float(),
        torch.from_numpy(np.concatenate([[0], lengths.cumsum()])),
        None,
        np.zeros(size.width, np.float32),
        np.ones(size.width, np.float32),
        {"width": size.width, "levels": 0, "modality": "text", "trunk": '{"depth": 0, "base": "made"}'},
    )
    ids = [f"made/{i}" for i in range(count)]
    table = pl.DataFrame({"id": ids, **dict.fromkeys(("valence", "arousal", "dominance"), 0.0), "emotion": "joy"})
    roles = np.array(["train"] * (count - 1) + ["val"])
    nobody, everywhere = torch.full((count, 3), -1), torch.zeros(count, dtype=torch.int64)
    data = Dataset(
        ids, roles, {"lm": resident}, everywhere, torch.full((count, 0), 0.0), ("joy", "anger"), (), {"corpus": everywhere},
        {"corpus": ("made",)}, nobody, table, 0, table,
    )  # fmt: skip
    params = parse(
        {
            "recipe": "made",
            "corpus": {"name": "demo", "root": "."},
            "fusion": {"name": "llama"},
            "streams": {"lm": {"modality": "text", "source": "x", "encoder": "trunk", "weights": ADDRESS}},
            "task": {"emotion": True},
            "loss": {"emotion": {"name": "cross_entropy"}},
            "temporal": {"width": 64, "heads": 4},
            "training": {"batch_size": size.clips, "select": "loss", "linear": None},
        }
    )
    spec = ModelSpec(
        streams={"lm": StreamSpec(width=size.width, pooling="states", prompted=True)},
        width=64,
        fusion=PartSpec(name="llama"),
        language=language,
        outputs={"emotion": OutputSpec(name="emotion", size=2)},
        classes=("joy", "anger"),
    )
    torch.manual_seed(0)
    model, order = EmotionModel(spec, state), torch.Generator().manual_seed(0)
    observe_words(model, data, torch.arange(count - 1))
    return Learner.begin("fit", spec, data, params, model, build_optimiser(model, params.training), order, Progress(), 0)
