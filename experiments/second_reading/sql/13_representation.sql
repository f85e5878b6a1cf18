-- How well the representatives on screen stand for the counts, and whether they are what the policy makes of them.

-- Over whole windows. The bound is the most that the policy allows: a cell's error is 0 … g-1 for `ceil`, -(g-1) … 0
-- for `floor`, and within ±(g-1) for `carry` and `stochastic`.
CREATE TABLE whole_cells AS
SELECT
    c.*, g.group_size * c.representatives - c."count" AS error, g.group_size - 1 AS worst,
    CASE WHEN g.policy = 'ceil' THEN 0 ELSE -(g.group_size - 1) END AS low,
    CASE WHEN g.policy = 'floor' THEN 0 ELSE g.group_size - 1 END AS high
FROM cells AS c
SEMI JOIN whole_windows AS w ON w.epoch = c.epoch AND w."window" = c."window"
CROSS JOIN given AS g;

INSERT INTO figures ("key", "value")
WITH shares AS (
    SELECT
        sum("count") / sum(sum("count")) OVER () AS counted,
        -- Where nothing is shown, no share is: the distance is then 1.
        sum(representatives) / nullif(sum(sum(representatives)) OVER (), 0) AS shown
    FROM whole_cells
    GROUP BY emoji_type
)
SELECT 'representation_error', sum(abs(error)) / nullif(sum("count"), 0) FROM whole_cells
UNION ALL SELECT 'representation_bound', any_value(worst) * count(*) / nullif(sum("count"), 0) FROM whole_cells
UNION ALL
SELECT 'representation_over_bound', count(*) FILTER (error NOT BETWEEN low AND high) FROM whole_cells
UNION ALL
SELECT 'tv_distance', CASE WHEN count(counted) = 0 THEN NULL ELSE coalesce(sum(abs(counted - shown)) / 2, 1) END FROM shares;

-- The representatives of every window, made again from its counts. Under `carry` a type starts with the remainder that
-- the window before reported. If that window is not known, it starts with the one remainder that fits the own record.
-- Under `stochastic` a uniform 64-bit number, drawn from epoch, window and type, decides about the rest (drawn).
INSERT INTO figures ("key", "value")
WITH carried AS (
    SELECT epoch, "window", entry.key AS emoji_type, entry.value AS rest
    FROM (SELECT epoch, "window", unnest(map_entries(from_json(carried, '"MAP(VARCHAR, BIGINT)"'))) AS entry FROM known)
),
before AS (
    -- What the window before carried, under the number of the window after it.
    SELECT c.epoch, c."window" + 1 AS "window", c.emoji_type, c.rest
    FROM carried AS c
    SEMI JOIN known AS k ON k.epoch = c.epoch AND k."window" = c."window" + 1
),
types AS (
    SELECT epoch, "window", emoji_type FROM cells
    UNION SELECT epoch, "window", emoji_type FROM carried
    UNION SELECT b.epoch, b."window", b.emoji_type FROM before AS b CROSS JOIN given WHERE policy = 'carry'
),
reported AS (
    SELECT
        t.*, g.policy, g.group_size, c."count" IS NOT NULL AS counted, coalesce(c."count", 0) AS "count",
        coalesce(c.representatives, 0) AS shown, coalesce(r.rest, 0) AS rest, coalesce(b.rest, 0) AS rest_before,
        EXISTS (SELECT 1 FROM known AS k WHERE k.epoch = t.epoch AND k."window" = t."window" - 1) AS follows
    FROM types AS t
    CROSS JOIN given AS g
    LEFT JOIN cells AS c ON c.epoch = t.epoch AND c."window" = t."window" AND c.emoji_type = t.emoji_type
    LEFT JOIN carried AS r ON r.epoch = t.epoch AND r."window" = t."window" AND r.emoji_type = t.emoji_type
    LEFT JOIN before AS b ON b.epoch = t.epoch AND b."window" = t."window" AND b.emoji_type = t.emoji_type
),
started AS (
    SELECT *,
        CASE
            WHEN follows THEN rest_before
            WHEN "window" = 0 THEN 0
            -- Two modulos: the remainder of a negative number is negative.
            ELSE ((rest + group_size * shown - "count") % group_size + group_size) % group_size
        END AS start
    FROM reported
),
expected AS (
    SELECT shown, rest,
        CASE
            WHEN NOT counted THEN 0
            WHEN policy = 'ceil' THEN ("count" + group_size - 1) // group_size
            WHEN policy = 'floor' THEN "count" // group_size
            WHEN policy = 'carry' THEN (start + "count") // group_size
            ELSE "count" // group_size + (
                drawn(epoch, "window", emoji_type)::HUGEINT * group_size
                < ("count" % group_size)::HUGEINT * 18446744073709551616
            )::INT
        END AS right_shown,
        CASE WHEN policy <> 'carry' THEN 0 WHEN counted THEN (start + "count") % group_size ELSE start END AS right_rest
    FROM started
)
SELECT 'representatives_wrong', count(*) FILTER (shown <> right_shown OR rest <> right_rest) FROM expected;
