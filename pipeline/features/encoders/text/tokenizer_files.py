"""The tokenizer that lies beside a checkpoint's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline import weights
from pipeline.errors import WeightsError
from pipeline.storage import memo
from pipeline.weights import gguf, intact

from .tokens import Fast

#: Files a tokenizer may keep its vocabulary in.
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
#: What turns the files of a checkpoint into a tokenizer.
LIBRARIES = ("transformers", "tokenizers", "sentencepiece", "tiktoken")


def load_tokenizer(source: object, folder: Path) -> Any:
    """The library's own tokenizer of a checkpoint, for turning ids back into text.

    Raises:
        WeightsError: there is none.
    """
    from transformers import AutoTokenizer

    for file in (file for pattern in weights.TEXT for file in sorted(folder.glob(pattern))):
        if file.stat().st_size:  # an empty list of merges or added tokens is one
            intact.check(file)
    # Without a vocabulary the library makes an empty tokenizer and says nothing.
    if not any(file for pattern in VOCABULARIES for file in folder.glob(pattern)):
        raise WeightsError(f"{source} has no tokenizer; fetch its tokenizer.json (or vocab.txt) too.")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError, AttributeError, TypeError) as error:
        raise WeightsError(
            f"{source} has no tokenizer that can be read ({' '.join(str(error).split())[:120]}); "
            "fetch its tokenizer.json (or vocab.txt) too."
        ) from error


def read_tokenizer(source: object, folder: Path) -> tuple[Fast, int]:
    """The tokenizer in a checkpoint's folder (or GGUF file), and the most tokens it says the model takes.

    Raises:
        WeightsError: there is none, or it has no fast version.
    """
    if folder.suffix == gguf.SUFFIX:
        text, limit = gguf.tokenizer(folder)
        return Fast(text), limit

    def ask() -> tuple[str, int | None, int]:
        tokenizer = load_tokenizer(source, folder)
        if not tokenizer.is_fast:
            raise WeightsError(
                f"{source}: {type(tokenizer).__name__} tells no character offsets; save the model "
                "with a fast tokenizer (tokenizer.json)."
            )
        backend = tokenizer.backend_tokenizer.to_str()
        return backend, tokenizer.unk_token_id, int(min(tokenizer.model_max_length, 10**6))

    texts = {file.name: weights.sha256(file) for pattern in weights.TEXT for file in sorted(folder.glob(pattern))}
    backend, unknown, limit = memo.ask_library("fast tokenizer", ask, libraries=LIBRARIES, about=texts)
    return Fast(backend, unknown), limit
