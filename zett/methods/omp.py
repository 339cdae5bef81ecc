"""Orthogonal matching pursuit (Goddard and Fernandes Neto, arXiv 2506.06607), as mergekit's tokensurgeon computes it.

In the donor's space, a new token's row is approximated by a few rows of shared tokens: in each of k steps, the shared row is
taken whose product with what is left is largest, and all that were taken are fitted again by least squares. The same
coefficients, on the base model's rows of the same tokens, give the new row.
"""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from zett.errors import UserError
from zett.lms.base import BaseModel
from zett.methods.donor import DonorMethod, check_finite, check_knows, donor_ids, shared_by_all
from zett.methods.mixing import Mixture, Weigh, mixed_table, new_tokens
from zett.table import EmbeddingTable
from zett.values import Within
from zett.vocab import Vocabulary

STEPS = Within(1, 1024)
CHUNK, BASES = 256, 2**25  # rows at a time, and the most numbers in their bases [n, k, D], which are what takes memory
# In float32, what is left of a row of norm 1 after subtracting all of it.
NOTHING = 1e-5


@dataclasses.dataclass(frozen=True)
class OMP(DonorMethod):
    """A donor's rows of new tokens as sums of k shared tokens' rows; the same sums of the base model's rows.

    donor: a model that was trained with the target tokenizer: a folder, a GGUF file or a Hub name. k: shared tokens in a sum.
    Output rows are made from the donor's output rows. arXiv 2506.06607.
    """

    k: int = 64

    name: ClassVar[str] = "omp"

    def __post_init__(self) -> None:
        if self.k not in STEPS:
            raise UserError(f"method omp: k is {self.k}; it has to be {STEPS}")

    def __call__(self, base: BaseModel, target: Vocabulary, *, seed: int = 0) -> EmbeddingTable:
        """`seed` is not used."""
        donor, ids = self._donor, donor_ids(self._donor, target)
        check_knows(donor, ids, new_tokens(base, target))
        theirs, ours = shared_by_all(base, target, donor, ids, self.name, least=self.k)
        output = donor.table.output if base.table.output is not None else None
        chunk = max(min(CHUNK, BASES // (self.k * donor.table.input.shape[1])), 16)
        weigh = _weigher(donor, donor.table.input, theirs, ours, ids, self.k, chunk)
        weigh_output = None if output is None else _weigher(donor, output, theirs, ours, ids, self.k, chunk)
        return mixed_table(base, target, weigh, weigh_output, chunk=chunk)


def _weigher(
    donor: BaseModel, rows, theirs: np.ndarray, ours: np.ndarray, ids: np.ndarray, k: int, chunk: int
) -> Weigh:  # fmt: skip
    """The sums for at most `chunk` target ids.

    rows: the donor's; theirs, ours: shared tokens in donor and base; ids: the donor's by target.
    """
    rows = np.asarray(rows)
    atoms = rows[theirs].astype(np.float32)
    check_finite(donor, atoms)
    atoms = jnp.asarray(atoms)

    def weigh(some: np.ndarray) -> Mixture:
        targets = np.zeros((chunk, rows.shape[1]), np.float32)  # always as many: one shape to compile
        known = np.flatnonzero(ids[some] >= 0)
        targets[known] = rows[ids[some[known]]]
        check_finite(donor, targets)
        picked, weights = (np.asarray(part)[: len(some)] for part in pursue(jnp.asarray(targets), atoms, k))
        return Mixture(ours[picked], weights)

    return weigh


@functools.partial(jax.jit, static_argnums=2)
def pursue(targets, atoms, k: int):
    """The atoms `[N, D]` picked for each of `targets [n, D]`, and their coefficients: both `[n, k]`.

    The QR form: q holds the orthonormal basis of what was picked, r its coordinates. Where nothing of a target is left, and for
    an atom in the span of those before it, the coefficient is 0. Products are exact to float32 on every device.
    """
    n, lines = len(targets), jnp.arange(len(targets))
    einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    size = jnp.linalg.norm(targets, axis=1)

    def step(t, state):
        left, q, r, y, ids, taken = state
        products = jnp.where(taken, -1.0, jnp.abs(einsum("nd,md->nm", left, atoms)))
        picked = jnp.argmax(products, 1)
        atom = atoms[picked]
        # Twice, since what is left of an atom after the first time is not orthogonal to float32.
        first = einsum("nkd,nd->nk", q, atom)
        new = atom - einsum("nk,nkd->nd", first, q)
        second = einsum("nkd,nd->nk", q, new)
        new = new - einsum("nk,nkd->nd", second, q)
        norm = jnp.linalg.norm(new, axis=1)
        useful = (norm > NOTHING * jnp.linalg.norm(atom, axis=1)) & (jnp.linalg.norm(left, axis=1) > NOTHING * size)
        norm = jnp.where(useful, norm, 1)
        new = jnp.where(useful[:, None], new / norm[:, None], 0)
        part = einsum("nd,nd->n", new, left)
        r = r.at[:, :, t].set((first + second).at[:, t].set(norm))
        left = left - part[:, None] * new
        return left, q.at[:, t].set(new), r, y.at[:, t].set(part), ids.at[:, t].set(picked), taken.at[lines, picked].set(True)

    q, r, y = (jnp.zeros((n, *shape), jnp.float32) for shape in ((k, targets.shape[1]), (k, k), (k,)))
    taken = jnp.zeros((n, len(atoms)), bool)
    _, _, r, y, ids, _ = jax.lax.fori_loop(0, k, step, (targets, q, r, y, jnp.zeros((n, k), int), taken))
    return ids, jax.scipy.linalg.solve_triangular(r, y[..., None])[..., 0]
