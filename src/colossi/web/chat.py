"""
The page to talk to a served model: plain files of our own, and rules for the browser that nothing else runs.

    served = colossi.serve.api.app(served, pages=[chat_page()])

The page asks /v1/models and /v1/chat/completions of the server that it comes from, as any client would.
Markdown is rendered in the browser, as text nodes only; so an answer costs the server nothing more.
"""

from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse

FILES = Path(__file__).parent / "static" / "chat"
KINDS = {"chat.js": "text/javascript", "markdown.js": "text/javascript", "chat.css": "text/css"}
HEADERS = {
    # Nothing from elsewhere, no script inside the page, no frame around it.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def chat_page() -> APIRouter:
    """Its routes: / and what it loads."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def index() -> FileResponse:
        return FileResponse(FILES / "index.html", headers=HEADERS)

    @router.get("/chat/{name}")
    async def part(name: str) -> FileResponse:
        if name not in KINDS:
            raise HTTPException(404, f"the page has no {name}")
        return FileResponse(FILES / name, media_type=KINDS[name], headers=HEADERS)

    return router
