"""Experiment files: what is wrong is said in one line that names what would be right."""

import math
import re
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.config import Aggregation, Budget, Codec, Experiment, Graph, Radio, Runtime, Theory, Transport
from protocol.errors import BadInput
from protocol.experiment_file import dump, load, nearest, parse
from protocol.learning import Data, Model, Training
from protocol.quantities import Uniform

fixed = settings(derandomize=True, deadline=None)


def fault(path, overrides=()):
    with pytest.raises(BadInput) as caught:
        load(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_empty_file_is_the_default_experiment(write):
    assert load(write("")) == Experiment()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("devcies = 4", "unknown key 'devcies': did you mean 'devices'?"),
        ("[radio]\ntx_powr_dbm = 3", "unknown key 'radio.tx_powr_dbm': did you mean 'tx_power_dbm'?"),
        ("[radoi]\n", "unknown key 'radoi': did you mean 'radio'?"),
        ("[data]\nalpha = 1", "unknown key 'data.alpha': did you mean 'dirichlet_alpha'?"),
        ('modulation = "qpsk"', "unknown key 'modulation': did you mean 'radio.modulation'?"),
        ("[graph]\nrounds = 3", "unknown key 'graph.rounds': did you mean 'rounds', outside of any section?"),
        ("[codec]\nzzz = 3", "unknown key 'codec.zzz': known here: kind, packet_bytes"),
    ],
)
def test_a_misspelt_key_names_the_right_one(write, text, hint):
    assert hint in fault(write(text))


def test_the_nearest_word_or_all_of_them():
    assert nearest("rign", ["ring", "star"]) == "did you mean 'ring'?"
    assert nearest("xyz", ["star", "ring"]) == "known here: ring, star"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("devices = true", "devices = True: is neither true nor false"),
        ("[budget]\njoules = true", "budget.joules = True: is neither true nor false"),
        ("devices = 0", "devices = 0: must be >= 1 and <= 4096"),
        ("rounds = 100000000", "rounds = 100000000: must be >= 1 and <= 10000000"),
        ("seed = -1", "seed = -1: must be >= 0 and < 9223372036854775808"),
        ("[radio]\ntx_power_dbm = 300", "radio.tx_power_dbm = 300: must be >= -60 and <= 60 dBm"),
        ("[radio]\nbandwidth_hz = -1", "radio.bandwidth_hz = -1: must be >= 1 and <= 1e+12 Hz"),
        ("[radio]\nnoise_figure_db = 51", "radio.noise_figure_db = 51: must be >= 0 and <= 50 dB"),
        (
            "[radio]\nnoise_density_dbm_hz = nan",
            "noise_density_dbm_hz = nan: must be >= -250 and <= 0 dBm/Hz",
        ),
        ("[radio]\npath_loss_exponent = 0.5", "radio.path_loss_exponent = 0.5: must be >= 1 and <= 8"),
        ("[codec]\npacket_bytes = 5", "codec.packet_bytes = 5: must be >= 16 and <= 65536 bytes"),
        ("[graph]\nradius_m = inf", "graph.radius_m = inf: must be finite and > 0 metres"),
        ("[aggregation]\nround_deadline_air_s = 0", "round_deadline_air_s = 0: must be > 0 seconds"),
        (
            "[runtime]\nliveness_wall_s = 1e9",
            "liveness_wall_s = 1000000000.0: must be > 0 and <= 86400 seconds",
        ),
    ],
)
def test_out_of_range_says_range_and_unit(write, text, said):
    assert fault(write(text)).endswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[graph]\nkind = "rign"', "graph.kind = 'rign': expected 'ring', 'torus', "),
        ('[radio]\nmodulation = "fm"', "radio.modulation = 'fm': expected 'bpsk', 'qpsk', "),
        ('[radio]\ntx_power_dbm = "loud"', "radio.tx_power_dbm = 'loud': input should be a valid number"),
        ("radio = 3", "radio = 3: expected a section with keys"),
        ('name = "a/b"', "name = 'a/b': string should match"),
        ("[model]\nchannels = [8, 0]", "model.channels.1 = 0: must be >= 1 and <= 4096"),
    ],
)
def test_a_wrong_value_says_what_is_expected(write, text, said):
    assert said in fault(write(text))


def test_several_faults_are_counted(write):
    message = fault(write("devices = 0\nrounds = 0\ncodec.packet_bytes = 1"))
    assert message.endswith("devices = 0: must be >= 1 and <= 4096 (and 2 more)")


