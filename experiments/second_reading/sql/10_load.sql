-- The load: what was planned, sent, accepted and answered.

INSERT INTO figures ("key", "text") SELECT 'loop', loop FROM given;

INSERT INTO figures ("key", "value")
SELECT 'users', count(DISTINCT user_id) FROM plan
UNION ALL SELECT 'clients', count(*) FROM clients
UNION ALL SELECT 'windows', count(*) FROM known;

-- The forms of real senders: arrays, other spellings, and requests that must be refused.
INSERT INTO figures ("key", "value")
WITH sizes AS (SELECT count(*) AS size FROM plan GROUP BY coalesce(request, -1 - seq))
SELECT 'requests', count(*) FROM sizes
UNION ALL SELECT 'arrays', count(*) FILTER (size > 1) FROM sizes
UNION ALL SELECT 'respelled', count(*) FILTER (sent_as <> emoji_type) FROM plan
UNION ALL SELECT 'invalid_requests', count(*) FROM invalid
UNION ALL SELECT 'answers_unexpected', count(*) FILTER (status <> expected) FROM invalid;

-- Reactions per second, over the measured phase in whole intervals between two triggers.
CREATE TABLE rates AS
WITH measured_phase AS (
    SELECT
        count(*) AS offered, count(*) FILTER (accepted) AS accepted,
        coalesce((max(t_intended_ns) - min(t_intended_ns)) / 1e9, 0) AS spent_s
    FROM reactions
    WHERE phase = 'measured'
),
lasted AS (
    SELECT *, greatest(round_even(spent_s / (trigger_ns / 1e9), 0), 1) * (trigger_ns / 1e9) AS lasted_s
    FROM measured_phase CROSS JOIN given
)
SELECT offered / lasted_s AS offered_per_s, accepted / lasted_s AS accepted_per_s,
    accepted / nullif(offered, 0) AS accepted_share
FROM lasted;

INSERT INTO figures ("key", "value")
SELECT 'offered_per_s', offered_per_s FROM rates
UNION ALL SELECT 'accepted_per_s', accepted_per_s FROM rates
-- The closed loop's word for the same.
UNION ALL SELECT 'throughput_per_s', accepted_per_s FROM rates
UNION ALL SELECT 'accepted_share', accepted_share FROM rates;

-- Answer times of ingest; a missing answer is infinitely late.
INSERT INTO figures ("key", "value")
WITH answers AS (
    SELECT
        CASE
            WHEN t_answered_ns IS NULL OR status = 0 THEN 'inf'::DOUBLE
            ELSE (t_answered_ns - t_sent_ns) / 1e6
        END AS took_ms
    FROM reactions
    WHERE phase = 'measured' AND t_sent_ns IS NOT NULL
),
listed AS (SELECT count(*) AS n, list(took_ms ORDER BY took_ms) AS took FROM answers)
SELECT 'answer_' || name || '_ms', CASE WHEN enough(q, n) THEN at_rank(took, q) END
FROM listed CROSS JOIN percentiles
WHERE name IN ('p50', 'p99');

-- The generator: how much of the plan it sent, and how late the measured part was.
INSERT INTO figures ("key", "value")
WITH delays AS (
    SELECT list((t_sent_ns - t_intended_ns) / 1e6 ORDER BY t_sent_ns - t_intended_ns) AS late_ms
    FROM reactions
    WHERE phase = 'measured' AND t_sent_ns IS NOT NULL
)
SELECT 'sent_share', coalesce(avg((t_sent_ns IS NOT NULL)::INT), 0) FROM reactions
UNION ALL SELECT 'send_late_p99_ms', at_rank(late_ms, 0.99) FROM delays
UNION ALL SELECT 'send_late_most_ms', late_ms[-1] FROM delays;
