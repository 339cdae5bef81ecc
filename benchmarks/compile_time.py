"""What scanning layers and rematerialisation save: compile time by depth, and memory of a gradient.

    python -m benchmarks.compile_time --output benchmarks/results/compile_time.json

Compiled is the gradient of a body's output with respect to its parameters and input, as training does. The reference is the
same body with all of its layers unrolled. Medians in CPU seconds, which other work on the machine moves least.
"""

import statistics
import time

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.common import arguments, finish
from zett.lms import gemma2, layers, llama
from zett.lms.decoder import DecoderConfig

SHAPE = {"hidden_size": 512, "num_heads": 8, "num_kv_heads": 4, "head_dim": 64, "intermediate_size": 1536}
BATCH, LENGTH = 8, 512


def config(family: str, depth: int) -> DecoderConfig:
    if family == "llama":
        return llama.LlamaConfig(**SHAPE, num_layers=depth)
    return gemma2.Gemma2Config(**SHAPE, num_layers=depth, windows=(256, None) * (depth // 2), attention_softcap=50.0)


def compile_gradient(family: str, depth: int, *, unrolled: bool, remat: layers.Remat = "none"):
    """The compiled gradient, and the CPU and wall seconds that tracing and compiling took."""
    layers.UNROLLED = depth if unrolled else 0
    body = {"llama": llama, "gemma2": gemma2}[family].FAMILY.Body
    graphdef, params = nnx.split(nnx.eval_shape(lambda: body(config(family, depth), remat=remat, rngs=nnx.Rngs(0))))
    x = jax.ShapeDtypeStruct((BATCH, LENGTH, SHAPE["hidden_size"]), jnp.float32)
    gradient = jax.jit(jax.grad(lambda x, params: nnx.merge(graphdef, params)(x).sum(), (0, 1)))
    cpu, wall = time.process_time(), time.perf_counter()
    compiled = gradient.lower(x, params).compile()
    return compiled, time.process_time() - cpu, time.perf_counter() - wall


def main() -> None:
    args = arguments(__doc__, repeats=3).parse_args()
    default = layers.UNROLLED
    compile_gradient("llama", 1, unrolled=True)  # what is done once a process
    seconds: dict[str, dict[str, float]] = {}
    for family in ("llama", "gemma2"):
        for depth in (4, 32):
            for unrolled in (False, True):
                runs = [compile_gradient(family, depth, unrolled=unrolled)[1:] for _ in range(args.repeats)]
                cpu, wall = (statistics.median(values) for values in zip(*runs))
                name = f"{family}, {depth} layers, {'unrolled' if unrolled else 'scanned'}"
                seconds[name] = {"cpu_seconds": cpu, "wall_seconds": wall}
                print(name, f"{cpu:.2f} s", flush=True)
    memory = {}
    for remat in ("none", "dots", "full"):
        compiled, _, _ = compile_gradient("llama", 32, unrolled=False, remat=remat)
        memory[remat] = compiled.memory_analysis().temp_size_in_bytes
    report = {
        "shape": SHAPE | {"batch": BATCH, "length": LENGTH},
        "unrolled_by_default_up_to": default,
        "compile": seconds,
        "32_layers_over_4": {
            family: {
                how: seconds[f"{family}, 32 layers, {how}"]["cpu_seconds"]
                / seconds[f"{family}, 4 layers, {how}"]["cpu_seconds"]
                for how in ("scanned", "unrolled")
            }
            for family in ("llama", "gemma2")
        },
        "gradient_bytes_llama_32_layers": memory,
        "repeats": args.repeats,
    }
    finish(report, args.output)


if __name__ == "__main__":
    main()
