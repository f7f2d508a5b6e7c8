"""Values with a unit, as people write them."""

import pytest

from query.errors import QuantityError
from query.quantities import quantity


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("85", "°C", 85.0),
        ("85 °C", "°C", 85.0),
        ("70GiB", "B", 70 * 2**30),
        ("70Gi", "B", 70 * 2**30),
        ("500 MB", "B", 5e8),
        ("1.5 GHz", "Hz", 1.5e9),
        ("1 kW", "W", 1000.0),
        ("-3.25", "", -3.25),
        ("95%", "%", 95.0),
    ],
)
def test_a_value_is_read_in_its_unit(text, unit, value):
    assert quantity(text, unit) == value


@pytest.mark.parametrize("text", ["much", "", "1e9999", "12 34", "9" * 40, "10 watts"])
def test_anything_else_is_refused(text):
    with pytest.raises(QuantityError):
        quantity(text, "W")
