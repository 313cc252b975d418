"""The axes of a sweep as they are typed, and the experiments that they make."""

from pathlib import Path

import pytest
from conftest import SMALL
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.sweep.axes import Axis, parse_axes
from coordinator.sweep.grid import label, lay_out_grid
from protocol.errors import BadInput
from protocol.experiment_file import load

fixed = settings(derandomize=True, deadline=None)
EXPERIMENTS = Path(__file__).parents[1] / "experiments"


@pytest.mark.parametrize(
    ("argument", "key", "texts"),
    [
        ("radio.tx_power_dbm=0:20:5", "radio.tx_power_dbm", ("0", "5", "10", "15", "20")),
        ("seed=1:3", "seed", ("1", "2", "3")),
        ("graph.kind=ring, complete", "graph.kind", ("ring", "complete")),
        ("devices=8", "devices", ("8",)),
        (" radio.symmetric = true,false", "radio.symmetric", ("true", "false")),
        ("model.hidden=[16],[32, 32],[]", "model.hidden", ("[16]", "[32, 32]", "[]")),
        (
            "device.cpu_hz={low = 1e8, high = 1e9},[1e9, 2e9],1e9",
            "device.cpu_hz",
            ("{low = 1e8, high = 1e9}", "[1e9, 2e9]", "1e9"),
        ),
        ("radio.bandwidth_hz=1e6:2e6:5e5", "radio.bandwidth_hz", ("1000000", "1500000", "2000000")),
    ],
)
def test_an_axis_is_a_range_a_list_or_one_value(argument, key, texts):
    assert parse_axes([argument]) == (Axis(key, texts),)


NO_AXES = {
    "no equals": (["seed"], "expected KEY=VALUES"),
    "no key": (["=1:3"], "expected KEY=VALUES"),
    "no values": (["seed="], "expected values between the commas"),
    "an empty value": (["graph.kind=ring,,star"], "expected values between the commas"),
    "an empty range": (["seed=3:1"], "expected FIRST <= LAST"),
    "a range that misses its end": (["seed=1:10:4"], "come to 9, not to 10"),
    "a range of words": (["graph.kind=ring:star"], "expected a number"),
    "an axis twice": (["seed=1:3", "devices=4", "seed=4:5"], "seed=4:5: seed is an axis already"),
    "a grid without end": (["seed=1:200", "devices=1:100"], "a grid of 20,000 points; at most 10,000"),
    "a range without end": (["seed=1:1000000000"], "more than 10,000 points"),
}


@pytest.mark.parametrize("fault", NO_AXES)
def test_what_are_no_axes_is_refused_in_one_line(fault):
    arguments, what = NO_AXES[fault]
    with pytest.raises(BadInput, match=what) as refusal:
        parse_axes(arguments)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_grid_may_have_ten_thousand_points():
    assert len(parse_axes(["seed=1:100", "devices=1:100"])) == 2


@fixed
@given(st.lists(st.text("ab.=:,[]01 -", max_size=12), min_size=1, max_size=3))
def test_any_arguments_are_axes_or_refused_in_one_line(arguments):
    try:
        axes = parse_axes(arguments)
    except BadInput as refusal:
        assert_one_line(str(refusal))
    else:
        assert all(axis.key and axis.texts and all(axis.texts) for axis in axes)


def assert_one_line(message):
    assert message
    assert len(message.splitlines()) == 1


def grid(small, *axes, sets=()):
    return lay_out_grid(small, sets, axes)


def test_every_combination_is_what_set_makes_of_it_and_the_last_axis_varies_fastest(small):
    found = grid(small, "radio.tx_power_dbm=0:5:5", "seed=1:2", sets=["rounds=3"])
    assert found.name == "small"
    assert found.keys == ("radio.tx_power_dbm", "seed")
    for point, (power, seed) in zip(found.points, [(0, 1), (0, 2), (5, 1), (5, 2)], strict=True):
        assert point.settings == {"radio.tx_power_dbm": power, "seed": seed}
        sets = ["rounds=3", f"radio.tx_power_dbm={power}", f"seed={seed}"]
        assert point.experiment == load(small, sets)


