"""JPEG → RGB → the pixels a checkpoint was trained on. How is read from the checkpoint, never from its architecture.

Pixels stay 8-bit until they are on the device (`Preprocessing.normalise`): a quarter of the traffic
between processes, and the same numbers. Resizing is Pillow's, as the published models were trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from pipeline import weights
from pipeline.errors import ParamsError, WeightsError
from pipeline.storage.jpeg import decode

if TYPE_CHECKING:
    import torch

CLIP_MEAN: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
#: Where JPEGs become pixels: in worker processes, or on the GPU.
Decoder = Literal["pillow", "nvjpeg"]
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
_NAMES = {int(value): name for name, value in _RESAMPLING.items()}


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an RGB image, in this order; part of an extractor's identity.

    Attributes:
        resize: (height, width) without regard to aspect, (n,) for the shorter side, None for no resize.
        interpolation: Pillow's name of the filter.
        crop: (height, width) of the centre crop; None for none. A smaller image is padded with black.
        rounding: of the odd pixel of a centre crop: `floor` (transformers) or `round` (torchvision).
        scale: factor from 8 bits to the model's range, 1/255 as a rule.
        mean: per channel, after scaling.
        std: per channel, after scaling.
        decoder: `pillow`, in worker processes, or `nvjpeg`: JPEGs are decoded, resized and cropped on the GPU
            (`gpu_images`). Pixels differ by a few levels, so features do: two identities.
    """

    resize: tuple[int, ...] | None
    crop: tuple[int, int] | None = None
    interpolation: str = "bicubic"
    rounding: Literal["floor", "round"] = "floor"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    decoder: Decoder = "pillow"

    def identity(self) -> dict:
        """JSON values. The default decoder is not named, as it was the only one once."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        if self.decoder == "pillow":
            del values["decoder"]
            return values
        return values | {"torchvision": metadata.version("torchvision")}

    def with_decoder(self, decoder: Decoder) -> Preprocessing:
        """The same with another decoder.

        Raises:
            ParamsError: it has not the filter the checkpoint wants.
        """
        if decoder == "nvjpeg" and self.interpolation not in ("bilinear", "bicubic"):
            raise ParamsError(
                f"decoder nvjpeg resizes bilinear or bicubic and this checkpoint wants {self.interpolation}; "
                "set options.decoder to pillow."
            )
        return replace(self, decoder=decoder)

    def __call__(self, image: Image.Image) -> np.ndarray:
        """(H, W, 3) uint8 from an RGB image."""
        if self.resize is not None:
            image = image.resize(target(image.size, self.resize), _RESAMPLING[self.interpolation])
        return np.asarray(image if self.crop is None else _centre(image, self.crop, self.rounding))

    def pixels(self, jpegs: Sequence[bytes]) -> np.ndarray:
        """(T, H, W, 3) uint8. Images of one clip must come out alike in size: give a crop or a square."""
        return np.stack([self(decode(data)) for data in jpegs])

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """(..., H, W, 3) uint8 → (..., 3, H, W) float32, on the tensor's device."""
        import torch

        mean, std = (torch.tensor(v, dtype=torch.float32, device=pixels.device) for v in (self.mean, self.std))
        result = ((pixels.float() * self.scale - mean) / std).movedim(-1, -3)
        # Moved axes are channels-last already, which is what convolutions on a GPU want.
        return result if result.is_cuda and result.ndim == 4 else result.contiguous()


def target(size: tuple[int, int], resize: tuple[int, ...]) -> tuple[int, int]:
    """(width, height) after resizing; the longer side is rounded down, as all three libraries do."""
    if len(resize) == 2:
        return resize[1], resize[0]
    width, height = size
    short, long = min(size), max(size)
    other = int(resize[0] * long / short)
    return (resize[0], other) if width <= height else (other, resize[0])


