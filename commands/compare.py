r"""Compare architectures: train games x architectures x seeds alike, and report what came out.

    python scripts/compare.py --games coinrun fruitbot --architectures bimpala-small impala-small \
        --seeds 0 1 2 --levels 200 --frames 1000000 --out runs/compare

A run lives in OUT/GAME/ARCHITECTURE/seedN and is what scripts/train.py makes. The same command goes
on where it was stopped: finished runs are taken as they are, stopped ones continue. With
--report-only nothing is trained: the report is made of what there is. Training options hold for all
runs; what an architecture has for itself follows its name:
bimpala-small,learning_rate=1e-4,kernel_size=5. Runs are spread by Ray if it is installed (extra
``ray``), on this machine or, by --address, on a cluster, where OUT must be a folder that all
machines share. The report (text, CSV, PNG, TensorBoard) is in OUT/report.
"""

import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path

import tyro
from tqdm import tqdm

from rlbilinear.agents.comparison import figures as draw
from rlbilinear.agents.comparison import spread, summary, tables, tensorboard, text
from rlbilinear.agents.comparison.matrix import Run, find, matrix
from rlbilinear.agents.folder import new_folder, provenance, write_json
from rlbilinear.agents.options import TrainOptions
from rlbilinear.agents.run_status import Standing, State, standing

REPORT, MARKER = "report", "report.json"


@dataclass(frozen=True)
class Options(TrainOptions):
    """Compare architectures by training them alike."""

    out: Path
    """folder of the comparison"""
    architecture_options: str = "{}"
    """of every architecture, as JSON: {"kernel_size": 3}"""
    games: tuple[str, ...] = ()
    """ProcGen's; with --report-only: all that are there, unless given"""
    architectures: tuple[str, ...] = ()
    """by name, each with settings of its own after commas: bimpala-small,learning_rate=1e-4.
    Differences are of those given first minus those after"""
    seeds: tuple[int, ...] = ()
    """of the runs; from three on there are intervals to speak of"""
    report_only: bool = False
    """train nothing"""
    final_levels: int = 200
    """levels of each set, training and held-out, that final agents are scored on"""
    skip_unplayable: bool = False
    """leave out levels that are over at the first step, without a reward, whatever one does"""
    margin: float = 0.1
    """normalised scores that differ by less count as comparable"""
    ray: bool = True
    """spread runs by Ray where it is installed"""
    address: str | None = None
    """of a Ray cluster (auto, HOST:PORT); this machine when not given"""
    cpus_per_run: int | None = None
    """CPUs of a run, and its threads; 1 under Ray, and torch's own choice without"""
    gpus_per_run: float | None = None
    """GPUs of a run under Ray, 0.25 to put four on one; one if there are GPUs and the device is
    not cpu"""
    game: tyro.conf.Suppress[str] = ""
    architecture: tyro.conf.Suppress[str | None] = None
    seed: tyro.conf.Suppress[int] = 0
    init_from: tyro.conf.Suppress[str | None] = None


def main() -> None:
    """Train what is missing, and report."""
    options = tyro.cli(Options, description=__doc__)
    try:
        check(options)
        runs = chosen(options)
        failed = [] if options.report_only else train(options, runs)
        for line in failed:
            print(line, file=sys.stderr)
        print(report(options, runs))
    except (ValueError, OSError) as error:
        sys.exit(f"{sys.argv[0]}: {error}")
    except KeyboardInterrupt as stopped:
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(128 + getattr(stopped, "signal", signal.SIGINT))
    place = options.out / REPORT
    print(f"\nFigures and tables: {place}\ntensorboard --logdir {place} (all of it: {options.out})")
    if failed:
        sys.exit(f"{len(failed)} of {len(runs)} runs failed; the same command tries them again")


def check(options: Options) -> None:
    """Raise ValueError where an option that is not of training is out of range."""
    if options.final_levels < 2:
        raise ValueError(f"final_levels must be 2 or more, got {options.final_levels}")
    if not options.margin > 0:
        raise ValueError(f"margin must be positive, got {options.margin}")
    if options.cpus_per_run is not None and options.cpus_per_run < 1:
        raise ValueError(f"cpus_per_run must be 1 or more, got {options.cpus_per_run}")
    if options.gpus_per_run is not None and not options.gpus_per_run >= 0:
        raise ValueError(f"gpus_per_run must be 0 or more, got {options.gpus_per_run}")


