-- Duration and token counts of requests that ended well, every so many of them.
select operation, model, duration_seconds, input_tokens, output_tokens
from {relation}
where {in_window} and {filter} and status = 'ok' and duration_seconds is not null and seq % {stride} = 0
  and (input_tokens is not null or output_tokens is not null)
