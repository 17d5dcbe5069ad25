"""The commands as functions: run a recipe, read its answers, score them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from flexray.config import RunConfig, load_config
from flexray.config.plugins import load_plugins
from flexray.evaluation import Evaluation
from flexray.evaluation import evaluate as evaluate_folders
from flexray.sink import OutputFolder, read_committed, whole_shards
from flexray.sink.read.visible import look
from flexray.sink.records.rows import ROW_SCHEMA

if TYPE_CHECKING:
    import pandas
    import pyarrow.dataset
    import pyarrow.fs
    import ray.data

    from flexray.runs.run import RunResult


def run(
    recipe: str | Path | Sequence[str] | RunConfig,
    *,
    overrides: Sequence[str] = (),
    fresh: bool = False,
    allow_code_change: bool = False,
    replace_changed: bool = False,
    download: bool = False,
    log: Callable[[str], None] = print,
) -> RunResult:
    """Answer what a recipe names and its output folder does not have yet, as `flexray run` does.

    Args:
        recipe: a path or URL, several of them (a later one wins), or a checked configuration.
        overrides: `section.key=value`, as with `--set`.
        fresh: discard what the output folder holds of an earlier run.
        allow_code_change: go on with a run of another values version.
        replace_changed: compute rows again whose question has changed since they were answered.
        download: first bring what the recipe names of the Hugging Face hub into this machine's cache.
        log: called with each line about the progress.

    Raises:
        UserError: something that the user can put right.
    """
    from flexray.runs.run import run as run_job  # it brings Ray

    if not isinstance(recipe, RunConfig):
        paths = [str(recipe)] if isinstance(recipe, str | Path) else list(recipe)
        recipe = load_config(paths, overrides)
    if download:
        from flexray.pipeline.hub import download as fetch

        fetch(recipe, log)
    return run_job(
        recipe, fresh=fresh, allow_code_change=allow_code_change, replace_changed=replace_changed, log=log
    )


class RunTable:
    """The committed rows of an output folder, checked against their manifests as they are read."""

    def __init__(self, output: str | Path, *, everything: bool = False):
        self._folder = OutputFolder(str(output))
        self._everything = everything

    def to_arrow(self) -> pa.Table:
        """All rows. Raises OutputError if there is no run, DamageError if it is damaged."""
        tables = list(read_committed(self._folder, everything=self._everything))
        return pa.concat_tables(tables) if tables else ROW_SCHEMA.empty_table()

    def to_pandas(self) -> pandas.DataFrame:
        """The same as a DataFrame. Raises ImportError if pandas is not installed."""
        return self.to_arrow().to_pandas()

    def to_dataset(self) -> pyarrow.dataset.Dataset:
        """All rows as an Arrow data set, of which only what is asked for is read. Name and size of each file
        are compared with its manifest, not its bytes. Raises errors as `to_arrow`."""
        import pyarrow.dataset

        filesystem, files, seen = self._files()
        found = pyarrow.dataset.dataset(files, ROW_SCHEMA, format="parquet", filesystem=filesystem)
        return found if seen is None else found.filter(seen)

    def to_ray(self) -> ray.data.Dataset:
        """The same as a Ray data set, in the Ray that this process is connected to, or a new one."""
        import ray.data

        filesystem, files, seen = self._files()
        if not files:
            return ray.data.from_arrow(ROW_SCHEMA.empty_table())
        # partitioning: `key=value` in the path of the output folder is not a column
        found = ray.data.read_parquet(files, filesystem=filesystem, partitioning=None, schema=ROW_SCHEMA)
        if seen is None:
            return found
        return found.map_batches(lambda table: table.filter(seen), batch_format="pyarrow", batch_size=None)

    def _files(self) -> tuple[pyarrow.fs.FileSystem, list[str], pyarrow.dataset.Expression | None]:
        """The data files, and which of their rows are seen; None: all."""
        run, seen = look(self._folder, everything=self._everything)
        shards = [m for m in whole_shards(self._folder, run).values() if seen.has(m)]
        return *self._folder.arrow_files(manifest.file for manifest in shards), seen.expression(shards)


def read(output: str | Path, *, everything: bool = False) -> RunTable:
    """The answers of a run, finished or not: the methods and rows that its last recipe names.

    Args:
        everything: all that the folder holds, also of earlier recipes.
    """
    return RunTable(output, everything=everything)


def evaluate(
    outputs: str | Path | Sequence[str | Path],
    *,
    baseline: str | None = None,
    everything: bool = False,
    overrides: Sequence[str] = (),
    plugins: Sequence[str] = (),
) -> Evaluation:
    """Score every method of one or more output folders and compare them, as `flexray evaluate` does.

    Args:
        everything: also methods and rows that the last recipe of a folder does not name.
        baseline: the method that all others are compared with. None: each pair is compared.
        overrides: `evaluation.key=value`: other metrics than those of the recipe, as with `--set`.
        plugins: modules or Python files that register metrics.

    Raises:
        UserError: a folder that holds no run, no method of the baseline's name, or no such metric.
    """
    load_plugins(plugins)
    folders = [outputs] if isinstance(outputs, str | Path) else outputs
    return evaluate_folders(
        [str(folder) for folder in folders], baseline=baseline, everything=everything, overrides=overrides
    )
