"""A hypernetwork for SmolLM2 135M (its variants, such as Instruct, can use it, too): English and Python. The one in the package
had 1,500 steps of an earlier version of it, on other texts, and 150 small ones of these tokenizers: its card has them.

    python train.py --config configs/smollm2.py --workdir runs/smollm2

One H100 of 80 GB: 8 GiB, 0.057 s a step, 7 minutes for all steps: estimates of `--dry_run`, which makes them for other devices,
too, by rates measured on an H100 (an earlier version took 0.071 s a step). The first start reads 1 GB of text into the cache
and trains the tokenizers that others are drawn from. Without a network: --config.base=FOLDER_OR_GGUF, --config.data.text=TEXT.
"""

from ml_collections import ConfigDict

# What texts and tokenizers are drawn from: English, and the Python sources of this machine. Neither needs an account.
SOURCES = {"hf:HuggingFaceFW/fineweb-edu:sample-10BT": 2.0, "python": 1.0}


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            recipe="hypernet",
            base="HuggingFaceTB/SmolLM2-135M",
            data=dict(
                text="|".join(f"{weight:g}*{source}" for source, weight in SOURCES.items()),
                stream_bytes=1_000_000_000, batch_size=64, length=256,
            ),
            hypernet=dict(width=768, feed_forward=1536, heads=12),
            sampler=dict(
                texts=tuple(SOURCES), text_weights=tuple(SOURCES.values()), min_size=4000, max_size=65536, rows=8192, pool=9,
                pool_bytes=20_000_000, inventory=300_000, inventory_bytes=24_000_000,
                bpe=0.3, unigram=0.3, substring=0.1, near=0.1, superword=0.2,
            ),
            optim=dict(
                name="muon", learning_rate=1e-3, matrix_learning_rate=0.01, warmup_steps=100, schedule="linear",
                weight_decay=0.0, clip=1.0,
            ),
            train=dict(
                steps=7500, log_every=25, eval_every=1500, checkpoint_every=1500, workers=8, ahead=16,
                eval_targets=("bpe-32k", "unigram-16k", "openai-community/gpt2"),
            ),
        )
    )  # fmt: skip
