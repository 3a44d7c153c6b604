"""The real llama.cpp, in real children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import llama_cpp
import psutil
import pytest

from slmkit.backends.llamacpp import child, engine, quantize
from slmkit.backends.llamacpp.child import Event
from slmkit.backends.llamacpp.speed import SpeedResult, arguments_of, speed
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

SPEC = BenchSpec(n_prompt=16, n_gen=4, repetitions=2, n_threads=1, n_gpu_layers=0)
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


def _measure(path: Path, spec: BenchSpec) -> tuple[SpeedResult, list[str], list[str]]:
    looks: list[str] = []
    samples: list[str] = []
    result = speed(
        path,
        spec,
        "Some words. ",
        2,
        look=lambda seen: looks.append(seen.stage),
        on_sample=lambda test, _: samples.append(test),
    )
    return result, looks, samples


def test_speed_gives_one_sample_for_each_repetition_and_a_look_at_each_stage(f16: Path) -> None:
    result, looks, samples = _measure(f16, SPEC)
    assert samples == ["ttft"] * 2 + ["pp"] * 2 + ["tg"] * 2
    assert looks == ["start", *(f"{phase} {test}" for test in ("ttft", "pp", "tg") for phase in ("begin", "end"))]
    assert [len(result.samples[test]) for test in ("pp", "tg", "pg", "ttft", "itl")] == [2, 2, 0, 2, 2 * 4]
    assert min(ns for samples in result.samples.values() for ns in samples) > 0
    assert result.load_ns > 0
    assert result.first_ns > 0
    assert result.n_warmup >= 2
    assert result.buffers["weights"] > 0
    assert result.buffers["kv"] > 0


@pytest.mark.parametrize(
    ("spec", "tests"),
    [
        (replace(SPEC, n_gen=0), {"pp", "ttft"}),
        (replace(SPEC, n_prompt=0), {"tg"}),
        (replace(SPEC, n_prompt=0, prompt="A whole prompt"), {"tg", "ttft", "itl"}),
        (replace(SPEC, n_prompt=0, n_gen=0, n_pg_prompt=8, n_pg_gen=2), {"pg"}),
        (replace(SPEC, depth=32), {"pp", "tg", "ttft", "itl"}),
        (replace(SPEC, depth=32, n_parallel=3), {"pp", "tg", "ttft", "itl"}),
        (replace(SPEC, type_k="q8_0", type_v="q8_0", flash_attn="on", mmap=False), {"pp", "tg", "ttft", "itl"}),
    ],
    ids=["prompt", "generation", "text", "both", "depth", "parallel", "settings"],
)
def test_what_is_asked_for_is_measured(f16: Path, spec: BenchSpec, tests: set[str]) -> None:
    result, _, _ = _measure(f16, spec)
    assert {test for test, samples in result.samples.items() if samples} == tests


def test_several_sequences_take_as_many_times_the_cache(f16: Path) -> None:
    one, _, _ = _measure(f16, replace(SPEC, depth=512))
    four, _, _ = _measure(f16, replace(SPEC, depth=512, n_parallel=4))
    assert four.buffers["kv"] == 4 * one.buffers["kv"]


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
        child.run("speed", arguments_of(f16, SPEC, "words", 2), listen=_die(signal_number))


def test_a_real_crash_in_native_code_keeps_the_engines_last_words(f16: Path) -> None:
    """ggml does not check the number of threads: far too many make it write outside its arrays."""
    with pytest.raises(EngineCrashedError, match="SIG") as caught:
        child.run("speed", arguments_of(f16, replace(SPEC, n_threads=100_000), "words", 2))
    assert caught.value.log


def test_a_child_that_hangs_is_stopped(f16: Path) -> None:
    with pytest.raises(EngineTimeoutError, match="2 s"):
        child.run("speed", arguments_of(f16, replace(SPEC, n_prompt=0, n_gen=10**8), "words", 2), timeout_s=2)


def test_children_die_with_their_parent(f16: Path) -> None:
    arguments = arguments_of(f16, replace(SPEC, n_prompt=0, n_gen=10**8), "words", 2)
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


def test_a_prepared_child_does_the_job_and_one_that_is_not_needed_ends() -> None:
    children = child.Children()
    children.prepare("probe", "smoke", "smoke")
    prepared = psutil.Process().children()
    assert len(prepared) == 3
    assert child.run("probe", {}, children=children)["build"]
    assert len(psutil.Process().children()) == 2  # and no other was started
    children.kill()
    assert not [process for process in prepared if process.is_running()]


def test_a_prepared_child_that_has_died_is_a_typed_error() -> None:
    children = child.Children()
    children.prepare("probe")
    (process,) = psutil.Process().children()
    process.kill()
    with pytest.raises(OutOfMemoryError):
        child.run("probe", {}, children=children)
    children.kill()


def test_a_prepared_child_leaves_when_its_parent_dies() -> None:
    code = (
        "import time; from slmkit.backends.llamacpp import child; "
        "children = child.Children(); children.prepare('probe'); print(flush=True); time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        parent.stdout.readline()
        (worker,) = psutil.Process(parent.pid).children()
        parent.kill()
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
