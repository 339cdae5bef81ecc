"""The embedded base model `pico`: a Llama of 6.3M parameters on the Python sources of this machine.

    python train.py --config configs/pico_base.py --workdir runs/pico_base

Two CPU cores, 50 to 70 minutes, 2 GB. Expect 1.07 bits per byte on held-out files; `export/` is what zett/assets/pico holds.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            recipe="lm",
            seed=0,
            data=dict(text="python", batch_size=16, length=256, resegment_share=0.4, resegment_rate=0.3),
            tokenizer=dict(kind="bpe", vocab_size=6144),
            model=dict(name="pico", hidden_size=256, num_layers=4, num_heads=4, num_kv_heads=2, intermediate_size=768),
            optim=dict(
                name="muon", learning_rate=4e-3, matrix_learning_rate=0.02, warmup_steps=100, schedule="linear",
                weight_decay=0.0,
            ),
            train=dict(steps=3200, eval_every=200, checkpoint_every=200, log_every=10, dtype="bfloat16"),
        )
    )  # fmt: skip
