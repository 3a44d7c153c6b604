from __future__ import annotations

import subprocess
import sys

import pytest

from slmkit.errors import HubFileNotFoundError
from slmkit.hub.select import checkpoint_files, gguf_files, ggufs, missing_shards


def _paths(text: str) -> list[str]:
    return text.split()


LLAMA = _paths("""
.gitattributes LICENSE.txt README.md USE_POLICY.md config.json generation_config.json special_tokens_map.json
tokenizer.json tokenizer_config.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors
model.safetensors.index.json original/consolidated.00.pth original/params.json original/tokenizer.model
""")
SMOLLM = _paths("""
.gitattributes LICENSE README.md all_results.json config.json generation_config.json merges.txt model.safetensors
onnx/model.onnx onnx/model_q4.onnx runs/events.out special_tokens_map.json tokenizer.json tokenizer_config.json
train_results.json training_args.bin vocab.json
""")
OLD = _paths("""
README.md config.json flax_model.msgpack model.safetensors pytorch_model.bin rust_model.ot tf_model.h5 tokenizer.model
coreml/model.mlpackage/Data/weights.bin chat_template.jinja additional_chat_templates/rag.jinja added_tokens.json
model.fp16.safetensors x/model.safetensors x/config.json model-00001-of-00002.safetensors model-Q4_0.gguf
""")
GGUFS = _paths("""
README.md Model-F16.gguf Model-Q4_0.gguf Model-Q4_K_M.gguf Model-Q4_K_S.gguf Model-Q8_0.gguf Model-IQ4_XS.gguf
Model-UD-Q4_K_XL.gguf mmproj-Model-Q8_0.gguf Model-imatrix.gguf imatrix.dat config.json
Q5_K_M/Model-Q5_K_M-00001-of-00003.gguf Q5_K_M/Model-Q5_K_M-00002-of-00003.gguf Q5_K_M/Model-Q5_K_M-00003-of-00003.gguf
BF16/Model-00001-of-00002.gguf BF16/Model-00002-of-00002.gguf
""")


def test_a_sharded_checkpoint() -> None:
    assert set(checkpoint_files("o/n", LLAMA)) == {
        path for path in LLAMA if "/" not in path and path not in (".gitattributes", "USE_POLICY.md")
    }


def test_a_small_checkpoint_with_much_beside_it() -> None:
    left = {".gitattributes", "all_results.json", "train_results.json", "training_args.bin", "runs/events.out"}
    assert set(checkpoint_files("o/n", SMOLLM)) == {p for p in SMOLLM if p not in left and "onnx" not in p}


def test_no_duplicates_of_the_weights() -> None:
    assert set(checkpoint_files("o/n", OLD)) == {
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.model",
        "chat_template.jinja",
        "additional_chat_templates/rag.jinja",
        "added_tokens.json",
    }


def test_consolidated_weights_are_a_duplicate() -> None:
    mistral = ["config.json", "consolidated.safetensors", "model-00001-of-00001.safetensors"]
    mistral.append("model.safetensors.index.json")
    assert "consolidated.safetensors" not in checkpoint_files("o/n", mistral)


def test_include_adds_and_exclude_drops() -> None:
    chosen = checkpoint_files("o/n", SMOLLM, include=["onnx/*", "*.bin"], exclude=["README.md", "onnx/*q4*"])
    assert {"onnx/model.onnx", "training_args.bin"} <= set(chosen)
    assert not {"README.md", "onnx/model_q4.onnx"} & set(chosen)
    with pytest.raises(HubFileNotFoundError, match=r"without model\.safetensors"):
        checkpoint_files("o/n", SMOLLM, exclude=["*.safetensors"])


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["config.json", "pytorch_model.bin"], "only as pickles.*can run code"),
        (["config.json", "original/consolidated.00.pth"], "only as pickles"),
        (["adapter_config.json", "adapter_model.safetensors"], "adapter"),
        (["README.md"], "neither safetensors nor GGUF"),
        (["model.safetensors"], r"no config\.json"),
        (
            [path for path in LLAMA if not path.startswith("model-00002")],
            "incomplete.*model-00002-of-00002.safetensors",
        ),
        (GGUFS, "only GGUF files: BF16, F16, IQ4_XS, Q4_0, Q4_K_M, Q4_K_S, Q5_K_M, Q8_0, UD-Q4_K_XL"),
    ],
)
def test_what_is_no_checkpoint(paths: list[str], message: str) -> None:
    with pytest.raises(HubFileNotFoundError, match=message) as caught:
        checkpoint_files("o/n", paths)
    if paths is GGUFS:
        assert caught.value.hint == "say which: `slmkit pull o/n:Q4_K_M`"


