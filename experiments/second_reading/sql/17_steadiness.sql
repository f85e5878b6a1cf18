-- Was the measurement steady? Change points in two figures of the measured windows: the time from trigger to screens,
-- and the micro-batch time.
--
-- A figure's windows are cut into segments of three or more so that the sum of the segments' costs, plus a penalty per
-- segment, is least (rank cost of Lung-Yut-Fong, Levy-Leduc and Cappe, 2015): a segment's cost is -(sum of its centred
-- ranks)² / (its length × the variance of all ranks).

CREATE TABLE steadiness AS
WITH RECURSIVE "values" AS (
    SELECT 'windows' AS figure, row_number() OVER (ORDER BY trigger_ns) AS n, after_trigger_s AS y
    FROM measured_windows
    WHERE after_trigger_s IS NOT NULL
    UNION ALL
    SELECT 'batches', row_number() OVER (ORDER BY trigger_start_ns), batch_s FROM batches WHERE measured
),
-- Equal values share the mean of their ranks.
centred AS (
    SELECT
        figure, n, y,
        rank() OVER (PARTITION BY figure ORDER BY y) + (count(*) OVER (PARTITION BY figure, y) - 1) / 2
            - (count(*) OVER (PARTITION BY figure) + 1) / 2 AS r
    FROM "values"
),
-- The penalty, by the number of windows, comes from simulated steady runs; between two numbers it is a straight line.
penalties(windows, penalty) AS (
    VALUES (10, 7.5), (12, 8.9), (14, 10.3), (16, 11.6), (20, 13.4), (25, 15.2), (30, 16.0), (40, 17.2), (100, 20.8)
),
lines AS (
    SELECT windows AS since, penalty::DOUBLE AS low, lead(windows) OVER w AS upto, lead(penalty::DOUBLE) OVER w AS high
    FROM penalties
    WINDOW w AS (ORDER BY windows)
),
figures_of_windows AS (
    SELECT figure, count(*) AS n, list(y ORDER BY n) AS ys, avg(r * r) AS variance, median(y) AS level,
        -- sums[k + 1]: the sum of the first k centred ranks.
        list_prepend(0::DOUBLE, list(total ORDER BY n)) AS sums
    FROM (SELECT *, sum(r) OVER (PARTITION BY figure ORDER BY n)::DOUBLE AS total FROM centred)
    GROUP BY figure
),
judged AS (
    SELECT f.*,
        (
            SELECT low + (high - low) * (least(greatest(f.n, 10), 100) - since) / (upto - since)
            FROM lines
            WHERE least(greatest(f.n, 10), 100) BETWEEN since AND upto
            LIMIT 1
        ) AS penalty
    FROM figures_of_windows AS f
    WHERE f.n >= 10 AND variance > 0
),
-- best[k + 1]: the least cost of the first k windows and where their last segment begins.
cuts AS (
    SELECT figure, 0 AS k, [{'cost': 0::DOUBLE, 'since': 0::BIGINT}] AS best FROM judged
    UNION ALL
    SELECT
        c.figure, c.k + 1,
        list_append(c.best, coalesce(
            list_min(list_transform(
                range(0, c.k - 1),
                lambda t: {
                    'cost': c.best[t + 1].cost + j.penalty
                        - pow(j.sums[c.k + 2] - j.sums[t + 1], 2) / ((c.k + 1 - t) * j.variance),
                    'since': t
                }
            )),
            {'cost': 'inf'::DOUBLE, 'since': 0::BIGINT}
        ))
    FROM cuts AS c
    JOIN judged AS j USING (figure)
    WHERE c.k < j.n
),
-- The segments, from the last to the first.
segments AS (
    SELECT c.figure, c.best, c.best[c.k + 1].since AS since, c.k::BIGINT AS upto
    FROM cuts AS c
    JOIN judged AS j ON j.figure = c.figure AND j.n = c.k
    UNION ALL
    SELECT figure, best, best[since + 1].since, since FROM segments WHERE since > 0
),
medians AS (
    SELECT s.figure, list_median(f.ys[s.since + 1 : s.upto]) AS median_s
    FROM segments AS s
    JOIN figures_of_windows AS f USING (figure)
),
shifts AS (SELECT figure, max(median_s) - min(median_s) AS shift_s FROM medians GROUP BY figure)
SELECT
    names.figure, coalesce(f.n, 0) >= 10 AS enough, coalesce(s.shift_s, 0) AS shift_s,
    -- A change matters if it moves the median by 30 ms and by a tenth of the level.
    coalesce(s.shift_s >= greatest(0.03, 0.1 * abs(f.level)), false) AS changed
FROM (VALUES ('windows'), ('batches')) AS names(figure)
LEFT JOIN figures_of_windows AS f USING (figure)
LEFT JOIN shifts AS s USING (figure);

-- Ten windows are needed for a test: one figure with fewer leaves it open (null), unless the other one changed.
INSERT INTO figures ("key", "value")
SELECT 'steady', CASE WHEN bool_or(changed) THEN 0 WHEN bool_and(enough) THEN 1 END FROM steadiness
UNION ALL SELECT 'steady_shift_s', shift_s FROM steadiness WHERE figure = 'windows'
UNION ALL SELECT 'steady_batch_shift_s', shift_s FROM steadiness WHERE figure = 'batches'
UNION ALL SELECT 'warm_up_lasted_triggers', warm_up_triggers FROM given
UNION ALL SELECT 'warm_up_settled', warm_up_settled::INT FROM given;
