"""Typed parameters. The only reader of `params.yaml`; unknown key, bad type or bad combination is one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML, YAMLError

from .errors import ParamsError, one_of


class Group(BaseModel):
    """A block of parameters: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _number(value: object) -> object:
    # Sweeps pass through YAML writers that spell 0.000001 as the string 1e-06.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


Number = Annotated[float, BeforeValidator(_number)]
Positive = Annotated[float, BeforeValidator(_number), Field(gt=0)]
Share = Annotated[float, BeforeValidator(_number), Field(ge=0, le=1)]


class Corpus(Group):
    """Which corpus, where, and how its adapter reads it."""

    name: str
    root: str
    options: dict[str, Any] = {}


class Integrity(Group):
    """When a clip goes to quarantine. Durations in seconds, level in dBFS."""

    min_duration: Positive = 0.1
    max_duration: Positive = 60.0
    #: Measured minus annotated length; beyond both bounds the clip is far off.
    max_drift: Positive = 2.0
    silence: Number = -60.0


class Quarantine(Group):
    max_rate: Share = 0.05


class Protocol(Group):
    """Which clips are trained on, selected on and tested on.

    official: the corpus' own splits. split: one random split, grouped. kfold: `folds` grouped
    folds. leave_one_out: a fold per group. In the last two every fold holds a validation part
    drawn from the training groups (nested validation).
    """

    kind: Literal["official", "split", "kfold", "leave_one_out"] = "split"
    #: Manifest column that must not straddle a split.
    group: str = "speaker"
    folds: int = Field(default=5, ge=2)
    val: Share = 0.15
    test: Share = 0.2
    seed: int = 0
    stratify: bool = True
    #: Manifest columns checked for overlap; `content` is the media hash.
    leakage: tuple[str, ...] = ("speaker", "dialogue", "session", "content")
    #: What a leak does: stop, or report (an official split that leaks by design).
    on_leak: Literal["stop", "report"] = "stop"


class DecodeVideo(Group):
    fps: Positive = 4.0
    #: Shorter side in pixels; null keeps the original size.
    size: int | None = Field(default=256, ge=16)
    max_frames: int = Field(default=64, ge=1)
    quality: int = Field(default=95, ge=1, le=100)


class DecodeAudio(Group):
    rate: int = Field(default=16000, ge=8000)


class Decode(Group):
    video: DecodeVideo = DecodeVideo()
    audio: DecodeAudio = DecodeAudio()


class Faces(Group):
    """Stage `faces`: one face per clip, followed through its sampled frames."""

    #: `lbp` comes inside a package; `yunet` needs `weights: local:PATH` and their `sha256`; `whole`: pictures are faces.
    detector: Literal["lbp", "yunet", "whole"] = "lbp"
    weights: str | None = None
    sha256: str | None = None
    min_score: Share = 0.6
    #: Smallest face, share of the picture's shorter side.
    min_size: Share = 0.1
    #: Use the landmarks a corpus brings (AFEW-VA) instead of a detector.
    landmarks: bool = True
    #: Which of several faces.
    choice: Literal["persistent", "largest", "central"] = "persistent"
    #: Longest time without detection, in seconds, that is bridged between two boxes.
    gap: Share = 0.75
    #: Side of the crop, times the face's box.
    margin: Positive = 1.25
    #: Pixels of the square crop.
    size: int = Field(default=224, ge=32)
    #: Turn the crop so that the eyes are level, where they are known.
    align: bool = True
    quality: int = Field(default=95, ge=1, le=100)


class StoreLayout(Group):
    dtype: Literal["float16", "float32"] = "float16"
    compression: Literal["gzip"] | None = None


class Asr(Group):
    """Transcripts for clips that have none; a text stream reads them with `source: data/transcripts.parquet`."""

    #: A whole Whisper checkpoint, `hf:` `local:` `package:`; null = such clips stay without text.
    weights: str | None = None
    #: Of multilingual checkpoints, e.g. `en`; null = guessed per clip.
    language: str | None = None


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
    layer: int | Literal["last4", "all"] = -1
    #: Over time: `none` keeps rows.
    pooling: Literal["none", "mean", "max", "mean_max", "first", "last", "statistics"] = "none"
    #: Rows per second that frame-level features are pooled to; null keeps the model's own.
    rate: Positive | None = None
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    #: What the family alone knows, e.g. Whisper's `padding: exact`.
    options: dict[str, Any] = {}
    store: StoreLayout = StoreLayout()


class Task(Group):
    """What is predicted. Classes by name; empty = all emotions of the manifest, sorted."""

    emotion: bool = True
    classes: tuple[str, ...] = ()
    #: Dimensions regressed, in [-1, 1].
    dimensions: tuple[Literal["valence", "arousal", "dominance"], ...] = ("valence", "arousal")
    #: Per clip, or also per frame along the tokens of the time base.
    level: Literal["clip", "frame"] = "clip"
    #: Stream whose tokens are the frames; null = the first video or face stream, else the first.
    time_base: str | None = None


