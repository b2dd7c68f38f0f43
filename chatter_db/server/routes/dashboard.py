"""/: the dashboard, plain files that ask the API."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

_FILES = Path(__file__).parent.parent / "dashboard"

# Nothing from elsewhere, nothing inline: a message that was taken for markup could do nothing.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
}


class _Static(StaticFiles):
    """The page and its files, with the same headers: it can be asked for here, too."""

    def file_response(self, *given: Any, **more: Any) -> Response:
        answer = super().file_response(*given, **more)
        answer.headers.update(_HEADERS)
        return answer


def install(app: FastAPI) -> None:
    """Serves the page at / and what it needs under /static."""

    @app.get("/", include_in_schema=False)
    async def _() -> FileResponse:
        return FileResponse(_FILES / "index.html", headers=_HEADERS)

    app.mount("/static", _Static(directory=_FILES), name="static")
