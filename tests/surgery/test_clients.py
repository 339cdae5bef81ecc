"""What the commands write is a model like any other for Transformers: each shape of model, by each command."""

import json
from pathlib import Path

import pytest
from surgery.shapes import LINES, model_folder

import zett

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SHAPES = ["llama", "gpt2", "gemma3_text", "qwen3", "bert"]
COMMANDS = ["trim", "add", "transfer", "draft"]
ROLES = ("bos", "eos", "pad", "unk", "cls", "sep", "mask")


def edited(command: str, base: Path, folder: Path, kind: str) -> tuple[Path, Path]:
    """What the command makes of `base`, and the folder whose tokenizer and ids it is to have."""
    text = folder / "text.txt"
    text.write_text("\n".join(LINES))
    if command == "trim":
        return zett.trim(base, folder / "out", text=str(text), vocab_size=440), base
    if command == "add":
        return zett.add_tokens(base, folder / "out", from_text=str(text), n=20, method="fvt"), base
    other = model_folder(folder / "other", "bert" if kind == "bert" else "qwen3" if kind != "qwen3" else "gpt2")
    like = other if command == "draft" else None
    return zett.transfer(base, other, folder / "out", method="fvt", like=like), other


@pytest.fixture(scope="module", params=[(k, c) for k in SHAPES for c in COMMANDS if (k, c) != ("bert", "draft")], ids="-".join)
def made(request, tmp_path_factory):
    kind, command = request.param
    folder = tmp_path_factory.mktemp(f"{kind}-{command}")
    base = model_folder(folder / "base", kind)
    auto = transformers.AutoModelForMaskedLM if kind == "bert" else transformers.AutoModelForCausalLM
    return auto, *edited(command, base, folder, kind)


def logits(model, ids):
    with torch.no_grad():
        return model.eval()(torch.tensor([ids])).logits[0]


def test_load_save_load_and_resize(made, tmp_path):
    auto, output, _ = made
    model, info = auto.from_pretrained(output, output_loading_info=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(output)
    assert not any(info.values()), info
    ids = tokenizer(LINES[3])["input_ids"]
    rows, before = model.get_input_embeddings().num_embeddings, logits(model, ids)
    assert rows == model.config.vocab_size >= len(tokenizer) and torch.isfinite(before).all()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert [again(line)["input_ids"] for line in LINES[:40]] == [tokenizer(line)["input_ids"] for line in LINES[:40]]
    torch.testing.assert_close(logits(auto.from_pretrained(tmp_path), ids), before, rtol=0, atol=0)
    model.resize_token_embeddings(rows + 3, mean_resizing=False)
    torch.testing.assert_close(logits(model, ids)[:, :rows], before, rtol=0, atol=1e-6)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    torch.testing.assert_close(logits(model, ids), before[:, : len(tokenizer)], rtol=0, atol=1e-6)


def test_roles_and_frames(made):
    """Special tokens have their roles, in the tokenizer and in the configs, and frame texts and pairs as they did."""
    _, output, like = made
    folders = (like, output, output.parent / "base")
    old, new, before = (transformers.AutoTokenizer.from_pretrained(folder) for folder in folders)
    for role in ROLES:
        assert getattr(old, f"{role}_token") == getattr(new, f"{role}_token")
    config = json.loads((output / "config.json").read_text())
    for role in ("bos", "eos", "pad"):
        own, found = getattr(new, f"{role}_token_id"), config[f"{role}_token_id"]
        # A tokenizer without the role may have the token that has it in the model of before.
        assert found == own or (own is None and new.convert_ids_to_tokens(found) == getattr(before, f"{role}_token")), role
    for given in (("a b",), ("a b", "c")):
        tokens = [tok.convert_ids_to_tokens(tok(*given)["input_ids"]) for tok in (old, new)]
        framed = [[token for token in some if token in old.all_special_tokens] for some in tokens]
        assert framed[0] == framed[1]
    text = LINES[3]
    assert new.decode(new(text)["input_ids"], skip_special_tokens=True) == old.decode(
        old(text)["input_ids"], skip_special_tokens=True
    )


def test_generation_stops_at_the_end(made):
    auto, output, _ = made
    if auto is not transformers.AutoModelForCausalLM:
        pytest.skip("an encoder")
    tokenizer, model = transformers.AutoTokenizer.from_pretrained(output), auto.from_pretrained(output).eval()
    prompt = tokenizer(LINES[3][:20], return_tensors="pt")
    with torch.no_grad():
        hidden = model(**prompt, output_hidden_states=True).hidden_states[-1][0, -1]
        model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))  # no longer tied
        model.lm_head.weight[tokenizer.eos_token_id] = hidden
    made_ids = model.generate(**prompt, max_new_tokens=5, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert made_ids.tolist() == [tokenizer.eos_token_id]
