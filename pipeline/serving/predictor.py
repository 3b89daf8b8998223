"""Prediction on raw media, through the code that made the training features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pipeline.devices import pick_devices
from pipeline.errors import UserError
from pipeline.features.encoders.extractor import Turn
from pipeline.params import Params, Stream
from pipeline.runs.ensemble import find_members
from pipeline.runs.folders import FUSED
from pipeline.runs.inputs import Before, Features
from pipeline.runs.predict import Estimate, average, average_looks, predict_inputs
from pipeline.runs.run import load_run
from pipeline.storage.feature_store import Status

from .attention import write_attention
from .dialogue import ask, name_voices, read_turn
from .encoding import Encoding
from .film import read_film
from .looks import Looks
from .prediction import NothingRead, Prediction, StreamUse, describe
from .source import Source
from .spoken import Spoken


@dataclass
class Predictor(Encoding):
    """The trained models of one variant and fold (of the ensemble: of all its members), and the encoders they were trained on."""

    #: What each of `runs` is worth in the mean; None = all alike.
    weights: Sequence[float] | None = None

    @classmethod
    def load(
        cls,
        params: Params,
        models: str | Path = Path("models/runs"),
        device: str | None = None,
        *,
        variant: str = FUSED,
        fold: int = 0,
        looks: Looks | None = None,
    ) -> Predictor:
        """Read the trained models.

        Args:
            params: for decoding and the device; the encoders are those the models were trained on.
            device: where encoders run; None takes `run.device`.
            looks: processes that look at files; None starts some when they are needed.

        Raises:
            StoreError: nothing was trained, no such variant or fold, or no ensemble was asked for.
            DeviceError: a GPU asked for is not there.
        """
        members = find_members(models, variant, fold)
        runs = [load_run(folder) for folder in members]
        encoders = {name: Stream.model_validate(spec) for run in runs for name, spec in run.config["encoders"].items()}
        place = pick_devices(device or params.run.device)[0]
        return cls(runs, encoders, params, place, looks=looks or Looks(), weights=list(members.values()))

    @classmethod
    def from_pretrained(cls, name: str | Path, device: str | None = None) -> Predictor:
        """That of a folder that `export` wrote, or of the hub; see `exported.open_exported`."""
        from .exported import open_exported  # here: the library transformers takes seconds to import

        runs, encoders, params, weights = open_exported(name)
        return cls(runs, encoders, params, pick_devices(device or params.run.device)[0], looks=Looks(), weights=weights)

    def predict(
        self,
        path: str | Path,
        text: str | None = None,
        start: float | None = None,
        end: float | None = None,
        *,
        speaker: str | None = None,
        context: Sequence[Turn] = (),
        attention: Path | None = None,
    ) -> Prediction:
        """Predict one media file. A modality it lacks is missing, as it would be in training.

        A model that predicts over time sees every frame of a film, however long, in windows; others see it as they saw clips.

        Args:
            path: media file, or a folder of frame images.
            text: what is said; without it, text streams that read recognised words (`asr.weights`) listen, others
                are missing.
            start, end: seconds of the file to look at.
            speaker, context: who speaks, and earlier turns of the dialogue, oldest first; for encoders that read them, and for
                a model with a context, which is given what the text streams make of their words.
            attention: file (.npz) to write to what the attention of the first model looks at.

        Raises:
            DecodeError: the file is not there, or no decoder can read it.
            UserError: an empty cut. NothingRead: not one of the model's streams can be had from the file.
            WeightsError: the weights of an encoder or of the recogniser are not there.
        """
        source = self.source(path, Spoken(text, speaker, tuple(context)), start, end)
        if not self.is_film(source):  # a file that is absent or no medium stops here, with one line
            features, use = self.features(source)
            return self.judge(source, features, use, source.heard, self.looks_of([source], [features])[0], attention)
        if attention is not None:
            raise UserError(f"{path} is too long for one look of the attention; cut it with --start and --end.")
        return self.predict_film(source)

    def predict_film(self, source: Source) -> Prediction:
        """The same of a file that is read piece by piece."""
        features, use, heard = read_film(source, self.encoders, self.features)
        return self.judge(source, features, use, heard, [features])

    def is_film(self, source: Source) -> bool:
        """Whether a file is read piece by piece: it is longer than a clip, and the model predicts over time.

        Raises:
            DecodeError: it is absent, or no medium.
        """
        return source.is_long and any(run.model.spec.base is not None for run in self.runs)

    def judge(
        self,
        source: Source,
        features: dict[str, Features],
        use: dict[str, StreamUse],
        heard: str | None,
        looks: Sequence[dict[str, Features]],
        attention: Path | None = None,
    ) -> Prediction:
        """What the models say of a file whose streams were encoded.

        Args:
            looks: what is predicted from, see `looks_of`.

        Raises:
            NothingRead: not one of the model's streams can be had from the file.
        """
        if not features:
            raise NothingRead(str(source.path), use)
        before = self.recall(source.spoken.context, source.spoken.speaker)
        voice = 0 if source.spoken.speaker else -1
        output = average_looks([self.estimate(look, before, voice) for look in looks])
        if attention is not None:
            write_attention(attention, self.runs[0].model, ask(self.runs[0], features, before, voice))
        if output.shares is not None:
            shares = dict(zip(self.runs[0].model.spec.streams, output.shares.tolist(), strict=True))
            use = {name: replace(one, share=shares[name]) if one.status == Status.OK else one for name, one in use.items()}
        return describe(str(source.path), source.duration, output, use, self.random, len(self.runs), heard)

    @property
    def random(self) -> tuple[str, ...]:
        """Streams whose encoder has random weights, and `fusion` where its language model has."""
        held = any(run.model.spec.language and run.model.spec.language.weights.startswith("random:") for run in self.runs)
        streams = [name for name, stream in self.encoders.items() if stream.weights.startswith("random:")]
        return (*streams, *(["fusion"] if held else []))

    def estimate(self, features: dict[str, Features], before: Sequence[Before] = (), voice: int = -1) -> Estimate:
        """What the models say of one clip from the raw features of its streams, each of those it reads.

        Args:
            before: the turns before it, see `recall`. voice: who speaks, as in `History.voices`.
        """
        return average([predict_inputs(run, ask(run, features, before, voice)) for run in self.runs], self.weights)

    def recall(self, context: Sequence[Turn], speaker: str | None = None) -> list[Before]:
        """The turns before a clip as the model's context takes them: of each, what text streams make of its words.

        What was seen and heard then is not known here, so that the other streams are missing in them.
        """
        window = max(run.model.spec.turns[0] for run in self.runs)
        voices = name_voices(context, speaker)
        found = []
        for i in range(max(0, len(context) - window) if window else len(context), len(context)):
            read = partial(read_turn, context[: i + 1])
            each = {name: self.encode(read, f"turn {i + 1}", name) for name in self.encoders}
            found.append(Before({name: one for name, one in each.items() if not isinstance(one, StreamUse)}, voices[i]))
        return found
