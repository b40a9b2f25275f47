"""The parser: declared options to argparse, recipes that are read as words, advice for typos."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from difflib import get_close_matches

from . import jobs, recipes
from .option import Group, Option

DESCRIPTION = "Train, evaluate and stream video semantic segmentation."
ADVICE = "(--help shows what acts in a job, --help-all everything)"


class Parser(argparse.ArgumentParser):
    """Reads recipes too, and formats every error as one line on stderr."""

    def __init__(self, **settings):
        super().__init__(
            prog="main.py",
            fromfile_prefix_chars="@",
            allow_abbrev=False,
            add_help=False,
            **settings,
        )

    def _read_args_from_files(self, arg_strings):
        try:
            return recipes.expand(arg_strings)
        except ValueError as error:
            self.error(str(error))

    def _get_values(self, action, arg_strings):
        # Lists of choices may be joined by commas, too.
        if action.nargs == "+" and action.choices:
            arg_strings = [part for word in arg_strings for part in word.split(",")]
        return super()._get_values(action, arg_strings)

    def error(self, message: str):
        """One line and exit code 2; argparse's own usage would be a screenful."""
        self.exit(2, f"{self.prog}: error: {message}{self.near_names(message)} {ADVICE}\n")

    def near_names(self, message: str) -> str:
        """What was probably meant, where a word is close to one that exists."""
        # The words of argparse's own messages; a newer Python may quote differently.
        unknown = re.search(r"unrecognized arguments: .*?(--[\w-]+)", message)
        if unknown:
            return did_you_mean(unknown[1], self._option_string_actions)
        choice = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if choice:
            return did_you_mean(choice[1], re.findall(r"[\w-]+", choice[2]))
        return ""


def did_you_mean(word: str, names: Iterable[str]) -> str:
    near = get_close_matches(word, list(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def make_parser(groups: Iterable[Group]) -> Parser:
    """A parser of these groups; exactly one of the jobs is required."""
    parser = Parser(description=DESCRIPTION)
    for group in groups:
        if group.options:
            add_group(parser, group)
    return parser


def add_group(parser: Parser, group: Group) -> None:
    where = parser.add_argument_group(group.title)
    # argparse itself says which jobs there are, and that two were named.
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
