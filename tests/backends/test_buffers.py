"""The engine's buffers: what is on a GPU, and what the log tells."""

from __future__ import annotations

import pytest

from slmkit.backends.llamacpp.buffers import Share, output_bytes, sums

LOG = """llama_context: n_ctx = 640
llama_context:  CUDA_Host  output buffer size =     0.58 MiB
llama_kv_cache:      CUDA0 KV buffer size =    14.00 MiB
sched_reserve:      CUDA0 compute buffer size =   164.01 MiB
sched_reserve:  CUDA_Host compute buffer size =     8.01 MiB
"""


def test_pinned_memory_of_the_host_is_not_on_the_gpu() -> None:
    shares = {"CUDA0": Share(1000, 100, 10), "CUDA_Host": Share(200, 0, 20), "CPU_REPACK": Share(3, 0, 0)}
    assert sums(shares, LOG) == {
        "weights": 1200,
        "repacked": 3,
        "kv": 100,
        "compute": 30,
        "output": round(0.58 * 2**20),
        "vram": 1110,
    }


@pytest.mark.parametrize("name", ["CPU", "CPU_Mapped", "CPU_REPACK", "ROCm_Host", "Vulkan_Host", "SYCL_Host"])
def test_what_is_on_no_gpu_is_no_vram(name: str) -> None:
    assert "vram" not in sums({name: Share(1, 1, 1)}, LOG)


@pytest.mark.parametrize("name", ["CUDA0", "ROCm1", "Vulkan0", "SYCL0", "MTL0", "CUDA_Split"])
def test_what_is_on_a_gpu_is(name: str) -> None:
    assert sums({name: Share(1, 1, 1)}, LOG)["vram"] == 3


def test_a_log_without_outputs_leaves_them_unknown() -> None:
    assert output_bytes("") is None
    assert "output" not in sums({"CPU": Share(1, 1, 1)}, "llama_context: n_ctx = 640\n")
