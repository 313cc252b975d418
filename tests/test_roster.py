"""The roster as a state machine: events in, instructions out, no sockets and no clock."""

import pytest
from builders import make_ready, make_report

from coordinator.network import lay_out
from coordinator.roster import Phase, Roster
from protocol.config import Experiment, Graph, Runtime
from protocol.errors import BadInput, RunError
from protocol.messages import (
    Bye,
    Done,
    Failed,
    Hello,
    NeighbourDied,
    Refuse,
    Start,
    Stop,
    Welcome,
)
from protocol.packet_errors import PacketErrorTable


def roster(devices=4, kind="ring", **sections):
    experiment = Experiment(devices=devices, rounds=3, graph=Graph(kind=kind), **sections)
    return Roster(experiment, "run-1", "/nowhere", lay_out(experiment))


def done(device, rounds=3):
    return Done(run_id="run-1", device=device, rounds=rounds, parameters="")


def started(devices=4, kind="ring", **sections):
    """Return a roster whose devices 0..n-1, at peers b"0".., are all running since 0 s."""
    it = roster(devices, kind, **sections)
    for device in range(devices):
        it.hear(b"%d" % device, Hello(pid=100 + device, host="h"), 0.0)
    for device in range(devices):
        it.hear(b"%d" % device, make_ready(device), 0.0)
    assert it.phase is Phase.RUNNING
    return it


def said(tells):
    return [(tell.peer, type(tell.message)) for tell in tells]


def test_a_process_started_anew_before_the_start_is_the_device_it_was():
    it = roster(3)
    for device in range(3):
        it.hear(b"%d" % device, Hello(pid=1, host=f"container-{device}"), 0.0)
    it.hear(b"1", make_ready(1), 0.0)
    [tell] = it.hear(b"again", Hello(pid=1, host="container-1"), 5.0)
    assert isinstance(tell.message, Welcome)
    assert (tell.message.device, tell.message.incarnation) == (1, 1)
    assert it.hear(b"1", make_ready(1), 5.0) == []  # what the former one said comes too late
    for device, peer in ((0, b"0"), (2, b"2")):
        assert it.hear(peer, make_ready(device), 5.0) == []
    tells = it.hear(b"again", make_ready(1), 5.0)
    assert said(tells) == [(b"0", Start), (b"again", Start), (b"2", Start)]
    assert [n.incarnation for n in tells[0].message.neighbours] == [1, 0]


def test_a_process_started_anew_in_the_run_tells_that_its_device_is_dead():
    it = started(4)
    refusal, *deaths = it.hear(b"again", Hello(pid=101, host="h"), 5.0)
    assert isinstance(refusal.message, Refuse)
    assert said(deaths) == [(b"0", NeighbourDied), (b"2", NeighbourDied)]
    assert it.members[1].lost == "its process was started anew"


def test_a_device_is_the_one_that_it_asks_to_be_if_that_is_free():
    it = roster(3)
    [tell] = it.hear(b"2", Hello(pid=1, host="a", rank=2), 0.0)
    assert tell.message.device == 2
    for number, reason in (
        (2, "device 2 of run run-1 is taken"),
        (3, "device 3 of run run-1 is none"),
    ):
        [tell] = it.hear(b"x", Hello(pid=1, host="b", rank=number), 0.0)
        assert isinstance(tell.message, Refuse)
        assert reason in tell.message.reason
    others = [it.hear(b"%d" % device, Hello(pid=2 + device, host="c"), 0.0) for device in range(2)]
    assert [tell.message.device for [tell] in others] == [0, 1]


def test_a_device_lost_before_the_start_is_named_whoever_else_has_come():
    it = roster(3)
    it.hear(b"2", Hello(pid=1, host="a", rank=2), 0.0)
    with pytest.raises(RunError, match="device 2 was lost before the start: gone"):
        it.lose(2, "gone")


def test_devices_that_share_a_process_are_not_taken_for_each_other():
    it = roster(2, transport={"kind": "memory"})
    for device in range(2):
        [tell] = it.hear(b"%d" % device, Hello(pid=1, host="h"), 0.0)
        assert tell.message.device == device


