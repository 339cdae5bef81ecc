"""Train a hypernetwork or a small base model: `python train.py --config configs/pico.py --workdir runs/pico`."""

from zett.cli import run_script

if __name__ == "__main__":
    run_script("train", prog="train.py")
