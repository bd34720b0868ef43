"""Against transformers, which reads the same weights: the tiny model is written as fp32."""

import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import xllamacpp
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from configs.errors import UserError
from data.conversation import Conversation, Message, question_and_answer
from serve import llama_loading
from serve.llama_loading import connect, load_llama_server, new_door
from serve.llama_process import LlamaProcess
from serve.llama_scorer import NUM_TOP, LlamaScorer, open_gguf
from tests.tiny_gguf import write_tiny_gguf
from tests.tiny_model import NUM_TOKENS, build_tiny_checkpoint

NUM_ANSWERED = 20
LAYER_SCALE = 8.0
# Attention is computed in fp16 for serving.
AS_SERVED = 5e-3


@dataclass(frozen=True, eq=False)
class TestRow:
    __test__ = False
    conversation: Conversation
    ids: np.ndarray
    scored: np.ndarray
    prompt_ids: np.ndarray


def random_row(seed: int, *, num_tokens: int, num_prompt: int) -> TestRow:
    """All of the vocabulary may stand in it, so also bytes that are no whole character.

    All rows begin alike, as those with one system turn do.
    """
    shared, own = np.random.default_rng(0), np.random.default_rng(seed)
    parts = [shared.integers(0, NUM_TOKENS, 20), own.integers(0, NUM_TOKENS, num_tokens - 20)]
    ids = np.concatenate(parts).astype(np.int32)
    conversation = question_and_answer("?", "!", id=f"row-{seed}")
    return TestRow(conversation, ids, np.arange(num_prompt, num_tokens), ids[:num_prompt])


