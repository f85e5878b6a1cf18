-- Can the clocks be believed? No stamp may lie before its cause, and no clock may drift or differ.

-- The wall clock against the monotonic one: the difference at each sample, from the first.
CREATE TABLE clock_differences AS
SELECT
    n, (monotonic_ns - first_value(monotonic_ns) OVER (ORDER BY n)) / 1e9 AS spent_s,
    (wall_ns - monotonic_ns - first_value(wall_ns - monotonic_ns) OVER (ORDER BY n)) / 1e6 AS difference_ms
FROM clock_samples;

INSERT INTO figures ("key", "value")
SELECT 'clock_drift_ms_per_s', max_by(difference_ms, n) / greatest(max_by(spent_s, n), 1e-9)
FROM clock_differences
HAVING count(*) >= 2;

-- Kafka's clock against ours: now and then an append takes little time, so that the quickest one of some windows shows
-- the difference of the clocks.
CREATE TABLE quickest_appends AS
SELECT epoch, "window", min(appended_ns - flushed_ns) / 1e6 AS least_ms
FROM reactions
WHERE "window" IS NOT NULL AND flushed_ns IS NOT NULL AND appended_ns IS NOT NULL
GROUP BY epoch, "window";

INSERT INTO figures ("key", "value")
SELECT 'append_least_low_ms', min(least_ms) FROM quickest_appends HAVING count(*) > 0
UNION ALL SELECT 'append_least_high_ms', max(least_ms) FROM quickest_appends HAVING count(*) > 0;

-- Effects that lie before their causes. Kafka stamps an append in whole milliseconds, so that it may be early by one.
-- Spark may read a record that came after the trigger: an append is compared with the window's emission.
INSERT INTO figures ("key", "value")
WITH by_reaction AS (
    SELECT
        (t_intended_ns > t_sent_ns)::INT AS sent, (t_sent_ns > accepted_ns)::INT AS accepted,
        (accepted_ns > flushed_ns)::INT AS flushed, (flushed_ns - appended_ns > 1000000)::INT AS appended
    FROM reactions
    WHERE "window" IS NOT NULL
),
by_window AS (
    SELECT (r.appended_ns > k.emitted_ns)::INT AS emitted
    FROM reactions AS r
    JOIN known AS k ON k.epoch = r.epoch AND k."window" = r."window"
    SEMI JOIN receipts AS c ON c.epoch = r.epoch AND c."window" = r."window"
),
by_receipt AS (
    SELECT
        (trigger_ns > emitted_ns)::INT AS emitted, (emitted_ns > main_sent_ns)::INT AS main_sent,
        (main_sent_ns > cluster_sent_ns)::INT AS cluster_sent,
        (cluster_sent_ns > subscriber_sent_ns)::INT AS subscriber_sent, (subscriber_sent_ns > received_ns)::INT AS received
    FROM receipts
)
SELECT 'before_their_cause', coalesce(sum(early), 0)
FROM (
    SELECT sum(sent) + coalesce(sum(accepted), 0) + coalesce(sum(flushed), 0) + coalesce(sum(appended), 0) AS early
    FROM by_reaction
    UNION ALL SELECT sum(emitted) FROM by_window
    UNION ALL SELECT unnest([
        sum(emitted), sum(main_sent), sum(cluster_sent), sum(subscriber_sent), sum(received)
    ]) FROM by_receipt
);

-- Triggers. A window's trigger is on the grid since 1970, or, if the batch before it was still running at that moment,
-- within two seconds after that batch's emission. It is later than the trigger before it. Spark did not start the batch
-- before it (to 2 ms: Spark's own stamp has whole milliseconds), nor after the emission.
INSERT INTO figures ("key", "value")
WITH sequence AS (
    SELECT k.*, k.trigger_ns // g.trigger_ns * g.trigger_ns AS grid_ns,
        lag(k."window") OVER w AS window_before, lag(k.trigger_ns) OVER w AS trigger_before_ns,
        lag(k.emitted_ns) OVER w AS emitted_before_ns
    FROM known AS k
    CROSS JOIN given AS g
    WINDOW w AS (PARTITION BY k.epoch ORDER BY k."window")
),
contradicted AS (
    SELECT k.epoch, k."window"
    FROM known AS k
    JOIN progress AS p ON p.batch_id = k."window" AND p.num_input_rows > 0
    GROUP BY k.epoch, k."window"
    -- Batch numbers repeat after a new checkpoint: one of the reports has to fit.
    HAVING NOT bool_or(p.trigger_start_ns + 2000000 >= k.trigger_ns AND p.trigger_start_ns <= k.emitted_ns)
)
SELECT 'triggers_wrong', count(*)
FROM sequence AS s
LEFT JOIN contradicted AS c ON c.epoch = s.epoch AND c."window" = s."window"
WHERE c.epoch IS NOT NULL OR (
    s.window_before = s."window" - 1
    AND (
        s.trigger_ns <= s.trigger_before_ns
        OR (
            s.trigger_ns <> s.grid_ns
            AND NOT (s.grid_ns > s.trigger_before_ns AND s.trigger_ns - s.emitted_before_ns BETWEEN 0 AND 2000000000)
        )
    )
);
