"""Writes the generated blocks of the pages in docs/reference/ from the code.

    python scripts/reference.py

A key's type and default come from its dataclass, its meaning from the comment next to the field or above it. Choices
are described by the first line of their yaml, options by their parser, make targets by the comment after them.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import io
import json
import re
import sys
import tokenize
import types
import typing
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Union
from unittest import mock

from pydantic import AfterValidator
from pydantic.fields import FieldInfo

from rosa_bench import config
from rosa_bench.config import choice_files, defaults, describe, target_class
from rosa_bench.core import schema
from rosa_bench.records.record import Record
from rosa_bench.suite import plan

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "reference"
COMMANDS = ("suite", "tables", "tables.claims", "score", "decode", "export", "sync")
VALIDATED = {schema._home: "path", schema._file_name: "file name", schema._inside: "relative folder"}
SIMPLE = {bool: "true, false", int: "integer", float: "number", str: "text", dict: "mapping", type(None): "null"}
SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
LARGE = 2**31  # bounds from here on only keep numbers exact


def type_of(annotation: Any) -> str:
    """A type in words: `Annotated[int, Field(ge=1)] | None` is "integer ≥ 1 or null"."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return constrained(arguments[0], arguments[1:])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(type_of(argument) for argument in arguments)
    if origin is list:
        return f"list of {type_of(arguments[0])}"
    if dataclasses.is_dataclass(annotation):
        return annotation.__name__
    return SIMPLE.get(origin or annotation, "any value")


def constrained(annotation: Any, marks: tuple[Any, ...]) -> str:
    """A type in words with the bounds and validators that annotate it."""
    for mark in marks:
        if isinstance(mark, AfterValidator) and mark.func in VALIDATED:
            return VALIDATED[mark.func]
    bounds = [bound for mark in marks for bound in (mark.metadata if isinstance(mark, FieldInfo) else [mark])]
    shown = [
        f"{sign} {getattr(bound, name):g}"
        for bound in bounds
        for name, sign in SIGNS.items()
        if abs(getattr(bound, name, LARGE)) < LARGE
    ]
    return f"{type_of(annotation)} {', '.join(shown)}".strip()


def comments(cls: type) -> dict[str, str]:
    """The comment next to each field of a class, or next to the field that it overrides."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if "__annotations__" in vars(base) and base.__module__.startswith("rosa_bench"):
            texts |= own_comments(base)
    return texts


def own_comments(cls: type) -> dict[str, str]:
    """The comments next to the fields that a class itself declares, or on the lines above."""
    texts: dict[str, str] = {}
    name, depth, above = "", 0, []
    for token in tokenize.generate_tokens(io.StringIO(inspect.getsource(cls)).readline):
        depth += (token.type == tokenize.INDENT) - (token.type == tokenize.DEDENT)
        if depth != 1:
            continue
        if token.type == tokenize.COMMENT and token.start[1] == 4:
            above.append(token.string.lstrip("# "))
        elif token.type == tokenize.COMMENT and name in cls.__annotations__:
            texts.setdefault(name, token.string.lstrip("# "))
        elif token.type == tokenize.NAME and token.start[1] == 4:
            name = token.string
            if above:
                texts[name] = " ".join(above)
            above = []
    return texts


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return text.replace("|", "\\|")


def value_of(value: Any) -> str:
    """A default as on the command line."""
    if value == "???":
        return "required"
    if dataclasses.is_dataclass(value):
        return "its own"
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return f"`{text}`" if text else "empty"


def keys(cls: type, prefix: str, skip: tuple[str, ...] = ()) -> Iterator[str]:
    """A table of a class's keys. Raises ValueError for a field without a comment."""
    checked: Any = cls
    values, meanings = defaults(cls), comments(cls)
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    for field in dataclasses.fields(cls):
        if field.name in skip:
            continue
        if field.name not in meanings:
            raise ValueError(f"{cls.__module__}.{cls.__name__}.{field.name} has no comment that says what it means")
        default = value_of(values[field.name])
        declared = checked.__pydantic_fields__[field.name]
        kind = constrained(declared.annotation, tuple(declared.metadata))
        row = (f"`{prefix}{field.name}`", kind, default, meanings[field.name])
        yield "| " + " | ".join(map(cell, row)) + " |"


def neutral(cls: type, prefix: str) -> list[str]:
    """The keys of a class that cannot change a result."""
    marked = schema.key_marks(cls)[0]
    return [f"`{prefix}{field.name}`" for field in dataclasses.fields(cls) if field.name in marked]


def first_line(cls: type) -> str:
    """The first paragraph of a docstring as one line."""
    return " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())


def by_class(group: str) -> dict[type, list[str]]:
    """The choices of a group by the class that their yaml names, in the order of their names."""
    from omegaconf import OmegaConf

    names_by_class: dict[type, list[str]] = {}
    for name, path in choice_files(group).items():
        names_by_class.setdefault(target_class(group, OmegaConf.load(path)["_target_"]), []).append(name)
    return names_by_class


def choices(group: str, names: list[str]) -> Iterator[str]:
    """A table of choices with their descriptions."""
    yield f"| `{group}=` | |"
    yield "|---|---|"
    yield from (f"| `{name}` | {cell(describe(group, name))} |" for name in names)


def rates(cls: Any) -> str:
    """The learning rates used where `train.lr` is null, in words; empty if they depend on the options."""
    if not isinstance(rate := inspect.getattr_static(cls, "lr", None), dict):
        return ""
    return (
        f"`train.lr` is {rate['mini']:g} on the embedded models and {rate['full_size']:g} on others unless it is set."
    )


