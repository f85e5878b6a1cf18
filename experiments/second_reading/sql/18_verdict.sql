-- The verdict: whether the run may be believed, and whether it met its objectives.

CREATE MACRO figure(name) AS (SELECT any_value("value") FROM figures WHERE "key" = name);

-- What makes a run INVALID, each with whether it is so. On a machine that is shared on purpose, what others did is not
-- judged. A comparison with a figure that was not measured (null) is not true: where that is a fault, it says so.
CREATE TABLE criteria AS
WITH facts AS (
    SELECT g.*, s.*,
        (SELECT any_value(cores) FROM cores_between(s.from_ns, s.to_ns) WHERE stage = 'others') AS others,
        (SELECT count(DISTINCT t_ns) FROM usage WHERE t_ns BETWEEN s.from_ns AND s.to_ns) AS usage_samples
    FROM given AS g CROSS JOIN load_span AS s
),
busy AS (SELECT DISTINCT batch_id FROM progress WHERE num_input_rows > 0),
steps AS (SELECT abs(difference_ms - lag(difference_ms) OVER (ORDER BY n)) AS step_ms FROM clock_differences),
-- From each sample to the first one that is ten seconds later.
stretches AS (
    SELECT abs(b.difference_ms - a.difference_ms) / (b.spent_s - a.spent_s) AS drift_ms_per_s
    FROM clock_differences AS a
    ASOF JOIN clock_differences AS b ON b.spent_s >= a.spent_s + 10
),
-- The quickest append of 15 seconds, and of three windows.
in_order AS (
    SELECT
        least_ms, row_number() OVER (ORDER BY epoch, "window") AS place, count(*) OVER () AS known,
        least(greatest(3, ceil(15e9 / trigger_ns)), count(*) OVER ()) AS together
    FROM quickest_appends CROSS JOIN given
),
near AS (
    SELECT min(b.least_ms) AS least_ms
    FROM in_order AS a
    JOIN in_order AS b ON b.place >= a.place AND b.place < a.place + a.together
    WHERE a.place + a.together - 1 <= a.known
    GROUP BY a.place
),
-- How long nothing was sampled during the load, its ends included. A timer's row is excused by its lateness.
moments AS (
    SELECT DISTINCT 'usage' AS frame, t_ns AS moment_ns, 0 AS excused_ns FROM usage
    UNION ALL SELECT 'timer', t_ns, late_ns FROM receivers_timer
),
gaps AS (
    SELECT frame, max(gap_ns) / 1e9 AS gap_s
    FROM (
        SELECT frame, moment_ns - excused_ns - lag(moment_ns) OVER (PARTITION BY frame ORDER BY moment_ns) AS gap_ns
        FROM (
            SELECT m.* FROM moments AS m CROSS JOIN load_span WHERE moment_ns BETWEEN from_ns AND to_ns
            UNION ALL SELECT unnest(['usage', 'timer']), unnest([from_ns, from_ns]), 0 FROM load_span
            UNION ALL SELECT unnest(['usage', 'timer']), unnest([to_ns, to_ns]), 0 FROM load_span
        )
    )
    GROUP BY frame
),
unwatched AS (SELECT max(gap_s) AS gap_s FROM (SELECT spent_s - lag(spent_s) OVER (ORDER BY n) AS gap_s FROM clock_differences))
SELECT 'less than 99.9 % of the plan was sent' AS criterion, figure('sent_share') < 0.999 AS broken
UNION ALL SELECT 'p99 of (sent - intended) is over 50 ms', coalesce(figure('send_late_p99_ms') > 50, true)
UNION ALL SELECT 'a reaction was sent over 500 ms late', figure('send_late_most_ms') > 500
UNION ALL SELECT 'the receivers were not timed', figure('receivers_late_p99.9_ms') IS NULL
UNION ALL SELECT 'the receivers were not timed for over a second', (SELECT gap_s FROM gaps WHERE frame = 'timer') > 1
UNION ALL
SELECT 'the receivers woke up over 20 ms late at p99.9', NOT shared AND figure('receivers_late_p99.9_ms') > 20 FROM facts
UNION ALL SELECT 'others used over 4.4 % of the cores', NOT shared AND others > 0.044 * cores FROM facts
UNION ALL
SELECT 'over 1.8 % of the cores were stolen', NOT shared AND figure('steal_cores') > 0.018 * cores FROM facts
UNION ALL
SELECT 'the speed of the machine changed by more than 1.12', NOT shared AND figure('work_ratio') NOT BETWEEN 1 / 1.12 AND 1.12
FROM facts
UNION ALL SELECT 'another run was active', other_run FROM facts
UNION ALL SELECT 'clients are missing', (SELECT count(*) FROM clients) <> clients_asked FROM facts
UNION ALL
SELECT 'a client received nothing', EXISTS (FROM windows) AND EXISTS (
    FROM clients AS c ANTI JOIN deliveries AS d ON d.client_id = c.client_id
)
UNION ALL SELECT 'CPU time was not sampled', usage_samples < 2 FROM facts
UNION ALL SELECT 'CPU time was not sampled for over ten seconds', (SELECT gap_s FROM gaps WHERE frame = 'usage') > 10
-- Spark's report of the last window may come after the end of the run.
UNION ALL
SELECT 'Spark did not report a window', EXISTS (
    FROM known AS k ANTI JOIN busy AS b ON b.batch_id = k."window" WHERE k."window" < (SELECT max("window") FROM known)
)
-- On a chain that was up, the batch before the first window may hold the records of others.
UNION ALL
SELECT 'Spark reported a micro-batch that no window shows', EXISTS (
    FROM busy AS b ANTI JOIN known AS k ON k."window" = b.batch_id WHERE b.batch_id > (SELECT min("window") FROM known)
)
UNION ALL SELECT 'the clock was not watched', (SELECT count(*) FROM clock_samples) < 2
UNION ALL
SELECT 'the clock was not watched for over ten seconds', (SELECT gap_s FROM unwatched) > 10
    OR (SELECT max(spent_s) FROM clock_differences) < (to_ns - from_ns) / 1e9 - 10
