"""Mean SNRs from a file: what is read, and what is refused in one line."""

import numpy as np
import pytest

from coordinator.network import lay_out, row
from coordinator.snr_matrix import read_snr_matrix
from protocol.config import Experiment, Graph, Radio
from protocol.errors import BadInput
from protocol.experiment_file import dump, load

EDGES = [(0, 1), (1, 2)]
GOOD = [[0.0, 12.5, -3.0], [12.5, 0.0, 7.25], [-3.0, 7.25, 0.0]]


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "snr.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def fault(file, num_devices=3, edges=EDGES):
    """Return what is wrong with a file, after checking that it is said in one line that names it."""
    with pytest.raises(BadInput) as caught:
        read_snr_matrix(file, num_devices, edges)
    message = str(caught.value)
    assert message.startswith(f"radio.snr_file = {file}: ")
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(
    "text",
    [
        "0 12.5 -3\n12.5 0 7.25\n-3 7.25 0\n",
        "0,12.5,-3\n12.5,0,7.25\n-3,7.25,0",
        "0, 12.5,\t-3,\n 12.5 ,0 7.25\n\n-3   7.25   0\n",
        "# dB, measured at night\n0 12.5 -3  # device 0\n12.5 0 7.25\n#\n-3 7.25 0\n",
        "0 12.5 -3\r\n12.5 0 7.25\r\n-3 7.25 0\r\n",
        "0 1.25e1 -3\n+12.5 0 725e-2\n-3.00 7.25 -0\n",
        "\ufeff0,12.5,-3\n12.5,0,7.25\n-3,7.25,0",
    ],
    ids=["white-space", "commas", "both", "comments", "windows", "every-way-of-writing", "byte-order-mark"],
)
def test_a_matrix_is_read(write, text):
    matrix = read_snr_matrix(write(text), 3, EDGES)
    assert matrix.tolist() == GOOD


def test_a_link_may_have_another_number_in_each_direction(write):
    assert read_snr_matrix(write("0 12.5 -3\n10 0 7.25\n99 -4 0\n"), 3, [*EDGES, (0, 2)]).tolist() == [
        [0, 12.5, -3],
        [10, 0, 7.25],
        [99, -4, 0],
    ]


def test_rows_are_senders_and_columns_receivers(write):
    """Row i, column j is how well j hears i: so it is told, and so it stands at both ends of the link."""
    asked = Experiment(
        devices=3, graph=Graph(kind="star"), radio=Radio(snr="matrix", snr_file=write("0 9 8\n7 0 6\n5 4 0"))
    )
    network = lay_out(asked)
    assert network.graph.edges[0, 1]["mean_snr_db"] == {0: 7, 1: 9}
    assert network.graph.edges[0, 2]["mean_snr_db"] == {0: 5, 2: 8}
    assert [(link.mean_snr_db, link.mean_snr_there_db) for link in row(network, 0)] == [(7, 9), (5, 8)]
    assert [(link.mean_snr_db, link.mean_snr_there_db) for link in row(network, 2)] == [(8, 5)]


