"""A model on one or several ranks of tensor parallelism, and engines for it."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import weakref
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import Store
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from flexray.config import EngineConfig, GenerationConfig, MethodConfig, ModelConfig
from flexray.config import fault_injection as faults
from flexray.engine.engine import Answers, Engine
from flexray.engine.ranks import RankError, Ranks, talk_on_loopback
from flexray.errors import ConfigError, UserError
from flexray.models.all_reduce import TIMEOUT, RankGroup, abandon_ranks, join_ranks, leave_ranks
from flexray.models.checkpoint import check_checkpoint, load_model
from flexray.models.tensor_parallel import local_config
from flexray.prompts.prompt import Prompt

LOOPBACK = "127.0.0.1"


class ParallelModel:
    """A loaded model. With several ranks this process is rank 0, which holds its part of each layer, and
    starts a process for each other one. Each runs the whole engine on its part, with the same prompts; all
    that they exchange are the sums within layers (`flexray.models.all_reduce`). Logits are equal on all, bit
    for bit, so all choose the same tokens, and do the same work in the same order.

    Args:
        plugins: that register methods; the other ranks load them, too.
        ranks: GPUs of this machine, or on CPUs processes.

    Raises:
        ModelError: as `load_model`, of any rank. ConfigError: so many do not divide the model, this process
            does not see so many GPUs of one kind, or it is in a group of torch.distributed already.
    """

    def __init__(self, config: ModelConfig, ranks: int = 1, plugins: Sequence[str] = ()):
        self.config = config
        self.model: LlamaForCausalLM
        self.tokenizer: PreTrainedTokenizerBase
        self.group: RankGroup | None = None
        self.others: Ranks | None = None
        self._engine: Callable[[], Engine | None] = lambda: None  # the last one, while somebody has it
        if ranks == 1:
            self.model, self.tokenizer, _ = load_part(config, 0, 1)
            return
        _check_process(config, ranks)
        local_config(check_checkpoint(config.path), ranks)  # before any process is started
        talk_on_loopback()
        self.others = others = Ranks(ranks)
        weakref.finalize(self, _end, others).atexit = False  # they end with this process
        with _ending(others):
            others.ask("load", config, plugins, together=False)
            self.model, self.tokenizer, device = load_part(config, 0, ranks)
            self.group = _join(others, device, self.model.device)
        if self.model.device.type == "cpu":
            torch.set_num_threads(max(1, torch.get_num_threads() // ranks))

    def make_engine(
        self, methods: Sequence[MethodConfig], generation: GenerationConfig, config: EngineConfig
    ) -> Engine:
        """An engine for the model, in place of the one before. Raises as `Engine`."""
        quantization = self.config.quantization
        if self.others is None:
            return Engine(self.model, self.tokenizer, methods, generation, config, quantization)
        with _ending(self.others):
            self.others.ask("make_engine", methods, generation, config)
            engine = ParallelEngine(self, self.others, methods, generation, config)
            self.others.replies()
        self._engine = weakref.ref(engine)
        return engine

    def close(self) -> None:
        """End the other ranks, in good order. The model and its engines cannot be used any more."""
        if self.others is not None and not self.others.is_closed:
            try:
                self.others.ask("leave")
                if (engine := self._engine()) is not None:
                    engine.reset()
                leave_ranks()
                self.others.replies()
            finally:
                self.others.close()


class ParallelEngine(Engine):
    """The engine of rank 0. The other ranks are asked what it is asked, and have to answer the same.

    Args:
        loaded: stays as long as the engine: the other ranks end with it.
    """

    def __init__(
        self,
        loaded: ParallelModel,
        others: Ranks,
        methods: Sequence[MethodConfig],
        generation: GenerationConfig,
        config: EngineConfig,
    ):
        self._loaded, self._others = loaded, others
        quantization = loaded.config.quantization
        super().__init__(
            loaded.model, loaded.tokenizer, methods, generation, config, quantization, loaded.group
        )

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[tuple[int, tuple[Answers, ...]]]:
        """As `Engine.stream`. After an error, or if it is not read to its end, the other ranks have ended.

        Raises:
            RankError: another rank has answered otherwise, or has failed.
        """
        digest = Digest()
        with _ending(self._others):
            self._others.ask("answer", prompts, torch.get_num_threads())
            faults.reach("engine.rank", rank=0)
            for index, answers in super().stream(prompts):
                digest.add(index, answers)
                yield index, answers
            if set(self._others.replies()) != {digest.value}:
                raise RankError("the ranks have given different answers: their sums were not equal")


def _end(others: Ranks) -> None:
    """End the other ranks, whatever they are doing."""
    others.close()
    abandon_ranks()


@contextlib.contextmanager
def _ending(others: Ranks) -> Iterator[None]:
    """End the other ranks if anything is raised: they may be waiting for this one. What a sum raises since a
    rank has died is not raised here: that rank's end ends this process."""
    try:
        yield
    except (UserError, GeneratorExit, KeyboardInterrupt):
        _end(others)
        raise
    except BaseException:
        others.wait_for_death()
        _end(others)
        raise


