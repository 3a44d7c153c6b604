"""Rules for tensors as text and as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmkit.core.quantize import Rule
from slmkit.errors import UnknownTypeError, UsageError
from slmkit.formats.tensor_rules import parse_rule, read_rules


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("ffn_down=Q6_K", Rule("ffn_down", "Q6_K")),
        (" FFN_Down = q6_k ", Rule("ffn_down", "Q6_K")),
        (r"blk\.\D+=BF16", Rule(r"blk\.\D+", "BF16")),
        ("(?=attn)a=Q8_0", Rule("(?=attn)a", "Q8_0")),
    ],
)
def test_a_rule_is_read(text: str, rule: Rule) -> None:
    assert parse_rule(text) == rule


@pytest.mark.parametrize("text", ["ffn_down", "=Q6_K", "ffn(=Q6_K", ""])
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_rule(text)


@pytest.mark.parametrize(("kind", "near"), [("Q6K", "`Q6_K`"), ("Q8_1", "`Q8_0`"), ("zzz", "one of F32")])
def test_a_type_that_weights_cannot_have_gets_near_names(kind: str, near: str) -> None:
    with pytest.raises(UnknownTypeError) as caught:
        parse_rule(f"ffn={kind}")
    assert near in (caught.value.hint or "")


def test_a_file_of_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.txt"
    path.write_text("# the first that fits decides\n\nffn_down=Q6_K  # larger\nffn=q4_0\n", encoding="utf-8")
    assert read_rules(path) == (Rule("ffn_down", "Q6_K"), Rule("ffn", "Q4_0"))
    path.write_text("ffn_down=Q6_K\nffn=nonsense\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"rules\.txt:2: "):
        read_rules(path)
    with pytest.raises(UsageError, match="cannot read"):
        read_rules(tmp_path / "none")
