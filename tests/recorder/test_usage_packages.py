"""The real partner packages before providers that log what they bill."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from decimal import Decimal
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, Generation, LLMResult
from langchain_core.tools import tool
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI
from openai.types import CompletionUsage
from pydantic import SecretStr

from chatter_db.recorder.probing import Listener
from chatter_db.recorder.usage import Usage, from_wire, of_chunks, of_message, of_result
from tests.providers import anthropic, gemini, ollama, openai
from tests.providers.serving import Provider, Reply

# What the packages warn of is theirs.
pytestmark = pytest.mark.filterwarnings("ignore")

KEY = SecretStr("test")


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"Rain in {city}."


def openai_chat(url: str) -> BaseChatModel:
    return ChatOpenAI(model="gpt-4o", base_url=url, api_key=KEY, max_retries=0, stream_usage=True)


def openai_responses(url: str) -> BaseChatModel:
    return ChatOpenAI(
        model="gpt-4o", base_url=url, api_key=KEY, max_retries=0, use_responses_api=True
    )


def anthropic_messages(url: str) -> BaseChatModel:
    return ChatAnthropic(
        model="claude-sonnet-4-5", base_url=url, api_key=KEY, max_retries=0, timeout=10, stop=None
    )


def gemini_content(url: str) -> BaseChatModel:
    return ChatGoogleGenerativeAI(
        model="gemini-2.5-flash", base_url=url, api_key=KEY, max_retries=1
    )


def ollama_chat(url: str) -> BaseChatModel:
    return ChatOllama(model="llama3", base_url=url)


Speaks = tuple[Callable[[], AbstractContextManager[Provider]], Callable[[str], BaseChatModel]]

SPEAKERS: dict[str, Speaks] = {
    "openai": (openai.running, openai_chat),
    "responses": (openai.running, openai_responses),
    "anthropic": (anthropic.running, anthropic_messages),
    "gemini": (gemini.running, gemini_content),
    "ollama": (ollama.running, ollama_chat),
}


class Talk:
    """A model and the provider behind it."""

    def __init__(self, name: str, provider: Provider, model: BaseChatModel) -> None:
        self.name, self.provider, self.model = name, provider, model

    def ask(self, reply: Reply, *, stream: bool) -> tuple[Usage, Listener]:
        self.provider.script.append(reply)
        listener = Listener()
        model = self.model.bind_tools([weather])
        if stream:
            for _ in model.stream("Rain?", config={"callbacks": [listener]}):
                pass
        else:
            model.invoke("Rain?", config={"callbacks": [listener]})
        return listener.usage, listener


@pytest.fixture(scope="module")
def talks() -> Iterator[dict[str, Talk]]:
    """One of each for all tests: clients are slow to make."""
    with ExitStack() as stack:
        talks = {}
        for name, (running, model) in SPEAKERS.items():
            provider = stack.enter_context(running())
            talks[name] = Talk(name, provider, model(provider.base_url))
        yield talks


@pytest.fixture(params=SPEAKERS)
def talk(request: pytest.FixtureRequest, talks: dict[str, Talk]) -> Talk:
    talk = talks[request.param]
    talk.provider.script.clear()
    talk.provider.billed.clear()
    return talk


def one(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("talk", [name], indirect=True)


streamed_and_not = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def bill(usage: Usage) -> tuple[int | None, ...]:
    return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens


@streamed_and_not
def test_what_is_read_is_what_was_billed(talk: Talk, stream: bool) -> None:
    asked = Reply("Take an umbrella.", prompt_tokens=130, completion_tokens=30)
    usage, _ = talk.ask(asked, stream=stream)
    assert bill(usage) == (130, 30, 160)
    assert talk.provider.billed == [asked]
    assert usage.status == "reported" and usage.raw and not usage.malformed


@streamed_and_not
def test_a_tool_call_is_billed_too(talk: Talk, stream: bool) -> None:
    asked = Reply(tools=(("weather", {"city": "Rome"}),), prompt_tokens=100, completion_tokens=20)
    usage, listener = talk.ask(asked, stream=stream)
    assert bill(usage) == (100, 20, 120)
    assert listener.result is not None
    generation = listener.result.generations[0][0]
    assert isinstance(generation, ChatGeneration)
    message = generation.message
    assert isinstance(message, AIMessage)
    assert [call["name"] for call in message.tool_calls] == ["weather"]


@streamed_and_not
def test_cache_and_reasoning(talk: Talk, stream: bool) -> None:
    usage, _ = talk.ask(
        Reply(
            "Yes.",
            prompt_tokens=500,
            completion_tokens=40,
            cache_read_tokens=300,
            cache_write_tokens=100,
            cache_write_1h_tokens=60,
            reasoning_tokens=25,
        ),
        stream=stream,
    )
    assert bill(usage) == (500, 40, 540)
    if talk.name == "ollama":
        assert (usage.cache_read_tokens, usage.reasoning_tokens) == (None, None)
        return
    assert (usage.cache_read_tokens, usage.reasoning_tokens) == (300, 25)
    writes = (100, 60) if talk.name == "anthropic" else (None, None)
    assert (usage.cache_write_tokens, usage.cache_write_1h_tokens) == writes


@streamed_and_not
def test_an_error_costs_nothing_that_is_known(talk: Talk, stream: bool) -> None:
    with pytest.raises(Exception, match="scripted failure"):
        talk.ask(Reply(status=500), stream=stream)
    assert talk.provider.billed == []


def test_a_cut_stream_has_no_false_number(talk: Talk) -> None:
    talk.provider.script.append(Reply("half an answer", cut=True, prompt_tokens=130))
    listener = Listener()
    try:
        for _ in talk.model.stream("Rain?", config={"callbacks": [listener]}):
            pass
    # Whether a cut is an error is up to each package, and of which kind.
    except Exception:  # noqa: BLE001
        pass
    assert talk.provider.billed == []
    usage = listener.usage
    assert usage.completion_tokens is None and usage.total_tokens is None
    assert usage.prompt_tokens == (130 if talk.name == "gemini" else None)


def test_a_slow_stream_is_read_to_its_end(talk: Talk) -> None:
    hold = threading.Event()
    threading.Timer(0.05, hold.set).start()
    usage, _ = talk.ask(Reply("wait for it", hold=hold, pause=0.01), stream=True)
    assert bill(usage) == (10, 5, 15)


@pytest.mark.parametrize("talk", ["openai", "gemini"], indirect=True)
def test_usage_that_a_stream_repeats_is_not_added_up(talk: Talk) -> None:
    usage, listener = talk.ask(
        Reply("one two three four", prompt_tokens=100, completion_tokens=8, usage_so_far=True),
        stream=True,
    )
    assert bill(usage) == (100, 8, 108)
    assert bill(of_chunks(listener.chunks)) == (100, 8, 108)
    # Cut after two words: what was said by then.
    assert of_chunks(listener.chunks[:2]).completion_tokens in (2, 4)


def test_of_a_result_alone_the_same_is_read(talk: Talk) -> None:
    """Where nobody listened to the chunks."""
    _, listener = talk.ask(Reply("Yes.", prompt_tokens=9, completion_tokens=2), stream=True)
    assert listener.result is not None
    assert bill(of_result(listener.result)) == (9, 2, 11)


@one("openai")
@streamed_and_not
@pytest.mark.parametrize("tier", ["flex", "priority"])
def test_a_tier_renames_the_details(talk: Talk, stream: bool, tier: str) -> None:
    usage, _ = talk.ask(
        Reply(
            "Yes.",
            prompt_tokens=50,
            completion_tokens=9,
            cache_read_tokens=30,
            reasoning_tokens=4,
            service_tier=tier,
        ),
        stream=stream,
    )
    assert (usage.cache_read_tokens, usage.reasoning_tokens) == (30, 4)
    assert usage.terms == {"service_tier": tier}


@one("anthropic")
def test_a_stream_whose_end_has_no_prompt(talk: Talk) -> None:
    """langchain-anthropic makes 0 of it."""
    usage, _ = talk.ask(Reply("Yes.", usage={"output_tokens": 82}), stream=True)
    assert bill(usage) == (None, 82, None)
    assert (usage.cache_read_tokens, usage.cache_write_tokens) == (None, None)


@one("ollama")
@streamed_and_not
def test_ollama_leaves_the_prompt_out_when_it_is_cached(talk: Talk, stream: bool) -> None:
    usage, _ = talk.ask(Reply("Yes.", usage={"eval_count": 5}), stream=stream)
    assert bill(usage) == (None, 5, None)
    assert usage.status == "reported"


@one("openai")
@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({"prompt_tokens": "12", "completion_tokens": 5.0, "total_tokens": 17}, (12, 5, 17)),
        ({"prompt_tokens": 12, "completion_tokens": -5, "total_tokens": 7}, (12, None, 7)),
        ({"prompt_tokens": 12, "completion_tokens": 10**30, "total_tokens": 1}, (12, None, 1)),
        ({"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": {"a": 1}}, (12, 5, 17)),
        (
            {"prompt_tokens": 12, "completion_tokens": 5, "prompt_tokens_details": {"x": []}},
            (12, 5, 17),
        ),
    ],
)
def test_nonsense_in_a_whole_answer(
    talk: Talk, block: dict[str, Any], expected: tuple[int | None, ...]
) -> None:
    talk.provider.script.append(Reply("Yes.", usage=block))
    listener = Listener()
    try:
        talk.model.invoke("Rain?", config={"callbacks": [listener]})
    # langchain-openai trips over some of it; then the call has failed, and says nothing.
    except Exception:  # noqa: BLE001
        assert listener.usage == Usage()
        return
    assert bill(listener.usage) == expected


@pytest.mark.parametrize(
    ("provider", "metadata", "expected"),
    [
        ("xai", (41, 87, 411, {}, {"reasoning": 283}), (41, 370, 411, None, None)),
        ("xai", (41, 370, 411, {}, {"reasoning": 283}), (41, 370, 411, None, None)),
        (
            "anthropic",
            (43, 7, 50, {"cache_creation": 0, "ephemeral_5m_input_tokens": 40}, {}),
            (43, 7, 50, 0, 40),
        ),
        # Older packages of Google leave out the prompts of tools, or what it thought.
        ("google_genai", (15, 20, 323, {"cache_read": 0}, {}), (303, 20, 323, 0, None)),
        ("google_genai", (5, 10, 45, {}, {"reasoning": 30}), (5, 40, 45, None, None)),
        # GigaChat's cache is in none of its counts, and its package passes them on.
        ("giga", (18, 68, 86, {"cache_read": 37}, {}), (55, 68, 86, 37, None)),
        ("anthropic", (0, 7, 7, {"cache_read": 0}, {}), (None, 7, None, None, None)),
        ("openai", (9, 0, 9, {}, {}), (9, None, None, None, None)),
        ("openai", (0, 0, 0, {}, {}), (None, None, None, None, None)),
        ("bedrock", (9, 2, 11, {"cache_read": 0, "cache_creation": 0}, {}), (9, 2, 11, None, None)),
        ("bedrock_converse", (9, 2, 11, {"cache_read": 0}, {}), (9, 2, 11, 0, None)),
        ("openai", ("9", -2, None, {"cache_read": "x"}, {}), (9, None, None, None, None)),
    ],
)
def test_usage_metadata_alone(
    provider: str, metadata: tuple[Any, ...], expected: tuple[int | None, ...]
) -> None:
    prompt, completion, total, inputs, outputs = metadata
    message = AIMessage("Text.", response_metadata={"finish_reason": "stop"})
    message.usage_metadata = {
        "input_tokens": prompt,
        "output_tokens": completion,
        "total_tokens": total,
        "input_token_details": inputs,
        "output_token_details": outputs,
    }
    usage = of_message(message, provider=provider)
    assert (*bill(usage), usage.cache_read_tokens, usage.cache_write_tokens) == expected
    assert usage.raw == message.usage_metadata


def _counts(prompt: int, completion: int) -> Any:
    return {
        "input_tokens": prompt,
        "output_tokens": completion,
        "total_tokens": prompt + completion,
    }


NOTHING_TOLD = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
NO_CACHE = {"cache_read_input_tokens": 0, "cache_write_input_tokens": 0}


@pytest.mark.parametrize("text", ["Hello.", ""])
@pytest.mark.parametrize(
    "said",
    [
        # langchain-aws, where an answer has no headers that count.
        {"usage": {**NOTHING_TOLD, **NO_CACHE}, "stop_reason": "end_turn"},
        {"token_usage": CompletionUsage(**NOTHING_TOLD), "finish_reason": "stop"},
        # Their clients' objects, where the server left usage out.
        {"token_usage": {"input_tokens": 0, "output_tokens": 0}, "finish_reason": "stop"},
        {"usage_metadata": {"prompt_token_count": 0, "candidates_token_count": 0}},
        # Gateways, to Claude.
        {"usage": {"input_tokens": 0, "output_tokens": 0, "cache_creation": None}},
        # langchain-aws by Converse has no block at all.
        {"stopReason": "end_turn", "model_provider": "bedrock_converse"},
    ],
    ids=["aws", "litellm", "tongyi", "vertexai", "anthropic", "converse"],
)
def test_a_block_of_zeros_is_made_up(said: dict[str, Any], text: str) -> None:
    metadata = _counts(0, 0) | {
        "input_token_details": {"cache_read": 0, "cache_creation": 0},
        "output_token_details": {"reasoning": 0},
    }
    message = AIMessage(text, response_metadata=said, usage_metadata=metadata)
    usage = of_message(message)
    assert usage.status == "unknown" and not usage.malformed
    assert set(usage.counts.values()) == {None}


def test_a_completion_of_zeros_is_made_up() -> None:
    generation = Generation(text="Hello.", generation_info={"finish_reason": "stop"})
    output = {"token_usage": NOTHING_TOLD}
    usage = of_result(LLMResult(generations=[[generation]], llm_output=output))
    assert usage == Usage(raw=NOTHING_TOLD)


def test_a_stated_cost_is_one_beside_zeros_too() -> None:
    said = {"token_usage": {**NOTHING_TOLD, "cost": 0.01}, "finish_reason": "stop"}
    usage = of_message(AIMessage("Hello.", response_metadata=said), provider="openrouter")
    assert (usage.prompt_tokens, usage.cost) == (None, Decimal("0.01"))


@pytest.mark.parametrize(
    ("cost", "upstream", "booked"),
    [
        (0.00341475, 0.00341475, "0.00341475"),
        (0.00765, 0.00065, "0.00765"),  # with a search on top
        (0.000669, None, "0.000669"),
        (0.00005, 0.001, None),
        (0, 0.001, None),
    ],
)
def test_a_fee_for_a_key_of_one_s_own_is_no_cost(
    cost: float, upstream: float | None, booked: str | None
) -> None:
    """langchain-openrouter keeps both costs, and not whose key it was."""
    said = {"cost": cost, "cost_details": {"upstream_inference_cost": upstream}}
    message = AIMessage("Hi.", response_metadata=said, usage_metadata=_counts(12, 5))
    usage = of_message(message, provider="openrouter")
    assert bill(usage) == (12, 5, 17)
    assert usage.cost == (Decimal(booked) if booked else None)


def test_a_block_may_be_an_object() -> None:
    block = CompletionUsage(prompt_tokens=12, completion_tokens=5, total_tokens=17)
    usage = of_message(AIMessage("Hello.", response_metadata={"token_usage": block}))
    assert bill(usage) == (12, 5, 17) and not usage.malformed


@pytest.mark.parametrize("total", [117, 17], ids=["with_the_cache", "without"])
def test_what_a_block_was_robbed_of_is_in_the_metadata(total: int) -> None:
    """databricks-langchain, of Claude: the block has three counts, and no cache in its prompt."""
    said = {"usage": {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": total}}
    metadata = _counts(112, 5) | {
        "total_tokens": total,
        "input_token_details": {"cache_read": 70, "cache_creation": 30},
        "output_token_details": {"reasoning": 2},
    }
    usage = of_message(AIMessage("Hi.", response_metadata=said, usage_metadata=metadata))
    assert bill(usage) == (112, 5, 117)
    assert (usage.cache_read_tokens, usage.cache_write_tokens) == (70, 30)
    assert usage.reasoning_tokens == 2
    # A later price reads the block once more.
    again = from_wire(None, {"usage": usage.raw})
    assert (again.prompt_tokens, again.completion_tokens) == (112, 5)
    # Of GPT the prompt has it already.
    said["usage"] |= {"prompt_tokens": 112, "total_tokens": 117}
    usage = of_message(AIMessage("Hi.", response_metadata=said, usage_metadata=metadata))
    assert (bill(usage), usage.cache_read_tokens) == ((112, 5, 117), 70)


@pytest.mark.parametrize(
    "metadata",
    [
        _counts(10, 5) | {"input_token_details": {"cache_read": 1000}},
        _counts(20, 10) | {"input_token_details": {"cache_read": 7}},
        _counts(10, 15) | {"output_token_details": {"reasoning": 10}},
    ],
    ids=["more than the prompt", "sums of chunks", "more than the answer"],
)
def test_details_of_other_counts_are_not_a_block_s(metadata: UsageMetadata) -> None:
    said = {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}
    usage = of_message(AIMessage("Hi.", response_metadata=said, usage_metadata=metadata))
    assert bill(usage) == (10, 5, 15)
    assert (usage.cache_read_tokens, usage.reasoning_tokens) == (None, None)


def test_a_cache_beside_the_metadata() -> None:
    """langchain-snowflake passes on Cortex's counts; only the total has the cache in it."""
    beside = {"cache_read_input_tokens": 100, "cache_write_input_tokens": 0}
    metadata = _counts(12, 5) | {"total_tokens": 117} | beside
    message = AIMessage("Hi.", response_metadata={"finish_reason": "stop"})
    message.usage_metadata = metadata
    usage = of_message(message, provider="snowflake")
    assert bill(usage) == (112, 5, 117)
    assert (usage.cache_read_tokens, usage.cache_write_tokens) == (100, 0)


