"""Recorded answers of real providers, and what the recorder makes of them.

The recordings are other projects' and stay where they are: beside the
repository, in `../shared/data` or where CHATTER_CORPUS says.
"""

import base64
import json
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.messages import AIMessage
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_ollama import ChatOllama, OllamaLLM
from langchain_openai import AzureChatOpenAI, ChatOpenAI, OpenAI
from pydantic import SecretStr

from chatter_db.recorder import usage as usage_of
from chatter_db.recorder.pricing import cost_of
from chatter_db.recorder.probing import Listener
from chatter_db.recorder.usage import Usage
from tests.providers import openai
from tests.providers.serving import Provider, Recording, Reply

DATA = Path(
    os.environ.get("CHATTER_CORPUS")
    or Path(__file__).resolve().parents[2].parent / "shared" / "data"
)

Row = dict[str, Any]
Verdict = Literal["right", "unknown", "wrong"]
Model = BaseChatModel | BaseLLM

FIELDS = {
    "prompt_tokens": "input",
    "completion_tokens": "output",
    "cache_read_tokens": "cache_read",
    "cache_write_tokens": "cache_write",
    "reasoning_tokens": "reasoning",
}

MISREAD = {"u0147", "u0150"}
"""Rows whose `expected_wire` is not what their bytes say.

Titan's stream: it expects an output of 0, where the event has
`totalOutputTextTokenCount` 10 and Bedrock's metrics an `outputTokenCount` of 10.
"""

DEARER_THEN = "the client's table kept the price of the day that the model came out with"
CACHED = "tokens were read from or written to the cache, which the trace doesn't say"
ROUTED = "OpenRouter's routes had other prices that day than the list has for any"

TRACE_EXCEPTIONS = {
    "anthropic/claude-3-7-sonnet-20250219": (1, CACHED),
    "claude-3-5-haiku-20241022": (21, DEARER_THEN + ": 1 and 5 dollars"),
    "claude-3-5-sonnet-20241022": (5, CACHED),
    "deepseek/deepseek-chat": (
        125,
        "recorded at 0.14 and 0.28 dollars, which it cost until 2025-02-08 and the list lacks "
        "(120 calls), at the full price in the cheap hours (1), or " + CACHED + " (4)",
    ),
    "deepseek/deepseek-reasoner": (
        1,
        "recorded at the full price; the list has the cheap hours begin before they did",
    ),
    "gemini/gemini-1.5-pro": (1, DEARER_THEN + ": 3.5 and 10.5 dollars"),
    "gemini/gemini-1.5-pro-001": (1, DEARER_THEN + ": 3.5 and 10.5 dollars"),
    "gemini/gemini-1.5-pro-latest": (2, DEARER_THEN + ": 3.5 and 1.05 dollars"),
    "gemini/gemini-pro": (1, DEARER_THEN + ": 0.35 dollars"),
    "o3": (2, CACHED),
    "openrouter/deepseek/deepseek-r1": (3, ROUTED),
    "openrouter/moonshotai/kimi-k2": (1, ROUTED),
    "openrouter/openai/gpt-4o": (4, DEARER_THEN + ": 5 and 15 dollars"),
    "openrouter/qwen/qwen-2.5-coder-32b-instruct": (5, ROUTED),
}
"""Calls of the Aider trace that the list prices otherwise than was recorded: how many, why."""

# How each package names itself on its messages.
PROVIDERS = {
    "langchain-anthropic": "anthropic",
    "langchain-google-genai": "google_genai",
    "langchain-mistralai": "mistralai",
    "langchain-xai": "xai",
}


@dataclass(frozen=True)
class Traced:
    """A call of the Aider trace, and what the price list of its day makes of it."""

    model: str
    recorded: Decimal
    computed: Decimal | None

    @property
    def equal(self) -> bool:
        return self.computed is not None and abs(self.computed - self.recorded) <= Decimal("1e-9")


@dataclass(frozen=True)
class Judged:
    verdict: Verdict
    why: str = ""


def rows(name: str) -> list[Row]:
    """The rows of a file of the corpus; empty if there is none."""
    path = DATA / name
    if not path.exists():
        return []
    return [json.loads(line, parse_float=Decimal) for line in path.read_text().splitlines()]


def content(row: Row) -> Any:
    """A row's body as a client would take it apart: a body, or a stream's events."""
    if row.get("body_b64"):
        return list(_frames(base64.b64decode(row["body_b64"])))
    body = row["body"]
    if re.search(r"^data:", body, re.M):
        return [json.loads(line) for line in re.findall(r"^data:\s*(\{.*)$", body, re.M)]
    try:
        return json.loads(body)
    except json.JSONDecodeError:
        return [json.loads(line) for line in body.splitlines() if line.strip()]


def _frames(data: bytes) -> Iterator[Any]:
    """The events of Amazon's binary stream; an invoked model's are packed in base64."""
    at = 0
    while at + 12 <= len(data):
        length, head = struct.unpack(">II", data[at : at + 8])
        frame = json.loads(data[at + 12 + head : at + length - 4])
        yield json.loads(base64.b64decode(frame["bytes"])) if "bytes" in frame else frame
        at += length


def wire_usage(row: Row, *, named: bool = True) -> Usage:
    """What the normaliser makes of the row's bytes."""
    return usage_of.from_wire(row["provider"] if named else None, content(row))


