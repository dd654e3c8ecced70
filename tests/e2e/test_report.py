#!/usr/bin/env python3
"""What `tokenmill report` says, to the last digit, beside sums made by Python out of the same rows."""
import csv
import glob
import html.parser
import io
import json
import os
import random
import shutil
import sqlite3
import subprocess
import time
from decimal import Decimal
from fractions import Fraction

from e2e import PROGRAM, ROUNDS, SEED, Skip, main, test, tokenmill, write_rows
from ledgers import AT_FAULT, COUNTS, FAILED, MONEY, Ledger, Sheet, day_number, groups, per_million, random_ledger
from s3_servers import start_moto

F = Fraction
SHEET = Sheet(models={"qwen3-8b": [(None, F("0.2"), F("0.05"), F("0.6"), F("0.61"), F("0.5")),
                                   ("2026-01-01", F("0.18"), F("0.04512345"), F("0.55"), F("0.7"), F("0.3333"))],
                      "*": [(None, F(1), F(2), F(3), F(0), F(0))]},
              nodes={"h100x8": [(None, F("22.4"), 8), ("2026-01-02", F("19.99999999"), 8)], "*": [(None, F("0.71"), 1)]})


def report(*args, expect=0, env=None):
    r = subprocess.run([PROGRAM, "report", *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True, timeout=300, env={**os.environ, **(env or {})})
    err = r.stderr.decode()
    assert r.returncode == expect, f"report {args}: status {r.returncode}, expected {expect}: {err[-2000:]}"
    assert "Sanitizer" not in err and "runtime error" not in err, err
    return r.stdout.decode("utf-8") if expect == 0 else err


def write_sheet(sheet, path="prices.yaml"):
    with open(path, "w") as f:
        f.write(sheet.text())
    return path


def exact(text):
    return None if text == "" else F(text)


CSV_COUNTS = {c: (c.replace("_ms", "_seconds"), 1000 if c.endswith("_ms") else 1) for c in COUNTS}


def check_numbers(what, row, m, sheet):
    """row: name -> text, "" for none."""
    for c in COUNTS:
        name, unit = CSV_COUNTS[c]
        expected = None if c == "gpu_ms" and not (sheet and sheet.nodes) else F(m[c], unit)
        assert exact(row[name]) == expected, f"{what}: {name} is {row[name]}, expected {expected}"
    assert exact(row["billed_tokens"]) == m["input_tokens"] + m["output_tokens"], what
    for name in MONEY[4:]:
        known = sheet and (sheet.nodes if name in ("actual_cost", "killed_cost") else sheet.models)
        assert exact(row[name]) == (m[name] if known else None), f"{what}: {name} is {row[name]}, expected {m[name]} ({float(m[name])})"
    for name, expected in zip(("per_million_input", "per_million_output", "per_million_useful"), per_million(sheet, m)):
        assert exact(row[name]) == expected, f"{what}: {name} is {row[name]}, expected {expected} ({expected and float(expected)})"


def check_csv(text, expected, by, sheet):
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert text.endswith("\r\n") and text.count("\r\n") >= len(rows) + 1
    keys = [tuple(row[d] for d in by) for row in rows]
    assert set(keys) == set(expected) and len(keys) == len(expected), f"{set(keys) ^ set(expected)}"
    assert keys == sorted(keys, key=lambda k: [v.encode() for v in k])
    for key, row in zip(keys, rows):
        assert row["currency"] == (sheet.currency if sheet else "")
        check_numbers(f"{by} {key}", row, expected[key], sheet)


def check_json(text, expected, by, sheet, n_jobs):
    data = json.loads(text, parse_float=Decimal)
    assert data["by"] == by and len(data["jobs"]) == n_jobs
    assert {tuple(g["by"][d] for d in by) for g in data["groups"]} == set(expected)

    def flat(g):
        return {k: "" if v is None else str(v) for k, v in g.items() if not isinstance(v, (dict, list))}
    for g in data["groups"]:
        check_numbers("json", flat(g), expected[tuple(g["by"][d] for d in by)], sheet)
    total = {k: sum(m[k] for m in expected.values()) for k in COUNTS + MONEY}
    check_numbers("json total", flat(data["total"]), total, sheet)
    return data


FOCUS_MANDATORY = """BilledCost BillingAccountId BillingAccountName BillingAccountType BillingCurrency BillingPeriodEnd BillingPeriodStart ChargeCategory
ChargeClass ChargeDescription ChargePeriodEnd ChargePeriodStart ContractedCost EffectiveCost InvoiceIssuerName ListCost PricingQuantity PricingUnit ProviderName
PublisherName ServiceCategory ServiceName""".split()
FOCUS_NOT_NULL = [c for c in FOCUS_MANDATORY if c != "ChargeClass"]
FOCUS_COLUMNS = """AvailabilityZone BilledCost BillingAccountId BillingAccountName BillingAccountType BillingCurrency BillingPeriodEnd BillingPeriodStart
CapacityReservationId CapacityReservationStatus ChargeCategory ChargeClass ChargeDescription ChargeFrequency ChargePeriodEnd ChargePeriodStart
CommitmentDiscountCategory CommitmentDiscountId CommitmentDiscountName CommitmentDiscountQuantity CommitmentDiscountStatus CommitmentDiscountType
CommitmentDiscountUnit ConsumedQuantity ConsumedUnit ContractedCost ContractedUnitPrice EffectiveCost InvoiceId InvoiceIssuerName ListCost ListUnitPrice
PricingCategory PricingCurrency PricingCurrencyContractedUnitPrice PricingCurrencyEffectiveCost PricingCurrencyListUnitPrice PricingQuantity PricingUnit
ProviderName PublisherName RegionId RegionName ResourceId ResourceName ResourceType ServiceCategory ServiceName ServiceSubcategory SkuId SkuMeter
SkuPriceDetails SkuPriceId SubAccountId SubAccountName SubAccountType Tags""".split()


def check_focus(text, expected, by, sheet):
    """The rules of FOCUS 1.2 (its requirements model) that can be seen in the data, and our own balance. by has day, model and job."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows, columns = list(reader), reader.fieldnames
    assert not set(FOCUS_MANDATORY) - set(columns), set(FOCUS_MANDATORY) - set(columns)
    assert all(c in FOCUS_COLUMNS or c.startswith("x_") for c in columns), columns
    sums = {}
    for row in rows:
        for c in FOCUS_NOT_NULL:
            assert row[c] != "", f"{c} is null: {row}"
        for c in ("BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd"):
            assert row[c][10:] == "T00:00:00Z", row[c]
        start, end = day_number(row["ChargePeriodStart"][:10]), day_number(row["ChargePeriodEnd"][:10])
        assert end == start + 1
        assert row["BillingPeriodStart"] <= row["ChargePeriodStart"] and row["ChargePeriodEnd"] <= row["BillingPeriodEnd"]
        assert row["BillingPeriodStart"][8:10] == "01" and row["BillingPeriodEnd"][8:10] == "01"
        assert row["BillingPeriodStart"][:7] == row["ChargePeriodStart"][:7]
        assert row["BillingCurrency"] == sheet.currency and row["ChargeCategory"] == "Usage" and row["ChargeClass"] == ""
        assert row["ServiceCategory"] == "AI and Machine Learning" and row["ServiceSubcategory"] == "Generative AI"
        assert row["ProviderName"] == row["InvoiceIssuerName"]  # else BilledCost would have to be 0
        assert F(row["ListUnitPrice"]) * F(row["PricingQuantity"]) == F(row["ListCost"]), row
        assert F(row["ContractedUnitPrice"]) * F(row["PricingQuantity"]) == F(row["ContractedCost"]), row
        assert F(row["BilledCost"]) == F(row["ContractedCost"])
        assert (row["SubAccountId"] == "") == (row["SubAccountType"] == "")
        tags = json.loads(row["Tags"]) if row["Tags"] else {}
        assert "" not in tags.values()
        facts = {"day": row["ChargePeriodStart"][:10], "model": row["x_Model"], "job": row["x_Job"], "node": row["x_NodeType"]}
        key = tuple(facts[d] if d in facts else tags.get(d.removeprefix("tag:"), "") for d in by)
        if "tenant" in by:
            assert row["SubAccountId"] == tags.get("tenant", "")
        s = sums.setdefault(key, dict.fromkeys(("list", "billed", "effective", "tokens", "Input Tokens", "Cached Input Tokens", "Output Tokens", "Reasoning Tokens"), 0))
        s["list"] += F(row["ListCost"])
        s["billed"] += F(row["BilledCost"])
        s["effective"] += F(row["EffectiveCost"])
        if row["ConsumedUnit"] == "Tokens":
            s[row["SkuMeter"]] += F(row["ConsumedQuantity"])
            assert row["PricingUnit"] == "1000000 Tokens" and F(row["PricingQuantity"]) * 1000000 == F(row["ConsumedQuantity"])
    for key, m in expected.items():
        s = sums.pop(key, None)
        if s is None:
            assert not m["input_tokens"] and not m["output_tokens"] and not m["actual_cost"], key
            continue
        assert s["list"] == m["list_cost"] and s["billed"] == m["billed_cost"], key
        assert s["effective"] == (m["actual_cost"] if sheet.nodes else m["billed_cost"]), (key, s, m)
        assert s["Input Tokens"] == m["input_tokens"] - m["cached_input_tokens"] and s["Cached Input Tokens"] == m["cached_input_tokens"]
        assert s["Output Tokens"] == m["output_tokens"] - m["reasoning_tokens"] and s["Reasoning Tokens"] == m["reasoning_tokens"]
    assert not sums, list(sums)


class Page(html.parser.HTMLParser):
    """Elements and attributes of a page, and its text; each element is closed where it should be, and nothing is run or fetched."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self.open = [], [], []
        assert "Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"" in text
        self.feed(text)
        self.close()
        assert not self.open, self.open
        for tag, attrs in self.elements:
            assert tag not in ("script", "img", "b", "i", "u", "iframe", "object", "link", "base", "form"), tag
            assert not any(a.startswith("on") or a in ("src", "href", "xlink:href", "action", "style") for a in attrs), (tag, attrs)

    def handle_starttag(self, tag, attrs):
        assert len(attrs) == len(dict(attrs)), (tag, attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open)
        self.open.pop()

    def handle_data(self, data):
        self.text.append(data)

    def handle_entityref(self, name):
        raise AssertionError(name)


BYS = ["", "tenant", "tenant,project,model", "day", "day,node", "job,user", "tag:team,tag:env", "tenant,project,user,model,job,node,day,tag:team"]


def compare(jobs, sheet, bys=BYS, since=None, until=None):
    paths = [f"{j.plan_id}.db" for j in jobs]
    for j, p in zip(jobs, paths):
        if not os.path.exists(p):
            j.write(p)
    args = [*paths]
    if sheet:
        args += ["--prices", write_sheet(sheet)]
    days = {}
    if since:
        args += ["--since", since]
        days["since"] = day_number(since)
    if until:
        args += ["--until", until]
        days["until"] = day_number(until)
    for by in bys:
        names = by.split(",") if by else []
        expected = groups(jobs, sheet, names, **days)
        check_csv(report("--format", "csv", "--by", by, *args), expected, names, sheet)
        check_json(report("--format", "json", "--by", by, *args), expected, names, sheet, len(jobs))
        if sheet and sheet.models:
            full = names + [d for d in ("day", "model", "job") if d not in names]
            check_focus(report("--format", "focus", "--by", by, *args), groups(jobs, sheet, full, **days), full, sheet)
        report("--by", by, *args)
        Page(report("--format", "html", "--by", by, *args))


@test
def sums_of_random_ledgers():
    for i in range(ROUNDS):
        jobs = [random_ledger(SEED + 100 * i + k, f"job-{k}", model=m) for k, m in enumerate(("qwen3-8b", "llama-3", "qwen3-8b"))]
        compare(jobs, SHEET)
        for p in os.listdir("."):
            os.remove(p)


@test
def sums_without_some_prices():
    jobs = [random_ledger(SEED + 7, "a"), random_ledger(SEED + 8, "b")]
    compare(jobs, None, BYS[:4])
    compare(jobs, Sheet(models=SHEET.models), BYS[:4])
    compare(jobs, Sheet(nodes=SHEET.nodes), BYS[:4])


@test
def days_are_cut_at_midnight():
    jobs = [random_ledger(SEED + 20, "a")]
    compare(jobs, SHEET, ["day", "tenant"], since="2026-01-01")
    compare(jobs, SHEET, ["day", "tenant"], until="2026-01-01")
    compare(jobs, SHEET, ["day", "tenant"], since="2026-01-01", until="2026-01-01")
    compare(jobs, SHEET, ["day", ""], since="2030-01-01")
    # one attempt of a second before and two after midnight, and of nothing else
    j = Ledger("midnight")
    j.attempt("a", start=1767225600000 - 1000, wall=3.0, load=0.9, busy=1.2, publish=0.3)
    j.charge({"tenant": "x"}, prompt=10, output=5, finished_ms=1767225600000 - 1, shard=0)
    j.charge({"tenant": "y"}, prompt=10, output=5, finished_ms=1767225600000, shard=0)
    compare([j], SHEET, ["day", "day,tenant"])
    rows = list(csv.DictReader(io.StringIO(report("plan-midnight.db", "--by", "day,tenant", "--format", "csv"), newline="")))
    assert [(r["day"], r["tenant"], r["node_seconds"]) for r in rows] == [("2025-12-31", "x", "1.000"), ("2026-01-01", "y", "2.000")], rows


@test
def corners():
    empty = Ledger("empty")
    failed = Ledger("failed", job_tags={"tenant": "t"})
    failed.attempt("a", wall=100.0)
    for i in range(3):
        failed.charge({"tenant": "u"} if i else {}, status=FAILED if i else AT_FAULT, shard=0 if i else None, finished_ms=1767225600001 if i else None)
    no_rows = Ledger("no-rows", job_tags={"tenant": "t"})
    no_rows.complete, no_rows.n_rows = False, 10
    no_rows.attempt("b", wall=50.0, prompt=100, output=7)
    idle_day = Ledger("idle-day")
    idle_day.attempt("c", wall=3.5 * 86400, load=0.0, busy=1.0, publish=0.0)
    for i in range(7):
        idle_day.charge({"tenant": "abcdefg"[i]}, prompt=i, cached=i // 2, output=3 * i, finished_ms=1767225600000 + 5)
    huge = Ledger("huge")
    huge.attempt("d", node_type="", wall=3000 * 86400.0, load=1e7, busy=1e8, publish=0.001)
    for i in range(2):
        huge.charge({"tenant": f"t{i}"}, prompt=2**61, cached=2**60, output=2**60, reasoning=2**59, finished_ms=4102444800000)
    compare([empty], SHEET, BYS[:4])
    compare([failed], SHEET, BYS[:4])
    compare([no_rows], SHEET, BYS[:4])
    compare([idle_day], SHEET, BYS[:5])
    compare([huge], SHEET, BYS[:3])
    compare([empty, failed, no_rows, idle_day], SHEET, BYS)


@test
def faults_are_named():
    good = random_ledger(SEED + 40, "good", n_rows=100)
    good.write("good.db")
    sheet = write_sheet(SHEET)

    def broken(sql, expect, *words):
        shutil.copy("good.db", "bad.db")
        db = sqlite3.connect("bad.db")
        db.execute(sql)
        assert db.total_changes > 0 or "CREATE" in sql or "PRAGMA" in sql or "DROP" in sql, sql
        db.commit()
        db.close()
        err = report("bad.db", "--prices", sheet, expect=expect)
        for w in ("bad.db", *words):
            assert w in err, f"{sql}: '{w}' is not in: {err}"

    shard = good.charges[next(i for i, c in enumerate(good.charges) if c["status"] == 0)]["shard"]
    row = next(c["row"] for c in good.charges if c["status"] == 0)
    broken(f"UPDATE charge SET output_tokens = output_tokens + 1 WHERE row = {row}", 74, "out of balance", f"shard {shard}", "output_tokens")
    broken(f"UPDATE charge SET prompt_tokens = prompt_tokens + 1 WHERE row = {row}", 74, "out of balance", f"shard {shard}", "prompt_tokens")
    broken(f"UPDATE shard_total SET n_failed = n_failed + 1 WHERE shard = {shard}", 74, "out of balance", f"shard {shard}", "n_failed")
    broken(f"DELETE FROM shard_total WHERE shard = {shard}", 74, "out of balance", f"shard {shard}", "n_rows")
    broken(f"DELETE FROM charge WHERE row = {row}", 74, "out of balance", "n_rows")
    broken("UPDATE job SET n_rows = n_rows + 1", 74, "out of balance", "101 rows", "100")
    broken("DELETE FROM charge WHERE shard IS NULL", 74, "out of balance", "100 rows")
    broken(f"UPDATE charge SET cached_tokens = prompt_tokens + 1 WHERE row = {row}", 74, f"row {row}")
    broken(f"UPDATE charge SET output_tokens = -1, reasoning_tokens = -2 WHERE row = {row}", 74, f"row {row}")
    broken(f"UPDATE charge SET output_tokens = 1.5 WHERE row = {row}", 74, f"row {row}")
    broken(f"UPDATE charge SET status = 9 WHERE row = {row}", 74, f"row {row}")
    broken(f"UPDATE charge SET tags = 99999 WHERE row = {row}", 74, f"row {row}")
    broken(f"UPDATE charge SET output_tokens = {2**63 - 1} WHERE row IN ({row}, {row} + 1)", 74)
    broken("UPDATE tag SET json = json || ' '  || '[' WHERE tags = 0", 74, "tags")
    broken("UPDATE tag SET json = '[1]' WHERE tags = 0", 74, "tags")
    broken("UPDATE tag SET json = '{\"tenant\":1}' WHERE tags = 0", 74, "tags")
    broken("UPDATE tag SET json = CAST(x'7b2261223a22ff227d' AS TEXT) WHERE tags = 0", 74)
    broken("UPDATE job SET model = CAST(x'ff' AS TEXT)", 74, "model")
    broken("UPDATE job SET tags = 'nope'", 74, "tags")
    broken("DELETE FROM job", 74, "table job")
    broken("INSERT INTO job SELECT * FROM job", 74, "table job")
    broken("UPDATE attempt SET wall_s = -1", 74, "attempt", "wall_s")
    broken("UPDATE attempt SET busy_s = 9e99", 74, "attempt", "busy_s")
    broken("UPDATE attempt SET started_unix_ms = -5", 74, "attempt")
    broken("DROP TABLE charge", 74, "charge")
    broken("PRAGMA user_version = 99", 74, "layout")
    broken("PRAGMA application_id = 2", 74)
    with open("good.db", "rb") as f:
        data = bytearray(f.read())
    r = random.Random(SEED)
    for _ in range(20 * ROUNDS):
        torn = bytearray(data)
        for _ in range(r.randrange(1, 30)):
            torn[r.randrange(len(torn))] = r.randrange(256)
        with open("torn.db", "wb") as f:
            f.write(torn[:r.randrange(len(torn))] if r.random() < 0.3 else torn)
        tokenmill("report", "torn.db", "--format", "json", "--prices", sheet, expect=None)
    assert "given twice" in report("good.db", "good.db", expect=1)
    assert "no job" in report(".", expect=1)
    assert "nowhere.db" in report("nowhere.db", expect=74)
    assert "prices.json" in report("good.db", "--prices", "prices.json", expect=64)
    only = Sheet(models={"other": SHEET.models["*"]})
    assert "no price for model 'qwen3-8b'" in report("good.db", "--prices", write_sheet(only, "o.yaml"), expect=64)
    only = Sheet(nodes={"l4x1": [("2026-01-02", F(1), 1)]})
    assert "no price" in report("good.db", "--prices", write_sheet(only, "o.yaml"), expect=64)
    assert "needs a price sheet" in report("good.db", "--format", "focus", expect=1)
    assert "tenat" in report("good.db", "--by", "tenat", expect=1)
    assert "twice" in report("good.db", "--by", "day,day", expect=1)
    assert "2026-02-30" in report("good.db", "--since", "2026-02-30", expect=1)
    assert "after" in report("good.db", "--since", "2026-02-20", "--until", "2026-02-19", expect=1)


@test
def from_a_job_directory():
    j = random_ledger(SEED + 50, "dir", n_rows=50)
    os.makedirs("job/merged")
    j.write("job/merged/ledger.db")
    j.write("plan-dir.db")
    assert report("job", "--format", "csv") == report("plan-dir.db", "--format", "csv") == report("job/", "--format", "csv")
    report("job", "-o", "out.csv", "--format", "csv")
    with open("out.csv", newline="") as f:
        assert f.read() == report("job", "--format", "csv")


@test
def a_job_that_ran():
    """By the program itself: counts are those of usage.json, tags those of the rows; before the merge, of what is there so far."""
    rows = [{"custom_id": f"r{i}", "prompt": "word " * (i % 30 + 1), "max_tokens": 30, "user": f"u{i % 3}", "metadata": {"tenant": "ab"[i % 2], "run": "=1"}}
            for i in range(2000)]
    rows[17] = {"custom_id": "bad", "prompt": 5}
    write_rows("rows.jsonl", rows)
    sheet = write_sheet(Sheet(models={"*": SHEET.models["*"]}, nodes={"*": SHEET.nodes["*"]}))
    args = ["run", "--engine", "fake:tokens=5-30,rate=20000,fail=0.02", "-o", "job", "--publish-seconds", "0.1", "rows.jsonl"]
    process = subprocess.Popen([PROGRAM, *args], stderr=subprocess.DEVNULL)
    while not glob.glob("job/shards/*/seg-*"):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    before = json.loads(report("job", "--format", "json", "--by", "tenant,user", "--prices", sheet))
    assert not before["jobs"][0]["complete"] and 0 < before["jobs"][0]["records"] < 2000, before["jobs"]
    assert "not complete" in report("job", "--prices", sheet)
    tokenmill(*args)
    with open("job/usage.json") as f:
        usage = json.load(f)
    after = json.loads(report("job", "--format", "json", "--by", "tenant,user", "--prices", sheet))
    total, job = after["total"], after["jobs"][0]
    assert job["complete"] and job["rows"] == job["records"] == 2000 and job["attempts"] >= 1
    assert (total["requests_ok"], total["requests_failed"]) == (usage["rows"]["ok"], usage["rows"]["failed"])
    for name, key in (("input_tokens", "prompt"), ("cached_input_tokens", "cached"), ("output_tokens", "output"), ("recomputed_tokens", "recomputed")):
        assert total[name] == usage["tokens"][key], (name, total, usage)
    groups_of = {(g["by"]["tenant"], g["by"]["user"]): g["requests_ok"] + g["requests_failed"] for g in after["groups"]}
    assert sum(groups_of.values()) == 2000 and len([k for k in groups_of if k[0]]) == 6, groups_of
    assert total["output_tokens"] > before["total"]["output_tokens"] > 0
    assert F(total["list_cost"]) == F(total["input_tokens"] - total["cached_input_tokens"] + 2 * total["cached_input_tokens"] + 3 * total["output_tokens"], 1000000)
    assert total["node_seconds"] > 0 and total["busy_seconds"] > 0 and F(total["actual_cost"]) > 0
    # What is left when only the results were kept.
    shutil.copytree("job/merged", "kept/merged")
    assert report("kept", "--format", "csv", "--prices", sheet) == report("job", "--format", "csv", "--prices", sheet)


@test
def from_object_storage():
    j = random_ledger(SEED + 51, "night", n_rows=50)
    j.write("plan-night.db")
    with open("plan-night.db", "rb") as f:
        data = f.read()
    with start_moto() as server:
        server.create_bucket("bucket")
        assert server.request("PUT", "/bucket/jobs/night/merged/ledger.db", body=data)[0] == 200
        assert report("s3://bucket/jobs/night", "--format", "csv", env=server.env) == report("plan-night.db", "--format", "csv")
        assert "no job" in report("s3://bucket/jobs/none", expect=1, env=server.env)


def peak_kib(*args):
    """Most memory that a report took, as far as looking every few milliseconds tells. (ru_maxrss of a child counts its parent's before exec.)"""
    process = subprocess.Popen([PROGRAM, "report", *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        with open(f"/proc/{process.pid}/status") as f:
            peak = max([peak] + [int(line.split()[1]) for line in f if line.startswith("VmHWM")])
        time.sleep(0.002)
    assert process.returncode == 0, args
    return peak


@test
def memory_is_flat():
    """Three times the rows, each with tags of its own, and not more memory: SQLite's caches are full with either."""
    if "asan" in PROGRAM:
        raise Skip("sanitizers keep freed memory")
    peaks = []
    for n in (100000, 300000):
        j = Ledger(f"n{n}")
        for i in range(50):
            j.attempt(f"a{i}", start=1767225600000 + i * 10000000, wall=70000.0, load=1.0, busy=60000.0, publish=1.0)
        j.tags = [{"tenant": f"t{i % 20}", "id": str(i)} for i in range(n)]
        j.charges = [dict(row=i, shard=i // 500, epoch=1, status=0, tags=i, finished_ms=1767225600000 + i * 100, prompt=100 + i % 77, cached=i % 50, output=i % 99,
                          reasoning=0, recomputed=0, wait_s=1.0, prefill_s=0.1, decode_s=2.0) for i in range(n)]
        j.write(f"{n}.db")
        peaks.append(peak_kib("--prices", write_sheet(SHEET), "--by", "tenant,day", "--format", "json", f"{n}.db"))
    assert peaks[1] < peaks[0] + 8192, f"{peaks} KiB"


HOSTILE = ["<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "' onload='x", "</title></style><script>x</script>", "a,b\"c\r\nd", "=1+1",
           "\u202egnp.exe", "\x1b[31mred\x1b[0m\x07", "日本語の名前", "🙂" * 40, "x" * 5000, " lead and trail ", "&amp;&lt;", "-->", "]]>", "\ufeffbom", "ä\u0301"]


@test
def tags_of_a_job():
    write_rows("rows.jsonl", [{"custom_id": f"r{i}", "prompt": f"row {i}", "max_tokens": 5, **({"metadata": {"team": "row's"}} if i < 3 else {})}
                              for i in range(10)])
    os.environ["TOKENMILL_TAGS"] = "team=environment,project=p"
    try:
        tokenmill("run", "--engine", "fake", "-o", "tagged", "--tag", "team=option", "--tag", "note=a=b", "rows.jsonl")
        rows = list(csv.DictReader(io.StringIO(report("tagged", "--by", "tag:team,project,tag:note", "--format", "csv"))))
        assert [(r["tag:team"], r["project"], r["tag:note"], r["requests_ok"]) for r in rows] == \
            [("option", "p", "a=b", "7"), ("row's", "p", "a=b", "3")], rows
        # They are the job's from its plan on.
        tokenmill("run", "-o", "tagged", "--tag", "team=option", "--tag", "note=a=b")
        assert "--tag differs" in tokenmill("run", "-o", "tagged", "--tag", "team=other", expect=65)
        for bad in (["--tag", "x"], ["--tag", "=x"], ["--tag", "a=1", "--tag", "a=2"]):
            assert "--tag" in tokenmill("run", "--engine", "fake", "-o", "other", *bad, "rows.jsonl", expect=1)
    finally:
        del os.environ["TOKENMILL_TAGS"]


@test
def hostile_values():
    j = random_ledger(SEED + 60, "evil<b>job", n_rows=400, texts=HOSTILE, model="<i>model&")
    j.job_tags["team"] = "<u>"
    j.plan_id = "evil"
    sheet = Sheet(models={"*": SHEET.models["*"]}, nodes={"*": SHEET.nodes["*"]})
    compare([j], sheet, ["tenant", "tenant,tag:team,job"])
    table = report("evil.db", "--by", "tenant,job", "--prices", "prices.yaml")
    assert all(c == "\n" or c >= " " for c in table) and "\u202e" not in table and "\x9b" not in table
    page = Page(report("evil.db", "--by", "tenant,tag:team,job", "--prices", "prices.yaml", "--format", "html"))
    shown = "".join(page.text)
    for h in HOSTILE:
        # Controls and marks that turn the direction of writing are shown as what they are not.
        expected = "".join("\ufffd" if c in "\u202e\x1b\x07\r" else c for c in h)
        assert expected in shown, f"{h!r} is not shown"
    assert not set(shown) & set("\u202e\x1b\x07\r")


if __name__ == "__main__":
    main()
