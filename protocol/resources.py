"""The section of an experiment that says on which processors of their hosts devices compute."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from protocol.section import Section


def _list_or_word(value: object) -> str:
    return "list" if isinstance(value, list | tuple) else "word"


class Resources(Section):
    """On which processors of their hosts devices compute."""

    gpus: Annotated[
        Annotated[Literal["auto", "all", "none"], Tag("word")]
        | Annotated[
            tuple[Annotated[int, Field(ge=0, le=1023)], ...],
            Field(min_length=1, max_length=1024),
            Tag("list"),
        ],
        Discriminator(_list_or_word),  # so that a fault is one of a word or of a list, not both
    ] = "auto"
    """GPUs on which models live: those that there are and have room; all, or it is said; none; or a list of
    their numbers."""
    devices_per_gpu: Annotated[int, Field(ge=0, le=4096)] = 0
    """Devices that share a GPU at most; 0: as many as fit into its memory."""
