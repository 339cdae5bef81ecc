"""Train a hypernetwork for the shipped base model `pico`, on the Python sources of this machine."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            task="hypernet",
            seed=0,
            base="pico",
            data=dict(source="python", batch_size=16, length=256),
            sampler=dict(sources=("python", "prose"), max_size=20000),
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
