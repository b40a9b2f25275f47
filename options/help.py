"""--help: what acts for the chosen job, method, backbone and data set; --help-all: everything."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from . import jobs
from .option import Group, Option
from .parser import Parser, make_parser
from .tables import BACKBONES, DATASETS, METHODS

HELP_WORDS = ("-h", "--help", "--help-all")
TABLES = {"method": METHODS, "backbone": BACKBONES, "dataset": DATASETS}
WIDEST = 100
USAGE = "python main.py JOB --savedir FOLDER [options] [@recipe]"


def print_help(argv: list[str], groups: Iterable[Group], values: dict[str, Any]) -> None:
    """The help that these words ask for. values: the defaults of the chosen rows."""
    chosen = choose(argv)
    everything = "--help-all" in argv
    # Lines of help read badly when they are as wide as a large screen.
    width = min(shutil.get_terminal_size().columns, WIDEST)
    shown = [visible(group, chosen, everything, values) for group in groups]
    parser = make_parser(group for group in shown if group.options)
    parser.formatter_class = partial(
        argparse.RawDescriptionHelpFormatter, width=width, max_help_position=28
    )
    parser.usage = USAGE
    parser.epilog = "\n\n".join([*tables(width), closing(chosen, values, everything, width)])
    parser.print_help()


def choose(argv: list[str]) -> dict[str, Any]:
    """The job that words choose, under "job", as far as they do."""
    parser = Parser()
    for job, option in jobs.JOBS.items():
        # A job with a value (--replay) has hardly any options to show.
        if option.type is bool:
            parser.add_argument(
                option.flag, action="store_const", const=job, dest="job", default=argparse.SUPPRESS
            )
    words = [word for word in argv if word not in HELP_WORDS]
    found, _ = parser.parse_known_args(words)
    return vars(found)


def visible(group: Group, chosen: dict, everything: bool, values: dict[str, Any]) -> Group:
    """The group with the options that help is to show, each with its default here."""
    options = [option for option in group.options if everything or shows(option, chosen, values)]
    return replace(
        group, options=tuple(with_default(option, values[option.dest]) for option in options)
    )


# An option that could only be refused or ignored is not worth a line.
def shows(option: Option, chosen: dict, values: dict[str, Any]) -> bool:
    """Whether short help shows an option: it acts in the job, or is of everyday use without one."""
    if "job" not in chosen:
        return option.everyday
    if option in jobs.JOBS.values() or chosen["job"] not in option.jobs:
        return False
    owners = {name: names for name, names in option.only_with.items() if name in TABLES}
    return all(values[name] in names for name, names in owners.items())


def with_default(option: Option, value: Any) -> Option:
    """The option whose help says its default, where there is one to say."""
    words = option.words(value)
    if not words:
        return option
    text = words[0] if option.type is bool else " ".join(words[1:])
    return replace(option, help=f"{option.help} (default: {text})")


def tables(width: int) -> list[str]:
    """The rows to choose from."""
    found = []
    for name, rows in TABLES.items():
        lines = [f"--{name}:"]
        for row in rows.values():
            first = f"  {row.name:<14}"
            lines.append(
                textwrap.fill(row.what, width, initial_indent=first, subsequent_indent=" " * 16)
            )
        found.append("\n".join(lines))
    return found


def closing(chosen: dict, values: dict[str, Any], everything: bool, width: int) -> str:
    """What the defaults belong to, and how to see more."""
    text = (
        f"Defaults are those of --method {values['method']}, --backbone {values['backbone']}, "
        f"--dataset {values['dataset']}; name others beside --help to see theirs. "
    )
    if not everything and chosen:
        text += "Shown are the options that act in this job; --help-all shows all."
    elif not everything:
        text += (
            "Shown are the options of everyday use. Add a job to see all that act in it: "
            "python main.py --training --method tma --help. Or use --help-all."
        )
    return textwrap.fill(text, width)
