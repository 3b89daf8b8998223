"""One adaptation: what decides it, and how it is carried out and written down."""

from __future__ import annotations

import importlib.metadata
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from pipeline.code import code_digest
from pipeline.devices import pick_devices
from pipeline.errors import ParamsError, UserError
from pipeline.features.encoders import registry
from pipeline.features.encoders.encoder import Encoder
from pipeline.features.encoders.extractor import Prepared
from pipeline.features.engine.reader import Reader
from pipeline.features.plan import Plan as StreamPlan
from pipeline.features.plan import plan_stream
from pipeline.params import Adapt, Params
from pipeline.storage.atomic import atomic_folder, write_json
from pipeline.threads import calm_libraries, computing
from pipeline.weights import adapters
from pipeline.workers.pool import Pool

from .clips import Clips, gather
from .layers import checkpoint_blocks, choose_layers, choose_parameters
from .learner import LOSSES, Learner, choose_level, encode
from .loop import Course, learn
from .reading import DrawReader, Seen
from .state import Progress

log = logging.getLogger(__name__)

#: What stands on the encoder, beside its adapter: no later stage reads it.
HEADS = "heads.safetensors"


@dataclass(frozen=True)
class Plan:
    """An adaptation to be carried out.

    Attributes:
        stream: the stream's parts, its encoder as its weights are.
        where: the key of `adapt`, for messages.
    """

    name: str
    adapt: Adapt
    stream: StreamPlan
    clips: Clips
    device: str

    @classmethod
    def make(
        cls, params: Params, name: str, adapt: Adapt, *, manifest: str | Path, folds: str | Path, annotations: str | Path
    ) -> Plan:
        """
        Raises:
            ParamsError: see `clips.gather`; an encoder without a network.
            WeightsError: the weights are not there.
        """
        # Learned in full precision, whatever the stream computes its features in.
        bare = params.stream(name).bare.model_copy(update={"dtype": "float32"})
        check_encoder(bare.encoder, f"streams.{name}.adapt")
        stream = plan_stream(name, bare, manifest)
        clips = gather(params, adapt, stream.jobs, manifest=manifest, folds=folds, annotations=annotations)
        return cls(name, adapt, stream, clips, pick_devices(params.run.device)[0])

    @property
    def where(self) -> str:
        """The key of `adapt`."""
        return f"streams.{self.name}.adapt"

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides what is learned, as JSON values."""
        losses = sorted({LOSSES.find(term.name).__module__ for term in self.adapt.terms.values()})
        return {
            "family": f"{self.name} adapted",
            "adapt": self.adapt.model_dump(mode="json"),
            "parts": [part.identity for part in self.stream.parts],
            "views": list(self.stream.stream.views),
            "clips": self.clips.fingerprint,
            "code": code_digest(__name__, *losses),
            "torch": torch.__version__,
            "peft": importlib.metadata.version("peft"),
            "device": self.device.partition(":")[0],
        }


def check_encoder(encoder: str, where: str) -> None:
    """
    Raises:
        ParamsError: there is no such family, or it has no network.
    """
    if not registry.learns(registry.FAMILIES.find(encoder)):
        raise ParamsError(f"{where}: encoder {encoder} computes its features and learns nothing; leave adapt out.")


def run(plan: Plan, params: Params, folder: Path, *, on_epoch: Callable[[Progress], None] | None = None) -> Progress:
    """Carry an adaptation out in a folder of the cache; `adapter` is in it when it is done, and `state.pt` until then.

    Raises:
        UserError: no clip can be read, or the loss is no number. ParamsError: nothing of the encoder can learn.
    """
    adapt, stream = plan.adapt, plan.stream
    prepare = {part.view: part.extractor.prepare for part in stream.parts}
    plain = stream.parts[0].extractor
    reader = DrawReader(Reader(None, stream.stream.modality, stream.source), prepare, adapt.frames, adapt.seconds)
    calm_libraries()
    preload = (DrawReader.__module__, *plain.modules)
    with (
        computing(plain.threads),
        Pool(reader, workers=params.run.workers, timeout=params.run.timeout, preload=preload) as pool,
        torch.random.fork_rng([plan.device] if plan.device.startswith("cuda") else []),
    ):
        torch.manual_seed(adapt.seed)
        encoder = plain.load(device=plan.device)
        seen = Seen(pool, plan.clips.jobs, adapt.batch, stream.stream.views)
        probe = _read_probe(plan, seen)
        tuner = _open(encoder, adapt, probe, plan.where)
        with torch.no_grad():
            width = encode(encoder, [probe])[0].shape[-1]
        learner = Learner(encoder, stream.stream, adapt, plan.clips, width, plan.where).to(plan.device)
        if adapt.gradient_checkpointing and not checkpoint_blocks(encoder.network):
            raise ParamsError(f"{plan.where}.gradient_checkpointing: this encoder has no blocks that could be computed twice.")
        log.info("%s: %d of %d weights learn, on %s", plan.where, *_count(encoder), plan.device)
        course = Course(encoder, learner, plan.clips, adapt, seen, plan.device, plan.where)
        progress = learn(course, state=folder / "state.pt", on_epoch=lambda now: _tell(plan, now, on_epoch))
        _write(plan, course, progress, tuner, folder / "adapter")
    (folder / "state.pt").unlink(missing_ok=True)
    return progress


def _read_probe(plan: Plan, seen: Seen) -> Prepared:
    for place in plan.clips.train:
        for batch in seen.read([place]):
            return batch[0][1]
    raise UserError(f"{plan.where}: no training clip can be read; see data/quarantine.parquet.")


def _open(encoder: Encoder, adapt: Adapt, probe: Prepared, where: str) -> Any | None:
    """Let what is to learn have gradients. Returns PEFT's model around the network, with LoRA."""
    if adapt.method == "lora":
        targets = choose_layers(encoder, adapt, probe, where)
        return adapters.attach(encoder.network, targets, r=adapt.r, alpha=adapt.alpha, dropout=float(adapt.dropout))
    chosen = set(choose_parameters(encoder, adapt, probe, where))
    for name, value in encoder.network.named_parameters():
        value.requires_grad_(name in chosen)
    return None


