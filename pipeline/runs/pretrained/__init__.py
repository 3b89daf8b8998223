"""Trained runs as one Hugging Face model: a folder that `from_pretrained` reads without parameters, stores or DVC.

`config.json` says how each network is built and what it is worth, `model.safetensors` holds what was learned and what features
are normalised with. `AutoConfig` and `AutoModel` know the kind once `model` is imported.
"""
