"""Quantities that may differ from device to device: one number for all, a list, or a draw from the seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Self, TypeAlias

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from protocol.section import Section
from protocol.streams import Purpose, stream

Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]


class Uniform(Section):
    """Each device's own number, drawn uniformly from the seed."""

    low: Finite
    """The least that may be drawn."""
    high: Finite
    """What is drawn lies below this."""

    @model_validator(mode="after")
    def _ends_in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError("low exceeds high")
        return self


PerDevice: TypeAlias = float | tuple[float, ...] | Uniform
"""One number for all devices, a list of one for each, or what they are drawn from."""

_OF_A_NUMBER = ("greater_than", "greater_than_equal", "less_than_equal", "float_type", "float_parsing")
"""What pydantic calls the faults of a single number."""


@dataclass(frozen=True)
class Each:
    """What each number of a PerDevice must be; whatever is wrong with it is one fault of the whole."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        number = core_schema.float_schema(ge=self.ge, gt=self.gt, le=self.le)
        shapes = core_schema.tagged_union_schema(
            {
                "number": number,
                "list": core_schema.tuple_schema([number], variadic_item_index=0, min_length=1),
                "draw": handler.generate_schema(Uniform),
            },
            _shape,
        )
        return core_schema.no_info_wrap_validator_function(_in_one_fault, shapes)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        found = handler(schema)
        number, _, draw = found["oneOf"]
        draw["properties"] = {"low": number, "high": number}
        return found


def numbers(quantity: PerDevice, num_devices: int, *, seed: int, which: int) -> Sequence[float]:
    """Return the number of each device; which: of the quantities that are drawn, each on its own."""
    match quantity:
        case Uniform(low=low, high=high):
            rng = stream(seed, Purpose.HARDWARE, a=which)
            drawn: list[float] = rng.uniform(low, high, num_devices).tolist()
            return drawn
        case tuple():
            return quantity
        case number:
            return [number] * num_devices


def least(quantity: PerDevice) -> float:
    """Return what no device's number is below."""
    match quantity:
        case Uniform(low=low):
            return low
        case tuple():
            return min(quantity)
        case number:
            return number


def _shape(quantity: object) -> str:
    match quantity:
        case list() | tuple():
            return "list"
        case dict() | Uniform():
            return "draw"
        case _:
            return "number"


def _in_one_fault(given: object, validate: ValidatorFunctionWrapHandler) -> PerDevice:
    try:
        quantity: PerDevice = validate(given)
        if isinstance(quantity, Uniform):
            validate(quantity.low)
            validate(quantity.high)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        if fault["type"] in _OF_A_NUMBER:
            raise PydanticCustomError(fault["type"], fault["msg"]) from error
        raise PydanticCustomError(
            "per_device",
            "expected a number, a list of one for each device, or { low = ..., high = ... } to draw from, "
            "both finite and in order",
        ) from error
    return quantity
