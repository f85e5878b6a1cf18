-- Are the counts right? In integers, over all phases.

-- Conservation: what happened to every planned reaction. `covers`: how often windows counted its records.
CREATE TABLE balance AS
SELECT r.seq, r.accepted, r."offset" IS NOT NULL AS in_topic, coalesce(sum(i.covers), 0)::BIGINT AS covers
FROM reactions AS r
LEFT JOIN identified AS i USING (seq)
GROUP BY ALL;

INSERT INTO figures ("key", "value")
SELECT 'planned', count(*) FROM balance
UNION ALL SELECT 'accepted', count(*) FILTER (accepted) FROM balance
UNION ALL SELECT 'in_topic', count(*) FILTER (accepted AND in_topic) FROM balance
UNION ALL SELECT 'counted', coalesce(sum("count"), 0) FROM cells
UNION ALL SELECT 'lost', count(*) FILTER (accepted AND covers = 0) FROM balance
UNION ALL SELECT 'duplicated', coalesce(sum(covers - 1) FILTER (covers > 1), 0) FROM balance
UNION ALL
SELECT 'altered', count(*) FROM identified AS i JOIN plan AS p USING (seq) WHERE i.emoji_type IS DISTINCT FROM p.emoji_type
UNION ALL SELECT 'unacknowledged', count(*) FILTER (NOT accepted AND covers > 0) FROM balance
UNION ALL SELECT 'foreign', coalesce(sum(covers), 0) FROM identified WHERE seq IS NULL
-- Counted, although no record at the offsets of a window explains it.
UNION ALL
SELECT 'unexplained',
    (SELECT coalesce(sum("count"), 0) FROM cells) - (SELECT coalesce(sum(covers), 0) FROM identified);

-- A window that was emitted again must repeat the first copy.
INSERT INTO figures ("key", "value")
SELECT 'conflicting', count(*)
FROM (
    SELECT epoch, "window" FROM windows
    GROUP BY epoch, "window"
    HAVING greatest(count(DISTINCT total), count(DISTINCT offsets), count(DISTINCT reactions), count(DISTINCT carried)) > 1
);

-- The oracle: every cell counted again, from the records at its window's offsets. A null type stands for the records
-- that count nothing: a window has one more cell, which differs, if it reports another number of them.
CREATE TABLE oracle AS
WITH emitted AS (
    SELECT epoch, "window", emoji_type, sum("count")::BIGINT AS emitted FROM cells GROUP BY ALL
    UNION ALL
    SELECT epoch, "window", NULL, coalesce(malformed, 0) FROM known
),
recounted AS (
    SELECT r.epoch, r."window", t.emoji_type, count(*) AS expected
    FROM ranges AS r
    JOIN topic AS t ON t."partition" = r."partition" AND t."offset" BETWEEN r.first_offset AND r.last_offset
    GROUP BY ALL
)
SELECT
    coalesce(e.epoch, r.epoch) AS epoch, coalesce(e."window", r."window") AS "window",
    coalesce(e.emoji_type, r.emoji_type) AS emoji_type,
    coalesce(e.emitted, 0) AS emitted, coalesce(r.expected, 0) AS expected
FROM emitted AS e
FULL JOIN recounted AS r
    ON r.epoch = e.epoch AND r."window" = e."window" AND r.emoji_type IS NOT DISTINCT FROM e.emoji_type;

INSERT INTO figures ("key", "value")
WITH counts AS (
    SELECT count(*) AS cells, count(*) FILTER (emitted = expected) AS equal
    FROM oracle
    WHERE emoji_type IS NOT NULL OR emitted <> expected
)
SELECT 'oracle_cells', cells FROM counts
UNION ALL SELECT 'oracle_equal', equal FROM counts
UNION ALL SELECT 'oracle_share', equal / nullif(cells, 0) FROM counts;

-- Windows of one epoch follow each other without a gap or an overlap in each partition.
INSERT INTO figures ("key", "value")
SELECT 'offset_breaks', count(*)
FROM (
    SELECT first_offset, lag(last_offset) OVER (PARTITION BY epoch, "partition" ORDER BY "window") AS last_before
    FROM ranges
)
WHERE first_offset <> last_before + 1;
