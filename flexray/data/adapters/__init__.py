"""Dataset adapters: each turns the records of a data set, as it is published, into rows.

To add one, write a subclass of `DatasetAdapter`. It says which fields its files must have (`required`) and
turns a record into a row (`adapt`): the values, the `Fields` that say where they stand, and a `FieldFault`
for each value that cannot be used. `questions.py` has examples. `register_adapter("newqa", NewQA)`, called in
each process that reads data, lets `data.kind: newqa` read with it.

Formats, shards, ids, checks and joined paraphrases are the same for all data sets. What `adapt` returns goes
into the digests, so that a changed auxiliary file (templates, say) is noticed like a changed row; see
`pararel.py`. An adapter whose rows are spread over several records sets `grouping`; see `myriadlama.py`.
"""

from flexray.config.data import DataConfig
from flexray.config.plugins import load_entry_points
from flexray.data.adapters.adapter import DatasetAdapter
from flexray.data.adapters.myriadlama import MyriadLAMA
from flexray.data.adapters.pararel import ParaRel
from flexray.data.adapters.questions import Records, TriviaQA, WebQuestions
from flexray.errors import ConfigError, shown

ADAPTERS: dict[str, type[DatasetAdapter]] = {
    "records": Records,
    "webqa": WebQuestions,
    "triviaqa": TriviaQA,
    "pararel": ParaRel,
    "myriadlama": MyriadLAMA,
}


def register_adapter(name: str, adapter_class: type[DatasetAdapter]) -> None:
    """Make `data.kind: name` read a data set by this class, in this process.

    Raises:
        ValueError: the name belongs to another class.
    """
    if ADAPTERS.setdefault(name, adapter_class) is not adapter_class:
        raise ValueError(f"the dataset adapter {name!r} is registered already, as {ADAPTERS[name]!r}")


def open_adapter(config: DataConfig) -> DatasetAdapter:
    """The adapter that `data.kind` names.

    Raises:
        ConfigError: there is none of this name.
        DataError: an auxiliary file that cannot be used.
    """
    if config.kind not in ADAPTERS:
        load_entry_points("adapters", register_adapter)
    if config.kind not in ADAPTERS:
        known = ", ".join(sorted(ADAPTERS))
        raise ConfigError(f"data.kind: no dataset adapter is named {shown(config.kind)}; known: {known}.")
    return ADAPTERS[config.kind](config)


__all__ = ["ADAPTERS", "DatasetAdapter", "open_adapter", "register_adapter"]
