"""A merge in a process of its own: FOLDER KILL_AFTER; prints the peak of its memory's growth.

FOLDER holds `base` and `adapter` and gets `merged`. The process kills itself after so many tensors,
not at all for 0.
"""

import os
import resource
import signal
import sys
from pathlib import Path

from data.cache import new_folder
from train.merging.adapters import WeightedAdapter
from train.merging.merged_weights import MergedWeights
from train.merging.write import write_merged


def main() -> None:
    folder, kill_after = Path(sys.argv[1]), int(sys.argv[2])

    def on_tensor(num_done: int, _: int) -> None:
        if num_done == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    weights = MergedWeights.open(folder / "base", [WeightedAdapter(folder / "adapter")])
    with new_folder(folder / "merged") as merged:
        write_merged(weights, merged, num_threads=2, on_tensor=on_tensor)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


if __name__ == "__main__":
    main()
