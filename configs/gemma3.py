"""A hypernetwork for Gemma 3 1B: English and code.

    python train.py --config configs/gemma3.py --workdir runs/gemma3

One H100 of 80 GB: 26 GiB, 0.21 s a step, 12 hours for all steps: estimates of `--dry_run`, which makes them for other devices,
too, by rates measured on an H100. Nothing here has run on an accelerator yet. The first start reads 13 GB of text into the
cache and trains the tokenizers that others are drawn from.
"""

from ml_collections import ConfigDict

# What texts and tokenizers are drawn from: English 14, six programming languages 1 each.
# FineWeb-Edu needs no account; StarCoderData is gated: accept its terms on the Hub and log in (`hf auth login`).
CODE = ("python", "javascript", "java", "cpp", "go", "rust")
SOURCES = {"hf:HuggingFaceFW/fineweb-edu:sample-10BT": 14.0} | {
    f"hf:bigcode/starcoderdata?data_dir={language}&column=content": 1.0 for language in CODE
}


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            recipe="hypernet",
            base="google/gemma-3-1b-pt",  # gated, too
            data=dict(
                text="|".join(f"{weight:g}*{source}" for source, weight in SOURCES.items()),
                stream_bytes=13_000_000_000, batch_size=128, length=128,
            ),
            hypernet=dict(width=1152, feed_forward=2304, heads=9, max_pieces=7),
            sampler=dict(
                texts=tuple(SOURCES), text_weights=tuple(SOURCES.values()),
                max_size=32768, sizes="fixed", rows=0, substring=0.6, bpe=0.2, unigram=0.2, pool=14, pool_bytes=10_000_000,
                inventory=400_000, inventory_bytes=64_000_000, noise_mean=-11.5, noise_std=4.0,
            ),
            loss=dict(lexical=0.5),
            optim=dict(learning_rate=6e-5, warmup_steps=10_000, final_share=0.1, clip=0.1),
            train=dict(
                steps=200_000, log_every=25, eval_every=5000, eval_targets=("bpe-32k", "unigram-32k", "openai-community/gpt2"),
                checkpoint_every=1000, workers=2, remat="dots", remat_hypernet="dots",
            ),
        )
    )  # fmt: skip
