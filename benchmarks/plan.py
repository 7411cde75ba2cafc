"""The plan against what happened: time and peak memory of each stage.

    python -m benchmarks.plan NAME

Plans the study, builds it from nothing, in a process of its own as a user would, and prints actual to planned for each
stage: how many are within a factor of 1.3, and the worst. A study that is built is first emptied but for study.toml and
its inputs, after a question; stages of less than a second are left out, for nobody plans by them.
"""

import argparse
import shutil
import subprocess
import sys

from ifguide.cli.status import study_status
from ifguide.study.reading import Study
from ifguide.study.stage_table import STAGES

CLOSE = 1.3
LEAST_SECONDS = 1.0


def main() -> None:
    """Plan, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--yes", action="store_true", help="empty the study without a question")
    name, yes = vars(parser.parse_args()).values()
    study = Study.open(name)
    built = [study.root / (STAGES[stage].folder or stage) for stage in STAGES]
    if any(folder.is_dir() for folder in built) and not yes and input(f"Empty {study.root}? [y/N] ") != "y":
        sys.exit("left as it is")
    for folder in built:
        shutil.rmtree(folder, ignore_errors=True)
    for command in ("plan", "run"):
        subprocess.run([sys.executable, "-m", "ifguide", command, name], check=True)
    stages = study_status(study)["stages"]
    print("| stage | planned | took | ratio | planned memory | took | ratio |\n|" + "---|" * 7)
    ratios = []
    for stage, record in stages.items():
        seconds = record["planned_seconds"], record["seconds"]
        if max(seconds) < LEAST_SECONDS:
            continue
        memory = [record["planned_peak"] / 1e9, record["peak"] / 1e9]
        both = [took / planned if planned else 0.0 for planned, took in (seconds, memory)]
        ratios += [ratio for ratio in both if ratio]
        cells = (f"{seconds[0]:.1f} s", f"{seconds[1]:.1f} s", f"{both[0]:.2f}")
        print("|", stage, *(f"| {cell}" for cell in (*cells, *(f"{n:.2f} GB" for n in memory), f"{both[1]:.2f}")), "|")
    off = [max(ratio, 1 / ratio) for ratio in ratios]
    close = sum(one <= CLOSE for one in off) / len(off)
    print(f"\nwithin a factor of {CLOSE}: {close:.0%}; the worst is off by {max(off):.2f}")


if __name__ == "__main__":
    main()
