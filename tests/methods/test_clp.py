"""CLP-Transfer: against its formula in float64."""

import numpy as np
import pytest
import tiny

from zett.errors import UserError
from zett.lms import load_base_model
from zett.methods import make_method
from zett.vocab import load_tokenizer


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("tied", [True, False])
def test_rows_are_those_of_the_formula(tied, tmp_path, base_folder, target_folder):
    base, target = load_base_model(base_folder, body=False), load_tokenizer(target_folder)
    folder = tiny.base_folder(tmp_path / "donor", own=tiny.tokenizer("bpe", 400), tied=tied, dtype="float32", seed=5)
    donor = load_base_model(folder, body=False)
    out = make_method(f"clp:{folder}")(base, target)
    new = [i for i, token in enumerate(target.tokens) if token and token not in base.vocab.id_of]
    there, here = zip(*((donor.vocab.id_of[t], base.vocab.id_of[t]) for t in target.tokens if t and t in base.vocab.id_of))
    for found, theirs, ours in [
        (out.input, donor.table.input, base.table.input),
        (out.output, donor.table.output_rows, base.table.output),
    ]:
        theirs, ours = np.asarray(theirs, np.float64), np.asarray(ours, np.float64)
        similar = cosines(theirs[[donor.vocab.id_of[target.tokens[i]] for i in new]], theirs[list(there)])
        sums = similar.sum(1, keepdims=True)
        sound = np.abs(sums[:, 0]) > 0.05 * np.abs(similar).sum(1)
        assert sound.sum() > 30
        expected = (similar / sums) @ ours[list(here)]
        found = np.asarray(found, np.float32)[new]
        np.testing.assert_allclose(found[sound], expected[sound], rtol=2**-7, atol=1e-3)  # in bfloat16, as the base is


def test_a_donor_is_needed(base_folder, target_folder):
    with pytest.raises(UserError, match="method clp needs a donor"):
        make_method("clp").precheck("pico")
    base, target = load_base_model(base_folder, body=False), load_tokenizer(target_folder)
    with pytest.raises(UserError, match=r"has 0 of the \d+ tokens of the target tokenizer that the base model lacks"):
        make_method(f"clp:{base_folder}")(base, target)
