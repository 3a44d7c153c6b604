"""llama.cpp's view of a converted file, from a child process: logits, ids of a text, what comes after it.

For logits, weights, KV cache and sums stay in float32 where the engine allows it: small differences mean something.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

_CHILD = r"""
import ctypes, json, sys
import numpy as np
import llama_cpp as ll

request = json.load(sys.stdin)
text = []
on_log = ll.llama_log_callback(lambda level, line, _: text.append(line.decode("utf-8", "replace")))
ll.llama_log_set(on_log, ctypes.c_void_p(0))
ll.llama_backend_init()
params = ll.llama_model_default_params()
params.vocab_only = request["job"] == "tokenize"
model = ll.llama_model_load_from_file(request["path"].encode(), params)
if not model:
    sys.exit("".join(text[-20:]))
vocab = ll.llama_model_get_vocab(model)
if request["job"] == "tokenize":
    out = []
    for line in request["texts"]:
        data = line.encode()
        ids = (ll.llama_token * (len(data) + 16))()
        n = ll.llama_tokenize(vocab, data, len(data), ids, len(ids), request["special"], True)
        out.append(list(ids[:n]))
    json.dump(out, sys.stdout)
elif request["job"] == "continue":
    data = request["text"].encode()
    ids = (ll.llama_token * (len(data) + 16))()
    n = ll.llama_tokenize(vocab, data, len(data), ids, len(ids), True, True)
    params = ll.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = n + request["n_tokens"], 1, 1
    context = ll.llama_init_from_model(model, params)
    if not context:
        sys.exit("".join(text[-20:]))
    sampler = ll.llama_sampler_init_greedy()
    piece = ctypes.create_string_buffer(256)
    out = b""
    batch = ll.llama_batch_get_one(ids, n)
    for _ in range(request["n_tokens"]):
        if ll.llama_decode(context, batch):
            sys.exit("".join(text[-20:]))
        token = ll.llama_sampler_sample(sampler, context, -1)
        if ll.llama_vocab_is_eog(vocab, token):
            break
        n = ll.llama_token_to_piece(vocab, token, piece, len(piece), 0, False)
        out += piece.raw[:n]
        batch = ll.llama_batch_get_one((ll.llama_token * 1)(token), 1)
    json.dump(out.decode("utf-8", "replace"), sys.stdout)
else:
    tokens = request["tokens"]
    params = ll.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = max(32, len(tokens))
    params.n_threads = params.n_threads_batch = 1
    params.flash_attn_type = ll.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.type_k = params.type_v = ll.GGML_TYPE_F32
    context = ll.llama_init_from_model(model, params)
    if not context:
        sys.exit("".join(text[-20:]))
    batch = ll.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
    if ll.llama_decode(context, batch):
        sys.exit("".join(text[-20:]))
    n_vocab = ll.llama_vocab_n_tokens(vocab)
    rows = [np.ctypeslib.as_array(ll.llama_get_logits_ith(context, i), (n_vocab,)) for i in range(len(tokens))]
    np.save(request["out"], np.stack(rows))
"""


def _run(request: dict[str, object]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _CHILD], input=json.dumps(request), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def logits(gguf: Path, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
    """Shape (tokens, vocabulary)."""
    out = gguf.with_suffix(".logits.npy")
    _run({"job": "logits", "path": str(gguf), "tokens": list(tokens), "out": str(out)})
    found: npt.NDArray[np.float32] = np.load(out)
    return found


def tokenize(gguf: Path, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
    """Ids of each text; control tokens in it are found, and `special` puts BOS and EOS around it."""
    found: list[list[int]] = json.loads(
        _run({"job": "tokenize", "path": str(gguf), "texts": list(texts), "special": special})
    )
    return found


def continued(gguf: Path, text: str, n_tokens: int = 16) -> str:
    """What the model says next: always the likeliest token, until an end of generation or `n_tokens`."""
    request: dict[str, object] = {"job": "continue", "path": str(gguf), "text": text, "n_tokens": n_tokens}
    found: str = json.loads(_run(request))
    return found
