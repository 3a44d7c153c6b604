from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit.core import stats, units
from slmkit.core.bench import BenchRow, BenchRun, BenchSpec, Block, Failure, Memory
from slmkit.core.quant import QUANT_TYPES, quant_type, quant_types
from slmkit.errors import UnknownTypeError, UsageError


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "0 B"), (512, "512 B"), (1536, "1.5 KiB"), (91_750_400, "87.5 MiB"), (3 * 2**30, "3.00 GiB")],
)
def test_sizes(value: int | None, text: str) -> None:
    assert units.size(value) == text


def test_other_units() -> None:
    assert units.count(134_515_008) == "134.5M"
    assert units.count(1_235_814_400) == "1.24B"
    assert units.percent(0.7149) == "71.5 %"
    assert units.milliseconds(84_200_000) == "84.2 ms"
    assert units.milliseconds(1_310_000_000) == "1.31 s"
    assert units.duration(185) == "3 min 05 s"
    assert units.duration(4320) == "1 h 12 min"
    assert [units.elapsed(s) for s in (0.0842, 1.31, 185)] == ["84.2 ms", "1.31 s", "3 min 05 s"]
    assert [units.several(n, "chunk") for n in (0, 1, 40)] == ["0 chunks", "1 chunk", "40 chunks"]
    assert [units.several(n, "process", "processes") for n in (1, 2)] == ["1 process", "2 processes"]
    assert {units.count(None), units.percent(None), units.number(None), units.milliseconds(None)} == {"–"}


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("8GiB", 8 * 2**30),
        ("1.5 GB", 1_500_000_000),
        ("800M", 800_000_000),
        ("64 kib", 65536),
        (" 4096 ", 4096),
        ("1B", 1),
        ("2TiB", 2**41),
        ("2G", 2_000_000_000),
    ],
)
def test_sizes_as_they_are_typed(text: str, size_bytes: int) -> None:
    assert units.parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "GiB", "0", "0 GiB", "-1G", "8 apples", "1e9", "8 Gi B", "1,5G", "iB", "٣G", "8\u212a", "9" * 400]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="not a size"):
        units.parse_size(text)


@given(st.integers(1, 2**50), st.sampled_from(["", "K", "M", "G", "T"]), st.sampled_from(["B", "iB"]))
def test_a_size_is_its_number_times_its_unit(n: int, prefix: str, suffix: str) -> None:
    if not prefix and suffix == "iB":
        suffix = "B"
    base = 1024 if suffix == "iB" else 1000
    assert units.parse_size(f"{n}{prefix}{suffix}") == pytest.approx(
        n * base ** " KMGT".index(prefix or " "), rel=1e-15
    )


def test_parameters_are_short() -> None:
    assert [units.parameter(v) for v in ("Q4_0", 2, [1, 2])] == ["Q4_0", "2", "1,2"]
    assert units.parameter({"size": 12582912, "add_bos": False}) == "size:12582912,add_bos:false"
    assert units.parameter([["ffn", "Q6_K"], ["attn", "Q5_K"]]) == "2 (--json shows them)"


def test_statistics_of_too_little_are_none() -> None:
    assert stats.mean([]) is None
    assert stats.median([]) is None
    assert stats.stdev([1.0]) is None
    assert stats.relative_spread([1.0]) is None
    assert stats.relative_spread([0.0, 0.0]) is None


def test_rates_are_llama_benchs() -> None:
    # avg_ts and stddev_ts of llama-bench: the mean and sample deviation of the rates, not the rate of the mean time.
    rates = stats.rates_per_s(128, [1_000_000_000, 2_000_000_000])
    assert rates == [128.0, 64.0]
    assert stats.mean(rates) == 96.0
    assert stats.stdev(rates) == pytest.approx(45.2548339959)


def test_types_are_found_in_any_case_and_in_lists() -> None:
    assert [t.name for t in quant_types(["q4_0,Q5_1", "Q8-0", "q4_0"])] == ["Q4_0", "Q5_1", "Q8_0"]
    assert quant_type("q4_k") is QUANT_TYPES["Q4_K_M"]


def test_an_unknown_type_names_near_ones() -> None:
    with pytest.raises(UnknownTypeError) as caught:
        quant_type("Q4_2")
    assert "`Q4_0`" in (caught.value.hint or "")


@pytest.mark.parametrize("wrong", [{"n_prompt": -1}, {"repetitions": 0}, {"n_threads": 0}, {"n_prompt": 0, "n_gen": 0}])
def test_a_spec_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        BenchSpec(**wrong)


samples = st.lists(st.integers(1, 10**12), max_size=5).map(tuple)


@given(pp=samples, tg=samples, load=st.none() | st.integers(0, 10**12), peak=st.none() | st.integers(0, 2**40))
def test_a_run_survives_its_document(
    pp: tuple[int, ...], tg: tuple[int, ...], load: int | None, peak: int | None
) -> None:
    memory = Memory(None, peak, None, 7)
    failure = Failure("engine.crashed", "it died", "look", ("last line",))
    spec = BenchSpec(n_prompt=3, depth=2)
    rows = (
        BenchRow(
            "a/b:Q4_0", "sha256:00", 1, spec, (Block(load, 5, pp, tg, memory=memory, reasons=("x",)),), None, ("w",)
        ),
        BenchRow("a/b:Q8_0", "sha256:01", 1, spec, failure=failure),
    )
    run = BenchRun("2026-01-01T00:00:00+00:00", {"cpu": "x"}, {"engine": "y"}, rows, "0.1.0", ("busy",), {"n": 1})
    assert BenchRun.from_document(run.document()) == run


@pytest.mark.parametrize(
    ("text", "share"), [("5%", 0.05), ("0.5 %", 0.005), ("0.05", 0.05), ("1000%", 10.0), ("0", 0.0)]
)
def test_shares(text: str, share: float) -> None:
    assert units.parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize(("text", "ns"), [("500ms", 500_000_000), ("1.5 s", 1_500_000_000), ("2s", 2_000_000_000)])
def test_times(text: str, ns: int) -> None:
    assert units.parse_time(text) == ns


@pytest.mark.parametrize("text", ["", "5", "-1%", "5 percent", "1e3%", "nan", "٥%"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(UsageError, match="not a share"):
        units.parse_share(text)


@pytest.mark.parametrize("text", ["", "500", "0ms", "-1s", "1h", "ms"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="not a time"):
        units.parse_time(text)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5 h", 5400)])
def test_durations(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "0m", "-1s", "10min", "m", "5ms"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="not a time"):
        units.parse_duration(text)
