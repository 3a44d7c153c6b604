"""The texts of options, and the names of variants."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit.core.quant import QUANT_TYPES, QuantType
from slmkit.core.quantize import Override, QuantizeSpec, Rule, label_of, parse_layers, variant_name
from slmkit.core.refs import ModelRef
from slmkit.core.units import parse_size
from slmkit.errors import UsageError

Q4_0 = QUANT_TYPES["Q4_0"]
TYPES = st.sampled_from(["Q8_0", "IQ2_XXS", "MXFP4"])
SPECS = st.builds(
    QuantizeSpec,
    rules=st.lists(st.builds(Rule, st.sampled_from(["ffn", "attn_v", r"blk\.[0-3]\."]), TYPES), max_size=2).map(tuple),
    output_type=st.none() | TYPES,
    embedding_type=st.none() | TYPES,
    pure=st.booleans(),
    leave_output=st.booleans(),
    prune_layers=st.lists(st.integers(0, 9), unique=True, max_size=3).map(lambda n: tuple(sorted(n))),
    overrides=st.lists(st.builds(Override, st.just("k"), st.integers(0, 5)), max_size=1).map(tuple),
    allow_requantize=st.booleans(),
)


@given(SPECS, SPECS)
def test_two_specs_have_two_names(one: QuantizeSpec, other: QuantizeSpec) -> None:
    assert (one.label == other.label) == (one.parameters == other.parameters)


@given(SPECS, st.sampled_from(list(QUANT_TYPES.values())))
def test_a_name_can_be_typed_and_says_its_type(spec: QuantizeSpec, quant: QuantType) -> None:
    name = variant_name(quant, spec)
    assert ModelRef.parse(f"org/name:{name}").variant == name
    assert name.partition("-")[0] == str(quant)
    assert label_of(name) == spec.label


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (QuantizeSpec(), "Q4_0"),
        (QuantizeSpec(max_buffer_bytes=5, keep_split=True), "Q4_0"),
        (QuantizeSpec(pure=True), "Q4_0-pure"),
        (QuantizeSpec(output_type="Q8_0"), "Q4_0-output-Q8_0"),
        (QuantizeSpec(embedding_type="Q8_0", leave_output=True), "Q4_0-embedding-Q8_0-output-kept"),
        (QuantizeSpec(allow_requantize=True), "Q4_0-requantized"),
        (QuantizeSpec(rules=(Rule("ffn_down", "Q6_K"),)), "Q4_0-rules-83da01"),
    ],
)
def test_names_of_variants_stay_the_same(spec: QuantizeSpec, name: str) -> None:
    assert variant_name(Q4_0, spec) == name


def test_a_name_that_was_given_and_one_that_is_inherited() -> None:
    assert variant_name(Q4_0, QuantizeSpec(pure=True), name="lean") == "Q4_0-lean"
    assert variant_name(Q4_0, QuantizeSpec(), source="F16-pruned-123456") == "Q4_0-pruned-123456"
    assert variant_name(Q4_0, QuantizeSpec(), source="UD-Q4_K_XL") == "Q4_0"
    for bad in ("", "a b", "-x", "x" * 33):
        with pytest.raises(UsageError, match="not a name"):
            variant_name(Q4_0, QuantizeSpec(), name=bad)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("a.b=int:5", "a.b", 5),
        ("a=float:0.5", "a", 0.5),
        ("a=bool:True", "a", True),
        ("a=str:x=y:z", "a", "x=y:z"),
        ("a=str:", "a", ""),
    ],
)
def test_a_metadata_value_is_read(text: str, key: str, value: object) -> None:
    override = Override.parse(text)
    assert (override.key, override.value) == (key, value)
    assert type(override.value) is type(value)


@pytest.mark.parametrize(
    "text", ["a", "a=5", "a=int:x", "a=int:-1", "a=int:4294967296", "a=bool:1", "=int:1", "a=u8:1"]
)
def test_what_is_no_metadata_value_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Override.parse(text)


@given(st.sets(st.integers(0, 99), min_size=1))
def test_layers_one_by_one_and_as_ranges(layers: set[int]) -> None:
    assert parse_layers(",".join(map(str, layers))) == tuple(sorted(layers))
    first, last = min(layers), max(layers)
    assert parse_layers(f"{first}-{last}") == tuple(range(first, last + 1))


@pytest.mark.parametrize("text", ["", "a", "5-3", "1,,2", "-1", "1-2-3"])
def test_what_is_no_list_of_layers_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="layers"):
        parse_layers(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("5", 5), ("512MiB", 512 << 20), ("1.5 GiB", 3 << 29), ("2kb", 2000), ("1TB", 10**12), ("7B", 7)],
)
def test_sizes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "x", "5 Q", "iB", "5iB", "-5", "5KBB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="size"):
        parse_size(text)


def test_options_are_what_was_typed() -> None:
    spec = QuantizeSpec(
        rules=(Rule("attn_[kv]", "Q8_0"),),
        output_type="Q6_K",
        pure=True,
        prune_layers=(1, 3),
        overrides=(Override("a.b", True), Override("c", 0.5), Override("general.name", "x y")),
        max_buffer_bytes=1024,
    )
    assert spec.options == (
        "--rule 'attn_[kv]=Q8_0' --output-type Q6_K --pure --prune-layers 1,3 --override-kv a.b=bool:true "
        "--override-kv c=float:0.5 --override-kv 'general.name=str:x y' --max-buffer 1024"
    )
    assert all(Override.parse(override.typed) == override for override in spec.overrides)
    assert QuantizeSpec().options == ""
