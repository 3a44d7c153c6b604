"""Other computers: what the table says is whole, and names are found."""

from __future__ import annotations

import re

import pytest

from slmkit.errors import UsageError
from slmkit.host.devices import device, devices


def test_every_device_is_whole() -> None:
    found = devices()
    assert len({each.name for each in found}) == len({each.title for each in found}) == len(found)
    for each in found:
        assert re.fullmatch(r"[a-z0-9-]+", each.name)
        assert 1 << 30 <= each.ram_bytes <= 64 << 30
        assert 1e9 < each.attainable_bytes_per_s < each.bandwidth_bytes_per_s < 1e12
        assert len(each.source) > 20


def test_a_name_is_found_in_any_case() -> None:
    assert device("Raspberry Pi 5 8GB") == device("raspberry-pi-5-8gb")


def test_an_unknown_one_is_told_with_what_is_near() -> None:
    with pytest.raises(UsageError) as failure:
        device("raspberry-pi-5")
    assert "raspberry-pi-5-8gb" in str(failure.value.hint)
    with pytest.raises(UsageError, match="no device 'toaster'") as failure:
        device("toaster")
    assert "steam-deck" in str(failure.value.hint)
