"""The model of phase 2: stream encoders → fusion → context → heads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from pipeline.errors import ParamsError, one_of
from pipeline.parts import read_options

from .batch import Fused, Inputs, Outputs, name_variance, running_mean
from .contexts.base import Context, list_alone, read_alone
from .fusion.base import Fusion
from .heads.base import Head
from .mixture import mix_outputs
from .pooled import PooledEncoder
from .registry import CONTEXTS, FUSIONS, HEADS, TEMPORALS
from .spec import ModelSpec, OutputSpec, StreamSpec
from .stream import StreamEncoder


class Model(nn.Module):
    """What is trained and predicts: `forward` of inputs gives outputs by name.

    Attributes:
        spec: builds the same model again.
        shift: (C,) taken off the emotion logits: τ · log prior, where validation chose one; else zero.
    """

    shift: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("shift", torch.zeros(len(spec.classes)))

    def adjust(self, outputs: Outputs) -> Outputs:
        """The outputs with the emotion logits shifted."""
        return outputs | {"emotion": outputs["emotion"] - self.shift} if "emotion" in outputs else outputs

    @property
    def learned(self) -> set[str]:
        """Names of what is learned; a frozen network inside a part is not among them."""
        return {name for name, _ in self.named_parameters()}

    def trainable(self) -> dict[str, Tensor]:
        """What is learned, by name: saved, copied and averaged. A frozen network inside a part is not.

        Buffers of normalisation layers belong to it.
        """
        learned = self.learned
        frozen = {name.rpartition(".")[0] for name, _ in self.named_parameters() if name not in learned}
        kept = learned | {
            f"{owner}.{leaf}".lstrip(".")
            for owner, module in self.named_modules()
            if owner not in frozen
            for leaf, _ in module.named_buffers(recurse=False)
        }
        # Detached when chosen: of weights that are spread over processes nothing can be taken while nothing learns.
        state = self.state_dict(keep_vars=True)
        return {name: value.detach() for name, value in state.items() if name in kept}

    def load_trainable(self, state: dict[str, Tensor]) -> None:
        """Inverse of `trainable`.

        Raises:
            RuntimeError: the state is not that of this model.
        """
        found = self.load_state_dict(state, strict=False)
        if lacking := sorted(set(self.trainable()) - set(state)) + list(found.unexpected_keys):
            raise RuntimeError(f"the state does not fit the model: {lacking[:3]}")


class EmotionModel(Model):
    """Emotion classes and valence–arousal from token streams, some of which may be missing.

    Args:
        language: frozen weights of the layers that `spec.language` names, for a fusion that holds them.

    Raises:
        ParamsError: unknown part or option.

    >>> from pipeline.models.spec import StreamSpec
    >>> emotion = OutputSpec(name="emotion", size=4)
    >>> spec = ModelSpec(streams={"audio": StreamSpec(width=8)}, width=16, outputs={"emotion": emotion})
    >>> sorted(EmotionModel(spec).heads)
    ['emotion']
    """

    fusion: Fusion
    context: Context | None

    def __init__(self, spec: ModelSpec, language: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(spec)
        width, heads, dropout = spec.width, spec.heads, spec.dropout
        self.encoders = nn.ModuleDict({name: build_encoder(stream, spec) for name, stream in spec.streams.items()})
        part = FUSIONS.find(spec.fusion.name)
        options = read_options(part.Options, spec.fusion.options, "fusion.options")
        held = {"language": spec.language, "state": language} if part.holds_language else {}
        sizes = {name: width if stream.hidden else stream.width for name, stream in spec.streams.items()}
        self.fusion = part(sizes, width, heads, dropout, options, **held)
        self.fusion.choose_readout(spec.readout)
        if spec.causal:
            self.fusion.look_back()
        self.context = None
        if spec.context is not None:
            kind = CONTEXTS.find(spec.context.name)
            chosen = read_options(kind.Options, spec.context.options, "context.options")
            self.context = kind(self.fusion.width, heads, dropout, chosen)
            if spec.causal and spec.base is not None:
                raise ParamsError("temporal.causal: a context reads a whole clip before it tells an instant; take context none.")
        self.heads = nn.ModuleDict({name: self._build_head(name, one) for name, one in self._spread(spec).items()})
        self._learned = {name for name, value in self.named_parameters() if value.requires_grad}

    @property
    def learned(self) -> set[str]:
        """See `Model.learned`."""
        return self._learned

    def _build_head(self, name: str, output: OutputSpec) -> Head:
        part = HEADS.find(output.name)
        options = read_options(part.Options, output.options, f"heads.{name}.options")
        return part(name.partition("@")[0], self.fusion.width, output.size, self.spec.dropout, options)

    def _spread(self, spec: ModelSpec) -> dict[str, OutputSpec]:
        """The heads to build: one per output; in late fusion, what is voted on has one per stream instead."""
        if not self.fusion.late:
            return dict(spec.outputs)
        result: dict[str, OutputSpec] = {}
        for name, output in spec.outputs.items():
            result |= {f"{name}@{stream}": output for stream in spec.streams} if name in VOTES else {name: output}
        return result

    def forward(self, inputs: Inputs) -> Outputs:
        """Predict.

        Args:
            inputs: every stream of the spec (others are not read). T may be 1 at least; padding does not
                change the result.

        Returns:
            The outputs of the spec, and `embedding`, `present`, `shares`.
        """
        encoded = {name: self.encoders[name](inputs.streams[name]) for name in self.spec.streams}  # (B, T_m, H) each
        fused = self.fusion(encoded, self.spec.base, inputs.text)  # (B, W), over time (B, T, W)
        if self.context is not None:
            history = inputs.history or list_alone(fused.present)
            parts = read_alone(self.context, fused, history) if self.fusion.late else None
            fused = self.context(fused, history)  # (R, W), (R, T, W)
            fused = fused if parts is None else fused._replace(parts=parts)
        if self.spec.causal and fused.tokens is not None:
            fused = fused._replace(past=running_mean(fused.tokens))
        outputs: Outputs = {"embedding": fused.vector, "present": fused.present}
        if fused.shares is not None:
            outputs["shares"] = fused.shares
        places = {name: i for i, name in enumerate(self.spec.streams)}
        for name, head in self.heads.items():
            _, at, stream = name.partition("@")
            found: Outputs = head(fused.alone(places[stream]) if at else fused)
            outputs |= {f"{key}{at}{stream}": value for key, value in found.items()}
        if self.fusion.late:
            for name in (one for one in self.spec.outputs if one in VOTES):
                outputs |= vote(name, outputs, fused, places)
        return self.adjust(outputs)

    def freeze(self, parts: Iterable[str]) -> None:
        """Have these parts (`encoders`, `encoders.audio`, `fusion`, `heads.emotion`, …) learn nothing, and all others learn."""
        prefixes = tuple(parts)
        for name, value in self.named_parameters():
            held = any(is_within(name, part) for part in prefixes)
            value.requires_grad_(name in self._learned and not held)

    def check_part(self, part: str, where: str) -> None:
        """Raise unless there is a part of that name.

        Raises:
            ParamsError: there is none; the line names those there are.
        """
        names = [name for name, _ in self.named_parameters()]
        if not any(is_within(name, part) for name in names):
            raise one_of(f"part in {where}", part, {".".join(n.split(".")[:k]) for n in names for k in (1, 2)})


def build_encoder(stream: StreamSpec, spec: ModelSpec) -> nn.Module:
    """What a stream's tokens, or its one row per clip, first go through."""
    if stream.pooling == "states":
        return nn.Identity()
    if stream.pooling != "none":
        return PooledEncoder(stream.reads, spec.width, spec.dropout, spec.noise, stream.hidden)
    part = TEMPORALS.find(spec.temporal.name)
    options = read_options(part.Options, spec.temporal.options, "temporal.options")
    temporal = partial(part, causal=spec.causal, options=options)
    sizes = (stream.width, spec.width, spec.layers, spec.heads)
    return StreamEncoder(*sizes, spec.dropout, stream.levels, temporal, stream.hidden, stream.axis, spec.position)


