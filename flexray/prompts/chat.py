"""The text that an instruct model's chat template puts around a question.

The tokenizer's template is rendered once, with a placeholder for each text of the user, and split at the
placeholders. So only special tokens of the template count as such, and the place of the question is known.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

from flexray.config import PromptConfig
from flexray.errors import ConfigError
from flexray.prompts.context import ContextText
from flexray.prompts.encoding import TextPiece
from flexray.prompts.rendering import LimitExceeded, RenderingError, render_apart

if TYPE_CHECKING:  # takes seconds to import
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]

DATE = date(2024, 7, 26)
"""The date for templates that write today's date, so that prompts stay the same. It is Llama 3's default."""

_DIRECTIVES = [f"%{sign}{letter}" for sign in ("", "-") for letter in "aAbBdeHIjmMpSyY"]
# A macro put before a template, which hides transformers' function of this name.
_FIXED_DATE = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f"|replace('{d}', '{DATE.strftime(d)}')" for d in _DIRECTIVES)
    + " }}{%- endmacro %}\n"
)


def split_template(
    tokenizer: PreTrainedTokenizerBase,
    prompt: PromptConfig,
    prefix: str,
    suffix: str,
    bos_token: str | None = None,
) -> tuple[ContextText, list[TextPiece]]:
    """The text that the tokenizer's chat template puts before and after the question, the last user turn.

    Args:
        prompt: without an instruction there is no system message; some templates then write their own.
        prefix, suffix: the text of a turn before and after its question.
        bos_token: BOS for the template. None: the tokenizer's.

    Raises:
        ConfigError: there is no template; it fails, takes too long or takes no system message; or it leaves
            out, repeats, changes or moves a text.
    """
    instruction = prompt.instruction.strip()
    texts: dict[str, str | tuple[str, ...]] = {"prompt.instruction": instruction} if instruction else {}
    for number, shot in enumerate(prompt.few_shots, start=1):
        asked = tuple(text.strip() for text in shot.asked)
        several = len(asked) > 1  # then its segments have the text around them
        texts[f"question of few-shot {number}"] = asked if several else f"{prefix}{asked[0]}{suffix}".strip()
        texts[f"answer of few-shot {number}"] = shot.answer.strip()
    holders = [_placeholder(number) for number in range(len(texts) + 1)]  # the last one is the question's
    given = {} if bos_token is None else {"bos_token": bos_token}
    rendered = _render(tokenizer, holders, given, system=bool(instruction))
    places = [_find(rendered, h, name) for h, name in zip(holders, [*texts, "question"], strict=True)]
    turns = places[bool(instruction) :]
    if turns != sorted(turns) and not all(isinstance(text, str) for text in texts.values()):
        raise ConfigError(
            "prompt.chat: the tokenizer's chat template moves turns, but a few-shot must be answered behind "
            "its paraphrases. Correct it in model.path, or leave the few-shots' paraphrases out."
        )

    before, after = ContextText(), None
    end = 0
    for start, holder, text in sorted(zip(places, holders, [*texts.values(), ""], strict=True)):
        pieces = before.pieces if after is None else after
        pieces.append(TextPiece(rendered[end:start], template=True))
        end = start + len(holder)
        if holder is holders[-1]:
            after = list[TextPiece]()
        elif isinstance(text, tuple):
            before.ask(text)
        else:
            pieces.append(TextPiece(text))
    assert after is not None
    after.append(TextPiece(rendered[end:], template=True))
    return before, after


def _placeholder(number: int) -> str:
    """A text that no template contains, and that none can escape, cut, trim or change in case unnoticed."""
    return f"Text{number}: Aa \"b\" & <c> 'd' \\ {{{{ e }}}}\n\nf  ß."


def _render(
    tokenizer: PreTrainedTokenizerBase, contents: list[str], given: dict[str, str], *, system: bool
) -> str:
    """The rendered conversation: the system message, if there is one, then turns."""
    if not tokenizer.chat_template:
        raise ConfigError(
            "prompt.chat: the tokenizer has no chat template. Copy the instruct model's chat_template.jinja "
            "into model.path, or set prompt.chat to false."
        )
    roles = ["system"] * system + ["user", "assistant"] * len(contents)
    messages = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]
    try:
        return _apply(tokenizer, messages, given)
    except RenderingError as e:
        if system and not isinstance(e, LimitExceeded) and _renders(tokenizer, messages[1:], given):
            raise ConfigError(
                f"prompt.instruction: the tokenizer's chat template takes no system message ({e}). Set "
                'prompt.instruction to "" and write it into prompt.question_template.'
            ) from e
        raise ConfigError(
            f"prompt.chat: the tokenizer's chat template fails ({e}). Correct it in model.path, or set "
            "prompt.chat to false."
        ) from e


def _renders(tokenizer: PreTrainedTokenizerBase, messages: list[Message], given: dict[str, str]) -> bool:
    try:
        return bool(_apply(tokenizer, messages, given))
    except RenderingError:
        return False


def _apply(tokenizer: PreTrainedTokenizerBase, messages: list[Message], given: dict[str, str]) -> str:
    settings: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True, **given}
    settings["enable_thinking"] = False  # short answers leave no room for it
    return render_apart(
        lambda: str(
            tokenizer.apply_chat_template(
                messages, chat_template=_FIXED_DATE + tokenizer.get_chat_template(), **settings
            )
        )
    )


def _find(rendered: str, holder: str, name: str) -> int:
    """The position of a placeholder, which must occur once and unchanged."""
    count = rendered.count(holder)
    if count == 1:
        return rendered.index(holder)
    marked = holder.partition(":")[0].casefold() in rendered.casefold()
    does = f"repeats, {count} times," if count else "changes" if marked else "leaves out"
    raise ConfigError(
        f"prompt.chat: the tokenizer's chat template {does} the text of {name}. Each must come once, "
        "as it is. Correct it in model.path, leave the text out, or set prompt.chat to false."
    )
