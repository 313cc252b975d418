"""Hardware of each device: how it is written, drawn, resolved and budgeted, and who is the slowest."""

import json
import math

import numpy as np
import pytest
from scipy.stats import kstest

from protocol.access import plan_access
from protocol.air import frame_layout, planned_compute_s, planned_round_s
from protocol.config import Budget, Experiment, Theory
from protocol.errors import BadInput
from protocol.experiment_file import dump, load, schema
from protocol.hardware import Drawn, fleet, hardware
from protocol.learning import Training
from protocol.messages import Welcome, from_coordinator, pack
from protocol.quantities import Uniform
from protocol.radio import Device, Radio
from protocol.streams import Purpose, stream

ANY = (
    "expected a number, a list of one for each device, or { low = ..., high = ... } to draw from, both "
    "finite and in order"
)
NO_NUMBER = "input should be a valid number, unable to parse string as a number"


def fault(path, overrides=()):
    with pytest.raises(BadInput) as caught:
        load(path, overrides)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message.removeprefix(str(path)).removeprefix(" with --set").removeprefix(": ")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("0.5", "device.cpu_hz = 0.5: must be >= 1 and <= 1e+12 Hz"),
        ("[1e9, -3]", "device.cpu_hz = [1000000000.0, -3]: must be >= 1 and <= 1e+12 Hz"),
        ("[1e9, 2e12]", "device.cpu_hz = [1000000000.0, 2000000000000.0]: must be >= 1 and <= 1e+12 Hz"),
        ("[1, nan]", "device.cpu_hz = [1, nan]: must be >= 1 and <= 1e+12 Hz"),
        ("{ low = 0.5, high = 2 }", "device.cpu_hz = {'low': 0.5, 'high': 2}: must be >= 1 and <= 1e+12 Hz"),
        ("{ low = 2, high = 2e12 }", "device.cpu_hz = {'low': 2, 'high': 2000000000000.0}: must be >= 1 and"),
        ("{ low = 3, high = 2 }", f"device.cpu_hz = {{'low': 3, 'high': 2}}: {ANY} [Hz]"),
        ("{ low = 3, high = inf }", f"device.cpu_hz = {{'low': 3, 'high': inf}}: {ANY} [Hz]"),
        ("{ low = 3 }", f"device.cpu_hz = {{'low': 3}}: {ANY} [Hz]"),
        ("{ low = 3, hihg = 4 }", f"device.cpu_hz = {{'low': 3, 'hihg': 4}}: {ANY} [Hz]"),
        ("{}", f"device.cpu_hz = {{}}: {ANY} [Hz]"),
        ("[]", f"device.cpu_hz = []: {ANY} [Hz]"),
        ("'many'", f"device.cpu_hz = 'many': {NO_NUMBER} [Hz]"),
        ("[1, 'many']", f"device.cpu_hz = [1, 'many']: {NO_NUMBER} [Hz]"),
        ("{ low = 'few', high = 2 }", f"device.cpu_hz = {{'low': 'few', 'high': 2}}: {NO_NUMBER} [Hz]"),
        ("[[1]]", "device.cpu_hz = [[1]]: input should be a valid number [Hz]"),
    ],
)
def test_what_is_wrong_with_a_quantity_is_one_fault_in_one_line(write, value, says):
    found = fault(write(f"[device]\ncpu_hz = {value}\n"))
    assert found.startswith(says)
    assert "more)" not in found
    assert fault(write(""), [f"device.cpu_hz={value}"]).startswith(says)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("device.cycles_per_sample", "[-1.0]", "must be >= 0 and <= 1e+15"),
        ("device.switched_capacitance", "[1.0]", "must be >= 0 and <= 1e-15"),
        ("radio.tx_power_dbm", "[61.0]", "must be >= -60 and <= 60 dBm"),
        ("budget.joules", "[0.0]", "must be > 0 J"),
        ("budget.seconds", "[-2.0]", "must be > 0 seconds"),
        ("budget.run_joules", "0", "must be > 0 J"),
        ("budget.run_seconds", "nan", "must be > 0 seconds"),
        ("budget.run_joules", "[1]", "input should be a valid number [J]"),
        ("theory.smoothness", "0", "must be finite and > 0"),
        ("theory.gradient_variance", "-1", "must be finite and >= 0"),
        ("theory.heterogeneity", "inf", "must be finite and >= 0"),
        ("theory.initial_gap", "0", "must be finite and > 0"),
        ("theory.target", "nan", "must be finite and > 0"),
        ("theory.loss_floor", "inf", "must be finite"),
    ],
)
def test_every_number_is_held_to_the_limits_of_its_key(write, key, value, says):
    assert fault(write(""), ["devices=1", f"{key}={value}"]) == f"{key} = {value}: {says}"


