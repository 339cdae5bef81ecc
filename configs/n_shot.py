"""Continued training of a transferred model ("n-shot"), here TinyLlama 1.1B; in the paper it closes most of the gap that is
left.

    zett transfer --model TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T --hypernet runs/tinyllama/export \
        --tokenizer openai-community/gpt2 --output runs/tinyllama-gpt2
    python train.py --config configs/n_shot.py --workdir runs/n_shot

One H100 of 80 GB: 31 GiB, 0.25 s a step, 3.4 hours for all steps: estimates of `--dry_run`, which makes them for other devices,
too, by rates measured on an H100. Nothing here has run on an accelerator yet. The first start reads 4 GB of text into the
cache.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            recipe="lm",
            start="runs/tinyllama-gpt2",
            # Under a billion tokens, as in the paper: 50,000 steps of 32 x 512.
            data=dict(text="hf:HuggingFaceFW/fineweb-edu:sample-10BT", stream_bytes=4_000_000_000, batch_size=32, length=512),
            optim=dict(learning_rate=3e-6, warmup_steps=500, final_share=0.1, clip=0.1),
            train=dict(steps=50_000, remat="dots", log_every=25, eval_every=2500, checkpoint_every=2500),
        )
    )  # fmt: skip
