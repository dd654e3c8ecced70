#!/usr/bin/env python3
"""How far quantised arithmetic strays from the f32 decoding of the same weights: KL divergence of the next-token distribution, ours (--math fast)
and llama.cpp's, both against our --math f32 --kv-type f32, after prefixes of real text.

    scripts/compare-quality.py MODEL.gguf [--contexts 48] [--server build/peers/llama/bin/llama-server]

Needs build/release/tests/tool_logits (make tools) and numpy. Without a llama-server only our own figure is printed.
"""
import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOOL = os.path.join(ROOT, "build/release/tests/tool_logits")
PROGRAM = os.path.join(ROOT, "build/release/tokenmill")


def contexts(model, n):
    """Token ids of prefixes of this project's own documents and code: prose and code, 20 to 400 tokens."""
    files = ["README.md", "HACKING.md", "engine/schedule.c", "engine/kv.c", "scripts/compare-quality.py"]
    out = []
    for name in files:
        path = os.path.join(ROOT, name)
        if not os.path.exists(path):
            continue
        ids = json.loads(subprocess.run([PROGRAM, "tokenize", "--model", model, "--whole", path], check=True, capture_output=True).stdout)
        step = max(1, len(ids) // (n // len(files) + 1))
        out += [ids[at:at + 20 + (at * 7) % 380] for at in range(0, len(ids) - 20, step)]
    return out[:n]


def log_softmax(x):
    x = x.astype(np.float64)
    x -= x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def ours(model, ids, math, kv):
    text = "".join(json.dumps(i) + "\n" for i in ids)
    raw = subprocess.run([TOOL, model, math, kv], input=text.encode(), check=True, capture_output=True).stdout
    return log_softmax(np.frombuffer(raw, dtype="<f4").reshape(len(ids), -1))


def theirs(server, model, ids, n_vocab):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    process = subprocess.Popen([server, "-m", model, "--host", "127.0.0.1", "--port", str(port), "-np", "1", "-c", "2048"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    rows = []
    try:
        for _ in range(600):
            try:
                if urllib.request.urlopen(url + "/health", timeout=5).status == 200:
                    break
            except OSError:
                time.sleep(0.1)
        for one in ids:
            body = {"prompt": one, "n_predict": 1, "n_probs": n_vocab, "temperature": 0, "cache_prompt": False, "post_sampling_probs": False}
            request = urllib.request.Request(url + "/completion", json.dumps(body).encode(), {"Content-Type": "application/json"})
            answer = json.load(urllib.request.urlopen(request, timeout=300))
            row = np.full(n_vocab, -60.0)
            for item in answer["completion_probabilities"][0]["top_logprobs"]:
                row[item["id"]] = item["logprob"]
            rows.append(row)
    finally:
        process.terminate()
        process.wait()
    return log_softmax(np.array(rows))


def divergence(p, q):
    return (np.exp(p) * (p - q)).sum(axis=-1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--contexts", type=int, default=48)
    parser.add_argument("--server", default=os.path.join(ROOT, "build/peers/llama/bin/llama-server"))
    args = parser.parse_args()
    ids = contexts(args.model, args.contexts)
    exact = ours(args.model, ids, "f32", "f32")
    rows = [("tokenmill --math fast, f16 KV", ours(args.model, ids, "fast", "f16")),
            ("tokenmill --math f32, f16 KV", ours(args.model, ids, "f32", "f16"))]
    if os.path.exists(args.server):
        rows.append(("llama.cpp", theirs(args.server, args.model, ids, exact.shape[1])))
    else:
        print(f"no {args.server}: llama.cpp is left out", file=sys.stderr)
    print(f"{len(ids)} contexts, KL divergence to f32 weights, activations and KV")
    for name, q in rows:
        kl = divergence(exact, q)
        same = (exact.argmax(axis=-1) == q.argmax(axis=-1)).mean()
        print(f"{name:32} mean {kl.mean():.2e}  median {np.median(kl):.2e}  worst {kl.max():.2e}  same best token {same:.3f}")


if __name__ == "__main__":
    main()