@pytest.mark.parametrize("metadata", [None, _counts(7, 109)], ids=["sync", "async"])
def test_what_cohere_bills_of_a_stream_is_no_count(metadata: UsageMetadata | None) -> None:
    """langchain-cohere leaves the billed units of a stream only; what the model saw is more."""
    billed = {"total_tokens": 116.0, "input_tokens": 7.0, "output_tokens": 109.0}
    said = {"finish_reason": "COMPLETE", "token_count": billed}
    message = AIMessage("Hello.", response_metadata=said, usage_metadata=metadata)
    usage = of_message(message, provider="cohere")
    assert usage.status == "unknown" and bill(usage) == (None,) * 3
    assert [bill(part) for part in usage.parts] == [(7, 109, 116)]
    # Of a whole answer there is no sum, and the counts are those of the model.
    said = {"token_count": {"input_tokens": 69.0, "output_tokens": 110.0}}
    assert bill(of_message(AIMessage("Hello.", response_metadata=said))) == (69, 110, 179)


def test_thoughts_that_only_the_total_has_are_not_nothing() -> None:
    """langchain-oci says 0 for Gemini that was cut off while thinking."""
    message = AIMessage("", response_metadata={"finish_reason": "length"})
    message.usage_metadata = {"input_tokens": 14, "output_tokens": 0, "total_tokens": 78}
    assert bill(of_message(message)) == (14, None, 78)


