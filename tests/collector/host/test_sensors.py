"""The CPU's frequency and temperature as psutil finds them."""

from types import SimpleNamespace

import psutil
import pytest

from collector.host.sensors import read_sensors
from store.events import AbsenceReason


def reading(celsius: float) -> SimpleNamespace:
    return SimpleNamespace(current=celsius)


def test_the_mean_frequency_and_the_hottest_cpu_sensor_are_given(monkeypatch):
    monkeypatch.setattr(psutil, "cpu_freq", lambda: SimpleNamespace(current=2400.5))
    chips = {"coretemp": [reading(41.0), reading(63.0)], "nvme": [reading(80.0)]}
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: chips)
    assert read_sensors() == {"cpu_frequency_hertz": 2_400_500_000, "cpu_temperature_celsius": 63.0}


@pytest.mark.parametrize("frequency", [None, SimpleNamespace(current=0.0)])
def test_a_machine_that_does_not_tell_has_a_reason_and_no_zero(monkeypatch, frequency):
    monkeypatch.setattr(psutil, "cpu_freq", lambda: frequency)
    monkeypatch.setattr(psutil, "sensors_temperatures", dict)
    assert set(read_sensors().values()) == {AbsenceReason.NOT_SUPPORTED}


def test_a_sensor_that_may_not_be_read_says_so(monkeypatch):
    def refuse():
        raise PermissionError

    monkeypatch.setattr(psutil, "sensors_temperatures", refuse)
    assert read_sensors()["cpu_temperature_celsius"] is AbsenceReason.NO_PERMISSION


def test_this_machine_answers_with_a_value_or_a_reason():
    for column, answer in read_sensors().items():
        assert isinstance(answer, AbsenceReason) or answer > 0, column
