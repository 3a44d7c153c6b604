"""The names that llama.cpp knows for ways of splitting text (`tokenizer.ggml.pre` of a byte-level BPE).

Those that `llama_vocab::impl::load` compares with in src/llama-vocab.cpp at llama.cpp 0c1e57098
(https://github.com/ggml-org/llama.cpp/blob/0c1e57098/src/llama-vocab.cpp); it loads no file with another one. Several
stand for the same splitting. A test asks the engine.
"""

from __future__ import annotations

import difflib

from slmkit.errors import UsageError

NAMES = (
    "a.x-4.0",
    "afmoe",
    "bailingmoe",
    "bailingmoe2",
    "bloom",
    "chameleon",
    "chatglm-bpe",
    "codeshell",
    "cohere2moe",
    "command-r",
    "dbrx",
    "deepseek-coder",
    "deepseek-llm",
    "deepseek-r1-qwen",
    "deepseek-v3",
    "default",
    "exaone",
    "exaone-moe",
    "exaone4",
    "f2llmv2",
    "falcon",
    "falcon-h1",
    "falcon3",
    "gemma4",
    "gigachat",
    "glm4",
    "glm5",
    "gpt-2",
    "gpt-4o",
    "gpt3-finnish",
    "granite-docling",
    "granite-embed-multi-311m",
    "granite-embed-multi-97m",
    "grok-2",
    "hunyuan",
    "hunyuan-dense",
    "hy_v4",
    "jais",
    "jais-2",
    "jina-de",
    "jina-es",
    "jina-v1-en",
    "jina-v2-code",
    "jina-v2-de",
    "jina-v2-es",
    "jina-v5-nano",
    "joyai-llm",
    "kanana2",
    "kimi-k2",
    "kormo",
    "laguna",
    "lfm2",
    "llada-moe",
    "llama-bpe",
    "llama-v3",
    "llama3",
    "llama4",
    "megrez",
    "mellum",
    "mellum2",
    "midm-2.0",
    "minerva-7b",
    "minicpm5",
    "minimax-m2",
    "modern-bert",
    "mpt",
    "olmo",
    "phi-2",
    "pixtral",
    "poro-chat",
    "qwen2",
    "qwen35",
    "refact",
    "roberta-bpe",
    "sarvam-moe",
    "seed-coder",
    "smaug-bpe",
    "smollm",
    "solar-open",
    "spark2_5",
    "stablelm2",
    "starcoder",
    "superbpe",
    "talkie",
    "tekken",
    "tiny_aya",
    "trillion",
    "ufakzeka",
    "viking",
    "whitespace",
    "youtu",
)


def check_name(name: str) -> None:
    """Raise `UsageError`, with the nearest names, for one that llama.cpp does not know."""
    if name not in NAMES:
        near = difflib.get_close_matches(name.lower(), NAMES, n=3, cutoff=0.5)
        meant = f"did you mean {' or '.join(f'`{n}`' for n in near)}?" if near else f"one of {', '.join(NAMES)}"
        raise UsageError(f"llama.cpp has no pre-tokenizer {name!r}", hint=meant)
