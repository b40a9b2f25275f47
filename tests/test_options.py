"""Options: defaults by row, recipes, refusals in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import main
import options
from command import ROOT
from utils.training import schedules

BASE = ["--training", "--method", "single", "--dataset", "synthetic", "--savedir", "unused"]


def refused(argv, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        main.parse_args(argv)
    line = capsys.readouterr().err
    assert stop.value.code == 2 and line.count("\n") == 1, line
    return line


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["--savedir", "s"],
            "one of the arguments --training --eval-mode --inference --check-data",
        ),
        (["--training"], "--savedir"),
        (["--training", "--eval-mode", "--savedir", "s"], "not allowed with"),
        ([*BASE, "--bogus"], "unrecognized arguments: --bogus"),
        ([*BASE, "--num-epoch", "3"], "unrecognized arguments"),
        ([*BASE, "--method", "swin"], "invalid choice: 'swin'"),
        (
            [*BASE, "--backbone", "psp18", "--shallow-dec"],
            "--shallow-dec belongs to --backbone erf",
        ),
        ([*BASE, "--aux-weight", "0.4"], "has no auxiliary head"),
        ([*BASE, "--momentum", "0.9"], "--momentum acts with --optimizer sgd only, not with adam"),
        ([*BASE, "--lr-power", "2"], "--lr-power acts with --lr-strategy poly only"),
        (
            [*BASE, "--dataset", "camvid", "--synthetic-length", "3"],
            "--synthetic-length acts with --dataset synthetic",
        ),
        (
            [*BASE, "--val-split", "dev"],
            "--val-split dev: --dataset synthetic has train, val, test",
        ),
        ([*BASE, "--source", "x.mp4"], "--source goes with --inference"),
        ([*BASE, "--resume", "--overwrite"], "choose one"),
        ([*BASE, "--batch-size", "0"], "at least 1"),
        ([*BASE, "--lr-start", "nan"], "at least 0"),
        ([*BASE, "--random-flip", "2"], "from 0 to 1"),
        ([*BASE, "--random-scale", "2", "1"], "LOW <= HIGH"),
        ([*BASE, "--random-scale", "0.5", "2"], "add --random-crop"),
        ([*BASE, "--random-scale", "0.5", "2", "--work-size", "64", "64"], "add --random-crop"),
        ([*BASE, "--ohem", "0.7", "10.5"], "number of pixels"),
        ([*BASE, "--ohem", "0.7", "inf"], "at least 0"),
        ([*BASE, "--scales", "inf"], "at least 0"),
        ([*BASE, "--seed", "20000000000000"], "from 0 to"),
        ([*BASE, "--ohem", "2", "10"], "threshold"),
        ([*BASE, "--eval-stride", "10", "10"], "--eval-stride needs --eval-crop"),
        ([*BASE, "--scales", "0"], "positive"),
        ([*BASE, "--num-workers", "-1"], "negative"),
        (["--inference", "--savedir", "s", "--source", "-", "--gpus", "2"], "drop --gpus"),
        (["@missing.txt", *BASE], "missing.txt"),
    ],
)
def test_a_wrong_word_gets_one_line_and_exit_code_2(words, message, capsys):
    assert message in refused(words, capsys)


def test_defaults_follow_backbone_and_data_set_and_words_win():
    assert main.parse_args(BASE).optimizer == "adam"
    psp = main.parse_args([*BASE, "--backbone", "psp18"])
    assert (psp.optimizer, psp.lr_start, psp.aux_weight, psp.head_lr) == ("sgd", 0.01, 0.4, 10.0)
    assert main.parse_args([*BASE, "--backbone", "psp18", "--lr-start", "0.5"]).lr_start == 0.5
    assert main.parse_args([*BASE, "--dataset", "camvid"]).iouVal is False, (
        "CamVid's val part selects nothing"
    )
    assert main.parse_args([*BASE, "--dataset", "camvid", "--iouVal"]).iouVal is True


def test_a_recipe_is_read_with_comments_quotes_and_later_words_win(tmp_path):
    recipe = tmp_path / "recipe.txt"
    recipe.write_text(
        "# a comment\n--training --method single --backbone psp18   # another\n"
        "--weights 'my file.pth'\n--lr-start 1e-3\n"
    )
    args = main.parse_args([f"@{recipe}", "--savedir", "s", "--lr-start", "0.5"])
    assert args.backbone == "psp18" and args.weights == ["my file.pth"] and args.lr_start == 0.5
    assert args.optimizer == "sgd", "the recipe's backbone decides the defaults"


@pytest.mark.parametrize(
    "content, message",
    [
        (b"--weights 'open\n", "No closing quotation"),
        (b"\xff\xfe--training\n", "no text file"),
        (b"@{self}\n", "reads itself"),
    ],
)
def test_a_recipe_that_cannot_be_read_is_told(tmp_path, capsys, content, message):
    recipe = tmp_path / "recipe.txt"
    recipe.write_bytes(content.replace(b"{self}", str(recipe).encode()))
    assert message in refused([f"@{recipe}", *BASE], capsys)


def test_words_after_a_recipe_may_make_its_options_idle(tmp_path):
    recipe = tmp_path / "args.txt"
    recipe.write_text(options.to_recipe(main.parse_args([*BASE, "--backbone", "psp18"])))
    args = main.parse_args(
        [f"@{recipe}", "--savedir", "s", "--dataset", "camvid", "--optimizer", "adam"]
    )
    assert args.dataset == "camvid" and {"--synthetic-size", "--momentum"} <= set(args.idle)


@pytest.mark.parametrize(
    "words, idle",
    [
        (
            ["--inference", "--save-labels", "--num-epochs", "3", "--score-size", "work"],
            ["--num-epochs", "--save-labels", "--score-size"],
        ),
        (
            ["--eval-mode", "--alpha", "0.1", "--overwrite", "--random-flip", "0"],
            ["--alpha", "--overwrite", "--random-flip"],
        ),
        (
            ["--training", "--dataset", "camvid", "--val-split", "test", "--flip"],
            ["--flip", "--val-split"],
        ),
        (["--training", "--flip", "--crop-max-ratio", "0.5"], ["--crop-max-ratio"]),
        (["--training", "--iouTrain", "--num-epochs", "3"], []),
        (
            ["--training", "--no-local-correlation", "--corr-size", "9", "--shift-border", "road"],
            ["--corr-size"],
        ),
        (
            ["--eval-mode", "--baseline-mode", "--corr-size", "9", "--win-size", "4"],
            ["--corr-size", "--win-size"],
        ),
        (
            [
                "--training",
                "--method",
                "single",
                "--synthetic-past",
                "0.5",
                "--shift-border",
                "road",
            ],
            ["--shift-border", "--synthetic-past"],
        ),
    ],
)
def test_options_that_change_nothing_in_a_job_are_named(words, idle):
    assert main.parse_args([*words, "--savedir", "s"]).idle == idle


@pytest.mark.parametrize(
    "words",
    [
        BASE,
        [*BASE, "--backbone", "r50v1c", "--random-scale", "0.5", "2", "--random-crop", "64", "64"],
        [
            *BASE,
            "--dataset",
            "camvid",
            "--data-root",
            "a folder/with blanks",
            "--no-train-encoder",
            "--iouTrain",
        ],
        [
            "--eval-mode",
            "--savedir",
            "s",
            "--weights",
            "a b.pth",
            "c.pth",
            "--scales",
            "0.5",
            "1",
            "--flip",
        ],
        [
            "--inference",
            "--savedir",
            "s",
            "--weights",
            "w",
            "--source",
            "x*.png",
            "0",
            "--output",
            "labels",
        ],
    ],
)
def test_args_txt_is_a_recipe_of_the_same_run(words, tmp_path):
    args = main.parse_args(words)
    recipe = tmp_path / "args.txt"
    recipe.write_text(options.to_recipe(args))
    again = main.parse_args([f"@{recipe}", "--savedir", "s"])
    one, two = (
        {
            k: list(v) if isinstance(v, (list, tuple)) else v
            for k, v in vars(a).items()
            if k != "savedir"
        }
        for a in (args, again)
    )
    assert one == two


def test_every_option_has_help_and_a_default_somewhere():
    args = main.parse_args(BASE)
    for action in options.make_parser()._actions:
        assert action.help, action.dest
        assert action.dest == "help" or hasattr(args, action.dest)
    assert set(options.COMMON) <= {action.dest for action in options.make_parser()._actions}
    for row in (*options.METHODS.values(), *options.BACKBONES.values(), *options.DATASETS.values()):
        assert set(row.defaults) <= set(options.COMMON), "a row's option needs a common default"


def test_names_in_options_are_those_of_the_rooms():
    from datasets.class_weights import CLASS_WEIGHTS
    from models import BACKBONES, METHODS
    from models.parts.fusion import FUSIONS

    assert set(options.FUSIONS) == set(FUSIONS)
    assert options.METHODS.keys() == METHODS.keys() and options.BACKBONES.keys() == BACKBONES.keys()
    assert set(options.SCHEDULES) == set(schedules.NAMES)
    assert set(options.CLASS_WEIGHTS) == {"none", "balanced", *CLASS_WEIGHTS}


def test_help_is_instant_and_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = sys.modules['numpy'] = None; import main\n"
        "try: main.parse_args(['--help'])\nexcept SystemExit as stop: sys.exit(stop.code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--corr-size" not in done.stdout or "lma" in options.METHODS
    assert "--lr-strategy" in done.stdout


@pytest.mark.parametrize(
    "recipe", sorted(Path(ROOT, "recipes").glob("*.txt")), ids=lambda path: path.stem
)
def test_every_recipe_parses_and_says_what_it_is(recipe):
    args = main.parse_args([f"@{recipe}", "--savedir", "unused"])
    text = recipe.read_text()
    assert text.startswith("# ") and not args.idle
    assert args.training or args.weights or "add --weights" in text.lower(), (
        "what an evaluation needs is told"
    )
