#!/usr/bin/env python3
"""HumanEval (Chen et al. 2021, https://arxiv.org/abs/2107.03374) as a dataset for tokenmill: prompts out, answers in, pass@1.

    scripts/humaneval.py prompts [--max-tokens N] [--seed S --temperature T] [-o FILE]
    scripts/humaneval.py score RESULTS.jsonl [-o SCORES.json] [--jobs 2] [--timeout 15]

`prompts` writes one row in the OpenAI batch format for each task, custom_id = task id. `score` takes the code out of each answer and
runs it with the task's checks in a fresh process with limits on time, memory and file size. The answer counts only if a marker that is
printed after the checks arrives: code that calls exit() passes nothing. It is code that a model wrote: run it where that does no harm.
Standard library only.
"""
import argparse
import concurrent.futures
import gzip
import json
import os
import re
import resource
import secrets
import signal
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DATASET = os.path.join(ROOT, "build/data/HumanEval.jsonl.gz")
INSTRUCTION = "Complete the following Python function. Answer with the complete function in one Python code block."
MEMORY_BYTES = 1 << 30


def read_tasks(path=DATASET):
    if not os.path.exists(path):
        sys.exit(f"humaneval: {path} is missing: scripts/fetch.sh humaneval")
    with gzip.open(path, "rt", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def user_message(task):
    return f"{INSTRUCTION}\n\n```python\n{task['prompt']}```"


def batch_row(custom_id, messages, **parameters):
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": {"messages": messages, **parameters}}


def write_rows(rows, path):
    out = open(path, "w", encoding="utf-8") if path else sys.stdout
    for row in rows:
        out.write(json.dumps(row, ensure_ascii=False) + "\n")
    if path:
        out.close()


def prompts(args):
    parameters = {"max_tokens": args.max_tokens, "temperature": args.temperature}
    if args.seed is not None:
        parameters["seed"] = args.seed
    write_rows([batch_row(t["task_id"], [{"role": "user", "content": user_message(t)}], **parameters) for t in read_tasks()], args.o)


def code_of(answer, entry_point):
    """The fenced block that defines the function, else the first one; an answer without a fence is taken as code. A block that the
    token limit cut off runs to the end of the answer."""
    blocks = re.findall(r"```[^\n`]*\n(.*?)(?:\n[ \t]*```|\Z)", answer, re.S)
    defines = re.compile(rf"^\s*(?:async\s+)?def\s+{re.escape(entry_point)}\b", re.M)
    return next((b for b in blocks if defines.search(b)), blocks[0] if blocks else answer)


def program_of(task, answer, marker):
    """What the task puts before its function (imports, helpers), the answer, the checks, the marker."""
    entry = task["entry_point"]
    code = code_of(answer, entry)
    before = task["prompt"][: re.search(rf"^def {re.escape(entry)}\b", task["prompt"], re.M).start()]
    if not re.search(rf"^(?:async\s+)?def\s+{re.escape(entry)}\b", code, re.M):
        before = task["prompt"]  # only the body was given: it continues the prompt
    return f"{before}\n{code}\n{task['test']}\ncheck({entry})\nprint({marker!r})\n"


def set_limits(timeout_s):
    resource.setrlimit(resource.RLIMIT_CPU, (timeout_s, timeout_s))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run_program(source, marker, timeout_s):
    """"passed", or in a few words why not."""
    with tempfile.TemporaryDirectory() as directory, open(os.path.join(directory, "output"), "w+b") as output:
        path = os.path.join(directory, "answer.py")
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as f:
            f.write(source)
        process = subprocess.Popen(
            [sys.executable, "-I", path], cwd=directory, env={"PATH": "/usr/bin:/bin", "HOME": directory}, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=lambda: set_limits(timeout_s))
        try:
            status = process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            status = None
        try:
            os.killpg(process.pid, signal.SIGKILL)  # what it may have started
        except ProcessLookupError:
            pass
        process.wait()
        output.seek(0)
        lines = output.read().decode("utf-8", "replace").split("\n")
    if status is None or status == -signal.SIGXCPU or status == -signal.SIGKILL:
        return "time limit"
    if status == 0 and lines[-2:] == [marker, ""]:
        return "passed"
    last = next((line for line in reversed(lines) if line.strip()), "")
    return f"ended without the marker (status {status})" if status == 0 else last[:200] or f"status {status}"


def score(args):
    tasks = {t["task_id"]: t for t in read_tasks()}
    answers = {}
    with open(args.results, encoding="utf-8") as f:
        for line in f:
            row = json.loads(line)
            if row["custom_id"] not in tasks:
                sys.exit(f"humaneval: {args.results}: {row['custom_id']} is no HumanEval task")
            response = row.get("response") or {}
            if response.get("status_code") == 200:
                answers[row["custom_id"]] = [c["message"]["content"] or "" for c in response["body"]["choices"]]

    def judge(task_id):
        outcomes = []
        for answer in answers.get(task_id, []):
            marker = secrets.token_hex(16)
            outcomes.append(run_program(program_of(tasks[task_id], answer, marker), marker, args.timeout))
        return {"task_id": task_id, "pass": sum(o == "passed" for o in outcomes) / max(1, len(outcomes)), "outcomes": outcomes or ["no answer"]}

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        judged = list(pool.map(judge, tasks))
    n_passed = sum(j["pass"] for j in judged)
    if args.o:
        with open(args.o, "w", encoding="utf-8") as f:
            json.dump({"n_tasks": len(tasks), "n_answers": len(answers), "n_passed": n_passed, "pass_at_1": n_passed / len(tasks), "tasks": judged}, f, indent=1)
            f.write("\n")
    print(f"HumanEval: {n_passed:g} of {len(tasks)} tasks passed, pass@1 {100 * n_passed / len(tasks):.1f} % ({len(answers)} answers)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    p = commands.add_parser("prompts")
    p.add_argument("--max-tokens", type=int, default=512)
    p.add_argument("--temperature", type=float, default=0)
    p.add_argument("--seed", type=int)
    p.add_argument("-o")
    p.set_defaults(run=prompts)
    p = commands.add_parser("score")
    p.add_argument("results")
    p.add_argument("-o")
    p.add_argument("--jobs", type=int, default=2)
    p.add_argument("--timeout", type=int, default=15)
    p.set_defaults(run=score)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
