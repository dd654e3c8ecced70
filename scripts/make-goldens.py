#!/usr/bin/env python3
"""Remake the golden files of tests/ that come from other people's code: gguf-py, torch and transformers.

    make-goldens.py dequant      tests/text/goldens/dequant.txt     (needs numpy, gguf)
"""
import argparse
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent


def random_blocks(qtype, n, rng):
    """n valid blocks of a quantised type: random bits everywhere, finite f16 (f32 for Q8_K) where the scales lie."""
    import gguf
    from gguf import GGMLQuantizationType as T

    size, type_bytes = gguf.GGML_QUANT_SIZES[qtype]
    blocks = rng.integers(0, 256, (n, type_bytes), dtype=np.uint8)
    halves = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82], T.Q3_K: [108],
              T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}
    for at in halves.get(qtype, []):
        blocks[:, at:at + 2] = (rng.standard_normal(n) * 0.02).astype(np.float16).view(np.uint8).reshape(n, 2)
    if qtype == T.Q8_K:
        blocks[:, 0:4] = (rng.standard_normal(n) * 0.02).astype(np.float32).view(np.uint8).reshape(n, 4)
    return blocks


def dequantize(blocks, qtype):
    """gguf-py's decoding; it lacks Q8_K, which is one product."""
    import gguf

    if qtype == gguf.GGMLQuantizationType.Q8_K:
        return blocks[:, 0:4].copy().view(np.float32) * blocks[:, 4:260].view(np.int8).astype(np.float32)
    return gguf.quants.dequantize(blocks, qtype)


def make_dequant(args):
    import gguf
    from gguf import GGMLQuantizationType as T

    rng = np.random.default_rng(20)
    lines = ["# Made by scripts/make-goldens.py dequant. Type, blocks, little-endian f32 values of gguf.quants.dequantize."]
    for t in [T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K, T.Q8_K]:
        n = 1024 // gguf.GGML_QUANT_SIZES[t][0]
        blocks = random_blocks(t, n, rng)
        lines.append(f"{t.name} {blocks.tobytes().hex()} {dequantize(blocks, t).astype('<f4').tobytes().hex()}")
    plain = (rng.standard_normal(64) * 10.0 ** rng.integers(-6, 4, 64)).astype(np.float32)
    for t in [T.F32, T.F16, T.BF16]:
        blocks = gguf.quants.quantize(plain, t) if t == T.BF16 else plain.astype({T.F32: "<f4", T.F16: "<f2"}[t])
        values = gguf.quants.dequantize(blocks, t).astype("<f4")
        lines.append(f"{t.name} {blocks.tobytes().hex()} {values.tobytes().hex()}")
    out = ROOT / "tests/text/goldens/dequant.txt"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("dequant").set_defaults(run=make_dequant)
    args = parser.parse_args()
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
