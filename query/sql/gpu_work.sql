-- Which job, pod or container was seen on each GPU, how often.
select host, gpu_uuid, coalesce(slurm_job_id, pod_uid, container_id) as work, count(*) as n
from {relation}
where {in_window} and coalesce(slurm_job_id, pod_uid, container_id) is not null
group by host, gpu_uuid, work
order by host, gpu_uuid, n desc, work
