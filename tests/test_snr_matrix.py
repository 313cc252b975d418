"""Mean SNRs from a file: what is read, and what is refused in one line."""

import numpy as np
import pytest

from coordinator.network import lay_out
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


def test_only_links_must_be_alike_in_both_directions(write):
    one_sided = "0 12.5 -3\n12.5 0 7.25\n99 7.25 0\n"  # 0 and 2 are no neighbours
    assert read_snr_matrix(write(one_sided), 3, EDGES)[2, 0] == 99
    assert "link 0 - 2 has -3 dB one way and 99 dB the other" in fault(
        write(one_sided), edges=[*EDGES, (0, 2)]
    )


def test_what_is_no_link_may_be_unknown(write):
    matrix = read_snr_matrix(write("nan 12.5 nan\n12.5 -inf 7.25\ninf 7.25 0\n"), 3, EDGES)
    assert matrix[0, 1] == 12.5


@pytest.mark.parametrize(
    ("link", "says"),
    [
        (("12.5", "12.6"), "12.5 dB one way and 12.6 dB the other; expected one finite number"),
        (("nan", "nan"), "nan dB one way and nan dB the other; expected one finite number"),
        (("inf", "inf"), "inf dB one way and inf dB the other; expected one finite number"),
        (("-inf", "-inf"), "-inf dB one way"),
        (("1e999", "1e999"), "inf dB one way"),
    ],
)
def test_a_link_needs_one_finite_number(write, link, says):
    there, back = link
    assert f"link 0 - 1 has {says}" in fault(write(f"0 {there} 0\n{back} 0 7\n0 7 0\n"))


@pytest.mark.parametrize("snr_db", ["4000", "-4000", "1e300"])
def test_a_link_beyond_all_radios_is_refused(write, snr_db):
    """As decibels these are numbers; as ratios they are infinite, or 0."""
    assert "link 0 - 1 has " in fault(write(f"0 {snr_db} 0\n{snr_db} 0 7\n0 7 0\n"))


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
    assert [snr_db for _, _, snr_db in lay_out(experiment).graph.edges(data="mean_snr_db")] == [12.5, -3.0]
    copied = tmp_path / "resolved.toml"
    copied.write_text(dump(experiment))
    assert load(copied) == experiment  # the resolved copy of a run's folder points to the same file


def test_another_file_may_be_named_on_the_command_line(study):
    other = study.parent / "other.txt"
    np.savetxt(other, 2 * np.array(GOOD))
    experiment = load(study, ["radio.snr_file=other.txt"])
    assert experiment.radio.snr_file == str(other)
    assert [snr_db for _, _, snr_db in lay_out(experiment).graph.edges(data="mean_snr_db")] == [25.0, -6.0]


def test_without_a_matrix_there_is_no_file_to_look_for(tmp_path):
    (tmp_path / "e.toml").write_text("devices = 3\n")
    assert load(tmp_path / "e.toml").radio.snr_file == ""


def test_a_matrix_that_nobody_asked_for_is_not_read(tmp_path):
    nowhere = str(tmp_path / "none.txt")
    lay_out(Experiment(devices=3, radio=Radio(snr_file=nowhere)))
    with pytest.raises(BadInput, match=r"cannot be read"):
        lay_out(Experiment(devices=3, graph=Graph(), radio=Radio(snr="matrix", snr_file=nowhere)))
