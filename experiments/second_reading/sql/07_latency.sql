-- Latency and excess of every pair of a measured reaction and a client that should see it.
--
-- Latency: receipt minus intended send. Excess: receipt minus the earliest trigger that could count the reaction.
-- A pair is infinitely late if the client did not receive the window, or if the reaction was refused, not answered, not
-- sent, or is in no window.

CREATE TABLE measured AS
SELECT r.*, f.due_ns, f.floor_ns, r.accepted AND r."window" IS NOT NULL AS counted
FROM reactions AS r
JOIN floors AS f USING (seq)
WHERE r.phase = 'measured';

CREATE VIEW pairs AS
SELECT m.seq, r.client_id, m.due_ns, r.received_ns - m.t_intended_ns AS latency_ns, r.received_ns - m.due_ns AS excess_ns
FROM measured AS m
JOIN receipts AS r ON r.epoch = m.epoch AND r."window" = m."window"
WHERE m.counted
UNION ALL
-- A reaction that is in no window is owed to every client that was there when it was due.
SELECT m.seq, s.client_id, m.due_ns, NULL, NULL
FROM measured AS m
JOIN stays AS s ON s.joined_ns <= m.t_intended_ns AND m.t_intended_ns <= s.until_ns
WHERE NOT m.counted;

-- Latencies are quoted in whole milliseconds, rounded up: bin b holds b ≤ latency < b + 1.
CREATE TABLE latency_bins AS
SELECT bin_ms, coalesce((bin_ms + 1) / 1000, 'inf'::DOUBLE) AS latency_s, count(*) AS pairs
FROM (SELECT floor(latency_ns / 1e6) AS bin_ms FROM pairs)
GROUP BY bin_ms;

-- The excess is exact. All pairs of one receipt and one trigger have the same.
CREATE TABLE excess AS
SELECT
    due_ns, coalesce(excess_ns / 1e9, 'inf'::DOUBLE) AS excess_s, count(*) AS pairs,
    any_value(due_ns > first_ns AND due_ns < last_ns) AS whole
FROM pairs
CROSS JOIN due_edges
GROUP BY due_ns, excess_ns;

-- How many measured reactions are behind the pairs. It limits the percentiles that may be quoted: the clients of one
-- reaction see it together.
CREATE TABLE measured_numbers AS
SELECT count(*) AS pairs, count(DISTINCT seq) AS reactions, count(*) FILTER (latency_ns IS NULL) AS undelivered,
    count(*) FILTER (latency_ns < 0) AS negative, count(*) FILTER (excess_ns < 0) AS excess_negative
FROM pairs;

INSERT INTO figures ("key", "value")
WITH latency AS (SELECT latency_s, sum(pairs) OVER (ORDER BY latency_s) AS upto FROM latency_bins),
over AS (SELECT excess_s, sum(pairs) OVER (ORDER BY excess_s ROWS UNBOUNDED PRECEDING) AS upto FROM excess),
floor_list AS (SELECT list(floor_ns ORDER BY floor_ns) AS floors FROM measured),
quoted AS (
    SELECT
        p.name,
        (SELECT min(latency_s) FROM latency WHERE upto >= rank_of(p.q, n.pairs)) AS observed,
        (SELECT at_rank(floors, p.q) / 1e9 FROM floor_list) AS floor,
        (SELECT min(excess_s) FROM over WHERE upto >= rank_of(p.q, n.pairs)) AS excess,
        enough(p.q, n.reactions) AS quotable
    FROM percentiles AS p
    CROSS JOIN measured_numbers AS n
)
SELECT 'e2e_' || name || '_s', CASE WHEN quotable THEN observed END FROM quoted
UNION ALL SELECT 'floor_' || name || '_s', CASE WHEN quotable THEN floor END FROM quoted
UNION ALL SELECT 'e2e_excess_' || name || '_s', CASE WHEN quotable THEN excess END FROM quoted;

-- The worst window: the largest median of the excess of a whole interval between two triggers.
INSERT INTO figures ("key", "value")
WITH ranked AS (
    SELECT
        due_ns, excess_s, sum(pairs) OVER (PARTITION BY due_ns ORDER BY excess_s) AS upto,
        sum(pairs) OVER (PARTITION BY due_ns) AS pairs_of_trigger
    FROM excess
    WHERE whole
),
medians AS (
    SELECT due_ns, min(excess_s) FILTER (upto >= rank_of(0.5, pairs_of_trigger)) AS median_s FROM ranked GROUP BY due_ns
)
SELECT 'excess_worst_window_s', max(median_s) FROM medians
UNION ALL
SELECT 'excess_windows', count(DISTINCT due_ns) FROM measured CROSS JOIN due_edges
WHERE due_ns > first_ns AND due_ns < last_ns
UNION ALL SELECT 'excess_negative', excess_negative FROM measured_numbers
UNION ALL SELECT 'samples', pairs FROM measured_numbers
UNION ALL SELECT 'reactions_measured', reactions FROM measured_numbers
UNION ALL SELECT 'undelivered', undelivered FROM measured_numbers
UNION ALL SELECT 'negative', negative FROM measured_numbers
-- Each latency counts as the middle of its millisecond.
UNION ALL SELECT 'e2e_mean_s', sum((bin_ms + 0.5) * pairs) / sum(pairs) / 1000 FROM latency_bins WHERE bin_ms IS NOT NULL;

-- The windows that count measured reactions, and when their clients saw them after the trigger (median).
CREATE TABLE measured_windows AS
SELECT r.epoch, r."window", any_value(r.trigger_ns) AS trigger_ns,
    at_rank(list(r.received_ns - r.trigger_ns ORDER BY r.received_ns) FILTER (r.received_ns IS NOT NULL), 0.5) / 1e9
        AS after_trigger_s
FROM receipts AS r
SEMI JOIN measured AS m ON m.counted AND m.epoch = r.epoch AND m."window" = r."window"
GROUP BY r.epoch, r."window";

-- Of those, the windows that count no reaction of the load's first or last interval.
CREATE TABLE whole_windows AS
WITH of_the_edges AS (
    SELECT DISTINCT r.epoch, r."window"
    FROM reactions AS r
    JOIN floors AS f USING (seq)
    CROSS JOIN due_edges AS e
    WHERE r."window" IS NOT NULL AND f.due_ns IN (e.first_ns, e.last_ns)
)
SELECT DISTINCT m.epoch, m."window"
FROM measured AS m
ANTI JOIN of_the_edges AS e ON e.epoch = m.epoch AND e."window" = m."window"
WHERE m.counted;

INSERT INTO figures ("key", "value")
SELECT 'windows_measured', count(*) FROM measured_windows
UNION ALL SELECT 'windows_whole', count(*) FROM whole_windows;
