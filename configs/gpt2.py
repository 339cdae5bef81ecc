"""A hypernetwork for GPT-2: English.

    python train.py --config configs/gpt2.py --workdir runs/gpt2

One H100 of 80 GB: 9 GiB, 0.07 s a step, 3.7 hours for all steps: estimates of `--dry_run`, which makes them for other devices,
too, by rates measured on an H100. Nothing here has run on an accelerator yet. The first start reads 13 GB of text into the
cache and trains the tokenizers that others are drawn from.
"""

from ml_collections import ConfigDict

ENGLISH = "hf:HuggingFaceFW/fineweb-edu:sample-10BT"  # needs no account


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            recipe="hypernet",
            base="openai-community/gpt2",
            data=dict(text=ENGLISH, stream_bytes=13_000_000_000, batch_size=128, length=128),
            hypernet=dict(width=768, feed_forward=1536, heads=12, max_pieces=7),
            sampler=dict(
                max_size=32768, sizes="fixed", rows=0, substring=0.6, bpe=0.2, unigram=0.2, pool_bytes=10_000_000,
                inventory=400_000, inventory_bytes=64_000_000, noise_mean=-11.5, noise_std=4.0,
            ),
            loss=dict(lexical=0.5),
            optim=dict(learning_rate=6e-5, warmup_steps=10_000, final_share=0.1, clip=0.1),
            train=dict(
                steps=200_000, log_every=25, eval_every=5000, eval_targets=("bpe-32k", "unigram-32k"), checkpoint_every=1000,
                ahead=4, workers=4,
            ),
        )
    )  # fmt: skip