def _centre(image: Image.Image, crop: tuple[int, int], rounding: str) -> Image.Image:
    height, width = crop
    if image.width < width or image.height < height:
        canvas = Image.new("RGB", (max(width, image.width), max(height, image.height)))
        odd = rounding == "floor"  # transformers puts the odd black row above, torchvision below
        canvas.paste(image, ((canvas.width - image.width + odd) // 2, (canvas.height - image.height + odd) // 2))
        image = canvas
    half = round if rounding == "round" else int
    left, top = half((image.width - width) / 2), half((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def of_transformers(path: Path, *, square: bool, defaults: dict | None = None) -> Preprocessing:
    """From `preprocessor_config.json` (or the image part of `processor_config.json`) beside the weights.

    Args:
        square: what a bare number in `size` means: both sides, or the shorter one.
        defaults: of the processor class, for keys the file leaves out.

    Raises:
        WeightsError: no such file, or a field that is not what it should be.
    """
    found = weights.config(path, "preprocessor_config.json")
    if not found:
        found = weights.config(path, "processor_config.json").get("image_processor") or {}
    if not found:
        raise WeightsError(f"{path} does not say how images are prepared; put the checkpoint's preprocessor_config.json there.")
    found = (defaults or {}) | found
    resize = None
    crop: tuple[int, int] | None = None
    if found.get("do_resize", True):
        resize = _sides(path, "size", found.get("size"), square)
    if found.get("do_center_crop", False):
        sides = _sides(path, "crop_size", found.get("crop_size"), True)
        crop = sides[0], sides[-1]
    resample = found.get("resample", 2)
    if resample not in _NAMES:
        raise WeightsError(f"{path}: preprocessor resample {resample!r} is no filter of Pillow's; fetch the file again.")
    scale = found.get("rescale_factor", 1 / 255) if found.get("do_rescale", True) else 1.0
    mean: tuple[float, ...] = (0.0,) * 3
    std: tuple[float, ...] = (1.0,) * 3
    if found.get("do_normalize", True):
        mean, std = statistics(path, found.get("image_mean"), found.get("image_std"))
    if crop is None and resize is not None and len(resize) == 1:
        raise WeightsError(
            f"{path}: the preprocessor resizes the shorter side and crops nothing, so images "
            "differ in size; set size to height and width, or do_center_crop."
        )
    return Preprocessing(resize, crop, _NAMES[resample], "floor", float(scale), mean, std)


def of_config(path: object, config: dict) -> Preprocessing:
    """From a timm `pretrained_cfg`: `input_size, crop_pct, crop_mode, interpolation, mean, std`.

    Raises:
        WeightsError: a field is absent or not what it should be, or the crop mode is not known.
    """
    size = config.get("input_size")
    if not (isinstance(size, (list, tuple)) and len(size) == 3 and size[0] == 3):
        raise WeightsError(f"{path}: input_size {size!r} is not (3, height, width); the model takes no RGB image.")
    mean, std = statistics(path, config.get("mean"), config.get("std"))
    height, width = int(size[1]), int(size[2])
    share, mode = config.get("crop_pct") or 1.0, config.get("crop_mode") or "center"
    if mode == "squash":
        resize: tuple[int, ...] = (int(height / share), int(width / share))
    elif mode == "center":
        resize = (int(height / share),) if height == width else (int(height / share), int(width / share))
    else:
        raise WeightsError(f"{path}: crop mode {mode!r} is not known; set options.crop_mode to center or squash.")
    interpolation = config.get("interpolation") or "bicubic"
    if interpolation not in _RESAMPLING:
        raise WeightsError(f"{path}: interpolation {interpolation!r} is not known to Pillow.")
    return Preprocessing(resize, (height, width), interpolation, "round", 1 / 255, mean, std)


def statistics(path: object, mean: object, std: object) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of three channels, checked.

    Raises:
        WeightsError: not three numbers each, or a deviation that is not positive.
    """
    means, deviations = _three(path, "mean", mean), _three(path, "std", std)
    if min(deviations) <= 0:
        raise WeightsError(f"{path}: image std {list(deviations)} must be positive; fetch the preprocessor file again.")
    return means, deviations


def _three(path: object, name: str, value: object) -> tuple[float, ...]:
    if not (isinstance(value, (list, tuple)) and len(value) == 3 and all(isinstance(v, (int, float)) for v in value)):
        raise WeightsError(f"{path}: image {name} {value!r} is not three numbers; fetch the preprocessor file again.")
    return tuple(map(float, value))


def _sides(path: object, key: str, value: object, square: bool) -> tuple[int, ...]:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return (value, value) if square else (value,)
    if isinstance(value, dict):
        if isinstance(value.get("shortest_edge"), int):
            return (value["shortest_edge"],)
        if isinstance(value.get("height"), int) and isinstance(value.get("width"), int):
            return value["height"], value["width"]
    raise WeightsError(f"{path}: preprocessor {key} {value!r} is no size; fetch the preprocessor file again.")
