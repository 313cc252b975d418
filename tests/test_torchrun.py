"""Devices that torchrun starts: their numbers are their ranks, and they meet where it says."""

import os
import re
import signal
import socket
import subprocess
import sys

import psutil
import pytest
from conftest import alive, end_session, session, wait_until
from test_run import ARQ, LONG

pytestmark = pytest.mark.processes

LISTEN = ("--listen", "tcp://127.0.0.1:*")
TWO = ("devices=2", "graph.kind=complete")
AGENT_WALL_S = 60


@pytest.fixture
def torchrun():
    """Yield a function that starts agents as on so many hosts; none of their processes outlives the test."""
    agents = []

    def start(url, *, hosts, processes):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={hosts}"]
        command += [f"--nproc-per-node={processes}", "--rdzv-backend=c10d", "--rdzv-id=test"]
        command += [f"--rdzv-endpoint=127.0.0.1:{port}", "-m", "node", "--coordinator", url]
        for _ in range(hosts):
            agents.append(
                subprocess.Popen(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    start_new_session=True,
                )
            )
        return agents[-hosts:]

    yield start
    for agent in agents:
        end_session(agent)


def where(run):
    """Return the URL at which a run says that it waits."""
    for line in run.process.stderr:
        if found := re.search(r"--coordinator (tcp://\S+)$", line):
            return found[1]
    return pytest.fail("it ended before it said so")


@pytest.mark.parametrize(("kind", "hosts"), [("gloo", 2), ("zmq", 1)])
def test_a_run_of_torchruns_processes_is_one_of_local_ones(hearsay, whole_run, torchrun, small, kind, hosts):
    run = hearsay(small, *TWO, *ARQ, f"transport.kind={kind}", options=LISTEN)
    agents = torchrun(where(run), hosts=hosts, processes=2 // hosts)
    code, _, stderr = run.finish()
    assert code == 0, stderr
    assert [agent.wait(AGENT_WALL_S) for agent in agents] == [0] * hosts
    mine, local = run.parameters(), whole_run(*TWO, *ARQ).parameters()
    assert len(mine) == 2
    assert all((mine[name] == local[name]).all() for name in local)


def test_a_killed_rank_ends_the_run_which_names_it(hearsay, torchrun, small):
    run = hearsay(small, LONG, "devices=3", "transport.kind=gloo", options=LISTEN)
    [agent] = torchrun(where(run), hosts=1, processes=3)
    pids = run.wait_for_round(3)
    assert [psutil.Process(pid).environ()["RANK"] for pid in pids] == ["0", "1", "2"]
    os.kill(pids[2], signal.SIGKILL)
    code, stdout, stderr = run.finish()
    assert (code, stdout) == (1, "")
    assert "device 2 has gone; over gloo nobody goes on without it" in stderr
    assert agent.wait(AGENT_WALL_S)
    wait_until(lambda: not session(run.process) + session(agent))
    assert not alive(pids)


def test_another_number_of_processes_is_refused_in_one_line(hearsay, torchrun, small):
    run = hearsay(small, "transport.kind=gloo", options=LISTEN)
    [agent] = torchrun(where(run), hosts=1, processes=1)
    code, stdout, stderr = run.finish()
    assert (code, stdout) == (2, "")
    reason = (
        "torchrun started 1 processes, and this run needs 4: start so many (--nnodes times --nproc-per-node)"
    )
    assert stderr.splitlines()[-1] == f"hearsay: {reason}"
    assert not run.out.exists()
    assert agent.wait(AGENT_WALL_S)
    said = agent.stdout.read()
    assert f"refused: {reason}" in said
    assert re.search(r"exitcode +: 2 ", said)