def test_devices_are_numbered_as_they_come_and_start_when_the_last_is_ready():
    it = roster(3)
    for device in range(3):
        [tell] = it.hear(b"%d" % device, Hello(pid=device, host="h"), 0.0)
        assert isinstance(tell.message, Welcome)
        assert tell.message.device == device
    assert it.hear(b"2", make_ready(2), 0.0) == []
    assert it.hear(b"0", make_ready(0), 0.0) == []
    tells = it.hear(b"1", make_ready(1), 0.0)
    assert said(tells) == [(b"0", Start), (b"1", Start), (b"2", Start)]
    row = tells[0].message.neighbours
    assert [n.device for n in row] == [1, 2]
    assert [n.address for n in row] == ["tcp://host:1", "tcp://host:2"]
    assert [n.weight for n in row] == pytest.approx([1 / 3, 1 / 3])


def starts(it):
    """Let every device of a roster come and be ready; return what each is told at the start."""
    for device in range(it.experiment.devices):
        it.hear(b"%d" % device, Hello(pid=device, host="h"), 0.0)
    for device in range(it.experiment.devices):
        tells = it.hear(b"%d" % device, make_ready(device), 0.0)
    return [tell.message for tell in tells]


def test_the_start_tells_a_device_its_place_in_the_grid_and_those_of_its_neighbours():
    table = PacketErrorTable(
        modulation="qpsk",
        code_rate=0.5,
        packet_bits=100,
        snr_db=(0.0,),
        packet_loss=(1.0,),
        residual_ber=(0.5,),
        num_packets=(10,),
    )
    it = roster(5, "star", radio={"snr": "given", "snr_db": 12.5})
    it.packet_errors = (table,)
    told = starts(it)
    # A star: everybody is within two hops of everybody, so each device has a slot of its own.
    assert [start.slot for start in told] == [0, 1, 2, 3, 4]
    assert {(start.num_slots, start.max_degree) for start in told} == {(5, 4)}
    places_m = [it.network.graph.nodes[device]["position_m"] for device in range(5)]
    assert [start.position_m for start in told] == places_m
    assert all(start.packet_errors == (table,) for start in told)
    hub, *leaves = told
    assert [(n.slot, n.turn, n.position_m) for n in hub.neighbours] == [
        (leaf, 0, places_m[leaf]) for leaf in (1, 2, 3, 4)
    ]
    # The turn is the neighbour's own count of this device: the hub's neighbours are 1, 2, 3 and 4.
    assert [(n.slot, n.turn, n.position_m) for leaf in leaves for n in leaf.neighbours] == [
        (0, turn, places_m[0]) for turn in range(4)
    ]
    assert {(n.mean_snr_db, n.mean_snr_there_db) for start in told for n in start.neighbours} == {
        (12.5, 12.5)
    }


def test_the_start_tells_both_directions_of_a_link():
    """Device 1 sends with 20 dB more than device 0, so it is heard better than it hears."""
    told = starts(roster(2, "complete", radio={"tx_power_dbm": (0, 20)}))
    [at_zero], [at_one] = (start.neighbours for start in told)
    assert at_zero.mean_snr_db - at_zero.mean_snr_there_db == pytest.approx(20)
    assert (at_one.mean_snr_there_db, at_one.mean_snr_db) == (at_zero.mean_snr_db, at_zero.mean_snr_there_db)


def test_each_device_is_told_only_its_neighbours_and_isolated_ones_nobody():
    it = roster(5, "star")
    for device in range(5):
        it.hear(b"%d" % device, Hello(pid=device, host="h"), 0.0)
    for device in range(4):
        it.hear(b"%d" % device, make_ready(device), 0.0)
    tells = it.hear(b"4", make_ready(4), 0.0)
    assert [[n.device for n in t.message.neighbours] for t in tells] == [[1, 2, 3, 4], [0], [0], [0], [0]]
    alone = started(5, "star", aggregation={"scheme": "isolated"})
    assert alone.phase is Phase.RUNNING