FROM load_span
UNION ALL SELECT 'the clock stepped by over 5 ms', (SELECT max(step_ms) FROM steps) > 5
UNION ALL SELECT 'the clock drifted by over 1 ms per second', abs(figure('clock_drift_ms_per_s')) > 1
UNION ALL SELECT 'the clock drifted by over 10 ms in ten seconds', (SELECT max(drift_ms_per_s) FROM stretches) > 1
-- 5 ms, and 1 ms for the resolution of Kafka's stamps.
UNION ALL SELECT 'Kafka''s clock differs from ours', (SELECT min(least_ms) FROM quickest_appends) < -6
    OR (SELECT max(least_ms) FROM near) > 6
UNION ALL SELECT 'an effect lies before its cause', figure('before_their_cause') > 0
UNION ALL SELECT 'a trigger is wrong', figure('triggers_wrong') > 0
UNION ALL
SELECT 'the users of the closed loop were busy', loop = 'closed' AND figure('cpu_share_load') >= 0.9 FROM facts;

-- The objectives. Without limits of its own, a run has them all; with some, those, and the ones that are `always` due,
-- because figures of a chain that counts wrongly mean nothing. The limit of a count of faults holds for either sign, and
-- these are the ones that are always due and are at most something.
CREATE TABLE objectives AS
WITH usual("key", "limit", at_least, always) AS (
    VALUES
    ('e2e_excess_p50_s', 0.5, false, false),
    ('e2e_excess_p99_s', 1.2, false, false),
    ('batch_p95_s', 0.6, false, false),
    ('headroom', 0.8, false, false),
    ('lag_slope_upper_share', 0.01, false, false),
    ('accepted_share', 0.999, true, true),
    ('lost', 0, false, true),
    ('duplicated', 0, false, true),
    ('altered', 0, false, true),
    ('foreign', 0, false, true),
    ('unexplained', 0, false, true),
    ('conflicting', 0, false, true),
    ('offset_breaks', 0, false, true),
    ('oracle_share', 1, true, true),
    ('representatives_wrong', 0, false, true),
    ('answers_unexpected', 0, false, true),
    ('deliveries_missing', 0, false, true),
    ('deliveries_duplicate', 0, false, true),
    ('deliveries_out_of_order', 0, false, true),
    ('deliveries_altered', 0, false, true),
    ('deliveries_unknown', 0, false, true),
    ('deliveries_late', 0, false, true)
),
own AS (
    SELECT entry.key AS "key", entry.value AS "limit"
    FROM (SELECT unnest(map_entries(from_json(slos, '"MAP(VARCHAR, DOUBLE)"'))) AS entry FROM given)
),
chosen AS (
    SELECT
        u."key", u.at_least, u.always,
        CASE
            WHEN o."limit" IS NOT NULL THEN o."limit"
            -- A trigger interval below 0.75 s leaves less time for a micro-batch.
            WHEN u."key" = 'batch_p95_s' THEN least(u."limit"::DOUBLE, 0.8 * g.trigger_ns / 1e9)
            ELSE u."limit"::DOUBLE
        END AS "limit"
    FROM usual AS u
    CROSS JOIN given AS g
    LEFT JOIN own AS o ON o."key" = u."key"
    WHERE o."key" IS NOT NULL OR u.always OR NOT EXISTS (FROM own)
)
SELECT
    c."key", c."limit", f."value" AS figure,
    coalesce(
        CASE
            WHEN at_least THEN f."value" >= c."limit"
            WHEN always THEN abs(f."value") <= c."limit"
            ELSE f."value" <= c."limit"
        END, false
    ) AS met
FROM chosen AS c
LEFT JOIN figures AS f ON f."key" = c."key";

-- A run that could be believed, but changed while it was measured, is UNSTEADY: it is not valid either. On a machine that
-- is shared on purpose, a change is not judged.
INSERT INTO figures ("key", "value")
WITH verdict AS (
    SELECT
        (SELECT coalesce(bool_or(broken), false) FROM criteria) AS invalid,
        (SELECT bool_or(changed) FROM steadiness) AND NOT (SELECT shared FROM given) AS changed,
        (SELECT bool_and(met) FROM objectives) AS all_met
)
SELECT 'slos.' || "key", met::INT FROM objectives
UNION ALL SELECT 'valid', (NOT invalid AND NOT changed)::INT FROM verdict
UNION ALL SELECT 'unsteady', (NOT invalid AND changed)::INT FROM verdict
UNION ALL SELECT 'passed', (NOT invalid AND NOT changed AND all_met)::INT FROM verdict
-- This reading is of the second edition of the measurement protocol.
UNION ALL SELECT 'protocol_edition', 2;
