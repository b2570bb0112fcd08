"""Threads: few for few spots, those of the settings where they are named, and the caller's afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import sklearn  # noqa: F401 (its OpenMP is limited as well)
import torch
from threadpoolctl import ThreadpoolController, threadpool_limits

import stalign
from stalign._threads import few_threads, in_order, in_parallel, side_by_side, threads_for
from stalign.core.clustering import GMM


def numbers():
    """Threads of torch and of each library."""
    return torch.get_num_threads(), [one.num_threads for one in ThreadpoolController().lib_controllers]


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with threadpool_limits(2):
        yield
    torch.set_num_threads(before)


# in a process of its own, as threadpoolctl lets no other thread set what the fixture has set
ELSEWHERE = """
from concurrent.futures import ThreadPoolExecutor
import scipy.linalg
from threadpoolctl import ThreadpoolController
from stalign._threads import threads_for

def numbers():
    return [one.num_threads for one in ThreadpoolController().lib_controllers]

def within():
    with threads_for(10, sklearn=False):
        return numbers()

before, here = numbers(), within()
with ThreadPoolExecutor(1) as pool:
    elsewhere = pool.submit(within).result()
assert set(before) == {2} and numbers() == before, (before, numbers())
assert set(here) == set(elsewhere) == {1}, (here, elsewhere)
"""


def test_calls_on_another_thread_than_the_first_are_limited_as_well():
    two = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "2")
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], env=os.environ | two, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_few_spots_are_computed_with_on_one_thread():
    before = numbers()
    with threads_for(300):
        assert numbers() == (1, [1] * len(before[1]))
    assert numbers() == before


def test_images_keep_the_threads_of_torch_earlier_than_linear_algebra():
    with threads_for(3000, images=True):
        assert torch.get_num_threads() == 2
        ours = [one for one in ThreadpoolController().lib_controllers if "torch" not in one.filepath]
        assert {one.num_threads for one in ours} == {1}


def test_images_within_a_call_that_limits_torch_have_its_threads():
    """scikit-learn may compute with the OpenMP of torch, so calls limit torch, and give its threads back to images."""
    with threads_for(3000):
        assert torch.get_num_threads() == 1
        with threads_for(3000, images=True):
            assert torch.get_num_threads() == 2
        with threads_for(300, images=True):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_domains_of_few_spots_use_one_thread_of_every_openmp(toy, monkeypatch):
    seen = []
    monkeypatch.setattr(
        GMM,
        "_start",
        lambda self, *args, start=GMM._start, **more: seen.append(numbers()) or start(self, *args, **more),
    )
    toy.obsm["X_some"] = np.random.default_rng(0).normal(size=(toy.n_obs, 4))
    stalign.tl.domains(toy, 3, use_rep="X_some")
    assert seen and all(torch_threads == 1 and set(others) == {1} for torch_threads, others in seen)


def test_many_spots_keep_all_threads():
    before = numbers()
    with threads_for(500_000):
        assert numbers() == before


def test_the_setting_holds_for_any_number_of_spots():
    with stalign.settings.override(n_jobs=2), threads_for(10):
        assert torch.get_num_threads() == 2
    with stalign.settings.override(n_jobs=1), threads_for(500_000, images=True):
        assert torch.get_num_threads() == 1
    with pytest.raises(ValueError, match="n_jobs"):
        stalign.settings.n_jobs = 0


def test_threads_are_the_callers_again_after_a_call_and_after_an_error(toy):
    seen = []

    @few_threads
    def call(data, *, fails=False):
        seen.append(torch.get_num_threads())
        if fails:
            raise ValueError
        return len(data)

    before = numbers()
    assert call([toy[:20], toy[20:40]]) == 2
    with pytest.raises(ValueError):
        call(data=toy[:20], fails=True)
    assert seen == [1, 1]
    assert numbers() == before


def test_one_thread_and_two_find_the_same_domains(toy):
    found = []
    for n_jobs in (1, 2):
        with stalign.settings.override(n_jobs=n_jobs):
            made = stalign.tl.embed(toy, copy=True)
            stalign.tl.domains(made, 4)
            found.append(made)
    np.testing.assert_allclose(found[0].obsm["X_stalign"], found[1].obsm["X_stalign"], rtol=1e-4, atol=1e-4)
    assert (found[0].obs["stalign_domain"] == found[1].obs["stalign_domain"]).all()


def test_starts_in_parallel_find_what_starts_one_by_one_find():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(600, 5)) + 2 * rng.normal(size=(4, 5))[rng.integers(0, 4, 600)]
    labels, mixture = GMM(4).fit(features)
    seen, before = [], numbers()

    def look(item):
        seen.append([one.num_threads for one in ThreadpoolController().lib_controllers if "torch" not in one.filepath])
        return item

    with stalign.settings.override(n_jobs=3):
        assert in_parallel(look, [4, 5, 6], 10) == [4, 5, 6]
        again, same = GMM(4).fit(features)
    assert {number for one in seen for number in one} == {1} and numbers() == before
    np.testing.assert_array_equal(again, labels)
    np.testing.assert_allclose(same.means, mixture.means)


def test_regressions_of_few_spots_run_side_by_side_and_of_many_one_by_one(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    barrier = threading.Barrier(2)
    assert side_by_side(lambda item: (barrier.wait(5), item)[1], [4, 5, 6, 7], 10) == [4, 5, 6, 7]
    names = side_by_side(lambda item: threading.current_thread().name, [4, 5], 20_000)
    assert names == [threading.current_thread().name] * 2
    with stalign.settings.override(n_jobs=1):
        assert side_by_side(lambda item: threading.current_thread().name, [4], 10) == names[:1]


@pytest.mark.parametrize("jobs", [1, 3])
def test_results_keep_the_order_and_items_are_taken_when_needed(jobs):
    taken = []

    def items():
        for item in range(20):
            taken.append(item)
            yield item

    def slow_first(item):
        time.sleep(0.05 if item == 0 else 0)
        return 2 * item

    for done, result in enumerate(in_order(slow_first, items(), jobs)):
        assert result == 2 * done
        assert len(taken) <= done + 1 + jobs


def test_an_error_ends_what_is_done_in_order():
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda item: 1 / item, [2, 1, 0, 3], 2))


def test_batches_are_embedded_side_by_side_on_one_thread_each(toy, monkeypatch):
    from stalign.data.spots import SpotReader

    seen, read = set(), SpotReader.batch

    def batch(self, rows, **options):
        seen.add((threading.current_thread().name, torch.get_num_threads(), len(rows)))
        return read(self, rows, **options)

    monkeypatch.setattr(SpotReader, "batch", batch)
    before = numbers()
    with stalign.settings.override(n_jobs=2):
        stalign.tl.embed(toy, batch_size=40)
    assert len({name for name, _, _ in seen}) == 2
    assert {number for _, number, _ in seen} == {1} and max(size for _, _, size in seen) == 20
    assert numbers() == before
