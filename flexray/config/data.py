"""The settings that say which data set is read, and where few-shots come from."""

from __future__ import annotations

import os
import re
from glob import has_magic
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

# Kinds of built-in adapters (see flexray/data/adapters), whose settings are checked here.
WITHOUT_PARAPHRASES = ("webqa", "triviaqa", "popqa", "nq_open", "squad")
WITHOUT_TEMPLATES = ("records", *WITHOUT_PARAPHRASES)
_OF_FACTS = (".jsonl", ".parquet", ".arrow")
"""Extensions of ParaRel's files: of facts alone, and of the hub's, which have the patterns, too."""
FROM_TEMPLATES = ("pararel", "myriadlama", "lama", "lama_hub")


def _texts(value: Any) -> Any:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError("a text or a list of texts is needed")
    return tuple(map(os.path.expanduser, texts))  # a leading ~ is the home folder


def _field_names(value: Any) -> Any:
    """`paraphrase0..5` is six names. One name needs no list."""
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        return value
    names: list[str] = []
    for name in value:
        run = re.fullmatch(r"(.*?)(\d{1,6})\.\.(\d{1,6})", name)
        first, last = (int(run[2]), int(run[3])) if run else (0, -1)
        if last - first >= MAX_FIELDS:
            raise ValueError(f"{name}: more than {MAX_FIELDS} fields")
        names += [f"{run[1]}{n}" for n in range(first, last + 1)] if run and first <= last else [name]
    return names[0] if len(names) == 1 else tuple(dict.fromkeys(names))


Files = Annotated[tuple[str, ...], BeforeValidator(_texts)]
"""Paths, URLs or globs; a single one needs no list."""

MAX_FIELDS = 1000
MAX_NAMES = 166
"""Characters of name and split: a file's name may have 255 bytes, of which the output needs some for the
shard's number (8) and for a file that is being written (81; see sink/commit/shard.py and sink/folder.py)."""

_NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"


class Section(BaseModel):
    """A section of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
    LATER: ClassVar[tuple[str, ...]] = ()
    """Keys that are written only if they are not at their defaults: fingerprints and records from before them
    stay as they are."""

    @model_serializer(mode="wrap")
    def _without_later(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        unused = {key for key in self.LATER if getattr(self, key) == fields[key].default}
        return {key: value for key, value in tree.items() if key not in unused}

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_bool(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML's `yes` for a number would be a 1."""
        kinds = {cls.model_fields[info.field_name or ""].annotation}
        kinds |= set(get_args(*kinds))
        if isinstance(value, bool) and bool not in kinds and kinds & {int, float}:
            raise ValueError("a number is needed, not true or false")
        return value

    @field_validator("*")
    @classmethod
    def _can_be_written(cls, value: Any) -> Any:
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, str):
                item.encode()  # YAML can spell half a surrogate pair, which cannot be written to a file
            elif isinstance(item, int) and item.bit_length() > 63:
                raise ValueError("a number of more than 64 bits")
        return value


class Fields(Section):
    """The field of a source record that holds each value; `a.b` is a field of a nested record."""

    id: str | None = "id"
    """Identifies the row. null: a digest of the row's content."""
    question: str = "question"
    """A string."""
    paraphrases: Annotated[str | tuple[str, ...] | None, BeforeValidator(_field_names)] = "paraphrases"
    """A list of strings, also as JSON in a string. Several fields, as a list or as `paraphrase0..5`: what
    they have, one after the other, each a list or one string; a field that a row lacks adds nothing. null
    only with `include_question` or `paraphrase_files`."""
    answers: str | None = "answers"
    """A list of accepted answers, also as JSON in a string (as in PopQA), or a single answer. null: nothing
    is scored."""
    relation: str | None = None
    """A string: the group of the question, for accuracy by relation; a row without it is in no group. null:
    no groups."""
    num_manual: str | None = None
    """How many of the first paraphrases are manual templates: a whole number, or the list of these. null:
    none."""
    confidences: str | None = None
    """A list of numbers in [0, 1], one for each paraphrase. null: unknown."""
    candidates: str | None = None
    """A list of answers to choose among, also as JSON in a string; read by `generation.candidates: row`."""


class HubDataSet(Section):
    """A data set of the Hugging Face hub, as this machine's cache has it, or a folder; or, in one text,
    owner/name@revision."""

    name: str
    """owner/name; or the folder of a data set, as for `files`. A folder that exists wins."""
    config: str | None = None
    """Of a data set that has several. null: its default."""
    split: str | None = Field(default=None, pattern=_NAME)
    """The split to read. null: the data set's `split`."""
    revision: str | None = None
    """A branch, tag or commit. null: main."""

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        name, _, revision = value.partition("@")
        return {"name": name, "revision": revision or None}

    def __str__(self) -> str:
        return f"{self.name}@{self.revision or 'main'}"


