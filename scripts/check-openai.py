#!/usr/bin/env python3
"""Every output line of a run, read by the official `openai` package: its types validate each body without a member they do not know, its
client gets each body as a server's answer, and raises its own error for each error record. Needs openai; TOKENMILL names the program.
"""
import json
import os
import sys
import tempfile

import httpx2 as httpx
import openai
from openai.types import Completion
from openai.types.chat import ChatCompletion
from openai.types.shared import ErrorObject

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests/e2e"))
from e2e import models, mixed_rows, read_records, run, write_rows  # noqa: E402

CHAT = [{"role": "user", "content": "hi"}]
FURTHER = [
    {"custom_id": "logprobs", "messages": CHAT, "max_tokens": 6, "logprobs": True, "top_logprobs": 5, "temperature": 1.0},
    {"custom_id": "bytes", "messages": CHAT, "max_tokens": 60, "logprobs": True, "top_logprobs": 20, "temperature": 2.0, "ignore_eos": True},
    {"custom_id": "text-logprobs", "prompt": "the", "max_tokens": 40, "logprobs": 5, "temperature": 2.0, "n": 3, "ignore_eos": True},
    {"custom_id": "text-logprobs-0", "prompt": "the", "max_tokens": 4, "logprobs": 0},
    {"custom_id": "echo", "prompt": "the river", "max_tokens": 3, "echo": True},
    {"custom_id": "echo-ids", "prompt": [10, 11, 12], "max_tokens": 3, "echo": True},
    {"custom_id": "nothing", "prompt": "the river", "max_tokens": 0, "echo": True},
    {"custom_id": "stop", "prompt": "the river", "max_tokens": 30, "stop": ["e", "a", " "], "logprobs": 2},
    {"custom_id": "named", "messages": CHAT, "model": "my-model", "max_tokens": 2, "n": 2},
]
FAULTS = ["not json", {"custom_id": "type", "messages": CHAT, "temperature": "hot"}, {"custom_id": "unknown", "messages": CHAT, "tempreature": 1},
          {"custom_id": "long", "prompt": "word " * 20000}, {"custom_id": "echo", "prompt": "twice"}, {"prompt": {}}]


def client_for(status, body):
    transport = httpx.MockTransport(lambda request: httpx.Response(status, json=body))
    return openai.OpenAI(api_key="none", base_url="http://local.invalid/v1", max_retries=0, http_client=httpx.Client(transport=transport))


def ask(client, is_chat):
    if is_chat:
        return client.chat.completions.create(model="m", messages=CHAT)
    return client.completions.create(model="m", prompt="p")


def no_extras(value, path="body"):
    """The types accept members they do not know; there must be none."""
    for name, extra in (getattr(value, "model_extra", None) or {}).items():
        raise AssertionError(f"{path}.{name} is unknown to the API's types: {extra!r}")
    for name in type(value).model_fields:
        inner = getattr(value, name)
        for i, item in enumerate(inner if isinstance(inner, list) else [inner]):
            if hasattr(type(item), "model_fields"):
                no_extras(item, f"{path}.{name}[{i}]")


def check_logprobs(body, is_chat):
    for choice in body.choices:
        lp = choice.logprobs
        if lp is None:
            continue
        if is_chat:
            for t in lp.content:
                assert bytes(t.bytes).decode("utf-8", "replace") == t.token, t
                assert t.logprob <= 0 and all(a.logprob >= b.logprob for a, b in zip(t.top_logprobs, t.top_logprobs[1:])), t
            shown = b"".join(bytes(t.bytes) for t in lp.content).decode("utf-8", "replace")
            # Special tokens do not show in the text, and a stop string cuts it.
            assert shown.startswith(choice.message.content) or any("<" in t.token for t in lp.content), (shown, choice.message.content)
        else:
            assert len(lp.tokens) == len(lp.token_logprobs) == len(lp.text_offset), lp
            assert lp.text_offset == sorted(lp.text_offset) and (not lp.text_offset or lp.text_offset[0] == 0), lp
            for i, (token, logprob) in enumerate(zip(lp.tokens, lp.token_logprobs)):
                assert lp.top_logprobs is None or lp.top_logprobs[i][token] == logprob, (i, token)
                if not token.startswith("bytes:") and not token.startswith("<") and "\ufffd" not in choice.text:
                    at = lp.text_offset[i]
                    part = choice.text[at:at + len(token)]
                    assert token.startswith(part), (i, token, part)


def check_line(line):
    assert set(line) == {"id", "custom_id", "response", "error"} and line["error"] is None, line
    assert line["id"].startswith("batch_req_") and isinstance(line["custom_id"], str), line
    response = line["response"]
    assert set(response) == {"status_code", "request_id", "body"} and response["request_id"], response
    status, body = response["status_code"], response["body"]
    if status != 200:
        assert set(body) == {"error"}
        no_extras(ErrorObject.model_validate(body["error"]))
        try:
            ask(client_for(status, body), True)
        except openai.BadRequestError as e:
            assert (e.code, e.param, e.type) == tuple(body["error"][k] for k in ("code", "param", "type")), line
            return
        raise AssertionError("the client took an error for an answer")
    is_chat = body["object"] == "chat.completion"
    for parsed in ((ChatCompletion if is_chat else Completion).model_validate(body, strict=True), ask(client_for(200, body), is_chat)):
        no_extras(parsed)
        assert parsed.usage.total_tokens == parsed.usage.prompt_tokens + parsed.usage.completion_tokens, line
        assert [c.index for c in parsed.choices] == list(range(len(parsed.choices))), line
        assert all(c.finish_reason in ("stop", "length") for c in parsed.choices), line
        check_logprobs(parsed, is_chat)
    assert parsed.model == ("my-model" if line["custom_id"] == "named" else "any" if parsed.model == "any" else parsed.model)


def main():
    failed = False
    for name, model in models():
        with tempfile.TemporaryDirectory() as directory:
            os.chdir(directory)
            try:
                rows = mixed_rows(120 if name == "tiny" else 12, 3) + FURTHER + FAULTS
                run("out", write_rows("rows.jsonl", rows), model=model)
                results, errors = read_records("out/results.jsonl"), read_records("out/errors.jsonl")
                assert len(results) == len(rows) - len(FAULTS) and len(errors) == len(FAULTS), (len(results), len(errors))
                for line in results + errors:
                    check_line(line)
                assert len({line["id"] for line in results + errors}) == len(rows), "ids must differ"
                print(f"ok openai_types_{name} ({len(rows)} lines, openai {openai.__version__})")
            except AssertionError as e:
                print(f"{e}\nFAIL openai_types_{name}")
                failed = True
            os.chdir(ROOT)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
