"""Log-likelihoods of choices, against logits that are computed one token at a time and summed up in float64."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from slmkit.backends.llamacpp.choices import Answers, choices
from slmkit.core.progress import SILENT
from slmkit.core.refs import ModelRef
from slmkit.core.tasks import Question
from slmkit.errors import EngineError
from slmkit.formats.gguf.header import read_header
from slmkit.recipes import verbs
from slmkit.recipes.session import Session
from slmkit.registry.store import Registry
from tests import factories
from tests.convert.conftest import make_case, smollm2, smollm2_gguf  # noqa: F401  fixtures

NEAR = 1e-3
"""A share of each sum of logarithms: the KV cache has 16 bits, and other batches are summed in another order."""

_SLOWLY = """
import json, math, sys
import numpy as np
from slmkit.backends.llamacpp import bindings
from slmkit.backends.llamacpp.decoder import Decoder
bindings.on_log(lambda *_: None)
found = []
with bindings.model(sys.argv[1]) as model:
    for context, choices in json.loads(sys.argv[2]):
        sums = []
        for choice in choices:
            with bindings.context(model, n_ctx=512, n_batch=64, n_ubatch=64, n_threads=1) as created:
                decoder = Decoder(model, created, 64)
                before = len(decoder.tokenize(context.rstrip()))
                tokens = decoder.tokenize(context + choice).tolist()
                total = 0.0
                for i, token in enumerate(tokens[:-1]):
                    decoder.step(token)
                    if i + 1 >= before:
                        logits = decoder.logits().astype(np.float64)
                        top = logits.max()
                        total += logits[tokens[i + 1]] - top - math.log(np.exp(logits - top).sum())
                sums.append((total, len(tokens) - before))
        found.append(sums)
print(json.dumps(found))
"""

QUESTIONS = (
    Question("Question: which one is the other\nAnswer:", ("a", "the one that was said", "her", "no other 42"), 0, "1"),
    Question("of", ("the", "it"), 1, "2"),
    Question(
        "they were all there and who has not been there  ", ("x", "y", "and", "and then some more of that"), 2, "3"
    ),
    Question("in that time " * 12, ("he said", "she said so"), 0, "4"),
)


def ask(path: Path, questions: Sequence[Question] = QUESTIONS, n_threads: int = 1) -> Answers:
    return choices(path, questions, n_threads=n_threads, on_answered=lambda _: None)


def slowly(path: Path, questions: Sequence[Question] = QUESTIONS) -> list[list[tuple[float, int]]]:
    asked = json.dumps([(q.context, [" " + choice for choice in q.choices]) for q in questions])
    done = subprocess.run([sys.executable, "-c", _SLOWLY, path, asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [[(log, n) for log, n in sums] for sums in json.loads(done.stdout)]


def assert_as_slowly(path: Path, questions: Sequence[Question] = QUESTIONS) -> None:
    found = ask(path, questions)
    for logs, n_tokens, expected in zip(found.logs, found.n_tokens, slowly(path, questions), strict=True):
        assert logs == pytest.approx([log for log, _ in expected], rel=NEAR)
        assert list(n_tokens) == [n for _, n in expected]


def converted(checkpoint: Path, folder: Path) -> Path:
    target = folder / f"{checkpoint.name}.gguf"
    verbs.convert(ModelRef("path", str(checkpoint)), Session(Registry(folder / "home"), SILENT), target=target)
    return target


def test_they_are_what_the_logits_say(f16: Path) -> None:
    assert_as_slowly(f16)


@pytest.mark.parametrize(
    "name", ["tiny-mamba", "tiny-lfm2", "tiny-falcon-h1", "tiny-gemma3", "tiny-qwen3moe", "tiny-gemma2"]
)
def test_of_all_kinds_of_memory(name: str, make_case: Callable[[str], Path], tmp_path: Path) -> None:  # noqa: F811
    """A state instead of a cache, both, windows, experts."""
    assert_as_slowly(converted(make_case(name), tmp_path), QUESTIONS[:3])


def test_many_questions_go_together_and_the_answers_are_the_same_each_time(f16: Path) -> None:
    many = QUESTIONS * 12
    seen: list[int] = []
    first = choices(f16, many, n_threads=1, on_answered=seen.append)
    assert sum(seen) == len(many)
    assert 1 < len(seen) < len(many)
    assert ask(f16, many) == first
    for logs, alone in zip(first.logs, ask(f16).logs * 12, strict=True):
        assert logs == pytest.approx(alone, rel=NEAR)


def test_a_question_with_more_choices_than_go_together(f16: Path) -> None:
    letters = tuple("abcdefghijklmnopqrstuvwxyz")
    long = Question("of the", tuple(f"{letter} and that other one {letter}" for letter in letters * 2), 0, "52")
    found = ask(f16, (QUESTIONS[0], long, QUESTIONS[1]))
    assert found.logs[1][:26] == pytest.approx(found.logs[1][26:], rel=NEAR)
    assert found.logs[2] == pytest.approx(ask(f16).logs[1], rel=NEAR)


def test_a_question_that_is_too_long_loses_its_beginning(tmp_path: Path) -> None:
    path = converted(factories.make_llama(tmp_path / "short", max_position_embeddings=64), tmp_path)
    end = "it was said that all the others are there"
    found = ask(path, [Question(f"{'of the ' * n}{end}", ("and", "but she"), 0, "q") for n in (0, 100, 200)])
    assert found.n_cut == 2
    assert found.logs[1] == pytest.approx(found.logs[2], rel=NEAR)
    assert found.logs[0] != pytest.approx(found.logs[1], rel=NEAR)
    with pytest.raises(EngineError, match="a choice is longer than the 64 tokens that the model takes"):
        ask(path, [Question("of", ("the " * 100, "it"), 0, "q")])


def test_weights_that_are_no_numbers_are_an_error(f16: Path, tmp_path: Path) -> None:
    header = read_header(f16)
    tensor = next(t for t in header.tensors if t.name == "blk.0.ffn_up.weight")
    raw = bytearray(f16.read_bytes())
    at = header.data_offset + tensor.offset
    raw[at : at + 2] = b"\x00\x7e"  # an F16 NaN
    path = tmp_path / "nan.gguf"
    path.write_bytes(raw)
    with pytest.raises(EngineError, match="not finite"):
        ask(path)


def test_no_questions_have_no_answers(f16: Path) -> None:
    assert ask(f16, ()).logs == ()
