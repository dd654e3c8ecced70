#!/usr/bin/env python3
"""manifests/monitoring: rules and dashboard hold what Prometheus takes, and name what a worker really tells."""
import json
import os
import re
import shutil
import signal
import subprocess

from e2e import ROOT, Skip, main, test, write_rows
from scrape import Prometheus, Worker, ask, samples

MONITORING = os.path.join(ROOT, "manifests/monitoring")


def need(program):
    if not shutil.which(program):
        raise Skip(f"{program} is not installed")


def rule_groups():
    """A file as Prometheus itself wants it: what the PrometheusRule has below its spec."""
    text = open(f"{MONITORING}/rules.yaml", encoding="utf-8").read()
    head, body = text.split("\nspec:\n")
    assert "kind: PrometheusRule" in head
    with open("rules.yml", "w", encoding="utf-8") as f:
        for line in body.splitlines():
            assert line.startswith("  "), line
            f.write(line[2:] + "\n")
    return open("rules.yml", encoding="utf-8").read()


def dashboard():
    with open(f"{MONITORING}/dashboard.json", encoding="utf-8") as f:
        return json.load(f)


def expressions():
    """Of the dashboard, with its variables as Grafana fills them in when all is chosen."""
    for p in dashboard()["panels"]:
        for t in p["targets"]:
            yield p["title"], re.sub(r"\$(namespace|tokenmill_job|model_name)\b", ".*", t["expr"]).replace("$__rate_interval", "5s")


def names_in(text):
    return set(re.findall(r"\b(?:vllm:|tokenmill_)\w+", text)) - {"tokenmill_job"}


def rows(n):
    return write_rows("in.jsonl", [{"custom_id": f"r{i}", "prompt": f"question {i}", "max_tokens": 40} for i in range(n)])


@test
def what_is_named_is_told():
    """Each metric of rules and dashboard is in the output of a real worker, with the labels that are asked for."""
    w = Worker("--engine", "fake:rate=4000,batch=8", "-o", "out", rows(500))
    w.until("/readyz", 200)
    found = samples(ask(w.port)[1])
    w.end()
    used = names_in(rule_groups()) | names_in(" ".join(e for _, e in expressions()))
    used |= names_in(" ".join(v.get("definition", "") for v in dashboard()["templating"]["list"]))
    assert len(used) > 25, used
    assert not used - set(found), f"named, but no worker tells it: {used - set(found)}"
    for text in [rule_groups(), *(e for _, e in expressions())]:
        for name, selector in re.findall(r"\b((?:vllm:|tokenmill_)\w+)\{([^}]*)\}", text):
            for label, value in re.findall(r'(\w+)="([^"]*)"', selector):
                assert any(k.get(label) == value for k, _ in found[name]), f"{name} has no {label}=\"{value}\""


@test
def promtool_takes_rules_and_expressions():
    need("promtool")
    rule_groups()
    with open("dashboard.yml", "w", encoding="utf-8") as f:
        rules = [{"record": f"panel:{i}", "expr": e} for i, (_, e) in enumerate(expressions())]
        json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, f)
    for file in ("rules.yml", "dashboard.yml"):
        r = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True)
        assert r.returncode == 0, r.stdout + r.stderr
        assert f"{len(rules) if file == 'dashboard.yml' else 6} rules found" in r.stdout, r.stdout


LABELS = 'namespace="ns",tokenmill_job="night",pod="w-0",instance="10.0.0.1:9090",model_name="m"'


def series(name, values, more=""):
    return {"series": f"{name}{{{LABELS}{',' + more if more else ''}}}", "values": values}


HEALTHY = {"tokenmill_step_age_seconds": ("0.1x60", ""), "tokenmill_stage": ("1x60", 'stage="working"'), "tokenmill_heartbeat_age_seconds": ("10x60", ""),
           "tokenmill_rows_in_flight": ("8x60", ""), "vllm:generation_tokens_total": ("0+1000x60", ""), "vllm:prompt_tokens_total": ("0+1000x60", ""),
           "tokenmill_rows_total": ("0+100x60", 'state="ok"'), "tokenmill_spent_usd": ("5x60", ""), "tokenmill_budget_usd": ("40x60", ""),
           "tokenmill_storage_errors_total": ("0x60", "")}
