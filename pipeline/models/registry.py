"""The parts of a model by name; each is one file (`pipeline/parts.py`)."""

from __future__ import annotations

from pipeline.parts import Parts

from .contexts.base import Context
from .fusion.base import Fusion
from .heads.base import Head
from .losses.base import Loss
from .temporal.base import Temporal

FUSIONS: Parts[Fusion] = Parts("pipeline.models.fusion", Fusion, "fusion")
CONTEXTS: Parts[Context] = Parts("pipeline.models.contexts", Context, "context")
HEADS: Parts[Head] = Parts("pipeline.models.heads", Head, "head")
LOSSES: Parts[Loss] = Parts("pipeline.models.losses", Loss, "loss")
TEMPORALS: Parts[Temporal] = Parts("pipeline.models.temporal", Temporal, "temporal.kind")
