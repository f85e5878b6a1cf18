-- The hops of a journey: the mean of each difference of neighbouring stamps, over all delivered pairs.

CREATE TABLE hop_means AS
WITH journeys AS (
    SELECT
        m.t_intended_ns, m.t_sent_ns, m.accepted_ns, m.flushed_ns, m.appended_ns,
        r.trigger_ns, r.emitted_ns, r.main_sent_ns, r.cluster_sent_ns, r.subscriber_sent_ns, r.received_ns
    FROM measured AS m
    JOIN receipts AS r ON r.epoch = m.epoch AND r."window" = m."window"
    WHERE m.counted AND m.t_sent_ns IS NOT NULL AND m.accepted_ns IS NOT NULL AND m.flushed_ns IS NOT NULL
        AND m.appended_ns IS NOT NULL AND r.emitted_ns IS NOT NULL AND r.main_sent_ns IS NOT NULL
        AND r.cluster_sent_ns IS NOT NULL AND r.subscriber_sent_ns IS NOT NULL AND r.received_ns IS NOT NULL
),
means AS (
    SELECT
        avg(t_sent_ns - t_intended_ns) / 1e6 AS send_delay,
        avg(accepted_ns - t_sent_ns) / 1e6 AS accept,
        avg(flushed_ns - accepted_ns) / 1e6 AS buffer_wait,
        avg(appended_ns - flushed_ns) / 1e6 AS append,
        avg(trigger_ns - appended_ns) / 1e6 AS trigger_wait,
        avg(emitted_ns - trigger_ns) / 1e6 AS micro_batch,
        avg(main_sent_ns - emitted_ns) / 1e6 AS publish,
        avg(cluster_sent_ns - main_sent_ns) / 1e6 AS cluster,
        avg(subscriber_sent_ns - cluster_sent_ns) / 1e6 AS subscriber,
        avg(received_ns - subscriber_sent_ns) / 1e6 AS network
    FROM journeys
)
SELECT * FROM means UNPIVOT INCLUDE NULLS (mean_ms FOR hop IN (COLUMNS(*)));

INSERT INTO figures ("key", "value")
SELECT 'hop_' || hop || '_mean_ms', mean_ms FROM hop_means
UNION ALL SELECT 'hops_mean_s', sum(mean_ms) / 1000 FROM hop_means
UNION ALL
SELECT 'hop_sum_error_s', sum(mean_ms) / 1000 - (SELECT "value" FROM figures WHERE "key" = 'e2e_mean_s') FROM hop_means;
