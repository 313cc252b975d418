"""Packet errors of a real code over AWGN: a table over the SNR, and what lies between its points.

Legend: snr_db instantaneous Es/N0 (energy per symbol over noise density) in dB. Tables are computed by
node/phy.py and travel as data, so that nobody else needs the library that decodes.
"""

from itertools import pairwise
from typing import Annotated, Self, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from protocol.fading import Floats
from protocol.radio import Modulation

Probability: TypeAlias = Annotated[float, Field(ge=0, le=1)]


class PacketErrorTable(BaseModel):
    """How many packets of one size, modulation and code are lost, and how wrong the lost ones are.

    The tuples have one entry per grid point, with rising SNR; the loss never rises with it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    modulation: Modulation
    """Gray-mapped constellation."""
    code_rate: Annotated[float, Field(gt=0, le=1)]
    """Information bits per coded bit."""
    packet_bits: PositiveInt
    """Information bits of a packet, its CRC among them."""
    snr_db: Annotated[tuple[Annotated[float, Field(allow_inf_nan=False)], ...], Field(min_length=1)]
    """Grid of Es/N0."""
    packet_loss: tuple[Probability, ...]
    """Share of packets with at least one wrong information bit after decoding."""
    residual_ber: tuple[Annotated[float, Field(gt=0, le=1)], ...]
    """Mean share of wrong information bits in a lost packet; where none was lost, that of the point below."""
    num_packets: tuple[PositiveInt, ...]
    """Packets that were simulated."""

    @model_validator(mode="after")
    def _is_a_curve(self) -> Self:
        num_points = len(self.snr_db)
        for name in ("packet_loss", "residual_ber", "num_packets"):
            if len(getattr(self, name)) != num_points:
                raise ValueError(f"{name}: needs one entry for each of the {num_points} points of snr_db")
        if any(low >= high for low, high in pairwise(self.snr_db)):
            raise ValueError("snr_db: must rise from point to point")
        if any(low < high for low, high in pairwise(self.packet_loss)):
            raise ValueError("packet_loss: must not rise with the SNR")
        return self


def packet_loss(table: PacketErrorTable, snr_db: Floats) -> Floats:
    """Packet loss at snr_db, any shape: its logarithm is linear in dB between two points of the grid.

    Below the grid every packet is lost; above it the loss stays that of the last point, which is 0 in
    a table that was computed to its end. No loss in n packets cannot be told from less than one in n:
    on the way to such a point the curve aims at half a packet in n.
    """
    losses = np.array(table.packet_loss)
    resolved = np.maximum(losses, 0.5 / np.array(table.num_packets))
    logarithms = np.minimum.accumulate(np.log(resolved))
    between = np.exp(np.interp(snr_db, table.snr_db, logarithms))
    above = np.where(snr_db >= table.snr_db[-1], losses[-1], between)
    loss: Floats = np.where(snr_db < table.snr_db[0], 1.0, above)
    return loss


def residual_ber(table: PacketErrorTable, snr_db: Floats) -> Floats:
    """Share of wrong information bits in a packet that was lost at snr_db, any shape: linear in dB.

    Beyond either end of the grid it stays that of the end.
    """
    return np.interp(snr_db, table.snr_db, table.residual_ber)
