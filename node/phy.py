"""Packet-error tables of 5G LDPC codes over AWGN, simulated with Sionna and kept on disk.

A packet's information bits are cut into code blocks, encoded (3GPP TS 38.212, sections 5.2.2, 5.3.2
and 5.4.2), mapped, sent through AWGN at a fixed Es/N0, demapped to exact log-likelihood ratios and
decoded by belief propagation. A packet is lost if any bit of any of its blocks is wrong.

Sionna comes with the optional extra `phy` and is imported only where something is simulated.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from pydantic import ValidationError

from node.cache import cache_folder
from protocol.config import Experiment
from protocol.errors import BadInput
from protocol.modulation import BITS_PER_SYMBOL, permitted
from protocol.packet_errors import PacketErrorTable
from protocol.radio import Modulation

NUM_ITERATIONS = 20
"""Iterations of belief propagation after which a block that is still wrong is given up."""
STEP_DB = 0.25
"""Distance of grid points where the loss falls."""
BELOW_DB = (16, 8, 4, 2, 1)
"""How far below them further points lie: all is lost there, but more or less of each packet."""
ENOUGH_LOST = 100
"""Packets lost at one point, after which its loss is known to about 10 %."""
ENOUGH_PACKETS = 1000
"""Packets sent at one point, where not enough of them are lost."""
ENOUGH_CODED_BITS = 2**24
"""The same in coded bits, for packets so long that fewer have to do."""

_SIMULATION = 1
"""Raised when the same parameters come to give another table: older files are then not read any more."""
_SEED = 0
"""Tables belong to the code and not to an experiment: whatever its seed, it finds them in the cache."""
_DEVICE = "cpu"
"""The same table under the same name, whatever the machine has."""
_LOWEST_DB, _HIGHEST_DB = -20, 50
"""Where every code fails, and where none does."""
_RATE_MIN, _RATE_MAX = 1 / 5, 948 / 1024
"""Code rates between which nothing is repeated (TS 38.212, section 5.4.2.1)."""
_ITERATIONS_BETWEEN_CHECKS = 2
_BATCH_CODED_BITS = 2**15
"""What is sent at once; more would fall out of a processor's cache."""
_BATCH_SYMBOLS = 2**14

Modem: TypeAlias = Callable[[torch.Tensor, float], torch.Tensor]
"""Bits, shape (n, bits) or (bits,), and Es/N0 [dB] to what the demapper makes of them, same shape."""


class Blocks(NamedTuple):
    """How a packet is cut: into num_blocks of block_bits information and coded_bits coded bits each."""

    num_blocks: int
    block_bits: int
    coded_bits: int
    base_graph: Literal["bg1", "bg2"]


class Received(NamedTuple):
    """A batch of code blocks, one per row: bits as sent, llrs of the coded ones, and whether to decode it."""

    bits: torch.Tensor
    llrs: torch.Tensor
    undecided: torch.Tensor


def packet_error_tables(experiment: Experiment) -> tuple[PacketErrorTable, ...]:
    """Return the table of every modulation that the experiment's frames may use; raises BadInput."""
    radio, packet_bits = experiment.radio, 8 * experiment.codec.packet_bytes
    return tuple(
        packet_error_table(modulation, radio.code_rate, packet_bits, _SEED) for modulation in permitted(radio)
    )


def packet_error_table(
    modulation: Modulation, code_rate: float, packet_bits: int, seed: int
) -> PacketErrorTable:
    """Return a table from the cache on disk, or simulate it and put it there.

    Raises BadInput where there is no such code or the extra `phy` is missing.
    """
    cut(modulation, code_rate, packet_bits)  # what cannot be simulated is refused before anything else
    file = cache_folder() / (
        f"packet-errors-{_SIMULATION}-{modulation}-rate-{code_rate!r}-{packet_bits}-bits"
        f"-seed-{seed}-sionna-{_sionna_version()}.json"
    )
    try:
        return PacketErrorTable.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):  # not there yet, or broken: simulated anew
        table = simulate(modulation, code_rate, packet_bits, seed)
    try:
        _write(file, table.model_dump_json())
    except OSError as error:  # the table is right all the same
        _say(f"{file}: not written, so the next run simulates again ({error.strerror or error})")
    return table


