from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit.core.bench import BenchSpec
from slmkit.core.grid import Grid, numbers, pair, switches, words
from slmkit.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("512", (512,)),
        ("1,2,4", (1, 2, 4)),
        ("1-4", (1, 2, 3, 4)),
        ("1-8*2", (1, 2, 4, 8)),
        ("1-8+3", (1, 4, 7)),
        ("-1,0,99", (-1, 0, 99)),
        ("4,1-4", (4, 1, 2, 3)),
    ],
)
def test_lists_and_ranges_are_those_of_llama_bench(text: str, expected: tuple[int, ...]) -> None:
    assert numbers("-t", text) == expected


@pytest.mark.parametrize("text", ["", "x", "1,", "8-1", "1-8*1", "0-8*2", "1-8+0", "1-100000"])
def test_what_is_no_list_is_an_error_that_names_the_option(text: str) -> None:
    with pytest.raises(UsageError, match="--threads"):
        numbers("--threads", text)


@given(st.integers(1, 100), st.integers(0, 100), st.integers(1, 9))
def test_a_range_has_its_first_and_stays_below_its_last(first: int, more: int, step: int) -> None:
    found = numbers("-t", f"{first}-{first + more}+{step}")
    assert found == tuple(range(first, first + more + 1, step))


def test_words_and_pairs() -> None:
    assert words("F16, q8_0,f16") == ("f16", "q8_0")
    assert pair("-pg", "512,128") == (512, 128)
    with pytest.raises(UsageError, match="-pg"):
        pair("-pg", "512")


def test_what_is_given_several_times_is_a_list() -> None:
    assert numbers("-p", "8,16", "16-18") == (8, 16, 17, 18)
    assert words("f16", "q8_0") == ("f16", "q8_0")
    assert switches("--mmap", "0", "1") == (False, True)
    with pytest.raises(UsageError, match="--mmap is '1,7'"):
        switches("--mmap", "1,7")


def test_every_combination_of_settings_and_each_test_once() -> None:
    grid = Grid(n_prompt=(64, 512), n_gen=(16,), n_pg=((8, 8), (9, 9), (10, 10)), depth=(0, 4), n_threads=(1, 2, 4))
    specs = grid.spans(BenchSpec())
    assert len(specs) == 2 * 3 * 3
    of_one = [spec for spec in specs if spec.depth == 4 and spec.n_threads == 2]
    assert [(s.n_prompt, s.n_gen, s.n_pg_prompt, s.n_pg_gen) for s in of_one] == [
        (64, 16, 8, 8),
        (512, 0, 9, 9),
        (0, 0, 10, 10),
    ]


@pytest.mark.parametrize("wrong", [{"type_k": ("q9",)}, {"flash_attn": ("maybe",)}, {"depth": (-1,)}])
def test_a_setting_that_makes_no_sense_is_refused(wrong: dict[str, tuple[object]]) -> None:
    with pytest.raises(UsageError):
        Grid(**wrong).spans(BenchSpec())  # type: ignore[arg-type]
