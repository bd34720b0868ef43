"""A disk that is full after so many bytes, as far as one process can see."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def limited_file_size(num_bytes: int) -> Iterator[None]:
    """Writes beyond `num_bytes` of a file fail inside the block with EFBIG.

    Python ignores the signal that the kernel sends along, so that the write itself fails.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