class Digest:
    """Of answers, in the order in which they were found."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, index: int, answers: tuple[Answers, ...]) -> None:
        """Take in what all methods say to a prompt."""
        said = [[(g.token_ids, g.finish_reason) for g in method] for method in answers]
        self._hash.update(repr((index, said)).encode())

    @property
    def value(self) -> str:
        """In hex."""
        return self._hash.hexdigest()


def load_part(
    config: ModelConfig, rank: int, ranks: int
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase, str]:
    """Load a rank's part of the model, on a GPU of its own; and the name of its device."""
    device = config.device
    if ranks > 1 and device != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(rank)  # kernels are launched on the current device
        device = "cuda"
    model, tokenizer = load_model(
        config.path,
        dtype=config.dtype,
        device=f"cuda:{rank}" if ranks > 1 and device == "cuda" else device,
        trust_remote_code=config.trust_remote_code,
        lora=config.lora,
        rank=rank,
        ranks=ranks,
    )
    on_gpu = model.device.type == "cuda"
    return model, tokenizer, torch.cuda.get_device_name(model.device) if on_gpu else "cpu"


def connect(port: int, *, listener: socket.socket | None = None) -> Store:
    """The store at which ranks meet.

    Args:
        listener: rank 0's, which keeps the store.
    """
    if listener is None:
        return TCPStore(LOOPBACK, port, is_master=False, timeout=TIMEOUT)
    return TCPStore(
        LOOPBACK,
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=TIMEOUT,
        master_listen_fd=listener.detach(),  # else it would listen on all interfaces
    )


def _join(others: Ranks, device: str, place: torch.device) -> RankGroup:
    """Once all ranks have loaded their parts, join them."""
    devices = [device, *others.replies()]
    if len(set(devices)) > 1:  # which would round otherwise, and choose other tokens
        raise ConfigError(
            f"engine.tensor_parallel: {others.ranks}: needs GPUs of one kind, but they are "
            f"{', '.join(devices)}. Hide the others by CUDA_VISIBLE_DEVICES."
        )
    listener = socket.create_server((LOOPBACK, 0))
    port = listener.getsockname()[1]
    store = connect(port, listener=listener)
    others.ask("join", port)
    group = join_ranks(0, others.ranks, store, place)
    others.replies()
    return group


def _check_process(config: ModelConfig, ranks: int) -> None:
    if dist.is_initialized():
        raise ConfigError(
            f"engine.tensor_parallel: {ranks}: this process is in a group of torch.distributed already, and "
            "there can be one a process. Close the other LLM, or use another process."
        )
    if config.device == "cpu" or not (torch.cuda.is_available() or config.device == "cuda"):
        return
    if (found := torch.cuda.device_count()) < ranks:
        raise ConfigError(
            f"engine.tensor_parallel: {ranks}: needs as many GPUs, and this process sees {found} "
            f"(CUDA_VISIBLE_DEVICES). Set it to at most {max(1, found)}, or take a machine that has them."
        )
