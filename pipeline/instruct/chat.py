"""A language model asked in words alone, with the template of its conversations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pipeline import weights
from pipeline.devices import pick_devices
from pipeline.errors import WeightsError
from pipeline.models.composed.prompt import PREFIX, Wrapped
from pipeline.models.composed.speaker import Sampling, Speaker
from pipeline.runs.composed import Language, open_composed
from pipeline.weights import gguf, vocabulary
from pipeline.weights.gguf_header import read_header

from .tutor import open_tongue

#: Of models that bring none.
PLAIN = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"


def read_template(address: str) -> str | None:
    """The template of a checkpoint: in a GGUF file's header, `chat_template.jinja` or `tokenizer_config.json`; None without."""
    source = weights.parse(address)
    if source.random:
        return None
    path = weights.locate(source)
    if path.suffix == gguf.SUFFIX:
        found: Any = read_header(path).fields.get("tokenizer.chat_template")
    elif (path / "chat_template.jinja").is_file():
        found = (path / "chat_template.jinja").read_text(encoding="utf-8")
    else:
        found = weights.config(path, "tokenizer_config.json").get("chat_template")
    if isinstance(found, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default", next(iter(named.values()), None))
    return found if isinstance(found, str) and found.strip() else None


def render(template: str, messages: Sequence[dict[str, str]], bos: str = "", end: str = "") -> str:
    """The prompt of a conversation. A template is somebody else's program: it runs in a sandbox.

    Raises:
        WeightsError: it cannot be rendered.

    >>> render(PLAIN, [{"role": "user", "content": "Hi"}])
    'user: Hi\\nassistant:'
    """
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(reason: str) -> None:
        raise TemplateError(reason)

    room = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    room.globals["raise_exception"] = refuse
    try:
        return room.from_string(template).render(messages=messages, add_generation_prompt=True, bos_token=bos, eos_token=end)
    except (TemplateError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"the chat template cannot be rendered ({' '.join(str(error).split())[:120]}); give --raw.") from error


def generate(text: str, language: Language, sampling: Sampling, *, raw: bool = False, system: str | None = None) -> str:
    """What a language model answers, or with `raw`, how it goes on.

    Raises:
        WeightsError: no weights. ParamsError: no room in the context.
    """
    model, _ = open_composed(language, "random:0", [])
    ends = vocabulary.read_vocabulary(language.weights, json.dumps(language.architecture, sort_keys=True), language.dtype)
    tongue = open_tongue(language, [text])
    template, opening = read_template(language.weights), [] if ends.bos is None else [ends.bos]
    if raw:
        ids = [*opening, *tongue.tokeniser(text)]
    else:
        messages = [{"role": "system", "content": system}] if system else []
        messages += [{"role": "user", "content": text}]
        marks = [tongue.spell(one) if one is not None else "" for one in (ends.bos, ends.end)]
        said = tongue.tokeniser(render(template or PLAIN, messages, *marks))
        # A template writes the token that opens a text itself.
        ids = said if template else [*opening, *said]
    prompt = Wrapped(np.array(ids, np.int64), {PREFIX: (0, len(ids))})
    # Layers of fewer bits take them when they are moved.
    speaker = Speaker(model, ends.head).eval().to(pick_devices("auto")[0])
    generator = torch.Generator().manual_seed(sampling.seed)
    return tongue.decode(speaker.say(prompt, {}, sampling, tongue.ends, generator)).strip()
