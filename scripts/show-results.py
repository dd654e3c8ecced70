#!/usr/bin/env python3
"""Show a few answers of a finished job directory, and its counts. Usage: scripts/show-results.py OUT [NUMBER] [WALL_SECONDS]"""
import json
import sys


def main():
    out = sys.argv[1]
    n_shown = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    wall_s = float(sys.argv[3]) if len(sys.argv) > 3 else None
    n_rows = n_prompt = n_output = 0
    finished = {}
    shown = []
    with open(f"{out}/results.jsonl", encoding="utf-8") as f:
        for line in f:
            row = json.loads(line)
            body = row["response"]["body"]
            n_rows += 1
            n_prompt += body["usage"]["prompt_tokens"]
            n_output += body["usage"]["completion_tokens"]
            for choice in body["choices"]:
                finished[choice["finish_reason"]] = finished.get(choice["finish_reason"], 0) + 1
            if len(shown) < n_shown:
                choice = body["choices"][0]
                shown.append((row["custom_id"], body["usage"]["completion_tokens"], choice["finish_reason"],
                              choice["message"]["content"] if "message" in choice else choice["text"]))
    with open(f"{out}/errors.jsonl", encoding="utf-8") as f:
        n_errors = sum(1 for _ in f)
    with open(f"{out}/usage.json", encoding="utf-8") as f:
        usage = json.load(f)
    for custom_id, n_tokens, reason, text in shown:
        lines = text.strip().split("\n")
        print(f"--- {custom_id} ({n_tokens} tokens, {reason})")
        print("\n".join("    " + line for line in lines[:14]) + ("\n    ..." if len(lines) > 14 else ""))
    print("--- usage.json")
    print("\n".join("    " + line for line in json.dumps(usage, indent=2, ensure_ascii=False).split("\n")))
    print("--- summary")
    print(f"    {n_rows} rows answered, {n_errors} errors; ended by " + ", ".join(f"{k}: {v}" for k, v in sorted(finished.items())))
    print(f"    {n_prompt} prompt tokens, {n_output} output tokens" + (f", {wall_s:.0f} s wall, {n_output / wall_s:.1f} output tokens/s" if wall_s else ""))


if __name__ == "__main__":
    main()
