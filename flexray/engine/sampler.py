"""From logits to the next token of each sequence, on the device: greedy, drawn, or fused over a group."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from collections.abc import Sequence as Listed
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from flexray.config import GenerationConfig
from flexray.engine.cuda_graph import CudaGraph
from flexray.engine.logits_processors import LogitsProcessors, prompt_ids
from flexray.engine.token_logprobs import TokenLogprobs, token_logprobs
from flexray.engine.transfers import to_device
from flexray.methods import Fusion, SamplingParams

if TYPE_CHECKING:
    from flexray.engine.request import Sequence
    from flexray.engine.scheduler import Batch
    from flexray.engine.sequence_table import SequenceTable

MOST_LIKELY = 1024
OF_PROBABILITIES: tuple[Fusion, ...] = ("max", "mean_prob")
"""Fusions whose scores are probabilities, if of a sum other than 1; those of the others are logits."""
DRAWN_TOGETHER = 32
"""Sequences whose tokens are drawn in one go: kernels add up a row in an order that depends on how many rows
there are."""


@dataclass(frozen=True, slots=True)
class SampledTokens:
    """One token for each sequence of a batch."""

    token_ids: Tensor  # int64 [B]
    is_finite: Tensor  # bool [B], whether it was chosen from finite logits
    is_replayed: bool = False  # they lie where those of the step before lay
    logprobs: TokenLogprobs | None = None  # if they are asked for

    def of(self, which: Tensor | slice) -> SampledTokens:
        """Those of some of the sequences."""
        logprobs = None if self.logprobs is None else self.logprobs.of(which)
        return SampledTokens(self.token_ids[which], self.is_finite[which], logprobs=logprobs)


def together(parts: Listed[tuple[Tensor, SampledTokens]], count: int) -> SampledTokens:
    """One for each of `count` sequences, from parts of them, each with its places, int64 [n]; 0 for those in
    no part."""
    device = parts[0][0].device
    token_ids = torch.zeros(count, dtype=torch.int64, device=device)
    is_finite = torch.ones(count, dtype=torch.bool, device=device)
    logprobs = None
    for index, part in parts:
        token_ids[index], is_finite[index] = part.token_ids, part.is_finite
        if part.logprobs is not None:
            logprobs = logprobs if logprobs is not None else part.logprobs.zeros(count)
            logprobs.put(index, part.logprobs)
    return SampledTokens(token_ids, is_finite, logprobs=logprobs)


class LogitsFuser:
    """Fuses the logits of B sequences within G groups. Tensors on the device that say who belongs together.

    Args:
        groups: [B], equal for sequences that choose together.
        weights: [B], they sum to 1 in each group; for nbce see Fusion.
    """

    def __init__(self, fusion: Fusion, groups: Listed[object], weights: Listed[float], device: torch.device):
        self.fusion = fusion
        members: dict[object, list[int]] = {}
        for i, group in enumerate(groups):
            members.setdefault(group, []).append(i)
        # [M, G]: the groups' first members, then their second ones, ..; a group that has no more repeats its
        # last one, with weight 0
        most = max(map(len, members.values()))
        repeated = np.asarray([own + own[-1:] * (most - len(own)) for own in members.values()]).T
        padded = np.asarray(weights, dtype=np.float32)[repeated]
        padded[np.arange(most)[:, None] >= np.asarray([len(own) for own in members.values()])] = 0
        numbers = {group: number for number, group in enumerate(members)}
        self.group = to_device(np.asarray([numbers[group] for group in groups]), device)  # [B]
        self.members = to_device(repeated, device)
        self.weights = to_device(padded, device)

    def __call__(self, logits_BV: Tensor) -> SampledTokens:
        """One token a group. Logits that are not finite make it void."""
        best = self.scores(logits_BV).max(-1)
        return SampledTokens(best.indices[self.group], best.values.isfinite()[self.group])

    def scores(self, logits_BV: Tensor) -> Tensor:
        """What each group's token is the best of, float32 [G, V]; see Fusion.

        Member is added to member, in their order, so that a group's sums do not depend on who is beside it.
        """
        if self.fusion == "nbce":
            return self._nbce(logits_BV)
        fused: Tensor | None = None
        combine = torch.maximum if self.fusion == "max" else torch.add
        for index_G, weight_G in zip(self.members, self.weights, strict=True):
            scores_GV = logits_BV[index_G].float()
            if self.fusion in OF_PROBABILITIES:
                scores_GV = scores_GV.softmax(-1)
            if self.fusion != "max":
                scores_GV = scores_GV * weight_G[:, None]
            fused = scores_GV if fused is None else combine(fused, scores_GV)
        assert fused is not None
        return fused

    def _nbce(self, logits_BV: Tensor) -> Tensor:
        """Naive Bayes-based context extension (Su 2023, https://spaces.ac.cn/archives/9617): the member of
        least entropy, the first of equals, against the one that sees no paraphrase."""
        G, V = self.members.shape[1], logits_BV.shape[1]
        surest = torch.zeros((G, V), device=logits_BV.device)
        against = torch.zeros_like(surest)
        least = torch.full((G,), math.inf, device=logits_BV.device)
        for index_G, weight_G in zip(self.members, self.weights, strict=True):
            log_probs_GV = logits_BV[index_G].float().log_softmax(-1)
            parts = [_entropy(log_probs_GV[some]) for some in _parts_of(log_probs_GV)]
            entropy_G = torch.cat(parts)[:G]
            better = (entropy_G < least) & (weight_G > 0)
            # one that is not finite makes the group void, though it cannot be the surest
            broken = ~entropy_G.isfinite() & (weight_G != 0)
            surest = torch.where((better | broken)[:, None], weight_G[:, None] * log_probs_GV, surest)
            least = torch.where(better, entropy_G, torch.where(broken, -math.inf, least))
            against = torch.where((weight_G < 0)[:, None], weight_G[:, None] * log_probs_GV, against)
        return surest + against


def _entropy(log_probs_NV: Tensor) -> Tensor:
    """[N], in nats."""
    entropy: Tensor = torch.special.entr(log_probs_NV.exp()).sum(-1)
    return entropy


def _parts_of(rows_NV: Tensor) -> Iterator[Tensor]:
    """Indices of rows, int64 [DRAWN_TOGETHER] at a time so that the number of rows does not decide on
    rounding: all of them in order, the last one again in the rest of the last part."""
    n = len(rows_NV)
    for start in range(0, n, DRAWN_TOGETHER):
        yield torch.arange(start, start + DRAWN_TOGETHER, device=rows_NV.device).clamp_max(n - 1)


def greedy(logits_BV: Tensor) -> SampledTokens:
    """The token of the highest logit. That one tells of all: NaN counts as higher than any number."""
    best = logits_BV.max(-1)
    return SampledTokens(best.indices, best.values.isfinite())


def draw(
    logits_BV: Tensor, temperature_B: Tensor, top_p_B: Tensor, uniform_B: Tensor, *, nucleus: bool
) -> SampledTokens:
    """Tokens drawn with their probabilities: the inverse of the cumulative distribution, in the order of the
    vocabulary.

    Args:
        uniform_B: random numbers in [0, 1), float32 [B].
        nucleus: draw from the likeliest tokens that together reach `top_p` (Holtzman et al. 2020,
            arXiv:1904.09751), and those as likely as the last of them. They are looked for among the
            likeliest MOST_LIKELY, since sorting a whole vocabulary takes longer than a step of the model.
    """
    scores_BV = logits_BV.float()
    probs = (scores_BV / temperature_B[:, None]).softmax(-1)
    if nucleus:
        likely = probs.topk(min(MOST_LIKELY, probs.shape[-1])).values
        kept = (likely.cumsum(-1) - likely < top_p_B[:, None]).sum(-1, keepdim=True)
        probs = probs * (probs >= likely.gather(-1, (kept - 1).clamp_min(0)))
    reached = probs.cumsum(-1)
    mass = reached[:, -1:]
    below = torch.nextafter(mass, torch.zeros_like(mass))  # rounding up to the mass would find no token
    place = torch.minimum(uniform_B[:, None] * mass, below)
    tokens = torch.searchsorted(reached, place, right=True)[:, 0]
    return SampledTokens(tokens.clamp_max(logits_BV.shape[-1] - 1), scores_BV.amax(-1).isfinite())


@dataclass(frozen=True, slots=True)
class BatchPart:
    """The sequences of a batch that choose their tokens in the same way: n, in G groups that choose together;
    without a fuser each for itself."""

    index: Tensor  # int64 [n], in the batch
    rows: Tensor  # int64 [G], of each group's first one in the SequenceTable
    seen: Tensor | None  # int64 [G, L], ids that its prompt has, if they are asked for
    fuser: LogitsFuser | None
    drawn: bool
    nucleus: bool


class Sampler:
    """Chooses a token for each sequence of a batch, each in its own way.

    Args:
        generation: what is done beside choosing; by default nothing.
    """

    def __init__(self, table: SequenceTable, generation: GenerationConfig = GenerationConfig()):  # noqa: B008
        self.table, self.processors = table, LogitsProcessors(generation, table)
        self._logprobs = generation.num_logprobs
        self._only_chooses = self._logprobs is None and not self.processors
        self._greedy: dict[tuple[int, int], CudaGraph[SampledTokens]] = {}  # by place and size of logits

    @torch.no_grad()
    def __call__(self, logits_BV: Tensor, batch: Batch) -> SampledTokens:
        """One token for each row of the logits; rows behind the batch's sequences are padding."""
        if batch.parts is None:  # a decode batch comes again, step by step
            seen = self.processors.reads_prompts
            batch.parts = _parts(batch.sequences, logits_BV.device, seen=seen)
        if self._only_chooses and all(part.fuser is None and not part.drawn for part in batch.parts):
            return self._all_greedy(logits_BV, batch)
        n, found = len(batch.sequences), []
        for part in batch.parts:
            own = logits_BV[:n] if len(batch.parts) == 1 else logits_BV[part.index]
            found.append((part.index, self._choose(own, part)))
        return together(found, len(logits_BV))

    def _all_greedy(self, logits_BV: Tensor, batch: Batch) -> SampledTokens:
        if not getattr(batch, "is_replayed", False):
            return greedy(logits_BV)
        place = (logits_BV.data_ptr(), len(logits_BV))
        if place not in self._greedy:
            self._greedy[place] = CudaGraph(lambda: greedy(logits_BV))
        graph = self._greedy[place]
        tokens = graph()
        return replace(tokens, is_replayed=graph.is_captured)

    def _choose(self, logits_BV: Tensor, part: BatchPart) -> SampledTokens:
        fuser = part.fuser
        if self._only_chooses and not part.drawn:
            return greedy(logits_BV) if fuser is None else fuser(logits_BV)
        scores_GV = logits_BV if fuser is None else fuser.scores(logits_BV)
        n, found = len(scores_GV), []
        for start, some in zip(range(0, n, DRAWN_TOGETHER), _parts_of(scores_GV), strict=True):
            chosen = self._choose_some(scores_GV[some], part, some)
            found.append((some[: n - start], chosen.of(slice(n - start))))
        chosen = together(found, n)
        return chosen if fuser is None else chosen.of(fuser.group)

    def _choose_some(self, scores_NV: Tensor, part: BatchPart, some: Tensor) -> SampledTokens:
        """For some of a part's groups."""
        table, rows = self.table, part.rows[some]
        # their softmax is the distribution: of probabilities it is that of their logarithms
        logits_NV = scores_NV.log() if part.fuser and part.fuser.fusion in OF_PROBABILITIES else scores_NV
        changed_NV = logits_NV
        if self.processors:
            changed_NV = self.processors(logits_NV, rows, part.seen[some] if part.seen is not None else None)
        if part.drawn:
            temperature, top_p = table.sampling[:, rows]
            next_one = table.produced[rows].clamp_max(table.max_new_tokens - 1)  # of a finished one, any
            uniform = table.uniforms[rows, next_one]
            chosen = draw(changed_NV, temperature, top_p, uniform, nucleus=part.nucleus)
        else:
            chosen = greedy(changed_NV if self.processors else scores_NV)
        if table.forced is not None:
            next_one = table.produced[rows].clamp_max(table.max_new_tokens - 1)
            forced = table.forced[rows, next_one]
            chosen = replace(chosen, token_ids=forced.where(table.num_forced[rows] > 0, chosen.token_ids))
        if self._logprobs is None:
            return chosen
        return replace(chosen, logprobs=token_logprobs(logits_NV, chosen.token_ids, self._logprobs))


def _parts(sequences: Listed[Sequence], device: torch.device, *, seen: bool) -> list[BatchPart]:
    """The sequences by how they choose."""
    found: dict[tuple[Fusion | None, bool, bool], list[int]] = {}
    for i, s in enumerate(sequences):
        drawn = s.sampling.temperature > 0
        found.setdefault((s.fusion, drawn, drawn and s.sampling.top_p < 1), []).append(i)
    parts = []
    for (fusion, drawn, nucleus), members in found.items():
        own = [sequences[i] for i in members]
        groups: dict[tuple[int, int, int], list[Sequence]] = {}
        for s in own:
            groups.setdefault(s.fusion_group, []).append(s)
        fuser = None
        if fusion is not None:
            fuser = LogitsFuser(fusion, [s.fusion_group for s in own], [s.weight for s in own], device)
        parts.append(
            BatchPart(
                index=to_device(np.asarray(members), device),
                rows=to_device(np.asarray([group[0].row for group in groups.values()]), device),
                seen=to_device(prompt_ids(list(groups.values())), device) if seen else None,
                fuser=fuser,
                drawn=drawn,
                nucleus=nucleus,
            )
        )
    return parts


def uniform_numbers(params: SamplingParams, row_id: str, count: int) -> np.ndarray:
    """The random numbers of a sequence, float32 [count] in [0, 1): of its row and params only, so that
    neither the batch that it is in nor a rerun changes them, nor a version of a library.
    """
    key = f"{params.seed}\n{params.index}\n{row_id}".encode()
    words = np.frombuffer(hashlib.shake_256(key).digest(4 * count), dtype="<u4")
    return ((words >> 8) * 2.0**-24).astype(np.float32)
