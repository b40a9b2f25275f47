"""A process of tests/warm.py is one like any other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

import warm
from command import ROOT

TELL = (
    "import json, os, sys; print(json.dumps({'words': sys.argv, 'folder': os.getcwd(), "
    "'place': os.environ.get('PLACE'), 'home': os.environ.get('HOME'), 'path': sys.path[0], "
    "'leads': os.getsid(0) == os.getpid(), 'input': sys.stdin.read(), 'name': __name__, "
    "'ours': [name for name in ('main', 'models', 'utils', 'datasets') if name in sys.modules], "
    "'handler': str(__import__('signal').getsignal(2)), 'rest': os.listdir('/proc/self/fd')}))"
)


def test_it_has_the_words_folder_environment_and_streams_of_a_process_of_its_own(tmp_path):
    environment = {"PLACE": "here", "PATH": os.environ["PATH"]}
    command = ["-c", TELL, "a", "b c"]
    told = warm.run(*command, cwd=tmp_path, env=environment)
    other = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
    )
    assert told.stdout == other.stdout and told.returncode == 0, told.stderr


def test_a_script_is_run_as_python_runs_it(tmp_path):
    (tmp_path / "beside.py").write_text("value = 7")
    script = tmp_path / "script.py"
    script.write_text(
        "import atexit, sys, beside, pathlib\n"
        "atexit.register(pathlib.Path('ended').touch)\n"
        "assert __name__ == '__main__' and 'torch' in sys.modules\n"
        "print(beside.value, sys.argv[1:], __file__)\nsys.exit(5)"
    )
    done = warm.run(script, "x", cwd=tmp_path)
    assert done.stdout == f"7 ['x'] {script}\n" and done.returncode == 5, done.stderr
    assert (tmp_path / "ended").exists()
    (tmp_path / "wrong.py").write_text("print('a\\rb')\n1 / 0")
    done = warm.run(tmp_path / "wrong.py")
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr and done.stdout == "a\nb\n"


def test_one_process_leaves_nothing_to_the_next():
    change = "import os, torch; torch.set_num_threads(3); os.environ['LEFT'] = '1'; print(1)"
    assert warm.run("-c", change).stdout == "1\n"
    found = "import os, torch; print(torch.get_num_threads(), os.environ.get('LEFT'))"
    assert warm.run("-c", found).stdout == "1 None\n"


def test_it_can_be_waited_for_signalled_and_fed():
    process = warm.Process("-c", "import sys; print(input()); input()", stdin=subprocess.PIPE)
    process.stdin.write("fed\n")
    process.stdin.flush()
    assert process.stdout.readline() == "fed\n" and process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=0.05)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL == process.poll()
    process.kill()  # of one that has ended does nothing


def test_ctrl_c_reaches_it():
    code = "try:\n print('on')\n input()\nexcept KeyboardInterrupt: print('stopped')"
    process = warm.Process("-c", code, stdin=subprocess.PIPE)
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "stopped\n" and process.returncode == 0


def test_ranks_meet_and_the_first_failure_is_told():
    code = (
        "import os, sys, torch.distributed as dist; dist.init_process_group('gloo')\n"
        "print(dist.get_rank(), dist.get_world_size()); dist.destroy_process_group()\n"
        "sys.exit(int(os.environ['RANK']) * 3)"
    )
    done = warm.run_ranks("-c", code)
    assert done.stdout == "0 2\n1 2\n" and done.returncode == 3, done.stderr


def test_a_process_that_cannot_begin_says_so(tmp_path):
    done = warm.run(ROOT / "main.py", "--help", cwd=tmp_path)
    assert done.returncode == 0 and "--training" in done.stdout
    done = warm.run(tmp_path / "no.py")
    assert done.returncode == 1 and "no.py" in done.stderr
