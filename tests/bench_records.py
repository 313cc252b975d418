"""Records of benchmarks that were never run: every number is given, or drawn."""

import numpy as np

from coordinator.bench.cases import Case
from coordinator.bench.record import (
    BenchRecord,
    CaseRecord,
    Environment,
    Limits,
    Measurement,
    Quantiles,
    SizeRecord,
    Times,
)
from coordinator.bench.rounds import STAGES

MACHINE = "a processor, 2 cores; Linux"
CASES = tuple(
    Case(devices=devices, params=params, transport=transport, radio=radio)
    for params in ("100k", "1.6M")
    for devices in (4, 8, 16)
    for transport in ("zmq", "memory")
    for radio in ("ideal", "digital")
)


def make_quantiles(p50):
    """Return quantiles around a median."""
    return Quantiles(p50=p50, p95=1.5 * p50, p99=2 * p50, mean=1.1 * p50)


def make_measurement(repeat, round_s=0.02, **changes):
    """Return a run whose round is shared equally by its stages, unless changed."""
    times = Times(
        round=make_quantiles(round_s), stages={s: make_quantiles(round_s / len(STAGES)) for s in STAGES}
    )
    usual = {
        "all_devices": times,
        "each_device": (times,),
        "startup_wall_s": 0.3,
        "period_wall_s": 1.2 * round_s,
        "sent_bytes_per_s": 1e8,
        "device_pss_bytes": 5e7,
        "coordinator_pss_bytes": 1e8,
        "device_cpu_s": 0.005,
        "coordinator_cpu_s": 0.001,
    }
    return Measurement(repeat=repeat, **(usual | changes))


def make_limits(repeat, floor_s=0.01):
    """Return the limits of a repeat, all of them shares of the floor's round."""
    return Limits(
        repeat=repeat,
        floor_wall_s=floor_s,
        floor_startup_wall_s=3.0,
        zmq_wall_s=floor_s / 2,
        gloo_wall_s=floor_s / 4,
        copy_wall_s=floor_s / 100,
    )


def make_record(cases=(), sizes=(), **changes):
    """Return a record of some cases and sizes, on one machine, unless changed."""
    environment = Environment(
        machine=MACHINE,
        versions="hearsay 0",
        num_cores=2,
        memory_bytes=2**34,
        torch_threads=1,
        load_before=0.1,
    )
    usual = {
        "began": "2026-11-25T12:00:00+00:00",
        "environment": environment,
        "rounds": 50,
        "warmup_rounds": 5,
        "repeats": 3,
        "cold_startup_wall_s": 3.0,
    }
    return BenchRecord(cases=tuple(cases), sizes=tuple(sizes), **(usual | changes))


def make_case(case, measurements):
    """Return a case and its measurements."""
    return CaseRecord(
        case=case,
        bound_by_interpreter_lock=case.transport == "memory",
        num_parameters=100_180,
        frame_bytes=400_720,
        measurements=tuple(measurements),
    )


def drawn_record(seed, *, repeats=3, std=0.05, slower=None, drift=1.0):
    """Draw a record: every number varies log-normally by std between repeats.

    slower: case -> factor of its round; drift: how much slower the machine was, floor and all.
    """
    rng = np.random.default_rng(seed)

    def vary(mean):
        return float(mean * np.exp(std * rng.standard_normal()))

    sizes = [
        SizeRecord(size=size, limits=tuple(make_limits(r, vary(0.01 * drift)) for r in range(repeats)))
        for size in dict.fromkeys(case.size for case in CASES)
    ]
    cases = [
        make_case(
            case,
            (
                make_measurement(
                    repeat,
                    vary(0.02 * drift * (slower or {}).get(case, 1)),
                    startup_wall_s=vary(0.3 * drift),
                    device_pss_bytes=vary(5e7),
                    device_cpu_s=vary(0.005 * drift),
                )
                for repeat in range(repeats)
            ),
        )
        for case in CASES
    ]
    return make_record(cases, sizes, repeats=repeats)
