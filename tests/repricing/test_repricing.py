"""Prices of one's own, and pricing afterwards: dated, audited, undone to the last digit."""

import json
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from langchain_core.messages import HumanMessage
from sqlalchemy import Connection, select

from chatter_db import Chatter, Message, UsageError, repricing
from chatter_db.database import sync_engine
from chatter_db.repricing import Selection, reprice, set_price, undo
from tests.forked import Run
from tests.providers.openai import Provider
from tests.recorder.test_recorder import agent, model_of
from tests.sql.books import Books

START = datetime(2026, 3, 1, tzinfo=UTC)


def own_price(connection: Connection, prompt: str = "2", since: datetime = START) -> None:
    set_price(
        connection,
        "inhouse",
        "llama",
        valid_from=since,
        prompt=Decimal(prompt),
        completion=Decimal(10),
        cache_read=Decimal("0.5"),
    )


def call(books: Books, conversation: UUID, **columns: Any) -> UUID:
    given = {
        "role": "assistant",
        "provider_used": "inhouse",
        "model_used": "llama",
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "usage_status": "reported",
        "created_at": START + timedelta(days=1),
    }
    return books.message(conversation, **given | columns)


async def test_the_recorder_prices_by_ones_own_price_at_the_time_of_the_call(
    chatter: Chatter, provider: Provider, connection: Connection
) -> None:
    model = model_of(provider)
    conversation = str(uuid4())

    async def ask() -> None:
        run = chatter.recorder(conversation=conversation)
        await agent(model).ainvoke({"messages": [HumanMessage("Hi")]}, config={"callbacks": [run]})

    await ask()
    now = datetime.now(UTC)
    for since, prompt in ((now, Decimal(7)), (now + timedelta(days=1), Decimal(900))):
        set_price(
            connection,
            "openai",
            "gpt-4o-mini",
            valid_from=since,
            prompt=prompt,
            completion=Decimal(9),
        )
    await ask()
    async with chatter.session() as session:
        rows = await session.scalars(
            select(Message).where(Message.model_call).order_by(Message.created_at)
        )
        before, after = rows.all()
    assert before.extra["price"]["price_list"].startswith("genai-prices")
    assert after.extra["price"]["price_list"] == "chatter.prices"
    assert after.extra["price"]["unit_prices"] == {"prompt": "7", "completion": "9"}
    assert after.prompt_tokens is not None and after.completion_tokens is not None
    assert after.cost == Decimal(after.prompt_tokens * 7 + after.completion_tokens * 9) / 1_000_000
    assert after.cost_source == "computed"


