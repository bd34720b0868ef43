"""Keep the C library from holding on to memory that training has given back."""

import ctypes
import platform

# mallopt's parameters, from glibc's malloc.h.
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
LARGE_BYTES = 2**20


def limit_heap_growth() -> bool:
    """Have large tensors mapped and unmapped by themselves; returns whether it took effect.

    Batches differ in length, so freed blocks seldom fit the next ones, and glibc lets the heap grow
    step by step: over 4 GiB in 60 steps of a model that needs 2. Its own threshold for mapping
    rises with use; a fixed one does not. One arena for all threads, because the backward pass runs
    in another thread than the forward one. Without glibc nothing is done.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL("libc.so.6").mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, LARGE_BYTES) and mallopt(M_ARENA_MAX, 1))
