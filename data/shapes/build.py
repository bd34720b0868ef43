"""From the configured shape to the function that makes turns of a row."""

from configs.data_schema import (
    AlpacaShape,
    MessagesShape,
    MultipleChoiceShape,
    PreferenceShape,
    PromptCompletionShape,
    QuestionAnswerShape,
    Shape,
    ShareGptShape,
    TemplateShape,
)
from data.shapes.chat import (
    alpaca_converter,
    messages_converter,
    preference_converter,
    prompt_completion_converter,
    sharegpt_converter,
)
from data.shapes.columns import Converter
from data.shapes.questions import multiple_choice_converter, question_answer_converter
from data.shapes.templated import template_converter


def build_converter(shape: Shape) -> Converter:
    """The function from a row to its turns, which raises `RowError` for a row of another shape.

    Errors: `UserError` for a template that is not valid.
    """
    match shape:
        case MessagesShape():
            return messages_converter(shape)
        case ShareGptShape():
            return sharegpt_converter(shape)
        case AlpacaShape():
            return alpaca_converter(shape)
        case PromptCompletionShape():
            return prompt_completion_converter(shape)
        case QuestionAnswerShape():
            return question_answer_converter(shape)
        case MultipleChoiceShape():
            return multiple_choice_converter(shape)
        case PreferenceShape():
            return preference_converter(shape)
        case TemplateShape():
            return template_converter(shape)
