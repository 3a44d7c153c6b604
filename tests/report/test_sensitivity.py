"""How sensitivity and damage look: bars, marks, notes, files; nothing is measured here."""

from __future__ import annotations

import math
import tomllib
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from slmkit.core.damage import Context, Damage, Group, Likely, Place
from slmkit.core.quality import QualitySpec
from slmkit.core.sensitivity import MIB, Cost, Kind, Sensitivity, TensorGroup
from slmkit.core.stats import Estimate
from slmkit.errors import UsageError
from slmkit.recipes import schema
from slmkit.recipes.sensitivity import write_recipe
from slmkit.report import plots
from slmkit.report.damage import damage_tables, where_lost, worst_text
from slmkit.report.sensitivity import recipe_text, sensitivity_table
from slmkit.report.table import render
from tests import judged


def cost(kind: Kind, name: str, kld: float, mib: float, *, outside: bool = False) -> Cost:
    return Cost(TensorGroup(kind, name, (f"{name}.weight",), outside), int(mib * MIB), (kld * 0.9, kld * 1.1), 0.9)


COSTS = (
    cost("role", "attn_v", 0.03, 1),
    cost("role", "ffn_up", 0.01, 8),
    cost("role", "token_embd", 0.02, 6, outside=True),
    cost("layer", "blk.0", 0.03, 4),
    cost("layer", "blk.1", 0.01, 5),
    cost("all", "all together", 0.062, 15),
    cost("kept", "costly in Q8_0", 0.031, 14),
)
RULES = ((r"^blk\.\d+\.attn_v\.weight$", "Q8_0"),)
FOUND = Sensitivity(
    "t", {}, {}, "org/m:F16", "sha256:x", "Q4_0", "text", "0123456789abcdef", QualitySpec(), COSTS, RULES
)


def test_the_table_has_the_most_costly_role_first_and_layers_in_order() -> None:
    rows = sensitivity_table(FOUND).records()
    assert [row["group"] for row in rows] == [
        *("attn_v", "token_embd", "ffn_up", "blk.0", "blk.1", "all together", "costly in Q8_0")
    ]
    assert [row["is_costly"] for row in rows] == [True] + [False] * 6
    assert [len(row["bar"]) for row in rows] == [24, 16, 8, 24, 8, 0, 0]
    assert [row["kld_share"] for row in rows[:3]] == pytest.approx([0.5, 1 / 3, 1 / 6])


def test_the_notes_say_whether_it_adds_up_and_what_a_mark_means() -> None:
    text = render(sensitivity_table(FOUND), "md")
    assert "roles add up to 0.0600, layers and what is in none to 0.0600; all together cost 0.0620" in text
    assert "* costs more than 2 times the mean for a byte saved" in text
    assert "2 chunks of 512 tokens of text (0123456789ab), beside m-F16" in text


def test_what_could_not_be_measured_has_its_reason() -> None:
    failed = replace(FOUND, costs=(replace(COSTS[0], klds=(), same_top=None, failure="it crashed"), *COSTS[1:]))
    table = sensitivity_table(failed)
    assert "attn_v: it crashed" in table.notes
    assert table.records()[2]["kld"] is None
    assert not any("add up" in note for note in table.notes)


def test_what_is_no_number_is_shown_and_has_no_bar() -> None:
    broken = replace(FOUND, costs=(replace(COSTS[0], klds=(math.nan, 1.0)), *COSTS[1:]))
    assert "nan" in render(sensitivity_table(broken), "md")


@pytest.mark.parametrize("name", ["costs.svg", "costs.png"])
def test_the_picture(tmp_path: Path, name: str) -> None:
    plots.sensitivity_bars(FOUND, tmp_path / name)
    first = (tmp_path / name).read_bytes()
    plots.sensitivity_bars(FOUND, tmp_path / name)
    assert (tmp_path / name).read_bytes() == first
    if name.endswith("svg"):
        assert ET.parse(tmp_path / name).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        assert {"attn_v", "ffn_up", "m-F16: each group of tensors alone in Q4_0"} <= {
            line.strip()[5:-4] for line in first.decode().splitlines() if line.strip().startswith("<!-- ")
        }


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to draw"):
        plots.sensitivity_bars(replace(FOUND, costs=COSTS[-2:]), tmp_path / "x.svg")


