-- The requests that may have run in the window: those that had finished when it ended, or within an hour after.
select seq, observed_at, host, source, started_at, ended_at, service, operation, model, status, duration_seconds,
       input_tokens, output_tokens, gpu_uuids, pid
from {relation}
where {in_window} and duration_seconds is not null
order by seq
limit {limit}
