"""An instruct model's chat template as the frame of a prompt.

The tokenizer's own template is rendered once, with a placeholder for each text of the user's, and cut at
the placeholders. Its pieces and the texts are tokenised apart: special tokens are those that the template
writes, and where the question stands is known to the token. A template comes with the model and is code;
transformers runs it in jinja's sandbox, where it can reach no file and change no object, but can take long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from flexray.prompts.encoding import encode, encode_behind
from flexray.types import ConfigError

if TYPE_CHECKING:  # takes seconds to import
    from transformers import PreTrainedTokenizerBase

DATE = date(2024, 7, 26)
"""What templates that write today's date are told: the same prompts each day. Llama 3's own default."""

_DIRECTIVES = [f"%{sign}{letter}" for sign in ("", "-") for letter in "aAbBdeHIjmMpSyY"]
# Before a template. Transformers takes plain values for it only, but a macro hides its function of this name.
_FIXED_DATE = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f"|replace('{d}', '{DATE.strftime(d)}')" for d in _DIRECTIVES)
    + " }}{%- endmacro %}\n"
)


@dataclass(frozen=True, slots=True)
class Frame:
    """What a template puts around the question, which is the last user turn."""

    context: tuple[int, ...]
    """Its beginning (BOS, if it writes one), instruction, few-shots and the header of the last turn."""
    lead: str
    """"", or a space before the question that is tokenised with it: as a part of the first word."""
    cue: tuple[int, ...]
    """The end of the turn, and the header of the answer."""


def make_frame(
    tokenizer: PreTrainedTokenizerBase, instruction: str, shots: Sequence[tuple[str, str]]
) -> Frame:
    """Cut the tokenizer's template.

    Args:
        instruction: "": no system message; some templates then write one of their own.
        shots: question and answer of each few-shot.

    Raises:
        ConfigError: there is no template, it fails, takes no system message, or leaves out, repeats or
            changes a text.
    """
    texts = {"prompt.instruction": instruction} if instruction else {}
    for number, (asked, answered) in enumerate(shots, start=1):
        texts |= {f"question of few-shot {number}": asked, f"answer of few-shot {number}": answered}
    holders = [_placeholder(number) for number in range(len(texts) + 1)]  # the last one is the question's
    rendered = _render(tokenizer, holders, system=bool(instruction))
    places = [_find(rendered, h, name) for h, name in zip(holders, [*texts, "question"], strict=True)]

    pieces: list[tuple[str, bool]] = []  # text, and whether it is the template's
    end = asked_at = 0
    for start, holder, text in sorted(zip(places, holders, [*texts.values(), ""], strict=True)):
        piece = rendered[end:start]
        lead = " " if piece.endswith(" ") else ""
        pieces += [(piece.removesuffix(lead), True), (lead + text, False)]
        end = start + len(holder)
        asked_at = len(pieces) - 1 if holder is holders[-1] else asked_at
    pieces.append((rendered[end:], True))

    context: tuple[int, ...] = ()
    for text, template in pieces[:asked_at]:
        context += (encode_behind if context else encode)(tokenizer, text, template=template)
    cue: tuple[int, ...] = ()
    for text, template in pieces[asked_at + 1 :]:
        cue += encode_behind(tokenizer, text, template=template)
    if not cue:
        raise ConfigError(
            "prompt.chat: the tokenizer's chat template writes nothing behind the question that an answer "
            "could begin at. Set prompt.chat to false."
        )
    return Frame(context, pieces[asked_at][0], cue)


def _placeholder(number: int) -> str:
    """A text that no template has in it, and that none can escape, cut, trim or re-case unnoticed."""
    return f"Text{number}: Aa \"b\" & <c> 'd' \\ {{{{ e }}}}\n\nf  ß."


def _render(tokenizer: PreTrainedTokenizerBase, contents: list[str], *, system: bool) -> str:
    """The conversation as the template writes it: a system message first, if there is one, then turns."""
    if not tokenizer.chat_template:
        raise ConfigError(
            "prompt.chat: the tokenizer has no chat template. Copy the instruct model's chat_template.jinja "
            "into model.path, or set prompt.chat to false."
        )
    roles = ["system"] * system + ["user", "assistant"] * len(contents)
    messages = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]
    try:
        return _apply(tokenizer, messages)
    except Exception as e:  # a template may fail as any code may
        if system and _renders(tokenizer, messages[1:]):
            raise ConfigError(
                f"prompt.instruction: the tokenizer's chat template takes no system message ({e}). Set "
                'prompt.instruction to "" and write it into prompt.question_template.'
            ) from e
        raise ConfigError(
            f"prompt.chat: the tokenizer's chat template fails ({type(e).__name__}: {e}). Correct it in "
            "model.path, or set prompt.chat to false."
        ) from e


def _renders(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> bool:
    try:
        return bool(_apply(tokenizer, messages))
    except Exception:
        return False


def _apply(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> str:
    return str(
        tokenizer.apply_chat_template(
            messages,
            chat_template=_FIXED_DATE + tokenizer.get_chat_template(),
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,  # a short answer leaves models that think first no room to
        )
    )


def _find(rendered: str, holder: str, name: str) -> int:
    """Where a placeholder stands, which must be once and unchanged."""
    count = rendered.count(holder)
    if count == 1:
        return rendered.index(holder)
    marked = holder.partition(":")[0].casefold() in rendered.casefold()
    does = f"repeats, {count} times," if count else "changes" if marked else "leaves out"
    raise ConfigError(
        f"prompt.chat: the tokenizer's chat template {does} the text of {name}. Each must come once, "
        "as it is. Correct it in model.path, leave the text out, or set prompt.chat to false."
    )
