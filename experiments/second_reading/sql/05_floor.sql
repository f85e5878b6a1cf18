-- The floor of each reaction: from its intended send to the earliest trigger that could count it.
--
-- The reaction leaves ingest with the first flush at or after its intended send, and the first trigger at or after that
-- flush can count it. Triggers are at the multiples of the trigger interval since 1970.

CREATE TABLE flushes AS SELECT DISTINCT flushed_ns FROM topic WHERE flushed_ns IS NOT NULL;

CREATE TABLE floors AS
WITH flush AS (
    SELECT
        p.seq, p.t_intended_ns, g.trigger_ns,
        CASE
            WHEN g.flush_ns = 0 THEN p.t_intended_ns
            -- Aligned flushes are a fixed lead before the multiples of the flush interval.
            WHEN g.flush_phase = 'aligned' THEN next_multiple(p.t_intended_ns + g.lead_ns, g.flush_ns) - g.lead_ns
            -- Free flushes have no grid. The topic shows when they were; one is due an interval after the send at most.
            ELSE least(p.t_intended_ns + g.flush_ns, f.flushed_ns)
        END AS earliest_flush_ns
    FROM plan AS p
    CROSS JOIN given AS g
    ASOF LEFT JOIN flushes AS f ON p.t_intended_ns <= f.flushed_ns
)
SELECT seq, due_ns, due_ns - t_intended_ns AS floor_ns
FROM (SELECT *, next_multiple(earliest_flush_ns, trigger_ns) AS due_ns FROM flush);

-- The load begins within the first interval between two triggers and ends within the last: those two are not whole.
CREATE TABLE due_edges AS SELECT min(due_ns) AS first_ns, max(due_ns) AS last_ns FROM floors;
