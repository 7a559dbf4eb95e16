#!/usr/bin/env bash
# How much of the deciding crate the simulator reaches: which lines of it no seed came to.
#
#   scripts/coverage.sh [SEEDS [FROM]]                                       (400 seeds from 0)
#
# Counted by kcov, in a build without optimisation, which takes some minutes. A report and no gate: it prints the files
# with the most lines that were not reached, those lines with `LINES=1`, and two sums. Declarations count as lines too
# where something is derived for them; "in functions" leaves these out. The pages of kcov are in
# target/coverage/report.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly SEEDS=${1:-400} FROM=${2:-0}
readonly TARGET=target/coverage
readonly REPORT=$TARGET/report

bash scripts/install-deps.sh kcov
CARGO_TARGET_DIR=$TARGET "${CARGO:-cargo}" build -p failover-sim \
    --config 'profile.dev.package.failover-core.opt-level=0' \
    --config 'profile.dev.package.failover-core.debug="full"'
rm -rf "$REPORT"
kcov --include-path="$PWD/crates/core/src" "$REPORT" \
    "$TARGET/debug/failover-sim" --seeds "$SEEDS" --from "$FROM" --jobs 1
# One of them once more with its journal, which no other writes; kcov adds up what runs into the same directory.
kcov --include-path="$PWD/crates/core/src" "$REPORT" \
    "$TARGET/debug/failover-sim" --seed "$FROM" >/dev/null

python3 - "$REPORT" <<'PYTHON'
import glob, os, re, sys
from xml.etree import ElementTree

# Made for tests, or for mistakes on purpose.
LEFT_OUT = re.compile(r"(/tests/|/tests\.rs$|/sample\.rs$|/mutation\.rs$)")
NOISE = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])\'|//.*')

def in_functions(source):
    """The numbers of the lines that are between the braces of a function."""
    lines, depth, body, awaited = set(), 0, None, False
    for number, line in enumerate(source, 1):
        line = NOISE.sub("", line)
        awaited = awaited or (body is None and re.search(r"\bfn \w", line) is not None)
        if body is not None:
            lines.add(number)
        for char in line:
            if char == "{":
                depth += 1
                if awaited and body is None:
                    body, awaited = depth, False
                    lines.add(number)
            elif char == "}":
                if body == depth:
                    body = None
                depth -= 1
            elif char == ";" and body is None:
                awaited = False
    return lines

hits = {}
for report in glob.glob(os.path.join(sys.argv[1], "failover-sim.*", "cobertura.xml")):
    tree = ElementTree.parse(report)
    root = tree.findtext(".//source", "")
    for part in tree.iter("class"):
        path = os.path.join(root, part.get("filename"))
        if LEFT_OUT.search(path):
            continue
        for line in part.iter("line"):
            hits.setdefault(path, {})[int(line.get("number"))] = int(line.get("hits")) > 0
if not hits:
    sys.exit("coverage: kcov saw no line of crates/core/src")

rows, sums = [], {"of all lines": [0, 0], "of the lines in functions": [0, 0]}
for path, lines in hits.items():
    with open(path) as file:
        source = file.read().split("\n")
    inside = in_functions(source)
    missed = [number for number, hit in sorted(lines.items()) if not hit and number in inside]
    rows.append((len(missed), sum(number in inside for number in lines), path, missed, source))
    for sum_, counted in (("of all lines", lines), ("of the lines in functions", inside & set(lines))):
        sums[sum_][0] += sum(lines[number] for number in counted)
        sums[sum_][1] += len(counted)
print("lines in functions that no seed came to:")
for missed, total, path, numbers, source in sorted(rows, key=lambda row: -row[0]):
    if missed:
        print(f"{missed:>5} of {total:>4} {path.split('/core/src/')[-1]}")
        if os.environ.get("LINES"):
            for number in numbers:
                print(f"      {number:>5} {source[number - 1].rstrip()}")
for name, (hit, total) in sums.items():
    print(f"{100 * hit / total:.1f} % {name} ({hit} of {total})")
PYTHON
