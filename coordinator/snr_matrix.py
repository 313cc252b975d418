"""Mean SNRs from a file: measured links instead of modelled ones."""

from pathlib import Path

import numpy as np

from coordinator.weights import Floats
from protocol.errors import BadInput
from protocol.radio import SNR_MAX_DB, SNR_MIN_DB


def read_snr_matrix(file: str, num_devices: int, edges: list[tuple[int, int]]) -> Floats:
    """Read the mean Es/N0 [dB], row i, column j: how well j hears i; only edges are looked at.

    Text, one row per device, numbers separated by commas or white space, `#` begins a comment. The matrix
    need not be symmetric: channels are reciprocal, transmit powers and noise are not. Raises BadInput
    unless there is a finite number in both directions of every edge.
    """
    try:
        text = Path(file).read_text(encoding="utf-8-sig").replace(",", " ")
        rows = [line.split("#")[0].split() for line in text.splitlines()]
        numbers = [[float(word) for word in row] for row in rows if row]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"radio.snr_file = {file}: cannot be read ({reason})") from error
    except ValueError as error:
        raise BadInput(f"radio.snr_file = {file}: not a matrix of numbers ({error})") from error
    widths = {len(row) for row in numbers}
    if len(numbers) != num_devices or widths != {num_devices}:
        shape = f"{len(numbers)} rows of {' or '.join(map(str, sorted(widths))) or 'no'} numbers"
        raise BadInput(f"radio.snr_file = {file}: has {shape}, expected {num_devices} of {num_devices}")
    matrix = np.array(numbers)
    for sender, receiver in ((i, j) for a, b in edges for i, j in ((a, b), (b, a))):
        snr_db = matrix[sender, receiver]
        if not SNR_MIN_DB <= snr_db <= SNR_MAX_DB:  # nor is what is no number
            raise BadInput(
                f"radio.snr_file = {file}: from {sender} to {receiver} has {snr_db:g} dB; "
                f"must be >= {SNR_MIN_DB:g} and <= {SNR_MAX_DB:g} dB"
            )
    return matrix