def test_numbers_are_what_the_experiment_takes_and_words_what_was_typed(small):
    settings = grid(small, "radio.tx_power_dbm=5", "devices=6", "graph.kind=ring", "radio.symmetric=false")
    [point] = settings.points
    power, devices, kind, symmetric = point.settings.values()
    assert (power, devices, kind, symmetric) == (5.0, 6, "ring", False)
    assert [type(value) for value in (power, devices, symmetric)] == [float, int, bool]
    assert [label(value) for value in (power, 0.1, 1e22, devices, symmetric)] == [
        "5",
        "0.1",
        "1e+22",
        "6",
        "false",
    ]


def test_a_point_has_the_same_folder_whatever_the_order_and_the_other_values(small):
    names = {p.name for p in grid(small, "radio.tx_power_dbm=0:5:5", "seed=1:2", "graph.kind=ring").points}
    assert "graph.kind=ring,radio.tx_power_dbm=5,seed=2" in names
    more = grid(small, "seed=2", "graph.kind=star,ring", "radio.tx_power_dbm=0:5:2.5")
    assert {p.name for p in more.points} >= {name for name in names if name.endswith("seed=2")}


def test_a_folder_can_be_named_after_any_value(small):
    [point] = grid(small, "model.hidden=[16, 8]", "graph.file=a/b").points
    assert point.name == "graph.file=a%2Fb,model.hidden=[16%2C%208]"
    assert point.title == "model.hidden=[16, 8], graph.file=a/b"


NO_GRIDS = {
    "unknown key": (["radio.tx_powr_dbm=0:20:5"], (), "did you mean 'tx_power_dbm'?"),
    "unknown section": (["radoi.tx_power_dbm=0:20:5"], (), "did you mean 'radio'?"),
    "a value out of range": (
        ["radio.tx_power_dbm=50:70:10"],
        (),
        "radio.tx_power_dbm=70: radio.tx_power_dbm = 70.* must be >= -60 and <= 60 dBm",
    ),
    "an unknown word": (["graph.kind=ring,rnig"], (), "graph.kind=rnig: graph.kind = 'rnig': expected"),
    "a combination that cannot be": (
        ["graph.kind=ring,torus", "devices=7:8"],
        (),
        "graph.kind=torus devices=7: graph.kind = torus: 7 devices do not fill a grid",
    ),
    "a value twice": (["radio.tx_power_dbm=5,0,5.0"], (), "radio.tx_power_dbm=5 occurs twice"),
    "swept and set": (["seed=1:2"], ["seed=3"], "--set seed=3: is swept as well"),
    "a section": (["radio=1"], (), "radio=1: radio = 1: expected a section with keys"),
    "a key in a value": (["devices.more=1"], (), "devices is a value, not a section"),
    "a name without end": (
        ["graph.file=" + "x" * 300],
        (),
        "makes a folder's name of 311 bytes, at most 200",
    ),
}


@pytest.mark.parametrize("fault", NO_GRIDS)
def test_a_grid_is_refused_before_anything_runs_if_one_point_is_no_experiment(small, fault):
    axes, sets, what = NO_GRIDS[fault]
    with pytest.raises(BadInput, match=what) as refusal:
        grid(small, *axes, sets=sets)
    assert_one_line(str(refusal.value))


def test_a_fault_of_the_file_is_not_blamed_on_an_axis(write, tmp_path):
    file = write(SMALL.replace("rounds = 6", "rounds = 0"))
    with pytest.raises(BadInput, match=rf"^{file} with --set: rounds = 0"):
        grid(file, "seed=1:2")
    with pytest.raises(BadInput, match=r"^seed=-1: seed = -1"):
        grid(write(SMALL), "seed=-1")
    with pytest.raises(BadInput, match=rf"^{tmp_path}/none.toml: cannot be read"):
        grid(tmp_path / "none.toml", "seed=1:2")


def test_an_axis_may_mend_what_the_file_alone_could_not_be(write):
    file = write(SMALL.replace("devices = 4", "devices = 7") + '[graph]\nkind = "torus"\n')
    assert len(grid(file, "devices=6,8").points) == 2
    with pytest.raises(BadInput, match=r"^devices=8 rounds=0: rounds = 0"):
        grid(file, "devices=8", "rounds=0")
