"""How many threads a call computes with."""

from __future__ import annotations

import functools
import os
import sys
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from stalign._settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
_FEW_SPOTS = 20_000  # their matrices are so small that a second thread waits longer than it computes
_FEW_IMAGES = 500  # likewise for networks that read the image of each spot
_torch_before: ContextVar[int | None] = ContextVar(
    "threads of torch before the outermost call limited them", default=None
)


@contextmanager
def threads_for(n_spots: int, *, images: bool = False, sklearn: bool = True) -> Iterator[None]:
    """Compute on as many threads as pay: `settings.n_jobs`, or one where spots are few.

    scikit-learn computes with the OpenMP of torch where that was loaded before its own, so torch is limited, too.

    Parameters
    ----------
    n_spots
        Spots that are computed with.
    images
        Whether torch reads their images; then fewer spots pay a second thread of torch, also within a call that has
        limited it.
    sklearn
        Whether scikit-learn is used, which brings an OpenMP of its own that has to be there to be limited.
    """
    if sklearn:
        import sklearn as _  # noqa: F401
    from threadpoolctl import ThreadpoolController

    number = settings.n_jobs or 1
    torch: Any = sys.modules.get("torch")
    with ExitStack() as stack:
        if settings.n_jobs or n_spots < _FEW_SPOTS:
            libraries = ThreadpoolController()
            own = [one.filepath for one in libraries.lib_controllers if "torch" not in one.filepath]
            stack.enter_context(libraries.select(filepath=own).limit(limits=number))
        if torch is not None:
            threads, few = torch.get_num_threads(), n_spots < (_FEW_IMAGES if images else _FEW_SPOTS)
            before = _torch_before.get() or threads
            stack.callback(_torch_before.reset, _torch_before.set(before))
            stack.callback(torch.set_num_threads, threads)
            torch.set_num_threads(settings.n_jobs or (1 if few else before))
        yield


def in_parallel(function: Callable[[T], R], items: Sequence[T], n_spots: int) -> list[R]:
    """Call a function for each item, one thread each, several at once where spots are many; results keep the order."""
    from joblib import Parallel, delayed
    from threadpoolctl import threadpool_limits

    jobs = settings.n_jobs or (1 if n_spots < _FEW_SPOTS else os.cpu_count() or 1)
    if min(jobs, len(items)) == 1:
        return [function(item) for item in items]

    def alone(item: T) -> R:
        with threadpool_limits(1):  # OpenMP counts for each thread
            return function(item)

    with threadpool_limits(1):
        found: list[R] = Parallel(n_jobs=min(jobs, len(items)), prefer="threads")(map(delayed(alone), items))
    return found


def side_by_side(function: Callable[[T], R], items: Iterable[T], n_spots: int) -> list[R]:
    """Call a function for each item, one thread each, several at once where spots are few; results keep the order.

    For what a second thread within a call would not make faster; where spots are many, each call has all threads.
    """
    return list(in_order(function, items, settings.n_jobs or (1 if n_spots >= _FEW_SPOTS else os.cpu_count() or 1)))


def in_order(function: Callable[[T], R], items: Iterable[T], jobs: int) -> Iterator[R]:
    """Call a function for each item on some threads, shortly before its result is taken; results keep the order."""
    if jobs == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(jobs) as pool:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def few_threads(function: Callable[P, R], *, sklearn: bool = True) -> Callable[P, R]:
    """Let a call whose first argument holds spots compute on as many threads as pay; see `threads_for`."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        given = args[0] if args else kwargs.get("data")
        with threads_for(_n_spots(given), sklearn=sklearn):
            return function(*args, **kwargs)

    return run


def _n_spots(data: Any) -> int:
    """Count the spots of an AnnData, a SpatialData, or a list of some; 0 for what is neither."""
    if isinstance(data, list | tuple):
        return sum(_n_spots(one) for one in data)
    tables = getattr(data, "tables", None)
    return sum(_n_spots(table) for table in tables.values()) if tables else int(getattr(data, "n_obs", 0))