def test_a_long_value_is_not_repeated_in_full(write):
    assert len(fault(write(f"rounds = '{'ab ' * 500}'"))) < 250


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"devices": 7, "graph": {"kind": "torus"}}, "graph.kind = torus: 7 devices do not fill a grid"),
        ({"devices": 8, "graph": {"kind": "torus", "rows": 3}}, "graph.kind = torus: 8 devices do not fill"),
        ({"graph": {"kind": "watts_strogatz", "degree": 8}}, "graph.degree = 8: must be below the 8 devices"),
        ({"graph": {"kind": "expander", "degree": 9}}, "graph.degree = 9: must be below the 8 devices"),
        (
            {"graph": {"kind": "watts_strogatz", "degree": 3}},
            "graph.degree = 3: watts_strogatz joins a device to as many before",
        ),
        ({"graph": {"kind": "edges"}}, "graph.kind = edges: needs graph.file"),
        ({"graph": {"kind": "star", "weights": "uniform"}}, "graph.weights = uniform: needs a regular graph"),
        (
            {"data": {"dataset": "synthetic"}, "model": {"kind": "vit"}},
            "model.kind = vit: synthetic samples are no images",
        ),
        (
            {"data": {"dataset": "fashion_mnist"}, "model": {"kind": "vit", "patch_size": 8}},
            "model.patch_size = 8: must divide the 28 pixels of an image's side",
        ),
        (
            {"model": {"kind": "vit", "width": 128, "heads": 3}},
            "model.heads = 3: must divide model.width = 128",
        ),
        ({"model": {"kind": "vit", "norm": "none"}}, "model.norm = none: a vit has LayerNorm in any case"),
        (
            {"training": {"optimiser": "adamw", "momentum": 0.9}},
            "training.momentum = 0.9: is SGD's; with training.optimiser = adamw set training.adamw_betas",
        ),
        ({"training": {"optimizer": "adamw"}}, "unknown key 'training.optimizer': did you mean 'optimiser'?"),
        ({"data": {"dataset": "synthetic"}}, "model.kind = cnn: synthetic samples are no images"),
        (
            {"data": {"dataset": "synthetic", "num_samples": 10}, "model": {"kind": "mlp"}},
            "data.num_samples = 10: needs two for each of 10 classes",
        ),
        (
            {"transport": {"kind": "gloo"}, "aggregation": {"scheme": "auto"}},
            "transport.kind = gloo: devices wait for all their neighbours in every round, which does not go "
            "with aggregation.scheme = auto (use zmq)",
        ),
        (
            {
                "transport": {"kind": "nccl"},
                "aggregation": {"staleness_rounds": 2},
                "radio": {"symmetric": False},
            },
            "transport.kind = nccl: devices wait for all their neighbours in every round, which does not go "
            "with aggregation.staleness_rounds = 2 (use zmq)",
        ),
        (
            {"transport": {"kind": "gloo"}, "budget": {"seconds": 5}},
            "transport.kind = gloo: devices wait for all their neighbours in every round, which does not go "
            "with budget.seconds (use zmq)",
        ),
    ],
)
def test_what_cannot_work_together_is_refused(table, said):
    with pytest.raises(BadInput, match=r"^here: ") as caught:
        parse(table, source="here")
    assert str(caught.value).startswith(f"here: {said}")


def test_unreadable_files(tmp_path, write):
    assert (
        fault(tmp_path / "nowhere.toml")
        == f"{tmp_path}/nowhere.toml: cannot be read (No such file or directory)"
    )
    assert "cannot be read (Is a directory)" in fault(tmp_path)
    assert "cannot be read ('utf-8' codec can't decode byte 0xff" in fault(write(b"\xff\xfe"))


@pytest.mark.parametrize(
    "text",
    ["devices = ", "devices 4", "[radio\n", "seed = 1\nseed = 2", "a = " + "[" * 9999, "a = " + "9" * 9999],
)
def test_not_toml(write, text):
    assert "experiment.toml: not TOML: " in fault(write(text))


@fixed
@given(st.binary(max_size=60) | st.text("abcs=.[]{}\"'#1\n \ue000", max_size=60))
def test_arbitrary_files_are_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "arbitrary.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        assert isinstance(load(path), Experiment)
    except BadInput as refusal:
        message = str(refusal)
    else:
        return
    assert message.startswith(str(path))
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("devices=4", None, "devices", 4),
        ("name=my-run", None, "name", "my-run"),
        ('name="my-run"', None, "name", "my-run"),
        ("graph.kind=torus", "graph", "kind", "torus"),
        ("graph.kind = torus ", "graph", "kind", "torus"),
        ("radio.tx_power_dbm=-3.5", "radio", "tx_power_dbm", -3.5),
        ("radio.bandwidth_hz=2e6", "radio", "bandwidth_hz", 2e6),
        ("radio.symmetric=false", "radio", "symmetric", False),
        ("model.channels=[4, 8, 16]", "model", "channels", (4, 8, 16)),
        ("model.hidden=[]", "model", "hidden", ()),
        ("aggregation.round_deadline_air_s=inf", "aggregation", "round_deadline_air_s", math.inf),
        ("aggregation.round_deadline_air_s=0.5", "aggregation", "round_deadline_air_s", 0.5),
        ("graph={kind = 'star', area_m = 5}", None, "graph", Graph(kind="star", area_m=5)),
    ],
)
def test_overrides_of_every_type(write, override, section, key, value):
    experiment = load(write('seed = 3\n[radio]\nscheme = "ideal"'), [override])
    assert (experiment.seed, experiment.radio.scheme) == (3, "ideal")
    assert getattr(getattr(experiment, section) if section else experiment, key) == value


