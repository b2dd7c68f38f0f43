"""What a model call used, whoever answered it, as the books want it.

    counts     what a usage is, and how a number of a usage block is read
    openai     chat completions, responses, and who speaks them (Azure, Mistral, Groq,
               DeepSeek, xAI, OpenRouter, vLLM ...)
    anthropic  messages
    google     Gemini
    bedrock    Converse, and the models that Bedrock invokes in their own shapes
    cohere     chat, versions 1 and 2
    ollama     chat and generate
    completions
               Aleph Alpha, Hunyuan, llama.cpp, text generation inference, watsonx.ai, YandexGPT
    vercel     Vercel's AI SDK
    server_tools
               searches and images that a provider's own tools made for a call
    wire       finds the usage in a body or a stream and knows whose it is
    langchain  what an unmodified LangChain model leaves of all that

`prompt_tokens` includes what was read from and written to a cache,
`completion_tokens` includes reasoning. What was not reported is None. Two rules
follow from how a protocol is written:

- Where details are parts of a count (OpenAI), a missing detail is unknown.
- Where they stand beside it and are added (Anthropic, Converse), or where zeros
  are left out by the encoding (protobuf: Gemini, xAI's gRPC), a missing one is 0.
"""

from chatter_db.recorder.usage.counts import Usage, merged, plain
from chatter_db.recorder.usage.langchain import of_chunks, of_message, of_result, said_of
from chatter_db.recorder.usage.wire import from_wire

__all__ = [
    "Usage",
    "from_wire",
    "merged",
    "of_chunks",
    "of_message",
    "of_result",
    "plain",
    "said_of",
]
