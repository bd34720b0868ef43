import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from configs.load import load_config
from configs.schema import RunConfig
from train.plan.build import build_plan
from train.plan.data_facts import DataFacts
from train.plan.show import print_plan

ROOT = Path(__file__).parents[3]
FACTS = DataFacts(num_rows=1000, num_tokens=5_000_000, num_sequences=130, supervised_share=0.1)


def shown(config: RunConfig, gib: float, *, width: int = 80, data: DataFacts | None = None) -> str:
    file = io.StringIO()
    print_plan(build_plan(config, budget_gib=gib, data=data), Console(file=file, width=width))
    return file.getvalue()


def test_a_plan_that_fits_says_so_and_gives_no_advice(legal: RunConfig) -> None:
    text = shown(legal, 24, data=FACTS)
    assert text.startswith("legal fits: ")
    assert "what to change" not in text
    assert "assumed, not measured" in text
    rtx_4090 = next(line for line in text.splitlines() if line.startswith("RTX 4090"))
    assert float(rtx_4090.split()[-1]) > 1


def test_without_prepared_rows_hours_are_not_made_up(legal: RunConfig) -> None:
    text = shown(legal, 24)
    assert "hours: known after `tunery prepare`" in text
    assert next(line for line in text.splitlines() if line.startswith("L4")).endswith("?")


def test_a_plan_that_does_not_fit_stops_its_advice_where_it_does(legal: RunConfig) -> None:
    lines = shown(legal, 16).splitlines()
    assert lines[0].startswith("legal does not fit: ")
    advice = [line for line in lines if line.startswith(("offload_", "mlp_tile"))]
    assert [line.endswith("fits") for line in advice] == [False] * (len(advice) - 1) + [True]


def test_where_nothing_helps_it_says_what_the_run_needs(legal: RunConfig) -> None:
    text = shown(legal, 8)
    assert re.search(r"nothing here is enough: even then it needs 1\d\.\d GiB", text)
    assert "longest sequence that fits: none" in text
    assert "(changes the result)" in text


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("gib", [8, 16, 24])
def test_lines_are_no_wider_than_the_terminal(legal: RunConfig, gib: float, width: int) -> None:
    assert max(map(len, shown(legal, gib, width=width).splitlines())) <= width


def test_a_machine_without_a_card_has_no_table_of_cards() -> None:
    demo = load_config(ROOT / "configs" / "demo-legal.yaml")
    file = io.StringIO()
    plan = build_plan(demo, budget_gib=8, device="cpu")
    print_plan(plan, Console(file=file, width=80))
    assert "interpreter, libraries" in file.getvalue()
    assert "RTX 4090" not in file.getvalue()
