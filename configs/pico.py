"""The hypernetwork for the shipped base model `pico`, on the Python sources of this machine.

    python train.py --config configs/pico.py --workdir runs/pico

Two CPU cores, 35 to 45 minutes, 2.5 GB. Expect 1.18, 1.04 and 1.18 times the original's bits per byte on bpe-2k, bpe-8k and
unigram-8k. The shipped hypernetwork goes on from there (--config.start): its card in zett/assets/pico-hypernet has them.
For another base model: --config.base, --config.data.text.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            recipe="hypernet",
            seed=0,
            base="pico",
            data=dict(text="python", batch_size=16, length=256),
            sampler=dict(texts=("python", "prose"), max_size=20000),
            optim=dict(
                name="muon", learning_rate=1e-3, matrix_learning_rate=0.01, warmup_steps=50, schedule="linear",
                weight_decay=0.0, clip=1.0,
            ),
            train=dict(
                steps=2000, eval_every=200, checkpoint_every=200, log_every=10,
                eval_targets=("bpe-2k", "bpe-8k", "unigram-8k"),
            ),
        )
    )  # fmt: skip
