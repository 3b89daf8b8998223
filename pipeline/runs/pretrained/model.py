"""Trained runs as a model of the library transformers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.utils import cached_file

from pipeline.errors import StoreError, UserError, one_of
from pipeline.models.batch import History, Tokens
from pipeline.models.spec import ModelSpec
from pipeline.runs.language import build
from pipeline.runs.run import TrainedModel

from .config import AffectoryConfig
from .member import Member
from .output import AffectoryOutput, average

WEIGHTS = "model.safetensors"
#: What `from_pretrained` hands on to the hub's client.
HUB = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


class AffectoryModel(PreTrainedModel):
    """Emotion and valence–arousal from ready-made features: the mean of the networks of a variant and fold.

    What a clip is told depends on nothing beside it in the batch.

    >>> from pipeline.models.spec import StreamSpec
    >>> from pipeline.models.build import build_model
    >>> spec = ModelSpec(streams={"audio": StreamSpec(width=8, pooling="mean")}, classes=("joy", "sadness"), linear=True)
    >>> facts = {"variant": "linear", "fold": 0, "seed": 0, "max_tokens": 64, "normalise": "train"}
    >>> run = TrainedModel(facts, build_model(spec), {"audio": (np.zeros(8, np.float32), np.ones(8, np.float32))})
    >>> AffectoryModel.of([run])({"audio": torch.zeros(3, 5, 8)}).probabilities.shape
    torch.Size([3, 2])
    """

    config_class = AffectoryConfig
    main_input_name = "values"

    def __init__(self, config: AffectoryConfig) -> None:
        super().__init__(config)
        self.members = nn.ModuleList(
            Member(build(ModelSpec.model_validate(one["model"])), one["max_tokens"]) for one in config.members
        )
        self.eval()

    @classmethod
    def of(cls, runs: Sequence[TrainedModel], weights: Sequence[float] | None = None) -> AffectoryModel:
        """The mean of runs; see `AffectoryConfig.of`."""
        model = cls(AffectoryConfig.of(runs, weights))
        for run, member in zip(runs, model.list_members(), strict=True):
            member.model.load_trainable(run.model.trainable())
            for name, one in member.normalisation.items():
                one.mean, one.std = (torch.from_numpy(np.array(part)) for part in run.normalisation[name])
        return model

    def list_members(self) -> list[Member]:
        """The networks."""
        return [cast(Member, one) for one in self.members]

    def learned(self) -> dict[str, Tensor]:
        """What is saved: the frozen layers of a language model are not; they come from their own address."""
        found: dict[str, Tensor] = {}
        for place, member in enumerate(self.list_members()):
            found |= {f"members.{place}.model.{name}": value for name, value in member.model.trainable().items()}
            found |= {f"members.{place}.normalisation.{name}": x for name, x in member.normalisation.state_dict().items()}
        return {name: value.detach().clone().contiguous() for name, value in found.items()}

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:  # type: ignore[override]
        """Write `config.json` and `model.safetensors`, whatever its size one file."""
        super().save_pretrained(save_directory, **{"state_dict": self.learned(), "max_shard_size": "1000GB", **kwargs})

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | os.PathLike, *args: Any, **kwargs: Any
    ) -> AffectoryModel:
        """Read a folder, or what the hub calls by that name.

        Tables of a network that are computed and not saved would be lost in the library's own loading, which builds networks
        without content; so this one builds them whole, and takes the weights as they are or not at all.

        Args:
            kwargs: `config`, `dtype`, and what the hub's client knows: `revision`, `cache_dir`, `token`, `local_files_only`, …

        Raises:
            StoreError: there is no such folder, or its tensors do not fit its config.
            UserError: an option that this model does not know.
        """
        hub = {name: kwargs.pop(name) for name in HUB if name in kwargs}
        config, dtype = kwargs.pop("config", None), kwargs.pop("dtype", None)
        given = {name for name, value in kwargs.items() if value is not None and not name.startswith("_")}
        if unknown := sorted(given - {"trust_remote_code", "adapter_kwargs", "use_safetensors", "weights_only"}):
            raise one_of("option of from_pretrained", unknown[0], ("config", "dtype", *HUB), UserError)
        tensors = safetensors.torch.load_file(find_file(pretrained_model_name_or_path, WEIGHTS, **hub))
        if config is None:
            config = AffectoryConfig.from_pretrained(pretrained_model_name_or_path, **hub)
        model = cls(config)
        wanted = model.learned()
        if wrong := sorted(set(wanted) ^ set(tensors)) or [n for n, x in wanted.items() if x.shape != tensors[n].shape]:
            raise StoreError(f"{pretrained_model_name_or_path}: {WEIGHTS} does not fit config.json ({wrong[0]}); export it anew.")
        model.load_state_dict(tensors, strict=False)
        return nn.Module.to(model, dtype) if isinstance(dtype, torch.dtype) else model

    def forward(
        self,
        values: Mapping[str, Tensor],
        mask: Mapping[str, Tensor] | None = None,
        times: Mapping[str, Tensor] | None = None,
        history: History | None = None,
    ) -> AffectoryOutput:
        """Predict.

        Args:
            values: stream → (B, T, D), or (B, T, L, D), as its encoder gives them, not normalised. A stream left out is missing.
            mask: stream → (B, T) bool, true where a row is; None = everywhere.
            times: stream → (B, T, 2) seconds from the clip's start; streams read as one row per clip do without.
            history: earlier turns, for a model with a context; None = each clip by itself.

        Raises:
            UserError: an unknown stream, none at all, a shape that does not fit, or no times where they are read.
        """
        streams = self.gather(values, mask or {}, times or {})
        worth = [float(one["weight"]) for one in self.config.members]
        return average([member(streams, history) for member in self.list_members()], worth)

    def gather(self, values: Mapping[str, Tensor], mask: Mapping[str, Tensor], times: Mapping[str, Tensor]) -> dict[str, Tokens]:
        """What was given as tokens of every stream."""
        shapes: Mapping[str, list[int]] = self.config.streams
        for name in (*values, *mask, *times):
            if name not in shapes or name not in values:
                raise one_of("stream", name, shapes if name not in shapes else values, UserError)
        if not values:
            raise UserError(f"no stream was given; known: {', '.join(shapes)}.")
        first = next(iter(values.values()))
        found = {}
        for name, shape in shapes.items():
            if name not in values:
                nothing = first.new_zeros(len(first), 1, *shape)
                found[name] = Tokens(nothing, nothing.new_zeros(nothing.shape[:2]).bool(), nothing.new_zeros(len(first), 1, 2))
                continue
            rows = values[name]
            if list(rows.shape[2:]) != shape or len(rows) != len(first):
                wanted = ", ".join(map(str, ("B", "T", *shape)))
                raise UserError(f"stream {name} has values of shape {tuple(rows.shape)}; ({wanted}) is wanted, B alike for all.")
            if name in mask and mask[name].shape != rows.shape[:2]:
                raise UserError(f"the mask of stream {name} is {tuple(mask[name].shape)}; {tuple(rows.shape[:2])} is wanted.")
            here = mask[name] if name in mask else rows.new_ones(rows.shape[:2]).bool()
            if name not in times and self.reads_times(name):
                raise UserError(f"stream {name} is without times; give (B, T, 2) seconds, start and end of each row.")
            seconds = times[name] if name in times else rows.new_zeros(*rows.shape[:2], 2)
            found[name] = Tokens(rows.float(), here.bool(), seconds.float())
        return found

    def reads_times(self, name: str) -> bool:
        """Whether it matters when the rows of a stream are."""
        specs = [one.model.spec for one in self.list_members()]
        return any(name in spec.streams and (spec.streams[name].pooling == "none" or spec.window is not None) for spec in specs)


def find_file(name: str | os.PathLike, file: str, **hub: Any) -> str:
    """A file of an exported folder, or of the hub.

    Raises:
        StoreError: it is not there.
    """
    try:
        found = cached_file(os.fspath(name), file, **hub)
    except OSError as error:
        raise StoreError(
            f"{name} holds no exported model ({file} is not there); `python -m pipeline export` writes one."
        ) from error
    assert found is not None
    return found


AutoConfig.register(AffectoryConfig.model_type, AffectoryConfig, exist_ok=True)
AutoModel.register(AffectoryConfig, AffectoryModel, exist_ok=True)