# alert -> what is otherwise than with a healthy worker
BROKEN = {
    "TokenmillWorkerHangs": [("tokenmill_step_age_seconds", "0+60x60", "")],
    "TokenmillJobStalled": [("vllm:generation_tokens_total", "500x60", ""), ("vllm:prompt_tokens_total", "500x60", "")],
    "TokenmillRowErrors": [("tokenmill_rows_total", "0+10x60", 'state="failed"')],
    "TokenmillSpendNearBudget": [("tokenmill_spent_usd", "37x60", "")],
    "TokenmillStorageErrors": [("tokenmill_storage_errors_total", "0x25 1x34", "")],
    "TokenmillHeartbeatOld": [("tokenmill_heartbeat_age_seconds", "0+60x60", "")],
}
# as broken, but not to be told
QUIET = {
    "a worker that loads or merges makes no steps": [("tokenmill_step_age_seconds", "0+60x60", ""), ("tokenmill_stage", "0x60", 'stage="working"'),
                                                     ("tokenmill_heartbeat_age_seconds", "0+60x60", "")],
    "a job that waits for others has no rows": [("vllm:generation_tokens_total", "500x60", ""), ("vllm:prompt_tokens_total", "500x60", ""),
                                                ("tokenmill_rows_in_flight", "0x60", "")],
    "a few rows fail in each job": [("tokenmill_rows_total", "0+2x60", 'state="failed"')],
    "there is no budget": [("tokenmill_budget_usd", "0x60", "")],
}


def rule_test(name, changes, fires):
    inputs = {(n, more): v for n, (v, more) in HEALTHY.items()}
    inputs.update({(n, more): v for n, v, more in changes})
    groups = rule_groups()
    checks = []
    for alert in BROKEN:
        # what an alert says is not held here a second time: promtool compares labels and annotations, so the count is asked for
        checks.append({"expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)', "eval_time": "30m",
                       "exp_samples": [{"labels": "{}", "value": 1 if alert == fires else 0}]})
    assert all(f"alert: {a}\n" in groups for a in BROKEN) and groups.count("alert: ") == len(BROKEN)
    return {"name": name, "interval": "1m", "input_series": [series(n, v, more) for (n, more), v in inputs.items()], "promql_expr_test": checks}


@test
def alerts_fire_when_they_should():
    need("promtool")
    cases = [rule_test("healthy", [], None)] + [rule_test(a, c, a) for a, c in BROKEN.items()] + [rule_test(n, c, None) for n, c in QUIET.items()]
    with open("test.yml", "w", encoding="utf-8") as f:
        json.dump({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": cases}, f)
    r = subprocess.run(["promtool", "test", "rules", "test.yml"], capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr


@test
def a_prometheus_answers_every_panel():
    w = Worker("--engine", "fake:rate=4000,batch=8", "--publish-seconds", "0.2", "-o", "out", rows(3000))
    rule_groups()
    p = Prometheus([w.port], "rules.yml", labels={"namespace": "ns", "tokenmill_job": "night", "pod": "w-0"})
    try:
        p.until("count_over_time(up[60s])", lambda v: v and v[0] >= 6)
        for title, e in expressions():
            values = p.query(e)
            # these have nothing to say of the fake engine and of a job without a budget
            assert values or "budget" in e or "prefix_cache" in e, f"{title}: nothing for {e}"
        assert p.query("ALERTS") == []
    finally:
        p.end()
        w.end()


@test
def a_hung_worker_rings_in_a_prometheus():
    """The whole way, with the alert's waiting shortened."""
    w = Worker("--engine", "fake:hang=question", "-o", "out", rows(50))
    text = rule_groups()
    with open("rules.yml", "w", encoding="utf-8") as f:
        f.write(re.sub(r"for: \w+", "for: 1s", text.replace("tokenmill_step_age_seconds > 300", "tokenmill_step_age_seconds > 2")))
    p = Prometheus([w.port], "rules.yml", labels={"namespace": "ns", "tokenmill_job": "night", "pod": "w-0"})
    try:
        p.until('ALERTS{alertname="TokenmillWorkerHangs",alertstate="firing",tokenmill_job="night"}', lambda v: v == [1.0])
    finally:
        p.end()
        w.end(signal.SIGKILL, -signal.SIGKILL)


@test
def kustomize_builds_it():
    need("kubectl")
    r = subprocess.run(["kubectl", "kustomize", MONITORING], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    kinds = re.findall(r"^kind: (\w+)", r.stdout, re.M)
    assert sorted(kinds) == ["ConfigMap", "PodMonitor", "PrometheusRule"], kinds
    assert "grafana_dashboard: \"1\"" in r.stdout and "tokenmill jobs" in r.stdout


if __name__ == "__main__":
    main()
