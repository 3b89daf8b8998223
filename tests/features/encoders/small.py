"""Small architectures of the ready-made streams, of the same model classes as the real weights."""

from __future__ import annotations

VIT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "patch_size": 16,
    "image_size": 32,
}
SPEECH = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
LARGE_SPEECH = SPEECH | {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
BERT = {
    "vocab_size": 512,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
LLAMA = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 1024,
}
WHISPER = {"d_model": 32, "encoder_layers": 4, "encoder_attention_heads": 4, "encoder_ffn_dim": 64}
EVA = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 14}
#: Small architectures of the rows whose weights are elsewhere, of the same class as the real ones.
SMALL = {
    "bert_base": BERT,
    "macbert": BERT,
    "minilm": BERT,
    "roberta_base": BERT | {"model_type": "roberta"},
    "xlm_roberta": BERT | {"model_type": "xlm-roberta"},
    "gpt2_dialogue": {"vocab_size": 512, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "smollm2": LLAMA,
    "smollm2_dialogue": LLAMA,
    "smollm2_trunk": LLAMA,
    "llama2_7b_trunk": LLAMA,
    "tinyllama_trunk": LLAMA,
    "smollm2_layers": LLAMA | {"num_hidden_layers": 13},
    "minilm_layers": BERT | {"num_hidden_layers": 6},
    "hubert_base": SPEECH,
    "mhubert": SPEECH,
    "hubert_large": LARGE_SPEECH,
    "chinese_hubert": LARGE_SPEECH,
    "wav2vec2": SPEECH | {"model_type": "wav2vec2"},
    "wav2vec2_mean_max": SPEECH | {"model_type": "wav2vec2"},
    "wavlm": SPEECH | {"model_type": "wavlm"},
    "data2vec_audio": SPEECH | {"model_type": "data2vec-audio", "num_conv_pos_embeddings": 5},
    "emotion2vec_base": {"width": 32, "heads": 4, "inner": 64, "blocks": 3, "front": 16, "position_groups": 4},
    "whisper_base": WHISPER,
    "whisper_tiny_en": WHISPER,
    "whisper_tiny_en_layers": WHISPER,
    "whisper_tiny_en_steps": WHISPER,
    "whisper_large": WHISPER | {"num_mel_bins": 128},
    "clip_base": VIT | {"projection_dim": 16},
    "clip_face": VIT | {"projection_dim": 16},
    "clip_zero_shot": {"vision_config": VIT, "text_config": BERT, "projection_dim": 16},
    "face_mae": VIT,
    "vit_base": VIT,
    "videomae": VIT,
    "videomae_large": VIT,
    "eva_g": EVA,
    "eva_g_cls": EVA,
    "open_clip_convnext": {
        "embed_dim": 16,
        "vision_cfg": {
            "timm_model_name": "convnext_atto",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 64,
        },
    },
    "resnet50": {"model": "resnet50", "layers": [1, 1, 1, 1]},
    "mosaic": {"model": "resnet50", "layers": [1, 1, 1, 1]},
    "mosaic_faces": {"model": "resnet50", "layers": [1, 1, 1, 1]},
    "efficientnet_b0_face": {"model": "efficientnet_b0"},
    "efficientnet_lite0": {"model": "tf_efficientnet_lite0"},
    "efficientnet_lite0_face": {"model": "tf_efficientnet_lite0"},
    "dinov2": {"model": "vit_base_patch14_dinov2.lvd142m", "img_size": 28, "embed_dim": 32, "depth": 2, "num_heads": 4},
    "eva02": {
        "model": "eva02_base_patch14_448.mim_in22k_ft_in22k_in1k",
        "img_size": 28,
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 4,
    },
}
