"""Ledgers made with SQL after queue/schema.h, and what a report of them must say, recomputed with whole numbers and fractions. Nothing of it looks at how
the program does it; the rules are those of jobs/ledger_read.h and jobs/prices.h."""
import datetime
import json
import os
import random
import re
import sqlite3
from collections import defaultdict
from fractions import Fraction

import e2e

DAY_MS = 86400000
OK, FAILED, AT_FAULT, FOLDED = 0, 1, 2, 3


def schema():
    """CREATE TABLE and PRAGMA statements as queue/schema.h has them."""
    with open(os.path.join(e2e.ROOT, "queue/schema.h")) as f:
        text = f.read()
    body = text[text.index("#define LEDGER_SCHEMA"):text.index("#endif")]
    application_id = re.search(r"#define LEDGER_APPLICATION_ID (\w+)", text)[1]
    layout = re.search(r"#define JOB_FORMAT (\d+)", text)[1]
    return "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', body)) + f"PRAGMA application_id={int(application_id, 16)};PRAGMA user_version={layout};"


def day_text(day):
    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()


def day_number(text):
    return (datetime.date.fromisoformat(text) - datetime.date(1970, 1, 1)).days


class Ledger:
    """Rows and attempts as Python sees them; write() makes the file."""

    def __init__(self, name="job", model="qwen3-8b", job_tags=None, plan_id=None):
        self.name, self.model, self.job_tags = name, model, job_tags or {}
        self.plan_id = plan_id or f"plan-{name}"
        self.tags = []      # dicts, number = position
        self.charges = []   # dicts
        self.attempts = []  # dicts
        self.claims = []    # (shard, epoch, attempt)
        self.complete = True
        self.n_rows = None

    def tag(self, tags):
        if tags not in self.tags:
            self.tags.append(tags)
        return self.tags.index(tags)

    def charge(self, tags, **kw):
        c = dict(row=len(self.charges), shard=0, epoch=1, status=OK, tags=self.tag(tags), finished_ms=1767225600000, prompt=0, cached=0, output=0,
                 reasoning=0, recomputed=0, wait_s=0.5, prefill_s=0.25, decode_s=1.0)
        c.update(kw)
        self.charges.append(c)
        return c

    def attempt(self, id, **kw):
        a = dict(id=id, worker=0, host="h", node_type="h100x8", start=1767225600000, wall=10.0, load=1.0, busy=8.0, publish=0.5, rows=0, failed=0, prompt=0,
                 cached=0, output=0, reasoning=0, recomputed=0, state=2, end="none")
        a.update(kw)
        self.attempts.append(a)
        return a

    def write(self, path):
        db = sqlite3.connect(path)
        db.execute("PRAGMA page_size=4096")
        db.executescript(schema())
        n = len(self.charges) if self.n_rows is None else self.n_rows
        db.execute("INSERT INTO job VALUES(?,?,?,?,?,?,?)", (self.plan_id, self.name, self.model, "f00", json.dumps(self.job_tags), int(self.complete), n))
        db.executemany("INSERT INTO tag VALUES(?,?)", [(i, json.dumps(t, sort_keys=True)) for i, t in enumerate(self.tags)])
        db.executemany("INSERT INTO charge VALUES(:row,:shard,:epoch,:status,:tags,:finished_ms,:prompt,:cached,:output,:reasoning,:recomputed,:wait_s,"
                       ":prefill_s,:decode_s)", self.charges)
        shards = defaultdict(lambda: [0] * 7)
        for c in self.charges:
            if c["shard"] is not None:
                for i, v in enumerate((1, int(c["status"] == FAILED), c["prompt"], c["cached"], c["output"], c["reasoning"], c["recomputed"])):
                    shards[c["shard"]][i] += v
        db.executemany("INSERT INTO shard_total VALUES(?,?,?,?,?,?,?,?)", [(s, *v) for s, v in shards.items()])
        db.executemany("INSERT INTO claim VALUES(?,?,?)", self.claims)
        db.executemany("INSERT INTO attempt VALUES(:id,:worker,:host,:node_type,:start,:start+CAST(:wall*1000 AS INTEGER),:wall,:load,:busy,:publish,:rows,"
                       ":failed,:prompt,:cached,:output,:reasoning,:recomputed,1000,:state,:end)", self.attempts)
        db.commit()
        db.close()


