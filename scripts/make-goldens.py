#!/usr/bin/env python3
"""Remake the golden files of tests/ that come from other people's code: gguf-py, torch and transformers.

    make-goldens.py dequant            tests/text/goldens/dequant.txt              (needs numpy, gguf)
    make-goldens.py models [NAME...]   tests/engine/goldens/: small random models   (needs torch, transformers, gguf, safetensors)
    make-goldens.py rope               tests/engine/goldens/rope.json               (needs torch, transformers)
    make-goldens.py greedy FILE.gguf   tests/engine/goldens/smollm2-greedy.json     (needs torch, transformers, accelerate, gguf)

Formats: tests/engine/goldens/README.md. Made with the versions named there; weights come from fixed seeds.
"""
import argparse
import json
import pathlib
import shutil
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

GOLDENS = ROOT / "tests/engine/goldens"
VOCAB = 320
POSITIONS = [0, 1, 13, 26, 39]
N_TOKENS, N_GREEDY = 40, 16


def write_json(path, value):
    """One line per member, so that diffs stay readable."""
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def short(x):
    """The shortest decimals that read back as the same f32."""
    return float(np.format_float_scientific(np.float32(x), unique=True))


# Small models. Odd sizes on purpose: heads that do not divide the hidden size evenly, 3 and 7 query heads per key head.
COMMON = dict(vocab_size=VOCAB, max_position_embeddings=4096, bos_token_id=256, eos_token_id=258, pad_token_id=None,
              rms_norm_eps=1e-5)
SIZE36 = dict(COMMON, hidden_size=36, intermediate_size=72, num_hidden_layers=2)