def test_missing_costs_are_filled_and_put_back(connection: Connection, books: Books) -> None:
    conversation = books.conversation(user_id=books.user("ada"))
    run = books.execution(conversation)
    kept = {"note": "kept"}
    ours = call(books, conversation, execution_id=run, cache_read_tokens=400, metadata=kept)
    earlier = call(books, conversation, created_at=START - timedelta(days=1))
    listed = call(books, conversation, provider_used="openai", model_used="gpt-4o-mini")
    tiered = call(
        books,
        conversation,
        provider_used="openai",
        model_used="gpt-4o-mini",
        usage={"prompt_tokens": 7, "completion_tokens": 7},  # of something else
    )
    stated = call(books, conversation, cost="0.5", cost_source="provider")
    imported = call(books, conversation, cost="0.25", cost_source="imported")
    unknown = call(books, conversation, usage_status="unknown", prompt_tokens=None)
    before, day = books.totals(conversation), "select cost from analytics.usage_by_user_live"
    days = sorted(books.rows(day))
    own_price(connection)

    trial = reprice(connection, Selection(), reason="", trial=True)
    assert (trial.id, trial.priced) == (None, 2)
    assert books.totals(conversation) == before
    outcome = reprice(connection, Selection(), reason="The bill has come")
    assert outcome.id is not None
    assert {name: vars(model) for name, model in outcome.models.items()} == {
        ("inhouse", "llama"): {
            "looked_at": 2,
            "priced": 1,
            "unknown": 1,
            "before": None,
            "after": Decimal("0.0024"),
        },
        ("openai", "gpt-4o-mini"): {
            "looked_at": 2,
            "priced": 1,
            "unknown": 1,
            "before": None,
            "after": Decimal("0.00021"),
        },
    }
    assert books.row(
        "select cost, cost_source, metadata -> 'price' ->> 'price_list', metadata - 'price' "
        "from chatter.messages where id = %s",
        ours,
    ) == (Decimal("0.0024"), "computed", "chatter.prices", kept)  # 600 * 2 + 400 * 0.5 + 100 * 10
    assert books.field("messages", listed, "cost") == Decimal("0.00021")
    for message, cost in (
        (earlier, None), (tiered, None), (unknown, None),
        (stated, Decimal("0.5")), (imported, Decimal("0.25")),
    ):  # fmt: skip
        assert books.field("messages", message, "cost") == cost
    after = books.totals(conversation)
    assert after.total_cost - before.total_cost == Decimal("0.00261")
    assert books.run_totals(run).total_cost == Decimal("0.0024")
    assert books.findings() == {}
    (told,) = repricing.repricings(connection)
    connection.rollback()
    assert (told["reason"], told["calls"], told["difference"]) == (
        "The bill has come",
        2,
        Decimal("0.00261"),
    )
    assert told["finished_at"] is not None

    # Nothing is left to price, and the same once more changes nothing.
    assert reprice(connection, Selection(), reason="again").priced == 0
    assert undo(connection, outcome.id) == 2
    assert books.totals(conversation) == before
    assert sorted(books.rows(day)) == days
    assert books.row(
        "select cost, cost_source, metadata from chatter.messages where id = %s", ours
    ) == (None, None, kept)
    assert books.findings() == {}
    assert undo(connection, outcome.id) == 0
    assert repricing.repricings(connection)[1]["undone_at"] is not None
    with pytest.raises(UsageError, match="no repricing"):
        undo(connection, uuid4())


def test_models_that_only_need_to_be_priced_are_marked(
    connection: Connection, books: Books
) -> None:
    conversation = books.conversation()
    own_price(connection)
    ended = START + timedelta(days=2)
    set_price(connection, "inhouse", "llama", valid_from=ended, prompt=None, completion=None)
    own_price(connection, since=START + timedelta(days=9))
    names = [
        ("inhouse", "llama"),
        ("inhouse", "other"),
        ("openai", "gpt-4o-mini"),
        (None, "gpt-4o-mini"),
        (None, None),
    ]
    for provider, model in names:
        call(books, conversation, provider_used=provider, model_used=model)

    def known() -> dict[tuple[str, str], bool]:
        rows = repricing.missing(connection)
        return {(row["provider"], row["model"]): row["known"] for row in rows}

    assert known() == {
        ("inhouse", "llama"): True,
        ("inhouse", "other"): False,
        ("openai", "gpt-4o-mini"): True,
        ("", "gpt-4o-mini"): True,
        ("", ""): False,
    }
    outcome = reprice(connection, Selection(), reason="those that are known")
    assert (outcome.priced, {named for named, found in known().items() if found}) == (3, set())
    call(books, conversation, created_at=START + timedelta(days=3))  # after the price ended
    assert not known()["inhouse", "llama"]


def test_computed_costs_follow_a_new_price_when_asked(connection: Connection, books: Books) -> None:
    conversation = books.conversation()
    own_price(connection)
    message, _ = (call(books, conversation) for _ in range(2))
    first = reprice(connection, Selection(), reason="first").id
    own_price(connection, "3")
    assert reprice(connection, Selection(), reason="second").priced == 0
    second = reprice(connection, Selection(computed=True, model="llama"), reason="second")
    found = second.models["inhouse", "llama"]
    assert (found.before, found.after) == (Decimal("0.006"), Decimal("0.008"))
    assert books.field("messages", message, "cost") == Decimal("0.004")
    # What was changed again since then stays as it is.
    assert first is not None and second.id is not None
    assert undo(connection, first) == 0
    assert books.field("messages", message, "cost") == Decimal("0.004")
    # What was put back already doesn't come again.
    assert undo(connection, second.id) == 2
    assert books.field("messages", message, "cost") is None
    assert books.findings() == {}


