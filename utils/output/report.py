"""What an evaluation leaves behind: results.json for programs, results.txt for people.

    results = {"metrics": {...}, "options": {...}, "environment": environment(), ...}
    write_results(savedir, results, class_names, definitions=metrics.DEFINITIONS)

`metrics` holds what the metrics' compute() gave: numbers, per-class lists, and one dict per video
metric under its name. Every name directly below `metrics` must have a definition: a number without
one is refused.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ..files import write_text

WIDTH = 100  # of results.txt, where lines are wrapped
IN_TABLE = {"IoU", "recall", "label_share"}  # metrics with a value per class
# What explains a result and is none: it comes last.
LATE = ("options", "environment")


def write_results(
    folder: Path, results: dict, class_names: Sequence[str], *, definitions: dict[str, str]
) -> None:
    """Write results.json and results.txt into `folder`; each is replaced as a whole or not at all.

    results["metrics"] as in the head of this file; all other entries are written as they are given
    (tensors, arrays, paths become plain values, nan becomes null). ValueError: a metric without
    definition, or not one IoU per class.
    """
    metrics = results.get("metrics", {})
    # A number without a definition is worse than none.
    undefined = [name for name in metrics if name not in definitions]
    if undefined:
        raise ValueError(
            f"no definition of {', '.join(undefined)}: add a line to the definitions of the report"
        )
    used = {name: definitions[name] for name in metrics}
    warnings = degenerate(metrics)
    whole = {**results, "classes": list(class_names), "definitions": used, "warnings": warnings}
    text = json.dumps(plain(whole), indent=2, allow_nan=False) + "\n"
    table = results_text(plain(results), class_names, used, warnings)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "results.json", text)
    write_text(folder / "results.txt", table)


def degenerate(metrics: Mapping) -> list[str]:
    """One sentence per video metric that saw predictions which never change.

    Consistency rewards these.
    """
    found = []
    for name, value in metrics.items():
        if not isinstance(value, Mapping):
            continue
        for kind in ("videos", "pairs"):
            count = value.get(f"constant_{kind}")
            if count:
                found.append(
                    f"degenerate: the prediction is constant in {count} of {value[kind]} {kind}; "
                    f"do not trust {name}"
                )
    return found


def results_text(
    results: dict,
    class_names: Sequence[str],
    definitions: dict[str, str],
    warnings: Sequence[str] = (),
) -> str:
    """The contents of results.txt, of plain values.

    Per-class table, numbers, other results; then definitions; options and environment last.
    """
    metrics = results.get("metrics", {})
    table = ""
    if "IoU" in metrics:
        columns = (metrics.get("recall"), metrics.get("label_share"))
        table = class_table(class_names, metrics["IoU"], *columns)
    numbers = {name: value for name, value in metrics.items() if name not in IN_TABLE}
    parts = [table, "\n".join(warnings), _lines(numbers, len(class_names))]
    others = [name for name in results if name != "metrics" and name not in LATE]
    parts += [_section(name, results[name]) for name in others]
    parts.append(_definitions(definitions))
    parts += [_section(name, results[name]) for name in LATE if name in results]
    return "\n\n".join(part for part in parts if part) + "\n"


def class_table(
    names: Sequence[str],
    iou: Sequence[float | None],
    recall: Sequence[float | None] | None = None,
    label_share: Sequence[float | None] | None = None,
) -> str:
    """Lines of aligned percentages, one class each, and the means.

    "-" where a class has no value (None or nan).
    """
    asked = {"IoU %": iou, "recall %": recall, "labels %": label_share}
    columns = {title: values for title, values in asked.items() if values is not None}
    for title, values in columns.items():
        if len(values) != len(names):
            raise ValueError(
                f"{title.removesuffix(' %')} has {len(values)} values for {len(names)} class names"
            )
    means = [_percent(_mean(values)) for values in columns.values()]
    if label_share is not None:
        means[-1] = ""  # shares add up to 1: their mean says nothing
    rows = [["class", *columns], *([name] for name in names), ["mean", *means]]
    for values in columns.values():
        for row, value in zip(rows[1:-1], values, strict=True):
            row.append(_percent(value))
    # The column of names is as wide as the longest name.
    first = max(len(row[0]) for row in rows)
    lines = [f"{row[0]:<{first}}" + "".join(f"{cell:>10}" for cell in row[1:]) for row in rows]
    rule = "-" * len(lines[0])
    return "\n".join(line.rstrip() for line in (lines[0], rule, *lines[1:-1], rule, lines[-1]))


def _percent(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return f"{100 * value:.2f}"


def _mean(values: Sequence[float | None]) -> float | None:
    """Of the values that there are."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    if not known:
        return None
    return sum(known) / len(known)


def _section(name: str, value) -> str:
    """One entry of the results under its name."""
    values = value if isinstance(value, Mapping) else {name: value}
    return f"{name}\n{_lines(values, indent='  ')}"


def _definitions(definitions: dict[str, str]) -> str:
    lines = ["What the numbers are"]
    for name, text in definitions.items():
        lines.append(
            textwrap.fill(f"{name}: {text}", WIDTH, initial_indent="  ", subsequent_indent="      ")
        )
    return "\n".join(lines)


def _lines(values: Mapping, per_class: int | None = None, indent: str = "") -> str:
    """Aligned "name value" lines; dicts indented below their name.

    Lists over the classes are left to results.json.
    """
    # Values begin in one column.
    width = max((len(str(name)) for name in values), default=0)
    lines = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{name}", _lines(value, per_class, indent + "  ")]
        elif not (isinstance(value, list) and len(value) == per_class):
            lines.append(f"{indent}{name:<{width}}  {_word(value)}".rstrip())
    return "\n".join(lines)


def _word(value) -> str:
    """A plain value for people."""
    if isinstance(value, list):
        return " ".join(_word(item) for item in value) or "none"
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def plain(value):
    """The same in JSON's types.

    Arrays and tensors become lists, paths text, nan and infinity None.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (Path, torch.device, torch.dtype)):
        return str(value)
    if isinstance(value, float):
        # JSON has no word for nan and infinity
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise ValueError(
        f"results cannot hold a {type(value).__name__}: give numbers, text, lists and dicts of them"
    )


def environment() -> dict:
    """Where this runs, in plain values without paths.

    Versions, processor, threads, GPUs, the tool's git commit.
    """
    gpus = range(torch.cuda.device_count())  # 0 where there is none
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cuda": torch.version.cuda,
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in gpus],
        "commit": _commit(Path(__file__).resolve().parents[2]),
    }


def _cpu_model() -> str:
    """The processor's name; Linux keeps it where `platform` does not look."""
    information = Path("/proc/cpuinfo")
    lines = []
    if information.is_file():
        lines = information.read_text().splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _commit(root: Path) -> str | None:
    """The commit checked out at `root`, with "-dirty" if tracked files differ.

    None where `root` is no checkout.
    """
    # A repository that happens to surround the tool is not meant.
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), *"describe --always --dirty --abbrev=40 --exclude=*".split()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
