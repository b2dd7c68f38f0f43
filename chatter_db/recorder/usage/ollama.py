"""Ollama's chat and generate: the counts stand in the body, of a stream in its last line.

Until 2025 `prompt_eval_count` was left out when the prompt was still in the
cache: then it is not known, and certainly not 0. Since 2026 what of it came from
there is counted too: https://docs.ollama.com/api/usage

https://github.com/ollama/ollama/blob/main/docs/api.md
"""

from chatter_db.recorder.usage.counts import Reader, Usage, added

NAMES = ("prompt_eval_count", "eval_count")
CACHED = "prompt_eval_cached_count"


def chat(body: Reader) -> Usage:
    """A body, or the last line of a stream."""
    prompt, completion = (body.count(name) for name in NAMES)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=added(prompt, completion),
        cache_read_tokens=body.count(CACHED),
    )
