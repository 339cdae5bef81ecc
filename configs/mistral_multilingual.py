"""A hypernetwork for Mistral-7B in 26 languages, each told to the hypernetwork by an embedding.

    python train.py --config configs/mistral_multilingual.py --workdir runs/mistral_multilingual --distributed

A TPU v4-32 (16 chips of 32 GB, 4 hosts): 23 GiB on each chip, 0.40 s a step, 22 hours for all steps: estimates of `--dry_run`,
which makes them for other devices, too, by rates measured on an H100. Nothing here has run on an accelerator yet. The first
start reads 13 GB of text into the cache, each host its share, and trains the tokenizers that others are drawn from.
"""

from ml_collections import ConfigDict

# Language: (data set, gigabytes of it in CC-100; of the last two, which that lacks, in FineWeb-2).
# They are the paper's 26. Nothing here needs an account.
LANGUAGES = {
    "en": ("fineweb:sample-10BT", 300.8), "ru": ("fineweb-2:rus_Cyrl", 278.0), "de": ("fineweb-2:deu_Latn", 66.6),
    "es": ("fineweb-2:spa_Latn", 53.3), "fr": ("fineweb-2:fra_Latn", 56.8), "it": ("fineweb-2:ita_Latn", 30.2),
    "pt": ("fineweb-2:por_Latn", 49.1), "el": ("fineweb-2:ell_Grek", 46.9), "ko": ("fineweb-2:kor_Hang", 54.2),
    "fi": ("fineweb-2:fin_Latn", 54.3), "id": ("fineweb-2:ind_Latn", 148.3), "tr": ("fineweb-2:tur_Latn", 20.9),
    "ar": ("fineweb-2:arb_Arab", 28.0), "vi": ("fineweb-2:vie_Latn", 137.3), "bg": ("fineweb-2:bul_Cyrl", 57.5),
    "ca": ("fineweb-2:cat_Latn", 10.1), "hi": ("fineweb-2:hin_Deva", 20.2), "et": ("fineweb-2:ekk_Latn", 6.1),
    "bn": ("fineweb-2:ben_Beng", 8.4), "ta": ("fineweb-2:tam_Taml", 12.2), "ur": ("fineweb-2:urd_Arab", 5.7),
    "sw": ("fineweb-2:swh_Latn", 1.6), "te": ("fineweb-2:tel_Telu", 4.7), "eu": ("fineweb-2:eus_Latn", 2.0),
    "ht": ("fineweb-2:hat_Latn", 0.3), "qu": ("fineweb-2:quz_Latn", 0.01),
}  # fmt: skip
SOURCES = tuple(f"hf:HuggingFaceFW/{name}" for name, _ in LANGUAGES.values())
WEIGHTS = tuple(size**0.1 for _, size in LANGUAGES.values())  # a stream does not tell its size, so no sampler.text_exponent


def get_config() -> ConfigDict:
    return ConfigDict(
        dict(
            recipe="hypernet",
            base="mistralai/Mistral-7B-v0.1",
            start="runs/mistral/export",  # what configs/mistral.py has made; the embeddings of languages are new
            # Texts of a step are in the language of its tokenizer; `source` is what is held out for evaluation.
            data=dict(text=SOURCES[0], stream_bytes=500_000_000, parts=4, batch_size=128, length=128),
            hypernet=dict(width=4096, feed_forward=8192, heads=32, max_pieces=7, languages=tuple(LANGUAGES)),
            sampler=dict(
                texts=SOURCES, text_weights=WEIGHTS, one_text=True, stream_bytes=50_000_000,
                max_size=32768, sizes="fixed", rows=0, substring=0.6, bpe=0.2, unigram=0.2, pool=26, pool_bytes=3_000_000,
                inventory=1_500_000, inventory_bytes=130_000_000, noise_mean=-11.5, noise_std=4.0,
            ),
            loss=dict(lexical=0.5),
            optim=dict(learning_rate=6e-5, warmup_steps=10_000, final_share=0.1, clip=0.1),
            train=dict(
                steps=200_000, log_every=25, eval_every=5000, eval_targets=("bpe-32k", "unigram-32k"), checkpoint_every=1000,
                ahead=4, workers=4, remat="dots", remat_hypernet="dots",
            ),
            mesh=dict(fsdp=2),  # cut no further than memory asks for: parts are gathered at every step
        )
    )  # fmt: skip