class SourceConfig(Section):
    """Files of questions, and how to read them."""

    LATER: ClassVar[tuple[str, ...]] = ("myriadlama_answers",)
    kind: str = "records"
    """records: records read by `fields`. webqa, triviaqa, popqa, nq_open, squad, pararel, lama, lama_hub,
    myriadlama: data sets as they are published. Others: the name of a registered adapter; see
    flexray/data/adapters."""
    files: Files = ()
    """Paths, URLs or globs of jsonl, json (one array of records), CSV, TSV, Parquet or Arrow files; of zip
    and tar archives, for their members of these formats, or for some of them, as
    `zip://dev/*.jsonl::questions.zip` or `tar://a.csv::questions.tar.gz`; or the folder of a Hugging Face
    data set (save_to_disk, or Parquet files named after their split). Globs are a shell's: `**`
    matches any folders, links are followed, the dot of a hidden name must be spelt out."""
    hub: HubDataSet | None = None
    """In place of `files`: a data set of the Hugging Face hub."""
    split: str = Field(default="test", pattern=_NAME)
    """Part of every row id; also the split to read, if `files` is a data set's folder, or of `hub`."""
    format: Literal["auto", "jsonl", "json", "csv", "tsv", "parquet", "arrow"] = "auto"
    """auto: by each file's extension, to which text files may add .gz, .bz2, .xz or .zst."""
    template_files: Files = ()
    """pararel: patterns/P*.jsonl; none: the facts have them, as on the hub. myriadlama: files of rel_uri,
    template and type; none: the facts have them. lama: relations.jsonl; none: the facts' masked sentences are
    asked."""
    pararel_style: Literal["completion", "mask"] = "completion"
    """completion: the patterns that end in [Y], without it. mask: all patterns, with [MASK] for [Y]."""
    myriadlama_answers: Literal["all", "aliases"] = "all"
    """all: of obj_ent, obj_ents, obj_exps and obj_aliases. aliases: of obj_aliases alone."""
    max_manual: int | None = Field(default=None, ge=0)
    """How many manual templates of a relation, or manual paraphrases of a row, are used. null: all."""
    max_automatic: int | None = Field(default=None, ge=0)
    """How many automatic ones are used. null: all."""
    paraphrase_seed: int | None = None
    """Seed by which these are drawn for each row; they keep their order. null: the first are used."""

    @model_validator(mode="before")
    @classmethod
    def _pararel_folder(cls, tree: Any) -> Any:
        if not isinstance(tree, dict) or tree.get("kind") != "pararel" or tree.get("template_files"):
            return tree
        files = tree.get("files")
        folder = files[0] if isinstance(files, list | tuple) and len(files) == 1 else files
        if not isinstance(folder, str) or has_magic(folder) or PurePosixPath(folder).suffix in _OF_FACTS:
            return tree
        folder = folder.rstrip("/")
        return tree | {"files": f"{folder}/facts/P*.jsonl", "template_files": f"{folder}/patterns/P*.jsonl"}

    @property
    def sources(self) -> tuple[str, ...]:
        """What the rows are read from, as the recipe names it."""
        return self.files if self.hub is None else (str(self.hub),)

    @model_validator(mode="after")
    def _files_or_hub(self) -> SourceConfig:
        if not self.files and self.hub is None:
            raise ValueError("files: no file is named. Name files, or a data set of the hub as hub")
        if "" in self.files:
            raise ValueError("files: an empty name, as of a ${VARIABLE} without a value. Name a file")
        if self.files and self.hub is not None:
            raise ValueError("files and hub: give one of them, and set the other to [] or null")
        if self.hub is not None and self.format != "auto":
            raise ValueError("format: a data set of the hub says itself which it has. Remove it")
        return self

    @model_validator(mode="after")
    def _keys_of_the_kind(self) -> SourceConfig:
        columns = all(PurePosixPath(file).suffix in _OF_FACTS[1:] for file in self.files)
        if self.kind == "pararel" and not self.template_files and self.hub is None and not columns:
            raise ValueError(
                "kind pararel needs template_files, such as DIR/patterns/P*.jsonl; or give as files the one "
                "folder that holds facts/ and patterns/, or the hub's Parquet files, which have templates"
            )
        if self.kind in (*WITHOUT_TEMPLATES, "lama_hub") and self.template_files:
            raise ValueError(f"template_files: kind {self.kind} has no templates. Remove it, or correct kind")
        if self.pararel_style != "completion" and self.kind != "pararel":
            raise ValueError(f"pararel_style: kind {self.kind} has none. Remove it, or correct kind")
        if self.myriadlama_answers != "all" and self.kind != "myriadlama":
            raise ValueError(f"myriadlama_answers: kind {self.kind} has none. Remove it, or correct kind")
        if self.max_manual == 0 and (self.max_automatic == 0 or self.kind == "pararel"):
            raise ValueError("max_manual is 0, and there are no automatic ones: nothing would be left")
        return self


