"""The kinds of data sets that are read as published: each says how its records become rows.

To add one, `newqa`:

1. `kinds/newqa.py`: a class with a `Wanted` (the fields its files must have) and `adapt`, which gives a
   record as a row: the values, the `Fields` that say where they stand, and `Fault`s for what cannot be
   used. See `webqa.py`, and `kind.Kind` for what is asked of them.
2. An entry in KINDS below.
3. Its name in `DatasetKind` in flexray/config/data.py; there also in WITHOUT_PARAPHRASES or FROM_TEMPLATES
   if it belongs there.

Formats, shards, ids, checks and joined paraphrases are as for all others. What `adapt` gives goes into the
digests, so that a changed side file (templates, say) is noticed like a changed row; see `pararel.py`.
A kind whose rows are spread over several records names the field that holds them together: see `gather.py`
and `myriadlama.py`.
"""

from collections.abc import Callable

from flexray.config.data import DataConfig, DatasetKind
from flexray.data.adapters.adapter import DatasetAdapter
from flexray.data.adapters.myriadlama import open_myriadlama
from flexray.data.adapters.pararel import ParaRel
from flexray.data.adapters.records import Records
from flexray.data.adapters.triviaqa import TriviaQA
from flexray.data.adapters.webqa import WebQuestions

ADAPTERS: dict[DatasetKind, Callable[[DataConfig], DatasetAdapter]] = {
    "records": Records,
    "webqa": WebQuestions,
    "triviaqa": TriviaQA,
    "pararel": ParaRel,
    "myriadlama": open_myriadlama,
}


def open_adapter(config: DataConfig) -> DatasetAdapter:
    """The kind that the configuration names. Raises DataError for a side file that cannot be used."""
    return ADAPTERS[config.kind](config)


__all__ = ["KINDS", "open_kind"]
