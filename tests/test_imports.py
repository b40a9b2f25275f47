"""Who may import whom: the rooms of the house know only what they need."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "main": {"options", "jobs", "engine", "models", "datasets", "utils"},
    "jobs": {"options", "engine", "models", "datasets", "utils"},
    "engine": {"utils"},
    "models": {"models"},
    "datasets": {"datasets"},
    "utils": {"utils"},
    "options": set(),
}
# Imported where they are used.
LATE = {"cv2", "tqdm", "matplotlib", "visdom", "tensorboard", "torchvision", "cupy"}


def files():
    for room in MAY_IMPORT:
        if (ROOT / room).is_dir():
            yield from sorted((ROOT / room).rglob("*.py"))
        else:
            yield ROOT / f"{room}.py"


def imports(source: str):
    """(module, whether at top level) of every absolute import."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in tree.body) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or "", node in tree.body


def faults(room: str, source: str) -> list[str]:
    found = []
    for module, top in imports(source):
        package = module.split(".")[0]
        if package in MAY_IMPORT and package not in MAY_IMPORT[room] | {room}:
            found.append(f"{room} imports {package}")
        if top and package in LATE:
            found.append(f"{package} is imported at the top")
        if room == "options" and package == "torch":
            found.append("options imports torch")
    return found


@pytest.mark.parametrize("path", list(files()), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_imports_only_what_its_room_may(path):
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert not faults(room, path.read_text())


@pytest.mark.parametrize(
    "room, source",
    [
        ("models", "import utils.log"),
        ("engine", "from models import x"),
        ("utils", "import cv2"),
        ("options", "def f():\n    import torch"),
        ("options", "from models import find"),
        ("engine", "import jobs.common"),
        ("utils", "from options import METHODS"),
    ],
)
def test_a_planted_import_is_found(room, source):
    assert faults(room, source)


def test_every_folder_of_ours_is_a_package_or_it_would_lose_to_an_installed_one():
    folders = {path.parent for path in files() if path.parent != ROOT}
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_jobs_and_rooms_import_their_own_at_the_top():
    """Late imports hide what a file needs; main.py alone has them, for a --help without torch."""
    for path in files():
        if path.name == "main.py":
            continue
        late = [name for name, top in imports(path.read_text()) if not top]
        ours = [name for name in late if name.split(".")[0] in MAY_IMPORT]
        assert not ours, f"{path} imports {ours} inside a function"


@pytest.mark.parametrize("path", list(files()), ids=lambda path: str(path.relative_to(ROOT)))
def test_library_code_neither_prints_shapes_nor_ends_the_process(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or not path.read_text(), "every file says what it is"
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not any(name.endswith(".cuda") for name in called - {"torch.version.cuda"})
    if path.name != "main.py":
        assert not called & {"exit", "sys.exit", "os._exit", "quit"}


def test_every_torch_load_refuses_pickled_classes():
    for path in files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert any(
                    k.arg == "weights_only" and ast.literal_eval(k.value) is True
                    for k in node.keywords
                ), path


def test_no_machine_path_or_session_is_named():
    words = ("/work/", "/root/", "/home/", "localhost:80", "pypi.org")
    texts = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / ".ci/run",
        *(ROOT / "recipes").glob("*"),
    ]
    for path in [*files(), *texts]:
        assert not [word for word in words if word in path.read_text()], path
