"""The idx format of MNIST and its kin: a big-endian header, then bytes.

offset  bytes  what
0       2      zero
2       1      type of an element: 8 is an unsigned byte
3       1      number of dimensions
4       4 each size of each dimension
"""

import struct
from math import prod

import numpy as np
import numpy.typing as npt

UNSIGNED_BYTE = 8


def parse_idx(data: bytes, *, num_dimensions: int) -> npt.NDArray[np.uint8]:
    """Return the array that idx data hold, as a view of them; raises ValueError if they are not sound.

    No size in the header is believed before all of them are found to come to the bytes that follow.
    """
    start = 4 + 4 * num_dimensions
    if len(data) < start or data[:3] != bytes([0, 0, UNSIGNED_BYTE]) or data[3] != num_dimensions:
        raise ValueError(f"no idx header of unsigned bytes in {num_dimensions} dimensions")
    shape = struct.unpack_from(f">{num_dimensions}I", data, 4)
    if prod(shape) != len(data) - start:
        raise ValueError(
            f"its header promises {' x '.join(map(str, shape))} bytes, and {len(data) - start} follow"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
