"""An option and a group of options: declared once; options/acting.py derives everything else."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

SAME, FREE = "same", "free"  # what --resume may do with a value


def always(args: Namespace) -> bool:
    return True


@dataclass(frozen=True)
class Option:
    """One option of the command line.

    flag: as it is typed. type: text -> value (options/types.py); bool makes a switch.
    negatable: a switch that has `--no-...` too. choices, nargs, metavar: as in argparse.
    only_with: other options (by dest) and the values of theirs with which this one acts.
        Typed beside another value it is refused; in a recipe it is without effect.
    acts_if: with which other options it has an effect; without, a warning names it.
    jobs: the jobs in which it acts. network: whether weights mean nothing without its value,
        so that checkpoints keep it. resume: "same" where a resumed training may not change it.
        These three are the group's where None.
    recipe: whether it stands in args.txt. masked: what of a value may be written down.
    per_machine: whether ranks may differ in it.
    everyday: whether `--help` shows it before a job is chosen.
    """

    flag: str
    help: str
    type: Callable[[str], Any] = str
    default: Any = None
    choices: tuple[str, ...] | None = None
    nargs: int | str | None = None
    metavar: str | tuple[str, ...] | None = None
    negatable: bool = False
    only_with: dict[str, tuple[str, ...]] = field(default_factory=dict)
    acts_if: Callable[[Namespace], bool] = always
    jobs: tuple[str, ...] | None = None
    network: bool | None = None
    resume: str | None = None
    recipe: bool = True
    masked: Callable[[Any], Any] | None = None
    per_machine: bool = False
    everyday: bool = False

    def __post_init__(self):
        if self.type is bool and not self.negatable:
            # It can only be switched on. (The usual way to set a field of a frozen dataclass.)
            object.__setattr__(self, "default", False)

    @property
    def dest(self) -> str:
        """Its name in the parsed options."""
        return self.flag.removeprefix("--").replace("-", "_")

    def words(self, value: Any) -> list[str]:
        """The words that give it this value; none for None, an empty list or an unset switch."""
        if value is None:
            return []
        if self.type is bool:
            return self.switch_words(value)
        values = value if isinstance(value, (list, tuple)) else [value]
        if not values:
            return []
        # A value that begins with a dash would be read as another option.
        if self.nargs is None and str(value).startswith("-"):
            return [f"{self.flag}={value}"]
        return [self.flag, *map(str, values)]

    def switch_words(self, value: bool) -> list[str]:
        if value:
            return [self.flag]
        return [f"--no-{self.flag.removeprefix('--')}"] if self.negatable else []

    def recipe_line(self, value: Any) -> str:
        """The same as a line of a recipe."""
        if self.masked:
            value = self.masked(value)
        return " ".join(map(shlex.quote, self.words(value)))

    def restore(self, value: Any) -> Any:
        """A value from a checkpoint, judged and typed as if it had been given as words.

        ValueError where it cannot be one of this option's.
        """
        if self.type is bool:
            if not isinstance(value, bool):
                raise ValueError(f"{self.flag} is on or off, not {value!r}")
            return value
        if self.nargs is None:
            return self.restore_one(value)
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{self.flag} takes several values, not {value!r}")
        if isinstance(self.nargs, int) and len(value) != self.nargs:
            raise ValueError(f"{self.flag} takes {self.nargs} values, not {len(value)}")
        restored = [self.restore_one(item) for item in value]
        return tuple(restored) if isinstance(self.nargs, int) else restored

    def restore_one(self, value: Any) -> Any:
        # By way of its text: a file may hold 21.0 or "21" where we would write 21.
        try:
            typed = self.type(str(value))
        except Exception as error:  # argparse's own error type is no ValueError
            raise ValueError(f"{self.flag} cannot be {value!r}: {error}") from error
        if self.choices and typed not in self.choices:
            raise ValueError(f"{self.flag} cannot be {value!r}: choose {', '.join(self.choices)}")
        return typed


@dataclass(frozen=True)
class Group:
    """Options under one title. jobs, resume: those of its options that name none of their own.

    refusals: functions of the parsed options that say why a combination cannot be, or None.
    only_with: the rows (by kind: "method", ...) that own the group; empty where it is everybody's.
    """

    title: str
    options: tuple[Option, ...]
    jobs: tuple[str, ...]
    resume: str = SAME
    refusals: tuple[Callable[[Namespace], str | None], ...] = ()
    only_with: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def completed(self) -> Group:
        """The group with nothing left open in its options.

        Options that a method or a backbone owns belong to its network, unless they act in
        training alone: nobody has to remember to say so.
        """
        owned_by_network = bool({"method", "backbone"} & self.only_with.keys())
        options = tuple(self.complete(option, owned_by_network) for option in self.options)
        return replace(self, options=options)

    def complete(self, option: Option, owned_by_network: bool) -> Option:
        jobs = self.jobs if option.jobs is None else option.jobs
        network = option.network
        if network is None:
            network = owned_by_network and jobs != ("training",)
        return replace(
            option,
            jobs=jobs,
            network=network,
            resume=option.resume or self.resume,
            only_with=self.only_with | option.only_with,
        )

    def applies(self, args: Namespace) -> bool:
        """Whether the rows that own the group are chosen."""
        return all(getattr(args, kind) in names for kind, names in self.only_with.items())
