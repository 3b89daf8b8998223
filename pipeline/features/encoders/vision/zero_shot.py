"""Zero-shot emotion of a CLIP model: how near each frame is to a sentence per emotion; a baseline without training.

Radford et al. 2021, section 3.1. Row: one number per class, in the order of `options.classes`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from pipeline import weights
from pipeline.errors import ParamsError, one_of
from pipeline.features.encoders import pooling
from pipeline.features.encoders.extractor import Extractor
from pipeline.features.encoders.family import Family
from pipeline.features.encoders.text import tokens
from pipeline.params import Stream

from . import framewise, images
from .clip import preprocessing

if TYPE_CHECKING:
    import torch

OUTPUTS = ("probability", "similarity")
CLASSES = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
#: Several wordings per class; their embeddings are averaged.
TEMPLATES = ("a photo of a person who looks {}.", "a {} face.", "someone who feels {}.")


def prompts(classes: list[str], templates: list[str]) -> list[str]:
    """All sentences, class by class."""
    return [template.format(name) for name in classes for template in templates]


def load(
    stream: Stream, classes: list[str], templates: list[str], output: str, spec: images.Preprocessing, device: str = "cpu"
) -> Callable:
    """Both towers on `device`; sentences are encoded once → forward."""
    import torch
    from transformers import CLIPModel

    from pipeline.weights import pretrained

    architecture = _standing_in(stream) if weights.parse(stream.weights).random else None
    model = pretrained.load(CLIPModel, stream.weights, architecture=architecture, dtype=stream.dtype).to(device)
    size = model.config.text_config.vocab_size
    sentences = _tokens(stream.weights, prompts(classes, templates), size)
    with torch.inference_mode():
        pooled = model.text_model(**{key: value.to(device) for key, value in sentences.items()}).pooler_output
        text = torch.nn.functional.normalize(model.text_projection(pooled).float(), dim=-1)
        text = torch.nn.functional.normalize(text.unflatten(0, (len(classes), len(templates))).mean(1), dim=-1)
    scale = model.logit_scale.exp().float()

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        pooled = model.vision_model(pixel_values=pixels.to(model.dtype)).pooler_output
        rows = torch.nn.functional.normalize(model.visual_projection(pooled).float(), dim=-1) @ text.T
        return (rows * scale).softmax(-1) if output == "probability" else rows

    return framewise.Forward(encode, stream, spec, device)


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
    tokenizer = tokens.decoder(origin, weights.locate(origin))
    found = tokenizer(texts, padding=True, return_tensors="pt")
    return {key: found[key] for key in ("input_ids", "attention_mask")}


def build(stream: Stream) -> Extractor:
    """The extractor of one stream: (T, classes) probabilities or cosines.

    Raises:
        WeightsError: absent weights, another architecture.
        ParamsError: fewer than two classes, a template without a place for the class, unknown output.
    """
    options = FAMILY.options | stream.options
    classes, templates = list(options["classes"] or CLASSES), list(options["templates"] or TEMPLATES)
    if options["output"] not in OUTPUTS:
        raise one_of("output of zero_shot", str(options["output"]), OUTPUTS)
    if len(set(classes)) < 2 or len(set(classes)) < len(classes):
        raise ParamsError("option classes of encoder zero_shot needs at least two different names.")
    if bad := [template for template in templates if "{}" not in template]:
        raise ParamsError(f"template {bad[0]!r} of encoder zero_shot has no {{}} for the class.")
    if stream.layer != -1:
        raise ParamsError("encoder zero_shot reads the last layer only; set layer to -1.")
    vision = stream.architecture.get("vision_config", {})
    spec = preprocessing(stream.model_copy(update={"architecture": vision}))
    identity = {
        "family": FAMILY.name,
        "version": 1,
        "dtype": stream.dtype,
        **pooling.settings(stream),
        "weights": weights.identity(stream.weights, architecture=stream.architecture),
        "preprocessing": spec.identity(),
        "classes": classes,
        "templates": templates,
        "output": options["output"],
    }
    return Extractor(
        identity, framewise.Prepare(spec), partial(load, stream, classes, templates, options["output"], spec), budget=64.0
    )


FAMILY = Family(
    name="zero_shot",
    title="CLIP zero-shot emotion prompts",
    modalities=("video", "face"),
    sources=("hf", "local", "package", "random"),
    build=build,
    #: classes and templates: lists (null = seven emotions, three wordings); output: probability | similarity.
    options={"classes": None, "templates": None, "output": "probability"},
)
