"""Parameters of a stream: one encoder on one modality."""

from __future__ import annotations

from typing import Any, Literal

from .base import Count, Group, Positive, Whole


class StoreLayout(Group):
    dtype: Literal["float16", "float32"] = "float16"
    compression: Literal["gzip"] | None = None


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
    #: Hidden layer(s): -1 last, an index, `last4` (sum), `all` (kept for a learned weighted sum).
    layer: Whole | Literal["last4", "all"] = -1
    #: Over time: `none` keeps rows.
    pooling: Literal["none", "mean", "max", "mean_max", "first", "last", "statistics"] = "none"
    #: Rows per second that frame-level features are pooled to; null keeps the model's own.
    rate: Positive | None = None
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    #: CPU threads of the network; fixed, since sums in another order end in other last bits.
    threads: Count = 1
    #: What the family alone knows, e.g. Whisper's `padding: exact`.
    options: dict[str, Any] = {}
    store: StoreLayout = StoreLayout()
