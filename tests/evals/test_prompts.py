import hashlib

from data.conversation import Conversation, Message, question_and_answer
from evals.prompts import asked_text, build_prompt, name_prompt, prompt_sha256, prompt_text
from evals.task import Question

SYSTEM = Message(role="system", content="Be brief.")
USER = Message(role="user", content="Wer heißt so?")
CALL: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"n": 1}'}}
    ],
}
REPLY: Message = {"role": "tool", "content": "Ada", "tool_call_id": "c1"}


def question(*messages: Message) -> Question:
    reference = Message(role="assistant", content="Ada")
    return Question(id="1", messages=messages, reference=reference, cluster="1")


def example(number: int) -> Conversation:
    row = question_and_answer(f"q{number}", f"a{number}", id=str(number))
    other = Message(role="system", content="Never shown.")
    return Conversation(id=row.id, messages=(other, *row.messages))


def test_examples_stand_between_the_system_turn_and_the_rest() -> None:
    prompt = build_prompt(question(SYSTEM, USER, CALL, REPLY), [example(1), example(2)])
    assert [turn["content"] for turn in prompt] == [
        "Be brief.",
        "q1",
        "a1",
        "q2",
        "a2",
        "Wer heißt so?",
        "",
        "Ada",
    ]
    assert prompt[-2:] == [CALL, REPLY]
    assert build_prompt(question(SYSTEM, USER)) == [SYSTEM, USER]


def test_the_hash_is_that_of_canonical_json() -> None:
    text = '{"messages":[{"content":"Wer heißt so?","role":"user"}],"tools":[]}'
    assert prompt_sha256([USER]) == hashlib.sha256(text.encode()).hexdigest()


def test_the_hash_tells_messages_and_tools_apart_but_not_the_order_of_keys() -> None:
    tool = {"type": "function", "function": {"name": "look_up"}}
    turned: Message = {"content": USER["content"], "role": "user"}
    assert prompt_sha256([turned]) == prompt_sha256([USER])
    others = {
        prompt_sha256([USER]),
        prompt_sha256([SYSTEM, USER]),
        prompt_sha256([USER, SYSTEM]),
        prompt_sha256([USER], [tool]),
        prompt_sha256([USER, CALL]),
    }
    assert len(others) == 5


def test_prompts_are_named_by_their_examples() -> None:
    assert [name_prompt(0), name_prompt(4)] == ["zero-shot", "4 examples"]


def test_people_read_roles_images_and_calls() -> None:
    shown: Message = {
        "role": "user",
        "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            {"type": "text", "text": "Who?"},
        ],
    }
    assert prompt_text([USER]) == "Wer heißt so?"
    assert prompt_text([SYSTEM, shown, CALL, REPLY]) == (
        "system: Be brief.\n\nuser: [image]\nWho?\n\n"
        'assistant: [calls look_up({"n": 1})]\n\ntool: Ada'
    )


def test_what_is_asked_is_compared_without_case_space_and_system_turns() -> None:
    loud: Message = {"role": "user", "content": "WER  heiẞt\nso?"}
    assert asked_text([SYSTEM, USER]) == asked_text([loud])
    assert asked_text([USER]) != asked_text([USER, REPLY])