COUNTS = ("requests_ok requests_failed input_tokens cached_input_tokens output_tokens reasoning_tokens recomputed_tokens useful_tokens wasted_tokens "
          "node_ms load_ms busy_ms publish_ms idle_ms killed_ms gpu_ms").split()
MONEY = "list_input list_cached list_output list_reasoning list_cost billed_cost cache_saving actual_cost killed_cost".split()
SHARED = "wasted_tokens node_ms load_ms busy_ms publish_ms idle_ms killed_ms gpu_ms actual_cost killed_cost".split()
PARTS = "load busy publish idle".split()
ATTO = 10**18


def floor(x):
    return x.numerator // x.denominator


def half_away(x):
    return floor(abs(x) + Fraction(1, 2)) * (1 if x >= 0 else -1)


class Sheet:
    """models: {name: [(from or None, input, cached, output, reasoning, discount)]}, nodes: {name: [(from or None, price an hour, gpus)]}; exact names and
    "*" only. Amounts are Fractions."""

    def __init__(self, models=None, nodes=None, currency="USD"):
        self.models, self.nodes, self.currency = models, nodes, currency

    @staticmethod
    def find(table, name, day):
        entries = table.get(name, table.get("*", []))
        good = [e for e in entries if e[0] is None or day_number(e[0]) <= day]
        return max(good, key=lambda e: -1 if e[0] is None else day_number(e[0])) if good else None

    def text(self):
        def decimal(x):
            return f"{float(x):.8f}" if isinstance(x, Fraction) else str(x)
        lines = [f"currency: {self.currency}"]
        if self.models:
            lines.append("models:")
            for name, entries in self.models.items():
                for f, i, c, o, r, d in entries:
                    lines.append(f"  - {{model: '{name}', {'from: ' + f + ', ' if f else ''}input: {decimal(i)}, cached_input: {decimal(c)}, output: {decimal(o)}, "
                                 f"reasoning: {decimal(r)}, batch_discount: {float(d):.4f}}}")
        if self.nodes:
            lines.append("nodes:")
            for name, entries in self.nodes.items():
                for f, hour, gpus in entries:
                    lines.append(f"  - {{node: '{name}', {'from: ' + f + ', ' if f else ''}per_node_hour: {decimal(hour)}, gpus: {gpus}}}")
        return "\n".join(lines) + "\n"