class Temporal(Group):
    """The temporal transformer of each stream."""

    width: int = Field(default=64, ge=8)
    layers: int = Field(default=1, ge=0)
    heads: int = Field(default=4, ge=1)
    dropout: Share = 0.1
    #: Longer clips have adjacent tokens averaged; attention costs the square of it.
    max_tokens: int = Field(default=256, ge=1)

    @model_validator(mode="after")
    def _divides(self) -> Temporal:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class Fusion(Group):
    """How streams become one; a YAML file in `conf/fusion/`. `options` belong to the module named."""

    name: str
    options: dict[str, Any] = {}


class Loss(Group):
    emotion: Literal["cross_entropy", "focal"] = "cross_entropy"
    class_weights: bool = False
    label_smoothing: Share = 0.0
    gamma: Number = 2.0
    #: Weight of the regression part, 0.5 MSE + 0.5 (1 - CCC).
    dimensions: Number = 1.0


class Training(Group):
    seeds: int = Field(default=5, ge=1)
    epochs: int = Field(default=40, ge=1)
    batch_size: int = Field(default=32, ge=1)
    lr: Positive = 1e-3
    weight_decay: Number = 0.01
    warmup: Share = 0.1
    patience: int = Field(default=10, ge=1)
    clip_norm: Positive = 1.0
    #: Validation metric that selects the checkpoint.
    select: Literal["uar", "macro_f1", "weighted_f1", "accuracy", "ccc", "loss"] = "uar"
    #: Also train each stream alone, for the comparison in the report.
    unimodal: bool = True
    #: CPU threads of one run; fixed, since sums in another order end in other last bits.
    threads: int = Field(default=1, ge=1)


class Run(Group):
    """Never part of an identity: changing these recomputes nothing."""

    device: str = "auto"
    workers: int = Field(default=2, ge=0)
    #: Share of an extractor's default batch budget.
    batch: Positive = 1.0
    engine: Literal["local", "ray"] = "local"
    ray_address: str | None = None
    compile: bool = False
    #: Seconds a clip may take to decode.
    timeout: Positive = 60.0


class Params(Group):
    recipe: str
    corpus: Corpus
    integrity: Integrity = Integrity()
    quarantine: Quarantine = Quarantine()
    protocol: Protocol = Protocol()
    decode: Decode = Decode()
    faces: Faces = Faces()
    asr: Asr = Asr()
    streams: dict[str, Stream]
    task: Task = Task()
    temporal: Temporal = Temporal()
    fusion: Fusion
    loss: Loss = Loss()
    training: Training = Training()
    run: Run = Run()

    @model_validator(mode="after")
    def _combination(self) -> Params:
        if not self.streams:
            raise ValueError("streams is empty; keep at least one")
        if not self.task.emotion and not self.task.dimensions:
            raise ValueError("task predicts nothing; set task.emotion or task.dimensions")
        return self

    def stream(self, name: str) -> Stream:
        """The stream of that name.

        Raises:
            ParamsError: there is none.
        """
        if name not in self.streams:
            raise one_of("stream", name, self.streams)
        return self.streams[name]


def read(path: str | Path = "params.yaml") -> Params:
    """Read and check the parameters.

    Raises:
        ParamsError: the file is absent, not YAML, or holds something a parameter cannot be.
    """
    path = Path(path)
    if not path.is_file():
        raise ParamsError(f"{path} is not there. Run this from the folder that holds params.yaml.")
    try:
        return parse(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")), path)
    except YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error


def parse(values: object, origin: str | Path = "params.yaml") -> Params:
    """Check parameters given as plain values."""
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise ParamsError("; ".join(_line(origin, item) for item in error.errors())) from error


def parse_stream(values: object, origin: str | Path) -> Stream:
    """Check one stream given as plain values, e.g. a file of `conf/stream/`."""
    try:
        return Stream.model_validate(values)
    except ValidationError as error:
        raise ParamsError("; ".join(_line(origin, item) for item in error.errors())) from error


def _line(origin: str | Path, item: dict) -> str:
    key = ".".join(str(part) for part in item["loc"]) or "(whole file)"
    if item["type"] == "extra_forbidden":
        return f"{origin}: unknown parameter {key}"
    if item["type"] == "missing":
        return f"{origin}: parameter {key} is missing"
    message = item["msg"].removeprefix("Value error, ")
    given = "" if isinstance(item["input"], dict) else f" (got {item['input']!r})"
    return f"{origin}: {key}: {message}{given}"