@pytest.mark.parametrize(
    ("columns", "cost"),
    [
        (
            {"provider_used": "openai", "model_used": "gpt-4o-mini", "cache_read_tokens": 400},
            "0.00018",  # 600 * 0.15 + 400 * 0.075 + 100 * 0.6
        ),
        (
            {
                "provider_used": "anthropic",
                "model_used": "claude-sonnet-4-5",
                "usage": {
                    "input_tokens": 1000,
                    "output_tokens": 100,
                    "server_tool_use": {"web_search_requests": 2},
                },
            },
            "0.0245",  # 1000 * 3 + 100 * 15, and two searches at a cent
        ),
        (
            {
                "provider_used": "openai",
                "model_used": "gpt-5",
                "usage": {"prompt_tokens": 1000, "completion_tokens": 100},
                "cost": "9",
                "cost_source": "computed",
                "metadata": {"price": {"terms": {"service_tier": "flex"}}},
                "created_at": datetime(2026, 11, 1, tzinfo=UTC),
            },
            "0.001125",  # half of 1000 * 1.25 + 100 * 10
        ),
        (
            {
                "provider_used": "openrouter",
                "model_used": "perplexity/sonar-deep-research",
                "reasoning_tokens": 50,
            },
            "0.00255",  # 1000 * 2 + 50 * 8 + 50 * 3
        ),
        (
            {
                "provider_used": "anthropic",
                "model_used": "claude-sonnet-4-5",
                "usage": {"input_tokens": 1000, "output_tokens": 100, "service_tier": "batch"},
                "metadata": {
                    "usage_terms": {"processing": "standard", "inference_geo": ["nowhere"]},
                    "usage_kinds": {"generated_images": 0, "web_searches": "many"},
                },
                "created_at": datetime(2026, 11, 1, tzinfo=UTC),
            },
            "0.00225",  # by what stands in the block, half of 1000 * 3 + 100 * 15
        ),
        (
            {
                "provider_used": "anthropic",
                "model_used": "claude-sonnet-4-5",
                "cache_read_tokens": 800,
                "usage": {
                    "input_tokens": 1000,
                    "output_tokens": 100,
                    "total_tokens": 1100,
                    "input_token_details": {"cache_read": 800},
                },
            },
            "0.00234",  # by LangChain's block: 200 * 3 + 800 * 0.3 + 100 * 15
        ),
    ],
)
def test_all_that_a_row_knows_of_its_usage_is_priced(
    connection: Connection, books: Books, columns: dict[str, Any], cost: str
) -> None:
    message = call(books, books.conversation(), **columns)
    reprice(connection, Selection(computed=True), reason="the list has changed")
    assert books.field("messages", message, "cost") == Decimal(cost)


def test_a_new_price_touches_no_cost_that_was_not_computed(
    connection: Connection, books: Books
) -> None:
    """Nor what it wouldn't change, nor calls whose tokens are estimates."""
    conversation = books.conversation()
    own_price(connection)
    calls = [
        call(books, conversation, cost="0.5", cost_source="provider"),
        call(books, conversation, cost="0.25", cost_source="imported"),
        call(books, conversation, cost="0.003", cost_source="computed"),
        call(books, conversation, usage_status="estimated"),
    ]
    outcome = reprice(connection, Selection(computed=True), reason="a new price")
    assert (outcome.priced, outcome.models["inhouse", "llama"].looked_at) == (0, 1)
    costs = [books.field("messages", message, "cost") for message in calls]
    assert costs == [Decimal("0.5"), Decimal("0.25"), Decimal("0.003"), None]


