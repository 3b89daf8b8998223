"""Adapters of encoders in PEFT's layout: what was learned beside or in place of frozen weights, and which weights those are.

`adapter_model.safetensors` holds LoRA's matrices (Hu et al. 2021, arXiv:2106.09685) under PEFT's names, and tensors that
replace those of the encoder under their own; `adapter_config.json` is PEFT's. An adapter of ours has `adaptation.json`
beside them, which says the weights it is for and how it came about.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import WeightsError
from pipeline.storage.memo import sha256

from . import inside, intact

if TYPE_CHECKING:
    import torch

CONFIG, WEIGHTS, RECORD = "adapter_config.json", "adapter_model.safetensors", "adaptation.json"
#: What PEFT calls the one adapter of a network, and puts before the names in a file.
NAME, PREFIX = "default", "base_model.model."
#: Kind of an adapter that replaces tensors and adds none; PEFT has no name for it.
REPLACED = "REPLACED"
#: What a configuration says of the network it was made in, which holds more than the encoder; the file's names are enough.
ELSEWHERE = ("modules_to_save", "layers_to_transform", "layers_pattern", "exclude_modules", "target_parameters", "task_type")


def identify(folder: str | Path, base: Mapping[str, Any], origin: str) -> dict[str, str]:
    """An adapter's part of an identity. Cheap: files are hashed and small ones read.

    Args:
        base: `weights` of the encoder's identity.
        origin: the encoder's weights as they are called, for messages.

    Raises:
        WeightsError: it is not there, not whole, no LoRA, or of other weights.
    """
    folder = Path(folder)
    files = [folder / CONFIG, folder / WEIGHTS]
    if not all(file.is_file() for file in files):
        raise WeightsError(
            f"adapter {folder} is not there, or has no {CONFIG} and {WEIGHTS}; put a LoRA adapter there or, where the encoder "
            f"is to be adapted, run `dvc repro adapt@{folder.name}`."
        )
    intact.check(files[1])
    _check_base(folder, _read(files[0]), describe_base(base), origin)
    return {"sha256": sha256(files)}


def describe_base(base: Mapping[str, Any]) -> dict[str, Any]:
    """What of the weights' identity an adapter depends on: their bytes, or how a stand-in is drawn.

    >>> describe_base({"source": "random:1", "random": True, "coverage": 0.0, "architecture": {"layers": 2}})
    {'architecture': {'layers': 2}, 'source': 'random:1'}
    """
    return {key: base[key] for key in (("architecture", "source") if base.get("random") else ("sha256",)) if key in base}


def _check_base(folder: Path, config: Mapping[str, Any], base: dict[str, Any], origin: str) -> None:
    kind = config.get("peft_type")
    if kind not in ("LORA", REPLACED):
        raise WeightsError(f"adapter {folder} is {kind or 'nameless'}; LoRA adapters are read (peft_type LORA).")
    if (folder / RECORD).is_file():
        if (other := _read(folder / RECORD).get("base")) != base:
            told = other.get("source") or f"sha256 {str(other.get('sha256'))[:12]}" if isinstance(other, dict) else "none"
            raise WeightsError(f"adapter {folder} is of other weights ({told}) than {origin}; adapt again, or take its weights.")
        return
    named, scheme = str(config.get("base_model_name_or_path") or ""), origin.partition(":")[0]
    if scheme == "hf" and named.count("/") == 1 and named != origin.partition(":")[2].partition("@")[0]:
        raise WeightsError(f"adapter {folder} is of {named}, not of {origin}; take weights hf:{named}, or another adapter.")


def _read(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{file} is not valid JSON ({' '.join(str(error).split())[:120]}); fetch it again.") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{file} holds no JSON object; fetch it again.")
    return value


def attach(network: torch.nn.Module, targets: Sequence[str], *, r: int, alpha: int, dropout: float) -> Any:
    """Put LoRA into linear layers, in place; it alone has gradients, and adds nothing before its first step.

    Args:
        targets: full names of the layers.

    Returns:
        PEFT's `LoraModel` around `network`.
    """
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    config = LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=sorted(targets), bias="none")
    with _calm():
        return LoraModel(network, {NAME: config}, NAME)


@contextmanager
def _calm() -> Iterator[None]:
    with warnings.catch_warnings():
        # GPT-2's layers keep their matrix the other way round; PEFT sets the flag itself and says so.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
        yield


def learned(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What has gradients, under the names of an adapter's file."""
    found = {name: value for name, value in network.named_parameters() if value.requires_grad}
    return {f"{PREFIX}{name.replace(f'.{NAME}.', '.')}": value.detach().cpu().contiguous() for name, value in found.items()}