def chosen(options: Options) -> list[Run]:
    """Return the runs of the matrix, or those that there are.

    Raises:
        ValueError: none; something unknown; a folder that holds another run.
    """
    if not options.report_only:
        shared = {field.name: getattr(options, field.name) for field in fields(TrainOptions)}
        return matrix(TrainOptions(**shared), options.games, options.architectures, options.seeds)
    found = find(options.out)
    kept = found
    for axis in ("game", "architecture", "seed"):
        asked = getattr(options, f"{axis}s")
        there = dict.fromkeys(getattr(run, axis) for run in found)
        if missing := [str(value) for value in asked if value not in there]:
            raise ValueError(
                f"{axis}s: {options.out} has no runs of {', '.join(missing)}; "
                f"there are {', '.join(map(str, there)) or 'none'}"
            )
        kept = [run for run in kept if not asked or getattr(run, axis) in asked]
    order = {name: place for place, name in enumerate(options.architectures)}
    return sorted(kept, key=lambda run: order.get(run.architecture, 0))


def train(options: Options, runs: Sequence[Run]) -> list[str]:
    """Bring all runs to their end, and return what failed and why.

    Raises:
        ValueError: a folder holds another run; found before anything starts.
        KeyboardInterrupt: stopped.
    """
    standings = examine(runs)
    for run, (state, frames) in zip(runs, standings, strict=True):
        print(f"{run}: {state.value}" + (f", {frames:,} frames" if frames else ""))
    if all(state is State.FINISHED for state, _ in standings):
        return []
    failed = []
    with closing(outcomes(options, runs)) as ended:  # what is under way is stopped if this is
        for number, (run, error) in enumerate(ended, 1):
            tqdm.write(f"{number} of {len(runs)}: {run}: {'failed' if error else 'finished'}")
            if error is not None:
                failed.append(f"{run}: {error}")
    return failed


def examine(runs: Sequence[Run]) -> list[Standing]:
    """Look into all folders.

    Raises:
        ValueError: runs that cannot be begun or continued, each with the reason.
    """
    standings, refused = [], []
    for run in runs:
        try:
            standings.append(standing(run.options))
        except (ValueError, OSError) as error:
            refused.append(str(error))
    if refused:
        raise ValueError("nothing was started: " + "; ".join(refused))
    return standings


def outcomes(options: Options, runs: Sequence[Run]) -> Generator[spread.Outcome, None, None]:
    """Run them, by Ray or one after another, and say which.

    Raises:
        ValueError: a cluster or GPUs are asked for, and Ray is not installed or not asked for.
    """
    if options.address is not None and not options.ray:
        raise ValueError("--address is a Ray cluster's: it does not go with --no-ray")
    if options.ray and (spread.ray is not None or options.address is not None):
        there = spread.connect(options.address)
        given = spread.resources(options.device, options.cpus_per_run, options.gpus_per_run)
        print(f"{there}; each run takes {given.cpus} and {given.gpus:g}", flush=True)
        if options.address is not None:
            print(f"{options.out.absolute()} must be a folder that all machines share")
        yield from spread.by_ray(
            runs, given, final_levels=options.final_levels, progress=options.progress
        )
        return
    if options.gpus_per_run is not None:
        raise ValueError("--gpus-per-run is for runs that Ray spreads, and these are not")
    if options.ray:
        print("Ray is not installed (pip install 'rlbilinear[ray]'): ", end="")
    print("runs go one after another", flush=True)
    yield from spread.one_after_another(
        runs, final_levels=options.final_levels, threads=options.cpus_per_run
    )


def report(options: Options, runs: Sequence[Run]) -> str:
    """Read all runs, write the report, and return it as text.

    Raises:
        ValueError: no run is there yet.
    """
    if not runs:
        raise ValueError(f"{options.out} holds no run yet")
    found = tables.collect(
        runs,
        frames=max(run.options.frames for run in runs),
        final_levels=options.final_levels,
        device=options.device,
        progress=options.progress,
        skip_unplayable=options.skip_unplayable,
    )
    scores = summary.summarise(found)
    over_games = summary.aggregate(found)
    pairs = summary.compare(found, margin=options.margin)
    said = text.report(found, scores, over_games, pairs, options.margin)
    pictures = {"curves": draw.curves(found)}
    if len(found.final):
        pictures["returns"] = draw.returns(found)
        pictures["normalised"] = draw.normalised(found, over_games)
    if len(pairs):
        pictures["differences"] = draw.differences(found, pairs, options.margin)
    written = {
        "runs": found.status,
        "evaluations": found.evaluations,
        "summary": scores,
        "aggregate": over_games,
        "differences": pairs,
    }
    place = options.out / REPORT
    with new_folder(place, overwrite=True, marker=MARKER) as folder:
        for name, table in written.items():
            table.to_csv(folder / f"{name}.csv", index=False)
        for name, picture in pictures.items():
            picture.savefig(folder / f"{name}.png", dpi=130)
        (folder / "report.txt").write_text(said + "\n")
        tensorboard.write(folder / "tensorboard", found, pictures, said)
        counts = {"frames": found.frames, "final_levels": options.final_levels}
        rules = {"margin": options.margin, "skip_unplayable": options.skip_unplayable}
        write_json(folder / MARKER, {**counts, **rules, **provenance()})
    return said
