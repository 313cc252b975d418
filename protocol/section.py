"""What every section of an experiment is: a frozen model that refuses unknown keys."""

from typing import get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A frozen part of the experiment; its attributes' docstrings are the help of its keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="strings"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_number_is_a_boolean(cls, value: object, info: ValidationInfo) -> object:
        """Refuse true and false where they would be taken for 1 and 0."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and bool not in (kind, *get_args(kind)):
            raise PydanticCustomError("no_boolean", "is neither true nor false")
        return value
