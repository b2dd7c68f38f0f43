"""What Vercel's AI SDK, since version 6, makes of everybody's usage, for rows of its apps.

Both counts are whole, with their parts in the details, of which 0 is said for what nobody told.

https://ai-sdk.dev/docs/reference/ai-sdk-core/generate-text
"""

from chatter_db.recorder.usage.counts import Reader, Usage, total_of


def usage(block: Reader) -> Usage:
    """`usage` of a result."""
    prompt, completion = block.count("inputTokens"), block.count("outputTokens")
    inputs, outputs = block.inside("inputTokenDetails"), block.inside("outputTokenDetails")
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total_of(block.count("totalTokens"), prompt, completion),
        cache_read_tokens=inputs.count("cacheReadTokens") or None,
        cache_write_tokens=inputs.count("cacheWriteTokens") or None,
        reasoning_tokens=outputs.count("reasoningTokens") or None,
    )
