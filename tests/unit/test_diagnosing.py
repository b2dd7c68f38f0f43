"""What `chatter doctor` finds: by looking, and by one real call of a server on loopback."""

from collections.abc import Iterator

import pytest

from chatter_db.diagnosing import PACKAGES, diagnose, parsed
from chatter_db.errors import ChatterError, UsageError
from tests.providers import ollama, openai
from tests.providers.openai import Provider, Reply


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    with openai.running() as running:
        yield running


@pytest.fixture(autouse=True)
def no_base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("OPENAI_API_BASE", raising=False)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openai:gpt-4o-mini", ("openai", "gpt-4o-mini")),
        ("google-genai:gemini-2.5-flash", ("google_genai", "gemini-2.5-flash")),
        ("ollama:llama3:8b", ("ollama", "llama3:8b")),
        ("gpt-4o", ("openai", "gpt-4o")),
        ("o3-mini", ("openai", "o3-mini")),
        ("claude-sonnet-4-5", ("anthropic", "claude-sonnet-4-5")),
    ],
)
def test_a_name_tells_provider_and_model(name: str, expected: tuple[str, str]) -> None:
    assert parsed(name) == expected


@pytest.mark.parametrize("name", ["", "llama", "nobody:gpt-4o", "openai:", "llama3:8b"])
def test_a_name_that_says_nothing(name: str) -> None:
    with pytest.raises(UsageError, match="openai:gpt-4o-mini"):
        parsed(name)


def test_a_model_of_which_everything_is_known() -> None:
    for name in ("openai:gpt-4o-mini", "anthropic:claude-sonnet-4-5", "gemini-2.5-flash"):
        found = diagnose(name)
        assert found.problems == []
        assert found.streams_usage and found.package_version
        assert found.price_list and found.unit_prices and found.unit_prices["input_mtok"]
    assert diagnose("openai:gpt-4o-mini").unit_prices == {
        **(diagnose("openai:gpt-4o-mini").unit_prices or {}),
        "input_mtok": "0.15",
        "output_mtok": "0.6",
    }


def test_a_server_of_ones_own_streams_no_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    found = diagnose("openai:gpt-4o", base_url="http://127.0.0.1:1/v1")
    assert found.streams_usage is False
    assert "stream_usage=True" in found.problems[0]
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    assert diagnose("openai:gpt-4o").streams_usage is False


def test_what_would_be_unknown_is_told() -> None:
    (problem,) = diagnose("ollama:llama3").problems
    assert "price list" in problem
    missing = diagnose("xai:grok-4")
    assert missing.package_version is None and missing.streams_usage is None
    assert "pip install langchain-xai" in missing.problems[0]


def test_a_call_shows_what_comes_back(provider: Provider) -> None:
    provider.script = [Reply("OK", prompt_tokens=9, completion_tokens=2, usage_so_far=True)]
    found = diagnose("openai:gpt-4o", base_url=provider.base_url, call=True)
    assert found.call is not None
    assert (found.call["usage_status"], found.call["prompt_tokens"]) == ("reported", 9)
    # The server sends it unasked: what was seen counts.
    assert found.streams_usage and found.problems == []
    found = diagnose("openai:gpt-4o", base_url=provider.base_url, call=True)
    assert found.call is not None and found.call["usage_status"] == "unknown"
    assert "stream_usage=True" in found.problems[0]


def test_a_call_that_fails_says_why_and_no_secret(provider: Provider) -> None:
    provider.answer = lambda _: Reply(status=401)
    with pytest.raises(ChatterError, match=r"openai gpt-4o failed: .*scripted failure") as failed:
        diagnose("openai:gpt-4o", base_url=provider.base_url, call=True)
    assert "sk-very-secret" not in str(failed.value)


def test_other_protocols_are_called_too() -> None:
    with ollama.running() as provider:
        found = diagnose("ollama:llama3", base_url=provider.base_url, call=True)
    assert found.call is not None and found.call["completion_tokens"] == 5


def test_the_packages_are_what_they_are_called() -> None:
    """Of those that are installed here: the class is there, and says what it streams."""
    installed = {"openai", "azure_openai", "anthropic", "google_genai", "ollama"}
    assert installed <= set(PACKAGES)
    for provider in installed:
        assert diagnose(f"{provider}:some-model").package_version


def test_the_address_tells_whose_price_it_is() -> None:
    found = diagnose("openai:deepseek-chat", base_url="https://api.deepseek.com/v1")
    assert (found.booked_as, bool(found.unit_prices)) == ("deepseek", True)
    found = diagnose("openai:deepseek-chat")
    assert (found.booked_as, found.unit_prices) == ("openai", None)
