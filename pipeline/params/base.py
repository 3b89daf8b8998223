"""What every group of parameters is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool


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


Number = Annotated[float, BeforeValidator(_number)]
Positive = Annotated[float, BeforeValidator(_number), Field(gt=0)]
Share = Annotated[float, BeforeValidator(_number), Field(ge=0, le=1)]
#: `true` is no number and `"false"` is no flag, though Python and YAML would let them pass.
Whole = Annotated[int, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=1)]
Flag = StrictBool
