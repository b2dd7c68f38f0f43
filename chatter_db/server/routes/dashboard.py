"""/: the dashboard, plain files that ask the API."""

from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

_FILES = Path(__file__).parent.parent / "dashboard"

# Nothing from elsewhere, nothing inline: a message that was taken for markup could do nothing.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def install(app: FastAPI) -> None:
    """Serves the page at / and what it needs under /static."""

    @app.get("/", include_in_schema=False)
    async def _() -> FileResponse:
        return FileResponse(_FILES / "index.html", headers=_HEADERS)

    app.mount("/static", StaticFiles(directory=_FILES), name="static")
