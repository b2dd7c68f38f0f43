"""Ollama's chat and generate: the counts stand in the body, of a stream in its last line.

Until 2025 `prompt_eval_count` was left out when the prompt was still in the
cache: then it is not known, and certainly not 0.

https://github.com/ollama/ollama/blob/main/docs/api.md
"""

from chatter_db.recorder.usage.counts import Reader, Usage, added

NAMES = ("prompt_eval_count", "eval_count")


def chat(body: Reader) -> Usage:
    """A body, or the last line of a stream."""
    prompt, completion = (body.count(name) for name in NAMES)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=added(prompt, completion),
    )
