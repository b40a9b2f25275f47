"""The parser: declared options to argparse, and recipes that are read as words."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable

from . import jobs
from .option import Group, Option

DESCRIPTION = "Train, evaluate and stream video semantic segmentation."
DEEPEST = 20  # recipes that name each other


class Parser(argparse.ArgumentParser):
    """Reads recipes too: `@file` holds words as on the command line, `#` starts a comment."""

    def __init__(self, **settings):
        super().__init__(
            prog="main.py",
            fromfile_prefix_chars="@",
            allow_abbrev=False,
            add_help=False,
            **settings,
        )
        self.depth = 0  # recipes that are being read, one named by the other

    def convert_arg_line_to_args(self, line: str) -> list[str]:
        try:
            return shlex.split(line, comments=True)
        except ValueError as error:
            self.error(f"a recipe has the line {line.strip()!r}: {error}")

    def _read_args_from_files(self, arg_strings):
        self.depth += 1
        if self.depth > DEEPEST:
            self.error("a recipe reads itself")
        try:
            return super()._read_args_from_files(arg_strings)
        except UnicodeDecodeError:
            self.error("a recipe is no text file (UTF-8)")
        finally:
            self.depth -= 1

    def error(self, message: str):
        """One line and exit code 2; argparse's own usage would be a screenful."""
        advice = "(--help shows what acts in a job, --help-all everything)"
        self.exit(2, f"{self.prog}: error: {message} {advice}\n")


def make_parser(groups: Iterable[Group]) -> Parser:
    """A parser of these groups; exactly one of the jobs is required."""
    parser = Parser(description=DESCRIPTION)
    for group in groups:
        if group.options:
            add_group(parser, group)
    return parser


def add_group(parser: Parser, group: Group) -> None:
    where = parser.add_argument_group(group.title)
    if group.title == jobs.GROUP.title:
        where = where.add_mutually_exclusive_group(required=True)
    for option in group.options:
        add_option(where, option)


def add_option(where, option: Option) -> None:
    """One option as argparse knows it."""
    if option.type is bool:
        action = argparse.BooleanOptionalAction if option.negatable else "store_true"
        where.add_argument(option.flag, action=action, default=option.default, help=option.help)
        return
    where.add_argument(
        option.flag,
        type=option.type,
        default=option.default,
        choices=option.choices,
        nargs=option.nargs,
        metavar=option.metavar,
        help=option.help,
    )
