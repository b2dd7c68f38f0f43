"""Who is booked as the provider when one is asked through another one's package."""

from contextlib import suppress
from decimal import Decimal
from typing import Any

import httpx
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import GenericFakeChatModel, LangSmithParams
from langchain_core.messages import AIMessage, HumanMessage
from langchain_openai import AzureChatOpenAI, ChatOpenAI
from openai import RateLimitError
from pydantic import SecretStr
from sqlalchemy import select

from chatter_db import Chatter, Message
from chatter_db.recorder.endpoints import provider_answering, provider_asked, url_given
from tests.providers.openai import Provider, Reply


def asked(url: str | None) -> str | None:
    """The provider that a ChatOpenAI with `url` asks, by what it shows to callbacks."""
    given = {"base_url": url} if url else {}
    model = ChatOpenAI(model="m", api_key=SecretStr("test"), **given)
    return provider_asked("openai", url_given(model._serialized))


@pytest.fixture(autouse=True)
def no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_BASE", "OPENAI_BASE_URL", "ANTHROPIC_API_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://api.deepseek.com/v1", "deepseek"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://api.x.ai/v1", "xai"),
        ("https://api.mistral.ai/v1", "mistralai"),
        ("https://generativelanguage.googleapis.com/v1beta/openai/", "google_genai"),
        ("https://mine.openai.azure.com/openai/v1/", "azure"),
        ("https://api.openai.com/v1", "openai"),
        ("http://127.0.0.1:8000/v1", None),
        (None, None),
    ],
)
def test_the_address_tells_the_provider(url: str | None, provider: str | None) -> None:
    assert asked(url) == provider


def test_the_environment_may_have_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.deepseek.com")
    assert asked(None) == "deepseek"
    # An argument goes before it, also where it is nobody's that we know.
    assert asked("http://127.0.0.1:8000/v1") is None
    # And it is none of anybody else's.
    assert provider_asked("anthropic", None) is None


@pytest.mark.parametrize(
    "serialized", [None, {}, {"kwargs": None}, {"kwargs": {"openai_api_base": 1}}]
)
def test_a_model_that_says_nothing_of_itself(serialized: dict[str, Any] | None) -> None:
    assert url_given(serialized) is None


def test_other_packages_know_whom_they_ask() -> None:
    assert (
        provider_asked("bedrock_converse", "https://bedrock-runtime.eu-west-1.amazonaws.com")
        is None
    )
    assert provider_asked(None, "https://api.deepseek.com") is None


def test_anthropics_package_is_pointed_at_others_too() -> None:
    model = ChatAnthropic(
        model="kimi-k2",
        base_url="https://api.moonshot.ai/anthropic",
        api_key=SecretStr("test"),
        timeout=1,
        stop=None,
    )
    assert provider_asked("anthropic", url_given(model._serialized)) == "moonshotai"


class ToLoopback(httpx.AsyncHTTPTransport):
    """Sends what is meant for the internet to the provider on loopback."""

    def __init__(self, provider: Provider) -> None:
        super().__init__()
        self._base = httpx.URL(provider.base_url)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(
            scheme=self._base.scheme, host=self._base.host, port=self._base.port
        )
        return await super().handle_async_request(request)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_call_is_priced_by_who_was_asked(
    chatter: Chatter, provider: Provider, streamed: bool
) -> None:
    provider.script = [
        Reply("All is well.", prompt_tokens=1000, completion_tokens=100, cache_read_tokens=0)
    ]
    async with httpx.AsyncClient(transport=ToLoopback(provider)) as client:
        model = ChatOpenAI(
            model="deepseek-chat",
            base_url="https://api.deepseek.com/v1",
            api_key=SecretStr("test"),
            http_async_client=client,
            stream_usage=True,
            streaming=streamed,
        )
        run = chatter.recorder(conversation="c")
        await model.ainvoke([HumanMessage("How is it?")], config={"callbacks": [run]})

    async with chatter.session() as session:
        answer = (await session.scalars(select(Message).filter_by(role="assistant"))).one()
    assert (answer.provider_used, answer.model_used) == ("deepseek", "deepseek-chat")
    assert (answer.prompt_tokens, answer.completion_tokens) == (1000, 100)
    assert answer.cost is not None and answer.cost > Decimal(0)
    assert answer.extra["price"]["provider"] == "deepseek"


@pytest.mark.parametrize(
    ("address", "model", "priced"),
    [
        ("https://api.openai.com/v1", "gpt-6-sol", True),
        # A tenth dearer, which no list says; older models cost the same everywhere.
        ("https://eu.api.openai.com/v1", "gpt-6-sol", False),
        ("https://eu.api.openai.com/v1", "gpt-4o", True),
    ],
)
async def test_a_call_that_has_to_stay_in_a_place(
    chatter: Chatter, provider: Provider, address: str, model: str, priced: bool
) -> None:
    provider.script = [Reply("All is well.", prompt_tokens=1000, completion_tokens=100)]
    async with httpx.AsyncClient(transport=ToLoopback(provider)) as client:
        asked = ChatOpenAI(
            model=model, base_url=address, api_key=SecretStr("test"), http_async_client=client
        )
        await asked.ainvoke("How is it?", config={"callbacks": [chatter.recorder()]})
    async with chatter.session() as session:
        answer = (await session.scalars(select(Message).filter_by(role="assistant"))).one()
    assert (answer.provider_used, answer.prompt_tokens) == ("openai", 1000)
    assert (answer.cost is not None) == priced
    assert answer.extra.get("usage_terms") == (None if priced else {"data_residency": "eu"})


