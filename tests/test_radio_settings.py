"""The air's knobs in an experiment file: what each refuses, what contradicts what, and that none is lost."""

import json
import math
import tomllib

import pytest

from protocol.budget import Budget
from protocol.config import Aggregation, Codec, Experiment, Graph, Runtime
from protocol.errors import BadInput
from protocol.experiment_file import dump, load, schema
from protocol.fading import survival_probability
from protocol.learning import Training
from protocol.radio import SILENCED, Analog, Device, Mobility, Radio

SECTIONS = {
    "radio": Radio,
    "radio.analog": Analog,
    "mobility": Mobility,
    "device": Device,
    "aggregation": Aggregation,
    "runtime": Runtime,
}


def fault(path, overrides=()):
    """Return what is wrong with a file, after checking that it is said in one line that names the file."""
    with pytest.raises(BadInput) as caught:
        load(path, overrides)
    message = str(caught.value)
    source = f"{path} with --set" if overrides else str(path)
    assert message.startswith(f"{source}: ")
    assert len(message.splitlines()) == 1
    return message.removeprefix(f"{source}: ")


NO_BOOLEAN = "input should be a valid boolean, unable to interpret input"
NO_STRING = "input should be a valid string"

# Of every key one value that it must refuse, and what is said about it: the key with its value, then this.
BAD_VALUES = {
    "radio": {
        "scheme": ("'optical'", "expected 'ideal', 'digital' or 'analog'"),
        "tx_power_dbm": ("61", "must be >= -60 and <= 60 dBm"),
        "bandwidth_hz": ("-1", "must be >= 1 and <= 1e+12 Hz"),
        "noise_density_dbm_hz": ("1", "must be >= -250 and <= 0 dBm/Hz"),
        "noise_figure_db": ("-1", "must be >= 0 and <= 50 dB"),
        "tx_antenna_gain_dbi": ("-31", "must be >= -30 and <= 60 dBi"),
        "rx_antenna_gain_dbi": ("61", "must be >= -30 and <= 60 dBi"),
        "snr": ("'measured'", "expected 'geometry', 'given' or 'matrix'"),
        "snr_db": ("201", "must be >= -100 and <= 200 dB"),
        "snr_file": ("7", NO_STRING),
        "path_loss": ("'friis'", "expected 'log_distance', 'free_space' or '3gpp'"),
        "path_loss_exponent": ("0.5", "must be >= 1 and <= 8"),
        "reference_loss_db": ("-1", "must be >= 0 and <= 200 dB"),
        "carrier_hz": ("999999", "must be >= 1e+06 and <= 1e+12 Hz"),
        "shadowing_std_db": ("31", "must be >= 0 and <= 30 dB"),
        "fading": ("'rice'", "expected 'none', 'rayleigh', 'rician' or 'nakagami'"),
        "rician_k": ("-1", "must be >= 0 and <= 10000"),
        "nakagami_m": ("0.4", "must be >= 0.5 and <= 1000"),
        "coherence_packets": ("-1", "must be >= 0"),
        "coherence_rounds": ("0", "must be >= 1"),
        "doppler_hz": ("-1", "must be >= 0 Hz"),
        "modulation": ("'fm'", "expected 'bpsk', 'qpsk', 'qam16', 'qam64' or 'qam256'"),
        "rate": ("'fast'", "expected 'fixed' or 'adaptive'"),
        "target_packet_loss": ("1", "must be > 0 and < 1"),
        "code_rate": ("1.5", "must be > 0 and <= 1"),
        "coding_gain_db": ("21", "must be >= 0 and <= 20 dB"),
        "packet_errors": ("'measured'", "expected 'formula' or 'sionna'"),
        "burst_packets": ("-1", "must be >= 0 and <= 1e+06"),
        "burst_share": ("0", "must be > 0 and < 1"),
        "burst_ber": ("0.6", "must be > 0 and <= 0.5"),
        "arq": ("'go_back_n'", "expected 'none' or 'selective_repeat'"),
        "max_attempts": ("65", "must be >= 1 and <= 64"),
        "bad_packets": ("'mend'", "expected 'erase' or 'accept'"),
        "max_abs_value": ("inf", "must be finite and > 0"),
        "symmetric": ("'maybe'", NO_BOOLEAN),
        "access": ("'csma'", "expected 'tdma' or 'parallel'"),
        "shared_bandwidth": ("7", NO_BOOLEAN),
        "cast": ("'multicast'", "expected 'broadcast' or 'unicast'"),
        "analog": ("7", "expected a section with keys"),
    },
    "radio.analog": {
        "superposition": ("'none'", "expected 'over_the_air' or 'orthogonal'"),
        "gain_threshold": ("101", "must be >= 0 and <= 100"),
        "gain_error_variance": ("-1", "must be >= 0 and <= 1"),
        "payload": ("'gradients'", "expected 'models' or 'differences'"),
        "refresh_rounds": ("-1", "must be >= 0"),
    },
    "mobility": {
        "kind": ("'brownian'", "expected 'none' or 'random_waypoint'"),
        "speed_min_m_s": ("0", "must be > 0 and <= 1000 m/s"),
        "speed_max_m_s": ("1001", "must be > 0 and <= 1000 m/s"),
        "pause_s": ("-1", "must be >= 0 and <= 1e+06 seconds"),
        "round_s": ("0", "must be > 0 and <= 1e+06 seconds"),
    },
    "device": {
        "cpu_hz": ("0", "must be >= 1 and <= 1e+12 Hz"),
        "frequency": ("'turbo'", "expected 'fixed' or 'just_in_time'"),
        "cpu_min_hz": ("0", "must be >= 1 and <= 1e+12 Hz"),
        "cycles_per_sample": ("-1", "must be >= 0 and <= 1e+15"),
        "switched_capacitance": ("1", "must be >= 0 and <= 1e-15"),
        "compute": ("'guessed'", "expected 'modelled' or 'measured'"),
        "rx_power_w": ("-1", "must be >= 0 and <= 1000 W"),
        "idle_power_w": ("1001", "must be >= 0 and <= 1000 W"),
    },
    "aggregation": {
        "scheme": ("'star'", "expected 'gossip', 'tree', 'ring', 'auto' or 'isolated'"),
        "epoch_rounds": ("0", "must be >= 1 and <= 1000000"),
        "chunks": ("0", "must be >= 1 and <= 4096"),
        "sweeps": ("1001", "must be >= 1 and <= 1000"),
        "staleness_rounds": ("-1", "must be >= 0 and <= 1000"),
        "round_deadline_air_s": ("0", "must be > 0 seconds"),
        "step": ("1.5", "must be > 0 and <= 1"),
        "step_decay_rounds": ("0", "must be > 0"),
        "step_exponent": ("-1", "must be >= 0 and <= 1"),
    },
    "runtime": {
        "liveness_wall_s": ("0", "must be > 0 and <= 86400 seconds"),
        "coordinator_grace_s": ("-1", "must be >= 0 seconds"),
        "join_wall_s": ("86401", "must be > 0 and <= 86400 seconds"),
        "torch_threads": ("0", "must be >= 1 and <= 1024"),
        "clock": ("'real'", "expected 'virtual', 'paced' or 'wall'"),
        "pace": ("0", "must be > 0 and <= 1e+06"),
        "pace_slack_wall_s": ("61", "must be > 0 and <= 60 seconds"),
    },
}


