-- What the recorder last said of one of its probes.
select max_by(message, seq) as message
from {relation}
where event = 'probe_status' and probe = {probe}
