"""What makes a row one that is asked: said once, for test rows and for those of further sets."""

from dataclasses import replace

from data.conversation import Conversation, Message, text_of


def with_system_prompt(conversation: Conversation, prompt: str | None) -> Conversation:
    """The conversation with `prompt` in front, unless it brings a system turn of its own."""
    if prompt is None or conversation.messages[0]["role"] == "system":
        return conversation
    system: Message = {"role": "system", "content": prompt}
    return replace(conversation, messages=(system, *conversation.messages))


def question_problem(conversation: Conversation) -> str:
    """Why a row cannot be asked, empty where it can.

    Its last turn is the expected answer, of text or calls or both; what stands before it is asked.
    """
    *asked, last = conversation.messages
    if last["role"] != "assistant":
        return "a test row that does not end with the assistant's answer"
    if not text_of(last).strip() and not last.get("tool_calls"):
        return "a test row whose expected answer is empty"
    if not any(turn["role"] == "user" for turn in asked):
        return "a test row without a question"
    return ""