def model_specs():
    """name: (transformers' config class, its arguments, dtype, what else)."""
    llama = dict(SIZE36, num_attention_heads=6, num_key_value_heads=2, head_dim=16)
    qwen2 = dict(COMMON, hidden_size=42, intermediate_size=66, num_hidden_layers=2, num_attention_heads=7, num_key_value_heads=1, head_dim=8)
    gemma = dict(SIZE36, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=16, query_pre_attn_scalar=24,
                 sliding_window=8)
    return {
        "tiny-chat": ("LlamaConfig", dict(COMMON, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                                          num_key_value_heads=2, tie_word_embeddings=True), "bfloat16", {"tokenizer": True}),
        "llama": ("LlamaConfig", dict(llama, attention_bias=True), "float32", {"gguf": True}),
        "llama-linear": ("LlamaConfig", dict(llama, tie_word_embeddings=True, rope_parameters={
            "rope_type": "linear", "factor": 4.0, "rope_theta": 50000.0}), "float16", {"old_config": True}),
        "llama3": ("LlamaConfig", dict(llama, num_hidden_layers=3, rope_parameters={
            "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64}), "bfloat16", {"shards": True, "gguf": True}),
        "llama-yarn": ("LlamaConfig", dict(llama, tie_word_embeddings=True, rope_parameters={
            "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128}), "bfloat16",
            {"old_config": True, "gguf": True}),
        "mistral": ("MistralConfig", dict(SIZE36, num_attention_heads=3, num_key_value_heads=3, head_dim=16, sliding_window=12),
                    "bfloat16", {"old_config": True}),
        "qwen2": ("Qwen2Config", dict(qwen2), "bfloat16", {"gguf": True}),
        "qwen2-sliding": ("Qwen2Config", dict(qwen2, num_hidden_layers=3, tie_word_embeddings=True, use_sliding_window=True,
                                              sliding_window=10, max_window_layers=1), "bfloat16", {"old_config": True}),
        "qwen3": ("Qwen3Config", dict(SIZE36, num_attention_heads=6, num_key_value_heads=3, head_dim=16, tie_word_embeddings=True,
                                      rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}), "float16", {"gguf": True}),
        "gemma3": ("Gemma3TextConfig", dict(gemma, query_pre_attn_scalar=16, layer_types=["sliding_attention", "sliding_attention", "full_attention",
                                                                "sliding_attention"], rope_parameters={  # GGUF has no query_pre_attn_scalar
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}), "bfloat16", {"gguf": True}),
        "gemma3-old": ("Gemma3TextConfig", dict(gemma, num_hidden_layers=3, sliding_window_pattern=3, final_logit_softcapping=10.0,
                                                attn_logit_softcapping=5.0), "bfloat16", {"old_config": True}),
        "gemma3-vision": ("Gemma3Config", dict(gemma, num_hidden_layers=2, sliding_window_pattern=2), "bfloat16",
                          {"vision": True}),
    }


def make_config(class_name, arguments):
    import transformers

    cls = getattr(transformers, class_name)
    if class_name == "Gemma3Config":
        vision = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
        return cls(text_config=arguments, vision_config=vision, mm_tokens_per_image=1)
    return cls(**arguments)


def randomize(model, seed):
    """Weights large enough that attention looks at few positions and logits differ; norms around their neutral value."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    gemma = "gemma3" in type(model).__name__.lower()
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            if "norm" in name:
                # Gemma adds the 1 itself; a large last norm makes up for its small tied embedding.
                p.copy_(0.2 * noise + (3.0 if name.endswith("model.norm.weight") else 0.0) if gemma else 0.2 * noise + 1.0)
            elif name.endswith("bias"):
                p.copy_(0.4 * noise)
            elif "embed_tokens" in name and gemma:
                p.copy_(0.3 * noise / model.config.get_text_config().hidden_size ** 0.25)
            else:
                p.copy_(0.3 * noise)


def old_config(path):
    """config.json as transformers 4 wrote it: rope_theta and rope_scaling beside each other, torch_dtype, pattern instead of list."""
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.51.0"
    if "full_attention" in rope:
        config["rope_theta"] = rope["full_attention"]["rope_theta"]
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        config["sliding_window_pattern"] = 3
        config.pop("layer_types")
        config.pop("_sliding_window_pattern", None)
    else:
        config["rope_theta"] = rope.pop("rope_theta")
        kind = rope.pop("rope_type")
        config["rope_scaling"] = None if kind == "default" else dict(rope, type=kind)
        config.pop("layer_types", None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def compute_golden(model, seed):
    """Logits of a fixed sequence at some positions and its greedy continuation, in f32. None when the best two logits nearly tie
    on the way or the continuation hardly changes: such a golden would test luck."""
    import torch

    tokens = np.random.default_rng(1000 + seed).integers(0, 256, N_TOKENS).tolist()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens])).logits[0]
        ids, margins = list(tokens), []
        for _ in range(N_GREEDY):
            top = torch.topk(model(input_ids=torch.tensor([ids])).logits[0, -1], 2)
            margins.append(float(top.values[0] - top.values[1]))
            ids.append(int(top.indices[0]))
    if min(margins) < 0.02 or len(set(ids[N_TOKENS:])) < 5:
        return None
    golden = {"tokens": tokens, "positions": POSITIONS, "greedy": ids[N_TOKENS:], "greedy_margin": round(min(margins), 4)}
    golden["rope"] = rope_of(model)
    golden["logits"] = [[round(x, 5) for x in logits[p].tolist()] for p in POSITIONS]
    return golden


def rope_of(model):
    """inv_freq and attention factor of full and, where they differ, of sliding layers."""
    r = next(m for n, m in model.named_modules() if n.endswith("rotary_emb"))
    if hasattr(r, "inv_freq"):
        return [[short(x) for x in r.inv_freq.tolist()], float(r.attention_scaling)]
    return [[short(x) for x in r.full_attention_inv_freq.tolist()], float(r.full_attention_attention_scaling),
            [short(x) for x in r.sliding_attention_inv_freq.tolist()]]


def load_f32(path):
    import torch
    import transformers

    config = json.loads((path / "config.json").read_text())
    cls = getattr(transformers, config["architectures"][0])
    return cls.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


def write_tokenizer(path):
    """Byte-level BPE without merges: ids 0 to 255 are bytes, 256 on special tokens, then pairs of letters that only decode."""
    byte_chars = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    others = [b for b in range(256) if b not in byte_chars]
    chars = {b: chr(b) for b in byte_chars} | {b: chr(256 + i) for i, b in enumerate(others)}
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
    pairs = [a + b for a in "etaoins" for b in "hrdlcumw"] + ["Ġa", "Ġt", "Ġs", "Ġi"]
    vocab = {chars[b]: b for b in range(256)}
    vocab |= {p: 256 + len(specials) + i for i, p in enumerate(pairs)}
    assert len(vocab) + len(specials) == VOCAB
    added = [dict(id=256 + i, content=s, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
             for i, s in enumerate(specials)]
    byte_level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
    tokenizer = dict(version="1.0", truncation=None, padding=None, added_tokens=added, normalizer=None, pre_tokenizer=byte_level,
                     post_processor=None, decoder=byte_level,
                     model=dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None,
                                fuse_unk=False, byte_fallback=False, ignore_merges=False, vocab=vocab, merges=[]))
    (path / "tokenizer.json").write_text(json.dumps(tokenizer, indent=1, ensure_ascii=False) + "\n")
    template = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
                "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
    config = dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<|endoftext|>", eos_token="<|im_end|>", pad_token="<|pad|>",
                  add_bos_token=False, add_eos_token=False, clean_up_tokenization_spaces=False, model_max_length=4096,
                  chat_template=template,
                  added_tokens_decoder={str(a["id"]): {k: a[k] for k in a if k != "id"} for a in added})
    (path / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    (path / "generation_config.json").write_text(json.dumps(dict(bos_token_id=256, eos_token_id=[256, 258], pad_token_id=259),
                                                            indent=2) + "\n")


def make_model(name, spec, seed):
    import torch
    import transformers

    class_name, arguments, dtype, extra = spec
    path = GOLDENS / name
    shutil.rmtree(path, ignore_errors=True)
    config = make_config(class_name, arguments)
    cls = transformers.Gemma3ForConditionalGeneration if extra.get("vision") else None
    model = cls(config) if cls else transformers.AutoModelForCausalLM.from_config(config)
    randomize(model, seed)
    model = model.to(getattr(torch, dtype))
    model.save_pretrained(path, max_shard_size="60KB" if extra.get("shards") else "5GB")
    (path / "generation_config.json").unlink(missing_ok=True)
    if extra.get("old_config"):
        old_config(path / "config.json")
    if extra.get("tokenizer"):
        write_tokenizer(path)
    golden = compute_golden(load_f32(path), seed)
    if not golden:
        return False
    write_json(path / "golden.json", golden)
    if extra.get("gguf"):
        write_gguf(name, path)
    return True


GGUF_NAMES = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
              "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
              "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def gguf_name(name, gemma):
    if name == "lm_head.weight":
        return "output.weight"
    name = name.removeprefix("model.")
    if name in ("embed_tokens.weight", "norm.weight"):
        return {"e": "token_embd.weight", "n": "output_norm.weight"}[name[0]]
    _, layer, rest = name.split(".", 2)
    module, kind = rest.rsplit(".", 1)
    norms = {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
             "post_feedforward_layernorm": "post_ffw_norm"} if gemma else {"post_attention_layernorm": "ffn_norm"}
    return f"blk.{layer}.{(GGUF_NAMES | norms)[module]}.{kind}"


def permute(w, n_heads):
    """The rows of query and key as llama.cpp's converter stores them for architecture llama: rotated pairs are neighbours."""
    return w.reshape(n_heads, 2, w.shape[0] // n_heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def unpermute(w, n_heads):
    return w.reshape(n_heads, w.shape[0] // n_heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def open_writer(path, arch, c):
    import gguf

    w = gguf.GGUFWriter(path, arch)
    w.add_block_count(c.num_hidden_layers)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    w.add_key_length(head_dim)
    w.add_value_length(head_dim)
    w.add_rope_dimension_count(head_dim)
    return w


def close_writer(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def add_rope(w, model):
    import gguf

    rope = model.config.rope_parameters
    local = rope.get("sliding_attention")
    rope = rope.get("full_attention", rope)
    w.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(rope["factor"])
        w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope["rope_type"] == "llama3":
        dim = model.config.head_dim
        plain = rope["rope_theta"] ** (-np.arange(0, dim, 2) / dim)
        scaled = model.model.rotary_emb.inv_freq.double().numpy()
        w.add_tensor("rope_freqs.weight", (plain / scaled).astype(np.float32))
    if local:
        w.add_sliding_window(model.config.sliding_window)
        w.add_array("gemma3.attention.sliding_window_pattern", [t == "sliding_attention" for t in model.config.layer_types])


def write_gguf(name, path):
    """The model of a directory as llama.cpp's converter would write it, matrices in the directory's own type."""
    import gguf
    from gguf import GGMLQuantizationType as T

    model = load_f32(path)
    c = model.config
    gemma, llama = c.model_type == "gemma3_text", c.model_type == "llama"
    dtype = json.loads((path / "config.json").read_text())
    qtype = {"bfloat16": T.BF16, "float16": T.F16, "float32": T.F32}[dtype.get("dtype") or dtype["torch_dtype"]]
    w = open_writer(GOLDENS / f"{name}.gguf", "gemma3" if gemma else c.model_type, c)
    add_rope(w, model)
    for key, p in model.state_dict().items():
        if key == "lm_head.weight" and c.tie_word_embeddings:
            continue
        x = p.numpy()
        if gemma and key.endswith("norm.weight"):
            x = x + np.float32(1)
        if llama and ".q_proj." in key:
            x = permute(x, c.num_attention_heads)
        if llama and ".k_proj." in key:
            x = permute(x, c.num_key_value_heads)
        x = np.ascontiguousarray(x)
        if x.ndim == 1 or qtype == T.F32:
            w.add_tensor(gguf_name(key, gemma), x)
        else:
            w.add_tensor(gguf_name(key, gemma), gguf.quants.quantize(x, qtype), raw_dtype=qtype)
    close_writer(w)


QUANTIZED = {"q8_0": ["Q8_0"], "q4_0": ["Q4_0"], "q4_1": ["Q4_1"], "q5_0": ["Q5_0"], "q5_1": ["Q5_1"],
             "k-quants": ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]}


def make_quantized(name, types, seed):
    """A llama in a quantised type; the golden is transformers' on the dequantised weights. K types, which gguf-py cannot make,
    are random blocks, scaled to the size of the weights that they replace; the types take turns."""
    import gguf
    import transformers
    from gguf import GGMLQuantizationType as T

    kinds = [T[t] for t in types]
    size = dict(hidden_size=256, intermediate_size=256, num_attention_heads=8, num_key_value_heads=1, head_dim=32) \
        if len(kinds) > 1 else dict(hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2, head_dim=16)
    config = transformers.LlamaConfig(**dict(COMMON, num_hidden_layers=1 if len(kinds) > 1 else 2, tie_word_embeddings=True, **size))
    model = transformers.LlamaForCausalLM(config).eval()
    model.set_attn_implementation("eager")
    randomize(model, seed)
    rng = np.random.default_rng(seed)
    path = GOLDENS / f"{name}.gguf"
    w = open_writer(path, "llama", config)
    w.add_rope_freq_base(config.rope_parameters["rope_theta"])
    turn = 0
    state = dict(model.state_dict())
    for key, p in state.items():
        if key == "lm_head.weight":
            continue
        heads = {"q": config.num_attention_heads, "k": config.num_key_value_heads}.get(key.split("_proj")[0][-1]) if "_proj" in key else None
        heads = heads if ".self_attn." in key else None
        x = p.numpy()
        x = np.ascontiguousarray(permute(x, heads)) if heads else x
        if x.ndim == 1:
            w.add_tensor(gguf_name(key, False), x)
            continue
        qtype = kinds[turn % len(kinds)]
        turn += 1
        if len(kinds) > 1:
            blocks = random_blocks(qtype, x.size // 256, rng)
            scale = 0.15 / dequantize(blocks, qtype).std()
            at = {T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}[qtype]
            for a in at:
                d = blocks[:, a:a + 2].copy().view(np.float16)
                blocks[:, a:a + 2] = (d * scale).astype(np.float16).view(np.uint8)
            packed = blocks.reshape(x.shape[0], -1)
        else:
            packed = gguf.quants.quantize(x, qtype)
        w.add_tensor(gguf_name(key, False), packed, raw_dtype=qtype)
        values = gguf.quants.dequantize(packed, qtype).reshape(x.shape)
        p.copy_(p.new_tensor(unpermute(values, heads) if heads else values))
    close_writer(w)
    golden = compute_golden(model, seed)
    if not golden:
        return False
    write_json(GOLDENS / f"{name}.golden.json", golden)
    return True


def make_models(args):
    import torch

    torch.set_num_threads(1)  # the models are too small for more
    GOLDENS.mkdir(parents=True, exist_ok=True)
    jobs = {name: (make_model, spec) for name, spec in model_specs().items()}
    jobs |= {name: (make_quantized, types) for name, types in QUANTIZED.items()}
    for name in args.names or jobs:
        make, spec = jobs[name]
        seed = next(s for s in range(1, 200) if make(name, spec, s))
        print(f"{name}: seed {seed}", flush=True)


def make_rope(args):
    """What modeling_rope_utils.py makes of a range of rope_parameters."""
    import transformers

    base = dict(rope_theta=10000.0)
    llama3 = dict(base, rope_type="llama3", low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
    yarn = dict(base, rope_type="yarn", original_max_position_embeddings=4096)
    cases = [(64, dict(base, rope_type="default")), (80, dict(rope_type="default", rope_theta=1000000.0)),
             (128, dict(base, rope_type="linear", factor=8.0)), (128, dict(llama3, rope_theta=500000.0, factor=8.0)),
             (64, dict(llama3, rope_theta=500000.0, factor=32.0)), (96, dict(llama3, factor=4.0, low_freq_factor=2.0)),
             (128, dict(yarn, rope_theta=1000000.0, factor=4.0, original_max_position_embeddings=32768)),
             (64, dict(yarn, factor=40.0, mscale=1.0, mscale_all_dim=1.0)), (64, dict(yarn, factor=40.0, mscale=0.707, mscale_all_dim=1.0)),
             (64, dict(yarn, factor=32.0, beta_fast=32.0, beta_slow=1.0, truncate=False)),
             (128, dict(yarn, factor=16.0, attention_factor=1.5, beta_fast=16.0, beta_slow=2.0)),
             (64, dict(yarn, factor=1.0)), (32, dict(yarn, factor=2.0, original_max_position_embeddings=16))]
    lines = []
    for dim, parameters in cases:
        config = transformers.LlamaConfig(hidden_size=2 * dim, num_attention_heads=2, head_dim=dim, max_position_embeddings=131072,
                                          rope_parameters=dict(parameters))
        r = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
        lines.append(json.dumps(dict(dim=dim, rope_parameters=parameters, attention_factor=float(r.attention_scaling),
                                     inv_freq=[short(x) for x in r.inv_freq.tolist()])))
    (GOLDENS / "rope.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


PROMPTS = [
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nWrite a haiku about rain.<|im_end|>\n<|im_start|>assistant\n",
    "def is_prime(n: int) -> bool:\n    \"\"\"Return True if n is a prime number.\"\"\"\n",
    "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\n    >>> fibonacci(10)\n    55\n    \"\"\"\n",
    "from typing import List\n\n\ndef has_close_elements(numbers: List[float], threshold: float) -> bool:\n"
    "    \"\"\" Check if in given list of numbers, are any two numbers closer to each other than given threshold.\n    \"\"\"\n",
    "The three laws of motion were formulated by",
    "Once upon a time, in a small village by the sea,",
    "Water boils at 100 degrees Celsius. In Fahrenheit this is",
]


def make_greedy(args):
    """transformers' own reader of GGUF dequantises to f32."""
    import torch
    import transformers

    path = pathlib.Path(args.gguf).resolve()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32,
                                                              attn_implementation="eager").eval()
    lines = []
    for text in PROMPTS:
        prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids, margins, cache = list(prompt), [], transformers.DynamicCache()
        step = torch.tensor([prompt])
        with torch.no_grad():
            for _ in range(args.tokens):
                top = torch.topk(model(input_ids=step, past_key_values=cache, use_cache=True).logits[0, -1], 2)
                margins.append(round(float(top.values[0] - top.values[1]), 3))
                ids.append(int(top.indices[0]))
                step = torch.tensor([[ids[-1]]])
        lines.append(json.dumps(dict(text=text, prompt=prompt, greedy=ids[len(prompt):], margins=margins)))
        print(repr(tokenizer.decode(ids)), file=sys.stderr)
    (GOLDENS / args.out).write_text("[\n" + ",\n".join(lines) + "\n]\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("dequant").set_defaults(run=make_dequant)
    models = commands.add_parser("models")
    models.add_argument("names", nargs="*")
    models.set_defaults(run=make_models)
    commands.add_parser("rope").set_defaults(run=make_rope)
    greedy = commands.add_parser("greedy")
    greedy.add_argument("gguf")
    greedy.add_argument("--tokens", type=int, default=48)
    greedy.add_argument("--out", default="smollm2-greedy.json")
    greedy.set_defaults(run=make_greedy)
    args = parser.parse_args()
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