def test_what_is_no_link_may_be_unknown(write):
    matrix = read_snr_matrix(write("nan 12.5 nan\n12.5 -inf 7.25\ninf 7.25 0\n"), 3, EDGES)
    assert matrix[0, 1] == 12.5


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(
    ("snr_db", "shown"),
    [
        ("nan", "nan"),
        ("inf", "inf"),
        ("-inf", "-inf"),
        ("1e999", "inf"),
        # As decibels these are numbers; as ratios they are infinite, or 0.
        ("4000", "4000"),
        ("-4000", "-4000"),
        ("201", "201"),
        ("-101", "-101"),
    ],
)
def test_each_direction_of_a_link_needs_a_number_that_radios_have(write, snr_db, shown, there):
    good_bad = (snr_db, "12.5") if there else ("12.5", snr_db)
    message = fault(write("0 {} 0\n{} 0 7\n0 7 0\n".format(*good_bad)))
    direction = "0 to 1" if there else "1 to 0"
    assert message.endswith(f"from {direction} has {shown} dB; must be >= -100 and <= 200 dB")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has 0 rows of no numbers, expected 3 of 3"),
        ("# nothing\n\n", "has 0 rows of no numbers, expected 3 of 3"),
        ("0 1\n1 0\n", "has 2 rows of 2 numbers, expected 3 of 3"),
        ("0 1 2\n1 0 2\n", "has 2 rows of 3 numbers, expected 3 of 3"),
        ("0 1\n1 0\n2 2\n", "has 3 rows of 2 numbers, expected 3 of 3"),
        ("0 1 2\n1 0\n2 2 0\n", "has 3 rows of 2 or 3 numbers, expected 3 of 3"),
        ("0 1 2\n1 0 2\n2 2 0\n0 0 0\n", "has 4 rows of 3 numbers, expected 3 of 3"),
        ("0 1 2 1 0 2 2 2 0\n", "has 1 rows of 9 numbers, expected 3 of 3"),
        ("0 1 2\n1 0 # 2\n2 2 0\n", "has 3 rows of 2 or 3 numbers, expected 3 of 3"),
    ],
)
def test_a_matrix_of_another_size_is_refused(write, text, says):
    assert fault(write(text)).endswith(says)


@pytest.mark.parametrize("word", ["loud", "0x10", "1;2", "-", "12dB", "1.2.3"])
def test_what_is_no_number_is_named(write, word):
    message = fault(write(f"0 1 2\n1 0 {word}\n2 2 0\n"))
    assert "not a matrix of numbers" in message
    assert f"'{word}'" in message


def test_a_file_that_cannot_be_read_is_said_so(tmp_path, write):
    message = fault(str(tmp_path / "none.txt"))
    assert "cannot be read" in message
    assert "No such file or directory" in message
    assert "Is a directory" in fault(str(tmp_path))
    assert "cannot be read ('utf-8' codec" in fault(write(b"0 1 \xff\n"))


def test_a_single_device_has_a_matrix_of_one(write):
    assert read_snr_matrix(write("0\n"), 1, []).tolist() == [[0.0]]


def snrs_db(experiment):
    return [snr_db for _, _, snr_db in lay_out(experiment).graph.edges(data="mean_snr_db")]


@pytest.fixture
def study(tmp_path):
    """Write an experiment with its matrix in a folder of their own."""
    folder = tmp_path / "study"
    folder.mkdir()
    np.savetxt(folder / "snr.txt", GOOD)
    (folder / "e.toml").write_text(
        'devices = 3\n[graph]\nkind = "star"\n[radio]\nsnr = "matrix"\nsnr_file = "logs/../snr.txt"\n'
    )
    return folder / "e.toml"


def test_a_matrix_lies_relative_to_the_experiment_not_to_the_shell(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment = load(study.relative_to(tmp_path))
    assert experiment.radio.snr_file == str(study.parent / "snr.txt")
    assert snrs_db(experiment) == [{0: 12.5, 1: 12.5}, {0: -3.0, 2: -3.0}]
    copied = tmp_path / "resolved.toml"
    copied.write_text(dump(experiment))
    assert load(copied) == experiment  # the resolved copy of a run's folder points to the same file


def test_another_file_may_be_named_on_the_command_line(study):
    other = study.parent / "other.txt"
    np.savetxt(other, 2 * np.array(GOOD))
    experiment = load(study, ["radio.snr_file=other.txt"])
    assert experiment.radio.snr_file == str(other)
    assert snrs_db(experiment) == [{0: 25.0, 1: 25.0}, {0: -6.0, 2: -6.0}]


def test_without_a_matrix_there_is_no_file_to_look_for(tmp_path):
    (tmp_path / "e.toml").write_text("devices = 3\n")
    assert load(tmp_path / "e.toml").radio.snr_file == ""


def test_a_matrix_that_nobody_asked_for_is_not_read(tmp_path):
    nowhere = str(tmp_path / "none.txt")
    lay_out(Experiment(devices=3, radio=Radio(snr_file=nowhere)))
    with pytest.raises(BadInput, match=r"cannot be read"):
        lay_out(Experiment(devices=3, graph=Graph(), radio=Radio(snr="matrix", snr_file=nowhere)))
