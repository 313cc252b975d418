"""The way to the coordinator, against a real ROUTER: the door, the news, and a coordinator that goes away."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic

import pytest
import zmq
from builders import make_neighbour, make_report, make_start

from node.control import Control, Leave
from node.place import Ranked
from protocol.config import Experiment, Runtime
from protocol.errors import BadInput, RunError
from protocol.messages import (
    PROTOCOL_VERSION,
    Bye,
    Done,
    Hello,
    NeighbourDied,
    Refuse,
    Stop,
    Welcome,
    from_device,
    pack,
)

PATIENCE_S = 20.0
"""Deadline of every wait that is expected to end by itself."""
WELCOME = Welcome(
    run_id="run-1",
    epoch=0,
    device=3,
    incarnation=1,
    experiment=Experiment(runtime=Runtime(coordinator_grace_s=0.2)),
    run_dir="out",
)
START = make_start(make_neighbour(1, address="tcp://a:1"))
REPORT = make_report(3)
DEATH = NeighbourDied(device=1, incarnation=0)


class Desk:
    """A coordinator's socket with nobody behind it but the test."""

    def __init__(self, router):
        self.router = router
        self.url = router.get_string(zmq.LAST_ENDPOINT)
        self.guest = b""

    def hear(self):
        assert self.router.poll(round(1000 * PATIENCE_S)), "the device said nothing"
        self.guest, message, *binary = self.router.recv_multipart()
        return from_device(message), binary

    def say(self, *messages):
        for message in messages:
            self.router.send_multipart([self.guest, message if isinstance(message, bytes) else pack(message)])

    def answer(self, *messages):
        """Take a Hello and answer it."""
        hello, _ = self.hear()
        self.say(*messages)
        return hello


@contextmanager
def desk_at(context, address):
    with context.socket(zmq.ROUTER) as router:
        router.set(zmq.LINGER, 0)
        router.bind(address)
        yield Desk(router)


@pytest.fixture
def context():
    """Yield a ZeroMQ context; that it ends at all shows that no socket was left open."""
    with zmq.Context() as context:
        yield context


@pytest.fixture
def desk(context):
    """Yield a coordinator's socket."""
    with desk_at(context, "tcp://127.0.0.1:*") as desk:
        yield desk


@pytest.fixture
def terminated():
    """Return what SIGTERM sets."""
    return threading.Event()


@pytest.fixture
def control(context, desk, terminated):
    """Yield a connection to the desk."""
    with Control.open(context, desk.url, terminated) as control:
        yield control


@pytest.fixture
def joined(desk, control):
    """Yield a connection that has been welcomed."""
    join(desk, control, WELCOME)
    return control


def join(desk, control, *answers):
    """Let a device knock while the desk answers; return what join returned and the Hello it came with."""
    with ThreadPoolExecutor(1) as pool:
        hello = pool.submit(desk.answer, *answers)
        welcome = control.join(PATIENCE_S)
        return welcome, hello.result(PATIENCE_S)


def until(condition):
    """Poll until a condition holds; False when patience is at its end."""
    deadline, pause = monotonic() + PATIENCE_S, threading.Event()
    while not condition():
        if monotonic() > deadline:
            return False
        pause.wait(0.005)
    return True


def news_of(control):
    """Wait for news; an exception ends the wait, too."""
    news = []
    assert until(lambda: news.extend(control.news()) or news)
    return news


def test_join_says_hello_and_is_told_who_it_is(desk, control):
    welcome, hello = join(desk, control, WELCOME)
    assert welcome == WELCOME
    assert hello == Hello(pid=os.getpid(), host=hello.host)
    assert hello.protocol == PROTOCOL_VERSION
    assert hello.host
    assert not control.absent
    assert control.grace_s == WELCOME.experiment.runtime.coordinator_grace_s


def test_who_was_started_by_torchrun_says_its_number(desk, control):
    with ThreadPoolExecutor(1) as pool:
        hello = pool.submit(desk.answer, WELCOME)
        control.join(PATIENCE_S, Ranked(rank=3, world_size=8, local_rank=1))
        hello = hello.result(PATIENCE_S)
    assert (hello.rank, hello.world_size) == (3, 8)


def test_a_failed_run_is_no_reason_to_write_anything(desk, joined):
    desk.say(Stop(failure="device 2: killed"))
    with pytest.raises(RunError, match=r"^device 2: killed$"):
        news_of(joined)