def is_within(name: str, part: str) -> bool:
    """Whether a parameter belongs to a part.

    >>> is_within("encoders.audio.norm.weight", "encoders.audio"), is_within("encoders.audio2.norm.weight", "encoders.audio")
    (True, False)
    """
    return name == part or name.startswith(f"{part}.")


#: What late fusion votes on, and how: the mean of probabilities, or of values.
VOTES = ("emotion", "dimensions")


def vote(name: str, outputs: Outputs, fused: Fused, places: dict[str, int]) -> Outputs:
    """The mean over the streams present (all, where none is): log of the mean probability, or mean value.

    Returns:
        By name: (R, C) log-probabilities, or (R, K) values, with how sure they are where the streams say it.
    """
    here = fused.present | ~fused.present.any(1, keepdim=True)
    each = torch.stack([outputs[f"{name}@{stream}"] for stream in places])  # (M, R, ·)
    share = (here / here.sum(1, keepdim=True)).to(each.dtype).T[..., None]  # (M, R, 1)
    if name == "emotion":
        # A logarithm of a sum of exponentials: absent streams have the weight 0, log 0.
        return {name: torch.logsumexp(each.log_softmax(-1) + share.log(), 0)}
    said = [outputs[key] for stream in places if (key := name_variance(f"{name}@{stream}")) in outputs]
    return mix_outputs(name, each, torch.stack(said) if len(said) == len(places) else None, share)
