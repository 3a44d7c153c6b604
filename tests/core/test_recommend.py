"""Which file is chosen: the rule as a table, and what holds whatever the candidates are."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit.core.bench import NOISY
from slmkit.core.divergence import BROKEN
from slmkit.core.plan import ROOMY_SHARE
from slmkit.core.recommend import (
    BOUND,
    ESTIMATED,
    MEASURED,
    OTHER_TEXT,
    Candidate,
    Choice,
    Wish,
    breaches,
    choose,
    hopeful,
    is_close,
    worth_measuring,
)
from slmkit.errors import UsageError
from slmkit.report.choice import headline, sentences

GIB = 2**30
MIB = 2**20


def file(name: str, mib: float, rate: float | None, kld: float | None, **changes: object) -> Candidate:
    """A measured one; `changes` are those of its fields."""
    values = {"bpw": mib / 17, "memory_bytes": int((mib + 100) * MIB), "verdict": "good", **changes}
    return Candidate(name, f"org/m:{name}", int(mib * MIB), tok_per_s=rate, kld=kld, **values)  # type: ignore[arg-type]


Q8_0 = file("Q8_0", 138, 60, 0.002)
Q5_1 = file("Q5_1", 105, 70, 0.03)
Q4_K_M = file("Q4_K_M", 101, 90, 0.045)
Q4_0 = file("Q4_0", 87, 95, 0.2)
LADDER = [Q8_0, Q5_1, Q4_K_M, Q4_0]


def chosen(choice: Choice) -> str | None:
    return choice.best.name if choice.best else None


@pytest.mark.parametrize(
    ("wish", "best"),
    [
        (Wish(), "Q4_K_M"),
        (Wish(max_kld=0.03), "Q5_1"),
        (Wish(max_kld=0.01), "Q8_0"),
        (Wish(max_kld=0.5), "Q4_0"),
        (Wish(max_kld=0.001), None),
        (Wish(max_kld=0.5, min_tok_per_s=92), "Q4_0"),
        (Wish(min_tok_per_s=95), None),
        (Wish(ram_bytes=int(201.5 * MIB / ROOMY_SHARE)), "Q4_K_M"),
        (Wish(ram_bytes=200 * MIB), None),
    ],
)
def test_the_least_size_times_time_that_keeps_every_limit(wish: Wish, best: str | None) -> None:
    assert chosen(choose(LADDER, wish)) == best


def test_a_larger_file_must_be_faster_by_more_than_it_is_larger() -> None:
    small = file("IQ4_XS", 100, 50, 0.03)
    assert chosen(choose([small, file("Q4_0", 110, 54, 0.03)], Wish())) == "IQ4_XS"
    assert chosen(choose([small, file("Q4_0", 110, 56, 0.03)], Wish())) == "Q4_0"
    assert chosen(choose([small, file("Q4_1", 100, 50, 0.02)], Wish())) == "Q4_1"


def test_each_loser_has_one_reason_and_the_runner_up_comes_first() -> None:
    choice = choose([*LADDER, file("Q2_K", 80, None, None, failure="it crashed")], Wish())
    assert [(loser.candidate.name, loser.reason) for loser in choice.losers] == [
        ("Q5_1", "4.0 % larger and 22.2 % slower"),
        ("Q8_0", "36.6 % larger and 33.3 % slower"),
        ("Q4_0", "mean KLD 0.2000 is over 0.05"),
        ("Q2_K", "it crashed"),
    ]
    assert choice.n_keeping == 3


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (file("Q4_0", 90, 70, 0.04), "22.2 % slower, but only 10.9 % smaller"),
        (file("Q4_0", 130, 100, 0.04), "28.7 % larger, but only 11.1 % faster"),
        (file("Q4_0", 101, 80, 0.04), "no larger and 11.1 % slower"),
    ],
)
def test_what_a_loser_costs_more(one: Candidate, reason: str) -> None:
    assert choose([Q4_K_M, one], Wish()).losers[0].reason == reason


def test_the_nearest_is_that_which_misses_by_the_smallest_factor() -> None:
    choice = choose(LADDER, Wish(max_kld=0.02, min_tok_per_s=80))
    assert choice.best is None
    assert choice.nearest is not None
    assert (choice.nearest.candidate, choice.nearest.reason) == (Q8_0, "60.0 tok/s is less than 80")
    assert headline(choice) == "nothing keeps every limit: mean KLD up to 0.02, 80 tok/s or more"
    assert sentences(choice)[1] == "The nearest is Q8_0: 60.0 tok/s is less than 80."


def guessed(one: Candidate, kld: float) -> Candidate:
    return replace(one, kld=kld, kld_error=None, quality=ESTIMATED, verdict=None, here=False)


def test_what_was_not_measured_is_never_taken_for_good() -> None:
    better = guessed(file("IQ4_XS", 60, 200, None), 0.001)
    choice = choose([Q8_0, better], Wish())
    assert (chosen(choice), choice.is_estimate) == ("Q8_0", False)
    assert "not measured" in choice.losers[0].reason
    assert "perhaps better: IQ4_XS" in sentences(choice)[2]


def test_where_nothing_is_proven_the_choice_says_that_it_is_an_estimate() -> None:
    choice = choose([guessed(Q8_0, 0.002), guessed(Q5_1, 0.03), Q4_0], Wish())
    assert (chosen(choice), choice.is_estimate) == ("Q5_1", True)
    assert "~0.030" in headline(choice)
    assert "estimate" in sentences(choice)[2]


@pytest.mark.parametrize(
    "useless",
    [
        file("Q4_0", 10, 100, None),
        file("Q4_0", 10, None, 0.001),
        file("Q4_0", 10, 100, 0.001, memory_bytes=None),
        file("Q4_0", 10, 100, None, verdict=BROKEN),
        file("Q4_0", 10, 100, 0.001, verdict=BROKEN),
        file("Q4_0", 10, 100, math.nan),
        file("Q4_0", 10, 100, math.inf),
        file("Q4_0", 10, 100, 0.001, failure="it crashed"),
    ],
)
def test_what_is_unknown_or_broken_is_not_chosen(useless: Candidate) -> None:
    wish = Wish(ram_bytes=GIB)
    assert chosen(choose([useless, Q8_0], wish)) == "Q8_0"
    assert choose([useless], wish).best is None
    assert all(text for text in sentences(choose([useless], wish)))
    assert choose([useless], wish).losers[0].reason


@pytest.mark.parametrize("kld", [None, 0.001, 0.2, math.nan])
def test_what_is_broken_is_said_to_be(kld: float | None) -> None:
    broken = file("Q4_0", 10, 100, kld, verdict=BROKEN)
    choice = choose([broken, Q8_0], Wish())
    assert [(loser.candidate, loser.reason) for loser in choice.losers] == [(broken, "it is broken")]
    assert chosen(choose([broken], Wish(max_kld=5))) is None
    assert worth_measuring([replace(broken, tok_per_s=None)], [broken], Wish()) is None


def test_the_reason_says_what_else_matters() -> None:
    one = file("Q4_K_M", 101, 90, 0.049, kld_error=0.002, state=NOISY)
    assert is_close(one, Wish())
    _, why, how_sure = sentences(choose([one], Wish()))
    assert "only one" in why
    assert "two standard errors" in how_sure
    assert "noisy" in how_sure
    assert not is_close(replace(one, kld_error=0.0001), Wish())


@pytest.mark.parametrize("limit", [0, -1, math.nan, math.inf])
def test_limits_that_cannot_be(limit: float) -> None:
    with pytest.raises(UsageError):
        Wish(max_kld=limit)
    with pytest.raises(UsageError):
        Wish(min_tok_per_s=limit)


# ------------------------------------------------------------------ what is worth measuring


def test_the_most_promising_is_measured_first() -> None:
    every = [guessed(Q8_0, 0.002), guessed(Q5_1, 0.03), guessed(Q4_K_M, 0.045), guessed(Q4_0, 0.2)]
    first = worth_measuring(every, every, Wish())
    assert first is not None
    assert first.name == "Q4_K_M"


def test_what_cannot_win_is_not_measured() -> None:
    every = [guessed(Q8_0, 0.002), Q5_1, guessed(Q4_0, 0.2)]
    assert worth_measuring([every[0], every[2]], every, Wish()) is None  # one is larger and slower, one is hopeless


def test_a_guess_that_misses_the_limit_by_less_than_its_error_is_tried_last() -> None:
    every = [guessed(Q8_0, 0.002), guessed(Q4_0, 0.09)]
    first = worth_measuring(every, every, Wish())
    assert first is not None
    assert first.name == "Q8_0"
    assert worth_measuring(every[1:], [Q8_0, every[1]], Wish()) == every[1]


def test_what_does_not_fit_is_not_measured() -> None:
    every = [guessed(Q8_0, 0.002)]
    assert worth_measuring(every, every, Wish(ram_bytes=100 * MIB)) is None


def test_before_the_answer_is_no_what_may_lose_least_is_measured() -> None:
    every = [guessed(Q8_0, 0.9), guessed(Q5_1, 5.0), guessed(Q4_0, 60.0)]
    wish = Wish(max_kld=0.005)
    assert worth_measuring(every, every, wish) == every[0]
    assert worth_measuring(every[1:], [replace(Q8_0, kld=0.9), *every[1:]], wish) is None
    assert worth_measuring(every[1:], [replace(Q8_0, kld=6.0), *every[1:]], wish) == every[1]  # the guess was wrong
    assert worth_measuring(every[1:], [replace(every[0], failure="it crashed"), *every[1:]], wish) == every[1]
    assert worth_measuring(every[1:], [Q8_0, *every[1:]], wish) is None  # one is proven to keep the limit


def test_where_no_estimate_keeps_the_limit_the_one_that_misses_it_least_is_measured_first() -> None:
    every = [guessed(Q8_0, 0.0057), guessed(file("Q6_K", 132, 70, None), 0.0075)]
    assert worth_measuring(every, every, Wish(max_kld=0.005)) == every[0]


def test_what_no_more_time_is_left_for_is_only_what_may_win() -> None:
    every = [guessed(Q8_0, 0.0057), guessed(Q5_1, 0.0075), guessed(Q4_0, 0.2)]
    assert hopeful(every, every, Wish(max_kld=0.005)) == every[:2]
    assert hopeful(every, every, Wish(max_kld=0.0005)) == every[:1]


def test_what_cannot_keep_another_limit_is_not_measured_in_vain() -> None:
    every = [guessed(Q8_0, 0.9), guessed(Q5_1, 5.0)]
    found = worth_measuring(every, every, Wish(max_kld=0.005, ram_bytes=int(210 * MIB / ROOMY_SHARE)))
    assert found == every[1]


def test_what_was_measured_on_other_text_is_measured_again_though_it_misses_the_limit_there() -> None:
    one = replace(Q8_0, quality=OTHER_TEXT, kld=0.0057)
    assert not one.is_proven
    assert worth_measuring([one], [one], Wish(max_kld=0.005)) == one
    choice = choose([one, Q5_1], Wish())
    assert "0.0057, was measured on other text" in choice.losers[0].reason
    assert "is an estimate, measured on other text" in sentences(choose([one], Wish()))[2]


def test_a_speed_that_was_not_measured_may_keep_its_limit_no_more() -> None:
    bound = replace(Q8_0, tok_per_s=519.4, speed=BOUND)
    said = sentences(choose([bound], Wish(min_tok_per_s=300)))
    assert said[0] == "Q8_0: 138.0 MiB, at most ~519 tok/s, mean KLD 0.0020 (good)."
    assert "the only one that may keep every limit" in said[1]
    assert "at most" in said[2]
    assert "may keep" not in sentences(choose([bound], Wish()))[1]
    assert "may keep" not in sentences(choose([Q8_0, Q5_1], Wish(min_tok_per_s=30)))[1]
    assert "2 that may keep" in sentences(choose([bound, Q5_1], Wish(min_tok_per_s=30)))[1]
    assert choose([bound], Wish(min_tok_per_s=600)).losers[0].reason == "at most 519.4 tok/s is less than 600"
    scaled = replace(Q8_0, tok_per_s=10.0, speed=ESTIMATED, speed_from="Q4_0's 14.1 tok/s here")
    assert "its speed is estimated from Q4_0's 14.1 tok/s here" in sentences(choose([scaled], Wish()))[2]
    assert "may keep" in sentences(choose([scaled], Wish(min_tok_per_s=9)))[1]


def test_of_two_that_cost_about_the_same_the_one_that_is_here_is_measured() -> None:
    here = replace(guessed(file("Q4_K_M-imatrix", 101.01, 90, None), 0.04), here=True)
    other = guessed(Q4_K_M, 0.04)
    assert worth_measuring([other, here], [other, here], Wish()) == here
    read = replace(here, name="Q4_K_M-other", size_bytes=here.size_bytes + 99, quality=OTHER_TEXT)
    assert worth_measuring([other, here, read], [other, here, read], Wish()) == read
    proven = replace(here, kld=0.04, quality=MEASURED)
    assert worth_measuring([other], [other, proven], Wish()) is None
    assert "perhaps better" not in sentences(choose([other, proven], Wish()))[2]


# ------------------------------------------------------------------ whatever the candidates are


def candidates() -> st.SearchStrategy[list[Candidate]]:
    one = st.builds(
        Candidate,
        name=st.sampled_from(["Q8_0", "Q5_1", "Q4_K_M", "Q4_0", "Q2_K"]),
        ref=st.just("org/m:x"),
        size_bytes=st.integers(1, 8 * GIB),
        memory_bytes=st.none() | st.integers(1, 10 * GIB),
        tok_per_s=st.none() | st.floats(0.01, 1e4),
        speed=st.sampled_from([MEASURED, ESTIMATED]),
        kld=st.none() | st.floats(0, 3),
        quality=st.sampled_from([MEASURED, ESTIMATED]),
        verdict=st.none() | st.sampled_from(["good", BROKEN]),
        failure=st.none() | st.just("it crashed"),
    )
    return st.lists(one, max_size=8)


WISHES = st.builds(
    Wish,
    max_kld=st.floats(1e-4, 2),
    min_tok_per_s=st.none() | st.floats(0.01, 1e3),
    ram_bytes=st.none() | st.integers(MIB, 16 * GIB),
)


@given(candidates(), WISHES)
def test_the_chosen_one_keeps_all_limits(every: list[Candidate], wish: Wish) -> None:
    choice = choose(every, wish)
    if choice.best is not None:
        assert not any(breaches(choice.best, wish))
        assert choice.best.failure is None
        assert choice.best.verdict != BROKEN
        assert choice.best.kld is not None
        assert choice.best.kld <= wish.max_kld
        assert choice.is_estimate is not choice.best.is_proven
        assert not (choice.is_estimate and any(c.is_proven and chosen(choose([c], wish)) for c in every))
    else:
        assert all(choose([c], wish).best is None for c in every)
    assert len(choice.losers) == len(every) - (choice.best is not None)
    assert all(loser.reason for loser in choice.losers)
    assert all(text.endswith(".") for text in sentences(choice))


@given(candidates(), WISHES, st.integers(1, 4 * GIB), st.floats(0, 1), st.floats(0, 1))
def test_looser_limits_never_make_the_choice_worse(
    every: list[Candidate], wish: Wish, more_bytes: int, slower: float, more_kld: float
) -> None:
    looser = replace(
        wish,
        ram_bytes=None if wish.ram_bytes is None else wish.ram_bytes + more_bytes,
        min_tok_per_s=None if wish.min_tok_per_s is None else max(wish.min_tok_per_s * slower, 1e-3),
        max_kld=wish.max_kld + more_kld,
    )
    before, after = choose(every, wish), choose(every, looser)
    if before.best is None:
        return
    assert after.best is not None
    assert (after.is_estimate, after.best.cost) <= (before.is_estimate, before.best.cost)


@given(candidates(), WISHES)
def test_the_order_in_which_they_come_does_not_matter(every: list[Candidate], wish: Wish) -> None:
    named = [replace(c, name=f"{c.name}-{i}") for i, c in enumerate(every)]
    assert choose(named, wish) == choose(named[::-1], wish)


@given(candidates(), WISHES)
def test_what_is_measured_next_might_win(every: list[Candidate], wish: Wish) -> None:
    open_ones = [c for c in every if not c.is_measured]
    best = choose(every, wish).best
    found = worth_measuring(open_ones, every, wish)
    if found is not None:
        assert found in open_ones
        assert found.failure is None
        assert best is None or not best.is_proven or found == best or found.cost < best.cost