def test_a_refusal_is_bad_input_with_the_reason(desk, control):
    with pytest.raises(BadInput, match=r"refused: the run is full") as refused:
        join(desk, control, Refuse(reason="the run is full"))
    assert desk.url in str(refused.value)


@pytest.mark.parametrize("answer", [START, Stop(), DEATH], ids=lambda message: message.kind)
def test_another_answer_to_hello_is_a_failed_run(desk, control, answer):
    with pytest.raises(RunError, match=f"answered Hello with {answer.kind}"):
        join(desk, control, answer)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK", b'{"kind": "welcome"}', b"\xff" * 100])
def test_a_message_of_another_protocol_is_a_failed_run(desk, control, answer):
    with pytest.raises(RunError, match=f"does not speak protocol {PROTOCOL_VERSION}"):
        join(desk, control, answer)


def test_a_message_of_another_protocol_later_on_is_one_too(desk, joined):
    desk.say(b'{"kind": "hello"}')
    with pytest.raises(RunError, match="does not speak protocol"):
        news_of(joined)


def test_nobody_there_is_bad_input_that_names_the_url_in_good_time(context, terminated):
    with desk_at(context, "tcp://127.0.0.1:*") as desk:
        url = desk.url  # nobody will be there in a moment
    began = monotonic()
    with Control.open(context, url, terminated) as control:
        with pytest.raises(BadInput, match=r"within 0\.1 s") as missed:
            control.join(0.1)
        assert url in str(missed.value)
        assert control.absent
    assert 0.09 < monotonic() - began < PATIENCE_S  # and what it could not say does not hold it back


def test_somebody_there_who_says_nothing_is_nobody(desk, control):
    with pytest.raises(BadInput, match="no coordinator answered"):
        control.join(0.1)


def test_a_host_that_nobody_is_called_is_refused_long_before_the_deadline(monkeypatch):
    monkeypatch.setattr("node.control.NAME_WALL_S", 0.1)
    with (
        zmq.Context() as context,
        Control.open(context, "tcp://nobody.invalid:5555", threading.Event()) as control,
        pytest.raises(BadInput, match=r"tcp://nobody.invalid:5555: no host is called nobody.invalid"),
    ):
        control.join(PATIENCE_S)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:5555",
        "http://127.0.0.1:5555",
        "inproc://here",
        "tcp://",
        "tcp://127.0.0.1",
        "tcp://::::",
        "tcp://127.0.0.1:port",
        "tcp://127.0.0.1:-1",
    ],
)
def test_an_address_that_is_none_is_bad_input(context, terminated, url):
    with pytest.raises(BadInput) as refused, Control.open(context, url, terminated):
        pytest.fail("opened")
    assert f"--coordinator {url}: " in str(refused.value)
    assert "tcp://HOST:PORT" in str(refused.value)


def test_own_address_is_the_one_on_the_way_to_the_coordinator(control):
    assert control.own_address() == "127.0.0.1"


def test_a_report_carries_its_sample_behind_it(desk, joined):
    joined.report(REPORT, b"sample")
    assert desk.hear() == (REPORT, [b"sample"])


def test_sending_never_waits_for_a_coordinator_that_is_away(desk, joined):
    desk.router.close()
    assert until(lambda: joined.absent)
    done = Done(run_id="run-1", device=3, rounds=2, parameters="here")
    sent = 0
    while joined.send(done):
        sent += 1
        assert sent < 10_000


def test_waits_for_the_start(desk, joined):
    desk.say(START)
    assert joined.wait_for_start(PATIENCE_S) == START


@pytest.mark.parametrize("message", [Stop(), Bye()], ids=lambda message: message.kind)
def test_a_stop_before_the_start_is_to_leave(desk, joined, message):
    desk.say(message)
    with pytest.raises(Leave, match="before the start"):
        joined.wait_for_start(PATIENCE_S)


def test_a_start_that_does_not_come_is_a_failed_run(joined):
    with pytest.raises(RunError, match=r"within 0\.1 s"):
        joined.wait_for_start(0.1)


def test_a_coordinator_that_goes_away_before_the_start_is_not_waited_for(desk, joined):
    desk.router.close()
    with pytest.raises(Leave, match="away"):
        joined.wait_for_start(PATIENCE_S)


