"""What browsers are told of the dashboard's files."""

import pytest

from tests.server.conftest import Site


@pytest.mark.parametrize("path", ["/", "/static/index.html", "/static/js/main.js"])
async def test_nothing_of_the_dashboard_can_be_framed_or_taken_for_another_kind(
    site: Site, path: str
) -> None:
    answer = await site.client().get(path)
    assert answer.status_code == 200
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
