"""The upper layers of a language model, frozen, with low-rank adapters (LoRA; Hu et al. 2021) that learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.errors import ParamsError
from pipeline.params.base import Count, Group, Number, Positive, Share

from .batch import Tokens
from .quantise import Bits, quantise_layers
from .spec import LanguageSpec

#: Ready-made sets of projections that adapters stand beside.
TARGETS = {
    "qv": ("q_proj", "v_proj"),
    "all": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}

#: What one more group costs, in tokens: their number is small beside those of a batch.
GROUP = 24


class Lora(Group):
    """r: rank. alpha: the update is scaled by alpha / r. targets: `qv`, `all` or names of projections."""

    r: Count = 8
    alpha: Positive = 16.0
    dropout: Share = 0.05
    targets: Literal["qv", "all"] | tuple[str, ...] = "qv"

    @property
    def names(self) -> tuple[str, ...]:
        """Of the projections."""
        return TARGETS[self.targets] if isinstance(self.targets, str) else self.targets


class LanguageModel(nn.Module):
    """Hidden states after layer k in, those after the last layer and norm out; k = 0 are the embeddings.

    Nothing of it is learned but the adapters, which are float32 whatever the frozen weights are.

    Args:
        state: the frozen weights, named as in a model of these layers alone; they are held, not copied.
        lora: None = no adapters.
        checkpointing: keep no activations of the layers, compute them again for the gradient.
        quantise: what is frozen takes 4 or 8 bits a number (Dettmers et al. 2023), of bitsandbytes.

    Raises:
        ParamsError: weights that do not fit, or adapters beside what is not there.
    """

    def __init__(
        self,
        spec: LanguageSpec,
        state: Mapping[str, Tensor],
        lora: Lora | None,
        *,
        checkpointing: bool = False,
        quantise: Bits | None = None,
    ) -> None:
        super().__init__()
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING
        from transformers.models.auto.modeling_auto import MODEL_MAPPING

        settings: dict[str, Any] = dict(spec.config)
        config = CONFIG_MAPPING[str(settings.pop("model_type"))](**settings)
        # Fused attention's backward is half as fast again on a processor (measured).
        attention = "sdpa" if torch.cuda.is_available() else "eager"
        model_class: Any = MODEL_MAPPING[type(config)]
        with torch.device("meta"):
            network: Any = model_class._from_config(config, attn_implementation=attention)
        network.embed_tokens = None
        network.rotary_emb = type(network.rotary_emb)(config)
        found = network.load_state_dict(state, strict=False, assign=True)
        if wrong := [*found.missing_keys, *found.unexpected_keys]:
            raise ParamsError(f"{spec.weights} does not fit the layers above {spec.below}: {', '.join(wrong[:3])}.")
        network.requires_grad_(False)
        self.width, self.dtype = int(config.hidden_size), getattr(torch, spec.dtype)
        self.limit = int(config.max_position_embeddings)
        self.network, self.quantise, self.together = network, quantise, False
        if quantise is not None:
            quantise_layers(network, quantise)
        if lora is not None:
            self._adapt(lora)
        if checkpointing:
            network.activation_checkpointing_enable({"use_reentrant": False})

    def _adapt(self, lora: Lora) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        config = LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,  # type: ignore[arg-type]
            lora_dropout=float(lora.dropout),
            target_modules=list(lora.names),
            bias="none",
        )
        try:
            inject_adapter_in_model(config, self.network)
        except ValueError as error:
            raise ParamsError(f"fusion.options.lora.targets: {' '.join(str(error).split())[:160]}") from error
        for name, value in self.network.named_parameters():
            if "lora_" in name:
                value.data = value.data.float()
                value.requires_grad_(True)

    def forward(self, states: Tensor, mask: Tensor, cache: Any = None, start: int = 0) -> Tensor:
        """(B, T, W) → (B, T, W) float32; where `mask` (B, T) is false, a row is seen by nobody and counts as no place.

        Args:
            cache: transformers' cache of what came before, grown by this call; then B is 1 and all is there.
            start: places taken before.

        Raises:
            ParamsError: it is to learn over 4 bits on a processor.
        """
        if self.training and self.quantise == "4bit" and states.device.type == "cpu":
            raise ParamsError("quantise 4bit learns on a GPU: a processor's kernels give no gradient. Set it 8bit, or null.")
        return self._run(states, mask, cache, start).last_hidden_state.float()

    def read_last(self, states: Tensor, mask: Tensor) -> Tensor:
        """(B, T, W) → (B, W): what `forward` gives at the last token of each row, and no padding costs more than it has to.

        Rows are run in groups of like length, so that one long text does not make all texts of a batch as long.
        """
        lengths = mask.sum(1)
        longest_first = lengths.argsort(dim=0, descending=True, stable=True)
        # Tokens that are there come first, in their order: what is not there is behind them all, where nobody looks.
        places = (~mask).long().argsort(dim=1, stable=True)
        found = []
        for rows, length in split_by_length(longest_first, lengths, one=states.is_cuda or self.together):
            here = places[rows, :length]  # (b, t)
            packed = self(states[rows[:, None], here], mask[rows[:, None], here])
            found.append(packed[torch.arange(len(rows), device=rows.device), lengths[rows] - 1])
        return torch.cat(found)[longest_first.argsort()]

    def trace(self, states: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """As `forward`, each (B, T, W): what goes in, then what each layer gives; the last after the norm, of the type it has."""
        return self._run(states, mask, None, 0, output_hidden_states=True).hidden_states

    def _run(self, states: Tensor, mask: Tensor, cache: Any, start: int, **asked: bool) -> Any:
        places = (mask.long().cumsum(1) - 1).clamp(min=0) + start
        return self.network(
            inputs_embeds=states.to(self.dtype),
            attention_mask=mask.long() if cache is None else None,
            position_ids=places,
            past_key_values=cache,
            use_cache=cache is not None,
            **asked,
        )

    def shard(self, mesh: Any) -> None:
        """Spread the frozen weights of each layer over the processes of a mesh (FSDP); what learns stays whole in each of them.

        Every process must ask equally often from now on, for each call fetches the weights from all.

        Raises:
            ParamsError: they are quantised.
        """
        from torch.distributed.fsdp import fully_shard

        if self.quantise is not None:
            raise ParamsError("training.shard spreads weights as they are: leave out fusion.options.quantise, or shard.")
        self.together = True
        for layer in self.network.layers:
            fully_shard(layer, mesh=mesh, ignored_params={value for value in layer.parameters() if value.requires_grad})

    def make_cache(self) -> Any:
        """An empty cache for `forward`."""
        from transformers import DynamicCache

        return DynamicCache(config=self.network.config)


class Projector(nn.Module):
    """A stream's tokens as k tokens of a language model.

    Args:
        inputs: H. width: W. tokens: k.
        kind: `linear` and `mlp` take the vector that the tokens are read as; `resampler` has k learned queries look at them
            (Perceiver; Jaegle et al. 2021).
    """

    def __init__(self, inputs: int, width: int, tokens: int, kind: Literal["linear", "mlp", "resampler"], heads: int) -> None:
        super().__init__()
        self.count, self.width = tokens, width
        self.queries = nn.Parameter(torch.randn(tokens, inputs) * 0.02) if kind == "resampler" else None
        self.look = nn.MultiheadAttention(inputs, heads, batch_first=True) if kind == "resampler" else None
        outputs = width * (1 if kind == "resampler" else tokens)
        hidden = [nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, outputs)]
        self.project = nn.Sequential(*hidden) if kind == "mlp" else nn.Linear(inputs, outputs)

    def forward(self, tokens: Tokens, vector: Tensor) -> Tensor:
        """Tokens (B, T, H), read as one vector (B, H), → (B, k, W); what a clip without the stream gets means nothing."""
        if self.look is None or self.queries is None:
            return self.project(vector).unflatten(-1, (self.count, self.width))
        values, mask = tokens.values * tokens.mask[..., None], tokens.mask
        # A clip without any token lets its padding be looked at: a softmax over nothing is no number.
        unseen = ~(mask | ~mask.any(1, keepdim=True))
        queries = self.queries.expand(len(values), -1, -1)
        seen, _ = self.look(queries, values, values, key_padding_mask=unseen, need_weights=False)
        return self.project(queries + seen)

    def project_each(self, values: Tensor) -> Tensor:
        """(B, T, H) → (B, T, W): every token alone."""
        return self.project(values).unflatten(-1, (-1, self.width)).mean(-2)


def split_by_length(order: Tensor, lengths: Tensor, *, one: bool = False) -> list[tuple[Tensor, int]]:
    """Rows in groups whose padding and whose number cost least, each with the length of its longest row.

    Args:
        order: (B,) rows, longest first. lengths: (B,) of row after row. one: all as one group.

    >>> lengths = torch.tensor([9, 200, 8, 190])
    >>> [(rows.tolist(), longest) for rows, longest in split_by_length(torch.tensor([1, 3, 0, 2]), lengths)]
    [([1, 3], 200), ([0, 2], 9)]
    """
    falling = [max(1, count) for count in lengths[order].tolist()]
    # Groups begin where the length changes, or nothing would be saved.
    edges = [i for i, count in enumerate(falling) if i == 0 or (count != falling[i - 1] and not one)] + [len(falling)]
    best: list[tuple[int, int]] = [(0, 0)]  # up to each edge: least cost, and where its last group begins
    for j in range(1, len(edges)):
        costs = [(best[i][0] + (edges[j] - edges[i]) * falling[edges[i]] + GROUP, i) for i in range(j)]
        best.append(min(costs))
    groups, j = [], len(edges) - 1
    while j:
        i = best[j][1]
        groups.append((order[edges[i] : edges[j]], falling[edges[i]]))
        j = i
    return groups[::-1]


def median_scale(rows: Sequence[Tensor] | Tensor) -> float:
    """The median root mean square of rows (n, W)."""
    rows = rows if isinstance(rows, Tensor) else torch.cat(list(rows))
    return float(rows.float().square().mean(-1).sqrt().median())


#: What a number of heads or tokens may be, for options of fusions that hold a language model.
Depth = Annotated[Number, Field(ge=0)]
