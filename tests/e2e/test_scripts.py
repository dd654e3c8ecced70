#!/usr/bin/env python3
"""The scripts that figures rest on: the scorer passes what is right and nothing else; workloads are always the same bytes."""
import gzip
import hashlib
import json
import os
import subprocess
import sys

from e2e import ROOT, Skip, main, test

DATASET = f"{ROOT}/build/data/HumanEval.jsonl.gz"
HOSTILE = ["import sys; sys.exit(0)", "import os; os._exit(0)", "while True: pass", "x = [0] * 10**10", "def f(", "raise SystemExit", "import time; time.sleep(60)",
           "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "print(open(__file__).read())", "import os\nos.fork() or os._exit(0)"]


def tasks():
    if not os.path.exists(DATASET):
        raise Skip("scripts/fetch.sh humaneval was not run")
    with gzip.open(DATASET, "rt", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def score(answers, *options):
    """answers: task id -> texts. Returns task id -> outcomes."""
    with open("results.jsonl", "w", encoding="utf-8") as f:
        for task_id, texts in answers.items():
            choices = [{"index": i, "message": {"content": t}} for i, t in enumerate(texts)]
            f.write(json.dumps({"custom_id": task_id, "response": {"status_code": 200, "body": {"choices": choices}}}) + "\n")
    subprocess.run([sys.executable, f"{ROOT}/scripts/humaneval.py", "score", "results.jsonl", "-o", "scores.json", *options], check=True, stdout=subprocess.DEVNULL)
    with open("scores.json", encoding="utf-8") as f:
        result = json.load(f)
    return result, {t["task_id"]: t["outcomes"] for t in result["tasks"]}


@test
def canonical_solutions_pass():
    all_tasks = tasks()
    whole = {t["task_id"]: ["Sure:\n```python\n" + t["prompt"] + t["canonical_solution"] + "\n```\nDone.\n```\nprint(1)\n```"] for t in all_tasks}
    result, _ = score(whole)
    assert result["n_passed"] == 164 and result["pass_at_1"] == 1, result["n_passed"]
    body_or_cut = {t["task_id"]: ["```python\n" + t["canonical_solution"] + "```", "```python\n" + t["prompt"] + t["canonical_solution"]] for t in all_tasks[:40]}
    result, outcomes = score(body_or_cut)
    assert all(outcomes[t] == ["passed", "passed"] for t in body_or_cut), outcomes
    assert result["n_passed"] == 40 and result["n_answers"] == 40


@test
def other_answers_do_not():
    all_tasks = tasks()
    wrong = {t["task_id"]: ["```python\n" + t["prompt"] + "    return 0\n" + bad + "\n```"] for t, bad in zip(all_tasks, HOSTILE)}
    wrong[all_tasks[20]["task_id"]] = ["I cannot answer that.", ""]
    result, outcomes = score(wrong, "--timeout", "3")
    assert result["n_passed"] == 0, {k: v for k, v in outcomes.items() if "passed" in v}
    assert outcomes["HumanEval/2"] == ["time limit"] and outcomes["HumanEval/163"] == ["no answer"], outcomes


@test
def workloads_are_always_the_same():
    tasks()
    digests = {"A": "d74ac0f0caf417532467a1c0413d48a2f6eeeb0df73c6e9fdfd3a5386685500a", "B": "9cada8e6f5e9a84fbe81058cdbfaf04266ec6fa2872072dee5d03e25f29dd0ca",
               "C": "c9aa888c67377d94b605f49fdba0aceca20c55a974d15446a40d80ac939a4973", "D": "9596fc8a08809ca428907bbd7be8ce2438817e3b9d7c67c5564c715766b5f4de"}
    for name, want in digests.items():
        data = subprocess.run([sys.executable, f"{ROOT}/scripts/workloads.py", name], check=True, capture_output=True).stdout
        assert hashlib.sha256(data).hexdigest() == want, f"workload {name} changed: figures are no longer comparable with earlier ones"


if __name__ == "__main__":
    main()
