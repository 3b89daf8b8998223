"""Zero-shot emotion of a CLIP model: how near each frame is to a sentence per emotion; a baseline without training.

Radford et al. 2021, section 3.1. Row: one number per class, in the order of `options.classes`.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline import weights
from pipeline.errors import ParamsError
from pipeline.features.encoders.extractor import Extractor
from pipeline.features.encoders.family import Family
from pipeline.features.encoders.text import tokenizer_files, tokens
from pipeline.params import Stream
from pipeline.params.base import Group

from . import framewise, images
from .clip import read_preprocessing

if TYPE_CHECKING:
    import torch

Output = Literal["probability", "similarity"]
CLASSES = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
#: Several wordings per class; their embeddings are averaged.
TEMPLATES = ("a photo of a person who looks {}.", "a {} face.", "someone who feels {}.")


def write_prompts(classes: list[str], templates: list[str]) -> list[str]:
    """All sentences, class by class."""
    return [template.format(name) for name in classes for template in templates]


class Readout:
    """(N, 3, H, W) pixels → (N, classes): the nearness of each image to each class.

    Args:
        model: both towers.
        sentences: `input_ids` and `attention_mask` (classes · templates, L), class by class.
    """

    def __init__(self, model: Any, sentences: dict[str, torch.Tensor], classes: int, output: Output) -> None:
        self.model, self.sentences, self.classes, self.output = model, sentences, classes, output

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        import torch

        pooled = self.model.vision_model(pixel_values=pixels.to(self.model.dtype)).pooler_output
        # A text tower that learns is asked anew.
        texts = self.encode_classes() if torch.is_grad_enabled() else self._texts
        rows = torch.nn.functional.normalize(self.model.visual_projection(pooled).float(), dim=-1) @ texts.T
        scale = self.model.logit_scale.exp().float()
        return (rows * scale).softmax(-1) if self.output == "probability" else rows

    def encode_classes(self) -> torch.Tensor:
        """(classes, D) float32, the mean of each class' sentences."""
        from torch.nn.functional import normalize

        pooled = self.model.text_model(**self.sentences).pooler_output
        texts = normalize(self.model.text_projection(pooled).float(), dim=-1)
        return normalize(texts.unflatten(0, (self.classes, -1)).mean(1), dim=-1)

    @cached_property
    def _texts(self) -> torch.Tensor:
        return self.encode_classes()


def load(
    stream: Stream, classes: list[str], templates: list[str], output: Output, spec: images.Preprocessing, device: str = "cpu"
) -> framewise.FrameEncoder:
    """Both towers on `device`."""
    from transformers import CLIPModel

    from pipeline.weights import pretrained

    architecture = _standing_in(stream) if weights.parse(stream.weights).random else None
    model = pretrained.load(CLIPModel, stream.weights, architecture=architecture, dtype=stream.dtype).to(device)
    found = _tokens(stream.weights, write_prompts(classes, templates), model.config.text_config.vocab_size)
    sentences = {key: value.to(device) for key, value in found.items()}
    return framewise.FrameEncoder(model, Readout(model, sentences, len(classes), output), spec, device)


def _standing_in(stream: Stream) -> dict:
    """The architecture with the markers that hashed words have: texts end in the last word of the vocabulary."""
    text = dict(stream.architecture.get("text_config", {}))
    ends = {"bos_token_id": 1, "eos_token_id": int(text.get("vocab_size", 49408)) - 1, "pad_token_id": 0}
    return {**stream.architecture, "text_config": text | ends}


def _tokens(origin: str, texts: list[str], size: int) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask` (N, L) by the checkpoint's tokeniser; a stand-in hashes words.

    Raises:
        WeightsError: there is no tokenizer beside the weights.
    """
    import torch

    if weights.parse(origin).random:
        rows = [tokens.Words(size - 1)(text, None, 64).ids for text in texts]
        ids, mask = tokens.pad([np.append(row[:-1], size - 1) for row in rows], 0)
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    tokenizer = tokenizer_files.load_tokenizer(origin, weights.locate(origin))
    found = tokenizer(texts, padding=True, return_tensors="pt")
    return {key: found[key] for key in ("input_ids", "attention_mask")}


class ZeroShot(Family):
    """CLIP's zero-shot emotion; see the module."""

    title = "CLIP zero-shot emotion prompts"
    modalities = ("video", "face")
    sources = ("hf", "local", "package", "random")

    class Options(Group):
        """Of a stream."""

        #: Names of the classes; null = seven emotions.
        classes: tuple[str, ...] | None = None
        #: Sentences with `{}` for the class; null = three wordings.
        templates: tuple[str, ...] | None = None
        output: Output = "probability"

    @classmethod
    def build(cls, stream: Stream, options: Options) -> Extractor:
        """The extractor of one stream: (T, classes) probabilities or cosines.

        Raises:
            WeightsError: absent weights, another architecture.
            ParamsError: fewer than two classes, a template without a place for the class, a layer.
        """
        classes, templates = list(options.classes or CLASSES), list(options.templates or TEMPLATES)
        if len(set(classes)) < 2 or len(set(classes)) < len(classes):
            raise ParamsError("option classes of encoder zero_shot needs at least two different names.")
        if bad := [template for template in templates if "{}" not in template]:
            raise ParamsError(f"template {bad[0]!r} of encoder zero_shot has no {{}} for the class.")
        if stream.layer != -1:
            raise ParamsError("encoder zero_shot reads the last layer only; set layer to -1.")
        vision = stream.architecture.get("vision_config", {})
        spec = read_preprocessing(stream.model_copy(update={"architecture": vision}))
        identity = {
            "weights": weights.identity(stream.weights, architecture=stream.architecture),
            "preprocessing": spec.identity(),
            "classes": classes,
            "templates": templates,
            "output": options.output,
        }
        load_towers = partial(load, stream, classes, templates, options.output, spec)
        return Extractor(identity, framewise.Prepare(spec), load_towers, budget=64.0)
