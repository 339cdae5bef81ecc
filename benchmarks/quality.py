"""What each choice of the method is worth: hypernetworks that differ in one thing, trained alike, on tokenizers never seen.

    python -m benchmarks.quality --list                                    # the choices
    python -m benchmarks.quality                                           # all of them that have no result yet
    python -m benchmarks.quality --variants base untie --seeds 0 1 2       # three seeds where two are close
    python -m benchmarks.quality --report                                  # the table and the plot of what there is

Each run is `train.py` with a config (--config, pico's by default), shortened by PROTOCOL, and one change. What is compared are
ratios to the original's bits per byte on the same held-out windows, by target and as their geometric mean, over steps; the cost
is processor time, which hardly grows where others use the machine. Results are added to --output, so a run that is there is not
done again; remove its entry to repeat it. --set changes all runs: `--set start=pico train.body=true train.steps=300` goes on
from the shipped hypernetwork, `--config FILE --set base=MODEL` takes another model.
"""

import argparse
import json
import math
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import arguments, processor
from zett.files.jsonfile import json_or_empty, write_json
from zett.files.provenance import environment

ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "benchmarks" / "results" / "quality.json"

# What all runs share: a run of configs/pico.py cut to a twenty-fifth, evaluated on every kind of target.
PROTOCOL = {
    "data.batch_size": "8", "train.steps": "150", "train.eval_every": "50", "train.checkpoint_every": "150",
    "train.eval_windows": "64", "train.eval_targets": "bpe-2k,bpe-8k,bpe-16k,unigram-8k,prose-bpe-8k",
}  # fmt: skip

