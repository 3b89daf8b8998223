"""Transformers models by strict loading, and seeded stand-ins of the same classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import ParamsError, WeightsError

from . import ctranslate2, gguf, inside
from .listing import files
from .load import check_coverage, seeded, state
from .source import Source, config, locate, parse


def load(
    model_class: Any,
    source: Source | str,
    *,
    architecture: dict | None = None,
    config_class: type | None = None,
    dropped: Sequence[str] = (),
    types: Sequence[str] = (),
    dtype: str = "float32",
    attention: str | None = "sdpa",
    optional: Sequence[str] = (),
) -> Any:
    """A model of `model_class` in evaluation mode, without gradients.

    Args:
        model_class: a `PreTrainedModel` class; never an Auto class with remote code.
        source: `hf:`, `local:` or `package:` weights, or `random:<seed>`.
        architecture: keys of the configuration, for `random:` alone.
        config_class: configuration of the stand-in; `model_class.config_class` by default.
        dropped: prefixes of checkpoint keys that are rightly left out.
        types: `model_type` values the checkpoint's config.json may have; empty = that of the class.
        dtype: of the parameters; float32 unless the stream says otherwise, whatever the checkpoint has.
        attention: attention implementation; None leaves it to the class.
        optional: prefixes of model keys that may be missing because the feature never reads them.

    Raises:
        WeightsError: absent, of another architecture, or not covering the model.
        ParamsError: `architecture` holds what the configuration does not know.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from transformers import GenerationConfig

    source = parse(source) if isinstance(source, str) else source
    kwargs = {"dtype": getattr(torch, dtype)} | ({"attn_implementation": attention} if attention else {})
    if source.random:
        settings = configuration(config_class or model_class.config_class, architecture or {})
        with seeded(source.seed or 0):
            model = model_class._from_config(settings, **kwargs)
        return model.eval().requires_grad_(False)
    path = locate(source)
    files(path)
    expect(source, config(path), types or (model_class.config_class.model_type,))
    if path.suffix == gguf.SUFFIX:
        return _from_gguf(model_class, path, source, dropped, dtype, kwargs)
    with quiet():
        try:
            settings = _read_configuration(model_class, path)
            with torch.device("meta"):  # names alone
                own = model_class(settings).state_dict().keys()
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
            raise WeightsError(
                f"{source} has a configuration that {model_class.__name__} does not take ({_line(error)})."
            ) from error
        inner, outside = inside.extract(state(path), own, source)
        try:
            model, info = model_class.from_pretrained(
                None, config=settings, state_dict=inner, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
            )
            if model.can_generate() and (path / "generation_config.json").is_file():
                model.generation_config = GenerationConfig.from_pretrained(path)
        except (OSError, ValueError, RuntimeError, KeyError, IndexError) as error:
            raise WeightsError(f"{source} cannot be loaded as {model_class.__name__} ({_line(error)}).") from error
    missing = [key for key in info["missing_keys"] if not key.startswith(tuple(optional))]
    # Asked to go on at another shape, the library lists the keys; otherwise it names none.
    mismatched = [f"{key} of shape {tuple(found)}, not {tuple(wanted)}" for key, found, wanted in info["mismatched_keys"]]
    check_coverage(source, model.state_dict(), [*missing, *mismatched], info["unexpected_keys"], dropped=dropped)
    inside.report(source, [*outside, *info["unexpected_keys"]])
    return model.eval().requires_grad_(False)