@pytest.mark.parametrize("section", SECTIONS)
def test_no_key_is_left_out_here(section):
    assert BAD_VALUES[section].keys() == SECTIONS[section].model_fields.keys()


@pytest.mark.parametrize(
    ("section", "key"), [(section, key) for section, keys in BAD_VALUES.items() for key in keys]
)
def test_every_key_refuses_a_bad_value_with_its_range_and_unit(write, section, key):
    value, says = BAD_VALUES[section][key]
    shown = repr(float(value)) if value == "inf" else value
    assert fault(write(f"[{section}]\n{key} = {value}\n")) == f"{section}.{key} = {shown}: {says}"


@pytest.mark.parametrize(
    ("section", "key"),
    [
        (section, key)
        for section, model in SECTIONS.items()
        for key, field in model.model_fields.items()
        if isinstance(field.default, float)
    ],
)
@pytest.mark.parametrize("value", ["nan", "'many'"])
def test_a_number_is_a_number(write, section, key, value):
    message = fault(write(f"[{section}]\n{key} = {value}\n"))
    assert message.startswith(f"{section}.{key} = {value}: ")


@pytest.mark.parametrize("key", ["rician_k", "burst_share", "pace"])
def test_a_key_of_another_section_is_sent_there(write, key):
    home = next(name for name, model in SECTIONS.items() if key in model.model_fields)
    message = fault(write(f"[codec]\n{key} = 1\n"))
    assert message == f"unknown key 'codec.{key}': did you mean '{home}.{key}'?"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[radio.analog]\ngain_treshold = 1", "'radio.analog.gain_treshold': did you mean 'gain_threshold'?"),
        ("[radio.analog]\npayloads = 1", "'radio.analog.payloads': did you mean 'payload'?"),
        ("[radio.analog]\nfading = 'none'", "'radio.analog.fading': did you mean 'radio.fading'?"),
        (
            "[radio.analog]\nzzz = 1",
            "'radio.analog.zzz': known here: gain_error_variance, gain_threshold, payload, refresh_rounds, "
            "superposition",
        ),
        ("[analog]\npayload = 'models'", "'analog': did you mean 'radio.analog'?"),
        ("[radio]\npayload = 'models'", "'radio.payload': did you mean 'radio.analog.payload'?"),
        (
            "[mobility]\ngain_threshold = 1",
            "'mobility.gain_threshold': did you mean 'radio.analog.gain_threshold'?",
        ),
        ("[radio.analogue]\n", "'radio.analogue': did you mean 'analog'?"),
        ("[mobility]\nspeed_m_s = 1", "'mobility.speed_m_s': did you mean 'speed_min_m_s'?"),
        ("[device]\ncpu_ghz = 1", "'device.cpu_ghz': did you mean 'cpu_hz'?"),
        ("[radio]\nmax_retries = 1", "'radio.max_retries': did you mean 'max_attempts'?"),
        ("[aggregation]\nsteps = 1", "'aggregation.steps': did you mean 'step'?"),
    ],
)
def test_an_unknown_key_names_the_right_one(write, text, says):
    assert fault(write(text)) == f"unknown key {says}"