def cells(ledger, sheet):
    """[(tags or None, day, node, measure)]: everything that is handed out to groups. Measures are dicts; money in Fractions of a unit."""
    first = min((a["start"] for a in ledger.attempts), default=min((c["finished_ms"] for c in ledger.charges if c["finished_ms"] is not None), default=0))
    types = {a["node_type"] for a in ledger.attempts}
    only = types.pop() if len(types) == 1 else ""
    holder = {(s, e): next((a["node_type"] for a in ledger.attempts if a["id"] == i), None) for s, e, i in ledger.claims}

    # node time by day and type
    pools = {}
    computed = 0
    claims = set(ledger.claims)
    for a in sorted(ledger.attempts, key=lambda a: a["id"].encode()):
        computed += a["prompt"] - a["cached"] + a["output"]
        killed = a["state"] == 1 and any(i == a["id"] and any(s2 == s and e2 > e for s2, e2, _ in ledger.claims) for s, e, i in ledger.claims)
        ms = {k: half_away(Fraction(a[k]) * 1000) for k in ("wall", "load", "busy", "publish")}
        if a["state"] == 1:
            last = max((c["finished_ms"] for c in ledger.charges if c["finished_ms"] is not None and (c["shard"], c["epoch"], a["id"]) in claims), default=0)
            unsaid = max(0, min(600000, last - a["start"] - ms["wall"]))
            ms["wall"] += unsaid
            ms["busy"] += unsaid
        ms["idle"] = ms["wall"] - ms["load"] - ms["busy"] - ms["publish"]
        if ms["idle"] < 0:
            ms["wall"] -= ms["idle"]
            ms["idle"] = 0
        day = a["start"] // DAY_MS
        given = dict.fromkeys(PARTS, 0)
        while True:
            elapsed = min(ms["wall"], (day + 1) * DAY_MS - a["start"])
            p = pools.setdefault((day, a["node_type"]), defaultdict(int))
            now = {k: ms[k] * elapsed // ms["wall"] if ms["wall"] else 0 for k in PARTS}
            node = sum(now[k] - given[k] for k in PARTS)
            for k in PARTS:
                p[k + "_ms"] += now[k] - given[k]
            given = now
            p["node_ms"] += node
            p["killed_ms"] += node if killed else 0
            if sheet and sheet.nodes:
                entry = sheet.find(sheet.nodes, a["node_type"], day)
                cost = Fraction(half_away(Fraction(entry[1]) * node * ATTO / 3600000), ATTO)
                p["gpu_ms"] += node * entry[2]
                p["actual_cost"] += cost
                p["killed_cost"] += cost if killed else 0
            if elapsed == ms["wall"]:
                break
            day += 1
    charged = sum(c["prompt"] - c["cached"] + c["output"] for c in ledger.charges if c["status"] in (OK, FAILED))
    wasted = max(0, computed - charged)
    by = "killed_ms" if any(p["killed_ms"] for p in pools.values()) else "node_ms"
    total, so_far, given = sum(p[by] for p in pools.values()), 0, 0
    for key in sorted(pools, key=lambda k: (k[0], k[1].encode())):
        so_far += pools[key][by]
        upto = wasted * so_far // total if total else wasted
        pools[key]["wasted_tokens"] = upto - given
        given = upto

    # rows by tags, day and type
    rows = {}
    for c in ledger.charges:
        node = holder.get((c["shard"], c["epoch"]))
        key = (c["tags"], (first if c["finished_ms"] is None else c["finished_ms"]) // DAY_MS, only if node is None else node)
        m = rows.setdefault(key, defaultdict(int))
        good = c["status"] in (OK, FOLDED)
        m["requests_ok"] += good
        m["requests_failed"] += not good
        m["useful_tokens"] += (c["prompt"] + c["output"]) * good
        for k, name in (("prompt", "input_tokens"), ("cached", "cached_input_tokens"), ("output", "output_tokens"), ("reasoning", "reasoning_tokens"),
                        ("recomputed", "recomputed_tokens")):
            m[name] += c[k]
        if sheet and sheet.models and (c["prompt"] or c["output"]):
            _, price_in, price_cached, price_out, price_reason, discount = sheet.find(sheet.models, ledger.model, key[1])
            parts = {"list_input": price_in * (c["prompt"] - c["cached"]), "list_cached": price_cached * c["cached"],
                     "list_output": price_out * (c["output"] - c["reasoning"]), "list_reasoning": price_reason * c["reasoning"]}
            for k, v in parts.items():
                m[k] += Fraction(v) / 1000000
            m["list_cost"] += Fraction(sum(parts.values())) / 1000000
            m["billed_cost"] += Fraction(sum(parts.values())) / 1000000 * (1 - discount)
            m["cache_saving"] += Fraction(c["cached"]) * (price_in - price_cached) / 1000000 * (1 - discount)

    # share out
    order = sorted(rows, key=lambda k: (k[0], k[1], k[2].encode()))
    result = [(ledger.tags[k[0]], k[1], k[2], rows[k]) for k in order]

    def weight(kind, m):
        return {0: m["list_cost"], 1: m["input_tokens"] - m["cached_input_tokens"] + m["output_tokens"], 2: m["requests_ok"] + m["requests_failed"]}[kind]

    for (day, node), p in pools.items():
        mine = [k for k in order if k[1:] == (day, node)] or order
        kind = next((w for w in range(3) if sum(weight(w, rows[k]) for k in mine) > 0), None)
        if kind is None:
            result.append((None, day, node, p))
            continue
        total, so_far = Fraction(sum(weight(kind, rows[k]) for k in mine)), 0
        given = defaultdict(int)
        for k in mine:
            so_far += weight(kind, rows[k])
            share = defaultdict(int)
            for name in SHARED:
                unit = ATTO if name.endswith("cost") else 1
                upto = Fraction(floor(Fraction(p[name]) * unit * so_far / total), unit)
                share[name] = upto - given[name]
                given[name] = upto
            result.append((ledger.tags[k[0]], day, node, share))
    return result


def groups(ledgers, sheet, by, since=None, until=None):
    """{values: measure}, measures with every name of COUNTS and MONEY."""
    out = {}
    for ledger in ledgers:
        for tags, day, node, m in cells(ledger, sheet):
            if (since is not None and day < since) or (until is not None and day > until):
                continue
            if not any(m.values()):
                continue
            facts = {"model": ledger.model, "job": ledger.name, "node": node, "day": day_text(day)}
            both = {**ledger.job_tags, **(tags or {})}
            key = tuple(facts[d] if d in facts else both.get(d.removeprefix("tag:"), "") for d in by)
            g = out.setdefault(key, dict.fromkeys(COUNTS + MONEY, 0))
            for k, v in m.items():
                g[k] += v
    return out


def per_million(sheet, m):
    """(input, output, useful), None where there is none."""
    if not sheet:
        return None, None, None
    cost = Fraction(m["actual_cost"] if sheet.nodes else m["billed_cost"])
    part, whole = m["list_input"] + m["list_cached"], m["list_cost"]
    if whole == 0:
        part = m["input_tokens"] - m["cached_input_tokens"]
        whole = part + m["output_tokens"]
    share = Fraction(floor(cost * ATTO * part / whole), ATTO) if whole else None

    def price(c, n):
        return Fraction(half_away(c * ATTO / n) * 1000000, ATTO) if c is not None and n else None
    return price(share, m["input_tokens"]), price(None if share is None else cost - share, m["output_tokens"]), price(cost, m["useful_tokens"])


def random_ledger(seed, name, n_rows=300, tenants=("acme", "umbrella", "initech"), model="qwen3-8b", node_types=("h100x8", "l4x1"), start=1767139200000,
                  days=4, texts=None):
    r = random.Random(seed)
    ledger = Ledger(name, model, job_tags={"tenant": "house", "team": "platform", "env": "prod"})
    n_shards = 1 + n_rows // 40
    attempts = []
    for i in range(r.randrange(2, 8)):
        wall = r.uniform(1, 1.6 * 86400) if r.random() < 0.7 else r.uniform(0.001, 30)
        load, publish = wall * r.uniform(0, 0.2), wall * r.uniform(0, 0.1)
        attempts.append(ledger.attempt(f"{r.getrandbits(64):016x}", worker=i, node_type=r.choice(node_types), start=start + r.randrange(days * DAY_MS),
                                       wall=wall, load=load, busy=(wall - load - publish) * r.random(), publish=publish, state=r.choice((1, 2, 2))))
    holders = {}
    for shard in range(n_shards):
        for epoch in range(1, r.choice((1, 1, 2, 3)) + 1):
            a = r.choice(attempts)
            if r.random() < 0.9:
                ledger.claims.append((shard, epoch, a["id"] if r.random() < 0.95 else "gone"))
            holders[shard, epoch] = a
    for row in range(n_rows):
        shard = r.randrange(n_shards)
        epoch = r.choice([e for s, e in holders if s == shard])
        tags = {}
        if r.random() < 0.8:
            tags["tenant"] = r.choice(texts or tenants)
        if r.random() < 0.6:
            tags["project"] = r.choice(("search", "summaries", "evals"))
        if r.random() < 0.5:
            tags["user"] = f"user-{r.randrange(6)}"
        if r.random() < 0.3:
            tags["team"] = r.choice(("red", "blue"))
        status = r.choices((OK, FAILED, AT_FAULT, FOLDED), (90, 4, 3, 3))[0]
        prompt = r.randrange(1, 5000) if status == OK or status == FOLDED else 0
        output = r.randrange(0, 2000) if prompt else 0
        ran = status in (OK, FAILED)
        c = ledger.charge(tags, shard=shard if ran else None, epoch=epoch, status=status, prompt=prompt, cached=r.randrange(prompt + 1) if prompt else 0,
                          output=output, reasoning=r.randrange(output + 1) if r.random() < 0.3 else 0, recomputed=r.randrange(100) if r.random() < 0.1 else 0,
                          finished_ms=start + r.randrange(days * DAY_MS) if ran else None, wait_s=r.expovariate(0.1), prefill_s=r.random(),
                          decode_s=r.expovariate(0.3))
        if ran:
            a = holders[shard, epoch]
            for k in ("prompt", "cached", "output", "reasoning", "recomputed"):
                a[k] += c[k]
            a["rows"] += 1
    for a in attempts:
        if a["state"] == 1:
            a["prompt"] += r.randrange(5000)
            a["output"] += r.randrange(5000)
    return ledger