def save(folder: Path, tensors: Mapping[str, torch.Tensor], tuner: Any | None) -> None:
    """Write what `learned` gave and its configuration into a folder.

    Args:
        tuner: what `attach` gave; None where tensors replace the encoder's.
    """
    import safetensors.torch

    from pipeline.storage.atomic import write_json

    safetensors.torch.save_file(dict(sorted(tensors.items())), folder / WEIGHTS, metadata={"format": "pt"})
    if tuner is None:
        write_json(folder / CONFIG, {"peft_type": REPLACED})
        return
    config = tuner.peft_config[NAME].to_dict() | {"inference_mode": True}
    write_json(folder / CONFIG, {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()})


def insert(network: torch.nn.Module, folder: str | Path) -> Any | None:
    """Put a saved adapter into a network, in place, unmerged and without gradients.

    Parts that the network was loaded without (a head, the other tower of CLIP) are left out, with a line.

    Returns:
        PEFT's `LoraModel`; None where all tensors replaced the network's.

    Raises:
        WeightsError: a tensor fits no layer of the network.
    """
    import torch

    from .load import state

    folder = Path(folder)
    found = {key.removeprefix(PREFIX): value for key, value in state(folder / WEIGHTS).items()}
    own, layers = dict(network.named_parameters()), dict(network.named_modules())
    low = {key for key in found if ".lora_" in key}
    prefix = inside.locate([_layer(key) + ".weight" if key in low else key for key in found], own, folder)
    found = {key.removeprefix(prefix): value for key, value in found.items()}
    parts = {name.partition(".")[0] for name in own}
    strange = [key for key in found if (_layer(key) not in layers if ".lora_" in key else key not in own)]
    outside = [key for key in strange if key.partition(".")[0] not in parts]
    if len(outside) < len(strange) or len(strange) == len(found):
        raise WeightsError(
            f"adapter {folder} fits another encoder: {len(strange)} of its {len(found)} tensors fit no layer "
            f"({sorted(set(strange) - set(outside) or strange)[0]}); take its weights, or another adapter."
        )
    inside.report(f"adapter {folder}", outside)
    found = {key: value for key, value in found.items() if key not in outside}
    tuner = _prepare(network, folder, sorted({_layer(key) for key in found if ".lora_" in key}))
    places = {name.replace(f".{NAME}.", ".").replace(".base_layer.", "."): value for name, value in network.named_parameters()}
    lacking = [name for name in places if ".lora_" in name and name not in found]
    wrong = [key for key, value in found.items() if key not in places or places[key].shape != value.shape]
    if wrong or lacking:
        raise WeightsError(
            f"adapter {folder} fits another encoder: {(wrong or lacking)[0]} has another shape, or is not there; "
            "take its weights, or another adapter."
        )
    with torch.no_grad():
        for key, value in found.items():
            places[key].copy_(value)
    network.eval().requires_grad_(False)
    return tuner


def _layer(key: str) -> str:
    """The layer that a tensor of LoRA stands beside.

    >>> _layer("layers.0.q_proj.lora_A.weight")
    'layers.0.q_proj'
    """
    return key.partition(".lora_")[0]


def _prepare(network: torch.nn.Module, folder: Path, targets: list[str]) -> Any | None:
    """LoRA as the adapter's own configuration has it, in the layers that its file names."""
    if not targets:
        return None
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    try:
        config = LoraConfig.from_pretrained(str(folder))
        for key in ELSEWHERE:
            setattr(config, key, None)
        config.target_modules, config.inference_mode = set(targets), True
        with _calm():
            return LoraModel(network, {NAME: config}, NAME)
    except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError) as error:
        raise WeightsError(f"adapter {folder} cannot be put into the encoder ({' '.join(str(error).split())[:160]}).") from error


def merge(tuner: Any | None) -> None:
    """Add an adapter to the weights it stands beside; the network has its own layers again, and runs as fast."""
    if tuner is not None:
        tuner.merge_and_unload().requires_grad_(False).eval()


def apply(network: torch.nn.Module, folder: str | Path) -> None:
    """The network as the adapter makes it, in place.

    Raises:
        WeightsError: see `insert`.
    """
    merge(insert(network, folder))