@pytest.mark.parametrize("key", ["radio.tx_power_dbm", "device.switched_capacitance", "budget.seconds"])
def test_a_list_has_one_number_for_each_device(write, key):
    said = fault(write("devices = 4\n"), [f"{key}=[0.0, 0.0, 0.0]".replace("0.0", "1e-20")])
    assert said == f"{key}: lists 3 numbers for 4 devices; expected one for each"


QUANTITIES = """\
devices = 3
[device]
cpu_hz = [1e9, 2e9, 5e8]
cycles_per_sample = { low = 1e6, high = 3e6 }
switched_capacitance = 2e-28
[radio]
tx_power_dbm = { high = 20, low = -10 }
[budget]
joules = [1, inf, 2.5]
run_joules = 6
run_seconds = 40
"""


def test_a_number_a_list_and_a_draw_are_read_and_written_and_travel(write):
    experiment = load(write(QUANTITIES))
    assert experiment.device.cpu_hz == (1e9, 2e9, 5e8)
    assert experiment.device.cycles_per_sample == Uniform(low=1e6, high=3e6)
    assert experiment.radio.tx_power_dbm == Uniform(low=-10, high=20)
    assert experiment.budget == Budget(joules=(1, math.inf, 2.5), run_joules=6, run_seconds=40)
    assert load(write(dump(experiment))) == experiment
    welcome = Welcome(run_id="r", epoch=0, device=1, incarnation=0, experiment=experiment, run_dir="")
    assert from_coordinator(pack(welcome)) == welcome


def test_a_quantity_may_be_laid_over_another_kind(write):
    file = write(QUANTITIES)
    experiment = load(file, ["device.cpu_hz={low=1e8,high=1e9}", "radio.tx_power_dbm=[1,2,3]"])
    assert experiment.device.cpu_hz == Uniform(low=1e8, high=1e9)
    assert experiment.radio.tx_power_dbm == (1, 2, 3)
    shifted = load(file, ["device.cycles_per_sample.low=7", "device.cpu_hz=9"]).device
    assert (shifted.cycles_per_sample, shifted.cpu_hz) == (Uniform(low=7, high=3e6), 9)


def test_the_schema_says_all_three_kinds_and_the_limits_of_each_number():
    definitions = json.loads(schema())["$defs"]
    number = {"type": "number", "minimum": -60, "maximum": 60}
    assert definitions["Radio"]["properties"]["tx_power_dbm"]["oneOf"] == [
        number,
        {"type": "array", "items": number, "minItems": 1},
        {"$ref": "#/$defs/Uniform", "properties": {"low": number, "high": number}},
    ]
    assert definitions["Uniform"]["required"] == ["low", "high"]
    assert definitions["Uniform"]["additionalProperties"] is False
    assert definitions["Budget"]["properties"]["joules"]["default"] == "inf"
    for section in (Budget, Theory):
        for key, entry in definitions[section.__name__]["properties"].items():
            assert entry["description"].endswith("."), key
            assert "default" in entry, key


UNLIKE = Experiment(
    devices=3,
    training=Training(batch_size=10, local_rounds=4),
    radio=Radio(tx_power_dbm=(30.0, 20.0, 0.0)),
    device=Device(
        cpu_hz=(1e9, 2e9, 5e8),
        cycles_per_sample=(2e6, 1e6, 5e6),
        switched_capacitance=(1e-28, 2e-28, 4e-28),
        rx_power_w=0.07,
    ),
    budget=Budget(joules=(1.0, 5.0, math.inf), seconds=(10.0, 50.0, math.inf), run_joules=6, run_seconds=40),
)


def test_hardware_by_hand():
    """A local round: 10 samples of c cycles take 10 c / f seconds and cost 10 c kappa f^2 joules."""
    devices = fleet(UNLIKE)
    assert [own.local_round_air_s for own in devices] == pytest.approx([0.02, 0.005, 0.1])
    assert [own.local_round_j for own in devices] == pytest.approx([2e-3, 8e-3, 5e-3])
    assert [own.tx_power_w for own in devices] == pytest.approx([1, 0.1, 1e-3])
    assert {(own.rx_power_w, own.idle_power_w) for own in devices} == {(0.07, 0.01)}
    assert [hardware(UNLIKE, device) for device in range(3)] == list(devices)