SILENT = (
    "silences every link; with radio.fading = {} the power gain has mean 1 and exceeds it with a "
    "probability below 1e-06"
)

STALE = "aggregation.staleness_rounds = 2: frames of different rounds are mixed, which does not go with {}"
ONE_SIDED = ["radio.symmetric=false", "aggregation.staleness_rounds=2"]

CONTRADICTIONS = {
    "stale frames along a tree": (
        [*ONE_SIDED, "aggregation.scheme=tree"],
        STALE.format("aggregation.scheme = tree (use gossip)"),
    ),
    "stale frames in sweeps": (
        [*ONE_SIDED, "aggregation.sweeps=3"],
        STALE.format("aggregation.sweeps = 3 (use 1)"),
    ),
    "stale frames until a deadline": (
        [*ONE_SIDED, "aggregation.round_deadline_air_s=0.5"],
        STALE.format("aggregation.round_deadline_air_s = 0.5 (leave it out)"),
    ),
    "stale sums": (
        [*ONE_SIDED, "radio.scheme=analog"],
        STALE.format("radio.scheme = analog (use digital)"),
    ),
    "stale frames with symmetric losses": (
        ["radio.symmetric=true", "aggregation.staleness_rounds=2"],
        STALE.format("radio.symmetric = true (use false)"),
    ),
    "stale frames that are asked for again": (
        [*ONE_SIDED, "radio.arq=selective_repeat"],
        STALE.format("radio.arq = selective_repeat (use none)"),
    ),
    "stale frames with their flipped bits": (
        [*ONE_SIDED, "radio.bad_packets=accept"],
        STALE.format("radio.bad_packets = accept (use erase)"),
    ),
    "stale frames that tell of local rounds": (
        [*ONE_SIDED, "budget.joules=9", "training.local_rounds=adaptive"],
        STALE.format("training.local_rounds = adaptive (set a number)"),
    ),
    "a matrix without a file": (
        ["radio.snr=matrix"],
        "radio.snr = matrix: needs radio.snr_file",
    ),
    "bursts of less than a packet": (
        ["radio.burst_packets=0.5"],
        "radio.burst_packets = 0.5: a burst has at least one packet (or 0: no bursts)",
    ),
    "more bursts than fit": (
        ["radio.burst_packets=3", "radio.burst_share=0.8"],
        "radio.burst_share = 0.8: bursts of 3 packets with at least one packet between them fill at most "
        "0.75 of all",
    ),
    "sionna without a code": (
        ["radio.packet_errors=sionna"],
        "radio.packet_errors = sionna: needs a code; set radio.code_rate below 1",
    ),
    "sionna with a second gain": (
        ["radio.code_rate=0.5", "radio.coding_gain_db=3", "radio.packet_errors=sionna"],
        "radio.packet_errors = sionna: its tables are those of a real code; leave radio.coding_gain_db at 0",
    ),
    "a threshold that silences rayleigh": (
        ["radio.scheme=analog", "radio.analog.gain_threshold=20"],
        f"radio.analog.gain_threshold = 20: {SILENT.format('rayleigh')}",
    ),
    "a threshold that silences rician": (
        ["radio.scheme=analog", "radio.analog.gain_threshold=2", "radio.rician_k=99", "radio.fading=rician"],
        f"radio.analog.gain_threshold = 2: {SILENT.format('rician')}",
    ),
    "a threshold that silences nakagami": (
        [
            "radio.scheme=analog",
            "radio.analog.gain_threshold=2",
            "radio.nakagami_m=99",
            "radio.fading=nakagami",
        ],
        f"radio.analog.gain_threshold = 2: {SILENT.format('nakagami')}",
    ),
    "analog in parts of the band": (
        ["radio.scheme=analog", "radio.access=parallel", "radio.shared_bandwidth=true"],
        "radio.shared_bandwidth: analog sums are taken in slots or in the whole band of each receiver",
    ),
    "a fade for packets and for rounds": (
        ["radio.coherence_packets=4", "radio.coherence_rounds=2"],
        "radio.coherence_rounds = 2: a fade lasts for packets or for rounds; set radio.coherence_packets = 0",
    ),
    "speeds in the wrong order": (
        ["mobility.speed_min_m_s=1.5", "mobility.speed_max_m_s=1"],
        "mobility.speed_min_m_s = 1.5: must be at most mobility.speed_max_m_s = 1",
    ),
    "analog of int8": (
        ["radio.scheme=analog", "codec.kind=int8"],
        "codec.kind = int8: an analog radio sends the numbers themselves (use float32)",
    ),
    "analog of float16": (
        ["radio.scheme=analog", "codec.kind=float16"],
        "codec.kind = float16: an analog radio sends the numbers themselves (use float32)",
    ),
    "walking over links of one SNR": (
        ["mobility.kind=random_waypoint", "radio.snr=given"],
        "mobility.kind = random_waypoint: moves links whose SNR comes from the geometry, and "
        "radio.snr = given",
    ),
    "walking over links of a matrix": (
        ["radio.snr=matrix", "radio.snr_file=snr.txt", "mobility.kind=random_waypoint"],
        "mobility.kind = random_waypoint: moves links whose SNR comes from the geometry, and "
        "radio.snr = matrix",
    ),
    "walking across the area too often": (
        ["mobility.kind=random_waypoint", "mobility.round_s=5001", "mobility.speed_max_m_s=20"],
        "mobility.round_s = 5001: devices of up to 20 m/s would cross an area of 100 m more than 1,000 times "
        "between two rounds",
    ),
    "a deadline that no clock keeps": (
        ["runtime.clock=wall", "aggregation.round_deadline_air_s=1"],
        "runtime.clock = wall: keeps no modelled time, so aggregation.round_deadline_air_s can neither pass "
        "nor be kept; use virtual or paced",
    ),
    "paced in one interpreter": (
        ["runtime.clock=paced", "transport.kind=memory"],
        "runtime.clock = paced: devices that share one interpreter (transport.kind = memory) wait for each "
        "other's computing; use zmq",
    ),
    "a slowest frequency above the usual one": (
        ["budget.seconds=9", "device.frequency=just_in_time", "device.cpu_min_hz=1.5e9"],
        "device.cpu_min_hz = 1.5e+09: must be at most 1e+09 Hz, the least device.cpu_hz",
    ),
    "a slowest frequency above that of one device": (
        ["budget.seconds=9", "device.frequency=just_in_time", "devices=3", "device.cpu_hz=[3e8,5e7,2e9]"],
        "device.cpu_min_hz = 1e+08: must be at most 5e+07 Hz, the least device.cpu_hz",
    ),
    "a slowest frequency above what may be drawn": (
        ["budget.seconds=9", "device.frequency=just_in_time", "device.cpu_hz={low=9e7, high=2e9}"],
        "device.cpu_min_hz = 1e+08: must be at most 9e+07 Hz, the least device.cpu_hz",
    ),
    "just in time for who knows when": (
        ["budget.seconds=9", "device.frequency=just_in_time", "device.compute=measured"],
        "device.frequency = just_in_time: needs to know beforehand how many cycles computing takes; "
        "set device.compute = modelled",
    ),
    "just in time for no deadline": (
        ["device.frequency=just_in_time"],
        "device.frequency = just_in_time: meets a deadline, and there is none; set budget.seconds",
    ),
    "partial means on an analog radio": (
        ["aggregation.scheme=auto", "radio.scheme=analog"],
        "aggregation.scheme = auto: partial means travel in packets, and radio.scheme = analog has none "
        "(use gossip)",
    ),
    "adaptive to an analog radio": (
        ["budget.joules=9", "training.local_rounds=adaptive", "radio.scheme=analog"],
        "training.local_rounds = adaptive: devices tell each other of it in frames of packets, and "
        "radio.scheme = analog has none; set a number",
    ),
    "adaptive to nothing": (
        ["training.local_rounds=adaptive"],
        "training.local_rounds = adaptive: nothing limits them; set a [budget], or all of "
        "theory.smoothness, gradient_variance, heterogeneity and initial_gap",
    ),
    "steps of AdamW normalised": (
        ["budget.joules=9", "training.local_rounds=adaptive", "training.optimiser=adamw"],
        "training.averaging = normalised: divides by the steps of SGD, which mean nothing to "
        "training.optimiser = adamw; use plain",
    ),
    "adaptive without a clock": (
        [
            "theory.smoothness=1",
            "theory.gradient_variance=1",
            "theory.heterogeneity=1",
            "theory.initial_gap=1",
            "training.local_rounds=adaptive",
            "runtime.clock=wall",
        ],
        "training.local_rounds = adaptive: follows modelled joules and seconds, and runtime.clock = wall "
        "keeps none; use virtual or paced",
    ),
    "measured over several threads": (
        ["device.compute=measured", "runtime.torch_threads=2"],
        "device.compute = measured: counts the processor time of one thread; set runtime.torch_threads = 1",
    ),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_what_contradicts_itself_is_refused(write, what):
    settings, says = CONTRADICTIONS[what]
    assert fault(write(""), settings) == says


@pytest.mark.parametrize(
    "what", [what for what, (settings, _) in CONTRADICTIONS.items() if len(settings) > 1]
)
def test_without_its_last_setting_a_contradiction_is_none(write, what):
    settings, _ = CONTRADICTIONS[what]
    load(write(""), settings[:-1])


@pytest.mark.parametrize(
    "settings",
    [
        ["radio.scheme=analog", "radio.analog.gain_threshold=13"],  # exp(-13) = 2e-6
        ["radio.scheme=analog", "radio.analog.gain_threshold=1", "radio.fading=none"],
        ["radio.analog.gain_threshold=99"],  # nobody uses it
        ["radio.burst_packets=1", "radio.burst_share=0.5"],
        ["radio.burst_packets=3", "radio.burst_share=0.75"],
        ["radio.burst_share=0.99"],
        ["radio.coherence_packets=4", "radio.coherence_rounds=1"],
        ["radio.packet_errors=sionna", "radio.code_rate=0.5"],
        ["radio.scheme=analog", "radio.access=parallel"],
        ["mobility.speed_min_m_s=2", "mobility.speed_max_m_s=2"],
        ["runtime.clock=wall", "transport.kind=memory"],
        ["device.compute=measured", "runtime.torch_threads=1"],
        ["radio.doppler_hz=inf"],
        ["radio.doppler_hz=0"],
        ["aggregation.step_decay_rounds=inf"],
    ],
    ids=" ".join,
)
def test_what_is_just_allowed_is_allowed(write, settings):
    load(write(""), settings)


@pytest.mark.parametrize(
    ("fading", "threshold"),
    [
        ({"fading": "rayleigh"}, -math.log(SILENCED)),
        ({"fading": "none"}, 1.0),
        ({"fading": "rician", "rician_k": 6.0}, None),
        ({"fading": "nakagami", "nakagami_m": 2.0}, None),
    ],
    ids=lambda value: str(value),
)
def test_a_threshold_is_refused_exactly_where_next_to_nobody_is_above_it(fading, threshold):
    kind = Radio(**fading).fade
    if threshold is None:  # by bisection of the survival function
        low, high = 0.0, 100.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if survival_probability(kind, middle) >= SILENCED else (low, middle)
        threshold = low
    Radio(scheme="analog", analog=Analog(gain_threshold=threshold * (1 - 1e-6)), **fading)
    with pytest.raises(ValueError, match="silences every link"):
        Radio(scheme="analog", analog=Analog(gain_threshold=threshold * (1 + 1e-6)), **fading)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("radio.analog.payload=differences", "differences"),
        ("radio.analog.superposition = orthogonal", "orthogonal"),
        ("radio.analog.refresh_rounds=3", 3),
        ("radio.analog.gain_threshold=0.25", 0.25),
        ("radio.doppler_hz=inf", math.inf),
        ("radio.shared_bandwidth=true", True),
        ("runtime.clock=paced", "paced"),
        ("device.idle_power_w=0", 0),
        ("mobility.kind=random_waypoint", "random_waypoint"),
    ],
)
def test_an_override_reaches_as_deep_as_the_sections_go(write, override, value):
    found = load(write("[radio.analog]\ngain_error_variance = 0.5\n"), [override])
    assert found.radio.analog.gain_error_variance == 0.5  # what stands beside it stays
    for part in override.partition("=")[0].strip().split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("radio.analog.payload=x", "radio.analog.payload = 'x': expected 'models' or 'differences'"),
        ("radio.analog=over_the_air", "radio.analog = 'over_the_air': expected a section with keys"),
        ("radio.analog.x.y=1", "unknown key 'radio.analog.x'"),
        ("radio.fading.kind=none", "radio.fading = {'kind': 'none'}: expected 'none', "),
    ],
)
def test_an_override_that_goes_astray_is_refused(write, override, says):
    assert says in fault(write(""), [override])


