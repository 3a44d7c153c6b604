"""`slmkit quantize --target-...`: the file has the size that was asked for, and the types that were planned."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from slmkit.core.artifact import Artifact
from slmkit.core.progress import SILENT
from slmkit.core.quantize import QuantizeSpec, Rule
from slmkit.core.refs import ModelRef
from slmkit.core.target import TargetSpec
from slmkit.errors import ChangedError, UsageError
from slmkit.formats.gguf.header import read_header
from slmkit.ops.target import plan
from slmkit.ops.target.objective import OBJECTIVE, expected_kld
from slmkit.ops.target.rules import rules
from slmkit.recipes import verbs
from slmkit.recipes.session import Session
from slmkit.recipes.target import quantize_to_target
from slmkit.registry import paths
from tests import factories
from tests.conftest import Run


def make(source: Artifact, target: TargetSpec, session: Session, **options: Any) -> Any:
    return quantize_to_target(ModelRef.parse(source.ref), target, session, **options)


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with enough tensors that 1 % of a file is more than one of them takes."""
    folder = tmp_path_factory.mktemp("checkpoints") / "larger"
    return factories.make_llama(folder, n_layers=6, tie_word_embeddings=True)


@pytest.fixture
def source(larger: Path, session: Session) -> Artifact:
    return verbs.convert(ModelRef("path", str(larger)), session)


@pytest.mark.parametrize("bpw", [2.8, 4.5, 12.0])
def test_bits_per_weight_are_met_from_below(source: Artifact, session: Session, bpw: float) -> None:
    report = make(source, TargetSpec("bpw", bpw), session)
    made = report.artifact
    assert report.fresh
    assert made.ref == f"local/larger:MIX-{bpw:.2f}bpw"
    assert 0.99 * bpw <= read_header(made.path).bpw <= bpw  # type: ignore[operator]
    assert made.provenance.parameters["target"] == {"bpw": bpw}
    assert made.provenance.parameters["objective"] == OBJECTIVE
    assert set(made.provenance.parameters["candidates"]) >= {kind for _, kind in made.provenance.parameters["rules"]}
    assert 0 < made.facts["bound_kld"] <= made.facts["expected_kld"] * (1 + 1e-9)
    assert made.facts["n_fallback"] == 0
    ruled = {kind for _, kind in made.provenance.parameters["rules"]}
    assert set(made.facts["params_by_type"]) - {"F32"} == ruled


def test_a_size_is_met_from_below(source: Artifact, session: Session) -> None:
    wanted = int(source.size_bytes * 0.4)
    by_size = make(source, TargetSpec("size", wanted), session).artifact
    assert 0.99 * wanted <= by_size.path.stat().st_size <= wanted
    by_share = make(source, TargetSpec("reduction", 0.6), session).artifact
    assert by_share.variant == "MIX-minus60pct"
    assert by_share.digest == by_size.digest


def test_what_is_there_already_is_neither_measured_nor_made_again(source: Artifact, session: Session) -> None:
    target = TargetSpec("bpw", 5)
    first = make(source, target, session)
    (table,) = (session.registry.home / "distortion").iterdir()
    table.unlink()
    again = make(source, target, session)
    assert (first.fresh, again.fresh) == (True, False)
    assert again.artifact == first.artifact
    assert not table.exists()


def test_a_second_target_and_a_half_finished_table_measure_only_what_is_missing(
    source: Artifact, session: Session
) -> None:
    make(source, TargetSpec("bpw", 5), session)
    (table,) = (session.registry.home / "distortion").iterdir()
    document = json.loads(table.read_text("utf-8"))
    lost = document["tensors"].pop("blk.1.ffn_up.weight")
    marked = document["tensors"]["blk.0.ffn_up.weight"]
    marked["n_rows"] = 12345  # whoever measured it again would not find this number
    table.write_text(json.dumps(document), "utf-8")
    make(source, TargetSpec("bpw", 6), session)
    after = json.loads(table.read_text("utf-8"))["tensors"]
    assert after["blk.0.ffn_up.weight"]["n_rows"] == 12345
    assert after["blk.1.ffn_up.weight"] == lost


def test_nothing_is_kept_of_a_source_that_has_changed(source: Artifact, session: Session) -> None:
    raw = bytearray(source.path.read_bytes())
    raw[-1] ^= 1
    source.path.write_bytes(raw)
    os.utime(source.path, (2e9, 2e9))
    with pytest.raises(ChangedError, match="has changed since it was registered"):
        make(source, TargetSpec("bpw", 5), session)
    assert not list((session.registry.home / "distortion").glob("*"))


def test_a_mix_that_is_well_below_its_target_is_said(float_artifact: Artifact, session: Session) -> None:
    """The two largest tensors of a tiny model are a fifth of it: there is no mix for every size."""
    shares = {}
    for bpw in (2.9, 3.3, 14.0, 15.9):
        report = make(float_artifact, TargetSpec("bpw", bpw), session)
        shares[bpw] = report.artifact.facts["bpw"] / bpw
        words = f" % smaller than {bpw:g} bpw: the best mix of types that fits"
        assert any(words in note for note in report.notes) == (shares[bpw] < 0.99)
    assert min(shares.values()) < 0.99 <= max(shares.values())


def test_a_damaged_table_is_measured_anew(source: Artifact, session: Session) -> None:
    def planned() -> Any:
        return plan(source, TargetSpec("bpw", 5), session.registry, SILENT, imatrix=None, n_threads=2)

    first = planned()
    (table,) = (session.registry.home / "distortion").iterdir()
    for damage in ("", '{"tensors": 3}', '{"tensors": {"blk.0.ffn_up.weight": {}}}'):
        table.write_text(damage, "utf-8")
        assert planned() == first


