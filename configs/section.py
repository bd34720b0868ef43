"""What every section of a configuration is: strict, complete, unchangeable."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

LocalPath = Annotated[Path, Field(strict=False)]


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, types are not coerced, values never change."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
