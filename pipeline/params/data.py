"""Parameters of phase 1 up to decoded media: corpus, checks, protocol, decoding, faces, transcripts."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from .base import Count, Flag, Group, Name, Number, Positive, Share, Whole


class Corpus(Group):
    """Which corpus, where, and how its adapter reads it."""

    name: Name
    root: str
    options: dict[str, Any] = {}

    @field_validator("root")
    @classmethod
    def _is_here(cls, value: str) -> str:
        """Media are read again and again: from a folder of this machine."""
        if "://" in value:
            fetch = f"python -m pipeline corpus fetch {value} FOLDER"
            raise ValueError(f"{value} is an address; bring it here ({fetch}), then say root=FOLDER")
        return value


class Integrity(Group):
    """When a clip goes to quarantine. Durations in seconds, level in dBFS."""

    min_duration: Positive = 0.1
    max_duration: Positive = 60.0
    #: Measured minus annotated length; beyond both bounds the clip is far off.
    max_drift: Positive = 2.0
    #: dBFS; sound whose loudest second stays below it is silence. Soft speech is not: RAVDESS' softest take is at -59.
    silence: Number = -70.0


class Quarantine(Group):
    max_rate: Share = 0.05


class Protocol(Group):
    """Which clips are trained on, selected on and tested on.

    official: the corpus' own splits. split: one random split, grouped. kfold: `folds` grouped
    folds. leave_one_out: a fold per group. cross: trained on one corpus, tested on the others, each in turn. file: folds
    from a table. In the last four every fold holds a validation part drawn from the training groups (nested validation).
    none: every clip is there for its features, and nothing is trained.
    """

    kind: Literal["official", "split", "kfold", "leave_one_out", "cross", "file", "none"] = "split"
    #: Manifest column that must not straddle a split.
    group: str = "speaker"
    #: Column by which validation is drawn from the training part, but in `split`; null = `group`. `speaker` where `group` is
    #: `corpus`, of which two would leave one to train on and none to select on, and in `cross` by default.
    val_group: str | None = None
    #: Of `cross`: the one corpus to train on; null = each in turn.
    source: str | None = None
    #: Of `file`: a table of `id` or `group`, and `fold` (see docs/protocols.md). Others do not look at it.
    file: str | None = None
    folds: Whole = Field(default=5, ge=2)
    val: Share = 0.15
    test: Share = 0.2
    seed: Whole = 0
    stratify: Flag = True
    #: Manifest columns checked for overlap; `content` is the media hash.
    leakage: tuple[str, ...] = ("speaker", "dialogue", "session", "content")
    #: What a leak does: stop, or report (an official split that leaks by design).
    on_leak: Literal["stop", "report"] = "stop"

    @model_validator(mode="after")
    def _has_source(self) -> Protocol:
        if self.source is not None and self.kind != "cross":
            raise ValueError(
                f"source is {self.source}, but kind is {self.kind}; only cross trains on one corpus (protocol=cross_corpus)"
            )
        return self


class DecodeVideo(Group):
    fps: Positive = 4.0
    #: Shorter side in pixels; null keeps the original size.
    size: Whole | None = Field(default=256, ge=16)
    max_frames: Count = 64
    quality: Whole = Field(default=95, ge=1, le=100)


class DecodeAudio(Group):
    rate: Whole = Field(default=16000, ge=8000)


class Decode(Group):
    video: DecodeVideo = DecodeVideo()
    audio: DecodeAudio = DecodeAudio()


class Faces(Group):
    """Stage `faces`: one face per clip, followed through its sampled frames."""

    #: `mtcnn` comes inside a package; `yunet` needs `weights: local:PATH` and their `sha256`; `whole`: pictures are faces.
    detector: Literal["mtcnn", "yunet", "whole"] = "mtcnn"
    weights: str | None = None
    sha256: str | None = None
    #: Shorter side in pixels that `mtcnn` searches a picture at; smaller ones are searched as they are.
    side: Whole = Field(default=288, ge=48)
    min_score: Share = 0.6
    #: Smallest face, share of the picture's shorter side.
    min_size: Share = 0.1
    #: Use the landmarks a corpus brings (AFEW-VA) instead of a detector.
    landmarks: Flag = True
    #: Which of several faces. `speaking`: the one whose mouth moves with the sound, else the largest.
    choice: Literal["persistent", "largest", "central", "speaking"] = "persistent"
    #: Longest time without detection, in seconds, that is bridged between two boxes.
    gap: Share = 0.75
    #: Side of the crop, times the face's box.
    margin: Positive = 1.25
    #: Pixels of the square crop.
    size: Whole = Field(default=224, ge=32)
    #: Turn the crop so that the eyes are level, where they are known.
    align: Flag = True
    quality: Whole = Field(default=95, ge=1, le=100)
    #: A clip that shows its face in a smaller share of its frames gets a note in quarantine; 0 = none.
    min_share: Share = 0.25
    #: Faces that the report shows, as small pictures in the page. They are people of the corpus: mind its licence.
    crops: Whole = Field(default=0, ge=0, le=24)


class Asr(Group):
    """Transcripts for clips that have none; a text stream reads them with `source: data/transcripts.parquet`."""

    #: A whole Whisper checkpoint, `hf:` `local:` `package:`; null = such clips stay without text.
    weights: str | None = None
    #: Of multilingual checkpoints, e.g. `en`; null = guessed per clip.
    language: str | None = None
    #: CPU threads of the network; fixed, since sums in another order end in other last bits.
    threads: Count = 1