def test_an_empty_answer_may_have_used_nothing() -> None:
    message = AIMessage("", response_metadata={"finish_reason": "stop"})
    message.usage_metadata = {"input_tokens": 9, "output_tokens": 0, "total_tokens": 9}
    assert bill(of_message(message)) == (9, 0, 9)


def test_claude_whose_prompt_is_stated_as_it_begins() -> None:
    """As langchain-aws (ChatAnthropicBedrock) and langchain-google-vertexai have it."""
    said = {"model_provider": "anthropic"}
    begun = _counts(1200, 0) | {"input_token_details": {"cache_read": 800, "cache_creation": 100}}
    chunks = [
        AIMessageChunk(content="", response_metadata=said, usage_metadata=begun),
        AIMessageChunk(content="Rain.", response_metadata=said),
        AIMessageChunk(content="", response_metadata=said, usage_metadata=_counts(0, 340)),
    ]
    result = LLMResult(generations=[[ChatGeneration(message=chunks[0] + chunks[1] + chunks[2])]])
    usage = of_result(result, chunks, provider="anthropic-bedrock")
    assert bill(usage) == (1200, 340, 1540)
    assert (usage.cache_read_tokens, usage.cache_write_tokens) == (800, 100)
    # Cut off before its end.
    assert bill(of_chunks(chunks[:2], provider="anthropic-bedrock")) == (1200, None, None)


def test_anthropic_counts_anew_in_every_event() -> None:
    chunks = [AIMessageChunk(content="a", usage_metadata=_counts(0, n)) for n in (50, 82)]
    assert of_chunks(chunks, provider="anthropic").completion_tokens == 82
    # Others who state the prompt once state differences.
    chunks = [AIMessageChunk(content="a", usage_metadata=_counts(p, 5)) for p in (10, 0)]
    assert bill(of_chunks(chunks, provider="google_genai")) == (10, 10, 20)


def test_nothing_is_unknown() -> None:
    assert of_message(AIMessage("")) == Usage()
    assert of_chunks([]) == Usage()
    assert of_result(LLMResult(generations=[])) == Usage()
    assert of_result(LLMResult(generations=[[]], llm_output={"token_usage": {}})) == Usage()