# Changes of the config by name; "base" changes nothing.
VARIANTS: dict[str, dict[str, str]] = {
    "base": {},
    # objectives
    "hidden": {"loss.hidden": "1.0"},
    "hidden, first layer": {"loss.hidden": "1.0", "loss.hidden_layers": "1,"},
    "chunk": {"loss.chunk": "0.1"},
    # shared rows: held where they were, or free to move
    "lexical 1": {"loss.lexical": "1.0"},
    "lexical 0.01": {"loss.lexical": "0.01"},
    "lexical 0": {"loss.lexical": "0.0"},
    # what is predicted, and from what
    "untie": {"hypernet.untie": "true"},
    "residual first": {"hypernet.residual": "first"},
    "residual last": {"hypernet.residual": "last"},
    "residual weighted": {"hypernet.residual": "weighted"},
    "4 pieces": {"hypernet.max_pieces": "4"},
    "16 pieces": {"hypernet.max_pieces": "16"},
    "no features": {"hypernet.features": "false"},
    "distance": {"hypernet.distance": "true"},
    # size
    "width 128": {"hypernet.width": "128", "hypernet.feed_forward": "256"},
    "width 384": {"hypernet.width": "384", "hypernet.feed_forward": "768", "hypernet.heads": "6"},
    "1024 rows": {"sampler.rows": "1024"},
    "4096 rows": {"sampler.rows": "4096"},
    # tokenizers that are drawn
    "up to 8k": {"sampler.max_size": "8192"},
    "up to 32k": {"sampler.max_size": "32768"},
    "no substrings": {"sampler.substring": "0.0"},
    "BPE alone": {"sampler.substring": "0.0", "sampler.unigram": "0.0"},
    "half substrings": {"sampler.substring": "0.5", "sampler.bpe": "0.3", "sampler.unigram": "0.2"},
    "near": {"sampler.near": "0.2"},
    "superwords": {"sampler.superword": "0.2"},
    # the body
    "body": {"train.body": "true"},
    # weights over time
    "average 0.9": {"train.average": "0.9"},
    "average 0.98": {"train.average": "0.98"},
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------- runs


def run(config: str, changes: dict[str, str], seed: int) -> dict:
    """Train once, and say what became of it."""
    workdir = Path(tempfile.mkdtemp(prefix="zett-quality-"))
    changes = changes | {"seed": str(seed)}
    command = [sys.executable, str(ROOT / "train.py"), "--config", config, "--workdir", str(workdir / "run")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        subprocess.run([*command, *(f"--config.{name}={value}" for name, value in changes.items())], check=True, cwd=ROOT)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        lines = [json.loads(line) for line in (workdir / "run" / "metrics.jsonl").read_text().splitlines()]
    finally:
        shutil.rmtree(workdir, ignore_errors=True)
    curve = [
        {"step": line["step"]} | {name.removeprefix("eval/"): value for name, value in line.items() if name.startswith("eval/")}
        for line in lines
        if "eval/score" in line
    ]
    seconds = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return {"changes": changes, "curve": curve, "cpu_seconds": round(seconds, 1)}


def missing(found: dict, variants: list[str], seeds: list[int]) -> Iterator[tuple[str, int]]:
    for seed in seeds:
        for name in variants:
            if f"{name}/{seed}" not in found["runs"]:
                yield name, seed


def run_all(args: argparse.Namespace) -> None:
    given = dict(one.partition("=")[::2] for one in args.set)
    found = {"config": args.config, "protocol": PROTOCOL | given, "runs": {}} | json_or_empty(args.output)
    if (found["config"], found["protocol"]) != (args.config, PROTOCOL | given):
        sys.exit(f"{args.output} holds runs of {found['config']} with {found['protocol']}; give another --output")
    for name, seed in missing(found, args.variants, args.seeds):
        print(f"\n=== {name}, seed {seed}", flush=True)
        result = run(args.config, PROTOCOL | given | VARIANTS[name], seed)
        found["runs"][f"{name}/{seed}"] = result
        args.output.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.output, found | {"processor": processor(), "versions": environment().get("versions")})


# -------------------------------------------------------------------------------------------------------------- report


def summary(found: dict) -> dict[str, dict]:
    """By variant: the mean over its seeds of each ratio at the end, how far it is from the base's, and its cost.

    Differences are those of runs of the same seed. spread: standard error of their mean, with two seeds or more.
    """
    runs: dict[str, dict[int, dict]] = {}
    for key, one in found["runs"].items():
        name, _, seed = key.rpartition("/")
        runs.setdefault(name, {})[int(seed)] = one
    base, rows = runs.get("base", {}), {}
    for name, by_seed in runs.items():
        ends = [one["curve"][-1] for one in by_seed.values()]
        differences = [
            one["curve"][-1]["score"] / base[seed]["curve"][-1]["score"] - 1 for seed, one in by_seed.items() if seed in base
        ]
        costs = [one["cpu_seconds"] / base[seed]["cpu_seconds"] for seed, one in by_seed.items() if seed in base]
        rows[name] = {
            "seeds": len(by_seed),
            "ratios": {target: statistics.fmean(end[target] for end in ends) for target in ends[0] if target != "step"},
            "difference": statistics.fmean(differences) if differences else math.nan,
            "spread": statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else math.nan,
            "cost": statistics.fmean(costs) if costs else math.nan,
        }
    return rows


def table(found: dict) -> str:
    """A table in Markdown, the best first."""
    rows = summary(found)
    targets = [name for name in next(iter(rows.values()))["ratios"] if name != "score"]
    lines = [
        f"| change | seeds | mean | to base | {' | '.join(targets)} | time |",
        "|---|---:" + "|---:" * (len(targets) + 3) + "|",
    ]
    for name, row in sorted(rows.items(), key=lambda one: one[1]["ratios"]["score"]):
        spread = "" if math.isnan(row["spread"]) else f" ± {100 * row['spread']:.1f}"
        cells = [f"{row['ratios'][target]:.3f}" for target in targets]
        lines.append(
            f"| {name} | {row['seeds']} | {row['ratios']['score']:.3f} | {100 * row['difference']:+.1f} %{spread} | "
            f"{' | '.join(cells)} | {row['cost']:.2f} |"
        )
    return "\n".join(lines)


def plot(found: dict, path: Path) -> None:
    """How much each change makes of the base's mean ratio, and all curves."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = dict(sorted(summary(found).items(), key=lambda one: -one[1]["difference"]))
    fig = Figure(figsize=(11, 0.26 * len(rows) + 1.6), layout="constrained")
    FigureCanvasAgg(fig)
    bars, curves = fig.subplots(1, 2, width_ratios=[3, 2])
    for place, row in enumerate(rows.values()):
        better = row["difference"] <= 0
        error = None if math.isnan(row["spread"]) else 100 * row["spread"]
        bars.barh(place, 100 * row["difference"], xerr=error, color="#0072B2" if better else "#E69F00", height=0.7)
    bars.set_yticks(range(len(rows)), list(rows))
    bars.axvline(0, color="#222222", linewidth=1)
    bars.set_xlabel("mean ratio to the original, compared with base, in % (less is better)")
    best = list(rows)[-1]
    for key, one in found["runs"].items():
        name = key.rpartition("/")[0]
        shown = {"base": ("#222222", 2.0, "base"), best: ("#0072B2", 2.0, best)}.get(name, ("#CCCCCC", 0.8, None))
        points = [(point["step"], point["score"]) for point in one["curve"]]
        curves.plot(*zip(*points), color=shown[0], linewidth=shown[1], label=shown[2], zorder=1 + shown[1])
    handles, labels = curves.get_legend_handles_labels()
    once = dict(zip(labels, handles))  # a variant has a curve for each seed
    curves.legend(list(once.values()), list(once), frameon=False)
    curves.set_xlabel("steps")
    curves.set_ylabel("geometric mean of the ratios")
    for axes in (bars, curves):
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=110)


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(output=OUTPUT)
    parser.add_argument("--config", default="configs/pico.py")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE", help="change these fields in all runs")
    parser.add_argument("--list", action="store_true", help="print the choices and what they change")
    parser.add_argument("--report", action="store_true", help="print the table and draw the plot of what is in --output")
    args = parser.parse_args()
    if args.list:
        print("\n".join(f"{name:22} {changes}" for name, changes in VARIANTS.items()))
        return
    if not args.report:
        run_all(args)
    found = json_or_empty(args.output)
    if not found.get("runs"):
        sys.exit(f"{args.output} has no runs yet")
    print(table(found))
    plot(found, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
