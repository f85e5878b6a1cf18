-- Micro-batch times, and their drift over the run.

-- The micro-batches that read something, each with the window that it emitted. Batch numbers repeat only after a new
-- checkpoint; the nearest trigger then decides. A batch is measured if its window counts measured reactions.
CREATE TABLE batches AS
WITH busy AS (
    SELECT * FROM progress
    WHERE num_input_rows > 0
    QUALIFY row_number() OVER (PARTITION BY batch_id, trigger_start_ns ORDER BY position) = 1
)
SELECT
    b.batch_id, b.trigger_start_ns, b.trigger_execution_ms / 1000 AS batch_s,
    (k.emitted_ns - k.trigger_ns) / 1e9 AS published_s, m."window" IS NOT NULL AS measured
FROM busy AS b
LEFT JOIN known AS k ON k."window" = b.batch_id
LEFT JOIN measured_windows AS m ON m.epoch = k.epoch AND m."window" = k."window"
QUALIFY row_number() OVER (
    PARTITION BY b.batch_id, b.trigger_start_ns
    ORDER BY abs(b.trigger_start_ns - k.trigger_ns) NULLS LAST, k.position
) = 1;

INSERT INTO figures ("key", "value")
WITH lists AS (
    SELECT
        count(*) AS batches, list(batch_s ORDER BY batch_s) AS batch,
        list(published_s ORDER BY published_s) FILTER (published_s IS NOT NULL) AS published
    FROM batches
    WHERE measured
)
SELECT 'batches', batches FROM lists
UNION ALL SELECT 'batch_p50_s', at_rank(batch, 0.5) FROM lists
UNION ALL SELECT 'batch_p95_s', at_rank(batch, 0.95) FROM lists
UNION ALL SELECT 'published_p50_s', at_rank(published, 0.5) FROM lists
UNION ALL SELECT 'published_p95_s', at_rank(published, 0.95) FROM lists
UNION ALL SELECT 'headroom', at_rank(batch, 0.95) / (g.trigger_ns / 1e9) FROM lists CROSS JOIN given AS g;

-- Drift: the Theil-Sen slope (the median slope of all pairs of windows) of the time from trigger to screen, in ms per
-- minute, and its 95 % interval after Sen (1968): the slopes of ranks (N ± z σ) / 2, where σ² is the variance of
-- Kendall's S with its correction for ties. Eight windows are needed.
INSERT INTO figures ("key", "value")
WITH points AS (
    SELECT (trigger_ns - min(trigger_ns) OVER ()) / 60e9 AS x, after_trigger_s * 1000 AS y FROM measured_windows
),
finite AS (SELECT row_number() OVER () AS i, x, y FROM points WHERE y IS NOT NULL),
slopes AS (
    SELECT list((b.y - a.y) / (b.x - a.x) ORDER BY (b.y - a.y) / (b.x - a.x)) AS slopes,
        median((b.y - a.y) / (b.x - a.x)) AS middle
    FROM finite AS a
    JOIN finite AS b ON b.x > a.x
),
ties AS (
    SELECT sum(k * (k - 1) * (2 * k + 5)) AS correction
    FROM (SELECT count(*) AS k FROM finite GROUP BY x UNION ALL SELECT count(*) FROM finite GROUP BY y)
),
spread AS (
    SELECT n, 1.959963984540054 * sqrt((n * (n - 1) * (2 * n + 5) - correction) / 18) AS z_sigma
    FROM (SELECT count(*) AS n FROM finite) CROSS JOIN ties
),
places AS (
    SELECT n, slopes, middle,
        greatest(round_even((len(slopes) - z_sigma) / 2, 0) - 1, 0)::BIGINT AS low,
        least(round_even((len(slopes) + z_sigma) / 2, 0), len(slopes) - 1)::BIGINT AS high
    FROM slopes CROSS JOIN spread
)
SELECT 'drift_ms_per_min', CASE WHEN n >= 8 THEN middle END FROM places
UNION ALL SELECT 'drift_low_ms_per_min', CASE WHEN n >= 8 THEN slopes[low + 1] END FROM places
UNION ALL SELECT 'drift_high_ms_per_min', CASE WHEN n >= 8 THEN slopes[high + 1] END FROM places;
