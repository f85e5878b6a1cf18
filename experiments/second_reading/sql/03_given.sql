-- What the run was given: one row of parameters and facts of the manifest, the samples of the clocks, and shared macros.
--
-- The reader sets the variables `parameters` and `manifest` to JSON texts.

CREATE TABLE given AS
WITH texts AS (SELECT getvariable('parameters')::JSON AS p, getvariable('manifest')::JSON AS m)
SELECT
    round((p ->> 'trigger_s')::DOUBLE * 1e9)::BIGINT AS trigger_ns,
    round((p ->> 'flush_ms')::DOUBLE * 1e6)::BIGINT AS flush_ns,
    round((p ->> 'flush_lead_ms')::DOUBLE * 1e6)::BIGINT AS lead_ns,
    (p ->> 'flush_phase') AS flush_phase,
    coalesce((p ->> 'group_size')::BIGINT, 10) AS group_size,
    coalesce(p ->> 'policy', 'ceil') AS policy,
    -- A client is owed a window if it stayed this long after the window was emitted.
    round(coalesce((p ->> 'grace_s')::DOUBLE, 2) * 1e9)::BIGINT AS grace_ns,
    -- A delivery is late if it came this long after the window was emitted.
    round(coalesce((p ->> 'late_s')::DOUBLE, 2) * 1e9)::BIGINT AS late_ns,
    coalesce(p ->> 'loop', 'open') AS loop,
    coalesce(p ->> 'machine', 'own') = 'shared' AS shared,
    (p ->> 'clients')::BIGINT AS clients_asked,
    coalesce(nullif(p ->> 'slos', ''), '{}') AS slos,
    -- How many types a cluster shows; 0: all.
    coalesce((m ->> 'top_n')::BIGINT, 0) AS top_n,
    coalesce(nullif((m ->> 'cores')::DOUBLE, 0), 1) AS cores,
    (m ->> 'steal_s')::DOUBLE AS steal_s,
    -- What a fixed piece of work took before and after the run.
    (m ->> '$.work_s[0]')::DOUBLE AS work_before_s,
    (m ->> '$.work_s[1]')::DOUBLE AS work_after_s,
    coalesce((m ->> 'other_run')::BOOLEAN, false) AS other_run,
    -- How long the warm-up lasted, and whether it ended because the windows had settled.
    (m ->> '$.warm_up.triggers')::DOUBLE AS warm_up_triggers,
    (m ->> '$.warm_up.settled')::BOOLEAN AS warm_up_settled
FROM texts;

-- The wall clock and the monotonic clock, read as one, in order.
CREATE TABLE clock_samples AS
SELECT row_number() OVER () AS n, pair[1] AS wall_ns, pair[2] AS monotonic_ns
FROM (SELECT unnest(from_json(coalesce(getvariable('manifest')::JSON -> 'clock_samples', '[]'), '[["BIGINT"]]')) AS pair);

-- From when to when the load lasted, warm-up included.
CREATE TABLE load_span AS
SELECT coalesce(min(t_intended_ns), 0) AS from_ns, coalesce(max(t_intended_ns), 0) AS to_ns FROM plan;

-- The result. `value` is null where nothing was measured, and +inf for what never arrived.
CREATE TABLE figures ("key" VARCHAR, "value" DOUBLE, "text" VARCHAR);

-- The percentiles that a summary quotes.
CREATE TABLE percentiles AS SELECT * FROM (VALUES ('p50', 0.5), ('p90', 0.9), ('p99', 0.99)) AS t(name, q);

-- A quantile is a value that occurred: that of rank ceil(q n). The 1e-9 keeps 0.07 × 100 = 7.000000000000001 at rank 7.
CREATE MACRO rank_of(q, n) AS greatest(ceil(q * n - 1e-9), 1);
CREATE MACRO at_rank(ordered, q) AS ordered[rank_of(q, len(ordered))::BIGINT];
-- A percentile is quoted only if ten values lie beyond it.
CREATE MACRO enough(q, n) AS n * (1 - q) >= 10 - 1e-9;
-- The first multiple of `step` at or after a moment.
CREATE MACRO next_multiple(moment, step) AS (moment + step - 1) // step * step;
