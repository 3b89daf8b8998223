"""A language model of every kind that can be cut: the layers above go on as the whole does."""

import json

import pytest
import torch
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from pipeline.errors import WeightsError
from pipeline.models.language import LanguageModel
from pipeline.models.spec import LanguageSpec
from pipeline.weights import layers, seeded

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


@pytest.mark.parametrize("depth", [0, 1, 3, 5])
@pytest.mark.parametrize("kind", layers.KINDS)
def test_split_is_whole_for_every_kind(kind, depth):
    """Six layers, so that what is said layer by layer differs between them (smollm3 turns every fourth differently)."""
    with seeded(0):
        whole = (
            MODEL_MAPPING[CONFIG_MAPPING[kind]]._from_config(CONFIG_MAPPING[kind](**SHAPE), attn_implementation="eager").eval()
        )
    shape = {"model_type": kind, **SHAPE}
    config, below, count = layers.describe_above("random:0", shape, depth, "depth")
    language = LanguageSpec(weights="random:0", architecture=shape, base="b", config=config, below=below, layers=count)
    upper = LanguageModel(
        language, layers.read_above("random:0", json.dumps(shape, sort_keys=True), depth, "float32"), None
    ).eval()
    ids = torch.arange(1, 13).view(2, 6)
    with torch.inference_mode():
        output = whole(input_ids=ids, output_hidden_states=True)
        found = upper(output.hidden_states[depth], torch.ones(2, 6).bool())
        torch.testing.assert_close(found, output.last_hidden_state, atol=1e-5, rtol=0)
        below = layers.cut_above(whole, depth)(input_ids=ids).last_hidden_state
        torch.testing.assert_close(below, output.hidden_states[depth], atol=1e-5, rtol=0)


def test_other_kinds_are_refused():
    with pytest.raises(WeightsError, match="'granite' model; language models of these kinds can be cut"):
        layers.describe_above("random:0", {"model_type": "granite"}, 1, "depth")