def _count(encoder: Encoder) -> tuple[int, int]:
    values = list(encoder.network.parameters())
    return sum(v.numel() for v in values if v.requires_grad), sum(v.numel() for v in values)


def _tell(plan: Plan, progress: Progress, on_epoch: Callable[[Progress], None] | None) -> None:
    row = progress.history[-1]
    f1 = f", macro-F1 {row['val_macro_f1']:.3f}" if math.isfinite(row["val_macro_f1"]) else ""
    log.info("%s: epoch %d, loss %.4f, validation %.4f%s", plan.name, progress.epoch, row["train_loss"], row["val_loss"], f1)
    if on_epoch is not None:
        on_epoch(progress)


def _write(plan: Plan, course: Course, progress: Progress, tuner: Any | None, folder: Path) -> None:
    """The adapter, its heads and its record, complete or not at all."""
    adapt = plan.adapt
    gated = adapt.objective == "emotion" and adapt.gate is not None
    if gated and progress.gate is None:
        log.warning(
            "%s: macro-F1 on validation clips did not pass the gate of %g; the best epoch, %.3f, is taken",
            plan.where,
            adapt.gate,
            progress.key[0],
        )
    learning, total = _count(course.encoder)
    record = {
        "method": adapt.method,
        "objective": adapt.objective,
        "level": choose_level(adapt, plan.clips),
        "base": adapters.describe_base(plan.stream.parts[0].extractor.identity["weights"]),
        "gate": adapt.gate if gated else None,
        "reached": progress.gate is not None if gated else None,
        "gate_epoch": progress.gate,
        "best_epoch": progress.best_epoch,
        "epochs": progress.epoch,
        "classes": list(plan.clips.classes),
        "dimensions": list(plan.clips.names),
        "clips": {"train": len(plan.clips.train), "val": len(plan.clips.val)},
        "weights": {"learned": learning, "all": total},
        "history": [{key: value if math.isfinite(value) else None for key, value in row.items()} for row in progress.history],
    }
    with atomic_folder(folder) as made:
        adapters.save(made, adapters.learned(course.encoder.network), tuner)
        heads = {name: value.detach().cpu().contiguous() for name, value in course.learner.heads.state_dict().items()}
        safetensors.torch.save_file(heads, made / HEADS)
        write_json(made / adapters.RECORD, record)