def test_a_device_has_its_own_budget_or_its_share_of_the_runs():
    """6 J for three are 2 J each; 40 s are 40 s for each."""
    assert [own.budget_j for own in fleet(UNLIKE)] == [1, 2, 2]
    assert [own.budget_air_s for own in fleet(UNLIKE)] == [10, 40, 40]
    assert {(own.budget_j, own.budget_air_s) for own in fleet(Experiment())} == {(math.inf, math.inf)}


def test_the_slowest_device_sets_the_length_of_a_planned_round():
    """Four local rounds of device 2's, 0.1 s each."""
    assert planned_compute_s(UNLIKE) == pytest.approx(0.4)
    access = plan_access(UNLIKE, frame_layout(UNLIKE, 300), num_colours=3, max_degree=2)
    assert planned_round_s(UNLIKE, access) == pytest.approx(0.4 + access.superframe_s)


DRAWN = {
    "cpu_hz": Drawn.CPU_HZ,
    "cycles_per_sample": Drawn.CYCLES_PER_SAMPLE,
    "switched_capacitance": Drawn.SWITCHED_CAPACITANCE,
    "tx_power_dbm": Drawn.TX_POWER_DBM,
    "budget_j": Drawn.BUDGET_J,
    "budget_air_s": Drawn.BUDGET_AIR_S,
}


def drawn(num_devices, seed=1):
    """Return what each of many devices drew, as shares of the way from low to high."""
    way = Uniform(low=0, high=1e-16)
    experiment = Experiment(
        devices=num_devices,
        seed=seed,
        radio=Radio(tx_power_dbm=Uniform(low=0, high=1)),
        device=Device(
            cpu_hz=Uniform(low=1, high=2), cycles_per_sample=Uniform(low=0, high=1), switched_capacitance=way
        ),
        budget=Budget(joules=Uniform(low=1, high=2), seconds=Uniform(low=1, high=2)),
    )
    scales = {
        "cpu_hz": (1, 1),
        "switched_capacitance": (0, 1e-16),
        "budget_j": (1, 1),
        "budget_air_s": (1, 1),
    }
    found = {}
    for name in DRAWN:
        low, width = scales.get(name, (0, 1))
        found[name] = (np.array([getattr(own, name) for own in fleet(experiment)]) - low) / width
    return found


def test_draws_are_uniform_and_independent_of_each_other():
    shares = drawn(4096)
    # 99 % for six distributions and fifteen correlations together.
    for name, share in shares.items():
        assert kstest(share, "uniform").pvalue > 0.01 / 21, name
    correlations = np.corrcoef(list(shares.values()))[np.triu_indices(6, 1)]
    assert np.abs(correlations).max() < 3.5 / math.sqrt(4096)  # P(|normal| > 3.5) = 0.0005 = 0.01 / 21


def test_a_draw_is_that_of_the_seed_the_quantity_and_the_device():
    many, few, other = drawn(64), drawn(5), drawn(5, seed=2)
    for name, which in DRAWN.items():
        wanted = stream(1, Purpose.HARDWARE, a=which).random(64)
        assert many[name] == pytest.approx(wanted, abs=1e-9), name
        assert few[name].tolist() == many[name][:5].tolist(), name  # whoever else takes part
        assert (few[name] != other[name]).all(), name


def test_quantities_keep_their_numbers():
    """A seed means the same hardware in every version; new quantities may join."""
    assert [(which.name, which.value) for which in Drawn] == [
        ("CPU_HZ", 0),
        ("CYCLES_PER_SAMPLE", 1),
        ("SWITCHED_CAPACITANCE", 2),
        ("TX_POWER_DBM", 3),
        ("BUDGET_J", 4),
        ("BUDGET_AIR_S", 5),
    ]


@pytest.mark.parametrize("limit", ["joules=5", "seconds=[inf,5]", "run_joules=5", "run_seconds={0}"])
@pytest.mark.parametrize(
    ("setting", "says"),
    [
        (
            "runtime.clock=wall",
            "is a limit of modelled seconds and joules, and runtime.clock = wall keeps none; use virtual or "
            "paced",
        ),
        (
            "device.compute=measured",
            "can only be kept to where the cost of computing is known beforehand; set device.compute = "
            "modelled",
        ),
    ],
)
def test_a_budget_that_cannot_be_kept_to_is_refused(write, limit, setting, says):
    settings = ["devices=2", f"budget.{limit.format(5)}", setting]
    assert fault(write(""), settings) == f"budget.{limit.partition('=')[0]}: {says}"
    load(write(""), settings[:-1])
    load(write(""), [*settings[:1], "budget.joules=[inf,inf]", setting])  # no limit at all
