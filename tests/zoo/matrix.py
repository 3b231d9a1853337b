"""What a run found: a line for each database, connector, target and reader, and every difference that is not known."""
import json
from collections import Counter, defaultdict

from catalogs import WORK
from model import holds
from pending import PENDING

SHOWN = 30


class Report:
    def __init__(self, options):
        self.options = options
        self.cells = {}
        self.letter_counts = {}
        self.differences = []  # (what it is about, text), which is pending or not
        self.losses = set()
        self.failures = []
        self.plans = []
        self.met, self.ran = Counter(), []

    def failed(self, kind, text):
        self.failures.append(f"{kind}: {text}")

    def read(self, course, target, reader, results):
        by_topic = {connector.topic(table): (connector, table) for connector in course.connectors for table in course.source.tables}
        for result in results:
            connector, table = by_topic[result["topic"]]
            about = connector.context(target.name).names(reader=reader, table=table.name, label=connector.label(), phase=str(result["phase"]))
            cell = self.cells.setdefault((about["database"], about["label"], target.name, reader), Counter())
            cell["rows"] += result["rows"]
            cell["columns"] += result["columns"] if result["phase"] else 0
            cell["cells"] += result["rows"] * result["columns"]
            rejected = self.unexpected_letters(course, target, connector, table)
            if (target.name, result["topic"]) in course.halted:
                result["differences"] = [{"have": f"halted: {course.halted[target.name, result['topic']]}"}]
            for found in result["differences"]:
                if found.get("row") in rejected:
                    continue  # Its letter is the difference.
                self.difference(about | self.place(table, found), json.dumps(found, ensure_ascii=False), cell)

    def place(self, table, found):
        """Column and value of a difference, from the row's number where it names no column."""
        place = {"column": found.get("column", "")}
        number = found.get("row", 0) % 1000 if found.get("row", 0) >= 1000 else None
        if number is not None:
            _, column, value = table.cases()[number]
            place = {"column": place["column"] or column.name, "value": value.sql}
        return place

    def letter_differences(self, course, target, connector, table):
        """Letters that are there or expected, not both."""
        expected = Counter((letter.row, letter.reason) for phase in (0, 1)
                           for letter in course.expected[target.name, connector.prefix, table.name, phase].letters)
        topic = connector.topic(table)
        found = [letter for letter in course.letters.get(target.name, ()) if letter.topic == topic]
        counted = Counter((letter.row, letter.reason) for letter in found)
        missing = expected - counted
        return expected, [letter for letter in found if (letter.row, letter.reason) not in expected], missing

    def unexpected_letters(self, course, target, connector, table):
        return {letter.row for letter in self.letter_differences(course, target, connector, table)[1]}

    def letters(self, course):
        for target in course.targets:
            for connector in course.connectors:
                counts = self.letter_counts.setdefault((course.source.kind, connector.label(), target.name), Counter())
                for table in course.source.tables:
                    about = connector.context(target.name).names(reader="", table=table.name, label=connector.label())
                    expected, surplus, missing = self.letter_differences(course, target, connector, table)
                    counts["expected"] += expected.total() - missing.total()
                    for letter in surplus:
                        text = f"dead letter of row {letter.row}, {letter.reason}: {letter.message}"
                        known = self.difference(about | self.place(table, {"row": letter.row}) | ({"column": letter.column} if letter.column else {}), text)
                        counts["pending" if known else "unexpected"] += 1
                    for (row, reason), _ in missing.items():
                        known = self.difference(about | self.place(table, {"row": row}), f"no dead letter {reason} of row {row}")
                        counts["pending" if known else "missing"] += 1
                    self.losses |= {(course.source.kind, loss) for loss in course.expected[target.name, connector.prefix, table.name, 1].losses}
        self.ran += [connector.context(target.name).names(label=connector.label()) for target in course.targets for connector in course.connectors]

    def difference(self, about, text, cell=None):
        """True when it is known."""
        pending = next((entry for entry in PENDING if holds(entry.when, about)), None)
        self.met[pending] += pending is not None
        self.differences.append((about, text, pending))
        if cell is not None:
            cell["pending" if pending else "differences"] += 1
        return pending is not None

    def show(self, seconds):
        """Prints all of it; returns how many things failed."""
        print(f"\n{'source':9} {'connector':68} {'target':11} {'reader':13}{'rows':>7}{'columns':>9}{'cells':>9}{'differences':>13}{'pending':>9}"
              f"{'  dead letters: expected':>24}{'unexpected':>12}{'missing':>9}{'pending':>9}")
        for (kind, label, target, reader), cell in self.cells.items():
            letters = self.letter_counts[kind, label, target]
            print(f"{kind:9} {label:68} {target:11} {reader:13}{cell['rows']:>7}{cell['columns']:>9}{cell['cells']:>9}{cell['differences']:>13}{cell['pending']:>9}"
                  f"{letters['expected']:>24}{letters['unexpected']:>12}{letters['missing']:>9}{letters['pending']:>9}")
        wrong = defaultdict(list)
        for about, text, pending in self.differences:
            if not pending:
                wrong[about["database"], about["table"], about.get("column", ""), about.get("value", ""), self.shape(text)].append((about, text))
        for (kind, table, column, value, _), found in list(wrong.items())[:SHOWN * 10]:
            about, text = found[0]
            print(f"DIFFERENT {kind}.{table}.{column} {value} ({len(found)} times, first in {about['label']}, {about['target']} {about['reader']}): {text[:400]}")
        with open(WORK / "zoo-differences.txt", "w") as file:
            file.writelines(f"{about} {text} {'pending' if pending else ''}\n" for about, text, pending in self.differences)
        for (kind, loss) in sorted(self.losses) if self.options.losses else ():
            print(f"EXPECTED {kind}.{loss}")
        for entry in PENDING:
            print(f"PENDING {entry.when}: {entry.reason}: {self.met[entry]} differences")
        stale = [entry for entry in PENDING if not self.met[entry] and self.whole_run()]
        for entry in stale:
            print(f"STALE {entry.when} is pending and shows no difference: take it out")
        for text in self.failures:
            print(f"FAILED {text}")
        for plan in self.plans:
            print(f"PLAN {plan}")
        cells = sum(cell["cells"] for cell in self.cells.values())
        failed = sum(bool(cell["differences"]) for cell in self.cells.values()) + len(self.failures) + len(stale)
        failed += sum(bool(letters["unexpected"] + letters["missing"]) for letters in self.letter_counts.values())
        print(f"{cells} cells compared in {seconds:.0f} s; {len(self.losses)} losses and dead letters that are expected (--losses shows them)")
        print(f"{len(self.cells)} lines, {failed} failed")
        return failed or not self.cells

    def shape(self, text):
        return "".join(character for character in text if not character.isdigit())[:60]

    def whole_run(self):
        """Only a run of everything tells that a difference is gone."""
        options = self.options
        return not self.failures and not options.part
