"""Mean SNRs from a file: measured links instead of modelled ones."""

from pathlib import Path

import numpy as np

from coordinator.weights import Floats
from protocol.errors import BadInput
from protocol.radio import SNR_MAX_DB, SNR_MIN_DB


def read_snr_matrix(file: str, num_devices: int, edges: list[tuple[int, int]]) -> Floats:
    """Read the mean Es/N0 [dB] of every pair, shape (num_devices, num_devices); only edges are looked at.

    Text, one row per device, numbers separated by commas or white space, `#` begins a comment. Raises
    BadInput unless every edge has one finite number, the same in both directions: channels are reciprocal.
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
    for a, b in edges:
        there, back = matrix[a, b], matrix[b, a]
        if there == back and np.isfinite(there) and not SNR_MIN_DB <= there <= SNR_MAX_DB:
            raise BadInput(
                f"radio.snr_file = {file}: link {a} - {b} has {there:g} dB; "
                f"must be >= {SNR_MIN_DB:g} and <= {SNR_MAX_DB:g} dB"
            )
        if not np.isfinite(there) or there != back:
            raise BadInput(
                f"radio.snr_file = {file}: link {a} - {b} has {there:g} dB one way and {back:g} dB the "
                f"other; expected one finite number, since channels are reciprocal"
            )
    return matrix
