"""The page as a browser would read it, over merges that pass, fail or tell nothing."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from configs.load import load_config
from configs.schema import RunConfig
from tests.configs.minimal import write_config
from tests.train.merge_report.facts import KINDS, NUM_LAYERS, failing_facts, passing_facts
from tests.train.report.test_page import HOSTILE, Outline, plots, text_of
from train.merge_report.curves import PAGE_COLOURS
from train.merge_report.facts import MergeFacts
from train.merge_report.notes import build_notes, build_verdict
from train.merge_report.page import format_bytes, name_machines, write_merge_report


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return load_config(write_config(tmp_path))


def write(folder: Path, config: RunConfig, facts: MergeFacts) -> str:
    file = folder / "report.html"
    write_merge_report(file, config=config, facts=facts)
    return file.read_text(encoding="utf-8")


def rows_of(html: str, section: str) -> list[str]:
    """The rows of a section's first table, as text."""
    part = html[html.index(f'id="{section}"') :]
    body = part[part.index("<tbody>") : part.index("</tbody>")]
    return [text_of(row) for row in body.split("</tr>")[:-1]]


def test_a_passing_merge_says_so_first(config: RunConfig, tmp_path: Path) -> None:
    html = write(tmp_path, config, passing_facts())
    text = text_of(html)
    assert text.index("All gates passed") < text.index("1.2500 held-out loss 1.7500 without")
    assert "failed" not in text
    assert "not measured" not in text
    assert "0.994 least cosine of an update of 24 tensors" in text
    assert "The adapter lowers the held-out loss of the base from 1.7500 to 1.2500." in text
    assert "1 min 6 s for all steps" in text


def test_artefacts_stand_in_a_table_with_what_they_cost(config: RunConfig, tmp_path: Path) -> None:
    html = write(tmp_path, config, passing_facts())
    bf16, q4 = rows_of(html, "artefacts")
    assert bf16.startswith("bf16 16 bits, unquantized artefacts/run.bf16.gguf vLLM or transformers")
    assert bf16.endswith("a card of 80 GB 44.7 GiB 16.00 1.2501 +0.0001 95.7 % 0.01230")
    assert q4.endswith(
        "llama.cpp a card of 24 GB, or a CPU or Mac with 32 GB "
        "13.5 GiB 4.84 1.2600 +0.0100 95.7 % 0.01230"
    )
    assert rows_of(html, "gates") == [
        f"{name} ✓ passed ✓ passed ✓ passed ✓ passed" for name in ("bf16", "q4_k_m")
    ]
    text = text_of(html)
    assert "what prompt says of q4_k_m. num_prompts 19, num_alike 19" in text
    assert "kl_mean 0.0123 (limit 0.1)" in text


def test_base_adapters_and_times_are_told(config: RunConfig, tmp_path: Path) -> None:
    html = write(tmp_path, config, passing_facts())
    text = text_of(html)
    assert "Merged into the 4-bit weights that the adapter was trained on" in text
    kept = [row for row in rows_of(html, "base") if "(kept)" in row]
    assert [row[-6:] for row in kept] == ["1.2500"]
    assert "Changed tensors 1,234 Adapter adapter, weight 1 Adapter other, weight 0.25" in text
    assert "Time: merge 1 min 1 s Time: gates 5.5 s" in text
    assert re.search(r"torch 2\.\d+", text)


def test_a_failing_merge_names_gate_artefact_and_layer(config: RunConfig, tmp_path: Path) -> None:
    facts = failing_facts()
    html = write(tmp_path, config, facts)
    text = text_of(html)
    verdict = build_verdict(facts)
    assert (verdict.level, verdict.title) == ("wrong", "1 gate failed")
    assert verdict.text.startswith("q4_k_m: effect of the adapter.")
    assert text.index(verdict.title) < text.index("What to look at")
    assert rows_of(html, "gates") == [
        "bf16 not measured not measured not measured not measured",
        "q8_0 ✓ passed ! warning ✓ passed ✓ passed",
        "q4_k_m ✓ passed ✗ failed ✓ passed ✓ passed",
    ]
    assert rows_of(html, "artefacts")[0].endswith(
        "16.00 not measured not measured not measured not measured"
    )
    worst = rows_of(html, "survival")
    assert len(worst) == 10
    assert worst[0] == ("model.language_model.layers.3.self_attn.k_proj.weight below 0.9: ! 0.4567")
    assert worst[1] == "lm_head.weight 0.9500"
    assert "The other base was not measured." in text


def test_notes_put_what_is_wrong_first(config: RunConfig) -> None:
    notes = build_notes(failing_facts(), [])
    assert [(note.level, note.text[:40]) for note in notes] == [
        ("wrong", "Effect of the adapter: what acts says of"),
        ("look", "Effect of the adapter: what acts says of"),
        ("look", "the adapter was trained on another base"),
        ("look", "The adapter does not lower the held-out "),
    ]


