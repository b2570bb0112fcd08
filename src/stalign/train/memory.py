"""The peak memory of this process, on any system."""

from __future__ import annotations

import sys


def peak_memory() -> float:
    """Return the most memory that this process has had, in GB."""
    if sys.platform == "win32":
        import ctypes
        from ctypes import wintypes

        sizes = ("peak", "now", "peak_paged", "paged", "peak_other", "other", "page_file", "peak_page_file")

        class Counters(ctypes.Structure):
            _fields_ = [
                ("size", wintypes.DWORD),
                ("faults", wintypes.DWORD),
                *((name, ctypes.c_size_t) for name in sizes),
            ]

        counters = Counters(size=ctypes.sizeof(Counters))
        process = ctypes.windll.kernel32.GetCurrentProcess
        process.restype = wintypes.HANDLE
        ask = ctypes.windll.psapi.GetProcessMemoryInfo
        ask.argtypes = [wintypes.HANDLE, ctypes.POINTER(Counters), wintypes.DWORD]
        ask(process(), ctypes.byref(counters), counters.size)
        return counters.peak / 1024**3
    import resource

    scale = 1024**3 if sys.platform == "darwin" else 1024**2  # macOS counts bytes, Linux kB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
