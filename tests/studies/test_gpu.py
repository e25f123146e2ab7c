import json
import re
import sys
import time

import pytest

from rlbilinear.agents.run import Run
from rlbilinear.commands.main import main
from rlbilinear.studies.gpu import slices
from rlbilinear.studies.gpu.plan import STEPS, TINY, Plan, jobs
from rlbilinear.studies.gpu.slices import Job, Status, run_slice, status


def program(name, code, **more):
    return Job(name, ("-c", code), **more)


def quiet(_):
    pass


def test_what_is_done_is_not_done_again_and_what_failed_is(tmp_path):
    mark = f"open({str(tmp_path / 'ran')!r}, 'a').write('x')"
    plan = [program("good", mark), program("bad", "print('why'); raise SystemExit(3)")]
    for times in (1, 2):
        ended = run_slice(plan, tmp_path, 600, 2, quiet)
        assert ended == {"good": Status.DONE, "bad": Status.FAILED}
        assert (tmp_path / "ran").read_text() == "x"
        assert (tmp_path / "logs" / "bad.txt").read_text() == "why\n" * times
    record = json.loads((tmp_path / "jobs" / "bad.json").read_text())
    assert record["exit_code"] == 3 and record["command"] == list(plan[1].arguments)


class Clock:
    """The time, and an hour more once a file is there."""

    def __init__(self, file):
        self.file = file

    def monotonic(self):
        return time.monotonic() + 3600 * self.file.exists()

    def sleep(self, seconds):
        time.sleep(seconds)


def test_a_slice_ends_in_time_and_the_next_goes_on(tmp_path, monkeypatch):
    ready, saved = tmp_path / "ready", tmp_path / "saved"
    long = program(
        "long",
        "import pathlib, signal, sys, time\n"
        f"ready, saved = pathlib.Path({str(ready)!r}), pathlib.Path({str(saved)!r})\n"
        "if saved.exists(): sys.exit()\n"
        "def stop(*_): saved.touch(); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "ready.touch()\n"
        "while True: time.sleep(1)",
    )
    with monkeypatch.context() as patched:
        patched.setattr(slices, "time", Clock(ready))
        assert run_slice([long], tmp_path, 600, 1, quiet) == {"long": Status.STOPPED}
    assert saved.exists()
    assert run_slice([long], tmp_path, 600, 1, quiet) == {"long": Status.DONE}


def test_what_is_timed_runs_alone(tmp_path):
    """Each program notes when it is there; the one in the middle sees nobody."""
    here = tmp_path / "here"
    here.mkdir()
    code = (
        "import os, pathlib, time\n"
        f"here = pathlib.Path({str(here)!r})\n"
        "mine = here / str(os.getpid()); mine.touch()\n"
        "most = 0\n"
        "for _ in range(20): most = max(most, len(list(here.iterdir()))); time.sleep(0.02)\n"
        "mine.unlink(); print(most)"
    )
    plan = [program(str(place), code, alone=place == 2, threads=1 + place) for place in range(5)]
    told = []
    assert {*run_slice(plan, tmp_path, 600, 2, told.append).values()} == {Status.DONE}
    assert (tmp_path / "logs" / "2.txt").read_text() == "1\n"
    (alone,) = (place for place, line in enumerate(told) if line.endswith("begins 2"))
    assert "done: 2" in told[alone + 1]


def test_programs_have_the_threads_that_they_are_given(tmp_path):
    show = program("show", "import os; print(os.environ['OMP_NUM_THREADS'])", threads=3)
    run_slice([show], tmp_path, 600, 1, quiet)
    assert (tmp_path / "logs" / "show.txt").read_text() == "3\n"


def test_the_plan_names_every_run_once(tmp_path):
    made = jobs(Plan(), tmp_path)
    assert len({job.name for job in made}) == len(made)
    runs = [job.run for job in made if job.run is not None]
    assert len({*runs}) == len(runs) == 2 * (4 + 3) + 4 * 5 + 2
    assert [job.name for job in made if job.alone] == ["tests", "benchmark"]
    assert all(re.fullmatch(r"[\w.-]+", job.name) for job in made)
    with pytest.raises(ValueError, match=f"unknown step paint; choose from {', '.join(STEPS)}"):
        jobs(Plan(), tmp_path, ["paint"])


def test_a_run_is_resumed_or_begun_again(tmp_path):
    (job,) = jobs(TINY, tmp_path, ["distill"])[:1]
    assert job.command() == [sys.executable, *job.arguments]
    job.run.mkdir(parents=True)
    (job.run / "options.json").write_text("{}")
    assert job.command()[-1] == "--overwrite"  # killed before its first checkpoint
    (job.run / "training.safetensors").touch()
    assert Run(job.run).newest_checkpoint() and job.command()[-1] == "--resume"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], "give --out"),
        (["--out", "{}", "--minutes", "0"], "--minutes must be positive, got 0"),
        (["--out", "{}", "--steps", "paint"], "invalid choice|paint"),
    ],
)
def test_bad_usage(given, why, tmp_path, capfd):
    with pytest.raises(SystemExit) as ended:
        main(["gpu", *(word.format(tmp_path / "new") for word in given)])
    assert ended.value.code == 2 and re.search(why, capfd.readouterr().err)
    assert not (tmp_path / "new").exists()


def test_the_same_command_on_the_processor(tmp_path):
    """The whole plan at tiny sizes, all but what only a GPU can do."""
    out = tmp_path / "gpu"
    steps = ["distill", "compare"]
    main(["gpu", "--tiny", "--out", str(out), "--together", "2", "--steps", *steps])
    made = jobs(TINY, out, steps)
    assert {status(out, job) for job in made} == {Status.DONE}
    assert all((job.run / "agent" / "model.safetensors").is_file() for job in made)
    assert "versions" in json.loads((out / "plan.json").read_text())
