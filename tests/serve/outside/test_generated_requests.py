"""Thousands of generated requests against the server's own description of itself."""

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from serve.process import start_interface
from tests.serve.conftest import START_TIMEOUT_S, one_model

NUM_CASES = 5000
# Drawn at random for each operation that takes anything, besides those that the tool derives from
# the limits in the schema: together some more than `NUM_CASES`.
NUM_RANDOM_CASES = 360
CHAT_PATHS = [f"{prefix}/chat/completions" for prefix in ("/v1", "/api/ai", "/mistral/v1")]
MIN_ANSWERED = 100
# Valid by the schema and still refused: replies to calls that were never made and the like, which
# JSON Schema has no words for (see serve/request/json_schema.py).
LEFT_OUT = "positive_data_acceptance"
CONTEXT_LENGTH = 256
"""Answers of the random model end there, so that each request takes milliseconds."""
MAX_BODY_MIB = 128
"""413 is not in the tool's list of refusals, and its longest bodies have tens of MiB."""
TIMEOUT_S = 600


@dataclass(frozen=True)
class Requests:
    """What the tool told at its end, and what the server logged: (path, status) of requests."""

    summary: str
    statuses: Counter[tuple[str, int]]

    def count(self, what: str) -> int:
        """The number in front of a word of the summary's line of cases; 0 without one."""
        found = re.search(rf"(\d+) {what}", self.summary)
        return int(found[1]) if found else 0

    def num_asked(self, path: str) -> int:
        return sum(number for (asked, _), number in self.statuses.items() if asked == path)


@pytest.fixture(scope="module")
def requests(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Requests:
    folder = tmp_path_factory.mktemp("generated")
    log = folder / "server.log"
    settings = one_model(
        tiny_gguf, context_length=CONTEXT_LENGTH, num_slots=4, max_body_mib=MAX_BODY_MIB
    )
    with start_interface(settings, timeout_s=START_TIMEOUT_S, log=log) as server:
        command = [str(Path(sys.executable).with_name("schemathesis")), "run"]
        command += [f"{server.url}/openapi.json", "--checks", "all", "--exclude-checks", LEFT_OUT]
        command += ["--phases", "coverage,fuzzing", "--max-examples", str(NUM_RANDOM_CASES)]
        command += ["--seed", "7", "--continue-on-failure", "--suppress-health-check", "all"]
        # Its file of examples takes a third of the time, and is good for a second run alone.
        command += ["--generation-database", "none", "--no-shrink", "--no-color"]
        result = subprocess.run(
            command, cwd=folder, capture_output=True, encoding="utf-8", timeout=TIMEOUT_S
        )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    statuses = Counter((line["path"], line["status"]) for line in lines if "status" in line)
    [summary] = re.findall(r"^Test cases:\n(.*)$", result.stdout, re.MULTILINE)
    return Requests(summary, statuses)


def test_every_answer_is_one_that_is_described(requests: Requests) -> None:
    """By the tool's checks: statuses, headers, types and bodies; bad requests are refused."""
    assert requests.count("generated") >= NUM_CASES
    assert requests.count("passed") == requests.count("generated")


def test_none_is_a_server_error_by_the_servers_own_log(requests: Requests) -> None:
    assert requests.statuses.total() >= NUM_CASES
    assert not [key for key in requests.statuses if key[1] >= 500]


def test_most_ask_for_completions_and_many_get_one(requests: Requests) -> None:
    """What is refused at the door alone would try little."""
    assert sum(map(requests.num_asked, CHAT_PATHS)) > requests.statuses.total() / 2
    for path in CHAT_PATHS:
        assert requests.statuses[path, 200] >= MIN_ANSWERED
