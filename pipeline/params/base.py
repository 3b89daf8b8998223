"""What every group of parameters is made of."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

#: What a name may be that goes into a path or a command.
NAME = re.compile(r"[a-z][a-z0-9_]*")


class Group(BaseModel):
    """A block of parameters: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number is wanted")
    # Sweeps pass through YAML writers that spell 0.000001 as the string 1e-06.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Positive = Annotated[float, BeforeValidator(_number), Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, BeforeValidator(_number), Field(ge=0, le=1, allow_inf_nan=False)]
#: `true` is no number and `"false"` is no flag, though Python and YAML would let them pass.
Whole = Annotated[int, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=1)]
Flag = StrictBool


def check_name(text: str) -> str:
    """The name itself.

    Raises:
        ValueError: it is none that may go into a path or a command.
    """
    if not NAME.fullmatch(text):
        raise ValueError("a name is small letters, digits and _, and begins with a letter")
    return text


#: It becomes a file, a folder or a word of a command.
Name = Annotated[str, AfterValidator(check_name)]


def flatten(value: object, key: str = "") -> dict[str, object]:
    """Nested parameters as one level of `a.b.c`.

    >>> flatten({"loss": {"emotion": {"weight": 1.0}}, "seeds": 5})
    {'loss.emotion.weight': 1.0, 'seeds': 5}
    """
    if isinstance(value, dict) and value:
        return {
            name: one
            for inner, part in value.items()
            for name, one in flatten(part, f"{key}.{inner}" if key else str(inner)).items()
        }
    return {key: value}