def group_section(group: str) -> Iterator[str]:
    """Choices and keys of a group; a group with several classes has a section for each."""
    classes = by_class(group)
    yield from (f"## {group}", "", first_line(config.BASES[group]), "")
    if len(classes) == 1:
        ((cls, names),) = classes.items()
        yield from [*choices(group, names), "", *keys(cls, f"{group}."), ""]
        return
    for cls, names in sorted(classes.items(), key=lambda item: item[1][0]):
        yield from (f"### {cls.__module__.rpartition('.')[2] if group == 'method' else cls.__name__}", "")
        yield from ([describe(group, names[0])] if len(names) == 1 else [first_line(cls), "", *choices(group, names)])
        if note := rates(cls) if group == "method" else "":
            yield from ("", note)
        yield from ["", *keys(cls, f"{group}."), ""] if dataclasses.fields(cls) else [""]


def configuration() -> str:
    """Every key, by group."""
    lines = ["## Run", "", "Keys without a group.", "", *keys(config.Run, "", skip=config.GROUPS), ""]
    for group in config.GROUPS:
        lines += group_section(group)
    lines += ["## suite", "", first_line(plan.Suite), "", *keys(plan.Suite, "")]
    for cls in suite_parts():
        lines += ["", f"### {cls.__name__}", "", first_line(cls), "", *keys(cls, "")]
    return "\n".join(lines)


def outside() -> str:
    """The keys that cannot change a result."""
    classes = {(cls, f"{group}.") for group in config.GROUPS for cls in by_class(group)}
    return ", ".join([*neutral(config.Run, ""), *sorted({key for pair in classes for key in neutral(*pair)})]) + "."


def suite_parts(cls: Any = plan.Suite) -> list[type]:
    """The classes that the keys of a suite refer to, each once."""
    parts: dict[type, None] = {}
    for field in cls.__pydantic_fields__.values():
        for part in classes_in(field.annotation):
            parts |= dict.fromkeys([part, *suite_parts(part)])
    return list(parts)


def classes_in(annotation: Any) -> list[type]:
    """The configuration classes in a type."""
    if dataclasses.is_dataclass(annotation):
        return [typing.cast(type, annotation)]
    return [part for argument in typing.get_args(annotation) for part in classes_in(argument)]


def parser_of(module: str) -> tuple[Any, argparse.ArgumentParser]:
    """A command's module and its parser, taken at the moment it would parse."""
    parsers: list[argparse.ArgumentParser] = []

    def take(self: argparse.ArgumentParser, *args: Any) -> None:
        parsers.append(self)
        raise SystemExit

    command = importlib.import_module(
        f"rosa_bench.{module}" + (".__main__" if module.startswith(("suite", "tables")) else "")
    )
    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", take),
        mock.patch.object(argparse.ArgumentParser, "parse_intermixed_args", take),
    ):
        try:
            command.main([])
        except SystemExit:
            return command, parsers[0]
    raise ValueError(f"rosa_bench.{module} has no parser")


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A table of a parser's arguments."""
    yield from ("| argument | meaning |", "|---|---|")
    for action in parser._actions:
        if action.dest != "help":
            value = action.metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices else "")
            value = "" if action.nargs == 0 else str(value or action.dest.upper())
            name = " ".join([*action.option_strings[-1:], value]).strip()
            meaning = (action.help or "").replace("|", "\\|")
            if "one of:" in meaning:  # a list that is on another page
                meaning = "the name of a suite"
            yield (
                f"| `{name}` | {meaning} |".replace("{a|", "{a\\|")
                if "|" not in name
                else f"| {code(name)} | {meaning} |"
            )


def code(text: str) -> str:
    """Text in code style inside a table."""
    return "`" + text.replace("|", "\\|") + "`"


def command(module: str) -> str:
    """What a command does, and its arguments."""
    module_object, parser = parser_of(module)
    text = (inspect.getdoc(module_object) or "").partition(":")[2].strip()
    return "\n".join([text[0].upper() + text[1:], "", *options(parser)])


def targets() -> str:
    """The targets of the Makefile."""
    documented = re.findall(r"^([a-z-]+):.*?## (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return "\n".join(["| target | does |", "|---|---|", *(f"| `make {name}` | {text} |" for name, text in documented)])


def fields() -> str:
    """The fields of a record."""
    meanings = comments(Record)
    rows = [f"| `{field.name}` | {meanings[field.name]} |" for field in dataclasses.fields(Record)]
    return "\n".join(["| field | meaning |", "|---|---|", *rows])


BLOCKS = {
    "configuration.md": {"keys": configuration, "outside": outside},
    "commands.md": {name: partial(command, name) for name in COMMANDS} | {"make": targets},
    "records.md": {"fields": fields},
}


def renewed(name: str) -> str:
    """A page with its generated blocks written again. Raises ValueError if it lacks one."""
    text = (PAGES / name).read_text(encoding="utf-8")
    for block, write in BLOCKS[name].items():
        begin, end = f"<!-- {block}: begin -->\n", f"<!-- {block}: end -->"
        if begin not in text or end not in text:
            raise ValueError(f"docs/reference/{name} has no block {block}")
        text = text.partition(begin)[0] + begin + "\n" + write() + "\n\n" + end + text.partition(end)[2]
    return text


def main() -> int:
    """Write the pages."""
    for name in BLOCKS:
        (PAGES / name).write_text(renewed(name), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
