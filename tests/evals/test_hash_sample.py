import random

from evals.hash_sample import HashSample, hash_of


def sample_of(keys: list[int], limit: int) -> list[str]:
    sample: HashSample[str] = HashSample(limit)
    for key in keys:
        if sample.wants(key):
            sample.add(key, f"row {key}")
    return sample.rows()


def test_the_smallest_stay_in_any_order() -> None:
    keys = [hash_of(str(number)) for number in range(500)]
    expected = [f"row {key}" for key in sorted(keys)[:20]]
    for seed in range(5):
        random.Random(seed).shuffle(keys)
        assert sample_of(keys, 20) == expected


def test_fewer_rows_than_the_limit_all_stay_once() -> None:
    assert sample_of([5, 3, 5, 3, 9], 10) == ["row 3", "row 5", "row 9"]
    assert sample_of([5, 3], 0) == []