def cut(modulation: Modulation, code_rate: float, packet_bits: int) -> Blocks:
    """Cut a packet into equal code blocks as TS 38.212 does (sections 5.2.2 and 7.2.2).

    Blocks have no CRC of their own: that of the packet finds whatever is wrong. Sionna repeats nothing,
    so base graph 1 ends at rate 1/3 instead of 1/4. Blocks and symbols are filled up. Raises BadInput
    for a rate that no code has.
    """
    if not _RATE_MIN <= code_rate <= _RATE_MAX:
        raise BadInput(
            f"radio.code_rate = {code_rate:g}: 5G LDPC codes have rates from {_RATE_MIN:g} to {_RATE_MAX:.3g}"
        )
    small = packet_bits <= 292 or (packet_bits <= 3824 and code_rate <= 0.67) or code_rate < 1 / 3
    num_blocks = ceil(packet_bits / (3840 if small else 8448))
    block_bits = ceil(packet_bits / num_blocks)
    bits_per_symbol = BITS_PER_SYMBOL[modulation]
    num_symbols = min(
        ceil(block_bits / code_rate / bits_per_symbol), int(block_bits / _RATE_MIN) // bits_per_symbol
    )
    return Blocks(num_blocks, block_bits, num_symbols * bits_per_symbol, "bg2" if small else "bg1")