@pytest.mark.parametrize(
    ("variant", "label", "first", "n_shards"),
    [
        ("Q4_0", "Q4_0", "Model-Q4_0.gguf", 1),
        ("q8_0", "Q8_0", "Model-Q8_0.gguf", 1),
        ("fp16", "F16", "Model-F16.gguf", 1),
        ("Q4_K", "Q4_K_M", "Model-Q4_K_M.gguf", 1),
        ("q4_k_s", "Q4_K_S", "Model-Q4_K_S.gguf", 1),
        ("ud-q4_k_xl", "UD-Q4_K_XL", "Model-UD-Q4_K_XL.gguf", 1),
        ("IQ4_XS", "IQ4_XS", "Model-IQ4_XS.gguf", 1),
        ("Q5_K_M", "Q5_K_M", "Q5_K_M/Model-Q5_K_M-00001-of-00003.gguf", 3),
        ("bf16", "BF16", "BF16/Model-00001-of-00002.gguf", 2),
    ],
)
def test_one_quant_of_many(variant: str, label: str, first: str, n_shards: int) -> None:
    found = gguf_files("o/n", GGUFS, variant)
    assert (found.label, found.paths[0], len(found.paths)) == (label, first, n_shards)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-0.5b-instruct-fp16.gguf", "FP16"),
        ("gemma-3-1b-it-q4_0.gguf", "Q4_0"),
        ("model_Q4_0_4_8.gguf", "Q4_0_4_8"),
        ("Model-Q4_K_M-imat.gguf", "Q4_K_M"),
        ("Phi-3-mini-4k-instruct-q4.gguf", "Q4"),
        ("ggml-model-i2_s.gguf", "I2_S"),
        ("Model-Q6_K_L.gguf", "Q6_K_L"),
        ("gpt-oss-mxfp4.gguf", "MXFP4"),
        ("Model-TQ1_0.gguf", "TQ1_0"),
        ("Qwen3-0.6B.gguf", "QWEN3-0.6B"),
    ],
)
def test_labels(name: str, label: str) -> None:
    assert [gguf.label for gguf in ggufs([name])] == [label]


def test_an_absent_quant_says_what_there_is() -> None:
    with pytest.raises(HubFileNotFoundError, match=r"no GGUF in Q2_K, but .*Q8_0") as caught:
        gguf_files("o/n", GGUFS, "Q2_K")
    assert caught.value.hint == "`slmkit pull o/n:Q4_K_M`"


def test_a_checkpoint_without_ggufs_says_how_to_make_one() -> None:
    with pytest.raises(HubFileNotFoundError) as caught:
        gguf_files("o/n", SMOLLM, "Q4_0")
    assert caught.value.hint == "make it: `slmkit quantize o/n -t Q4_0`"


def test_two_models_in_one_quant_are_not_guessed_between() -> None:
    paths = ["a-Q4_0.gguf", "b-Q4_0.gguf"]
    with pytest.raises(HubFileNotFoundError, match=r"more than one.*a-Q4_0\.gguf, b-Q4_0\.gguf") as caught:
        gguf_files("o/n", paths, "Q4_0")
    assert caught.value.hint is not None
    assert "--exclude 'b-Q4_0.gguf'" in caught.value.hint
    assert gguf_files("o/n", paths, "Q4_0", exclude=["b-Q4_0.gguf"]).paths == ("a-Q4_0.gguf",)


def test_a_missing_shard_is_named() -> None:
    with pytest.raises(HubFileNotFoundError, match="m-Q4_0-00002-of-00003"):
        gguf_files("o/n", ["m-Q4_0-00001-of-00003.gguf", "m-Q4_0-00003-of-00003.gguf"], "Q4_0")
    assert missing_shards(["a-00001-of-00001.gguf", "b.gguf"]) == ()


def test_choosing_needs_no_network_library() -> None:
    code = """
import sys, slmkit.hub.select, slmkit.hub.catalog
slmkit.hub.catalog.entries()
print([m for m in ("huggingface_hub", "httpx", "numpy", "gguf", "llama_cpp") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