def test_the_schema_describes_every_knob_of_the_air_and_its_limits():
    found = json.loads(schema())["$defs"]
    for name, model in SECTIONS.items():
        properties = found[model.__name__]["properties"]
        assert properties.keys() == model.model_fields.keys()
        for key, entry in properties.items():
            assert "default" in entry, f"{name}.{key} has no default"
            if "$ref" not in entry:  # a section has keys of its own
                assert entry["description"].endswith("."), f"{name}.{key} has no help"
    assert found["Radio"]["properties"]["bandwidth_hz"] | {"description": ""} == {
        "default": 1e6,
        "description": "",
        "minimum": 1,
        "maximum": 1e12,
        "title": "Bandwidth Hz",
        "type": "number",
    }
    assert found["Radio"]["properties"]["doppler_hz"]["default"] == "inf"
    assert found["Analog"]["properties"]["payload"]["enum"] == ["models", "differences"]


# Every knob away from its default; in two experiments, since some contradict each other.
KNOBS = Experiment(
    devices=9,
    training=Training(momentum=0.5),
    graph=Graph(kind="torus", rows=3),
    codec=Codec(packet_bytes=256),
    aggregation=Aggregation(
        scheme="isolated",
        epoch_rounds=7,
        chunks=3,
        sweeps=2,
        round_deadline_air_s=0.25,
        step=0.5,
        step_decay_rounds=20,
        step_exponent=0.6,
    ),
    radio=Radio(
        scheme="analog",
        tx_power_dbm=3.0,
        bandwidth_hz=2e6,
        noise_density_dbm_hz=-170.0,
        noise_figure_db=5.0,
        tx_antenna_gain_dbi=2.0,
        rx_antenna_gain_dbi=-1.5,
        snr="given",
        snr_db=1 / 3,
        snr_file="/measured/snr.txt",
        path_loss="3gpp",
        path_loss_exponent=3.7,
        reference_loss_db=38.5,
        carrier_hz=5.9e9,
        shadowing_std_db=6.0,
        fading="nakagami",
        rician_k=2.5,
        nakagami_m=1.5,
        coherence_packets=7,
        doppler_hz=12.5,
        modulation="qam64",
        rate="adaptive",
        target_packet_loss=0.05,
        code_rate=0.5,
        coding_gain_db=4.0,
        burst_packets=5.0,
        burst_share=0.2,
        burst_ber=0.25,
        arq="selective_repeat",
        max_attempts=6,
        bad_packets="accept",
        max_abs_value=50.0,
        symmetric=False,
        access="parallel",
        cast="unicast",
        analog=Analog(
            superposition="orthogonal",
            gain_threshold=0.2,
            gain_error_variance=0.01,
            payload="differences",
            refresh_rounds=5,
        ),
    ),
    device=Device(
        cpu_hz=2e9,
        cycles_per_sample=1e6,
        switched_capacitance=2e-28,
        compute="measured",
        rx_power_w=0.1,
        idle_power_w=0.02,
    ),
    runtime=Runtime(
        liveness_wall_s=20,
        coordinator_grace_s=math.inf,
        join_wall_s=60,
        clock="paced",
        pace=2.5,
        pace_slack_wall_s=0.1,
    ),
)
OTHERS = Experiment(
    aggregation=Aggregation(staleness_rounds=2),
    radio=Radio(
        symmetric=False,
        coherence_rounds=3,
        packet_errors="sionna",
        code_rate=0.5,
        access="parallel",
        shared_bandwidth=True,
    ),
    mobility=Mobility(
        kind="random_waypoint", speed_min_m_s=1.5, speed_max_m_s=15.0, pause_s=3.0, round_s=0.5
    ),
    device=Device(frequency="just_in_time", cpu_min_hz=2e8),
    budget=Budget(run_seconds=100),
    runtime=Runtime(torch_threads=2),
)


def changed(experiment):
    """Return the keys that differ from their defaults, dotted."""
    return {
        f"{name}.{key}"
        for name, model in SECTIONS.items()
        for key, field in model.model_fields.items()
        if getattr(section_of(experiment, name), key) != field.get_default(call_default_factory=True)
    }


def section_of(experiment, name):
    for part in name.split("."):
        experiment = getattr(experiment, part)
    return experiment


def test_the_round_trip_below_has_every_knob():
    every = {f"{name}.{key}" for name, model in SECTIONS.items() for key in model.model_fields}
    assert changed(KNOBS) | changed(OTHERS) == every


@pytest.mark.parametrize("experiment", [KNOBS, OTHERS], ids=["knobs", "others"])
def test_dump_then_load_is_the_same_experiment(write, experiment):
    text = dump(experiment)
    assert load(write(text)) == experiment
    written = tomllib.loads(text)
    for name, model in SECTIONS.items():
        table = written
        for part in name.split("."):
            table = table[part]
        assert table.keys() == model.model_fields.keys()