def test_what_cannot_be_reached_says_what_can_and_measures_nothing(source: Artifact, session: Session) -> None:
    said = set()
    for target in (("bpw", 1), ("bpw", 17), ("size", 1000), ("size", 1 << 40)):
        with pytest.raises(UsageError) as caught:
            make(source, TargetSpec(*target), session)
        said.add(caught.value.hint or "")
    folder = paths.model_dir(session.registry.home, source.model)
    assert not list(folder.glob("*MIX*"))
    assert not (session.registry.home / "distortion").exists()
    bounds = r"a target between (\S+ \S+) \((\S+) bpw\) and (\S+ \S+) \((\S+) bpw\)"
    (match,) = (re.fullmatch(bounds, hint) for hint in said)
    assert match
    for unit, text in (("size", match[1]), ("bpw", match[2]), ("size", match[3]), ("bpw", match[4])):
        assert plan(source, TargetSpec.parse(unit, text), session.registry, SILENT, imatrix=None, n_threads=2)  # type: ignore[arg-type]
    smallest, largest = TargetSpec.parse("bpw", match[2]), TargetSpec.parse("bpw", match[4])
    for beyond in (smallest.value - 0.02, largest.value + 0.02):
        with pytest.raises(UsageError, match=r"cannot become|nothing to save"):
            make(source, TargetSpec("bpw", beyond), session)


def test_a_quantized_source_is_refused_before_a_word_of_importance(slmkit: Run, tiny: str) -> None:
    for options in ((), ("--imatrix", "auto")):
        done = slmkit("quantize", f"{tiny}:Q4_0", "--target-bpw", "4.5", *options)
        assert (done.returncode, done.stdout) == (2, "")
        assert "is quantized already" in done.stderr
        assert "importance" not in done.stderr


def test_a_reduction_of_more_than_all_is_said_as_it_was_typed() -> None:
    with pytest.raises(UsageError, match=r"between 0 and 100 %, not 130 %$"):
        TargetSpec.parse("reduction", "130%")


def test_the_plan_prefers_what_its_errors_say(source: Artifact, session: Session) -> None:
    """More bytes never make more error, and the bound is a bound."""
    errors = []
    for bpw in (3.0, 4.0, 5.0, 6.0, 7.0):
        found = plan(source, TargetSpec("bpw", bpw), session.registry, SILENT, imatrix=None, n_threads=2)
        assert 0 < found.mix.bound_kld <= found.mix.expected_kld * (1 + 1e-9)
        errors.append(found.mix.expected_kld)
    assert errors == sorted(errors, reverse=True)


def test_the_same_error_does_more_harm_where_it_was_measured_to() -> None:
    def kld(name: str, kind: str = "Q5_1", error: float = 0.01, **options: Any) -> float:
        return expected_kld(name, kind, error, 12, **{"is_output": False, **options})

    assert kld("token_embd.weight", is_output=True) > 12 * kld("token_embd.weight")
    assert kld("blk.3.ffn_down.weight") > kld("blk.3.attn_q.weight") > 0
    assert kld("blk.3.ffn_down_exps.weight") == kld("blk.3.ffn_down.weight")
    assert kld("blk.0.ffn_up.weight") == kld("blk.11.ffn_up.weight") > kld("blk.5.ffn_up.weight")
    assert kld("blk.3.attn_v.weight", "Q5_0") > 2 * kld("blk.3.attn_v.weight")
    assert (
        kld("blk.3.ffn_down.weight", "Q6_K")
        > kld("blk.3.ffn_down.weight", "Q8_0")
        > kld("blk.3.ffn_down.weight", "F16")
    )


def test_each_tensor_is_found_by_its_own_rule_only() -> None:
    types = {f"blk.{n}.ffn_{part}.weight": "Q4_0" if n % 3 else "Q6_K" for n in range(12) for part in ("up", "down")}
    types |= {"token_embd.weight": "Q8_0", "output.weight": "Q6_K"}
    types |= {f"blk.{n}.attn_q.weight": "Q5_0" for n in range(12)}
    found = rules(types)
    assert len(found) == 7
    for name, kind in types.items():
        assert [rule.type for rule in found if re.search(rule.pattern, name)] == [kind]


def test_a_target_comes_back_from_its_parameters() -> None:
    for target in (TargetSpec("size", 1 << 30), TargetSpec("bpw", 4.5), TargetSpec("reduction", 0.7)):
        spec = QuantizeSpec(rules=(Rule("a", "Q6_K"),), target=target)
        assert QuantizeSpec.of({"type": "Q4_0", **json.loads(json.dumps(dict(spec.parameters)))}) == spec


def test_the_command_line(source: Artifact, slmkit: Run) -> None:
    done = slmkit("quantize", source.ref, "--target-bpw", "4.5", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["bpw"] == pytest.approx(4.5, rel=0.01)
    again = slmkit("quantize", source.ref, "--target-bpw", "4.5")
    assert again.returncode == 0
    assert "MIX-4.50bpw" in again.stdout
    assert re.search(r"% of the parameters are \w+, ", again.stdout)


def test_what_cannot_be_meant_is_refused(slmkit: Run) -> None:
    for arguments in (
        (),
        ("-t", "Q4_0", "--target-bpw", "4.5"),
        ("--target-bpw", "4.5", "--target-size", "1GiB"),
        ("--target-bpw", "four"),
        ("--target-bpw", "nan"),
        ("--target-reduction", "120%"),
        ("--target-size", "small"),
        ("--target-bpw", "4.5", "--pure"),
    ):
        done = slmkit("quantize", "local/nobody", *arguments)
        assert done.returncode == 2, (arguments, done.stdout)
        assert "Traceback" not in done.stderr
        assert "nobody" not in done.stderr, "it is said before anything is looked for"
