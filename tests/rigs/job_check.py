"""What must hold of a merged job, looked at from outside: by its files alone. Standard library only."""
import json
import os
import sqlite3


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def rows_of(data):
    """(custom_id, line) in the order of the file."""
    return [(json.loads(line)["custom_id"], line) for line in data.splitlines()]


def expected_ids(path):
    """The input's custom_ids in order, of the rows that have one."""
    ids = []
    with open(path, encoding="utf-8") as f:
        for line in f:
            try:
                ids.append(json.loads(line).get("custom_id"))
            except (ValueError, AttributeError):
                ids.append(None)
    return ids


def check_rows(input_path, results, errors):
    """Every row of the input has one record in one of the files, in input order. Rows without an id of their own count as many as they are."""
    ids = expected_ids(input_path)
    known = {i: k for k, i in enumerate(ids) if i is not None}
    found = set()
    n_unnamed = 0
    for name, data in (("results.jsonl", results), ("errors.jsonl", errors)):
        last = -1
        for custom_id, line in rows_of(data):
            if custom_id not in known:
                n_unnamed += 1
                check(name == "errors.jsonl", f"{name}: {custom_id} is not in the input")
                continue
            check(custom_id not in found, f"{name}: {custom_id} is there twice")
            found.add(custom_id)
            check(known[custom_id] > last, f"{name}: {custom_id} is out of order")
            last = known[custom_id]
    missing = [i for i in known if i not in found]
    check(not missing, f"{len(missing)} rows have no record, the first is {missing[0] if missing else ''}")
    check(n_unnamed == len(ids) - len(known), f"{n_unnamed} records of rows without an id, the input has {len(ids) - len(known)}")


def first_difference(a, b):
    for i, (x, y) in enumerate(zip(a.splitlines(), b.splitlines())):
        if x != y:
            return f"line {i + 1}: {x[:300]!r} and {y[:300]!r}"
    return f"{len(a)} and {len(b)} bytes"


def check_poison(input_ids, poisoned, plain, merged):
    """The poisoned rows have the error poison_row, all others what the undisturbed run has."""
    for name in ("results.jsonl", "errors.jsonl"):
        expected = [(i, line) for i, line in rows_of(plain[name]) if i not in poisoned]
        found = [(i, line) for i, line in rows_of(merged[name]) if i not in poisoned]
        check(found == expected, f"{name} differs in rows that are not poisoned: {len(found)} and {len(expected)} rows")
    errors = {i: json.loads(line) for i, line in rows_of(merged["errors.jsonl"]) if i in poisoned}
    for custom_id in poisoned:
        check(custom_id in errors, f"the poisoned row {custom_id} has no error record")
        record = errors[custom_id]
        code = (record.get("error") or {}).get("code") or (((record.get("response") or {}).get("body") or {}).get("error") or {}).get("code")
        check(code == "poison_row", f"the poisoned row {custom_id} has the error {code}")


def sums(db, table, where=""):
    columns = ("prompt_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "recomputed_tokens")
    row = db.execute(f"SELECT {', '.join(f'coalesce(sum({c}), 0)' for c in columns)} FROM {table} {where}").fetchone()
    return dict(zip(columns, row))


def check_ledger(path, usage, n_rows):
    """The charges add up to their shards, to usage.json, and to no more than what attempts say that they computed."""
    db = sqlite3.connect(f"file:{os.path.abspath(path)}?immutable=1", uri=True)
    try:
        check(db.execute("SELECT is_complete, n_rows FROM job").fetchall() == [(1, n_rows)], "the ledger's job is not complete")
        check(db.execute("SELECT count(*) FROM charge").fetchone()[0] == n_rows, "the ledger has not one charge for each row")
        charge = sums(db, "charge")
        for a, b in ((sums(db, "charge", "WHERE shard IS NOT NULL"), sums(db, "shard_total")),
                     (charge, {f"{k}_tokens": v for k, v in usage["tokens"].items() if f"{k}_tokens" in charge})):
            check(a == b, f"the ledger does not balance: {a} and {b}")
        differing = db.execute(
            "SELECT t.shard FROM shard_total t LEFT JOIN (SELECT shard, count(*) n, sum(status <> 0) f, sum(prompt_tokens) p, sum(output_tokens) o"
            " FROM charge WHERE shard IS NOT NULL GROUP BY shard) c ON c.shard = t.shard"
            " WHERE c.n IS NOT t.n_rows OR c.f IS NOT t.n_failed OR c.p IS NOT t.prompt_tokens OR c.o IS NOT t.output_tokens LIMIT 5").fetchall()
        check(not differing, f"the totals of the shards {differing} are not the sums of their charges")
        failed = db.execute("SELECT count(*) FROM charge WHERE status IN (1, 2)").fetchone()[0]
        check(failed == usage["rows"]["failed"], f"{failed} failed charges, usage.json says {usage['rows']['failed']}")
        computed = sums(db, "attempt")
        waste = {k: computed[k] - charge[k] for k in ("prompt_tokens", "output_tokens")}
        check(all(v >= 0 for v in waste.values()), f"attempts computed less than what is billed: {waste}")
        return {"attempts": db.execute("SELECT count(*) FROM attempt").fetchone()[0], **{f"wasted {k}": v for k, v in waste.items()}}
    finally:
        db.close()
