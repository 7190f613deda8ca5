"""Rounding to a grid and exact sums: what every file's bytes rest on."""

import numpy as np
import pytest

from stages.algorithms.grids import exact_sums, keep_bits, on_grid, power_above, slices


def test_values_go_to_the_nearest_multiple_and_zero_has_no_sign():
    found = on_grid(np.array([0.3, -0.3, 0.1, -0.1, -1e-30, 5.0]), 0.25)
    assert found.tolist() == [0.25, -0.25, 0.0, 0.0, 0.0, 5.0]
    assert not np.signbit(found[[2, 3, 4]]).any()
    assert not np.signbit(keep_bits(np.array([-0.0]), 5)).any()


def test_digits_are_kept_relative_to_each_value():
    values = np.random.default_rng(0).normal(size=1000) * 10.0 ** np.arange(-50, 50, 0.1)
    found = keep_bits(values, 20)
    assert (np.abs(found - values) <= 2.0**-20 * np.abs(values)).all()
    np.testing.assert_array_equal(keep_bits(found, 20), found)
    np.testing.assert_array_equal(keep_bits(found * (1 + 1e-15), 20), found)


def test_the_power_above_is_above():
    assert power_above(np.array([0.0, 0.75, 1.0, -3.0])).tolist() == [1.0, 1.0, 2.0, 4.0]


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
@pytest.mark.parametrize("n", [1, 7, 5000])
def test_sums_of_products_are_those_of_integers(n, scale):
    rows = scale * np.random.default_rng(0).normal(size=(n, 6)) * [1, 1e-3, 1, 1e-9, 0, 5]
    exact = rows.T @ rows
    total, found = exact_sums(rows)  # rounds the rows, which are in units then
    largest = np.sqrt(np.diagonal(exact).max())
    unit = float(power_above(largest)) * 2.0**-26
    integers = [[int(each) for each in row] for row in rows]
    expected = [[sum(row[i] * row[j] for row in integers) for j in range(6)] for i in range(6)]
    assert [[int(each) for each in row] for row in found / unit / unit] == expected
    assert [int(each) for each in total / unit] == [sum(row[i] for row in integers) for i in range(6)]
    np.testing.assert_allclose(found, exact, atol=1e-6 * largest**2)


def test_slices_add_up_to_the_value():
    values = np.random.default_rng(0).uniform(-1, 1, size=100)
    parts = slices(values, 21, 3)
    np.testing.assert_array_equal(sum(parts[::-1]), values)
    for i, part in enumerate(parts, start=1):
        np.testing.assert_array_equal(part, on_grid(part, 2.0 ** (-21 * i)))
