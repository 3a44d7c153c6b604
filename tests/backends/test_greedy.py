"""Greedy answers, against tokens that are taken one sequence at a time; and what a grammar lets through."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from slmkit.backends.llamacpp.greedy import Written, greedy
from slmkit.core.behaviour import Prompt, json_object
from slmkit.core.progress import SILENT
from slmkit.core.refs import ModelRef
from slmkit.errors import EngineError
from slmkit.recipes import verbs
from slmkit.recipes.session import Session
from slmkit.registry.store import Registry
from tests import factories

GRAMMAR = (resources.files("slmkit") / "data" / "json.gbnf").read_text(encoding="utf-8")
PROMPTS = (
    Prompt("a", "text", "it was said that all of the others"),
    Prompt("b", "json", "which one is it", keys=("x",)),
    *(Prompt(f"c{i}", "text", "of the time and in that " * i) for i in range(1, 9)),
    Prompt("d", "json", "they have been there", keys=("x", "y")),
)
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_SLOWLY = """
import json, sys
from slmkit.backends.llamacpp import bindings
from slmkit.backends.llamacpp.decoder import Decoder
bindings.on_log(lambda *_: None)
found = []
with bindings.model(sys.argv[1]) as model:
    for text in json.loads(sys.argv[2]):
        with bindings.context(model, n_ctx=512, n_batch=64, n_ubatch=64, n_threads=1) as created:
            decoder = Decoder(model, created, 64)
            decoder.prompt(decoder.tokenize(text))
            steps = []
            for _ in range(int(sys.argv[3])):
                logits = decoder.logits()
                first, second = sorted(logits.tolist())[-1:-3:-1]
                steps.append((int(logits.argmax()), first - second))
                decoder.step(steps[-1][0])
            found.append(steps)
print(json.dumps(found))
"""


def write(path: Path, prompts: tuple[Prompt, ...] = PROMPTS, n_gen: int = 24, grammar: str = GRAMMAR) -> Written:
    return greedy(path, prompts, n_gen=n_gen, grammar=grammar, n_threads=1, on_written=lambda _: None)


def test_each_token_is_the_likeliest(f16: Path) -> None:
    """Until two are so near that the order of a sum decides, or the answer ends."""
    written = write(f16)
    assert not written.is_chat  # llama.cpp does not know the tiny model's template
    texts = json.dumps([prompt.text for prompt in PROMPTS])
    done = subprocess.run(
        [sys.executable, "-c", _SLOWLY, f16, texts, "24"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    compared = 0
    for answer, steps in zip(written.answers, json.loads(done.stdout), strict=True):
        for token, (expected, lead) in zip(answer.free.tokens, steps, strict=False):
            if lead < 0.01:
                break
            assert token == expected, answer.prompt
            compared += 1
    assert compared > 100


def test_it_is_the_same_each_time(f16: Path) -> None:
    seen: list[int] = []
    first = greedy(f16, PROMPTS, n_gen=24, grammar=GRAMMAR, n_threads=1, on_written=seen.append)
    assert write(f16) == first
    assert sum(seen) == len(PROMPTS) + 2
    assert all(len(answer.free.tokens) == 24 or answer.free.ended for answer in first.answers)


def test_a_longer_answer_begins_with_the_shorter_one(f16: Path) -> None:
    for short, long in zip(write(f16, n_gen=5).answers, write(f16).answers, strict=True):
        assert long.free.tokens[:5] == short.free.tokens


def test_with_the_grammar_there_is_nothing_but_json(f16: Path) -> None:
    """Random weights write nonsense: it ends in strings and numbers that a longer answer would have closed."""
    for answer in write(f16, n_gen=64).answers:
        assert (answer.constrained is not None) == bool(answer.keys)
        if answer.constrained:
            assert answer.constrained.text.lstrip().startswith("{")
            assert answer.constrained.ended == (json_object(answer.constrained.text) is not None)


@pytest.mark.parametrize(
    ("rule", "text", "ended"),
    [('root ::= " no"', "no", True), ('root ::= [0-9] [0-9] "."', None, True), ("root ::= [a-z ]+", None, False)],
)
def test_a_grammar_that_lets_little_through(f16: Path, rule: str, text: str | None, ended: bool) -> None:
    (answer,) = write(f16, PROMPTS[1:2], grammar=rule).answers
    assert answer.constrained is not None
    assert answer.constrained.ended == ended
    if text:
        assert answer.constrained.text.strip() == text
    elif ended:
        assert answer.constrained.text.strip()[:2].isdigit()


def test_a_grammar_that_is_none_is_an_error(f16: Path) -> None:
    with pytest.raises(EngineError, match="cannot read the grammar"):
        write(f16, grammar="root ::= (")


def test_a_chat_template_that_llamacpp_knows_is_used(tmp_path: Path) -> None:
    folder = factories.make_llama(tmp_path / "chat")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    factories.write_json(folder / "tokenizer_config.json", {**config, "chat_template": CHATML})
    path = tmp_path / "chat.gguf"
    verbs.convert(ModelRef("path", str(folder)), Session(Registry(tmp_path / "r"), SILENT), target=path)
    as_chat = write(path, PROMPTS[:2], n_gen=8)
    assert as_chat.is_chat
    wrapped = Prompt("a", "text", f"<|im_start|>user\n{PROMPTS[0].text}<|im_end|>\n<|im_start|>assistant\n")
    del config["chat_template"]
    factories.write_json(folder / "tokenizer_config.json", config)
    plain = tmp_path / "plain.gguf"
    verbs.convert(ModelRef("path", str(folder)), Session(Registry(tmp_path / "s"), SILENT), target=plain)
    as_text = write(plain, (wrapped,), n_gen=8)
    assert not as_text.is_chat
    assert as_text.answers[0].free == as_chat.answers[0].free
    assert as_text.tokens_sha256 != as_chat.tokens_sha256
