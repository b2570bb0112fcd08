"""Peak memory of this process and of the processes that it starts."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from typing import Self

_EVERY = 0.02  # seconds between two looks at this process
_CHILDREN = 0.2  # seconds at least between two looks at its children
_SHARE = 0.02  # of the time that may go into looking at children, whose pages are counted one by one


class PeakMemory:
    """Measure the peak memory of a `with` block, in bytes: of this process, and what its children do not share."""

    def __init__(self) -> None:
        self.peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        process = psutil.Process()
        children, due = 0, 0.0
        while not self._ended.wait(_EVERY):
            if time.perf_counter() >= due:
                start = time.thread_time()
                children = sum(map(_own, process.children(recursive=True)))
                due = time.perf_counter() + max(_CHILDREN, (time.thread_time() - start) / _SHARE)
            self.peak = max(self.peak, process.memory_info().rss + children)


def _own(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().uss)
    except psutil.Error:  # it has ended, or belongs to somebody else
        return 0
