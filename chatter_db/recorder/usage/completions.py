"""Completions of APIs that have names of their own for the counts beside the text.

- Aleph Alpha: https://docs.aleph-alpha.com/api/complete/
- llama.cpp's server, but for its OpenAI routes:
  https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
- Hugging Face's text generation inference, where a prompt is counted in streams only:
  https://huggingface.github.io/text-generation-inference/
- Hunyuan's own protocol: https://cloud.tencent.com/document/product/1729/105701
- watsonx.ai's text generation: https://cloud.ibm.com/apidocs/watsonx-ai#text-generation
- YandexGPT: https://yandex.cloud/en/docs/foundation-models/text-generation/api-ref/TextGeneration/
"""

from collections.abc import Iterable, Mapping
from typing import Any

from chatter_db.recorder.usage.counts import Reader, Usage, as_count, merged, total_of

_PROMPT = (
    *("num_tokens_prompt_total", "tokens_evaluated", "input_length", "input_token_count"),
    *("inputTextTokens", "PromptTokens"),
)
_COMPLETION = (
    *("num_tokens_generated", "tokens_predicted", "generated_tokens"),
    *("generated_token_count", "CompletionTokens", "completionTokens"),
)
_TOTAL = ("TotalTokens", "totalTokens")

NAMES = frozenset({*_PROMPT, *_COMPLETION, *_TOTAL})
SIGNS = frozenset({*_COMPLETION, "inputTextTokens"}) - {"completionTokens"}
"""Names that tell whose block it is: Vercel says `completionTokens` too, of counts that may leave
something out."""


def completion(block: Reader) -> Usage:
    """Both counts, by whichever names they have."""
    prompt, completion = block.count(*_PROMPT), block.count(*_COMPLETION)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total_of(block.count(*_TOTAL), prompt, completion),
    )


def of_stream(blocks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """watsonx.ai counts the prompt when it begins, and says 0 of it from then on.

    Of what it writes it says 0 before it has written anything.
    """
    return merged(
        {key: value for key, value in block.items() if as_count(value) != 0} for block in blocks
    )
