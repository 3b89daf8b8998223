"""Whether an adapted encoder is still the one that a model was trained on: its folder is written anew when it is adapted anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.errors import StoreError
from pipeline.features.encoders.extractor import Extractor
from pipeline.params import Stream
from pipeline.runs.run import TrainedModel


def check_adapter(name: str, stream: Stream, extractor: Extractor, runs: Sequence[TrainedModel]) -> None:
    """
    Raises:
        StoreError: the adapter of a stream has other bytes than the one whose features the models have learned from.
    """
    if stream.adapter is None:
        return
    facts: list[dict[str, Any]] = [run.config.get("streams", {}).get(name, {}) for run in runs]
    known = {one["adapter"] for one in facts if "adapter" in one}
    if known - {(found := extractor.identity["adapter"]["sha256"])}:
        raise StoreError(
            f"stream {name}: the model was trained on features of another adapter (sha256 {min(known)[:12]}) than "
            f"{stream.adapter} holds ({found[:12]}); run `dvc repro`, or bring that adapter back."
        )