class DataConfig(SourceConfig):
    name: str = Field(pattern=_NAME)
    """Name of the data set; part of every row id."""
    fields: Fields = Fields()
    """For kind records."""
    paraphrase_files: Files = ()
    """More paraphrases: records {id, paraphrases, optionally confidences}, joined by the row's id."""
    include_question: bool = False
    """Use the question itself as the first paraphrase. Default for data sets of questions
    (webqa, triviaqa, popqa, nq_open, squad): true."""
    max_paraphrases: int | None = Field(default=None, ge=1)
    """Use only so many of the first paraphrases. null: all."""
    paraphrases: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(default=None, min_length=1)
    """Of those that all other keys leave, ask these, by index from 0, in this order. An index may come again:
    [0, 0, 0] asks the first one three times. A row that lacks one is an error row. null: all."""
    limit: int | None = Field(default=None, ge=1)
    """Read only so many of the first rows. null: all."""
    ids: Files = ()
    """Files with an id of the source on each line: only these are asked, of those that `limit` leaves."""
    sample: float | None = Field(default=None, gt=0, le=1)
    """Ask about this share of the rows that all other keys leave, chosen by their ids: a larger share has all
    rows of a smaller one. null: all."""
    sample_rows: int | None = Field(default=None, ge=1)
    """In place of `sample`: so many rows, those that come first in the order by hash of id and seed. With
    more data others may come first; then these are asked. null: all."""
    sample_seed: int = 0
    """Seed by which the share, or the rows, are chosen."""
    shard_rows: int = Field(default=512, ge=1)
    """Rows in a shard: the unit of work, of commit and of resume."""

    @model_validator(mode="before")
    @classmethod
    def _question_of_the_kind(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and tree.get("kind") in WITHOUT_PARAPHRASES:
            return {"include_question": True} | tree
        return tree

    @model_validator(mode="after")
    def _one_sample(self) -> DataConfig:
        if self.sample is not None and self.sample_rows is not None:
            raise ValueError("sample and sample_rows: a share and a number of rows. Remove one of them")
        return self

    @model_validator(mode="after")
    def _fits_into_names(self) -> DataConfig:
        if (size := len(self.name) + len(self.split)) > MAX_NAMES:
            raise ValueError(
                f"name and split: {size} characters together, at most {MAX_NAMES} can be in the names of the "
                "output's files. Shorten them"
            )
        return self

    @model_validator(mode="after")
    def _some_text(self) -> DataConfig:
        records = self.kind == "records"
        if self.kind in (*WITHOUT_PARAPHRASES, *FROM_TEMPLATES) and self.fields != Fields():
            raise ValueError(f"fields: kind {self.kind} knows its own. Remove them, or set kind: records")
        if self.kind in FROM_TEMPLATES and self.include_question:
            raise ValueError(f"include_question: the question of kind {self.kind} is its first paraphrase")
        if records and self.paraphrase_files and self.fields.id is None:
            raise ValueError("paraphrase_files: they are joined by id, but fields.id is null")
        if self.include_question or self.paraphrase_files:
            return self
        if records and self.fields.paraphrases is None:
            raise ValueError("fields.paraphrases is null: set include_question to true, or name the field")
        if self.kind in WITHOUT_PARAPHRASES:
            raise ValueError(f"kind {self.kind} has no paraphrases: include the question, or give a file")
        return self


class FewShotFields(Section):
    question: str = "question"
    """A string."""
    answers: str = "answers"
    """A list of accepted answers; the first is shown."""
    paraphrases: str | None = None
    """A list of strings: a row is also left out if the run asks one of these. See `max_paraphrases`."""


class FewShotData(SourceConfig):
    """Rows of another file or split that become the few-shots. The run asks none of them."""

    LATER = (*SourceConfig.LATER, "max_paraphrases")
    split: str = Field(default="train", pattern=_NAME)
    """The split to draw from, if `files` is a data set's folder."""
    fields: FewShotFields = FewShotFields()
    """For kind records."""
    count: int = Field(default=5, ge=1)
    """How many few-shots are drawn."""
    seed: int = 0
    """Seed of the draw."""
    max_paraphrases: int | None = Field(default=1, ge=1)
    """In how many paraphrases each few-shot is asked, the question being the first; see `few_shots`. A row
    that has fewer is asked in those. null: in all."""

    @model_validator(mode="after")
    def _has_paraphrases(self) -> FewShotData:
        if self.max_paraphrases == 1 or self.kind not in WITHOUT_TEMPLATES:
            return self
        if self.kind in WITHOUT_PARAPHRASES:
            raise ValueError(f"max_paraphrases: kind {self.kind} has no paraphrases. Remove it")
        if self.fields.paraphrases is None:
            raise ValueError("max_paraphrases: fields.paraphrases is null. Name the field that has them")
        return self