def test_the_last_override_wins(write):
    assert load(write("rounds = 3"), ["rounds=4", "rounds=5"]).rounds == 5


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("devices", "--set devices: expected section.key=value"),
        ("=4", "--set =4: expected section.key=value"),
        ("radio..kind=4", "--set radio..kind=4: expected section.key=value"),
        ("seed.x=4", "--set seed.x=4: seed is a value, not a section"),
        ("devices=0", "devices = 0: must be >= 1 and <= 4096"),
        ("devices=many", "devices = 'many': input should be a valid integer"),
        ("radio.modulaton=qpsk", "unknown key 'radio.modulaton': did you mean 'modulation'?"),
        ("seed=2025-01-01", "seed = datetime.date(2025, 1, 1): input should be a valid integer"),
        ("name=", "name = '': string should match"),
        ("name=" + "[" * 9999, "name = "),
    ],
)
def test_bad_overrides(write, override, said):
    assert said in fault(write("seed = 3"), [override])


FULL = Experiment(
    name="full",
    seed=2**63 - 1,
    devices=9,
    rounds=2,
    data=Data(partition="dirichlet", dirichlet_alpha=0.1),
    model=Model(channels=(4, 8, 16), hidden=()),
    training=Training(learning_rate=1e-3, momentum=0.9),
    codec=Codec(kind="int8", packet_bytes=1500),
    aggregation=Aggregation(round_deadline_air_s=0.25),
    graph=Graph(kind="torus", rows=3, area_m=1 / 3),
    radio=Radio(modulation="qam256", coherence_packets=7, symmetric=False, bandwidth_hz=1e12),
    transport=Transport(kind="memory"),
    runtime=Runtime(coordinator_grace_s=math.inf),
    budget=Budget(joules=(1.0, 2.5, math.inf) * 3, seconds=Uniform(low=10, high=1e3), run_joules=20),
    theory=Theory(smoothness=4.5, heterogeneity=0, target=1e-3),
)


@pytest.mark.parametrize("experiment", [Experiment(), FULL], ids=["default", "full"])
def test_dump_then_load_is_the_same_experiment(write, experiment):
    assert load(write(dump(experiment, comments=["one", "two\nthree"]))) == experiment


def test_dump_spells_out_every_default_and_the_comments():
    text = dump(Experiment(), comments=["made by a test", "of two\nlines"])
    assert text.startswith("# made by a test\n# of two\n# lines\n")
    written = tomllib.loads(text)
    assert written["aggregation"]["round_deadline_air_s"] == math.inf
    assert written.keys() == Experiment.model_fields.keys()
    assert written["radio"].keys() == Radio.model_fields.keys()
    assert written["theory"] == {"loss_floor": 0}  # the rest is not known, and TOML has no word for that


def test_edges_lie_relative_to_the_experiment_not_to_the_shell(tmp_path, monkeypatch):
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "e.toml").write_text('[graph]\nkind = "edges"\nfile = "graphs/../edges.txt"\n')
    monkeypatch.chdir(tmp_path)
    wanted = str(folder / "edges.txt")
    assert load((folder / "e.toml").relative_to(tmp_path)).graph.file == wanted
    copied = tmp_path / "resolved.toml"
    copied.write_text(dump(load(folder / "e.toml")))
    assert load(copied).graph.file == wanted  # the resolved copy of a run's folder points to the same file


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("fast", "training.local_rounds = 'fast': expected 'adaptive'"),
        ("-1", "training.local_rounds = -1: must be >= 0 and <= 1000000"),
        ("true", "training.local_rounds = True: is neither true nor false"),
        ("1.5", "training.local_rounds = 1.5: input should be a valid integer, got a number with a fraction"),
    ],
)
def test_a_number_or_a_word_is_faulted_as_what_it_is(write, value, reason):
    with pytest.raises(BadInput, match=re.escape(reason)) as caught:
        load(write(""), [f"training.local_rounds={value}"])
    assert "\n" not in str(caught.value)
    assert "more" not in str(caught.value)
