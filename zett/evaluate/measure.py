"""What a base model is measured by: bits per byte, or masked bits per byte if it is a masked language model."""

import dataclasses
import functools
import math
from collections.abc import Callable

from zett.data.masked import frame_of
from zett.evaluate.bpb import encode_windows, window_nats
from zett.evaluate.masked import encode_masked, masked_nats


@dataclasses.dataclass(frozen=True)
class Measure:
    """name: in words. encode: (windows, tokenizer) -> `EncodedWindows`. nats: (params of the body, table, encoded windows,
    batch_size and dtype as `window_nats` takes them) -> nats of each window `[N]`, which count against the `scored_bytes`."""

    name: str
    encode: Callable
    nats: Callable

    def bits(self, params, table, encoded, **settings) -> float:
        """Bits for each byte that counts."""
        return float(self.nats(params, table, encoded, **settings).sum()) / math.log(2) / encoded.scored_bytes


def measure_of(base) -> Measure:
    """The measure of a `BaseModel` that was loaded with its body. UserError for an encoder without a masked-LM head."""
    if base.causal:
        return Measure("bits per byte", encode_windows, functools.partial(_causal_nats, base.graphdef, base.bos_row))
    return Measure("masked bits per byte", encode_masked, functools.partial(masked_nats, base, frame_of(base)))


def _causal_nats(graphdef, bos_row, params, table, encoded, **settings):
    return window_nats(graphdef, params, table, bos_row, encoded, **settings)
