"""The child that tries a chat template: stdin has the request of `template.py`, stdout gets the answer, both JSON.

It knows what llama.cpp's own engine of templates knows: statements, functions, filters and tests of `common/jinja` at
0c1e57098 (https://github.com/ggml-org/llama.cpp/tree/0c1e57098/common/jinja). Rendering is jinja2's, in the sandbox and
with the settings of transformers.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from slmkit.core.units import size

MEMORY_BYTES = 1 << 30

FUNCTIONS = frozenset({"raise_exception", "dict", "namespace", "strftime_now", "range", "tojson"})
_FILTERS = """
abs append capitalize count d default dictsort first float format get indent int items join keys last length list lower
map max min pop reject rejectattr replace reverse rsplit rstrip lstrip safe select selectattr slice sort split
startswith endswith string strip sum title tojson trim truncate unique upper values
"""
_TESTS = """
boolean callable odd even false true divisibleby string integer float number iterable sequence mapping lower upper none
defined undefined eq equalto ge gt greaterthan lt lessthan ne in test sameas escaped filter
"""
FILTERS, TESTS = frozenset(_FILTERS.split()), frozenset(_TESTS.split())
_STATEMENTS = {
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "import",
    nodes.Extends: "extends",
    nodes.Block: "block",
    nodes.With: "with",
}

_SYSTEM, _USER, _ANSWER, _MORE = "the-system-text", "the-first-question", "the-answer", "the-second-question"
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_the_weather",
        "description": "Weather of a place",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
_CALL = {"type": "function", "id": "call00001", "function": {"name": "ask_the_moon", "arguments": {"place": "Ulm"}}}


class Generation(Extension):
    """`{% generation %}` of transformers, which marks what the model has said."""

    tags = {"generation"}  # noqa: RUF012 (as its base declares it)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Only its body."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def environment() -> ImmutableSandboxedEnvironment:
    """As transformers renders templates."""
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    made.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    made.globals["raise_exception"] = _raise
    made.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return made


def lint(request: Mapping[str, Any]) -> dict[str, list[str]]:
    """What the template takes, remarks and problems."""
    env = environment()
    try:
        problems = list(_unknown(env.parse(request["template"])))
        template = env.from_string(request["template"])
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        return {"problems": [f"no valid Jinja{f', line {line}' if line else ''}: {error.message}"]}

    def render(*messages: Mapping[str, Any], prompt: bool = False, **more: Any) -> str:
        return template.render(
            messages=[dict(message) for message in messages],
            add_generation_prompt=prompt,
            bos_token=request["bos"],
            eos_token=request["eos"],
            **more,
        )

    system, user = _message("system", _SYSTEM), _message("user", _USER)
    answer, more = _message("assistant", _ANSWER), _message("user", _MORE)
    try:
        plain, prompted = render(user), render(user, prompt=True)
        talk = render(user, answer, more, prompt=True)
        answered = render(user, answer)
    except _ERRORS as error:
        return {"problems": [*problems, f"it fails with a plain conversation: {error}"]}
    if plain == prompted:
        problems.append("it adds no generation prompt")
    lost = [text for text in (_USER, _ANSWER, _MORE) if text not in talk]
    if lost:
        problems.append(f"it leaves out {' and '.join(lost).replace('-', ' ')}")
    elif not any(stop in answered.split(_ANSWER, 1)[-1] for stop in request["stops"]):
        problems.append("no token that ends generation comes after an answer: the model may never stop")
    takes, remarks = _takes(render, system, user, answer)
    if request["bos"] and request["add_bos"] and plain.startswith(request["bos"]):
        remarks.append(
            f"it begins with {request['bos']}, which the tokenizer adds as well: llama-server takes one away, "
            "other programs may not"
        )
    return {"takes": takes, "remarks": remarks, "problems": problems}


def _takes(render: Any, *messages: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    system, user, _ = messages
    called = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
    result = {"role": "tool", "name": "ask_the_moon", "tool_call_id": "call00001", "content": "the-result"}
    takes, remarks = [], []
    trials: dict[str, Callable[[], bool]] = {
        "system": lambda: _SYSTEM in render(system, user),
        "tools": lambda: "get_the_weather" in render(user, tools=[_TOOL]),
        "tool calls": lambda: _has(render(user, called, result, tools=[_TOOL]), "moon", "the-result"),
    }
    for name, trial in trials.items():
        try:
            works = trial()
        except _ERRORS as error:
            remarks.append(f"{name}: refused ({error})")
        else:
            if works:
                takes.append(name)
            elif name == "system":
                remarks.append("system: the message is left out without a word")
    return takes, remarks


def _unknown(tree: nodes.Template) -> Iterator[str]:
    """Statements, functions, filters and tests that llama.cpp's engine does not have."""
    own = {name.name for name in tree.find_all(nodes.Name) if name.ctx in ("store", "param")}
    own |= {macro.name for macro in tree.find_all(nodes.Macro)} | {"caller", "loop"}
    found: dict[str, None] = {}
    for kind, name in _STATEMENTS.items():
        if next(iter(tree.find_all(kind)), None) is not None:
            found[f"statement `{name}`"] = None
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name not in FUNCTIONS | own:
            found[f"function `{call.node.name}`"] = None
    found |= {f"filter `{f.name}`": None for f in tree.find_all(nodes.Filter) if f.name not in FILTERS}
    found |= {f"test `{t.name}`": None for t in tree.find_all(nodes.Test) if t.name not in TESTS}
    yield from (f"{what} is unknown to llama.cpp" for what in found)


def _has(text: str, *parts: str) -> bool:
    return all(part in text for part in parts)


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


_ERRORS = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What a template can do wrong while it is rendered."""


def main() -> None:
    """Answer one request; memory is limited where the system can do that."""
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    request = json.loads(sys.stdin.read())
    try:
        answer = lint(request)
    except MemoryError:
        answer = {"problems": [f"it needs more than {size(MEMORY_BYTES)} of memory"]}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
