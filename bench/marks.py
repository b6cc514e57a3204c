"""The rows of bench/compare: what each side does, the marks that firehose is to reach, and how a mark is judged."""

import statistics

CPU = "CPU per delivery"
P50 = "p50"
P99 = "p99"
PEAK_KB = "peak_kb"
RATE = "rate"
BYTES = "bytes per connection"
GROWTH = "memory growth"
DISK = "growth of the state file"


DISORDER = ("lost", "dup", "order")
DRAINED = 4
# What is published while sessions are away. What is not on the disk yet is kept in memory, in case it has to be written
# anew: at full speed, or with durability `os`, the growth would be that of a slow disk.
AWAY_RATE = 50_000


class Row:
    """One kind of work: what mqload does for it, and the marks that firehose is to reach."""

    def __init__(self, name, what, arguments, marks, durability="os", limit=False, rate="delivered_per_s", subject=None,
                 persistent=False):
        self.name, self.what, self.arguments, self.marks = name, what, arguments, marks
        self.durability, self.limit, self.rate = durability, limit, rate
        self.subject_arguments = subject or arguments
        self.persistent = persistent  # mosquitto saves its sessions, too


class Mark:
    """`figure` of the subject, as a ratio to `of` (None: as it is), must be at most (or least) `bound`."""

    def __init__(self, figure, of, bound, least=False, text=None):
        self.figure, self.of, self.bound, self.least = figure, of, bound, least
        self.text = text or f"{bound:g}"

    def reached(self, value):
        return value >= self.bound if self.least else value <= self.bound

    def label(self):
        return f"{self.figure} / {self.of}" if self.of else self.figure


def below(divisor):
    return Mark(CPU, "mosquitto", 1 / divisor, text=f"1/{divisor}")


def flow(kind, *arguments, rate="max"):
    return [kind, *arguments, "--rate", str(rate), "--seconds", "{seconds}"]


