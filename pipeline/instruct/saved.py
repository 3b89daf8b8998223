"""What was taught, in a folder: adapters in PEFT's layout, projectors, a record, a model card; and a whole model of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from pipeline import weights
from pipeline.errors import ParamsError, WeightsError
from pipeline.parts import read_options
from pipeline.storage.atomic import atomic_folder, write_json, write_text
from pipeline.weights import layers, minigpt, vocabulary

from .learn import Progress
from .settings import Settings
from .tutor import Tutor

ADAPTERS, CONFIG, PROJECTORS, RECORD, CARD = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "projectors.safetensors",
    "instruct.json",
    "README.md",
)
#: What PEFT puts before the names of a causal language model's layers.
PREFIX = "base_model.model.model."


def describe(settings: Settings) -> dict[str, Any]:
    """Settings as plain values, their streams written out."""
    streams = {name: one.model_dump(mode="json") for name, one in settings.find_streams().items()}
    return settings.model_dump(mode="json") | {"streams": streams}


def save(folder: Path, tutor: Tutor, progress: Progress, about: Mapping[str, Any], temperatures: Mapping[str, float]) -> None:
    """
    Args:
        about: of the data. temperatures: of each task's label scores.
    """
    learned, options = tutor.learned(), tutor.settings.language
    adapters = {
        f"{PREFIX}{name.removeprefix('language.').replace('.default.', '.')}": value.detach().cpu().contiguous()
        for name, value in learned.items()
        if name.startswith("language.")
    }
    beside = {name.removeprefix("projectors."): value for name, value in learned.items() if name.startswith("projectors.")}
    record = {
        "base": find_base(tutor.settings),
        "settings": describe(tutor.settings),
        "widths": {name: tutor.speaker.model.projectors[name].in_features for name in tutor.stores},
        "classes": list(tutor.classes),
        "loaded": tutor.report,
        "data": dict(about),
        "temperatures": dict(temperatures),
        "history": progress.history,
        "digest": minigpt.digest({name: value for name, value in learned.items()}),
    }
    with atomic_folder(folder) as made:
        if options.lora is not None:
            from peft import LoraConfig

            config = LoraConfig(
                r=options.lora.r,
                lora_alpha=options.lora.alpha,  # type: ignore[arg-type]
                lora_dropout=float(options.lora.dropout),
                target_modules=list(options.lora.names),
                bias="none",
                task_type="CAUSAL_LM",
                base_model_name_or_path=options.weights.removeprefix("hf:").partition("@")[0],
                inference_mode=True,
            ).to_dict()
            write_json(made / CONFIG, {key: sorted(one) if isinstance(one, set) else one for key, one in config.items()})
            safetensors.torch.save_file(dict(sorted(adapters.items())), made / ADAPTERS, metadata={"format": "pt"})
        if beside:
            tensors = {name: value.detach().cpu().contiguous() for name, value in sorted(beside.items())}
            safetensors.torch.save_file(tensors, made / PROJECTORS, metadata={"format": "pt"})
        write_json(made / RECORD, record)
        write_text(made / CARD, write_card(record))


def find_base(settings: Settings) -> str:
    """A short name of the language model's weights, whatever their address."""
    return layers.name_base(weights.identity(settings.language.weights, architecture=settings.language.architecture))


def read_record(folder: Path) -> dict[str, Any]:
    """
    Raises:
        WeightsError: the folder holds nothing that `save` wrote.
    """
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder} has no legible {RECORD}; run `python -m pipeline instruct learn` first.") from error
    return dict(found)


def read_settings(record: Mapping[str, Any], folder: Path) -> Settings:
    """The settings that were taught with.

    Raises:
        WeightsError: the language model at that address is another now.
    """
    settings = read_options(Settings, record["settings"], str(folder / RECORD))
    if (found := find_base(settings)) != record["base"]:
        raise WeightsError(
            f"{folder} was taught on a language model {record['base']}, and {settings.language.weights} is {found}; "
            "put the weights in place that it was taught on."
        )
    return settings


