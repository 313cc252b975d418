"""torch.distributed as a transport, as far as one process tells; test_transport_core.py has the contract."""

import re
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from builders import make_start
from conftest import parameters
from devices import complete, experiment_of, start_of

from node.place import Place, Ranked
from node.transport import torchdist
from node.transport.torchdist import ENVELOPE_BYTES, INLINE_BYTES, TorchTransport
from node.transport.transport import Parted
from node.transport.zmq import Outgoing
from protocol.config import Runtime, Transport
from protocol.errors import EXIT_BAD_INPUT, RunError
from protocol.frame import HEADER_BYTES
from protocol.radio import Radio

WIRE = Path(__file__).parents[1] / "docs" / "wire.md"
HERE = Place("127.0.0.1")


def experiment_over(kind, **runtime):
    usual = experiment_of(Radio(), devices=2)
    return usual.model_copy(update={"transport": Transport(kind=kind), "runtime": Runtime(**runtime)})


def test_envelopes_lie_as_the_page_says():
    """Written by us, read as docs/wire.md has it."""
    text = WIRE.read_text(encoding="utf-8").partition("### Over torch.distributed")[2].partition("\n###")[0]
    rows = re.findall(r"^\| (\d+) \| (\d+) \| \w* ?\| ?([a-z ]*?) ?\|", text, re.MULTILINE)
    offsets = {name: int(offset) for offset, _, name in rows}
    sizes = [int(size) for _, size, _ in rows]
    assert [int(offset) for offset, *_ in rows] == [sum(sizes[:n]) for n in range(len(rows))]
    assert f"{sum(sizes)} bytes" in text
    assert (sum(sizes), sizes[-1]) == (ENVELOPE_BYTES, INLINE_BYTES)
    header, payload = bytes(range(HEADER_BYTES)), np.arange(100, dtype=np.uint8)
    envelope = torchdist._envelope((header, Outgoing(payload))).tobytes()
    assert envelope[offsets["frame"]] == 1
    assert envelope[offsets["header bytes"]] == HEADER_BYTES
    at = offsets["payload bytes"]
    assert int.from_bytes(envelope[at : at + 4], "little") == 100
    assert envelope[offsets["header"] :].startswith(header)
    assert envelope[offsets["payload"] :] == payload.tobytes() + bytes(INLINE_BYTES - 100)
    large = torchdist._envelope((header, Outgoing(np.ones(INLINE_BYTES + 1, dtype=np.uint8)))).tobytes()
    assert not any(large[offsets["payload"] :])
    assert not any(torchdist._envelope(None))


def test_who_does_not_come_is_not_waited_for_for_ever():
    with TorchTransport.open(experiment_over("gloo", join_wall_s=0.5), 0, HERE, frame_bytes=99) as transport:
        start = start_of(complete(2), 0).model_copy(update={"rendezvous": transport.address})
        with pytest.raises(RunError, match=rf"^the devices did not meet at {transport.address}: .*$"):
            transport.meet(start, tuple)
    assert not dist.is_initialized()


def test_a_place_to_meet_that_is_not_there_is_not_waited_for_for_ever():
    with TorchTransport.open(experiment_over("gloo", join_wall_s=0.5), 1, HERE, frame_bytes=99) as transport:
        start = start_of(complete(2), 1).model_copy(update={"rendezvous": "127.0.0.1:9"})
        with pytest.raises(RunError, match=r"^the devices did not meet at 127.0.0.1:9: .*$"):
            transport.meet(start, tuple)


def test_who_has_no_neighbours_meets_nobody():
    with TorchTransport.open(experiment_over("gloo"), 0, HERE, frame_bytes=99) as transport:
        transport.meet(make_start(), tuple)
        assert not dist.is_initialized()
        assert not transport.send(1, b"h", Outgoing(np.empty(0, dtype=np.uint8)))
        transport.settle()
        with pytest.raises(Parted, match="device 1 died"):
            transport.forget(1)


def test_only_rank_0_opens_a_place_to_meet_and_not_under_torchrun():
    among = Place("127.0.0.1", Ranked(rank=0, world_size=2, local_rank=0))
    places = {(0, HERE): r"127\.0\.0\.1:\d+", (1, HERE): "", (0, among): ""}
    for (rank, place), address in places.items():
        with TorchTransport.open(experiment_over("gloo"), rank, place, frame_bytes=99) as transport:
            assert re.fullmatch(address, transport.address)


def test_nothing_is_allocated_for_a_frame_of_impossible_size(monkeypatch):
    with TorchTransport.open(experiment_over("gloo"), 1, HERE, frame_bytes=1000) as transport:
        envelope = torchdist._envelope(None)
        envelope[:8] = np.frombuffer(torchdist._SIZES.pack(True, HEADER_BYTES, 4001), dtype=np.uint8)
        monkeypatch.setattr(transport, "_awaited", lambda: [0])
        monkeypatch.setattr(transport, "_pass", lambda *_: {0: envelope})
        monkeypatch.setattr(transport, "_queues", {0: deque()})
        with pytest.raises(RunError, match="device 0 announces a frame of 4001 bytes"):
            transport.receive(1.0)


@pytest.mark.processes
def test_a_run_without_the_gpus_leaves_nothing(shell, small, tmp_path):
    """No host of this project's tests has as many."""
    settings = ("transport.kind=nccl", "devices=1000", "resources.gpus=auto")
    overrides = [part for setting in settings for part in ("--set", setting)]
    code, _, stderr = shell("run", small, *overrides, "--out", tmp_path / "run")
    assert code == EXIT_BAD_INPUT
    refused = (
        r"transport\.kind = nccl: each device needs a GPU of its own, and this host has \d+ for 1000; use "
    )
    assert re.fullmatch(rf"hearsay: {refused}zmq or gloo\n", stderr)
    assert not (tmp_path / "run").exists()


@pytest.mark.gpu
@pytest.mark.processes
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="nccl needs a GPU for each of two devices")
@pytest.mark.parametrize("radio", [(), ("radio.arq=selective_repeat",)], ids=["digital", "arq"])
def test_a_run_over_nccl_is_the_same_bit_for_bit(whole_run, radio):
    # 256 hidden units: frames too large for an envelope, so that they do go from GPU to GPU.
    settings = (*radio, "devices=2", "graph.kind=complete", "model.hidden=[256]", "resources.gpus=all")
    zmq, nccl = whole_run(*settings), whole_run(*settings, "transport.kind=nccl")
    mine, theirs = parameters(nccl.out), parameters(zmq.out)
    assert len(mine) == 2
    assert all((mine[name] == theirs[name]).all() for name in theirs)
    assert nccl.summary["packets_resent"] == zmq.summary["packets_resent"]
