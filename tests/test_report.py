"""results.json and results.txt: complete, readable again, whole or absent."""

import json
import re
import resource
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.metrics import DEFINITIONS, ConfusionMatrix, TemporalConsistency, VideoConsistency
from utils.output import report
from utils.output.report import class_table, environment, plain, write_results

NAMES = ["road", "traffic light", "person", "train"]


def evaluation(constant=False):
    """Everything an evaluation hands over: four classes, the last never seen."""
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 3, (1, 8, 8)), 9, 0)
    predictions = (
        np.zeros_like(labels) if constant else np.where(rng.random(labels.shape) < 0.9, labels, 0)
    )
    matrix, vc, tc = ConfusionMatrix(4), VideoConsistency(8), TemporalConsistency(4)
    matrix.update(labels, predictions)
    vc.update(labels, predictions)
    tc.update(predictions[0], predictions[1], np.zeros((2, 8, 8), np.float32))
    return {
        "metrics": matrix.compute() | {vc.name: vc.compute(), tc.name: tc.compute()},
        "options": {
            "savedir": Path("save/run"),
            "work_size": (512, 1024),
            "weights": None,
            "flip": True,
        },
        "environment": environment(),
    }


@contextmanager
def files_of_at_most(size):
    """Writing more than `size` bytes fails, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_results_json_holds_every_number_its_definition_options_and_hardware(tmp_path):
    results = evaluation()
    write_results(tmp_path / "new" / "run", results, NAMES, definitions=DEFINITIONS)
    read = json.loads((tmp_path / "new" / "run" / "results.json").read_text())
    assert read["metrics"].keys() == read["definitions"].keys() == results["metrics"].keys()
    assert (
        read["metrics"]["mIoU"] == results["metrics"]["mIoU"]
    )  # as a float is printed, so it reads back
    assert (
        read["metrics"]["IoU"][:3] == results["metrics"]["IoU"][:3]
        and read["metrics"]["IoU"][3] is None
    )
    assert read["metrics"]["VC8"] == results["metrics"]["VC8"]
    assert read["options"] == {
        "savedir": "save/run",
        "work_size": [512, 1024],
        "weights": None,
        "flip": True,
    }
    assert (
        read["environment"]["torch"] == torch.__version__
        and read["classes"] == NAMES
        and read["warnings"] == []
    )


def test_results_txt_shows_the_table_the_numbers_and_what_they_are(tmp_path):
    results = evaluation()
    write_results(tmp_path, results, NAMES, definitions=DEFINITIONS)
    text = (tmp_path / "results.txt").read_text()
    assert text.startswith(
        class_table(NAMES, *(results["metrics"][k] for k in ("IoU", "recall", "label_share")))
    )
    assert re.search(rf"^mIoU +{results['metrics']['mIoU']:.6g}$", text, re.M)
    assert re.search(rf"^  VC8 +{results['metrics']['VC8']['VC8']:.6g}$", text, re.M)
    words = " ".join(text.split())
    for name in results["metrics"]:
        assert f"{name}: {DEFINITIONS[name]}" in words
    assert "TC_etc" not in text  # only what was measured
    assert not re.search(r"^  IoU  ", text, re.M)  # lists over classes stay in results.json
    assert max(map(len, text.splitlines())) <= report.WIDTH and not re.search(r"[ \t]$", text, re.M)


def test_a_number_without_definition_is_refused_and_nothing_is_written(tmp_path):
    results = evaluation()
    results["metrics"]["wonder"] = 1.0
    with pytest.raises(ValueError, match="definition of wonder"):
        write_results(tmp_path, results, NAMES, definitions=DEFINITIONS)
    with pytest.raises(ValueError, match="IoU has 4 values for 3 class names"):
        write_results(tmp_path, evaluation(), NAMES[:3], definitions=DEFINITIONS)
    with pytest.raises(ValueError, match="cannot hold a object"):
        write_results(tmp_path, evaluation() | {"what": object()}, NAMES, definitions=DEFINITIONS)
    assert not list(tmp_path.iterdir())


def test_a_degenerate_prediction_is_called_so(tmp_path):
    write_results(tmp_path, evaluation(constant=True), NAMES, definitions=DEFINITIONS)
    warnings = json.loads((tmp_path / "results.json").read_text())["warnings"]
    assert len(warnings) == 2 and "1 of 1 videos" in warnings[0] and "1 of 1 pairs" in warnings[1]
    text = (tmp_path / "results.txt").read_text()
    assert all(line.startswith("degenerate") and line in text for line in warnings)


def test_results_without_classes_are_still_a_report(tmp_path):
    write_results(
        tmp_path,
        {"latency": {"p50_ms": 12.5}, "environment": environment()},
        [],
        definitions=DEFINITIONS,
    )
    assert json.loads((tmp_path / "results.json").read_text())["latency"] == {"p50_ms": 12.5}
    assert "latency\n  p50_ms  12.5\n" in (tmp_path / "results.txt").read_text()


def test_a_second_report_replaces_the_first_and_a_failing_one_leaves_it(tmp_path):
    write_results(tmp_path, evaluation(), NAMES, definitions=DEFINITIONS)
    before = (tmp_path / "results.json").read_bytes()

    with files_of_at_most(50), pytest.raises(OSError):
        write_results(tmp_path, {"other": 1}, NAMES, definitions=DEFINITIONS)
    assert (tmp_path / "results.json").read_bytes() == before
    write_results(tmp_path, {"other": 1}, NAMES, definitions=DEFINITIONS)
    assert json.loads((tmp_path / "results.json").read_text())["other"] == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["results.json", "results.txt"]


def test_the_class_table_is_aligned_in_percent_with_means_over_what_is_there():
    table = class_table(NAMES, [0.5, 0.25, float("nan"), None], recall=[1, 1, 0, None])
    lines = table.splitlines()
    assert lines[0].split() == ["class", "IoU", "%", "recall", "%"]
    assert [line.split()[-2:] for line in lines[2:6]] == [
        ["50.00", "100.00"],
        ["25.00", "100.00"],
        ["-", "0.00"],
        ["-", "-"],
    ]
    assert lines[-1].split() == ["mean", "37.50", "66.67"]
    assert len({len(line) for line in lines}) == 1


def test_plain_values_only():
    value = {
        "a": np.float32(0.5),
        1: torch.arange(3),
        "nan": [float("nan"), np.inf, (2, None)],
        "p": Path("x") / "y",
        "d": torch.device("cpu"),
        "n": np.int64(7),
        "t": np.bool_(True),
    }
    assert plain(value) == {
        "a": 0.5,
        "1": [0, 1, 2],
        "nan": [None, None, [2, None]],
        "p": "x/y",
        "d": "cpu",
        "n": 7,
        "t": True,
    }


def test_the_environment_names_machine_and_versions_but_no_path():
    found = environment()
    assert found["torch"] == torch.__version__ and found["numpy"] == np.__version__
    assert found["threads"] == torch.get_num_threads() and found["cores"] >= 1 and found["cpu"]
    assert found == json.loads(json.dumps(found))
    assert str(Path(report.__file__).parents[1]) not in json.dumps(found)


def test_the_commit_is_that_of_the_tool_and_not_of_a_folder_around_it(tmp_path):
    def git(*words):
        someone = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
        subprocess.run(["git", "-C", tmp_path, *someone, *words], check=True, capture_output=True)

    assert report._commit(tmp_path) is None
    git("init")
    assert report._commit(tmp_path) is None  # no commit yet
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "one")
    git("tag", "v1")
    assert re.fullmatch("[0-9a-f]{40}", report._commit(tmp_path))
    (tmp_path / "file").write_text("2")
    assert re.fullmatch("[0-9a-f]{40}-dirty", report._commit(tmp_path))
    (tmp_path / "tool").mkdir()
    assert report._commit(tmp_path / "tool") is None
