"""EVA-CLIP ViT-g/14 at 448 px with the merge of four tokens into one, as Emotion-LLaMA and MiniGPT-v2 use it.

The tower (Fang et al. 2022, arXiv:2211.07636) has 40 blocks of width 1408; MiniGPT drops the last
block and the final norm, stretches the 16 × 16 position embedding to 32 × 32 and ends in a LayerNorm.
1024 patch tokens in raster order become 256 rows of 5632 (Zhu et al. 2023, MiniGPT-v2).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pipeline import weights
from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders import transfer
from pipeline.features.encoders.extractor import Axis, Extractor
from pipeline.features.encoders.family import Family
from pipeline.params import Stream
from pipeline.params.base import Count, Group
from pipeline.weights import inside

from . import framewise, images
from . import timm as timm_family

if TYPE_CHECKING:
    import torch

MODEL = "eva_giant_patch14_clip_224"
Readout = Literal["merged", "cls", "mean", "tokens"]
Norm = Literal["plain", "checkpoint"]
#: Patch tokens that become one row.
MERGED = 4
#: Frames in one pass: a frame has 1025 tokens.
CHUNK = 4


def merge_tokens(tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, 1 + 4 N, D) tokens → merged patches (B, N, 4 D) and class token (B, D).

    Row j is the concatenation of the patches 4 j … 4 j + 3 in raster order.

    Raises:
        ValueError: the number of patches is no multiple of four.
    """
    batch, count, width = tokens.shape
    if (count - 1) % MERGED:
        raise ValueError(f"{count - 1} patch tokens cannot be merged by {MERGED}")
    return tokens[:, 1:].reshape(batch, (count - 1) // MERGED, MERGED * width), tokens[:, 0]


def stretch_position(position: torch.Tensor, count: int) -> torch.Tensor:
    """(1, 1 + n², D) position embedding → (1, 1 + count, D), bicubic; the class token's stays."""
    import torch

    grid, side = round((position.shape[1] - 1) ** 0.5), round(count**0.5)
    if grid == side:
        return position
    patches = position[:, 1:].reshape(1, grid, grid, -1).permute(0, 3, 1, 2).float()
    patches = torch.nn.functional.interpolate(patches, (side, side), mode="bicubic", align_corners=False)
    return torch.cat([position[:, :1].float(), patches.flatten(2).transpose(1, 2)], 1)


def load_network(stream: Stream, *, size: int, blocks: int | None, norm: Norm) -> Any:
    """timm's Eva without head, `blocks` deep, with the weights of `stream`.

    Raises:
        WeightsError: the checkpoint does not cover it.
    """
    import torch

    from pipeline.weights import pretrained

    source = weights.parse(stream.weights)
    if source.random:
        keywords = {key: value for key, value in stream.architecture.items() if key != "img_size"}
        with weights.seeded(source.seed or 0):
            model = timm_family.create_model(MODEL, {**keywords, "img_size": size, "num_classes": 0})
        return model.to(getattr(torch, stream.dtype)).eval().requires_grad_(False)
    path, _, keywords, _ = _resolve(stream)
    state = _plain(weights.state(path))
    depth = 1 + max((int(key.split(".")[1]) for key in state if key.startswith("blocks.")), default=-1)
    kept = depth if blocks is None else blocks
    if not 0 < kept <= depth:
        raise WeightsError(f"{source} has {depth} blocks, options.blocks asks for {kept}; is it an EVA tower?")
    model = timm_family.create_model(MODEL, {**keywords, "img_size": size, "num_classes": 0, "depth": kept})
    if "pos_embed" in state:
        state["pos_embed"] = stretch_position(state["pos_embed"], model.pos_embed.shape[1] - 1)
    for name in ("weight", "bias"):
        # BLIP-2 files call the last norm ln_vision; with norm: plain it is not read at all.
        learned = state.pop(f"ln_vision.{name}", state.pop(f"norm.{name}", None))
        if norm == "plain":
            learned = (torch.ones if name == "weight" else torch.zeros)(model.embed_dim)
        if learned is None:
            raise WeightsError(f"{source} has no last norm; set options.norm to plain.")
        state[f"norm.{name}"] = learned
    dropped = ("head.", "fc_norm.", *(f"blocks.{i}." for i in range(kept, depth)))
    return pretrained.assemble(model, state, source, dropped=dropped, dtype=stream.dtype)


def _resolve(stream: Stream) -> tuple:
    """timm's own folder, or a bare weight file of this very tower."""
    path, name, keywords, data = timm_family.resolve(stream, MODEL)
    if path is not None and name.partition(".")[0] != MODEL:
        raise WeightsError(f"{stream.weights} is timm's {name}, this family reads {MODEL}; use the timm family.")
    # A bare weight file does not say its widths: the tower's own, unless the stream gives others.
    keywords = keywords or dict(stream.architecture)
    return path, name, {k: v for k, v in keywords.items() if k not in ("img_size", "num_classes", "depth")}, data


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """Keys as timm has them: without the prefixes of whole models. The norm that BLIP-2 keeps outside the tower stays."""
    state = inside.unwrap(state)
    prefix = inside.prefix_of(state, "patch_embed.proj.weight")
    norm = inside.prefix_of(state, "ln_vision.weight")
    return {key.removeprefix(prefix if key.startswith(prefix) else norm): value for key, value in state.items()}


def read_rows(tokens: torch.Tensor, readout: Readout) -> torch.Tensor:
    """(N, 1 + P, D) → rows."""
    if readout == "tokens":
        return tokens
    merged, cls = merge_tokens(tokens)
    return {"merged": merged, "cls": cls}.get(readout, merged.mean(1))


def load(stream: Stream, options: Eva.Options, spec: images.Preprocessing, device: str = "cpu") -> framewise.FrameEncoder:
    """The tower on `device`."""
    import torch

    model = load_network(stream, size=options.size, blocks=options.blocks, norm=options.norm)
    model = transfer.place_tower(model, device)
    if options.norm == "plain":
        # BLIP-2's LayerNorm keeps the default epsilon, 1e-5; EVA's own norms have 1e-6.
        model.norm = torch.nn.LayerNorm(model.embed_dim, elementwise_affine=False)
    dtype = model.pos_embed.dtype

    def read(pixels: torch.Tensor) -> torch.Tensor:
        return read_rows(model.forward_features(pixels.to(dtype)).float(), options.readout)

    return framewise.FrameEncoder(model, read, spec, device, CHUNK)


class Eva(Family):
    """EVA-CLIP ViT-g; see the module."""

    title = "EVA-CLIP ViT-g with 4 → 1 token merge"
    modalities = ("video", "face")
    sources = ("timm", "hf", "local", "package", "random")

    class Options(Group):
        """Of a stream."""

        readout: Readout = "merged"
        frames: framewise.Which = "peak"
        #: Pixels.
        size: Count = 448
        #: Kept, from the first; null = all.
        blocks: Count | None = None
        #: `plain`: without learned scale, as MiniGPT-v2.
        norm: Norm = "plain"

    @classmethod
    def build(cls, stream: Stream, options: Options) -> Extractor:
        """The extractor of one stream.

        Rows: `merged` (256, 5632), `cls` (1408), `mean` of the merged rows (5632), `tokens` (1025, 1408).

        Raises:
            WeightsError: absent weights or another model.
            ParamsError: a layer, a size that does not fit.
        """
        if stream.layer != -1:
            raise ParamsError("encoder eva reads its last kept block; set options.blocks instead of layer.")
        patch = int(stream.architecture.get("patch_size", 14))
        side = options.size // patch
        if options.size % patch or side * side % MERGED:
            raise ParamsError(f"options.size {options.size} does not make a grid of {patch} px patches that merges by {MERGED}.")
        path, _, keywords, data = _resolve(stream) if not weights.parse(stream.weights).random else (None, MODEL, {}, {})
        mean, std = images.CLIP_MEAN, images.CLIP_STD
        if "mean" in data:
            mean, std = images.statistics(stream.weights, data["mean"], data["std"])
        # Whole frame, aspect not kept, as both source systems feed it.
        spec = images.Preprocessing((options.size, options.size), None, "bicubic", mean=mean, std=std)
        identity = {
            "model": {"name": MODEL, **keywords},
            "weights": weights.identity(
                stream.weights, architecture=stream.architecture, path=path, libraries=timm_family.LIBRARIES
            ),
            "preprocessing": spec.identity(),
            **options.model_dump(),
        }
        axis: Axis | None = "space" if options.readout in ("merged", "tokens") else None
        load_tower = partial(load, stream, options, spec)
        return Extractor(identity, framewise.Prepare(spec, options.frames), load_tower, budget=8.0, axis=axis)
