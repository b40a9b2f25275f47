"""Options: defaults by row, recipes, refusals in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import main
import options
from command import ROOT
from options.methods.lma import FUSIONS
from options.training import CLASS_WEIGHTS, SCHEDULES
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
        (["--savedir", "s"], "one of the arguments --training --eval-mode --inference"),
        (["--training"], "--savedir"),
        (["--training", "--eval-mode", "--savedir", "s"], "not allowed with"),
        ([*BASE, "--bogus"], "unrecognized arguments: --bogus"),
        ([*BASE, "--num-epoch", "3"], "unrecognized arguments"),
        ([*BASE, "--num-epoch", "3"], "did you mean --num-epochs?"),
        ([*BASE, "--method", "swin"], "invalid choice: 'swin'"),
        ([*BASE, "--method", "singel"], "did you mean single?"),
        ([*BASE, "--photometric", "frames"], "did you mean frame?"),
        (["@recipes/quikstart.txt", *BASE], "did you mean @recipes/quickstart.txt?"),
        (
            [*BASE, "--backbone", "psp18", "--shallow-dec"],
            "--shallow-dec acts with --backbone erf only, not with psp18",
        ),
        ([*BASE, "--aux-weight", "0.4"], "has no auxiliary head"),
        ([*BASE, "--corr-size", "9"], "--corr-size acts with --method lma only, not with single"),
        ([*BASE, "--method", "lma", "--corr-size", "8"], "expected an odd number"),
        ([*BASE, "--method", "lma", "--win-size", "1"], "(2), got 1"),
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
        ([*BASE, "--random-scale", "0", "1"], "above 0"),
        ([*BASE, "--random-scale", "0.5", "2"], "add --random-crop"),
        ([*BASE, "--random-scale", "0.5", "2", "--work-size", "64", "64"], "add --random-crop"),
        ([*BASE, "--ohem", "0.7", "10.5"], "number of pixels"),
        ([*BASE, "--ohem", "0.7", "inf"], "at least 0"),
        ([*BASE, "--scales", "inf"], "positive number"),
        ([*BASE, "--seed", "20000000000000"], "from 0 to"),
        ([*BASE, "--ohem", "2", "10"], "threshold"),
        ([*BASE, "--eval-stride", "10", "10"], "--eval-stride needs --eval-crop"),
        ([*BASE, "--scales", "0"], "positive"),
        ([*BASE, "--num-workers", "-1"], "at least 0, got -1"),
        ([*BASE, "--num-workers", "1000"], "1000 would start as many processes: 256 at most"),
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
    camvid = main.parse_args([*BASE, "--dataset", "camvid"])
    assert camvid.iouVal is False, "CamVid's val part selects nothing"
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
        (b"--flip\n--weights 'open\n", 'line 2 ("--weights \'open"): No closing quotation'),
        (b"\xff\xfe--training\n", "no text file"),
        (b"--flip\n--data-root M\xfcller\n", "line 2: this is no text file in UTF-8"),
        (b"@{self}\n", "reads itself"),
    ],
)
def test_a_recipe_that_cannot_be_read_is_told(tmp_path, capsys, content, message):
    recipe = tmp_path / "recipe.txt"
    recipe.write_bytes(content.replace(b"{self}", str(recipe).encode()))
    assert message in refused([f"@{recipe}", *BASE], capsys)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_recipe_from_another_system_is_read(tmp_path, encoding, newline):
    recipe = tmp_path / "recipe.txt"
    text = "# für alle\n--training --data-root Müller\n--dataset camvid\n"
    recipe.write_bytes(text.replace("\n", newline).encode(encoding))
    args = main.parse_args([f"@{recipe}", "--savedir", "s"])
    assert (args.data_root, args.dataset) == ("Müller", "camvid")


def test_words_after_a_recipe_may_leave_its_options_without_effect(tmp_path):
    recipe = tmp_path / "args.txt"
    recipe.write_text(options.recipe(main.parse_args([*BASE, "--backbone", "psp18"])))
    words = [f"@{recipe}", "--savedir", "s", "--dataset", "camvid", "--optimizer", "adam"]
    args = main.parse_args(words)
    assert args.dataset == "camvid"
    assert {"--synthetic-size", "--momentum"} <= set(args.without_effect)


@pytest.mark.parametrize(
    "words, named",
    [
        (
            ["--inference", "--save-labels", "--num-epochs", "3", "--score-size", "work"],
            ["--num-epochs", "--save-labels", "--score-size"],
        ),
        (
            ["--benchmark", "--pictures", "0", "--overwrite", "--random-flip", "0"],
            ["--overwrite", "--pictures", "--random-flip"],
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
            "--training --method single --synthetic-past 0.5 --shift-border road".split(),
            ["--shift-border", "--synthetic-past"],
        ),
    ],
)
def test_options_that_change_nothing_in_a_job_are_named(words, named):
    assert main.parse_args([*words, "--savedir", "s"]).without_effect == named


@pytest.mark.parametrize(
    "words",
    [
        BASE,
        [*BASE, *"--backbone r50v1c --random-scale 0.5 2 --random-crop 64 64".split()],
        [*BASE, *"--dataset camvid --no-train-encoder --iouTrain --data-root".split(), "a b/c"],
        "--eval-mode --savedir s --weights a.pth c.pth --scales 0.5 1 --flip".split(),
        "--inference --savedir s --weights w --source x*.png 0 --output labels".split(),
    ],
)
def test_args_txt_is_a_recipe_of_the_same_run(words, tmp_path):
    args = main.parse_args(words)
    recipe = tmp_path / "args.txt"
    recipe.write_text(options.recipe(args))
    again = main.parse_args([f"@{recipe}", "--savedir", "s"])
    assert vars(args) | {"savedir": "s"} == vars(again)


def test_every_option_has_help_and_rows_set_only_options_that_are_declared():
    declared = options.all_options()
    args = main.parse_args(BASE)
    for dest, option in declared.items():
        assert option.help and hasattr(args, dest), dest
    for table in (options.METHODS, options.BACKBONES, options.DATASETS):
        for row in table.values():
            assert row.defaults.keys() <= declared.keys()
    for row in options.METHODS.values():
        for published in row.published.values():
            assert published.keys() <= declared.keys()


def test_names_in_options_are_those_of_the_rooms():
    from datasets.class_weights import CLASS_WEIGHTS as PUBLISHED
    from models import find
    from models.parts.fusion import FUSIONS as BUILT

    assert set(FUSIONS) == set(BUILT)
    assert set(SCHEDULES) == set(schedules.NAMES)
    assert set(CLASS_WEIGHTS) == {"none", "balanced", *PUBLISHED}
    for row in (*options.METHODS.values(), *options.BACKBONES.values()):
        assert hasattr(find(row.network), "from_args"), row.name


def help_text(*words) -> str:
    """What --help prints, in a process that has neither torch nor numpy."""
    code = (
        "import sys; sys.modules['torch'] = sys.modules['numpy'] = None; import main\n"
        f"try: main.main({list(words)!r})\n"
        "except SystemExit as stop: sys.exit(stop.code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_needs_no_torch_and_shows_what_acts_in_the_chosen_job():
    short = help_text("--help")
    assert "--training" in short and "--savedir" in short and "LMANet" in short
    assert "--lr-strategy" not in short, "not of everyday use"
    training = help_text("--training", "--method", "tma", "--help")
    assert "--lr-strategy" in training and "--key-channels" in training
    assert "--corr-size" not in training and "--alpha" not in training
    assert "(default: 215)" in training, "the defaults are those of the chosen method"
    inference = help_text("--inference", "-h")
    assert "--alpha" in inference and "--corr-size" in inference
    assert "--lr-strategy" not in inference


def test_help_all_shows_every_option():
    text = help_text("--help-all")
    for option in options.all_options().values():
        assert option.flag in text


@pytest.mark.parametrize(
    "recipe", sorted(Path(ROOT, "recipes").glob("*.txt")), ids=lambda path: path.stem
)
def test_every_recipe_parses_and_says_what_it_is(recipe):
    args = main.parse_args([f"@{recipe}", "--savedir", "unused"])
    text = recipe.read_text()
    assert text.startswith("# ") and not args.without_effect
    told = "add --weights" in text.lower()
    assert args.training or args.weights or told, "what an evaluation needs is told"


def test_psp_stands_for_psp101_with_its_defaults():
    short = main.parse_args([*BASE, "--backbone", "psp"])
    long = main.parse_args([*BASE, "--backbone", "psp101"])
    assert vars(short) == vars(long) and short.backbone == "psp101"
