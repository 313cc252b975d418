"""Which differences are real: Welch's test by hand, error rates by simulation, what cannot be compared."""

import json
import re
from io import StringIO

import numpy as np
import pytest
from bench_records import CASES, drawn_record, make_case, make_limits, make_measurement, make_record
from rich.console import Console
from scipy import stats

from coordinator.bench.compare import QUANTITIES, compare_records
from coordinator.bench.comparison_table import comparison_table
from coordinator.bench.record import SizeRecord, write
from coordinator.bench.welch import ratio_of, real
from protocol.errors import BadInput

NAMES = ("a.json", "b.json")
Z_99 = 2.576


def share_limit(share, n):
    """Return what a share of n trials stays below with 99.5 % probability if it is that."""
    return share + Z_99 * np.sqrt(share * (1 - share) / n)


@pytest.mark.parametrize("sizes", [(3, 3), (2, 5)])
def test_a_ratio_is_welchs(sizes):
    rng = np.random.default_rng(sum(sizes))
    a, b = (rng.lognormal(sigma=0.1, size=size) for size in sizes)
    found = ratio_of(a.tolist(), b.tolist())
    expected = stats.ttest_ind(np.log(b), np.log(a), equal_var=False)
    low, high = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((np.exp(low), np.exp(high)), rel=1e-9)
    assert found.ratio == pytest.approx(np.exp(np.log(b).mean() - np.log(a).mean()))


def test_numbers_that_never_vary_differ_or_do_not():
    assert ratio_of([2.0, 2.0], [2.0, 2.0]).p == 1
    different = ratio_of([2.0, 2.0], [3.0, 3.0])
    assert (different.ratio, different.p) == (pytest.approx(1.5), 0)


def test_claims_are_those_of_benjamini_and_hochberg():
    p = [0.041, 0.008, 0.039, 0.001, 0.2]  # by hand: 0.001 <= 0.01, 0.008 <= 0.02, 0.039 > 0.03, 0.041 > 0.04
    assert real(p) == [False, True, False, True, False]
    rng = np.random.default_rng(1)
    for _ in range(20):
        p = rng.uniform(size=30) ** 3
        assert real(p.tolist()) == (stats.false_discovery_control(p) <= 0.05).tolist()


def test_where_nothing_differs_there_is_hardly_ever_a_claim():
    """24 cases in three repeats, six floors that four cases share each: what a default bench compares."""
    rng, n, claims = np.random.default_rng(2), 1000, 0
    for _ in range(n):
        floors = 0.05 * rng.standard_normal((2, 6, 1, 1, 3))
        numbers = np.exp(0.05 * rng.standard_normal((2, 6, 4, 1, 3)) - floors).reshape(2, 24, 3)
        claims += any(real([ratio_of(*pair).p for pair in numbers.transpose(1, 0, 2).tolist()]))
    assert claims / n <= share_limit(0.05, n)
    assert claims  # a test that never claims anything would find nothing either


def test_no_difference_is_claimed_of_records_of_the_same_program_on_a_slower_day():
    """96 numbers a comparison; in one of a hundred a claim would be nothing strange, in six it would."""
    n = 100
    found = [
        compare_records(drawn_record(seed), drawn_record(1000 + seed, drift=1.3), names=NAMES)
        for seed in range(n)
    ]
    times = [[d for d in one.differences if d.quantity != "memory"] for one in found]
    assert sum(any(d.real for d in one.differences) for one in found) / n <= share_limit(0.05, n)
    # Seconds over their own floor: the drift of 30 % is not in any of them. 5 % of noise, over the root of 3.
    assert np.mean([np.log(d.ratio) for one in times for d in one]) == pytest.approx(0, abs=0.01)


def test_a_difference_of_20_percent_is_found():
    """Six of 24 cases slower, five repeats that vary by 3 %: nearly all are found, hardly any other."""
    slower = dict.fromkeys(CASES[::4], 1.2)
    hits = claims = false = 0
    n = 20
    for seed in range(n):
        a, b = (
            drawn_record(seed, repeats=5, std=0.03),
            drawn_record(500 + seed, repeats=5, std=0.03, slower=slower),
        )
        found = {(d.case, d.quantity) for d in compare_records(a, b, names=NAMES).differences if d.real}
        right = {(case, "round") for case in slower}
        hits += len(found & right)
        claims, false = claims + len(found), false + len(found - right)
    assert hits >= 0.9 * n * len(slower)
    assert false / claims <= share_limit(0.05, claims)


