"""What inference servers call their metrics, and the columns of `server_sample` that those fill.

The names are those of vLLM 0.33, SGLang 0.5, TGI 3, llama.cpp's `--metrics`, Triton and NIM; where an older release
said it otherwise, the older name follows.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of server speaks.

    Args:
        server_kind: For the column of that name.
        sign: The names, one of which tells that it is this kind.
        values: Column to the names of the sample that gives it, the first of which that there is.
        histograms: Column to the names of the histogram that gives it.
        model_label: The label that names the model.
        engine_label: The label that names the engine, replica or version.
    """

    server_kind: str
    sign: Collection[str]
    values: Mapping[str, tuple[str, ...]]
    histograms: Mapping[str, tuple[str, ...]]
    model_label: str = "model_name"
    engine_label: str = "engine"


def _prefixed(prefix: str, names: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {column: tuple(f"{prefix}{name}" for name in of_column) for column, of_column in names.items()}


_VLLM = Dialect(
    "vllm",
    ("vllm:num_requests_running",),
    {
        "requests_running_count": ("num_requests_running",),
        "requests_waiting_count": ("num_requests_waiting",),
        "kv_cache_used_ratio": ("kv_cache_usage_perc", "gpu_cache_usage_perc"),
        "prompt_tokens": ("prompt_tokens_total",),
        "generation_tokens": ("generation_tokens_total",),
        "cached_prompt_tokens": ("prompt_tokens_cached_total",),
        "preemption_count": ("num_preemptions_total",),
        "requests_success_count": ("request_success_total",),
        "requests_rejected_count": ("admission_rejections_total",),
        "prefix_cache_queries_tokens": ("prefix_cache_queries_total",),
        "prefix_cache_hits_tokens": ("prefix_cache_hits_total",),
    },
    {
        "time_to_first_token_histogram": ("time_to_first_token_seconds",),
        "inter_token_latency_histogram": ("inter_token_latency_seconds",),
        "time_per_output_token_histogram": ("request_time_per_output_token_seconds", "time_per_output_token_seconds"),
        "duration_histogram": ("e2e_request_latency_seconds",),
        "queue_histogram": ("request_queue_time_seconds",),
        "prefill_histogram": ("request_prefill_time_seconds",),
        "decode_histogram": ("request_decode_time_seconds",),
    },
)

DIALECTS = (
    replace(_VLLM, values=_prefixed("vllm:", _VLLM.values), histograms=_prefixed("vllm:", _VLLM.histograms)),
    replace(_VLLM, server_kind="nim", sign=("num_requests_running",)),  # vLLM's names without its prefix
    Dialect(
        "sglang",
        ("sglang:num_running_reqs",),
        _prefixed(
            "sglang:",
            {
                "requests_running_count": ("num_running_reqs",),
                "requests_waiting_count": ("num_queue_reqs",),
                "kv_cache_used_ratio": ("token_usage",),
                "generation_tokens_per_second": ("gen_throughput",),
                "prompt_tokens": ("prompt_tokens_total",),
                "generation_tokens": ("generation_tokens_total",),
                "preemption_count": ("num_retracted_reqs_total", "num_retracted_requests_total"),
                "requests_retracted_count": ("num_retracted_reqs",),
            },
        ),
        _prefixed(
            "sglang:",
            {
                "time_to_first_token_histogram": ("time_to_first_token_seconds",),
                "inter_token_latency_histogram": ("inter_token_latency_seconds",),
                "duration_histogram": ("e2e_request_latency_seconds",),
                "queue_histogram": ("queue_time_seconds",),
            },
        ),
        engine_label="dp_rank",
    ),
    Dialect(
        "tgi",
        ("tgi_queue_size", "tgi_batch_current_size"),
        {
            "requests_running_count": ("tgi_batch_current_size",),
            "requests_waiting_count": ("tgi_queue_size",),
            "prompt_tokens": ("tgi_request_input_length_sum",),
            "generation_tokens": ("tgi_request_generated_tokens_sum",),
        },
        {
            "duration_histogram": ("tgi_request_duration",),
            "queue_histogram": ("tgi_request_queue_duration",),
            "time_per_output_token_histogram": ("tgi_request_mean_time_per_token_duration",),
        },
    ),
    Dialect(
        "llamacpp",
        ("llamacpp:requests_processing",),
        {
            "requests_running_count": ("llamacpp:requests_processing",),
            "requests_waiting_count": ("llamacpp:requests_deferred",),
            "prompt_tokens": ("llamacpp:prompt_tokens_total",),
            "generation_tokens": ("llamacpp:tokens_predicted_total",),
        },
        {},
    ),
    Dialect(
        "triton",
        ("nv_inference_request_success", "nv_inference_request_success_total"),
        {
            "requests_success_count": ("nv_inference_request_success", "nv_inference_request_success_total"),
            "requests_failure_count": ("nv_inference_request_failure", "nv_inference_request_failure_total"),
            "requests_waiting_count": ("nv_inference_pending_request_count",),
        },
        {},
        model_label="model",
        engine_label="version",
    ),
)


def dialect_of(names: Collection[str]) -> Dialect | None:
    """Whose metrics these are; None where it is nobody known."""
    return next((one for one in DIALECTS if not set(one.sign).isdisjoint(names)), None)
