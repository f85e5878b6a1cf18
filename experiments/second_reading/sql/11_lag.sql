-- Consumer lag: does the number of unread records grow?

-- The lag at every moment a trigger was due, from the first to the last measured window: the records that were appended
-- by then and that no window had read whose trigger was at most 100 ms later. A record in no window is unread.
CREATE TABLE lags AS
WITH span AS (
    SELECT min(w.trigger_ns) // any_value(g.trigger_ns) AS first_k, max(w.trigger_ns) // any_value(g.trigger_ns) AS last_k
    FROM measured_windows AS w CROSS JOIN given AS g
),
due AS (
    SELECT k * g.trigger_ns AS due_ns
    FROM (SELECT unnest(range(first_k, last_k + 1)) AS k FROM span WHERE first_k IS NOT NULL) CROSS JOIN given AS g
),
records AS (
    SELECT p.appended_ns, k.trigger_ns AS read_ns
    FROM placed AS p
    LEFT JOIN known AS k ON k.epoch = p.epoch AND k."window" = p."window"
)
SELECT d.due_ns, count(r.appended_ns) AS lag
FROM due AS d
LEFT JOIN records AS r
    ON r.appended_ns <= d.due_ns AND (r.read_ns IS NULL OR r.read_ns > d.due_ns + 100000000)
GROUP BY d.due_ns;

-- The least-squares slope of the lag against time, and the upper limit of its 95 % interval. The standard error is the
-- larger of two, both of which allow for autocorrelation of the residuals e:
--   Newey and West (1987): Bartlett kernel of L = ⌊4 (n/100)^(2/9)⌋ lags, times n / (n - 2) for a small sample;
--   the classical one times √((1 + r) / (1 - r)), where r is the first autocorrelation of e, corrected for its bias
--   (Kendall, 1954), at least 0 and at most 0.97.
-- Student's t has n - 2 degrees of freedom; its quantile comes from scipy (student_t). Eight points are needed.
CREATE TABLE lag_slope AS
WITH centred AS (
    SELECT
        row_number() OVER (ORDER BY due_ns) AS i,
        (due_ns - min(due_ns) OVER ()) / 1e9 - avg((due_ns - (SELECT min(due_ns) FROM lags)) / 1e9) OVER () AS x,
        lag - avg(lag) OVER () AS y
    FROM lags
),
line AS (SELECT count(*) AS n, sum(x * y) / sum(x * x) AS slope, sum(x * x) AS sxx FROM centred),
residuals AS (SELECT i, x, y - slope * x AS e FROM centred CROSS JOIN line),
kernel AS (SELECT floor(4 * power(n / 100, 2 / 9)) AS l FROM line),
robust AS (
    SELECT sum(CASE WHEN a.i = b.i THEN 1 ELSE 2 * (1 - (b.i - a.i) / (l + 1)) END * a.x * a.e * b.x * b.e) AS s
    FROM residuals AS a
    CROSS JOIN kernel
    JOIN residuals AS b ON b.i BETWEEN a.i AND a.i + l
),
squares AS (SELECT sum(e * e) AS see FROM residuals),
neighbours AS (
    SELECT coalesce(sum(a.e * b.e) / nullif(any_value(see), 0), 0) AS raw
    FROM residuals AS a JOIN residuals AS b ON b.i = a.i + 1 CROSS JOIN squares
),
correlation AS (
    SELECT least(greatest(raw + (1 + 3 * greatest(raw, 0)) / n, 0), 0.97) AS r FROM neighbours CROSS JOIN line
),
errors AS (
    SELECT
        n, slope, sqrt(greatest(s, 0) * n / (n - 2)) / sxx AS robust_error,
        sqrt(see / (n - 2) / sxx) * CASE WHEN see = 0 THEN 1 ELSE sqrt((1 + r) / (1 - r)) END AS classical_error
    FROM line CROSS JOIN robust CROSS JOIN squares CROSS JOIN correlation
    WHERE n >= 8
)
SELECT slope AS per_s, slope + student_t(0.975, n - 2) * greatest(robust_error, classical_error) AS upper_per_s FROM errors;

INSERT INTO figures ("key", "value")
SELECT 'lag_slope_per_s', (SELECT per_s FROM lag_slope)
UNION ALL SELECT 'lag_slope_upper_per_s', (SELECT upper_per_s FROM lag_slope)
UNION ALL
SELECT 'lag_slope_upper_share', (SELECT upper_per_s FROM lag_slope) / nullif((SELECT offered_per_s FROM rates), 0);
