"""All that is derived from the declarations of the options.

    parse(argv)                 words -> options, judged
    without_effect(args)        the options that change nothing in this run
    network(args)               what a checkpoint says of its network
    kept_by_resume(args)        what a resumed training may not change
    recipe(args)                the options as a recipe
    same_on_all_ranks(args)     what ranks must agree on

Values come, later ones winning, from: the declared defaults; the rows of the chosen data set,
backbone and method; what the weights that are to run say of their network; the words in order.
"""

from __future__ import annotations

from argparse import SUPPRESS, Namespace
from dataclasses import replace
from functools import cache
from typing import Any

from . import jobs
from .augmentation import AUGMENTATION
from .class_maps import CLASSES
from .data import DATA_OPTIONS
from .help import HELP_WORDS, print_help
from .labelling import INFERENCE, METRICS, RESULTS, VIEWS
from .mixing import MIXING
from .network import NETWORK_OPTIONS
from .optical_flow import FLOW_CACHE
from .option import SAME, Group, Option
from .parser import Parser, make_parser
from .pseudo_labels import PSEUDO_LABELS
from .rows import Backbone, Dataset, Method
from .run import DASHBOARD, RUN
from .shipped import DEFAULT, SHIPPED
from .tables import BACKBONES, DATASETS, METHODS
from .training import LOSSES, OPTIMIZATION, RECORD, TRAINED

NAMES = ("dataset", "backbone", "method")  # they decide the defaults of the others, in this order
SHALLOW = "lma-shallow"


# Which options there are


@cache
def all_groups() -> tuple[Group, ...]:
    """Every group, complete: what belongs to everybody, then what belongs to rows."""
    common = (jobs.GROUP, RUN, DASHBOARD, NETWORK_OPTIONS, DATA_OPTIONS, CLASSES)
    labelling = (VIEWS, METRICS, FLOW_CACHE, RESULTS, INFERENCE, PSEUDO_LABELS)
    training = (MIXING, OPTIMIZATION, LOSSES, TRAINED, RECORD, AUGMENTATION)
    late = (*labelling, *training)
    return (
        *(group.completed() for group in common),
        *owned_groups("method", METHODS),
        *owned_groups("backbone", BACKBONES),
        *owned_groups("dataset", DATASETS),
        *(group.completed() for group in late),
    )


def owned_groups(kind: str, rows: dict) -> list[Group]:
    """The groups that stand in rows; their options act with these rows only."""
    # A group that several rows share is one object: its identity tells who owns it.
    owners: dict[int, list[str]] = {}
    found: dict[int, Group] = {}
    for name, row in rows.items():
        for group in row.groups:
            found[id(group)] = group
            owners.setdefault(id(group), []).append(name)
    return [
        replace(group, only_with={kind: tuple(owners[key])}).completed()
        for key, group in found.items()
    ]


@cache
def all_options() -> dict[str, Option]:
    """Every option by dest."""
    return {option.dest: option for group in all_groups() for option in group.options}


# Words to options


def parse(argv: list[str], of_weights: dict[str, Any] | None = None) -> Namespace:
    """Words to options, with the defaults of the chosen rows; combinations are judged.

    of_weights: what `network` gave for the weights that are to run; the words count more.
    Prints and exits for --help, and with code 2 for what cannot be.
    """
    known = restored(of_weights or {})
    rows = chosen_rows(argv, known)
    groups = all_groups()
    if any(word in HELP_WORDS for word in argv):
        print_help(argv, groups, defaults(rows) | known)
        Parser().exit(0)
    parser = make_parser(groups)
    parser.set_defaults(**defaults(rows) | known)
    args = parser.parse_args(argv)
    fix_sizes(args)
    # What stands in a recipe may be left without effect by later words; what is typed must act.
    typed_words = [word for word in argv if not word.startswith("@")]
    derive(args, rows, typed(argv))
    reason = refusal(args, rows, typed(typed_words))
    if reason:
        parser.error(reason)
    inactive = without_effect(args)
    args.without_effect = sorted(all_options()[dest].flag for dest in typed(argv) & inactive)
    args.network = network(args)
    args.of_weights = network_words(known)
    args.resume_same = kept_by_resume(args)
    return args


