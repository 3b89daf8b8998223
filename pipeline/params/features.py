"""Parameters of a stream: one encoder on one modality."""

from __future__ import annotations

import re
from typing import Any, Literal, TypeAlias

from pydantic import Field, ValidationInfo, field_validator

from .adapting import Adapt
from .base import Count, Group, Positive, Whole
from .views import check_views

#: Layers to be added up, as they are written on a command line.
SUM = re.compile(r"-?\d+(\+-?\d+)+")


class StoreLayout(Group):
    dtype: Literal["float16", "float32"] = "float16"
    compression: Literal["gzip"] | None = None
    #: GiB of features in one file; a stream that has more is kept in several, each for a range of clip ids.
    shard: Positive = 2.0


class Sum(Group):
    """Hidden layers that are added up, row by row; in short `2+3+4`."""

    sum: tuple[Whole, ...] = Field(min_length=1)


#: What is kept of an encoder's hidden states; see `Stream.layer`.
Layer: TypeAlias = Whole | Literal["last4", "all"] | tuple[Whole, ...] | Sum


class Stream(Group):
    """One encoder on one modality; a YAML file in `conf/stream/`."""

    modality: Literal["video", "face", "audio", "text"]
    #: The file `extract` reads: the DVC dependency.
    source: str
    #: Family in the registry (`python -m pipeline streams`), or `import`.
    encoder: str
    #: `hf:` `open_clip:` `timm:` `local:` `package:` `random:<seed>` `file:` (imports).
    weights: str
    #: Architecture of a `random:` stand-in; of no use with real weights.
    architecture: dict[str, Any] = {}
    #: Hidden layer(s): -1 last, an index, `last4` (sum), `all` or a list (kept, for a learned weighted sum), `2+3+4` (sum).
    layer: Layer = -1
    #: Over time: `none` keeps rows.
    pooling: Literal["none", "mean", "max", "mean_max", "first", "last", "statistics"] = "none"
    #: Rows per second that frame-level features are pooled to; null keeps the model's own.
    rate: Positive | None = None
    #: Pictures per second that the encoder sees, at most those decoded (`decode.video.fps`); null = all of them.
    fps: Positive | None = None
    #: Pixels of their shorter side, at most those decoded (`decode.video.size`, `faces.size`); null = as they are.
    size: Whole | None = Field(default=None, ge=16)
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    #: CPU threads of the network; fixed, since sums in another order end in other last bits.
    threads: Count = 1
    #: What the family alone knows, e.g. Whisper's `padding: exact`.
    options: dict[str, Any] = {}
    #: The clip seen otherwise, encoded too: `speed:0.9` of sound, `mirror`, `brightness:0.8` of pictures. Order decides nothing.
    views: tuple[str, ...] = ()
    store: StoreLayout = StoreLayout()
    #: How the encoder is adapted to the training clips first; null = it stays as it is (docs/adapt.md).
    adapt: Adapt | None = None
    #: Folder of a ready-made PEFT adapter of these weights. With `adapt` it is the one that stage `adapt` writes.
    adapter: str | None = None

    @property
    def bare(self) -> Stream:
        """The stream with the encoder as its weights are."""
        return self.model_copy(update={"adapter": None})

    @field_validator("layer", mode="before")
    @classmethod
    def _layers(cls, value: object) -> object:
        """One fault of a list, in place of one per kind of layer there is; `2+3+4`, which can take any other's place with -S."""
        if isinstance(value, str) and SUM.fullmatch(value):
            value = {"sum": [int(one) for one in value.split("+")]}
        chosen = value["sum"] if isinstance(value, dict) and set(value) == {"sum"} else value
        if isinstance(chosen, list | tuple):
            if not chosen:
                raise ValueError("an empty list names no layer")
            if wrong := [one for one in chosen if not isinstance(one, int) or isinstance(one, bool)]:
                raise ValueError(f"{wrong[0]!r} is no layer; a list holds whole numbers")
            if twice := [one for one in chosen if list(chosen).count(one) > 1]:
                raise ValueError(f"layer {twice[0]} is named twice")
        elif isinstance(value, dict) or chosen is not value:
            raise ValueError("of several layers, write [2, 3, 4] to keep them or 2+3+4 to add them up")
        return value

    @field_validator("views")
    @classmethod
    def _views(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        imported = info.data.get("encoder") == "import"
        return check_views(value, "imported features" if imported else info.data.get("modality", ""))
