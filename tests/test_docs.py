"""README.md and docs/*.md name only what exists, and their Python runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from PIL import Image

import options
from command import ROOT, perform
from datasets import synthetic
from pages import DOCS, OTHERS, PAGES, README, blocks, name_of
from utils.metrics import DEFINITIONS
from utils.output.video import VideoWriter

# Options of programs other than main.py, and help.
FOREIGN = {"--dist", "--files-from", "--help", "--help-all"}
# Files that only a run, a user or a publisher has.
ABSENT = re.compile(
    r"trained_models/(?:lmanet_\w+_best|erfnet_pretrained|tmanet_\w+|resnet\S+|swiftnet_\w+|"
    r"swnet_\w+|espnetv2\S+|mrcfa_\w+|mit_\w+)"
)
# What may be longer than a line: the commands that .ci/run takes from the README.
LONG = "PIP_CONSTRAINT="


def of_every(pages):
    return pytest.mark.parametrize("page", pages, ids=name_of)


@of_every(PAGES)
def test_options_on_a_page_exist(page):
    text = page.read_text()
    for script, rest in re.findall(r"(benchmarks/\w+\.py)([^`\n]*)", text):
        known = set(re.findall(r"--[a-z][a-z-]+", (ROOT / script).read_text()))
        named = set(re.findall(r"--[a-z][a-z-]+", rest))
        assert named <= known, f"{script} has no {named - known}"
    text = re.sub(r"benchmarks/\w+\.py[^`\n]*", "", text)
    named = set(re.findall(r"--[a-z][A-Za-z-]+", text))
    known = {"--help", "--help-all"}
    for option in options.all_options().values():
        known |= {option.flag, option.flag.replace("--", "--no-", 1)}
    assert named <= known | FOREIGN, named - known


@of_every([*PAGES, *OTHERS])
def test_files_on_a_page_exist(page):
    text = page.read_text()
    rooms = "recipes|benchmarks|docs|tests|models|datasets|utils|trained_models"
    for name in re.findall(rf"(?<![\w/.])((?:{rooms})/[\w./*-]+\.\w+)", text):
        if not ABSENT.match(name) and "NAME" not in name:
            assert list(ROOT.glob(name)), f"{name} does not exist"


@of_every([*PAGES, *OTHERS])
def test_recipes_on_a_page_exist(page):
    for name in re.findall(r"\b((?:lma|tma|single|etc)_\w+\.txt)", page.read_text()):
        assert (ROOT / "recipes" / name).exists(), name


@of_every([*PAGES, *OTHERS, ROOT / "CONTRIBUTING.md"])
def test_links_on_a_page_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)", page.read_text()):
        other = (page.parent / target).resolve() if target else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), f"{target} has no heading #{anchor}"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@of_every([*PAGES, *OTHERS])
def test_lines_are_short(page):
    for line in page.read_text().splitlines():
        width = 120 if line.startswith("|") else 100
        assert len(line) <= width or line.startswith(LONG), line


def test_the_readme_leads_to_every_page():
    text = README.read_text()
    assert all(f"]({name_of(page)})" in text for page in DOCS)


def test_the_readme_names_every_method_backbone_and_data_set():
    text = README.read_text()
    for table in (options.METHODS, options.BACKBONES, options.DATASETS):
        missing = [name for name in table if not re.search(rf"[` ]{name}`", text)]
        assert not missing


@pytest.mark.parametrize("name", DEFINITIONS)
def test_every_metric_is_on_the_page_of_metrics_as_the_report_prints_it(name):
    words = " ".join((ROOT / "docs" / "metrics.md").read_text().split())
    assert f"- **{name}**: " in words, f"docs/metrics.md has no entry of {name}"
    expected = " ".join(DEFINITIONS[name].split())
    assert f"- **{name}**: {expected}" in words, f"docs/metrics.md must say: {expected}"


def test_the_page_of_metrics_has_no_entry_of_another():
    text = (ROOT / "docs" / "metrics.md").read_text()
    assert set(re.findall(r"^- \*\*(\w+)\*\*: ", text, re.MULTILINE)) == set(DEFINITIONS)


def test_the_python_on_its_page_labels_a_video_as_the_command_line_does(tmp_path, monkeypatch):
    (tmp_path / "trained_models").symlink_to(ROOT / "trained_models")
    monkeypatch.chdir(tmp_path)
    (video,) = synthetic.videos("test", 1, 5, (64, 128))
    with VideoWriter(tmp_path / "drive.mp4", 10) as writer:
        for i in range(len(video)):
            writer.write(video.frame(i))
    first, second = blocks(ROOT / "docs" / "python.md", "python")
    names: dict = {}
    exec(compile(first, "docs/python.md", "exec"), names)
    command = "--inference --source drive.mp4 --output labels --device cpu --threads 1"
    perform(*command.split(), "--weights", names["weights"], "--savedir", "save")
    written = sorted((tmp_path / "save" / "drive_labels").glob("*.png"))
    assert len(written) == len(names["predictions"]) == 5
    for file, prediction in zip(written, names["predictions"], strict=True):
        stored = torch.frombuffer(bytearray(Image.open(file).tobytes()), dtype=torch.uint8)
        # Batch norm is folded there, which may round differently.
        assert (stored.view(64, 128) == prediction).float().mean() > 0.999
    exec(compile(second, "docs/python.md", "exec"), names)
    assert names["scores"].shape == (1, 12, 64, 128)