def restored(of_weights: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of its network, as values of our options.

    Nothing but options of the network comes through: a file that strangers wrote chooses nothing
    more. A value that cannot be ends the run with one line.
    """
    values = {}
    for dest, value in of_weights.items():
        option = all_options().get(dest)
        if option is None or not option.network:
            continue
        try:
            values[dest] = option.restore(value)
        except ValueError as error:
            Parser().error(f"what the weights say of their network cannot be: {error}")
    return values


def chosen_rows(argv: list[str], known: dict[str, Any]) -> tuple[Dataset, Backbone, Method]:
    """The three rows that decide the defaults; wrong names are left to the full parser."""
    tables = {"dataset": DATASETS, "backbone": BACKBONES, "method": METHODS}
    parser = Parser()
    for name in NAMES:
        option = all_options()[name]
        default = known.get(name, option.default)
        parser.add_argument(option.flag, type=option.type, default=default)
    found, _ = parser.parse_known_args(argv)
    return tuple(
        tables[name].get(getattr(found, name), tables[name][all_options()[name].default])
        for name in NAMES
    )


def defaults(rows: tuple[Dataset, Backbone, Method]) -> dict[str, Any]:
    """The values of all options where no word is given."""
    dataset, backbone, method = rows
    values = {dest: option.default for dest, option in all_options().items()}
    for row in rows:
        values |= row.defaults
    values |= method.published.get((backbone.name, dataset.name), {})
    return values | {"dataset": dataset.name, "backbone": backbone.name, "method": method.name}


def fix_sizes(args: Namespace) -> None:
    """argparse gives lists; options of a fixed number of values are tuples, as their defaults."""
    for dest, option in all_options().items():
        value = getattr(args, dest)
        if isinstance(option.nargs, int) and value is not None:
            setattr(args, dest, tuple(value))


def derive(args: Namespace, rows: tuple[Dataset, Backbone, Method], given: set[str]) -> None:
    """What follows from the options and is not typed: the job, the networks' classes, offsets."""
    dataset, backbone, method = rows
    args.job = jobs.job_of(args)
    # Rooms that may not import options find their classes and modules by these.
    args.method_class = method.network
    args.backbone_class = backbone.network
    args.dataset_module = dataset.module
    args.root_variable = dataset.variable
    if args.shallow_dec and args.class_weights == "lma" and "class_weights" not in given:
        args.class_weights = SHALLOW  # published for this decoder
    if args.use_orig_res:
        args.score_size = "work"
    # What labels a video fits a size that weights bring to the shape of its frames.
    args.exact_work_size = "work_size" in given or args.job not in jobs.LABELLING
    # Whoever names a backbone has weights in mind, and has forgotten to name them.
    args.default_weights = args.inference and not args.weights and "backbone" not in given
    if args.default_weights:
        args.weights = [SHIPPED[DEFAULT].path]
    args.offsets = method.offsets(args)
    args.trained_classes = ()  # a job that runs weights finds them there
    for name, value in method.derived.items():
        setattr(args, name, value(args))


def typed(argv: list[str]) -> set[str]:
    """The options (by dest) that words name, recipes among them included."""
    parser = make_parser(all_groups())
    # Without defaults, what is left after parsing are the options that words name.
    for action in parser._actions:
        action.default = SUPPRESS
        action.required = False
    for exclusive in parser._mutually_exclusive_groups:
        exclusive.required = False
    found, _ = parser.parse_known_args(argv)
    return set(vars(found))


# Judgement


def refusal(args: Namespace, rows: tuple, given: set[str]) -> str | None:
    """Why these options cannot go together, in one line; None where they can."""
    # Sorted, so that the same words always get the same message.
    for dest in sorted(given):
        reason = misplaced(all_options()[dest], args)
        if reason:
            return reason
    refusals = [
        refuse for group in all_groups() if group.applies(args) for refuse in group.refusals
    ]
    for refuse in (*refusals, *rows[-1].refusals):
        reason = refuse(args)
        if reason:
            return reason
    return None


def misplaced(option: Option, args: Namespace) -> str | None:
    """Why a typed option cannot act."""
    for name, values in option.only_with.items():
        value = getattr(args, name)
        if value not in values:
            other = all_options()[name].flag
            return f"{option.flag} acts with {other} {' or '.join(values)} only, not with {value}"
    return None


def acts(option: Option, args: Namespace) -> bool:
    """Whether the option changes anything in this run."""
    return args.job in option.jobs and not misplaced(option, args) and option.acts_if(args)


def without_effect(args: Namespace) -> set[str]:
    """The options (by dest) that change nothing in this run."""
    return {dest for dest, option in all_options().items() if not acts(option, args)}


# What becomes of options


def values(args: Namespace) -> dict[str, Any]:
    """The options alone, by dest, as they may be written down."""
    found = {}
    for dest, option in all_options().items():
        value = getattr(args, dest)
        found[dest] = option.masked(value) if option.masked else value
    return found


def network(args: Namespace) -> dict[str, Any]:
    """The options that weights mean nothing without, by dest: checkpoints keep them."""
    found = {}
    for dest, option in all_options().items():
        value = getattr(args, dest)
        # None means the network's own default, which its constructor knows.
        if option.network and value is not None and acts(option, args):
            found[dest] = value
    return found


def network_words(known: dict[str, Any]) -> list[str]:
    """What a checkpoint said of its network, as words."""
    return [word for dest, value in known.items() for word in all_options()[dest].words(value)]


def kept_by_resume(args: Namespace) -> dict[str, Any]:
    """The options that a resumed training may not change, by flag."""
    found = {}
    for option in all_options().values():
        if option.resume == SAME and "training" in option.jobs and acts(option, args):
            found[option.flag] = getattr(args, option.dest)
    return found


def recipe(args: Namespace) -> str:
    """The options as a recipe: one a line, such that `main.py @recipe` repeats the run."""
    options = [o for o in all_options().values() if o.recipe and acts(o, args)]
    lines = [option.recipe_line(getattr(args, option.dest)) for option in options]
    return "\n".join(line for line in lines if line) + "\n"


def same_on_all_ranks(args: Namespace) -> list[str]:
    """The options on which ranks must agree: not paths, nor what suits a machine."""
    options = [
        o for o in all_options().values() if o.recipe and not o.per_machine and acts(o, args)
    ]
    lines = [option.recipe_line(getattr(args, option.dest)) for option in options]
    # It stands in no recipe, but one rank that starts anew would ruin the others' run.
    return [line for line in lines if line] + ["--resume"] * args.resume


def weights_to_run(argv: list[str]) -> list[str]:
    """The files that evaluation, inference or --benchmark will run; none for other jobs."""
    # Before all other words are judged: the files decide the defaults of these.
    parser = Parser()
    for job in ("evaluation", "inference", "benchmark"):
        parser.add_argument(jobs.JOBS[job].flag, action="store_true", dest=job)
    weights = all_options()["weights"]
    parser.add_argument(weights.flag, nargs="+", type=weights.type, default=[])
    parser.add_argument(all_options()["backbone"].flag)
    found, _ = parser.parse_known_args(argv)
    asks = any(word in HELP_WORDS for word in argv)
    if found.inference and not (found.weights or found.backbone or asks):
        return [SHIPPED[DEFAULT].path]
    if found.evaluation or found.inference or found.benchmark:
        return found.weights
    return []
