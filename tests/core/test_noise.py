from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit.core import noise
from slmkit.core.noise import Seen, judge

QUIET = Seen(
    elapsed_s=4.011,
    n_cores=2,
    load_before=0.21,
    load_after=0.36,
    others_cpu_s=0.03,
    steal_s=0.0,
    involuntary_switches=139,
    cpu_pressure_share=0.0048,
    memory_pressure_share=0.0,
    swapped_in_pages=0,
    swapped_out_pages=0,
)
"""Recorded: two children that compute on two cores, nothing beside them."""
DISTURBED = replace(
    QUIET, elapsed_s=4.0191, others_cpu_s=2.71, involuntary_switches=841, cpu_pressure_share=0.5149, load_after=0.49
)
"""Recorded: the same with a busy loop beside them."""

shares = st.none() | st.floats(0, 1)
amounts = st.none() | st.floats(0, 1e6)
counts = st.none() | st.integers(0, 10**6)
flags = st.none() | st.booleans()
anything = st.builds(
    Seen,
    elapsed_s=st.floats(0.001, 1e5),
    n_cores=st.integers(1, 512),
    others_cpu_s=amounts,
    steal_s=amounts,
    quota_stalled_s=amounts,
    memory_pressure_share=shares,
    swapped_in_pages=counts,
    swapped_out_pages=counts,
    frequency_mean_hz=st.none() | st.floats(1e8, 6e9),
    frequency_nominal_hz=st.none() | st.floats(1e8, 6e9),
    throttle_events=counts,
    cooled=flags,
    temperature_max_c=st.none() | st.floats(0, 110),
    on_battery=flags,
    power_saver=flags,
)


def test_a_quiet_machine_is_ok() -> None:
    assert judge(QUIET) == noise.Verdict("ok")


def test_a_busy_loop_beside_it_is_noisy_and_named() -> None:
    verdict = judge(DISTURBED)
    assert verdict.state == "noisy"
    assert verdict.reasons == ("other programs used 67% of a core: close them, or wait",)


def test_what_is_unknown_is_harmless() -> None:
    assert judge(Seen(elapsed_s=1.0, n_cores=4)).state == "ok"


@pytest.mark.parametrize(
    ("changed", "state", "words"),
    [
        ({"others_cpu_s": 6.0}, "noisy", "1.5 of 2 cores"),
        ({"steal_s": 0.5}, "noisy", "other virtual machines on this computer took 6.2%"),
        ({"quota_stalled_s": 4.0}, "throttled", "kept 50% of the cores back"),
        ({"memory_pressure_share": 0.3}, "noisy", "for 30% of the time a thread waited for memory"),
        ({"swapped_in_pages": 5000}, "noisy", "5,000 pages were swapped"),
        ({"swapped_out_pages": 5000}, "noisy", "5,000 pages were swapped"),
        ({"throttle_events": 3, "temperature_max_c": 99.6}, "throttled", "slowed down to cool off at 100 °C"),
        ({"cooled": True}, "throttled", "slowed down to cool off: let it cool"),
        (
            {"frequency_mean_hz": 1.2e9, "frequency_nominal_hz": 2.6e9},
            "throttled",
            "at 1.20 GHz, its nominal clock is 2.60",
        ),
        ({"on_battery": True}, "throttled", "plug in"),
        ({"power_saver": True}, "throttled", "power saving"),
    ],
)
def test_each_trouble_says_what_and_what_to_do(changed: dict[str, float], state: str, words: str) -> None:
    verdict = judge(replace(QUIET, elapsed_s=4.0, **changed))  # type: ignore[arg-type]
    assert verdict.state == state
    (reason,) = verdict.reasons
    assert words in reason


def test_a_turbo_clock_is_not_throttled() -> None:
    assert judge(replace(QUIET, frequency_mean_hz=3.4e9, frequency_nominal_hz=2.6e9)).state == "ok"


@given(anything)
def test_the_state_follows_from_the_reasons(seen: Seen) -> None:
    verdict = judge(seen)
    assert (verdict.state == "ok") == (not verdict.reasons)
    assert len(set(verdict.reasons)) == len(verdict.reasons)
    assert all(": " in reason for reason in verdict.reasons)  # what was seen: what to do


@given(anything, st.floats(1, 1e6))
def test_more_of_others_never_makes_it_better(seen: Seen, more_s: float) -> None:
    worse = judge(replace(seen, others_cpu_s=(seen.others_cpu_s or 0) + more_s))
    assert len(worse.reasons) >= len(judge(seen).reasons)
    assert worse.state != "ok" or judge(seen).state == "ok"


@given(anything)
def test_throttled_wins_and_keeps_the_reasons_of_the_noise(seen: Seen) -> None:
    hot = judge(replace(seen, throttle_events=1))
    assert hot.state == "throttled"
    cool = judge(replace(seen, throttle_events=0, cooled=False))
    assert set(cool.reasons) <= set(hot.reasons)


@given(anything)
def test_shares_are_shares_and_documents_come_back(seen: Seen) -> None:
    for share in (seen.others_share, seen.steal_share, seen.quota_share):
        assert share is None or 0 <= share <= 1
    assert Seen(**seen.document()) == seen