def simulate(modulation: Modulation, code_rate: float, packet_bits: int, seed: int) -> PacketErrorTable:
    """Simulate a table: find where the loss falls, follow it down to all lost, then up to none lost.

    A packet meets the same noise at every point, only scaled. On the way up, one that arrived at the
    point below is taken to arrive again, which saves most of the work where few are lost.
    """
    from scipy.optimize import isotonic_regression  # a quarter of a second that no device is to start with

    blocks = cut(modulation, code_rate, packet_bits)
    link = CodedLink(modulation, blocks)
    enough = max(1, min(ENOUGH_PACKETS, ENOUGH_CODED_BITS // (blocks.num_blocks * blocks.coded_bits)))
    few = max(1, enough // 100)

    def measure(step: int, below: torch.Tensor) -> torch.Tensor:
        """Return the wrong bits of each packet at a point, given those at the point below (1: not known)."""
        with _simulating(seed):
            wrong_bits = link.send(step * STEP_DB, below > 0)
        lost, sent = int(wrong_bits.count_nonzero()), len(wrong_bits)
        _say(f"packet errors: {modulation} at {step * STEP_DB:g} dB: {lost} of {sent} packets lost")
        return wrong_bits

    first = last = _where_half_is_lost(lambda step: measure(step, torch.ones(few)))
    points = {first: measure(first, torch.ones(enough))}
    while not points[first].all():
        first -= 1
        points[first] = measure(first, torch.ones(enough))
    while points[last].any():
        below = torch.nn.functional.pad(points[last], (0, enough - len(points[last])), value=1)
        last += 1
        points[last] = measure(last, below)
    for below_db in BELOW_DB:
        step = first - round(below_db / STEP_DB)
        points[step] = measure(step, torch.ones(few))

    steps = sorted(points)
    wrong_bits = [points[step].numpy() for step in steps]
    losses = isotonic_regression(
        [np.mean(wrong > 0) for wrong in wrong_bits],
        weights=[len(wrong) for wrong in wrong_bits],
        increasing=False,
    ).x
    residual_ber: list[float] = []
    for wrong in wrong_bits:
        share = wrong[wrong > 0] / (blocks.num_blocks * blocks.block_bits)
        residual_ber.append(float(share.mean()) if len(share) else residual_ber[-1])
    return PacketErrorTable(
        modulation=modulation,
        code_rate=code_rate,
        packet_bits=packet_bits,
        snr_db=tuple(step * STEP_DB for step in steps),
        packet_loss=tuple(losses.tolist()),
        residual_ber=tuple(residual_ber),
        num_packets=tuple(len(wrong) for wrong in wrong_bits),
    )


def _where_half_is_lost(measure: Callable[[int], torch.Tensor]) -> int:
    """Bisect for the highest grid point at which at least half of a few packets is lost."""
    low, high = round(_LOWEST_DB / STEP_DB), round(_HIGHEST_DB / STEP_DB)
    while high - low > 1:
        middle = (low + high) // 2
        wrong_bits = measure(middle)
        if 2 * int(wrong_bits.count_nonzero()) >= len(wrong_bits):
            low = middle
        else:
            high = middle
    return low


class CodedLink:
    """Packets over a 5G LDPC code and AWGN; batches are decoded side by side, one on each processor."""

    def __init__(self, modulation: Modulation, blocks: Blocks) -> None:
        with _extra_phy():
            from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder
            from sionna.phy.mapping import BinarySource
        self._blocks = blocks
        self._source = BinarySource(device=_DEVICE)
        self._encoder = LDPC5GEncoder(
            blocks.block_bits,
            blocks.coded_bits,
            num_bits_per_symbol=BITS_PER_SYMBOL[modulation],
            bg=blocks.base_graph,
            device=_DEVICE,
        )
        self._decoder = LDPC5GDecoder(
            self._encoder, num_iter=_ITERATIONS_BETWEEN_CHECKS, return_state=True, device=_DEVICE
        )
        self._modem = _modem(modulation, hard_out=False)

    def send(self, snr_db: float, undecided: torch.Tensor) -> torch.Tensor:
        """Send packets at Es/N0 snr_db until enough are lost; return the wrong bits of each.

        undecided, shape (n,), says which to decode; the others count as right. Returns at most n.
        """
        coded_bits = self._blocks.num_blocks * self._blocks.coded_bits
        batches = torch.split(undecided, max(1, _BATCH_CODED_BITS // coded_bits))
        num_processors = len(os.sched_getaffinity(0))
        counted: list[torch.Tensor] = []
        num_lost = 0
        with ThreadPoolExecutor(num_processors) as pool:
            for start in range(0, len(batches), num_processors):
                # Bits and noise are drawn here, in order, so that they do not depend on the machine.
                received = [
                    self._transmit(snr_db, batch) for batch in batches[start : start + num_processors]
                ]
                for wrong_bits in pool.map(self._decode, received):
                    counted.append(wrong_bits)
                    num_lost += int(wrong_bits.count_nonzero())
                    if num_lost >= ENOUGH_LOST:
                        return torch.cat(counted)
        return torch.cat(counted)

    def _transmit(self, snr_db: float, undecided: torch.Tensor) -> Received:
        num_blocks = self._blocks.num_blocks
        bits = self._source([len(undecided) * num_blocks, self._blocks.block_bits])
        return Received(
            bits, self._modem(self._encoder(bits), snr_db), undecided.repeat_interleave(num_blocks)
        )

    def _decode(self, received: Received) -> torch.Tensor:
        """Decode the undecided blocks; return the wrong bits of each packet."""
        wrong_bits = torch.zeros(len(received.bits), dtype=torch.int64)
        todo, state = received.undecided.nonzero()[:, 0], None
        with torch.inference_mode():
            for _ in range(0, NUM_ITERATIONS, _ITERATIONS_BETWEEN_CHECKS):
                if not len(todo):
                    break
                decoded, state = self._decoder(received.llrs[todo], msg_v2c=state)
                errors = (decoded != received.bits[todo]).sum(dim=1)
                wrong_bits[todo] = errors
                # A block that is right stops there, as at a receiver that looks whether all parities hold.
                todo, state = todo[errors > 0], state[errors > 0]
        return wrong_bits.reshape(-1, self._blocks.num_blocks).sum(dim=1)


def uncoded_bit_error_rate(modulation: Modulation, snr_db: float, num_bits: int, seed: int) -> float:
    """Share of wrong hard decisions without a code at Es/N0 snr_db.

    num_bits must be a multiple of the bits per symbol.
    """
    with _extra_phy():
        from sionna.phy.mapping import BinarySource
    source, modem = BinarySource(device=_DEVICE), _modem(modulation, hard_out=True)
    bits_per_symbol, num_wrong = BITS_PER_SYMBOL[modulation], 0
    with _simulating(seed):
        for symbols in torch.split(torch.arange(num_bits // bits_per_symbol), _BATCH_SYMBOLS):
            bits = source([len(symbols) * bits_per_symbol])
            num_wrong += int((modem(bits, snr_db) != bits).sum())
    return num_wrong / num_bits


def _modem(modulation: Modulation, *, hard_out: bool) -> Modem:
    with _extra_phy():
        from sionna.phy.channel import AWGN
        from sionna.phy.mapping import Demapper, Mapper
    kind, bits_per_symbol = "pam" if modulation == "bpsk" else "qam", BITS_PER_SYMBOL[modulation]
    mapper = Mapper(kind, bits_per_symbol, device=_DEVICE)
    awgn = AWGN(device=_DEVICE)
    demapper = Demapper("app", kind, bits_per_symbol, hard_out=hard_out, device=_DEVICE)

    def pass_through(bits: torch.Tensor, snr_db: float) -> torch.Tensor:
        n0 = 10 ** (-snr_db / 10)  # symbols have unit energy
        demapped: torch.Tensor = demapper(awgn(mapper(bits), n0), n0)
        return demapped

    return pass_through


@contextmanager
def _simulating(seed: int) -> Iterator[None]:
    """Seed Sionna's generators and keep each thread to one processor; at the end torch is as it was."""
    with _extra_phy():
        from sionna.phy import config
    num_threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        config.seed = seed  # seeds torch's global generator too
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(num_threads)


@contextmanager
def _extra_phy() -> Iterator[None]:
    """Say in one line what an import of Sionna misses."""
    with torch.random.fork_rng(devices=[]):  # it seeds torch's global generator
        try:
            yield
        except ImportError as error:
            raise BadInput(
                "radio.packet_errors = sionna: needs the extra phy; install hearsay[phy]"
            ) from error


def _sionna_version() -> str:
    with _extra_phy():
        import sionna
    return str(sionna.__version__)


def _write(file: Path, text: str) -> None:
    """Write a file so that others see all of it or nothing; raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, prefix=".", delete=False) as draft:
        draft.write(text)
    Path(draft.name).replace(file)


def _say(line: str) -> None:
    sys.stderr.write(f"node: {line}\n")
