"""What `make bench` says of the figures it took: budgets, ratios, and what is worse than the baseline."""

from __future__ import annotations

from typing import Any

import pytest
from benchmarks.growth import growths
from benchmarks.measure import YARDSTICK, Figures, compare


def taken(values: dict[str, list[float]], unit: str = "ms", **more: str) -> list[dict[str, Any]]:
    """Figures as they are kept."""
    figures = Figures()
    for name, found in values.items():
        for value in found:
            figures.add(name, unit, value, **({} if name in (YARDSTICK, "other") else more))
    return figures.as_json()


@pytest.mark.parametrize(
    ("budget", "values", "met"),
    [
        ("<= 3", [1, 3, 99], True),
        ("<= 3", [1, 3.1, 99], False),
        ("p100 <= 3", [1, 2, 4], False),
        ("p95 <= 5", [1.0] * 99 + [9], True),
        ("<= 1,024", [1_000], True),
        ("0", [0, 0, 0], True),
        ("0", [0, 1, 1], False),
        (">= 2", [1.5], False),
        ("", [1], None),
    ],
)
def test_a_budget_is_about_the_median_or_a_share(budget: str, values: list[float], met: bool | None) -> None:
    assert taken({"it": values}, budget=budget)[0]["met"] is met


def test_a_budget_of_a_ratio_is_about_the_figure_beside_it() -> None:
    kept = taken({"other": [100, 100], "it": [150, 151]}, budget="<= 1.5x", beside="other")[1]
    assert (kept["ratio"], kept["met"]) == (1.505, False)


def test_the_table_has_each_budget_with_its_figure_and_verdict() -> None:
    figures = Figures()
    for value in (10.0, 20.0, 40.0):
        figures.add("key", "ms", value, budget="p95 <= 25")
    assert figures.rows()[1] == ("key (ms)", "20.0", "10.0", "40.0", "3", "", "", "p95 <= 25", "MISSED (40.0)")
    assert figures.markdown().splitlines()[2].startswith("| key (ms) | 20.0 | 10.0 | 40.0 |")


def test_a_slower_machine_is_no_regression() -> None:
    before = taken({YARDSTICK: [10, 10], "it": [100, 105]})
    assert compare(before, taken({YARDSTICK: [30, 30], "it": [300, 315]})).worse == ()
    assert compare(before, taken({YARDSTICK: [10, 10], "it": [300, 315]})).worse


def test_a_quiet_moment_of_the_yardstick_makes_nothing_worse() -> None:
    before = taken({YARDSTICK: [30, 30], "it": [100, 105]})
    assert compare(before, taken({YARDSTICK: [10, 10], "it": [100, 105]})).worse == ()


def test_a_slow_run_within_the_spread_of_the_baseline_is_none_either() -> None:
    before = taken({"it": [80, 100, 190]})
    assert compare(before, taken({"it": [130, 150, 180]})).worse == ()
    assert compare(before, taken({"it": [200, 210, 220]})).worse


def test_ratios_are_compared_where_there_are_some() -> None:
    before = taken({"other": [100, 100], "it": [110, 110]}, beside="other")
    assert compare(before, taken({"other": [900, 900], "it": [990, 990]}, beside="other")).worse == ()
    worse = compare(before, taken({"other": [50, 50], "it": [90, 90]}, beside="other")).worse
    assert worse == ("it: 1.10x -> 1.80x",)


def test_of_a_speed_less_is_worse() -> None:
    before = taken({"other": [100], "pull": [150]}, "MB/s", beside="other")
    assert not compare(before, taken({"other": [100], "pull": [300]}, "MB/s", beside="other")).worse
    assert not compare(before, taken({"other": [50], "pull": [70]}, "MB/s", beside="other")).worse
    assert compare(before, taken({"other": [100], "pull": [110]}, "MB/s", beside="other")).worse == (
        "pull: 1.50x -> 1.10x",
    )


def test_bytes_may_not_grow_even_if_only_the_largest_does() -> None:
    before = taken({"page": [1_000, 3_000]}, "B", budget="p100 <= 4,096")
    assert compare(before, taken({"page": [1_010, 3_010]}, "B", budget="p100 <= 4,096")).worse == ()
    (said,) = compare(before, taken({"page": [500, 3_400]}, "B", budget="p100 <= 4,096")).worse
    assert said == "page: max 3,000 -> 3,400 B"


def test_what_the_baseline_lacks_is_named() -> None:
    found = compare(taken({"it": [1]}), taken({"it": [1], "new": [1]}))
    assert (found.compared, found.without) == (1, ("new",))


def test_a_line_is_fitted_to_what_was_measured_at_several_sizes() -> None:
    sizes = {1_000: 2.5, 10_000: 7.0, 100_000: 52.0}  # 2 + 0.5 N
    (line,) = growths(taken({f"poll, {count:,} models": [value] for count, value in sizes.items()}))
    assert (line.fixed, line.per_thousand) == pytest.approx((2, 0.5))
    assert line.at(1_000_000) == pytest.approx(502)
    assert line.worst == pytest.approx(0, abs=1e-9)


def test_a_cost_that_falls_is_taken_as_constant_and_one_below_nought_starts_at_it() -> None:
    falls = growths(taken({"a, 10 nodes": [3], "a, 100 nodes": [2.9], "a, 1,000 nodes": [2.8]}))[0]
    assert falls.per_thousand == 0
    assert 2.8 < falls.fixed < 3
    steep = growths(taken({"b, 1,000 models": [1], "b, 10,000 models": [20], "b, 100,000 models": [400]}))[0]
    assert steep.fixed == 0
    assert steep.row()[-1] == "no line fits"


def test_two_sizes_make_no_line() -> None:
    assert growths(taken({"a, 10 nodes": [3], "a, 100 nodes": [4]})) == []
