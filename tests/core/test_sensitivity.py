"""Groups are cuts of all tensors, sums are sums, and costly means what it says."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit.core.quality import QualitySpec
from slmkit.core.sensitivity import MIB, Cost, Sensitivity, TensorGroup, costly, cut, sum_of, tensor_groups

NAMES = [
    "token_embd.weight",
    *(f"blk.{n}.{role}.weight" for n in (0, 1, 10) for role in ("ffn_down", "attn_q", "ssm_in", "ffn_gate_exps")),
    "output.weight",
]


def cost(name: str, kld: float, mib: float = 1.0, kind: str = "role", outside: bool = False) -> Cost:
    return Cost(TensorGroup(kind, name, (f"{name}.weight",), outside), int(mib * MIB), (kld, kld))  # type: ignore[arg-type]


def test_roles_and_layers_have_their_order() -> None:
    found = tensor_groups(NAMES)
    assert [g.name for g in found if g.kind == "role"] == [
        *("attn_q", "ffn_down", "ssm_in", "ffn_gate_exps", "token_embd", "output")
    ]
    assert [g.name for g in found if g.kind == "layer"] == ["blk.0", "blk.1", "blk.10"]
    assert [g.name for g in found if g.outside] == ["token_embd", "output"]


names = st.lists(
    st.one_of(
        st.builds("blk.{}.{}.weight".format, st.integers(0, 40), st.sampled_from(["attn_q", "ffn_up", "x.y"])),
        st.sampled_from(["token_embd.weight", "output.weight", "odd", "blk.1"]),
    ),
    unique=True,
)


@given(names)
def test_each_cut_has_every_tensor_once(tensors: list[str]) -> None:
    costs = [Cost(group, 1) for group in tensor_groups(tensors)]
    for kind in ("role", "layer"):
        assert sorted(name for each in cut(costs, kind) for name in each.group.tensors) == sorted(tensors)


def test_costly_is_more_than_twice_the_mean_for_a_byte() -> None:
    roles = [cost("attn_v", 0.5), cost("ffn_up", 0.1, mib=9), cost("output", 0.0, mib=2, outside=True)]
    layers = [cost("blk.0", 0.1, 5, "layer"), cost("blk.1", 0.1, 5, "layer")]
    assert [each.group.name for each in costly([*roles, *layers])] == ["attn_v"]
    assert sum_of(roles, "role") == pytest.approx(0.6)
    assert sum_of([*roles, *layers], "layer") == pytest.approx(0.2)


def test_what_is_no_number_is_costly_and_spoils_nothing_else() -> None:
    found = costly([cost("a", math.nan), cost("b", 0.5), cost("c", 0.1, mib=9), cost("d", 0.1)])
    assert [each.group.name for each in found] == ["a", "b"]


def test_what_breaks_the_file_is_costly_however_much_it_saves_and_spoils_nothing_else() -> None:
    broken = replace(cost("a", 9.0, mib=99), defect="it guesses")
    unread = replace(broken, group=replace(broken.group, name="e"), klds=(), failure="it guesses")
    found = costly([broken, cost("b", 0.5), cost("c", 0.1, mib=9), cost("d", 0.1), unread])
    assert [each.group.name for each in found] == ["a", "e", "b"]


def test_where_nothing_is_known_nothing_is_costly() -> None:
    failed = Cost(TensorGroup("role", "a", ("a",)), 5, failure="it crashed")
    assert costly([failed]) == []
    assert sum_of([failed, cost("b", 1.0)], "role") is None
    assert (failed.kld, failed.kld_per_mib) == (None, None)


def test_a_cost_comes_back_from_json() -> None:
    one = Cost(TensorGroup("layer", "blk.3", ("blk.3.attn_q.weight",)), 7, (0.25, 0.75), 0.5, defect="it guesses")
    assert Cost.from_document(json.loads(json.dumps(one.document()))) == one
    assert one.kld is not None
    assert (one.kld.value, one.kld.error) == (0.5, 0.25)


def test_a_run_is_json() -> None:
    whole = cost("all together", 0.5, kind="all")
    run = Sensitivity("t", {}, {}, "org/m:F16", "sha256:x", "Q4_0", "text", "abc", QualitySpec(), (whole,))
    assert json.loads(json.dumps(run.document()))["kind"] == "sensitivity"
    assert (run.together, run.kept) == (whole, None)