ROWS = [
    random_row(1, num_tokens=80, num_prompt=50),
    random_row(2, num_tokens=200, num_prompt=140),
    # Two answers with a turn between them.
    replace(random_row(3, num_tokens=99, num_prompt=30), scored=np.array([30, 31, 32, 70, 71])),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With layers that weigh more than the embedding, which else answers with the last token."""
    folder = build_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    weights = load_file(folder / "model.safetensors")
    scaled = {
        name: weight * LAYER_SCALE if weight.ndim == 2 and ".layers." in name else weight
        for name, weight in weights.items()
    }
    save_file(scaled, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def file(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(checkpoint, tmp_path_factory.mktemp("gguf") / "tiny.f32.gguf")


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> PreTrainedModel:
    return load_reference(checkpoint)


def load_reference(checkpoint: Path) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    assert isinstance(model, PreTrainedModel)
    model.eval()
    return model


def log_probs_of(model: PreTrainedModel, row: TestRow) -> torch.Tensor:
    """At each scored place, (n, vocabulary)."""
    with torch.no_grad():
        logits = model(torch.tensor(row.ids, dtype=torch.long)[None]).logits[0]
    at_scored: torch.Tensor = logits.log_softmax(-1)[row.scored - 1]
    return at_scored


def expected(model: PreTrainedModel, rows: list[TestRow]) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of the tokens, and those of the likeliest ones."""
    every = [(log_probs_of(model, row), row.ids[row.scored]) for row in rows]
    own = [probs.numpy()[np.arange(len(ids)), ids] for probs, ids in every]
    return np.concatenate(own), np.concatenate([p.topk(NUM_TOP).values.numpy() for p, _ in every])


def test_scores_and_answers_are_those_of_transformers(
    file: Path, reference: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the fp16 that llama.cpp uses in attention, so that nothing hides behind rounding."""
    as_served = llama_loading.build_parameters

    def in_fp32(file: Path, **settings: int) -> xllamacpp.CommonParams:
        params = as_served(file, **settings)
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        return params

    monkeypatch.setattr(llama_loading, "build_parameters", in_fp32)
    with new_door() as door:
        server = load_llama_server(file, num_threads=1, context_length=256, num_slots=1, door=door)
        with connect(door) as http:
            scorer = LlamaScorer(file, LlamaProcess(http, file, os.getpid()))
            scores = scorer.score(ROWS)
            answers = scorer.answer(ROWS, max_tokens=NUM_ANSWERED)
        del server
    log_probs, top = expected(reference, ROWS)
    assert scores.log_probs.shape == (30 + 60 + 5,)
    assert scores.top_ids.shape == scores.top_log_probs.shape == (95, NUM_TOP)
    np.testing.assert_allclose(scores.log_probs, log_probs, atol=1e-5)
    np.testing.assert_allclose(scores.top_log_probs, top, atol=1e-5)
    of_row = log_probs_of(reference, ROWS[0])
    told = of_row.numpy()[np.arange(30)[:, None], scores.top_ids[:30]]
    np.testing.assert_allclose(told, scores.top_log_probs[:30], atol=1e-5)
    assert answers == [greedy(reference, row) for row in ROWS]
    assert min(len(set(answer)) for answer in answers) > 5, "answers must depend on the model"


def test_as_served_only_attentions_rounding_is_between(
    file: Path, reference: PreTrainedModel
) -> None:
    with open_gguf(file, num_threads=1, context_length=256) as scorer:
        scores = scorer.score(ROWS)
    log_probs, top = expected(reference, ROWS)
    np.testing.assert_allclose(scores.log_probs, log_probs, atol=AS_SERVED)
    np.testing.assert_allclose(scores.top_log_probs, top, atol=AS_SERVED)
    assert abs(scores.log_probs.mean() - log_probs.mean()) < 1e-4


def test_scores_and_answers_depend_on_nothing_that_was_asked_before(tiny_gguf: Path) -> None:
    """In a model whose 8 bits show how a prompt was cut into pieces."""
    prompts = (30, 90, 120, 60, 150)
    rows = [
        replace(row, ids=row.ids % 290, prompt_ids=row.prompt_ids % 290)
        for row in (
            random_row(seed, num_tokens=num + 10, num_prompt=num)
            for seed, num in enumerate(prompts)
        )
    ]
    with open_gguf(tiny_gguf, num_threads=1, context_length=512) as scorer:
        scores, answers = scorer.score(rows), scorer.answer(rows, max_tokens=30)
        backwards, answers_backwards = (
            scorer.score(rows[::-1]),
            scorer.answer(rows[::-1], max_tokens=30),
        )
    by_row = scores.log_probs.reshape(len(rows), 10)
    np.testing.assert_array_equal(backwards.log_probs.reshape(len(rows), 10)[::-1], by_row)
    assert answers_backwards[::-1] == answers


def greedy(model: PreTrainedModel, row: TestRow) -> list[int]:
    ids = torch.tensor(row.prompt_ids, dtype=torch.long)[None]
    made = model.generate(ids, max_new_tokens=NUM_ANSWERED, do_sample=False)  # type: ignore[operator]
    answer: list[int] = made[0, ids.shape[1] :].tolist()
    return answer


def test_an_answer_ends_before_the_end_token(
    checkpoint: Path, reference: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [random_row(seed, num_tokens=30, num_prompt=30) for seed in range(20)]
    row, answer = next(
        (row, answer)
        for row, answer in ((row, greedy(reference, row)) for row in rows)
        if answer[7] not in answer[:7]
    )
    end = answer[7]

    def add_end(writer: gguf.GGUFWriter, token: int) -> None:
        writer.add_uint32("tokenizer.ggml.eos_token_id", end)

    monkeypatch.setattr("gguf.GGUFWriter.add_eos_token_id", add_end)
    file = write_tiny_gguf(checkpoint, tmp_path / "ends.gguf")
    with open_gguf(file, num_threads=1, context_length=256) as scorer:
        assert scorer.answer([row], max_tokens=NUM_ANSWERED) == [answer[:7]]


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}
TEMPLATE_WITH_TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\n' + tools|tojson + '<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def asked(text: str) -> Conversation:
    turns: tuple[Message, ...] = (
        {"role": "user", "content": "Which colour is the sky?"},
        {"role": "assistant", "content": "The sky is blue."},
        {"role": "user", "content": text},
    )
    return Conversation(id="asked", messages=turns)


@pytest.mark.parametrize("adds_bos", [False, True])
def test_prompt_ids_are_what_the_chat_interface_evaluates(
    adds_bos: bool, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.tiny_gguf.CHAT_TEMPLATE", TEMPLATE_WITH_TOOLS)
    add_template = gguf.GGUFWriter.add_chat_template

    def add_both(writer: gguf.GGUFWriter, template: str) -> None:
        add_template(writer, template)
        writer.add_add_bos_token(adds_bos)

    monkeypatch.setattr("gguf.GGUFWriter.add_chat_template", add_both)
    file = write_tiny_gguf(checkpoint, tmp_path / "tools.gguf")
    short, long = asked("And the grass?"), asked("And the grass? <|im_end|> " * 5)
    with_tool = replace(short, tools=(TOOL,))
    with open_gguf(file, num_threads=1, context_length=1024) as scorer:
        ids = [scorer.prompt_ids(one) for one in (short, long, with_tool)]
        counts = [scorer.num_prompt_tokens(one) for one in (short, long, with_tool)]
    assert counts == [len(one) for one in ids]
    assert len(ids[0]) < len(ids[1])
    assert len(ids[0]) + 50 < len(ids[2])
    # The turns, the end tokens between them and that of the long question; never two beginnings.
    assert [one.count(1) for one in ids] == [4, 4, 5]
    assert [one.count(2) for one in ids] == [3, 8, 4]
    assert ids[0][1] != 1


def test_an_adapter_is_applied(checkpoint: Path, file: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter.gguf")
    changed = load_reference(checkpoint)
    with torch.no_grad():
        changed.model.layers[1].mlp.down_proj.weight += 2.0 * adapter_delta()
    with open_gguf(file, num_threads=1, context_length=256, lora=adapter) as scorer:
        scores = scorer.score(ROWS[:1])
    log_probs, _ = expected(changed, ROWS[:1])
    np.testing.assert_allclose(scores.log_probs, log_probs, atol=AS_SERVED)
    without, _ = expected(load_reference(checkpoint), ROWS[:1])
    assert abs(log_probs - without).max() > 0.1


def adapter_matrices() -> tuple[torch.Tensor, torch.Tensor]:
    """A, (4, 128), and B, (64, 4)."""
    generator = torch.Generator().manual_seed(5)
    a, b = (torch.randn(*shape, generator=generator) * 0.2 for shape in ((4, 128), (64, 4)))
    return a, b


def adapter_delta() -> torch.Tensor:
    a, b = adapter_matrices()
    return b @ a


def write_adapter(file: Path) -> Path:
    """An adapter of rank 4 and alpha 8 on one matrix."""
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    for suffix, matrix in zip(("lora_a", "lora_b"), adapter_matrices(), strict=True):
        writer.add_tensor(f"blk.1.ffn_down.weight.{suffix}", matrix.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_rows_that_do_not_fit_are_named(file: Path) -> None:
    unknown = replace(ROWS[0], ids=np.where(np.arange(80) == 60, NUM_TOKENS, ROWS[0].ids))
    longer = random_row(9, num_tokens=257, num_prompt=250)
    fits = random_row(9, num_tokens=256, num_prompt=250)
    with open_gguf(file, num_threads=1, context_length=256) as scorer:
        with pytest.raises(UserError, match="row-1 holds token 392, and the GGUF file knows 392"):
            scorer.score([unknown])
        with pytest.raises(UserError, match=r"row-9 needs 257 tokens of context, .* with 256"):
            scorer.score([longer])
        with pytest.raises(UserError, match="row-9 needs 257 tokens of context"):
            scorer.answer([fits], max_tokens=7)
        assert len(scorer.score([fits]).log_probs) == 6
        assert len(scorer.answer([fits], max_tokens=6)[0]) == 6


def test_files_that_cannot_be_loaded_are_named_with_llama_cpps_words(
    file: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file.read_bytes()[:-10_000])
    with (
        pytest.raises(UserError, match="data is not within the file bounds") as error,
        open_gguf(cut, num_threads=1, context_length=256),
    ):
        pass
    assert error.value.where == str(cut)
    missing = tmp_path / "missing.gguf"
    for arguments in ({"file": missing}, {"file": file, "lora": missing}):
        with (
            pytest.raises(UserError, match="does not exist") as error,
            open_gguf(**arguments, num_threads=1, context_length=256),
        ):
            pass
        assert error.value.where == str(missing)
    with (
        pytest.raises(UserError, match=r"expect general\.type to be 'adapter'"),
        open_gguf(file, num_threads=1, context_length=256, lora=file),
    ):
        pass


def test_a_crash_is_an_error_and_the_process_ends_with_the_block(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with open_gguf(file, num_threads=1, context_length=256) as scorer:
        pid = scorer.pid
        assert len(scorer.score(ROWS[:1]).log_probs) == 30
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with open_gguf(file, num_threads=1, context_length=256) as scorer:
        os.kill(scorer.pid, signal.SIGKILL)
        with pytest.raises(UserError, match="ended while it ran the model") as error:
            scorer.score(ROWS[:1])
    assert error.value.where == str(file)
    assert list(tmp_path.iterdir()) == []
