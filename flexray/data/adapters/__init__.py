"""Dataset adapters: each converts the records of a data set, as it is published, to rows.

To add one, write a subclass of `DatasetAdapter`. It declares which fields its files must have (`required`)
and converts a record to a row (`adapt`): the values, their paths (`Fields`), and a `FieldFault` for each
value that cannot be used. `questions.py` has examples. After `register_adapter("newqa", NewQA)`, called in
each process that reads data, `data.kind: newqa` uses this adapter.

Formats, ids, checks and joined paraphrases are the same for all data sets. For auxiliary files (such as
templates), see `pararel.py`. If a row is spread over several records, the adapter sets `grouping`; see
`myriadlama.py`.
"""

from flexray.config.data import DataConfig
from flexray.config.plugins import load_entry_points
from flexray.data.adapters.adapter import DatasetAdapter
from flexray.data.adapters.lama import LAMA, LAMAOfHub
from flexray.data.adapters.myriadlama import MyriadLAMA
from flexray.data.adapters.open_questions import NaturalQuestions, PopQA, SQuAD
from flexray.data.adapters.pararel import ParaRel
from flexray.data.adapters.questions import Records, TriviaQA, WebQuestions
from flexray.errors import ConfigError, shown

ADAPTERS: dict[str, type[DatasetAdapter]] = {
    "records": Records,
    "webqa": WebQuestions,
    "triviaqa": TriviaQA,
    "popqa": PopQA,
    "nq_open": NaturalQuestions,
    "squad": SQuAD,
    "lama_hub": LAMAOfHub,
    "lama": LAMA,
    "pararel": ParaRel,
    "myriadlama": MyriadLAMA,
}


def register_adapter(name: str, adapter_class: type[DatasetAdapter]) -> None:
    """Use this class for `data.kind: name` in this process.

    Raises:
        ValueError: the name is already registered for another class.
    """
    if ADAPTERS.setdefault(name, adapter_class) is not adapter_class:
        raise ValueError(f"the dataset adapter {name!r} is already registered, as {ADAPTERS[name]!r}")


def open_adapter(config: DataConfig) -> DatasetAdapter:
    """The adapter for `data.kind`.

    Raises:
        ConfigError: there is no adapter of this name.
        DataError: an auxiliary file cannot be used.
    """
    if config.kind not in ADAPTERS:
        load_entry_points("adapters", register_adapter)
    if config.kind not in ADAPTERS:
        known = ", ".join(sorted(ADAPTERS))
        raise ConfigError(f"data.kind: no dataset adapter is named {shown(config.kind)}; known: {known}.")
    return ADAPTERS[config.kind](config)


__all__ = ["ADAPTERS", "DatasetAdapter", "open_adapter", "register_adapter"]