@pytest.mark.parametrize("streamed", [False, True])
async def test_azure_s_package_is_azure(
    chatter: Chatter, provider: Provider, streamed: bool
) -> None:
    model = AzureChatOpenAI(
        azure_endpoint=provider.base_url.removesuffix("/v1"),
        azure_deployment="ours",
        api_version="2024-10-21",
        api_key=SecretStr("test"),
        model="gpt-4o-mini",
        streaming=streamed,
    )
    await model.ainvoke("How is it?", config={"callbacks": [chatter.recorder()]})
    async with chatter.session() as session:
        answer = (await session.scalars(select(Message).filter_by(role="assistant"))).one()
    assert (answer.provider_used, answer.cost) == ("azure", Decimal("0.0000045"))
    assert answer.extra["price"]["provider"] == "azure"


@pytest.mark.parametrize(
    ("asked", "stated", "provider"),
    [
        ("azure", "openai", "azure"),
        ("together", "openai", "together"),
        ("openai", "openai", "openai"),
        # What LangChain makes of a class's name where that says nothing.
        ("router", "openai", "openai"),
        ("myopenai", "openai", "openai"),
        ("openai", "deepseek", "deepseek"),
        ("groq", None, "groq"),
        # One name, also of a call that failed and states none.
        ("mistral", "mistralai", "mistralai"),
        ("mistral", None, "mistralai"),
        ("amazon_bedrock", "bedrock_converse", "amazon_bedrock"),
        ("amazon_bedrock", "bedrock", "amazon_bedrock"),
        ("amazon_bedrock", None, "amazon_bedrock"),
        # Amazon charges for Claude there, and not what Anthropic does.
        ("anthropic-bedrock", "anthropic", "amazon_bedrock"),
        ("anthropic-bedrock", None, "amazon_bedrock"),
        ("anthropicvertex", "anthropic", "google_vertexai"),
        (None, "openai", "openai"),
        (None, None, None),
    ],
)
def test_who_answered(asked: str | None, stated: str | None, provider: str | None) -> None:
    assert provider_answering(asked, stated) == provider


class ChatUpstage(ChatOpenAI):
    """As langchain-upstage builds its model on OpenAI's."""

    __module__ = "langchain_upstage.chat_models"

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return False

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return super()._get_ls_params(stop, **kwargs) | LangSmithParams(ls_provider="upstage")


@pytest.mark.parametrize("status", [200, 429])
async def test_a_package_of_a_provider_that_no_list_knows(
    chatter: Chatter, provider: Provider, status: int
) -> None:
    provider.script = [Reply("All is well.", status=status)]
    model = ChatUpstage(
        model="solar-pro2", base_url=provider.base_url, api_key=SecretStr("test"), max_retries=0
    )
    with suppress(RateLimitError):
        await model.ainvoke("How is it?", config={"callbacks": [chatter.recorder()]})
    async with chatter.session() as session:
        answer = (await session.scalars(select(Message).filter_by(role="assistant"))).one()
    assert answer.provider_used == "upstage"


@pytest.mark.parametrize(
    ("asked", "cost"),
    [
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", Decimal("0.00495")),
        ("global.anthropic.claude-sonnet-4-5-20250929-v1:0", Decimal("0.0045")),
    ],
)
async def test_claude_of_bedrock_is_priced_by_region(
    chatter: Chatter, asked: str, cost: Decimal
) -> None:
    """ChatAnthropicBedrock's answers state Anthropic, and the model without its region."""
    answer = AIMessage(
        "Hi",
        usage_metadata={"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100},
        response_metadata={
            "model_provider": "anthropic",
            "model_name": "claude-sonnet-4-5-20250929",
        },
    )
    model = GenericFakeChatModel(
        messages=iter([answer]),
        metadata={"ls_provider": "anthropic-bedrock", "ls_model_name": asked},
    )
    await model.ainvoke("Hello", config={"callbacks": [chatter.recorder()]})
    async with chatter.session() as session:
        booked = (await session.scalars(select(Message).filter_by(role="assistant"))).one()
    # With the region on the row, by which a repricing goes.
    assert (booked.provider_used, booked.model_used, booked.cost) == ("amazon_bedrock", asked, cost)


@pytest.mark.parametrize(
    ("answered", "cost"),
    [
        # A version that no list has yet, or a deployment's own name.
        ("gpt-4o-mini-of-tomorrow", Decimal("0.00021")),
        # Who answered comes first, where the list knows both.
        ("gpt-4o", Decimal("0.0035")),
    ],
)
async def test_a_model_that_no_list_knows_is_priced_as_the_one_that_was_asked(
    chatter: Chatter, answered: str, cost: Decimal
) -> None:
    answer = AIMessage(
        "Hi",
        usage_metadata={"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100},
        response_metadata={"model_name": answered},
    )
    model = GenericFakeChatModel(
        messages=iter([answer]),
        metadata={"ls_provider": "openai", "ls_model_name": "gpt-4o-mini"},
    )
    await model.ainvoke("Hello", config={"callbacks": [chatter.recorder(conversation="c")]})
    async with chatter.session() as session:
        booked = (await session.scalars(select(Message).filter_by(role="assistant"))).one()
    assert (booked.model_used, booked.cost) == (answered, cost)