def offline(sessions, messages):
    """1,000 sessions would be a thousand million entries in mosquitto's queues, which no memory holds: it gets only those
    sessions that are drained."""
    return ["offline", "--sessions", str(sessions), "--drain", str(DRAINED), "--messages", str(messages), "--qos", "1",
            "--warm-messages", str(messages // 5), "--rate", str(AWAY_RATE), "--drain-max", "300"]


def retained(messages, qos):
    return Row(f"retained20-qos{qos}", f"{messages:,} retained messages to 20 new subscribers, QoS {qos}",
               ["retained", "--n", str(messages), "--subs", "20", "--qos", str(qos)],
               [Mark(RATE, "mosquitto", 2, least=True)], rate="delivered_per_s")


def rows(replay_messages, idle):
    """The marks table of the project, in its order."""
    away = replay_messages * 5
    p99 = Mark(P99, "mosquitto", 1)
    fanin = ("fanin", "--pubs", "50", "--subs", "1")
    return [
        Row("fanout100-max", "fan-out to 100 at full speed", flow("fanout", "--subs", "100"),
            [below(12), Mark(CPU, "limit", 4)], limit=True),
        Row("fanout100-500", "fan-out to 100 at 500 messages/s", flow("fanout", "--subs", "100", rate=500),
            [Mark(CPU, "mosquitto", 0.6), Mark(CPU, "limit", 1.5), p99], limit=True),
        Row("fanout100-500-sync", "the same with every event on the disk", flow("fanout", "--subs", "100", rate=500),
            [p99], durability="sync"),
        Row("fanout1000-50", "fan-out to 1,000 at 50 messages/s", flow("fanout", "--subs", "1000", rate=50),
            [Mark(CPU, "mosquitto", 0.6)], limit=True),
        Row("pairs10-5000", "10 pairs at 5,000 messages/s in all", flow("pairs", "--n", "10", rate=5000),
            [Mark(CPU, "mosquitto", 0.8), p99]),
        Row("fanout50-qos1", "fan-out to 50, QoS 1, at full speed", flow("fanout", "--subs", "50", "--qos", "1"),
            [below(10)]),
        Row("fanout50-qos2", "fan-out to 50, QoS 2, at full speed", flow("fanout", "--subs", "50", "--qos", "2"),
            [below(6)]),
        Row("fanin50", "50 publishers to 1 at full speed", flow(*fanin), [below(8)]),
        Row("fanin50-qos1", "50 publishers to 1, QoS 1, at full speed", flow(*fanin, "--qos", "1"), [below(10)]),
        Row("pairs50", "50 pairs at full speed", flow("pairs", "--n", "50"), [below(6)]),
        Row("pairs50-qos1", "50 pairs, QoS 1, at full speed", flow("pairs", "--n", "50", "--qos", "1"), [below(8)]),
        Row("idle18000", f"{idle:,} idle connections, a subscription each",
            ["conns", "--n", str(idle), "--sub", "--connect-window", "64"],
            [Mark(BYTES, None, 1024, text="1,024 B"), Mark(RATE, "mosquitto", 0.9, least=True)], rate="connects_per_s"),
        Row("durable-sync", "50 publishers at QoS 1, acknowledged when on the disk (mosquitto stores nothing)",
            flow(*fanin, "--qos", "1", "--sub-qos", "0"), [Mark(RATE, "mosquitto", 1, least=True)],
            durability="sync", rate="acked_per_s"),
        Row("replay", "the log to one reader, against mosquitto's offline queue",
            ["offline", "--sessions", "1", "--messages", str(replay_messages), "--qos", "1"],
            [Mark(RATE, "mosquitto", 2.5, least=True), Mark(GROWTH, None, 16, text="16 MiB")], rate="drain_per_s",
            subject=["replay", "--readers", "1", "--messages", str(replay_messages), "--qos", "1", "--reset-peak"]),
        Row("offline1000", f"1,000 sessions of # away for {away:,} messages; {DRAINED} of them are drained (mosquitto has no"
            " others)", offline(DRAINED, away),
            [Mark(RATE, "mosquitto", 2.5, least=True), Mark(GROWTH, None, 1, text="1 MiB"),
             Mark(DISK, None, 1, text="1 MiB")], durability="sync", rate="drain_per_s", persistent=True,
            subject=[*offline(1000, away), "--watch-file", "{state_file}"]),
        retained(replay_messages // 10, 0),
        retained(replay_messages // 10, 1),
    ]


def figures(row, report):
    """The few numbers of a report that the table shows; absent ones are missing."""
    broker = report.get("broker_drain") or report.get("broker_many") or report.get("broker") or {}
    latency = report.get("latency_us") or report.get("connack_latency_us") or {}
    memory = report.get("memory") or {}
    peak_kb = max(broker.get("hwm_kb", 0), memory.get("hwm_kb", 0), memory.get("rss_held_kb", 0))
    found = {
        CPU: broker.get("us_per_delivery", broker.get("us_per_connection")),
        RATE: report.get(row.rate),
        P50: latency.get("p50"),
        P99: latency.get("p99"),
        PEAK_KB: peak_kb or None,
        BYTES: memory.get("rss_bytes_per_conn"),
        "lost": report.get("lost"),
        "dup": report.get("dup"),
        "order": report.get("order_violations"),
    }
    scenario = report.get("scenario")
    if scenario == "replay" and memory:
        found[GROWTH] = (memory["hwm_kb"] - memory["rss_before_kb"]) / 1024
    if scenario == "offline" and memory:
        found[GROWTH] = (memory["rss_queued_kb"] - memory["rss_before_kb"]) / 1024
    if scenario == "offline" and "file" in report:
        found[DISK] = (report["file"]["bytes_queued"] - report["file"]["bytes_before"]) / (1 << 20)
    if scenario == "retained":
        found[RATE] = report["many_subscribers"]["per_s"]
    return {key: value for key, value in found.items() if value is not None}


def median_ratio(runs, mark, subject):
    """The median over the rounds of the subject's figure, by that of the other side in the same round."""
    values = []
    for one in runs:
        mine = one.get(subject, {}).get("figures", {}).get(mark.figure)
        if mark.of is None:
            other = 1
        else:
            other = one.get(mark.of, {}).get("figures", {}).get(mark.figure)
        if mine is not None and other:
            values.append(mine / other)
    return statistics.median(values) if values else None


def judge(row, runs, subject):
    """Each mark with its value (None: no figure) and whether it is reached; the last: nothing lost, doubled, disordered."""
    judged = []
    for mark in row.marks:
        value = median_ratio(runs, mark, subject)
        judged.append({"mark": mark.label(), "bound": mark.text, "at": "least" if mark.least else "most",
                       "value": value, "reached": value is not None and mark.reached(value)})
    counts = [one[subject]["figures"] for one in runs if "figures" in one.get(subject, {})]
    wrong = sum(count.get(key, 0) for count in counts for key in DISORDER)
    reached = wrong == 0 and len(counts) == len(runs)
    judged.append({"mark": "lost + dup + out of order", "bound": "0", "at": "most", "value": wrong, "reached": reached})
    return judged