def test_the_door_refuses_another_protocol_and_one_device_too_many():
    it = roster(2, "complete")
    [tell] = it.hear(b"x", Hello(protocol=99, pid=1, host="h"), 0.0)
    assert isinstance(tell.message, Refuse)
    assert "99" in tell.message.reason
    assert not it.members
    for device in range(2):
        it.hear(b"%d" % device, Hello(pid=device, host="h"), 0.0)
    [tell] = it.hear(b"y", Hello(pid=9, host="h"), 0.0)
    assert isinstance(tell.message, Refuse)
    assert "has its 2 devices" in tell.message.reason


def test_a_run_does_not_start_on_unequal_models_or_failures():
    it = roster(2, "complete")
    for device in range(2):
        it.hear(b"%d" % device, Hello(pid=device, host="h"), 0.0)
    it.hear(b"0", make_ready(0), 0.0)
    with pytest.raises(RunError, match="different models"):
        it.hear(b"1", make_ready(1, schema_hash="b"), 0.0)
    with pytest.raises(BadInput, match="too few"):
        it.hear(b"1", Failed(reason="too few samples", bad_input=True), 0.0)
    with pytest.raises(RunError, match="boom"):
        it.hear(b"1", Failed(reason="boom"), 0.0)
    with pytest.raises(RunError, match="before the start"):
        it.lose(1, "killed")


def test_a_death_is_told_to_living_neighbours_once():
    it = started(4)
    assert said(it.lose(1, "killed")) == [(b"0", NeighbourDied), (b"2", NeighbourDied)]
    assert it.lose(1, "killed") == []
    assert said(it.lose(2, "killed")) == [(b"3", NeighbourDied)]
    assert it.hear(b"1", make_report(1, 2), 1.0) == []  # the dead do not report
    assert it.members[1].rounds == 0


def test_the_run_is_over_when_everybody_is_done_or_lost():
    it = started(3)
    assert it.hear(b"0", done(0), 1.0) == []
    it.lose(2, "killed")
    tells = it.hear(b"1", done(1), 1.0)
    assert said(tells) == [(b"0", Bye), (b"1", Bye)]
    assert it.phase is Phase.OVER


def test_a_failure_while_running_is_a_death_with_its_reason():
    it = started(3)
    assert said(it.hear(b"1", Failed(reason="out of memory"), 1.0)) == [
        (b"0", NeighbourDied),
        (b"2", NeighbourDied),
    ]
    assert it.members[1].lost == "out of memory"
    it.lose(0, "x")
    it.lose(2, "x")
    assert it.phase is Phase.OVER


def test_a_device_that_leaves_early_is_lost_unless_all_were_told_to_stop():
    it = started(3)
    tells = it.hear(b"1", done(1, rounds=2), 1.0)
    assert said(tells) == [(b"1", Bye), (b"0", NeighbourDied), (b"2", NeighbourDied)]
    assert it.members[1].lost == "left after 2 rounds"
    it.stop()
    assert it.hear(b"0", done(0, rounds=1), 1.0) == []
    assert it.members[0].done


def test_gathering_has_a_deadline_of_its_own():
    it = roster(2, "complete", runtime=Runtime(liveness_wall_s=1))
    it.hear(b"0", Hello(pid=1, host="h"), 0.0)
    it.hear(b"0", make_ready(0), 0.0)
    assert it.overdue(100.0) == []
    it.hear(b"1", Hello(pid=2, host="h"), 100.0)
    it.hear(b"1", make_ready(1), 100.0)
    assert it.phase is Phase.RUNNING
    assert it.overdue(101.0) == []  # the wait for the others was no silence


def test_silence_for_twice_the_liveness_time_is_overdue():
    it = started(3, runtime=Runtime(liveness_wall_s=10))
    it.hear(b"0", make_report(0, 0), 15.0)
    it.hear(b"1", done(1), 1.0)
    assert it.overdue(20.0) == []
    assert it.overdue(20.1) == [2]  # 0 was heard at 15, and nothing more is expected of 1
    assert it.overdue(35.1) == [0, 2]


def test_stop_reaches_whoever_is_active():
    it = started(3)
    it.hear(b"1", done(1), 1.0)
    it.lose(2, "killed")
    assert said(it.stop()) == [(b"0", Stop)]
    assert it.stopped


