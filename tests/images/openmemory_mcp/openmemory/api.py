"""Upstream's REST routes, and /api/v1/stores/ for tests."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from .graph import GraphStoreError
from .service import Service
from .vectors import VectorStoreError


class NewMemory(BaseModel):
    user_id: str
    text: str
    infer: bool = True
    app: str = "openmemory"
    metadata: dict[str, Any] = {}


class Deletion(BaseModel):
    memory_ids: list[str]
    user_id: str


def application(service: Service, version: str, broken: bool) -> FastAPI:
    """The application. With `broken`, every route below /api fails with 500."""
    app = FastAPI(title="OpenMemory API", version=version)

    if broken:

        @app.middleware("http")
        async def refuse(_request: Request, _failure: Any) -> JSONResponse:
            return JSONResponse({"detail": "Internal Server Error"}, status_code=500)

    @app.exception_handler(VectorStoreError)
    @app.exception_handler(GraphStoreError)
    @app.exception_handler(SQLAlchemyError)
    async def as_upstream(_request: Request, failure: Exception) -> JSONResponse:
        # Upstream reports the failure of a store as 200 with an error in the body.
        return JSONResponse({"error": str(failure)})

    @app.post("/api/v1/memories/")
    def create_memory(memory: NewMemory) -> dict[str, Any]:
        return service.add(memory.user_id, memory.text, memory.app)

    @app.get("/api/v1/memories/")
    def list_memories(user_id: str, page: int = Query(1, ge=1), size: int = Query(10, ge=1, le=1000)) -> dict[str, Any]:
        return service.page(user_id, page, size)

    @app.get("/api/v1/memories/{memory_id}")
    def get_memory(memory_id: str) -> dict[str, Any]:
        found = service.get(memory_id)
        if found is None:
            raise HTTPException(404, "Memory not found")
        return found

    @app.delete("/api/v1/memories/")
    def delete_memories(deletion: Deletion) -> dict[str, str]:
        return {"message": f"Successfully deleted {service.delete(deletion.memory_ids)} memories"}

    @app.delete("/api/v1/memories/{memory_id}")
    def delete_memory(memory_id: str) -> dict[str, str]:
        if not service.delete([memory_id]):
            raise HTTPException(404, "Memory not found")
        return {"message": "Successfully deleted 1 memories"}

    @app.get("/api/v1/search/")
    def search(user_id: str, query: str, limit: int = Query(10, ge=1, le=100)) -> dict[str, Any]:
        return {"results": service.search(user_id, query, limit)}

    @app.get("/api/v1/config/")
    def config() -> dict[str, Any]:
        return service.config()

    @app.get("/api/v1/stores/")
    def stores(user_id: str) -> dict[str, dict[str, str]]:
        return service.stores(user_id)

    return app