def load(folder: Path, tutor: Tutor) -> None:
    """Put what was taught into an opened model, strictly.

    Raises:
        WeightsError: it fits another model.
    """
    place = tutor.network
    adapters, projectors = _read(folder / ADAPTERS), _read(folder / PROJECTORS)
    found = {name.removeprefix(PREFIX).replace(".weight", ".default.weight"): value for name, value in adapters.items()}
    minigpt.fill(place, found, folder)
    own = dict(tutor.speaker.model.projectors.named_parameters())
    weights.check_coverage(folder, own, own.keys() - projectors.keys(), projectors.keys() - own.keys())
    with torch.no_grad():
        for name, value in own.items():
            if value.shape != projectors[name].shape:
                raise WeightsError(
                    f"{folder}: projector {name} is of shape {tuple(projectors[name].shape)}, not {tuple(value.shape)}."
                )
            value.copy_(projectors[name])


def _read(path: Path) -> dict[str, Tensor]:
    return weights.state(path) if path.is_file() else {}


def merge(tutor: Tutor, *, back: bool = False) -> None:
    """Add the adapters to the frozen weights, in place; `back` takes them away again.

    Raises:
        ParamsError: the frozen weights are quantised.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    if tutor.settings.language.quantise is not None:
        raise ParamsError("adapters are not added to quantised weights; set language.quantise null.")
    for module in tutor.network.modules():
        if isinstance(module, BaseTunerLayer):
            module.unmerge() if back else module.merge()


def export(tutor: Tutor, folder: Path) -> None:
    """Write the language model with its adapters added as a folder of transformers (`save_pretrained`), tokenizer included."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    options = tutor.settings.language
    ends = vocabulary.read_vocabulary(options.weights, json.dumps(options.architecture, sort_keys=True), options.dtype)
    said, _, _ = layers.describe_above(options.weights, options.architecture, 0, "depth")
    tied = ends.head is ends.embeddings
    says = dict(said) | {"vocab_size": len(ends.embeddings), "tie_word_embeddings": tied}
    says |= {"bos_token_id": ends.bos, "eos_token_id": ends.end}
    config = CONFIG_MAPPING[str(says.pop("model_type"))](**says)
    merge(tutor)
    plain = {
        f"model.{name.replace('.base_layer.', '.')}": value.detach().cpu().clone()
        for name, value in tutor.network.state_dict().items()
        if "lora_" not in name
    }
    merge(tutor, back=True)
    plain["model.embed_tokens.weight"] = ends.embeddings
    plain["lm_head.weight"] = ends.head
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    with torch.device("meta"):
        model = model_class._from_config(config)
    model.load_state_dict(plain, strict=False, assign=True)
    model.tie_weights()
    with atomic_folder(folder) as made:
        model.save_pretrained(made)
        source = weights.parse(options.weights)
        if not source.random:
            from pipeline.features.encoders.text.tokenizer_files import read_tokenizer

            write_text(made / "tokenizer.json", read_tokenizer(source, weights.locate(source))[0].json)
        write_text(
            made / CARD, write_card({"settings": describe(tutor.settings), "base": find_base(tutor.settings)}, merged=True)
        )


def write_card(record: Mapping[str, Any], *, merged: bool = False) -> str:
    """What a folder holds, for whoever finds it."""
    settings = record["settings"]
    address = settings["language"]["weights"]
    lines = [
        f"# {'A language model with what it was taught' if merged else 'Adapters of a language model'}",
        "",
        f"- base: `{address}` ({record['base']})"
        + ("; a stand-in that learned nothing" if address.startswith("random:") else ""),
        f"- tasks: {', '.join(settings['tasks'])}; streams: {', '.join(settings['streams']) or 'none, words alone'}",
    ]
    if not merged:
        data, last = record["data"], record["history"][-1]
        lines += [
            f"- data: {data['corpus']}, fold {data['fold']}: {data['train']} training examples, {data['val']} for validation",
            f"- classes: {', '.join(record['classes'])}",
            f"- epochs: {len(record['history'])}, last loss {last['train_loss']:.4f} (validation {last['val_loss']:.4f})",
            f"- digest of what was learned: {record['digest']}",
            "",
            f"`{ADAPTERS}` and `{CONFIG}` are read by PEFT, `{PROJECTORS}` and `{RECORD}` by this project.",
        ]
    lines += [
        "",
        "The licence of the base model goes on for what was taught on it, and so do the terms of the data it was taught with.",
        "It names what people seem to show, with errors; decide nothing about a person by it.",
    ]
    return "\n".join([*lines, ""])
