-- The machine: which stage used how many cores, whether the receivers were in time, and what others took.

-- The mean number of cores of each stage between two moments, from its first and last sample there.
CREATE MACRO cores_between(from_ns, to_ns) AS TABLE
WITH spent AS (
    SELECT stage, (max_by(cpu_s, t_ns) - min_by(cpu_s, t_ns)) AS cpu_s, (max(t_ns) - min(t_ns)) AS span_ns
    FROM usage
    WHERE t_ns BETWEEN from_ns AND to_ns
    GROUP BY stage
),
cores AS (SELECT stage, greatest(cpu_s, 0) * 1e9 / span_ns AS cores FROM spent WHERE span_ns > 0)
SELECT stage, cores FROM cores WHERE stage <> 'others'
UNION ALL
-- All other programs as far as they can be seen, or the rest of the machine if that is more.
SELECT
    'others',
    greatest(
        coalesce((SELECT cores FROM cores WHERE stage = 'others'), 0),
        (SELECT cores FROM cores WHERE stage = 'machine')
        - coalesce((SELECT sum(cores) FROM cores WHERE stage NOT IN ('machine', 'others')), 0)
    )
WHERE EXISTS (FROM cores WHERE stage IN ('machine', 'others'));

INSERT INTO figures ("key", "value")
SELECT 'cpu_share_' || stage, cores
FROM cores_between((SELECT min(t_intended_ns) FROM measured), (SELECT max(t_intended_ns) FROM measured));

INSERT INTO figures ("key", "value")
-- A wake-up that was late kept others from happening, every 20 ms: each would have been late by what was left.
SELECT 'receivers_late_p99.9_ms', at_rank(list(left_ns / 1e6 ORDER BY left_ns), 0.999)
FROM (
    SELECT unnest(range(late_ns, -1, -20_000_000)) AS left_ns
    FROM receivers_timer CROSS JOIN load_span
    WHERE t_ns BETWEEN from_ns AND to_ns
);

-- Cores that the host gave to others, and how the speed of the machine changed over the run.
INSERT INTO figures ("key", "value")
SELECT 'steal_cores', steal_s * 1e9 / greatest(to_ns - from_ns, 1) FROM given CROSS JOIN load_span WHERE steal_s IS NOT NULL
UNION ALL
SELECT 'work_ratio', work_after_s / work_before_s FROM given WHERE work_before_s IS NOT NULL;