def test_verdicts_between_passed_and_failed() -> None:
    facts = failing_facts()
    none, warned, _ = facts["artefacts"]
    passed = passing_facts()["artefacts"]
    titles = {
        "No gate failed, 1 gate warned": [*passed, warned],
        "All gates passed, but not all artefacts were checked": [*passed, none],
        "No gate was run": [none],
        "All gates passed": passed,
    }
    for title, artefacts in titles.items():
        assert build_verdict(MergeFacts(artefacts=artefacts)).title == title


@pytest.mark.parametrize("facts", [passing_facts(), failing_facts(), MergeFacts()])
def test_the_page_is_whole_loads_nothing_and_runs_nothing(
    facts: MergeFacts, config: RunConfig, tmp_path: Path
) -> None:
    html = write(tmp_path, config, facts)
    outline = Outline()
    outline.feed(html)
    assert outline.open == []
    assert not outline.tags & {"script", "link", "img", "iframe"}
    assert outline.handlers == []
    assert all(link[0] == "#" and link[1:] in outline.ids for link in outline.links)
    assert not re.findall(r"url\((?!#)|@import", html)
    assert write(tmp_path, config, facts) == html


def test_what_is_missing_is_said_to_be(config: RunConfig, tmp_path: Path) -> None:
    text = text_of(write(tmp_path, config, MergeFacts()))
    assert "No gate was run Whether the adapter is in it was not measured." in text
    assert "No artefact was made." in text
    assert text.lower().count("not measured") == 4
    bare = MergeFacts(
        base={"kept": "bf16", "losses": None},
        adapters=[],
        num_merged_tensors=0,
        survival={},
        reference_loss=None,
        base_loss=None,
        artefacts=[failing_facts()["artefacts"][0]],
        seconds={},
        warnings=[],
    )
    html = write(tmp_path, config, bare)
    assert plots(html) == []
    assert "base and unmerged adapter not measured" in text_of(html)


def test_texts_cannot_act_as_markup(config: RunConfig, tmp_path: Path) -> None:
    facts = failing_facts()
    facts["adapters"][0]["name"] = HOSTILE
    facts["warnings"] = [HOSTILE]
    facts["survival"] = {f"model.layers.0.{HOSTILE}.weight": 0.1}
    facts["seconds"] = {HOSTILE: 1.0}
    facts["artefacts"][2]["path"] = HOSTILE
    facts["artefacts"][2]["gates"][1]["told"] = HOSTILE
    hostile = config.model_copy(update={"description": HOSTILE})
    html = write(tmp_path, hostile, facts)
    outline = Outline()
    outline.feed(html)
    assert outline.open == []
    assert not outline.tags & {"script", "img"}
    assert "<script" not in html
    # Description, adapter, warning, step, path; the tensor in table, key and note; the gate's
    # words in the notes and among the gates.
    assert html.count("&lt;script&gt;") == 10


def test_the_plots_show_each_layer_and_artefact(config: RunConfig, tmp_path: Path) -> None:
    drawn = plots(write(tmp_path, config, passing_facts()))
    assert len(drawn) == 4, "two plots, for wide and for narrow pages each"
    for plot in drawn:
        ElementTree.fromstring(plot)
        assert not any(colour in plot for colour in PAGE_COLOURS)
    price, survival = drawn[0], drawn[2]
    labels = {element.text for element in ElementTree.fromstring(price).iter()}
    assert {"bf16", "q4_k_m"} <= labels
    assert price.count("<use") >= 2
    for kind in range(len(KINDS)):
        colour = re.escape(f"var(--kind-{kind})")
        paths = re.findall(rf'<path d="([^"]*)"[^>]*fill: none; stroke: {colour};', survival)
        assert [len(re.findall(r"[ML] ", path)) for path in paths] == [NUM_LAYERS]


@pytest.mark.parametrize(
    ("gib", "engine", "machines"),
    [
        (0.1, "llama.cpp", "a card of 8 GB, or a CPU or Mac with 8 GB"),
        (13.1, "llama.cpp", "a card of 24 GB, or a CPU or Mac with 32 GB"),
        (13.1, "vLLM", "a card of 24 GB"),
        (150, "vLLM", "several cards"),
        (100, "llama.cpp", "a card of 141 GB, or a CPU or Mac with 192 GB"),
    ],
)
def test_machines_hold_the_weights_and_more(gib: float, engine: str, machines: str) -> None:
    assert name_machines(round(gib * 2**30), engine=engine) == machines


def test_sizes_are_written_for_people() -> None:
    sizes = [2**20 // 2, 150 * 2**20, 2**30, 14 * 10**9]
    assert [format_bytes(size) for size in sizes] == ["0.5 MiB", "150 MiB", "1.0 GiB", "13.0 GiB"]