def test_news_are_the_deaths_since_the_last_call(desk, joined):
    assert joined.news() == []
    desk.say(DEATH)
    assert news_of(joined) == [DEATH]
    assert joined.news() == []


@pytest.mark.parametrize("message", [Stop(), Bye()], ids=lambda message: message.kind)
def test_news_to_stop_is_to_leave(desk, joined, message):
    desk.say(DEATH, message)
    with pytest.raises(Leave, match="told to stop"):
        until(lambda: joined.news() and False)


def test_a_message_wakes_whoever_polls_the_socket(desk, joined):
    desk.say(DEATH)
    assert joined.socket.poll(round(1000 * PATIENCE_S))


def test_a_wait_ends_with_a_message_and_leaves_it_there(desk, joined):
    """So that a device that keeps a paced clock hears the coordinator at once."""
    desk.say(DEATH)
    began = monotonic()
    joined.wait(10 * PATIENCE_S)
    assert monotonic() - began < PATIENCE_S
    assert joined.news() == [DEATH]


def test_a_wait_ends_when_time_is_up_and_not_before(joined):
    for wall_s in (0.0, 0.05):
        began = monotonic()
        joined.wait(wall_s)
        assert wall_s - 0.001 < monotonic() - began < PATIENCE_S  # ZeroMQ's clock counts whole milliseconds


@pytest.mark.parametrize("wait", [Control.check, Control.news, lambda control: control.join(PATIENCE_S)])
def test_a_terminated_process_leaves(desk, joined, terminated, wait):
    terminated.set()
    with pytest.raises(Leave, match="terminated"):
        wait(joined)


def test_a_terminated_process_does_not_wait_for_the_start(joined, terminated):
    terminated.set()
    with pytest.raises(Leave, match="terminated"):
        joined.wait_for_start(PATIENCE_S)


def test_an_absent_coordinator_is_borne_for_the_grace_and_no_longer(desk, joined):
    joined.check()
    desk.router.close()
    assert until(lambda: joined.absent)
    joined.grace_s = float("inf")
    joined.check()
    assert joined.news() == []
    joined.grace_s = 0.2
    with pytest.raises(Leave, match="the coordinator has been away for"):
        until(joined.check)  # it counts from the going, not from the last look


def test_a_coordinator_that_comes_back_in_time_is_there_again(context, desk, joined):
    joined.grace_s = float("inf")
    desk.router.close()
    assert until(lambda: joined.absent)
    with desk_at(context, desk.url) as again:
        assert until(lambda: not joined.absent)
        joined.grace_s = 0.0
        joined.check()
        done = Done(run_id="run-1", device=3, rounds=2, parameters="here")
        joined.send(done)
        assert again.hear() == (done, [])


def test_bye_ends_the_wait_for_it(desk, joined):
    desk.say(DEATH, Bye())
    joined.wait_for_bye()
    assert joined.news() == []  # both were read


def test_the_wait_for_bye_ends_with_the_coordinator(desk, joined):
    joined.grace_s = float("inf")
    desk.router.close()
    joined.wait_for_bye()
    assert joined.absent


def test_the_wait_for_bye_ends_when_terminated(joined, terminated):
    terminated.set()
    joined.wait_for_bye()


def test_last_words_leave_after_closing(context, desk, terminated):
    done = Done(run_id="run-1", device=3, rounds=2, parameters="here")
    burden = bytes(20_000_000)  # more than the system takes in at once
    with ThreadPoolExecutor(1) as pool:
        with Control.open(context, desk.url, terminated) as control:
            join(desk, control, WELCOME)
            control.report(REPORT, burden)
            control.send(done)
        heard = pool.submit(lambda: [desk.hear(), desk.hear()])
        assert heard.result(PATIENCE_S) == [(REPORT, [burden]), (done, [])]


def test_reports_that_follow_each_other_quickly_share_a_message(desk, joined, monkeypatch):
    monkeypatch.setattr("node.control.REPORT_WALL_S", 1000.0)
    for _ in range(3):
        joined.report(REPORT, b"0123")
    joined.send(Done(run_id="run-1", device=3, rounds=3, parameters="here"))
    first, second, (done, _) = desk.hear(), desk.hear(), desk.hear()
    assert first == (REPORT, [b"0123"])  # at once: nothing had been said for long
    assert second == (REPORT, [b"0123", pack(REPORT), b"0123"])  # before Done overtakes them
    assert done.kind == "done"
