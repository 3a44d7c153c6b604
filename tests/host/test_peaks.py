from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from slmkit.core.machine import Machine
from slmkit.host import bandwidth, kernels, passes, peaks


def test_a_machine_is_measured() -> None:
    machine = peaks.measure(1)
    assert machine is not None
    assert machine.n_threads == 1
    assert 1e8 < machine.bandwidth_bytes_per_s < 1e13
    assert 1e8 < machine.flop_per_s < 1e14
    assert 1e4 < machine.kernel_ns < 1e9
    assert Machine(**machine.document()) == machine


def test_a_child_that_fails_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert peaks.measure(1) is None
    monkeypatch.setattr("sys.executable", "/no/such/python")
    assert peaks.measure(1) is None


def test_measuring_loads_no_numpy_here() -> None:
    code = "import sys; from slmkit.host import peaks; assert peaks.measure(1); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"


def test_more_threads_than_cores_are_not_more_machine() -> None:
    many = passes.at_the_same_time(10_000)
    assert many < 10_000
    assert passes.at_the_same_time(1) == 1
    alone = bandwidth.read_bytes_per_s(many, seconds=0.05)
    crowd = bandwidth.read_bytes_per_s(10_000, seconds=0.05)
    assert crowd < 20 * alone  # not 10,000 times


def test_the_kernel_computes_the_product_of_the_unpacked_matrix() -> None:
    random = np.random.default_rng(3)
    packed = random.integers(0, 256, (kernels.ROWS, kernels.COLUMNS // 2), dtype=np.uint8)
    scales = random.random((kernels.ROWS, kernels.COLUMNS // kernels.BLOCK, 1), dtype=np.float32)
    vector = random.random(kernels.COLUMNS, dtype=np.float32)
    weights = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float64) - 8
    expected = (weights * np.repeat(scales[:, :, 0], kernels.BLOCK, axis=1)) @ vector
    work = kernels._token(3)
    for _ in range(2):  # it starts anew each time
        np.testing.assert_allclose(np.asarray(work()), expected, rtol=1e-3)


def test_each_thread_has_its_own_work_and_enough_passes() -> None:
    prepared: list[int] = []

    def prepare(thread: int) -> object:
        prepared.append(thread)
        return lambda: None

    times = passes.each_thread(prepare, 3, 0.0)  # type: ignore[arg-type]
    assert prepared == [0, 1, 2]
    assert [len(one) for one in times] == [passes.LEAST_PASSES] * 3
