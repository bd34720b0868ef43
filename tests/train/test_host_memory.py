import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Blocks of growing size between small ones that stay: what keeps a heap from shrinking.
CHURN = """
import ctypes, sys
from train.host_memory import limit_heap_growth
if sys.argv[1] == "limited":
    assert limit_heap_growth()
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.free(libc.malloc(24 * 2**20))
for size in range(2 * 2**20, 24 * 2**20, 2**20):
    blocks = []
    for _ in range(4):
        blocks.append(libc.malloc(size))
        ctypes.memset(blocks[-1], 1, size)
        ctypes.memset(libc.malloc(1000), 1, 1000)
    for block in blocks:
        libc.free(block)
print(int(open("/proc/self/statm").read().split()[1]) * 4096)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_blocks_go_back_to_the_system() -> None:
    resident = {}
    for mode in ("plain", "limited"):
        result = subprocess.run(
            [sys.executable, "-c", CHURN, mode],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        resident[mode] = int(result.stdout)
    assert resident["limited"] < resident["plain"] / 2