def test_a_real_difference_says_by_how_much_and_where():
    [case, *_] = CASES
    floors = [SizeRecord(size=case.size, limits=tuple(map(make_limits, range(3))))]

    def record(train_s):
        measurements = []
        for repeat, vary in enumerate((0.99, 1, 1.01)):
            plain = make_measurement(repeat, (0.01 + train_s) * vary)
            stages = plain.all_devices.stages | {"train": plain.all_devices.round}
            times = plain.all_devices.model_copy(update={"stages": stages})
            measurements.append(plain.model_copy(update={"all_devices": times}))
        return make_record([make_case(case, measurements)], floors)

    compared = compare_records(record(0.01), record(0.02), names=NAMES)
    assert [d.quantity for d in compared.differences] == list(QUANTITIES)
    assert [d.real for d in compared.differences] == [True, False, False, False]
    of_round = compared.differences[0]
    assert (of_round.a, of_round.b, of_round.ratio) == pytest.approx((0.02, 0.03, 1.5))
    assert 1 < of_round.low < 1.5 < of_round.high
    assert of_round.where == "train: 20 to 30 ms"
    console = Console(width=200, file=StringIO())
    console.print(comparison_table(compared))
    text = console.file.getvalue()
    assert "B is slower (train: 20 to 30 ms)" in text
    assert "1 of 4 differences are real" in text
    assert "DIFFERENT MACHINES" not in text


def test_only_cases_of_both_are_compared_and_other_machines_are_said_to_be_so():
    a, b = drawn_record(1), drawn_record(2)
    once = b.cases[0].model_copy(update={"measurements": b.cases[0].measurements[:1]})
    other = b.environment.model_copy(update={"machine": "another processor"})
    b = b.model_copy(update={"cases": (once, *b.cases[1:-1]), "environment": other})
    compared = compare_records(a, b, names=NAMES)
    assert {d.case for d in compared.differences} == set(CASES[1:-1])
    assert compared.left_out == (str(CASES[0]), str(CASES[-1]))
    assert not compared.same_machine
    assert compared.repeats == (3, 3)
    assert comparison_table(compared).caption.count("DIFFERENT MACHINES: A a processor") == 1


NOTHING = {
    "other rounds": (
        lambda b: {"rounds": 20},
        "20 rounds a run .*; measure one again with the same --rounds",
    ),
    "no case in common": (
        lambda b: {"cases": ()},
        "no case in common with a.json; measure one again with the other's --devices",
    ),
    "one repeat": (
        lambda b: {
            "cases": [c.model_copy(update={"measurements": c.measurements[:1]}) for c in b.cases],
        },
        "no case that both repeated; measure with --repeats 3 or more",
    ),
    "no floor": (lambda b: {"sizes": ()}, "no case that both repeated"),
}


@pytest.mark.parametrize("fault", NOTHING)
def test_nothing_to_compare_is_one_line_with_the_remedy(fault):
    change, what = NOTHING[fault]
    b = drawn_record(2)
    with pytest.raises(BadInput, match=what) as refused:
        compare_records(drawn_record(1), b.model_copy(update=change(b)), names=NAMES)
    assert "\n" not in str(refused.value)


def test_the_command_compares_two_files(shell, tmp_path):
    files = [tmp_path / name for name in NAMES]
    for seed, file in enumerate(files):
        write(drawn_record(seed, std=0.001, slower={CASES[0]: 1 + seed}), file)
    code, stdout, stderr = shell("bench", "compare", *files)
    assert (code, stderr) == (0, "")
    assert re.search(r"4 │ 100k\s+│ zmq\s+│ ideal\s+│ round .* B is slower", stdout)
    assert "1 of 96 differences are real" in stdout
    code, stdout, _ = shell("bench", "compare", files[0], files[0], "--json")
    assert code == 0
    assert not any(d["real"] for d in json.loads(stdout)["differences"])
    code, stdout, stderr = shell("bench", "compare", files[0], tmp_path / "none.json")
    assert (code, stdout, len(stderr.splitlines())) == (2, "", 1)