def judge(row: Row, usage: Usage) -> Judged:
    """Compares with the row's own truth. A missing number is unknown, any other one wrong."""
    expected = dict(row["expected_wire"])
    if row["id"] in MISREAD:
        expected["output"] = 10
    wrong, unknown = [], []
    for field, name in FIELDS.items():
        got, want = getattr(usage, field), expected[name]
        if got is None and want is not None:
            unknown.append(name)
        elif got != want:
            wrong.append(f"{name} {got} for {want}")
    stated = expected["total"]
    if stated is not None and usage.total_tokens not in (stated, None):
        wrong.append(f"total {usage.total_tokens} for {stated}")
    if wrong:
        return Judged("wrong", ", ".join(wrong))
    return Judged("unknown", ", ".join(unknown)) if unknown else Judged("right")


def maker_of(row: Row) -> str | None:
    """Which of the installed packages speaks the row's protocol; None if none does."""
    match row["provider"], row.get("api"):
        case ("aws-bedrock" | "cohere", _) | (_, "grpc.sample" | "grpc.stream"):
            return None
        case "anthropic", _:
            return "anthropic"
        case (("google-gemini" | "google-vertex"), _):
            return "gemini"
        case "ollama", "ollama.chat" | "ollama.generate":
            return str(row["api"])
        case "azure-openai", _:
            return "azure"
        case _, "completions":
            return "completions"
    return "responses" if row.get("api") == "responses" or "/responses" in row["uri"] else "chat"


class Stage:
    """The real packages, each with its own client, before one loopback provider."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self._root = provider.base_url.removesuffix("/v1")
        self._made: dict[str, Model] = {}

    def play(self, row: Row) -> tuple[Usage, Exception | None]:
        """Serves the row's body to `model`: the usage that is read, and what the package raised."""
        maker = maker_of(row)
        assert maker is not None, "no package for it"
        model = self._made.get(maker) or self._makers[maker]()
        self._made[maker] = model
        streamed = bool(row["stream"])
        given = row["content_type"].partition(";")[0]
        usual = "text/event-stream" if streamed else "application/json"
        recording = Recording(row["body"].encode(), given if "/" in given else usual)
        self.provider.script.append(Reply(status=row["status"], recording=recording))
        listener = Listener()
        failure = None
        try:
            if streamed:
                for _ in model.stream("Hello?", config={"callbacks": [listener]}):
                    pass
            else:
                model.invoke("Hello?", config={"callbacks": [listener]})
        # What a package raises on a body it can't take is as wide as the packages are.
        except Exception as error:  # noqa: BLE001
            failure = error
        self.provider.script.clear()
        return listener.usage, failure

    @cached_property
    def _makers(self) -> Mapping[str, Callable[[], Model]]:
        key, root = SecretStr("test"), self._root
        common: dict[str, Any] = {"api_key": key, "max_retries": 0, "base_url": f"{root}/v1"}
        return {
            "anthropic": lambda: ChatAnthropic(
                model="claude",
                base_url=root,
                api_key=key,
                max_retries=0,
                timeout=10,
                stop=None,
            ),
            "gemini": lambda: ChatGoogleGenerativeAI(
                model="gemini-2.5-flash", base_url=root, api_key=key, max_retries=1
            ),
            "ollama.chat": lambda: ChatOllama(model="llama3", base_url=root),
            "ollama.generate": lambda: OllamaLLM(model="llama3", base_url=root),
            "azure": lambda: AzureChatOpenAI(
                azure_endpoint=root,
                azure_deployment="gpt-4o",
                api_version="2024-10-21",
                api_key=key,
                max_retries=0,
                stream_usage=True,
            ),
            "chat": lambda: ChatOpenAI(model="gpt-4o", stream_usage=True, **common),
            "responses": lambda: ChatOpenAI(model="gpt-4o", use_responses_api=True, **common),
            "completions": lambda: OpenAI(model="gpt-3.5-turbo-instruct", **common),
        }


@contextmanager
def stage() -> Iterator[Stage]:
    with openai.running() as provider:
        yield Stage(provider)


def left_by_langchain(row: Row) -> Usage:
    """What is read of the usage_metadata that the row's package is known to leave.

    The worst case: a stream of which LangChain kept nothing else.
    """
    left = row["expected_langchain"]
    package = left["package"]
    name = PROVIDERS.get(package, package.removeprefix("langchain-"))
    if package == "langchain-aws":
        name = "bedrock" if row["api"].startswith("invoke") else "bedrock_converse"
    said = {"model_provider": name, "finish_reason": "stop"}
    message = AIMessage("Some text.", response_metadata=said)
    message.usage_metadata = left["usage_metadata"]
    return usage_of.of_message(message)


def priced_trace() -> list[Traced]:
    calls = []
    for row in rows("usage_trace.jsonl"):
        used = Usage(prompt_tokens=row["prompt_tokens"], completion_tokens=row["completion_tokens"])
        at = datetime.fromtimestamp(int(row["time"]), UTC)
        cost = cost_of(used, provider=None, model=row["model"], at=at)
        calls.append(Traced(row["model"], Decimal(row["cost"]), cost.amount if cost else None))
    return calls
