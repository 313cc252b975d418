"""What every section of an experiment is: a frozen model that refuses unknown keys."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen part of the experiment; its attributes' docstrings are the help of its keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="strings"
    )
