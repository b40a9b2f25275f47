"""Laws that hold for every option, those of a new method included."""

from __future__ import annotations

import pytest

import main
import options
from options import acting
from options.jobs import JOBS
from options.keyframes import KEYS
from options.mixing import ExtraData
from options.optical_flow import FLOW
from options.option import SAME, Option
from utils import checkpoint
from utils.training.training_state import require_same_run

DECLARED = options.all_options()
JOB_DESTS = {option.dest for option in JOBS.values()}
# Neither chosen by a word of their own nor part of a recipe.
OUTSIDE = JOB_DESTS | {"savedir", "resume", "overwrite"}
# Values that a type takes and that are no default; by name of the type.
SAMPLES = {
    "frame_rate": 12.5,
    "positive": 7,
    "natural": 5,
    "workers": 3,
    "seed": 11,
    "odd": 9,
    "window": 8,
    "share": 0.375,
    "milliseconds": 62.5,
    "rate": 0.0625,
    "scale": 0.75,
    "path": "some folder/it's.pth",
    "str": "a b",
}
# Where any value of the type would be refused, or beside which others one acts.
SPECIAL = {
    "ohem": (0.5, 1000.0),
    "random_scale": (0.5, 1.5),
    "work_size": (64, 128),
    "random_crop": (64, 128),
    "train_split": "val",
    "val_split": "test",
    "weights": ["a b.pth", "c.pth"],
    "source_split": "val",
    "source": ["x y.mp4", "0"],
    "scales": [0.5, 1.25],
    "output": ["labels", "side-by-side"],
    "shift_border": "road",
    "coarse_map": "camvid-to-groups",
    "show": ["traffic light", "car"],
    "model_struct": "aux_mem_loss",
    "key_policy": "error",
    "multi_step": [1, 3],
    "propagate": "warp",
    "neighbours": 2,
    "metrics": ["miou", "tc"],
    "tc_modes": ["nearest", "etc"],
    "neighbour_offsets": [-1, 4],
    "extra_data": [ExtraData("folder", "a b", 0.5, "map.txt"), ExtraData("camvid", "c", None)],
    "offsets": (-4, -2),
}
TEACHER = ["--teacher-backbone", "psp18", "--teacher-weights", "w"]
BESIDE = {
    "eval_stride": ["--eval-crop", "7", "7"],
    "crop_max_ratio": ["--random-crop", "64", "64"],
    "random_scale": ["--random-crop", "64", "64"],
    "shift_border": ["--random-shift", "2"],
    "aux_weight": ["--backbone", "psp18"],
    "score_size": ["--work-size", "64", "64"],
    "use_orig_res": ["--work-size", "64", "64"],
    "correspondence_loss": ["--dataset", "synthetic"],
    "baseline_mode": ["--train-encoder"],
    "server": ["--visualize"],
    "port": ["--visualize"],
    "explore": ["--visualize", "--source", "x.mp4"],
    "memory_strategy": ["--win-size=7"],
    "min_confidence": ["--output", "labels"],
    "coarse_labels": ["--output", "labels", "--coarse-map", "x.txt"],
    "tc_modes": ["--metrics", "tc"],
    "latency_ms": ["--metrics", "latency"],
    "arrival_rate": ["--metrics", "latency"],
    "coarse_map": ["--output", "labels", "--coarse-labels", "x"],
    "key_threshold": ["--key-policy", "motion"],
    "key_budget": ["--key-policy", "budget", "--key-budget", "5"],
    "kd_temperature": ["--kd-weight", "1", *TEACHER],
    "pairwise_norms": ["--pairwise-weight", "1", *TEACHER],
    "pairwise_pool": ["--self-weight", "1", *TEACHER],
    "kd_weight": TEACHER,
    "pairwise_weight": TEACHER,
    "self_weight": TEACHER,
    "multi_frame_weight": TEACHER,
    "teacher_backbone": ["--kd-weight", "1", "--teacher-weights", "w"],
    "teacher_weights": ["--kd-weight", "1", "--teacher-backbone", "psp18"],
    "key_longest": ["--key-policy", "motion"],
    "compare_with": ["--output", "split-screen"],
    "flow_cache": ["--method", "smooth"],
    "flow_cache_format": ["--method", "flow", "--flow", "dis", "--flow-cache", "x"],
}
# ETC owns them too, and needs no flow once it is trained.
ALWAYS_WITH_FLOW = {option.dest for option in FLOW.options}
# Owned by methods, and no part of their weights: which frames are key frames, and their scale;
# which frames are scored.
SCHEDULE = {option.dest for option in KEYS.options} | {"eval_scale", "first_frames"}


