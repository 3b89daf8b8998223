"""`python -m benchmarks.memory`: what a training step of `fusion=llama` holds, by arithmetic; nothing is loaded.

Weights, adapters, their gradients and AdamW's two moments are exact. Activations are what is kept for the gradient, summed
from the layer's operations; measured on small models they are within 15 % (`tests/test_memory.py`). What comes on top is not
counted: the working memory of one operation, fragments, the heads and projections (a few million numbers), the framework.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.models.language import Lora

GIB = 2**30
#: Bytes of a number. `4bit` is NF4: half a byte, and the scale of 64 numbers in a byte, those of 256 scales in four.
BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "4bit": 0.5 + (1 + 4 / 256) / 64}

#: LLaMA-2-7B and smaller ones: width, inner width, layers, heads, heads of keys and values.
SHAPES = {
    "LLaMA-2-7B": (4096, 11008, 32, 32, 32),
    "TinyLlama-1.1B": (2048, 5632, 22, 32, 4),
    "SmolLM2-135M": (576, 1536, 30, 9, 3),
}


@dataclass(frozen=True)
class Shape:
    """Of a model of the LLaMA family: width W, inner I, layers N, and of attention heads, those of keys, numbers of each."""

    width: int
    inner: int
    layers: int
    heads: int
    shared: int
    size: int

    @classmethod
    def of(cls, config: Mapping[str, int]) -> Shape:
        """From a configuration as transformers writes it."""
        heads = config["num_attention_heads"]
        return cls(
            config["hidden_size"],
            config["intermediate_size"],
            config["num_hidden_layers"],
            heads,
            config.get("num_key_value_heads") or heads,
            config.get("head_dim") or config["hidden_size"] // heads,
        )

    @property
    def projections(self) -> dict[str, tuple[int, int]]:
        """Numbers in and out of each linear layer."""
        asked, kept = self.heads * self.size, self.shared * self.size
        return {
            "q_proj": (self.width, asked),
            "k_proj": (self.width, kept),
            "v_proj": (self.width, kept),
            "o_proj": (asked, self.width),
            "gate_proj": (self.width, self.inner),
            "up_proj": (self.width, self.inner),
            "down_proj": (self.inner, self.width),
        }


@dataclass(frozen=True)
class Plan:
    """Bytes of a training step."""

    weights: int
    adapters: int
    gradients: int
    moments: int
    activations: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.adapters + self.gradients + self.moments + self.activations


def plan(
    shape: Shape,
    below: int,
    lora: Lora,
    dtype: str,
    clips: int,
    tokens: int,
    *,
    base: str | None = None,
    fused: bool = True,
    checkpointing: bool = False,
) -> Plan:
    """What a step holds.

    Args:
        below: layers in the trunk, which training does not hold. dtype: of the computation.
        base: what the frozen linear layers are kept in; None = `dtype`.
        fused: attention keeps no (T, T) (a GPU's); else it does (a processor's, `eager`).
    """
    above, number, kept = shape.layers - below, BYTES[dtype], BYTES[base or dtype]
    linear = sum(inputs * outputs for inputs, outputs in shape.projections.values())
    norms = (2 * above + 1) * shape.width
    adapters = 4 * above * sum(lora.r * sum(shape.projections[name]) for name in lora.names)
    layer = _keep_of_layer(shape, lora, number, tokens, fused)
    rows = clips * tokens
    # The last norm; checkpointing keeps what goes into each layer, and one layer's own at a time.
    kept_rows = (above * shape.width * number + layer if checkpointing else above * layer) + 4 * shape.width
    return Plan(round(above * linear * kept + norms * number), adapters, adapters, 2 * adapters, round(rows * kept_rows))


def _keep_of_layer(shape: Shape, lora: Lora, number: float, tokens: int, fused: bool) -> float:
    """Bytes that one layer keeps of one token for the gradient."""
    asked = shape.heads * shape.size
    # Norms are computed in float32, and keep what goes in.
    total = 2.0 * 4 * shape.width
    # Queries, keys, values and, of fused attention, what comes out; else keys and values are repeated for every head.
    total += (2 * asked + 2 * shape.shared * shape.size if fused else 3 * asked) * number
    # Softmax in float32, and its result in the type of the computation.
    total += 0 if fused else shape.heads * tokens * (4 + (number if number < 4 else 0))
    # The activated gate, the gate before it, and what it multiplies.
    total += 3 * shape.inner * number
    for name in lora.names:
        inputs = shape.projections[name][0]
        # An adapter keeps its input in float32 and the few numbers between its two halves; dropout keeps what it drew.
        total += 4 * (inputs + lora.r) + (4 * inputs if lora.dropout and not fused else inputs if lora.dropout else 0)
    return total


@dataclass(frozen=True)
class Tower:
    """Of an image tower of CLIP's kind: tokens of a picture, width W, inner I, layers and attention heads."""

    tokens: int
    width: int
    inner: int
    layers: int
    heads: int

    def keep(self, r: int, *, checkpointing: bool = False) -> int:
        """Bytes kept of a picture for the gradient, in float32, while LoRA of queries and values learns, with dropout."""
        width, head = self.width, self.tokens * self.width + 2
        if checkpointing:  # What goes into each block. The head reads one token, and so keeps the last block's whole result.
            return 4 * (self.layers * self.tokens * width + head)
        # What goes into either adapter, with its dropout, and what is between its halves.
        adapters = 4 * width + 2 * r
        # What goes into both norms, and their statistics.
        norms = 2 * width + 4
        # Queries, keys, values and what is made of them; what is activated, and the sigmoid it is multiplied by.
        attention, inner = 4 * width + self.heads, 2 * self.inner
        block = adapters + norms + attention + inner
        # Nothing before the first adapters learns: neither the norm before them nor their dropout keeps anything.
        return 4 * (self.tokens * (self.layers * block - 3 * width - 2) + head)


#: CLIP ViT-B/32 at 224 pixels.
VIT_B_32 = Tower(50, 768, 3072, 12, 12)


def tabulate(clips: int = 8, tokens: int = 128) -> str:
    """The table of `docs/llama.md`, of a GPU's attention."""
    rows = [
        "| model | base | k | LoRA | weights | adapters, gradients, moments | activations | together | with checkpointing |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    cases: Sequence[tuple[str, str, float, int, str]] = [
        ("LLaMA-2-7B", base, depth, rank, "all") for base in ("bfloat16", "4bit") for depth in (0, 2 / 3) for rank in (8, 64)
    ]
    cases = [*cases, ("TinyLlama-1.1B", "bfloat16", 0.5, 8, "all"), ("SmolLM2-135M", "float32", 0.5, 8, "qv")]
    for name, base, depth, rank, targets in cases:
        width, inner, layers, heads, shared = SHAPES[name]
        shape, below = Shape(width, inner, layers, heads, shared, width // heads), round(depth * layers)
        lora = Lora(r=rank, alpha=2.0 * rank, targets=targets)  # type: ignore[arg-type]
        dtype = "bfloat16" if base == "4bit" else base
        whole, less = (
            plan(shape, below, lora, dtype, clips, tokens, base=base, checkpointing=checkpointing)
            for checkpointing in (False, True)
        )
        learned = whole.adapters + whole.gradients + whole.moments
        sizes = [whole.weights, learned, whole.activations, whole.total, less.total]
        said = " | ".join(f"{size / GIB:.2f}" for size in sizes)
        rows.append(f"| {name} | {base} | {below} of {layers} | r {rank}, {targets} | {said} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.stdout.write(f"{tabulate()}\n")
