"""The "binary version" of CIFAR-10: records of a label byte and 32 x 32 pixels, plane by plane (R, G, B)."""

import numpy as np
import numpy.typing as npt

SHAPE = (3, 32, 32)
RECORD_BYTES = 1 + 3 * 32 * 32


def parse_records(data: bytes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return pixels, shape (n, 3, 32, 32), and labels, shape (n,), as views of the data.

    Raises ValueError where they are not one or more whole records.
    """
    num_records, rest = divmod(len(data), RECORD_BYTES)
    if rest or not num_records:
        raise ValueError(f"{len(data)} bytes are no whole number of records of {RECORD_BYTES} bytes")
    records = np.frombuffer(data, np.uint8).reshape(num_records, RECORD_BYTES)
    return records[:, 1:].reshape(num_records, *SHAPE), records[:, 0]
