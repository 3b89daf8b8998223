"""Transformers models by strict loading, and seeded stand-ins of the same classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import ParamsError, WeightsError

from . import ctranslate2, gguf
from .load import check_coverage, seeded
from .source import Source, config, files, locate, parse


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
        return _from_state(gguf.state, model_class, path, source, dropped, dtype, kwargs)
    if ctranslate2.is_folder(path):
        return _from_state(ctranslate2.state, model_class, path, source, dropped, dtype, kwargs)
    with quiet():
        try:
            model, info = model_class.from_pretrained(
                path,
                output_loading_info=True,
                local_files_only=True,
                trust_remote_code=False,
                weights_only=True,
                ignore_mismatched_sizes=True,
                **kwargs,
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise WeightsError(
                f"{source} cannot be loaded as {model_class.__name__} ({' '.join(str(error).split())[:200]})."
            ) from error
    missing = [key for key in info["missing_keys"] if not key.startswith(tuple(optional))]
    # Asked to go on at another shape, the library lists the keys; otherwise it names none.
    mismatched = [f"{key} of shape {tuple(found)}, not {tuple(wanted)}" for key, found, wanted in info["mismatched_keys"]]
    check_coverage(source, model.state_dict(), [*missing, *mismatched], info["unexpected_keys"], dropped=dropped)
    return model.eval().requires_grad_(False)


def _from_state(
    read: Callable[[Path], dict],
    model_class: Any,
    path: Path,
    source: Source,
    dropped: Sequence[str],
    dtype: str,
    kwargs: dict,
) -> Any:
    """A model of `model_class` from the state dict that `read` finds in another library's format, with its head or without."""
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
    state = read(path)
    if sketch.base_model is sketch:
        state = {key.removeprefix("model."): value for key, value in state.items()}
    elif sketch.config.tie_word_embeddings:
        state |= {tied: state[kept] for tied, kept in sketch._tied_weights_keys.items() if kept in state}
    match_keys(sketch, state, source, dropped=dropped)
    with no_init_weights():  # every weight is filled below
        model = model_class._from_config(settings, **kwargs)
    return assemble(model, state, source, dropped=dropped, dtype=dtype)


def match_keys(model: Any, state: dict, source: object, *, dropped: Sequence[str] = ()) -> set[str]:
    """The keys a module and a state dict share; all there are, but for `dropped`.

    Raises:
        WeightsError: the state dict does not cover the module, or holds something else.
    """
    own = model.state_dict()
    shaped = {
        key: f"{key} of shape {tuple(state[key].shape)}, not {tuple(own[key].shape)}"
        for key in own.keys() & state.keys()
        if state[key].shape != own[key].shape
    }
    missing = [*(own.keys() - state.keys()), *shaped.values()]
    check_coverage(source, own, missing, state.keys() - own.keys(), dropped=dropped)
    return own.keys() & state.keys()


def assemble(model: Any, state: dict, source: object, *, dropped: Sequence[str] = (), dtype: str = "float32") -> Any:
    """Fill a built module from a state dict, strictly; evaluation mode, no gradients.

    Args:
        dropped: prefixes of checkpoint keys that are rightly left out.

    Raises:
        WeightsError: the state dict does not cover the module, or holds something else.
    """
    import torch

    keys = match_keys(model, state, source, dropped=dropped)
    model.load_state_dict({key: state[key] for key in keys}, strict=False)
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