def sample(option: Option):
    """A value that is not the option's default."""
    if option.dest in SPECIAL:
        return SPECIAL[option.dest]
    if option.type is bool:
        return not option.default
    if option.choices:
        return next(choice for choice in option.choices[::-1] if choice != option.default)
    value = SAMPLES[option.type.__name__]
    return tuple([value] * option.nargs) if isinstance(option.nargs, int) else value


def words_for(option: Option) -> list[str]:
    """A run in which the option acts, without the option itself."""
    job = next(job for job in JOBS if job in option.jobs)
    words = JOBS[job].words("save/x" if job == "replay" else True)
    needs = {"method": ("lma",), "backbone": ("erf",), "dataset": ("synthetic",)} | option.only_with
    if option.dest == "num_workers":
        needs["method"] = ("single",)
    if option.dest in ALWAYS_WITH_FLOW:
        needs["method"] = ("smooth",)
    if needs["method"] == ("mrcfa",):
        needs["backbone"] = ("mit_b0",)
    for dest, values in needs.items():
        if dest != option.dest:
            words += DECLARED[dest].words(values[0])
    return [*words, "--savedir", "unused", *BESIDE.get(option.dest, [])]


@pytest.fixture(params=sorted(DECLARED.keys() - OUTSIDE))
def option(request) -> Option:
    return DECLARED[request.param]


def test_words_become_the_value_and_the_value_becomes_words(option):
    value = sample(option)
    args = main.parse_args([*words_for(option), *option.words(value)])
    assert getattr(args, option.dest) == value
    assert option.flag not in args.without_effect, (
        "it acts in the run that the test has made for it"
    )


def test_the_recipe_of_a_run_repeats_it(option, tmp_path):
    value = sample(option)
    args = main.parse_args([*words_for(option), *option.words(value)])
    path = tmp_path / "args.txt"
    path.write_text(options.recipe(args))
    again = main.parse_args([f"@{path}", "--savedir", "unused"])
    if option.recipe:
        assert getattr(again, option.dest) == value
        assert options.recipe(again) == options.recipe(args)
    else:
        assert option.flag not in path.read_text()


def test_what_belongs_to_the_network_comes_back_from_a_checkpoint(option, tmp_path):
    value = sample(option)
    args = main.parse_args([*words_for(option), *option.words(value)])
    path = tmp_path / "w.pth"
    checkpoint.save(path, {"network": args.network})
    stored = checkpoint.network_of([str(path)])
    assert (option.dest in stored) == option.network
    if option.network:
        run = ["--eval-mode", "--savedir", "unused"]
        assert getattr(main.parse_args(run, stored), option.dest) == value
        assert main.parse_args(run, stored).network == args.network


def test_a_resume_with_another_value_is_refused_by_name(option, tmp_path):
    if "training" not in option.jobs:
        assert option.resume in ("same", "free")
        return
    words = words_for(option)
    before = main.parse_args([*words, *option.words(sample(option))])
    path = tmp_path / "checkpoint.pth.tar"
    checkpoint.save(path, {"fixed": before.resume_same})
    stored = checkpoint.read(path)["fixed"]
    require_same_run(path, stored, before.resume_same)
    after = main.parse_args([*words, *other_words(option)])
    if option.resume == SAME:
        with pytest.raises(ValueError, match="was trained with --") as error:
            require_same_run(path, stored, after.resume_same)
        assert option.flag in str(error.value) or option.dest in CHANGES_OTHERS
    else:
        require_same_run(path, stored, after.resume_same)


# Other defaults follow from these three; the first of those that differ is named.
CHANGES_OTHERS = {"method", "backbone", "dataset"}


def other_words(option: Option) -> list[str]:
    """Words that give another value: the default, where it can be."""
    if option.dest in CHANGES_OTHERS:
        return option.words(
            {"method": "lma", "backbone": "erf", "dataset": "synthetic"}[option.dest]
        )
    # Nothing trains without a teacher once its losses are asked for.
    if option.dest.startswith("teacher"):
        return option.words("erf")
    return option.words(option.default)


def test_the_test_knows_a_value_for_every_option():
    for dest in DECLARED.keys() - OUTSIDE:
        assert sample(DECLARED[dest]) != DECLARED[dest].default, dest


def test_options_of_a_row_belong_to_the_network_unless_they_act_in_training_alone():
    for group in acting.all_groups():
        for option in group.options:
            owned = {"method", "backbone"} & option.only_with.keys()
            # Where files lie on this machine is no property of a network.
            if owned and option.jobs != ("training",) and not option.per_machine:
                assert option.network == (option.dest not in SCHEDULE), option.flag


def test_switches_that_a_row_turns_on_can_be_turned_off():
    for table in (options.METHODS, options.BACKBONES, options.DATASETS):
        for row in table.values():
            for dest, value in row.defaults.items():
                if value is True:
                    assert DECLARED[dest].negatable, dest
