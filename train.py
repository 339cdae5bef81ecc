"""Train a hypernetwork or a small base model: `python train.py --config configs/pico.py --workdir runs/pico`."""

from zett.cli import train_main

if __name__ == "__main__":
    train_main()
