#!/usr/bin/env python3
"""The workloads that speed is measured on, as rows in the OpenAI batch format. Always the same bytes.

    scripts/workloads.py A|B|C|D [--rows N] [-o FILE]

    A  prefix-heavy   HumanEval's 164 prompts under one system prompt of about 500 tokens, 64 new tokens each
    B  decode-heavy   128 short prompts, 128 new tokens each
    C  prefill-heavy  64 prompts of about 700 tokens that share nothing, 8 new tokens each
    D  tree           8 few-shot headers x 32 questions x 2 phrasings (prefixes of prefixes), 32 new tokens each

Greedy, and the end of sequence is ignored, so that every engine does the same work. --rows takes every k-th row of A and D (their shape
stays) and the first N of B and C.
"""
import argparse

import humaneval

SYSTEM = """You are a senior software engineer who reviews and completes Python code for a team that maintains a large library of small, \
well tested functions. Follow these rules in every answer.

Correctness comes first. Read the whole docstring before you write anything, and treat every example in it as a test that must pass. Think \
about the empty list, the empty string, zero, negative numbers, duplicates, values that are equal, and input that is already in the \
desired state. If the description and an example disagree, the example is right.

Keep the signature exactly as it is given: the same name, the same parameters in the same order, the same annotations and default values. \
Return a value instead of printing it, unless the description asks for output. Do not change an argument that the caller passed in; make a \
copy when you need to sort it or remove items from it.

Prefer the standard library. Import what you need at the top of the code block, and import nothing that you do not use. Do not use \
recursion when a loop is as clear, and do not write a clever one-line expression when three plain lines are easier to check. Choose an \
algorithm whose running time fits the sizes that the description allows; say in one short comment what its complexity is if that is not \
obvious.

Name variables after what they hold. Write comments only where the reason for a step is not visible in the code itself. Use four spaces for \
indentation, never tabs, and keep lines shorter than one hundred characters. Compare with None by identity. Catch only the exceptions that \
you expect, and never hide an error by returning a default value that the description does not mention.

When numbers are involved, remember that division of integers gives a float, that floats should not be compared for equality without a \
tolerance, and that rounding follows the rule of half to even. When text is involved, remember that case matters unless the description says \
otherwise, and that splitting on a space is not the same as splitting on white space.

Answer with the complete function, including its imports, in one Python code block. After the code block you may add at most two sentences \
which explain the idea. Do not repeat the task, do not apologise, do not ask questions, and do not offer alternatives."""

SUBJECTS = ["a lighthouse keeper", "the tides", "an old bicycle", "bread", "a chess game", "the harbour at night", "a lost letter", "snow",
            "an orchard", "the first railway", "a violin", "the moon", "a market town", "a map", "winter soup", "a river ferry"]
SHORT_TASKS = ["Write a short story about {}.", "Explain to a child why people care about {}.", "List some facts about {}.",
               "Write a poem about {}.", "Describe {} to somebody who has never seen it.", "What could go wrong with {}?",
               "Write a letter to a friend about {}.", "Give advice on how to photograph {}."]

LABELS = ["sentiment (positive or negative)", "topic (sport, politics, science or business)", "language register (formal or casual)",
          "urgency (low, medium or high)", "kind of speech act (question, request or statement)", "tense (past, present or future)",
          "audience (children or adults)", "certainty (fact or opinion)"]
SENTENCES = ["The new bridge opened on Monday after two years of work.", "I can hardly believe how good this soup tastes.",
             "Could you send me the report before the meeting starts?", "Our team lost the final by a single point.",
             "The committee will vote on the proposal next week.", "Water boils at a lower temperature on a high mountain.",
             "My phone died again and nobody at the shop wanted to help.", "Shares fell sharply when the bank published its results."]
QUESTIONS = [f"The {a} {v} the {o}." for a in ("teacher", "old captain", "new mayor", "young doctor")
             for v, o in (("forgot", "keys on the kitchen table"), ("will repair", "broken clock tomorrow"), ("loves", "quiet hour before sunrise"),
                          ("sold", "company for a record price"), ("may cancel", "concert because of the storm"),
                          ("measured", "speed of light with a toothed wheel"), ("begged", "neighbours for a little help"),
                          ("won", "regional tournament without a defeat"))]
PHRASINGS = ["Answer with the label only.", "Explain your choice in one sentence, then give the label."]


def greedy(n_new):
    return {"max_tokens": n_new, "temperature": 0, "ignore_eos": True}


def user(text):
    return {"role": "user", "content": text}


def workload_a():
    for task in humaneval.read_tasks():
        yield humaneval.batch_row("A/" + task["task_id"], [{"role": "system", "content": SYSTEM}, user(humaneval.user_message(task))], **greedy(64))


def workload_b():
    for i, task in enumerate(SHORT_TASKS):
        for j, subject in enumerate(SUBJECTS):
            yield humaneval.batch_row(f"B/{i * len(SUBJECTS) + j}", [user(task.format(subject))], **greedy(128))


def workload_c():
    """Solved tasks of HumanEval put together until there are about 700 tokens (2,300 characters of such code), each prompt from another
    task on, the question last."""
    tasks = humaneval.read_tasks()
    for i in range(64):
        text, k = "", 0
        while len(text) < 2300:
            task = tasks[(i * 5 + k) % len(tasks)]
            text += task["prompt"] + task["canonical_solution"] + "\n\n"
            k += 1
        yield humaneval.batch_row(f"C/{i}", [user(text[:2300] + "\n\nWhich of these functions is the hardest to understand?")], **greedy(8))


def workload_d():
    for h, label in enumerate(LABELS):
        examples = "".join(f"\nExample {i + 1}: \"{SENTENCES[(h + i) % len(SENTENCES)]}\" Look at the words that carry the meaning, decide, and name the {label}."
                           for i in range(len(SENTENCES)))
        header = f"Task: tell the {label} of a sentence.{examples}\n\n"
        for q, question in enumerate(QUESTIONS):
            for p, phrasing in enumerate(PHRASINGS):
                yield humaneval.batch_row(f"D/{h}/{q}/{p}", [user(f"{header}Sentence: \"{question}\" {phrasing}")], **greedy(32))


WORKLOADS = {"A": workload_a, "B": workload_b, "C": workload_c, "D": workload_d}


def rows_of(name, n_rows=None):
    rows = list(WORKLOADS[name]())
    if n_rows and n_rows < len(rows):
        rows = [rows[i * len(rows) // n_rows] for i in range(n_rows)] if name in "AD" else rows[:n_rows]
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=sorted(WORKLOADS))
    parser.add_argument("--rows", type=int)
    parser.add_argument("-o")
    args = parser.parse_args()
    humaneval.write_rows(rows_of(args.workload, args.rows), args.o)


if __name__ == "__main__":
    main()
