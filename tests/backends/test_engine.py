"""The real llama.cpp, in real children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import llama_cpp
import psutil
import pytest

from slmkit.backends.llamacpp import child, engine, quantize
from slmkit.backends.llamacpp.child import Event
from slmkit.core.bench import BenchSpec
from slmkit.core.progress import SILENT
from slmkit.core.quant import QUANT_TYPES, QuantType
from slmkit.errors import (
    EngineCrashedError,
    EngineError,
    EngineMissingError,
    EngineTimeoutError,
    ImatrixNeededError,
    OutOfMemoryError,
)
from slmkit.formats.gguf.header import read_header
from slmkit.host import memory

SPEC = BenchSpec(n_prompt=16, n_gen=4, repetitions=2, n_threads=1, n_gpu_layers=0)
SPEED = {name: value for name, value in asdict(SPEC).items() if name != "timeout_s"}
NEED_AN_IMATRIX = {"Q2_K_S", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS"}


def test_type_numbers_are_the_engines() -> None:
    for quant in QUANT_TYPES.values():
        name = "LLAMA_FTYPE_ALL_F32" if quant.name == "F32" else f"LLAMA_FTYPE_MOSTLY_{quant.name}"
        if hasattr(llama_cpp, name):  # the Python bindings lag behind llama.h in the newest types
            assert getattr(llama_cpp, name) == quant.ftype, quant
    assert sum(hasattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{q}") for q in QUANT_TYPES) > 28


@pytest.mark.parametrize("quant", QUANT_TYPES.values(), ids=str)
def test_every_type_is_made_or_says_that_it_needs_an_imatrix(quant: QuantType, f16: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.gguf"

    def make() -> quantize.QuantizeResult:
        return quantize.quantize(f16, target, quant, n_threads=1, progress=SILENT)

    if quant.name in NEED_AN_IMATRIX:
        with pytest.raises(ImatrixNeededError, match=quant.name):
            make()
        return
    result = make()
    header = read_header(target)
    assert result.n_tensors == len(header.tensors)
    if quant.name != "MXFP4_MOE":  # only experts get MXFP4; this model has none
        assert quant.base in header.params_by_type


def test_the_build_names_cpu_features() -> None:
    build = engine.build()
    assert build["engine"] == child.installed() == f"llama-cpp-python {llama_cpp.__version__}"
    assert build["features"]


def test_speed_gives_one_sample_for_each_repetition_and_memory_for_each_stage(f16: Path) -> None:
    samples: list[str] = []
    result = engine.speed(f16, SPEC, memory.of_process, samples.append)
    assert samples == ["pp_ns"] * 2 + ["tg_ns"] * 2 + ["ttft_ns"] * 2
    assert len(result.pp_ns) == len(result.tg_ns) == len(result.ttft_ns) == 2
    assert min(*result.pp_ns, *result.tg_ns, *result.ttft_ns, result.load_ns) > 0
    assert list(result.memory) == ["start", "pp_ns", "tg_ns", "ttft_ns"]
    start, last = (result.memory[stage]["rss"] for stage in ("start", "ttft_ns"))
    assert start is not None
    assert last is not None
    assert last > start


@pytest.mark.parametrize(("off", "left"), [("n_gen", ["start", "pp_ns", "ttft_ns"]), ("n_prompt", ["start", "tg_ns"])])
def test_a_test_of_no_tokens_is_left_out(f16: Path, off: str, left: list[str]) -> None:
    result = engine.speed(
        f16, replace(SPEC, n_gen=0) if off == "n_gen" else replace(SPEC, n_prompt=0), memory.of_process, lambda _: None
    )
    assert list(result.memory) == left


def test_depth_is_decoded_before_each_test(f16: Path) -> None:
    result = engine.speed(f16, replace(SPEC, depth=32), memory.of_process, lambda _: None)
    assert len(result.tg_ns) == 2


def test_smoke_says_something(f16: Path) -> None:
    assert engine.smoke(f16).build["engine"].startswith("llama-cpp-python")


def test_weights_that_are_not_numbers_are_found(f16: Path, tmp_path: Path) -> None:
    header = read_header(f16)
    tensor = next(t for t in header.tensors if t.name == "blk.0.ffn_up.weight")
    raw = bytearray(f16.read_bytes())
    at = header.data_offset + tensor.offset
    raw[at : at + 2] = b"\x00\x7e"  # an F16 NaN
    path = tmp_path / "nan.gguf"
    path.write_bytes(raw)
    with pytest.raises(EngineError):
        engine.smoke(path)


def test_a_file_that_is_cut_short_is_an_error_with_the_engines_words(f16: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(f16.read_bytes()[:-5000])
    with pytest.raises(EngineError, match="cannot load") as caught:
        engine.smoke(path)
    assert type(caught.value) is EngineError
    assert caught.value.log


def _die(signal_number: int) -> child.Listener:
    def listen(event: Event, pid: int) -> None:
        if event["event"] == "pause":
            os.kill(pid, signal_number)

    return listen


@pytest.mark.parametrize(
    ("signal_number", "error", "words"),
    [(signal.SIGSEGV, EngineCrashedError, "SIGSEGV"), (signal.SIGKILL, OutOfMemoryError, "out of memory")],
)
def test_a_child_that_dies_is_a_typed_error(
    f16: Path, signal_number: int, error: type[EngineError], words: str
) -> None:
    with pytest.raises(error, match=words):
        child.run("speed", {**SPEED, "path": str(f16)}, listen=_die(signal_number))


def test_a_real_crash_in_native_code_keeps_the_engines_last_words(f16: Path) -> None:
    """ggml does not check the number of threads: far too many make it write outside its arrays."""
    with pytest.raises(EngineCrashedError, match="SIG") as caught:
        child.run("speed", {**SPEED, "path": str(f16), "n_threads": 100_000})
    assert caught.value.log


def test_a_child_that_hangs_is_stopped(f16: Path) -> None:
    with pytest.raises(EngineTimeoutError, match="2 s"):
        child.run("speed", {**SPEED, "path": str(f16), "n_gen": 10**8}, timeout_s=2)


def test_children_die_with_their_parent(f16: Path) -> None:
    arguments = {**SPEED, "path": str(f16), "n_gen": 10**8}
    code = f"from slmkit.backends.llamacpp import child; child.run('speed', {arguments!r})"
    parent = subprocess.Popen([sys.executable, "-c", code])
    children: list[psutil.Process] = []
    deadline = time.monotonic() + 30
    while not children and time.monotonic() < deadline:
        children = psutil.Process(parent.pid).children()
        time.sleep(0.05)
    (worker,) = children
    parent.kill()
    parent.wait()
    worker.wait(timeout=30)


def test_a_missing_engine_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineMissingError) as caught:
        engine.build()
    assert "slmkit[engine]" in (caught.value.hint or "")


def test_nothing_is_imported_from_where_the_user_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a `json.py` or a checkout of llama-cpp-python must not become part of the child."""
    (tmp_path / "json.py").write_text("print('not json')")
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    assert engine.build()["engine"] == child.installed()


def test_the_threads_come_from_the_engines_own_cpu_backend() -> None:
    """One copy of the library in the process: a second one has tables that nobody has filled."""
    code = (
        "from slmkit.backends.llamacpp import bindings\n"
        f"path = {str(Path(llama_cpp.__file__).parent / 'lib')!r}\n"
        "lib = bindings.ll._lib\n"
        "assert lib.ggml_threadpool_new and lib.ggml_threadpool_free and lib.ggml_threadpool_params_init\n"
        "maps = {line.split()[-1] for line in open('/proc/self/maps') if 'ggml-cpu' in line}\n"
        "print(len(maps))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
