import importlib.util
import os
import pathlib
import subprocess
import sys


def start_mirror(run_dir: pathlib.Path) -> "subprocess.Popen[bytes] | None":
    """Starts a process that copies the log of this run into an Aim repository as it grows.

    The repository lies in the parent of `run_dir`, so that runs can be compared; what the process
    has to say goes to `aim.log`. Training never imports Aim, which therefore cannot stop it.

    **Arguments:**

    - `run_dir`: the directory of the run. Its log should have its first line by now: one that
      still ends with the end of an earlier start would be taken to be complete.

    **Returns:**

    The process, to be passed to `finish_mirror`; None where Aim is not installed.
    """
    if importlib.util.find_spec("aim") is None:
        print("Aim is not installed: the run is logged in metrics.jsonl alone.", flush=True)
        return None
    script = pathlib.Path(__file__).with_name("aim_mirror.py")
    command = [sys.executable, script, run_dir, "--follow", str(os.getpid())]
    try:
        with (run_dir / "aim.log").open("ab") as log:
            # In a session of its own, so that Ctrl-C reaches the training alone, and the mirror
            # still sees its last lines.
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        print(f"Warning: the log is not mirrored to Aim ({error}).", flush=True)
        return None


def finish_mirror(process: "subprocess.Popen[bytes] | None", timeout: float) -> None:
    """Waits until the mirror has copied everything; warns, and never raises, if it did not.

    Call it after the log's last line, `{"event": "end"}`.

    **Arguments:**

    - `process`: what `start_mirror` returned.
    - `timeout`: seconds to wait before the mirror is killed.
    """
    if process is None:
        return
    again = "`python experiments/aim_mirror.py RUN_DIR` copies the rest; aim.log may say why."
    try:
        code = process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        print(f"Warning: the mirror to Aim took over {timeout:g} s. {again}", flush=True)
    else:
        if code != 0:
            print(f"Warning: the mirror to Aim failed (exit status {code}). {again}", flush=True)
