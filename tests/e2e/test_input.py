#!/usr/bin/env python3
"""The same rows give the same bytes, whatever they come in."""
import gzip
import os
import shutil
import subprocess
import tarfile

from e2e import Skip, main, mixed_rows, read_bytes, read_records, run, same_outcome, test, write_rows


def plain():
    run("plain", write_rows("rows.jsonl", mixed_rows(20, 5)))
    return read_bytes("rows.jsonl")


@test
def standard_input():
    data = plain()
    with open("rows.jsonl", "rb") as f:
        run("out", "-", stdin=f)
    same_outcome("plain", "out", "standard input")
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as r:
        writer = subprocess.Popen(["cat", "rows.jsonl"], stdout=write_end)
        os.close(write_end)
        run("pipe", "-", stdin=r)
        writer.wait()
    same_outcome("plain", "pipe", "a pipe")
    assert data


@test
def compressed_files():
    data = plain()
    with gzip.open("a.jsonl.gz", "wb") as f:
        f.write(data)
    run("gz", "a.jsonl.gz")
    same_outcome("plain", "gz", ".gz")
    with open("a.jsonl.gz", "ab") as f:  # two gzip members in one file, the second a copy of nothing
        f.write(gzip.compress(b""))
    run("gz2", "a.jsonl.gz")
    same_outcome("plain", "gz2", ".gz of two members")
    if not shutil.which("zstd"):
        raise Skip("no zstd command to make a .zst")
    subprocess.run(["zstd", "-q", "rows.jsonl", "-o", "a.jsonl.zst"], check=True)
    run("zst", "a.jsonl.zst")
    same_outcome("plain", "zst", ".zst")


@test
def archives():
    plain()
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz")):
        with tarfile.open(name, mode) as t:
            t.add("rows.jsonl", "inside/rows.jsonl")
        out = name.replace(".", "-")
        run(out, name)
        same_outcome("plain", out, name)


@test
def files_globs_and_directories():
    lines = plain().splitlines(keepends=True)
    os.makedirs("d/sub")
    for name, part in (("d/1.jsonl", lines[:7]), ("d/2.jsonl", lines[7:15]), ("d/sub/3.jsonl", lines[15:])):
        with open(name, "wb") as f:
            f.writelines(part)
    for out, args in (("files", ["d/1.jsonl", "d/2.jsonl", "d/sub/3.jsonl"]), ("glob", ["d/*.jsonl", "d/sub/*"]), ("directory", ["d"])):
        run(out, *args)
        same_outcome("plain", out, out)


@test
def output_beside_the_input():
    """The same command finds the same files again, although the job's own are there now; another job's are no input either."""
    os.mkdir("d")
    with open("d/rows.jsonl", "wb") as f:
        f.write(plain())
    run("out", ".", cwd="d")
    log = run("out", ".", cwd="d")
    assert "finished already" in log, log
    run("other", "*", cwd="d")
    same_outcome("plain", "d/other", "beside another job")


@test
def line_ends_and_byte_order_mark():
    data = plain()
    for name, bytes_ in (("crlf", data.replace(b"\n", b"\r\n")), ("bom", b"\xef\xbb\xbf" + data), ("noend", data.rstrip(b"\n")),
                         ("blank", data.replace(b"\n", b"\n\n  \n"))):
        with open(name + ".jsonl", "wb") as f:
            f.write(bytes_)
        run(name, name + ".jsonl")
        same_outcome("plain", name, name)


@test
def rows_without_a_name_get_one():
    run("out", write_rows("rows.jsonl", [{"prompt": "a", "max_tokens": 1}] * 3))
    names = [r["custom_id"] for r in read_records("out/results.jsonl")]
    assert len(set(names)) == 3 and names == sorted(names), names


@test
def unusable_input_is_refused():
    data = plain()
    run("out", "missing.jsonl", expect=64)
    run("out", "no*match.jsonl", expect=64)
    os.mkdir("void")
    run("out", "void", expect=64)
    with open("cut.jsonl.gz", "wb") as f:
        f.write(gzip.compress(data)[:-200])
    log = run("out", "cut.jsonl.gz", expect=64)
    assert "cut.jsonl.gz" in log, log
    assert not os.path.exists("out/results.jsonl")
    run("out", "rows.jsonl")
    same_outcome("plain", "out", "after refusals")


if __name__ == "__main__":
    main()
