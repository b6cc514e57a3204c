"""python3 -m unittest discover bench"""

import unittest

from marks import BYTES, CPU, DISK, GROWTH, P99, RATE, Mark, Row, figures, judge, median_ratio, rows


def one(subject, mosquitto):
    """A round in which each side had these figures."""
    clean = {"lost": 0, "dup": 0, "order": 0}
    return {"firehose": {"figures": {**clean, **subject}}, "mosquitto": {"figures": mosquitto}}


class Marks(unittest.TestCase):
    def test_a_ratio_is_the_median_of_each_rounds_own(self):
        # The machine was twice as slow in the second round, for both.
        runs = [one({CPU: 1}, {CPU: 10}), one({CPU: 2}, {CPU: 20}), one({CPU: 9}, {CPU: 10})]
        self.assertEqual(median_ratio(runs, Mark(CPU, "mosquitto", 1), "firehose"), 0.1)

    def test_a_figure_without_another_side_is_taken_as_it_is(self):
        runs = [one({BYTES: 900}, {BYTES: 1014})]
        self.assertEqual(median_ratio(runs, Mark(BYTES, None, 1024), "firehose"), 900)

    def test_at_most_and_at_least_are_told_apart(self):
        row = Row("r", "", [], [Mark(CPU, "mosquitto", 0.5), Mark(RATE, "mosquitto", 0.9, least=True)])
        judged = judge(row, [one({CPU: 5, RATE: 90}, {CPU: 10, RATE: 100})], "firehose")
        self.assertEqual([mark["reached"] for mark in judged], [True, True, True])
        judged = judge(row, [one({CPU: 6, RATE: 89}, {CPU: 10, RATE: 100})], "firehose")
        self.assertEqual([mark["reached"] for mark in judged], [False, False, True])

    def test_a_missing_figure_or_a_failed_run_reaches_nothing(self):
        row = Row("r", "", [], [Mark(P99, "mosquitto", 1)])
        failed = {"firehose": {"error": "gone"}, "mosquitto": {"figures": {P99: 1}}}
        self.assertEqual([mark["reached"] for mark in judge(row, [failed], "firehose")], [False, False])

    def test_one_lost_message_is_seen(self):
        row = Row("r", "", [], [])
        judged = judge(row, [one({}, {}), one({"lost": 1}, {})], "firehose")
        self.assertEqual([(mark["value"], mark["reached"]) for mark in judged], [(1, False)])

    def test_figures_come_from_where_mqload_puts_them(self):
        row = next(row for row in rows(10, 10) if row.name == "replay")
        report = {"scenario": "replay", "drain_per_s": 5, "broker_drain": {"us_per_delivery": 2, "hwm_kb": 4096},
                  "memory": {"rss_before_kb": 2048, "hwm_kb": 4096}, "lost": 0}
        found = figures(row, report)
        self.assertEqual((found[CPU], found[RATE], found[GROWTH], found["lost"]), (2, 5, 2, 0))

    def test_sessions_that_are_away_may_cost_nothing(self):
        row = next(row for row in rows(10, 10) if row.name == "offline1000")
        report = {"scenario": "offline", "drain_per_s": 7, "lost": 0,
                  "memory": {"rss_before_kb": 2048, "rss_queued_kb": 3072, "hwm_kb": 9000},
                  "file": {"bytes_before": 1 << 20, "bytes_queued": 3 << 20}}
        found = figures(row, report)
        self.assertEqual((found[RATE], found[GROWTH], found[DISK]), (7, 1, 2))

    def test_of_retained_messages_the_rate_to_many_counts(self):
        row = next(row for row in rows(10, 10) if row.name == "retained20-qos1")
        report = {"scenario": "retained", "many_subscribers": {"per_s": 9}, "one_subscriber": {"per_s": 1}, "lost": 2}
        found = figures(row, report)
        self.assertEqual((found[RATE], found["lost"]), (9, 2))

    def test_every_row_has_a_mark_and_a_name_of_its_own(self):
        table = rows(10, 10)
        self.assertEqual(len({row.name for row in table}), 17)
        self.assertTrue(all(row.marks for row in table))


if __name__ == "__main__":
    unittest.main()