@pytest.mark.parametrize("ref", ["org/m:F16", "./it's m.gguf", 'a "b" \\c.gguf', "./m-F16.gguf"])
def test_any_reference_makes_a_recipe_that_is_taken(tmp_path: Path, ref: str) -> None:
    found = replace(FOUND, ref=ref)
    document = tomllib.loads(recipe_text(found, "it's"))
    assert document["models"][0]["ref"] == ("org/m" if ref == "org/m:F16" else ref)
    assert document["name"] == "it's"
    if ref != 'a "b" \\c.gguf':
        write_recipe(found, tmp_path / "kept.toml")
        recipe = schema.load(tmp_path / "kept.toml")
        assert [(rule.pattern, rule.type) for rule in recipe.models[0].quantize.spec.rules] == list(RULES)


def test_the_recipe_says_what_it_costs() -> None:
    text = recipe_text(FOUND, "kept")
    assert "# attn_v." in text
    assert "# Mean KLD 0.0310 instead of 0.0620, for 1.0 MiB more," in text
    assert "nothing costs more" in recipe_text(replace(FOUND, rules=(), costs=COSTS[:-1]), "kept")


GROUPS = (
    Group("class", "digits", 10, 0.1, Estimate(0.5, 0.1), 0.5, 0.8),
    Group("class", "names", 90, 0.9, Estimate(0.055, None), 0.5, 0.9),
    Group("domain", "prose", 100, 1.0, Estimate(0.1, 0.01), 1.0, 0.9),
)
TOP = (Likely(" cat", 0.5), Likely("\n", 0.25))
WORST = Context(Place("prose", 3, 7, 4.5), "the\n", " cat", 0.5, 0.01, TOP, TOP[::-1])


def test_damage_stands_side_by_side() -> None:
    other = (GROUPS[0], replace(GROUPS[1], kld_share=None))
    tables = damage_tables([Damage("org/m:Q4_0", "a", GROUPS, ()), Damage("org/m:Q8_0", "b", other, ())])
    assert [table.columns[0].title for table in tables] == ["kind of token"]
    digits, names = tables[0].records()
    assert (digits["kld_Q4_0"], digits["kld_share_Q8_0"]) == (0.5, 0.5)
    assert names["kld_share_Q8_0"] is None
    assert "0.5000 ± 0.1000" in render(tables[0], "md")


def test_runs_on_one_text_share_their_tables_and_a_file_measured_twice_has_a_number() -> None:
    one = judged.run(judged.F16, judged.damaged(judged.Q4_0), judged.damaged(judged.Q8_0))
    both = where_lost([one, one])
    assert [table.columns[0].title for table in both] == ["kind of token", "tokens before it"]
    names = [column.title for column in both[0].for_people().columns if column.title.endswith(" KLD")]
    assert names == ["Q4_0 KLD", "Q8_0 KLD", "Q4_0 (2) KLD", "Q8_0 (2) KLD"]
    assert len(where_lost([one, replace(one, corpus="b" * 64)])) == 4
    assert where_lost([judged.run(judged.F16, judged.Q4_0)]) == []


def test_the_worst_are_lines_that_show_white_space() -> None:
    lines = worst_text(Damage("org/m:Q4_0", "a", GROUPS, (WORST,))).splitlines()
    assert lines == [
        "worst contexts of m-Q4_0",
        "1. KLD 4.500, prose, chunk 3: the\\n[ cat]",
        "   base    50.0 % for it; [ cat] 50.0 %, [\\n] 25.0 %",
        "   m-Q4_0  1.0 % for it; [\\n] 25.0 %, [ cat] 50.0 %",
    ]
