"""What a device's process finds in its environment."""

import pytest

from node.place import Ranked, ranked
from protocol.errors import BadInput

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "alpha",
    "MASTER_PORT": "29500",
    "HOME": "/home",
}


def test_torchrun_tells_its_processes_their_numbers():
    assert ranked(TORCHRUN) == Ranked(rank=5, world_size=8, local_rank=1)


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"])
@pytest.mark.parametrize("left", [{}, {"": ""}], ids=["absent", "empty"])
def test_half_of_what_it_takes_to_meet_is_nothing(name, left):
    rest = {key: value for key, value in TORCHRUN.items() if key != name}
    assert ranked(rest | ({name: ""} if left else {})) is None


def test_without_a_number_on_its_host_a_process_has_the_one_among_all():
    rest = {key: value for key, value in TORCHRUN.items() if key != "LOCAL_RANK"}
    assert ranked(rest) == Ranked(rank=5, world_size=8, local_rank=5)


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK"])
@pytest.mark.parametrize("value", ["-1", "first", "1.0"])
def test_a_number_that_is_none_is_refused_in_one_line(name, value):
    with pytest.raises(BadInput, match=rf"\b{name} = {value}\b.*unset them") as refused:
        ranked(TORCHRUN | {name: value})
    assert "\n" not in str(refused.value)
