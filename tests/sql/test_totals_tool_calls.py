"""150_totals.sql: workflow_executions.tool_calls."""

from uuid import uuid4

from .books import Books, RunTotals


def test_tool_calls_are_counted_per_run(books: Books) -> None:
    first, second = books.execution(), books.execution()
    calls = books.insert_rows(
        "tool_calls",
        [{"execution_id": run, "tool_name": "search"} for run in (first, first, second)],
    )
    assert books.run_totals(first) == RunTotals(tool_calls=2)
    assert books.run_totals(second) == RunTotals(tool_calls=1)
    books.delete_tool_calls(calls[0], calls[2])
    assert books.run_totals(first) == RunTotals(tool_calls=1)
    assert books.run_totals(second) == RunTotals()


def test_a_tool_call_moves_to_another_run(books: Books) -> None:
    first, second = books.execution(), books.execution()
    call = books.tool_call(first)
    books.change_tool_calls(call, execution_id=second)
    assert books.run_totals(first) == RunTotals()
    assert books.run_totals(second) == RunTotals(tool_calls=1)


def test_a_tool_call_that_stays_in_its_run_does_not_touch_it(books: Books) -> None:
    run = books.execution()
    call = books.tool_call(run)
    version = "select xmin::text from chatter.workflow_executions where id = %s"
    before = books.value(version, run)
    books.change_tool_calls(call, status="completed", duration_ms=12.5)
    assert books.value(version, run) == before
    assert books.run_totals(run) == RunTotals(tool_calls=1)


def test_statements_on_no_tool_call_change_nothing(books: Books) -> None:
    run = books.execution()
    books.tool_call(run)
    assert books.change_tool_calls(uuid4(), status="failed") == 0
    assert books.delete_tool_calls(uuid4()) == 0
    books.connection.execute(
        "insert into chatter.tool_calls (execution_id, tool_name) "
        "select id, 'search' from chatter.workflow_executions where false"
    )
    assert books.run_totals(run) == RunTotals(tool_calls=1)


def test_a_rollback_takes_its_tool_calls_along(books: Books) -> None:
    run = books.execution()
    with books.connection.transaction(force_rollback=True):
        books.tool_call(run)
        assert books.run_totals(run) == RunTotals(tool_calls=1)
    assert books.run_totals(run) == RunTotals()