def test_strangers_are_ignored():
    it = started(2, "complete")
    assert it.hear(b"?", make_report(0, 7), 1.0) == []
    assert it.members[0].rounds == 0


def of_rank(rank, world_size=3):
    return Hello(pid=10 + rank, host="h", rank=rank, world_size=world_size)


@pytest.mark.parametrize("kind", ["zmq", "gloo"])
def test_who_was_started_by_torchrun_is_the_device_of_its_rank(kind):
    it = roster(3, transport={"kind": kind})
    for rank in (2, 0, 1):
        [tell] = it.hear(b"%d" % rank, of_rank(rank), 0.0)
        assert (tell.message.device, tell.message.incarnation) == (rank, 0)
    assert [member.device for member in it.members] == [0, 1, 2]
    for rank in (1, 2):
        assert it.hear(b"%d" % rank, make_ready(rank, address=""), 0.0) == []
    tells = it.hear(b"0", make_ready(0, address="here:5"), 0.0)
    assert said(tells) == [(b"0", Start), (b"1", Start), (b"2", Start)]
    assert {tell.message.rendezvous for tell in tells} == {"here:5" if kind == "gloo" else ""}


def test_torchrun_with_another_number_of_processes_ends_the_run_before_it_begins():
    it = roster(3)
    with pytest.raises(
        BadInput, match=r"started 2 processes, and this run needs 3: start so many \(--nnodes"
    ):
        it.hear(b"0", of_rank(0, world_size=2), 0.0)
    memory = roster(3, transport={"kind": "memory"})
    with pytest.raises(BadInput, match="started 3 processes, and this run needs 1"):
        memory.hear(b"0", of_rank(0), 0.0)
    [tell] = memory.hear(b"0", of_rank(0, world_size=1), 0.0)
    assert tell.message.device == 0


def test_a_torchrun_that_comes_too_late_is_only_refused():
    it = started(3)
    [tell] = it.hear(b"late", of_rank(1, world_size=2), 5.0)
    assert isinstance(tell.message, Refuse)
    assert all(member.active for member in it.members)


def test_ranks_started_anew_before_the_start_are_the_devices_they_were():
    it = roster(3)
    for rank in (2, 1):
        it.hear(b"%d" % rank, of_rank(rank), 0.0)
    [tell] = it.hear(b"again", of_rank(2).model_copy(update={"pid": 99}), 1.0)
    assert (tell.message.device, tell.message.incarnation) == (2, 1)


def test_in_step_the_loss_of_one_is_the_end_of_all():
    it = started(4, transport={"kind": "gloo"})
    tells = it.lose(2, "killed by SIGKILL")
    failure = "device 2: killed by SIGKILL; over gloo nobody goes on without it"
    assert [(tell.peer, tell.message) for tell in tells] == [
        (peer, Stop(failure=failure)) for peer in (b"0", b"1", b"3")
    ]
    assert (it.phase, it.failure) == (Phase.OVER, failure)
    assert it.hear(b"1", Failed(reason="device 2 has gone"), 1.0) == []  # that is known
    assert it.failure == failure


def test_in_step_who_leaves_before_the_end_ends_the_run_unless_all_were_told_to():
    it = started(3, transport={"kind": "gloo"})
    assert said(it.hear(b"1", done(1, rounds=2), 1.0)) == [(b"1", Bye), (b"0", Stop), (b"2", Stop)]
    assert "device 1: left after 2 rounds" in it.failure
    it = started(3, transport={"kind": "gloo"})
    it.stop()
    assert it.hear(b"1", done(1, rounds=2), 1.0) == []
    assert said(it.lose(0, "did not stop in time")) == [(b"2", NeighbourDied)]
    assert not it.failure


def test_every_device_is_told_its_gpu_at_the_door():
    it = roster(3)
    it.gpus = (1, None, "seen")
    told = [it.hear(b"%d" % n, Hello(pid=n, host="h"), 0.0)[0].message.gpu for n in range(3)]
    assert told == [1, None, "seen"]
    [again] = it.hear(b"again", Hello(pid=0, host="h"), 1.0)
    assert again.message.gpu == 1
    assert roster(1).hear(b"0", Hello(pid=1, host="h"), 0.0)[0].message.gpu is None