def _read_configuration(model_class: Any, path: Path) -> Any:
    if ctranslate2.is_folder(path):
        return configuration(model_class.config_class, config(path))
    settings = model_class.config_class.from_pretrained(path, local_files_only=True)
    whole = config(path)
    if "projection_dim" in whole and isinstance(whole.get("vision_config"), dict) and settings.model_type != whole["model_type"]:
        # One tower of two: what both project to is said for both, and a tower's own entry is not kept up.
        settings.projection_dim = whole["projection_dim"]
    return settings


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _from_gguf(model_class: Any, path: Path, source: Source, dropped: Sequence[str], dtype: str, kwargs: dict) -> Any:
    """A model of `model_class` from one GGUF file, with its language model head or without."""
    import torch
    from transformers.initialization import no_init_weights

    try:
        settings = configuration(model_class.config_class, config(path))
        with torch.device("meta"):  # shapes alone, so that a damaged width is no request for memory
            sketch = model_class._from_config(settings, **kwargs)
    except (ParamsError, RuntimeError, ValueError, TypeError, ArithmeticError) as error:
        raise WeightsError(
            f"{source} cannot be built as {model_class.__name__} ({' '.join(str(error).split())[:120]})."
        ) from error
    found = gguf.state(path)
    if sketch.base_model is sketch:
        found = {key.removeprefix("model."): value for key, value in found.items()}
    elif sketch.config.tie_word_embeddings and "model.embed_tokens.weight" in found:
        found["lm_head.weight"] = found["model.embed_tokens.weight"]
    match_keys(sketch, found, source, dropped=dropped)
    with no_init_weights():  # every weight is filled below
        model = model_class._from_config(settings, **kwargs)
    return assemble(model, found, source, dropped=dropped, dtype=dtype)


def match_keys(model: Any, found: dict, source: object, *, dropped: Sequence[str] = ()) -> set[str]:
    """The keys a module and a state dict share; all there are, but for `dropped`.

    Raises:
        WeightsError: the state dict does not cover the module, or holds something else.
    """
    own = model.state_dict()
    shaped = {
        key: f"{key} of shape {tuple(found[key].shape)}, not {tuple(own[key].shape)}"
        for key in own.keys() & found.keys()
        if found[key].shape != own[key].shape
    }
    missing = [*(own.keys() - found.keys()), *shaped.values()]
    check_coverage(source, own, missing, found.keys() - own.keys(), dropped=dropped)
    return own.keys() & found.keys()


def assemble(model: Any, found: dict, source: object, *, dropped: Sequence[str] = (), dtype: str = "float32") -> Any:
    """Fill a built module from the part of a state dict that is it, strictly; evaluation mode, no gradients.

    Args:
        dropped: prefixes of checkpoint keys that are rightly left out.

    Raises:
        WeightsError: the state dict does not cover the module, or holds something else.
    """
    import torch

    found, outside = inside.extract(found, model.state_dict(), source)
    keys = match_keys(model, found, source, dropped=dropped)
    model.load_state_dict({key: found[key] for key in keys}, strict=False)
    inside.report(source, [*outside, *(found.keys() - keys)])
    return model.to(getattr(torch, dtype)).eval().requires_grad_(False)


def configuration(config_class: type, architecture: dict) -> Any:
    """`config_class(**architecture)`, closed to keys it does not know.

    Raises:
        ParamsError: names the key or the value that does not fit.
    """
    from huggingface_hub.errors import StrictDataclassError

    with quiet():
        known = set(config_class().to_dict())
        known |= set(getattr(config_class, "attribute_map", {}))
        if unknown := sorted(set(architecture) - known):
            raise ParamsError(f"architecture: {config_class.__name__} has no {unknown[0]!r}.")
        try:
            return config_class(**architecture)
        except (ValueError, TypeError, StrictDataclassError) as error:
            raise ParamsError(f"architecture: {' '.join(str(error).split())[:200]}.") from error


def expect(source: object, settings: dict, types: Sequence[str]) -> None:
    """Raise unless config.json says one of `types`.

    Raises:
        WeightsError: it is another architecture.
    """
    if (found := settings.get("model_type")) not in types:
        raise WeightsError(
            f"{source} is a {found or 'nameless'!r} model, this family reads {', '.join(types)}; choose the family that fits it."
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Without the library's progress bars and load report: coverage is checked here, as an error."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
