"""Fields that other interfaces take and this one does not, each with what to do instead."""

SAMPLING = "sampling is by temperature, top_p and the penalties alone"
REASONING = "answers come without reasoning"

REMEDIES = {
    "audio": "answers are text",
    "best_of": "use `n` and choose among the answers",
    "function_call": "use `tool_choice`",
    "functions": "use `tools`",
    "guardrails": "`safe_prompt` is what there is",
    "ignore_eos": SAMPLING,
    "min_p": SAMPLING,
    "min_tokens": SAMPLING,
    "moderation": "answers are not moderated",
    "prompt_cache_key": "prompts share one cache",
    "prompt_cache_options": "prompts share one cache",
    "prompt_cache_retention": "prompts share one cache",
    "prompt_logprobs": "log-probabilities are of answers",
    "prompt_mode": REASONING,
    "repetition_penalty": SAMPLING,
    "safety_identifier": "use `user`",
    "top_k": SAMPLING,
    "top_prompt_logprobs": "log-probabilities are of answers",
    "verbosity": "say it in the messages",
    "web_search_options": "nothing is searched; offer a tool",
}


def remedy_for(field: str) -> str:
    """What follows the words that `field` is not supported; empty for a field nobody knows."""
    remedy = REMEDIES.get(field)
    return f": {remedy}" if remedy else ""
