"""What energy costs: kWh, money and CO2, by what the settings say. Where they say nothing, nothing is made up."""

from dataclasses import dataclass

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Prices:
    """What one kWh costs here.

    Args:
        price_per_kwh: In `currency`; None where it is not set.
        currency: Its sign or code, as the user writes it.
        co2_grams_per_kwh: Of the grid; None where it is not set.
        power_usage_effectiveness_ratio: Energy of the whole building per energy of its machines (PUE, ISO/IEC 30134-2).
    """

    price_per_kwh: float | None = None
    currency: str = ""
    co2_grams_per_kwh: float | None = None
    power_usage_effectiveness_ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class Bill:
    """What some energy of GPUs costs.

    Args:
        kwh: The energy of the GPUs alone; None where it is not known.
        price, co2_grams: Of that and of what the building adds to it; None where no price or CO2 is set.
        currency: Of `price`.
    """

    kwh: float | None
    price: float | None
    currency: str
    co2_grams: float | None


def bill(joules: float | None, prices: Prices) -> Bill:
    """What so much energy costs."""
    if joules is None:
        return Bill(None, None, prices.currency, None)
    kwh = joules / JOULES_PER_KWH
    of_building = kwh * prices.power_usage_effectiveness_ratio
    return Bill(
        kwh=kwh,
        price=None if prices.price_per_kwh is None else of_building * prices.price_per_kwh,
        currency=prices.currency,
        co2_grams=None if prices.co2_grams_per_kwh is None else of_building * prices.co2_grams_per_kwh,
    )
