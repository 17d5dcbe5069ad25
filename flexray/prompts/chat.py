"""The text that an instruct model's chat template puts around a question.

The tokenizer's template is rendered once, with a placeholder for each text of the user, and split at the
placeholders. So only special tokens of the template count as such, and the place of the question is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from flexray.errors import ConfigError
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
    instruction: str,
    shots: Sequence[tuple[str, str]],
    bos_token: str | None = None,
) -> tuple[list[TextPiece], list[TextPiece]]:
    """The text that the tokenizer's template puts before and after the question, the last user turn.

    Args:
        instruction: "": no system message; some templates then write their own.
        shots: question and answer of each few-shot.
        bos_token: BOS for the template. None: the tokenizer's.

    Raises:
        ConfigError: there is no template; it fails, takes too long or takes no system message; or it leaves
            out, repeats or changes a text.
    """
    texts = {"prompt.instruction": instruction} if instruction else {}
    for number, (asked, answered) in enumerate(shots, start=1):
        texts |= {f"question of few-shot {number}": asked, f"answer of few-shot {number}": answered}
    holders = [_placeholder(number) for number in range(len(texts) + 1)]  # the last one is the question's
    given = {} if bos_token is None else {"bos_token": bos_token}
    rendered = _render(tokenizer, holders, given, system=bool(instruction))
    places = [_find(rendered, h, name) for h, name in zip(holders, [*texts, "question"], strict=True)]

    pieces: list[TextPiece] = []
    end = asked_at = 0
    for start, holder, text in sorted(zip(places, holders, [*texts.values(), ""], strict=True)):
        pieces += [TextPiece(rendered[end:start], template=True), TextPiece(text)]
        end = start + len(holder)
        asked_at = len(pieces) - 1 if holder is holders[-1] else asked_at
    pieces.append(TextPiece(rendered[end:], template=True))
    return pieces[:asked_at], pieces[asked_at + 1 :]


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