def test_what_others_changed_is_not_put_back(
    connection: Connection, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation = books.conversation()
    own_price(connection)
    kept, changed = call(books, conversation), call(books, conversation)
    outcome = reprice(connection, Selection(), reason="all")
    assert outcome.id is not None and outcome.priced == 2
    books.connection.execute("update chatter.messages set cost = 9 where id = %s", [changed])
    assert undo(connection, outcome.id) == 1
    assert books.field("messages", kept, "cost") is None
    assert books.field("messages", changed, "cost") == 9

    # And what they change while it is priced is theirs, and not counted.
    read = repricing._price

    def price(row: Any) -> Any:
        books.connection.execute("update chatter.messages set cost = 7 where id = %s", [row.id])
        return read(row)

    monkeypatch.setattr(repricing, "_price", price)
    late = reprice(connection, Selection(), reason="late")
    assert (late.priced, late.changed_meanwhile) == (0, 1)
    assert books.field("messages", kept, "cost") == 7


def test_an_earlier_price_is_put_back_with_all_that_was_told_of_it(
    connection: Connection, books: Books
) -> None:
    own_price(connection)
    message = call(books, books.conversation())
    told = "select cost, cost_source, metadata from chatter.messages where id = %s"
    reprice(connection, Selection(), reason="first")
    before = books.row(told, message)
    assert before[:2] == (Decimal("0.003"), "computed")
    own_price(connection, "3")
    second = reprice(connection, Selection(computed=True), reason="second").id
    assert books.row(told, message) != before
    assert second is not None and undo(connection, second) == 1
    assert books.row(told, message) == before


def test_what_the_provider_states_meanwhile_is_its_own_though_it_is_the_same(
    connection: Connection, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_price(connection)
    message = call(books, books.conversation())
    first = reprice(connection, Selection(), reason="first").id
    own_price(connection, "3")
    read = repricing._price

    def price(row: Any) -> Any:
        books.connection.execute("update chatter.messages set cost_source = 'provider'")
        return read(row)

    monkeypatch.setattr(repricing, "_price", price)
    late = reprice(connection, Selection(computed=True), reason="late")
    assert (late.priced, late.changed_meanwhile) == (0, 1)
    assert first is not None and undo(connection, first) == 0
    assert books.field("messages", message, "cost") == Decimal("0.003")


def test_an_erased_conversation_can_be_priced_and_put_back(
    connection: Connection, books: Books
) -> None:
    conversation = books.conversation()
    own_price(connection)
    terms = {"usage_terms": {"service_tier": "flex"}, "usage_kinds": {"web_searches": 2}}
    message = call(books, conversation, metadata={"text": "secret", "price": "secret"} | terms)
    books.erase(conversation)
    assert books.field("messages", message, "metadata") == terms
    outcome = reprice(connection, Selection(), reason="all")
    assert outcome.id is not None and outcome.priced == 1
    books.erase(conversation)
    assert undo(connection, outcome.id) == 1
    assert books.field("messages", message, "cost") is None


def test_only_what_was_selected(connection: Connection, books: Books) -> None:
    conversation = books.conversation()
    own_price(connection)
    inside = call(books, conversation)
    outside = call(books, conversation, created_at=START + timedelta(days=9))
    selection = Selection(
        provider="inhouse", since=START, until=START + timedelta(days=9), model="llama"
    )
    assert reprice(connection, selection, reason="a week").priced == 1
    asked = books.value("select selection from chatter.repricings")
    assert set(asked) == {"provider", "model", "since", "until"}
    assert books.field("messages", inside, "cost") is not None
    assert books.field("messages", outside, "cost") is None


def test_two_at_once_beside_a_writer_price_everything_once(
    url: str, connection: Connection, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repricing, "BATCH", 7)
    own_price(connection)
    conversations = books.conversations(4)
    for number in range(120):
        call(books, conversations[number % 4])
    outcomes: list[int] = []

    def work() -> None:
        engine = sync_engine(url)
        with engine.connect() as own:
            outcomes.append(reprice(own, Selection(), reason="both").priced)
        engine.dispose()

    def write() -> None:
        with psycopg.connect(url, autocommit=True) as own:
            for number in range(60):
                call(Books(own), conversations[number % 4])

    threads = [threading.Thread(target=target) for target in (work, work, write)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 2
    reprice(connection, Selection(), reason="the rest")
    assert books.row("select count(*), sum(cost) from chatter.messages") == (
        180,
        180 * Decimal("0.003"),
    )
    assert books.value("select count(*) from chatter.repriced_messages") == 180
    assert books.findings() == {}


def test_what_broke_off_is_kept_and_gone_on_with(
    connection: Connection, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repricing, "BATCH", 2)
    own_price(connection)
    conversation = books.conversation()
    for _ in range(6):
        call(books, conversation)

    def pull_the_plug(done: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reprice(connection, Selection(), reason="first", progress=pull_the_plug)
    assert books.totals(conversation).total_cost == 4 * Decimal("0.003")
    assert reprice(connection, Selection(), reason="the rest").priced == 2
    assert books.totals(conversation).total_cost == 6 * Decimal("0.003")
    finished = [row["finished_at"] is not None for row in repricing.repricings(connection)]
    assert finished == [True, False]


@pytest.mark.parametrize("url", ["pg18"], indirect=True)
def test_the_commands(chatter_command: Run, url: str, books: Books) -> None:
    call(books, books.conversation())
    done = chatter_command("prices", "--missing", "--json", url=url)
    assert done.returncode == 1
    (row,) = json.loads(done.stdout)["missing"]
    assert (row["provider"], row["model"], row["calls"], row["known"]) == (
        "inhouse", "llama", 1, False,
    )  # fmt: skip
    assert "Write a price:" in chatter_command("prices", "--missing", url=url).stdout
    for wrong, told in (
        (["--prompt", "two", "--completion", "1"], "--prompt: US dollars like 2.50, not 'two'"),
        (["--prompt", "2"], "needs both"),
        ([], "Either --prompt and --completion, or --ends"),
    ):
        done = chatter_command(
            "price", "inhouse", "llama", "--since", "2026-03-01", *wrong, url=url
        )
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
        assert told in done.stderr
    prices = ["--prompt", "2", "--completion", "10", "--note", "our own machines"]
    assert chatter_command(
        "price", "inhouse", "llama", "--since", "2026-03-01", *prices, url=url
    ).stdout
    assert "our own machines" in chatter_command("prices", url=url).stdout
    found = chatter_command("prices", "--missing", url=url).stdout
    assert ("Write a price:" in found, "marked known" in found) == (False, True)
    assert "Say why" in chatter_command("reprice", url=url).stderr
    assert "Nothing was changed" in chatter_command("reprice", "--dry-run", url=url).stdout
    done = chatter_command("reprice", "--reason", "a price was missing", "--json", url=url)
    told_ = json.loads(done.stdout)
    assert (told_["priced"], told_["models"][0]["after"]) == (1, "0.003")
    assert chatter_command("prices", "--missing", url=url).returncode == 0
    done = chatter_command("reprice", "--undo", told_["repricing"], url=url)
    assert done.stdout.startswith("1 call put back.")
    assert chatter_command("reprice", "--undo", "x", url=url).returncode == 2
    period = ["--since", "2026-02-01", "--until", "2026-02-01"]
    done = chatter_command("reprice", "--reason", "why", *period, url=url)
    assert (done.returncode, "must be before" in done.stderr) == (2, True)


@pytest.mark.parametrize("url", ["pg18"], indirect=True)
def test_a_repricing_is_undone_by_how_its_id_begins(
    chatter_command: Run, url: str, connection: Connection, books: Books
) -> None:
    own_price(connection)
    message = call(books, books.conversation())
    ids = [str(reprice(connection, Selection(), reason="why").id) for _ in range(2)]
    alike = next(n for n, (one, other) in enumerate(zip(*ids, strict=True)) if one != other)
    several = chatter_command("reprice", "--undo", ids[0][:alike], url=url)
    assert (several.returncode, "2 repricings begin with" in several.stderr) == (2, True)
    assert ids[0] in several.stderr and ids[1] in several.stderr
    for none in ("", "%", "_", "ffff", ids[0] + "0"):
        done = chatter_command("reprice", "--undo", none, url=url)
        assert (done.returncode, "There is no repricing" in done.stderr) == (2, True)
    assert books.field("messages", message, "cost") == Decimal("0.003")
    done = chatter_command("reprice", "--undo", ids[0][: alike + 1].upper(), url=url)
    assert done.stdout.startswith("1 call put back.")
