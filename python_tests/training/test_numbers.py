"""Numbers as text, alone and in columns."""

from __future__ import annotations

import math

from automl_ext.training.numbers import alike, number


def test_large_numbers_have_no_exponent() -> None:
    assert [number(x) for x in (372_312.4, 230_070.0, -1000.0, 999.96, 0.32689, 1.2e-5, 3e12)] == [
        "372,312",
        "230,070",
        "-1,000",
        "1,000",
        "0.3269",
        "1.2e-05",
        "3e+12",
    ]


def test_a_column_has_one_number_of_decimals() -> None:
    assert alike([372_312.4, 230_070.0, None]) == ["372,312", "230,070", "–"]
    assert alike([3.0, 4.0, 3.5, math.nan]) == ["3.0", "4.0", "3.5", "–"]
    assert alike([0.32689, 12.0], 5) == ["0.32689", "12.00000"]
    assert alike([1.234e-5, 0.0]) == ["0.000012", "0.000000"]
    assert alike([4e12, 5.0]) == ["4e+12", "5"]
    assert alike([]) == []
