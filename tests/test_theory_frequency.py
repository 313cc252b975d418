"""Just-in-time computing: the slowest frequency that is in time, against a search over all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.theory.frequency import Pace, Processor, just_in_time

fixed = settings(derandomize=True, deadline=None)
CPU = Processor(min_hz=2e8, max_hz=2e9, switched_capacitance=1e-28)


@pytest.mark.parametrize(
    ("air_s", "cpu_hz"),
    [(1.0, 1e9), (0.5, 2e9), (0.1, 2e9), (0.0, 2e9), (-1.0, 2e9), (4.0, 2.5e8), (1e3, 2e8), (np.inf, 2e8)],
)
def test_runs_as_slowly_as_deadline_and_processor_allow(air_s, cpu_hz):
    saved_j = 1e-28 * 1e9 * (4e18 - cpu_hz**2)
    assert just_in_time(CPU, cycles=1e9, air_s=air_s) == pytest.approx(Pace(cpu_hz, saved_j), rel=1e-12)


@fixed
@given(st.floats(1e6, 1e10), st.floats(1e-3, 1e2))
def test_no_frequency_in_time_is_cheaper(cycles, air_s):
    pace = just_in_time(CPU, cycles=cycles, air_s=air_s)
    grid_hz = np.linspace(CPU.min_hz, CPU.max_hz, 10_001)
    in_time_hz = grid_hz[cycles / grid_hz <= air_s]
    energy_j = 1e-28 * cycles * CPU.max_hz**2 - pace.saved_j
    if in_time_hz.size:
        cheapest_j = 1e-28 * cycles * in_time_hz.min() ** 2
        assert cycles / pace.cpu_hz <= air_s * (1 + 1e-12)
        assert energy_j <= cheapest_j * (1 + 1e-9)
    else:
        assert pace.cpu_hz == CPU.max_hz
