"""What a run found, as a matrix."""
from collections import Counter, defaultdict

from stack import tail

SHOWN = 12


class Report:
    """Counts kills and collects comparisons; a cell of the matrix is one test."""

    def __init__(self, options):
        self.options = options
        self.kills = defaultdict(Counter)
        self.cells = defaultdict(lambda: {"rows": 0, "versions": 0, "differences": [], "seconds": 0.0})
        self.closing = "0 passed, 1 failed"

    def killed(self, target, while_changing):
        self.kills[target]["while changes were made" if while_changing else "after them"] += 1

    def read(self, target, reader, results):
        for result in results:
            kind, _, rest = result["table"].partition("/")
            cell = self.cells[target, reader, kind, rest.partition("/")[0]]
            cell["rows"] += result["rows"]
            cell["versions"] += 1
            cell["seconds"] += result["seconds"]
            cell["differences"] += [f"{result['table']} at phase {result['phase']} (version {result['version']}): {text}"
                                    for text in result["differences"]]

    def show(self, run, folder, failure, seconds):
        """Prints all of it; returns how many tests failed."""
        print(f"\n{'target':12}{'reader':14}{'source':10}{'encoding':13}{'versions':>9}{'rows':>9}{'differences':>13}{'seconds':>9}")
        for (target, reader, kind, encoding), cell in sorted(self.cells.items()):
            print(f"{target:12}{reader:14}{kind:10}{encoding:13}{cell['versions']:>9}{cell['rows']:>9}{len(cell['differences']):>13}"
                  f"{cell['seconds']:>9.1f}")
        for target, kills in self.kills.items():
            print(f"{target}: {sum(kills.values())} SIGKILLs, {kills['while changes were made']} of them while changes were made")
        for (target, reader, *_), cell in sorted(self.cells.items()):
            for text in cell["differences"][:SHOWN]:
                print(f"DIFFERENT {target}, {reader}: {text}")
            if len(cell["differences"]) > SHOWN:
                print(f"DIFFERENT {target}, {reader}: and {len(cell['differences']) - SHOWN} more")
        if failure:
            print(f"FAILED: {failure}")
            for log in sorted(folder.glob("*.log")):
                print(f"the end of {log}:\n{tail(log, 8)}")
        wrong = sum(bool(cell["differences"]) for cell in self.cells.values())
        failed = wrong + bool(failure) + (not self.cells and not failure)
        rows, versions = (sum(cell[what] for cell in self.cells.values()) for what in ("rows", "versions"))
        print(f"{run}: {rows} rows of {versions} table versions compared in {seconds:.0f} s")
        self.closing = f"{len(self.cells) - wrong} passed, {failed} failed"
        return failed
