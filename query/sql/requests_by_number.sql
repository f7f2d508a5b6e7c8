-- Requests by their numbers.
select {columns}
from {relation}
where {in_window} and seq in ({seqs})
order by seq
