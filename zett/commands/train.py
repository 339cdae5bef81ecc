"""`zett train`, and train.py."""

import argparse
import json
import os

from zett.config import Config
from zett.config_file import load_config, split_overrides
from zett.errors import UserError
from zett.progress import phase, shown

DESCRIPTION = "Train a hypernetwork, a transferred model further, or a small base model."
EXAMPLES = """\
examples:
  zett train --config configs/pico.py --workdir runs/pico
  zett train --config configs/n_shot.py --workdir runs/n_shot --config.start=my-model    # what `zett transfer` has written
  zett train --config configs/pico.py --workdir /tmp/x --config.train.steps=200 --config.optim.learning_rate 3e-4
  zett train --config configs/pico.py --workdir /tmp/x --config.sampler.texts=texts,python --config.data.valid_text=None
  zett train --config configs/mistral.py --dry_run --devices 16 --device tpu-v4

Every field of zett/config.py can be set, whether or not the file mentions it. `--config FILE:ARG` calls get_config(ARG).
`--dry_run` says what a run would take, without weights, texts or a network, and what is wrong with its config.
Ctrl-C saves and stops; the same command goes on from there.
"""


def arguments(parser) -> None:
    """parser: a `zett.cli.Parser`."""
    parser.split = split_overrides
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]", help="Python file with get_config()")
    parser.add_argument("--workdir", help="folder of the run; a run that is there already is resumed")
    # Only for --help: split_overrides takes these out before argparse sees them.
    parser.add_argument("--config.SECTION.FIELD", metavar="VALUE", dest="_", help="set a field of the config, may be repeated")
    group = parser.add_argument_group("several processes", "the same command for each, on one machine or many")
    group.add_argument("--distributed", action="store_true", help="find the others: TPU pods, SLURM, Open MPI, Kubernetes")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="by hand: address of the first process")
    group.add_argument("--processes", type=int, metavar="N", help="by hand: how many there are")
    group.add_argument("--process", type=int, metavar="I", help="by hand: which one this is, from 0")
    group = parser.add_argument_group("a look ahead", "without weights, texts or a network")
    group.add_argument(
        "--dry_run", nargs="?", const="table", choices=("table", "json"),
        help="check the config and print what the run takes: parameters, memory, arithmetic, time",
    )  # fmt: skip
    group.add_argument("--devices", type=int, metavar="N", help="how many (default: those of config.mesh, or of this machine)")
    group.add_argument("--device", metavar="NAME", help="of which kind, such as h100 or tpu-v4 (default: a list of them)")


def run(args: argparse.Namespace) -> int:
    if not args.dry_run and (args.devices or args.device):
        raise UserError("--devices and --device belong to --dry_run")
    if not args.dry_run and not args.workdir:
        raise UserError("the following arguments are required: --workdir (zett train --help lists the arguments)")
    config = load_config(args.config, args.split)
    if args.dry_run:
        return _dry_run(config, args)

    first = True
    if args.distributed or any(x is not None for x in (args.coordinator, args.processes, args.process)):
        import jax

        from zett.mesh import start_processes

        start_processes(args.coordinator, args.processes, args.process)
        first = jax.process_index() == 0
    with shown(first):
        with phase("loading JAX"):
            from zett.train.run import train

        train(config, args.workdir)
    return 0


def _dry_run(config: Config, args: argparse.Namespace) -> int:
    if args.devices is not None and args.devices < 1:
        raise UserError(f"--devices is {args.devices}; it has to be at least 1")
    if args.devices or -1 not in (config.mesh.data, config.mesh.fsdp, config.mesh.tensor):
        os.environ["JAX_PLATFORMS"] = "cpu"  # no device is asked for anything: another run may have them
    from zett.plan.report import plan, tables

    report = plan(config, devices=args.devices, device=args.device)
    print(json.dumps(report, indent=2) if args.dry_run == "json" else tables(report))
    if report["fault"]:
        raise UserError(report["fault"])
    return 0
